# Developer's commands; users need only `pip install .`. `make help` lists them.
PYTHON ?= python3
UNAME := $(shell uname)
LIB := $(if $(filter Darwin,$(UNAME)),libpymtp.dylib,libpymtp.so)

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | sort

dev: ## build the library and the generated bindings into the source tree, so that `python -m pytest` uses it
	cmake -S . -B build/dev -G Ninja && cmake --build build/dev --target pymtp
	mkdir -p pymtp/lib pymtp/include && cp build/dev/$(LIB) pymtp/lib/ && cp csrc/pymtp.h pymtp/include/
	$(PYTHON) pymtp/_build_ffi.py csrc/pymtp.h pymtp/_ffi.py

test: dev ## run all tests against the source tree
	$(PYTHON) -m pytest

asan: ## the whole test suite under AddressSanitizer and LeakSanitizer; ARGS="--jobs 2 tests/test_gguf.py" for a part
	$(PYTHON) tools/sanitize.py address $(ARGS)
ubsan: ## the whole test suite under UndefinedBehaviorSanitizer
	$(PYTHON) tools/sanitize.py undefined $(ARGS)
tsan: ## C tests under ThreadSanitizer, then a minute of everything at once on one model (tests/c/test_threads.c)
	cmake -S . -B build/tsan -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=thread && cmake --build build/tsan
	ctest --test-dir build/tsan --output-on-failure && build/tsan/test_threads 60
# Valgrind shows programs a processor without AVX-512, so all kernel sets there are AVX2 and scalar; names choose AVX2 where a test takes them.
AVX2_TESTS = "test_ops avx2" "test_head avx2" "test_attend avx2" test_matmul test_elem test_encode "test_engine tiny-e2b" test_threads
valgrind: ## the AVX2 kernels and the engine on them under valgrind
	cmake -S . -B build/valgrind -G Ninja -DPYMTP_TESTS=ON -DCMAKE_C_FLAGS='-g -DPYMTP_SMALL_TILES' && cmake --build build/valgrind
	for t in $(AVX2_TESTS); do echo $$t; PYMTP_CPU=avx2 valgrind -q --fair-sched=yes --error-exitcode=9 --leak-check=full build/valgrind/$$t || exit 1; done
soak: dev ## mixed sessions with cancellation, memory flat: make soak SECONDS=1800
	PYTHONPATH=. $(PYTHON) tools/soak.py --seconds $(SECONDS)

fault: ## every allocation, read and thread fails in turn, under AddressSanitizer and UBSan
	cmake -S . -B build/replay -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=address,undefined
	cmake --build build/replay --target test_fault
	build/replay/test_fault --all

FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
SECONDS ?= 600
fuzz: $(if $(filter chat,$(TARGET)),dev) ## libFuzzer on one target (clang; chat: atheris): make fuzz TARGET=gguf SECONDS=600; new inputs go to build/fuzz/found/TARGET
	mkdir -p build/fuzz/found/$(TARGET)
ifeq ($(TARGET),chat)
	cd build/fuzz && PYTHONPATH=$(CURDIR) $(PYTHON) $(CURDIR)/tests/fuzz/chat.py --fuzz -max_total_time=$(SECONDS) -max_len=1024 \
	    -timeout=25 -print_final_stats=1 $(FUZZFLAGS) found/chat $(CURDIR)/tests/fuzz/corpus/chat
else
	CC=clang cmake -S . -B build/fuzz -G Ninja -DPYMTP_FUZZ=ON && cmake --build build/fuzz --target fuzz_$(TARGET)
	cd build/fuzz && ./fuzz_$(TARGET) -max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=25 -print_final_stats=1 \
	    $(FUZZFLAGS) found/$(TARGET) $(CURDIR)/tests/fuzz/corpus/$(TARGET)
endif

replay: dev ## every stored input through its fuzz target, under AddressSanitizer and UBSan
	cmake -S . -B build/replay -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=address,undefined
	cmake --build build/replay --target $(FUZZERS:%=fuzz_%)
	for t in $(FUZZERS); do build/replay/fuzz_$$t tests/fuzz/corpus/$$t || exit 1; done
	PYTHONPATH=. $(PYTHON) tests/fuzz/chat.py tests/fuzz/corpus/chat

LLVM_COV ?= llvm-cov-14
LLVM_PROFDATA ?= llvm-profdata-14
coverage: ## lines and branches by file that the stored inputs of all fuzz targets reach, with those in build/fuzz/found (clang)
	CC=clang cmake -S . -B build/coverage -G Ninja -DPYMTP_TESTS=ON -DCMAKE_BUILD_TYPE=Debug \
	    -DCMAKE_C_FLAGS="-O1 -DPYMTP_SMALL_TILES -fprofile-instr-generate -fcoverage-mapping"
	cmake --build build/coverage --target $(FUZZERS:%=fuzz_%)
	for t in $(FUZZERS); do mkdir -p build/fuzz/found/$$t && LLVM_PROFILE_FILE=build/coverage/$$t.profraw build/coverage/fuzz_$$t \
	    tests/fuzz/corpus/$$t build/fuzz/found/$$t 2>build/coverage/$$t.log || exit 1; done
	$(LLVM_PROFDATA) merge -o build/coverage/all.profdata $(FUZZERS:%=build/coverage/%.profraw)
	$(LLVM_COV) report build/coverage/fuzz_$(firstword $(FUZZERS)) $(FUZZERS:%=-object build/coverage/fuzz_%) \
	    -instr-profile build/coverage/all.profdata $(wildcard csrc/*/*.c)

clean: ## remove what was built
	rm -rf build pymtp/lib pymtp/include pymtp/_ffi.py

.PHONY: help dev test asan ubsan tsan valgrind soak fault fuzz replay coverage clean
