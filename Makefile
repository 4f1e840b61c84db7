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

SANITIZED = cmake -S . -B build/$@ -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=$(1) && cmake --build build/$@ && ctest --test-dir build/$@ --output-on-failure
asan: ## C tests under AddressSanitizer and LeakSanitizer
	$(call SANITIZED,address)
ubsan: ## C tests under UndefinedBehaviorSanitizer
	$(call SANITIZED,undefined)
tsan: ## C tests under ThreadSanitizer
	$(call SANITIZED,thread)

fault: ## every allocation, read and thread fails in turn, under AddressSanitizer and UBSan
	cmake -S . -B build/replay -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=address,undefined
	cmake --build build/replay --target test_fault
	build/replay/test_fault --all

FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
SECONDS ?= 600
fuzz: ## libFuzzer on one target (clang): make fuzz TARGET=gguf SECONDS=600; new inputs go to build/fuzz/found/TARGET
	CC=clang cmake -S . -B build/fuzz -G Ninja -DPYMTP_FUZZ=ON && cmake --build build/fuzz --target fuzz_$(TARGET)
	mkdir -p build/fuzz/found/$(TARGET)
	cd build/fuzz && ./fuzz_$(TARGET) -max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=25 -print_final_stats=1 \
	    $(FUZZFLAGS) found/$(TARGET) $(CURDIR)/tests/fuzz/corpus/$(TARGET)

replay: ## every stored input through its fuzz target, under AddressSanitizer and UBSan
	cmake -S . -B build/replay -G Ninja -DPYMTP_TESTS=ON -DPYMTP_SANITIZE=address,undefined
	cmake --build build/replay --target $(FUZZERS:%=fuzz_%)
	for t in $(FUZZERS); do build/replay/fuzz_$$t tests/fuzz/corpus/$$t || exit 1; done

clean: ## remove what was built
	rm -rf build pymtp/lib pymtp/include pymtp/_ffi.py

.PHONY: help dev test asan ubsan tsan fault fuzz replay clean
