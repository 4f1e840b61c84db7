"""The whole test suite under one sanitizer: the C library and C tests built with it, Python loading that library (`make asan`, `make ubsan`).

    python tools/sanitize.py address                          # every file of tests/
    python tools/sanitize.py undefined tests/test_gguf.py     # some of them

What always holds: only pymtp's own C code is instrumented, interpreter and extensions run as they are. A test file is one pytest process, so
that a finding is known by its file and leaks are counted after each. AddressSanitizer comes into the interpreter by LD_PRELOAD and so into
every program the tests start; PYTHONMALLOC=malloc hands it the interpreter's own allocations too. Findings go to files in
build/SANITIZER/log, so no test can swallow them. A leak is a finding unless tests/sanitizers/leaks.txt names the module that allocated."""
import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = {"address": "asan", "undefined": "ubsan"}
FRAME = re.compile(r"#\d+ \((.*?)\) (.*)")  # as FRAME_FORMAT has them
FRAME_FORMAT = "'#%n (%m) %f %S'"
RUNTIME = ("libasan", "libc.so", "ld-linux")  # what allocates on behalf of its caller


def build(sanitizer):
    """The folder with library and C tests under the sanitizer; bindings and header go into the source tree."""
    folder = ROOT / "build" / NAMES[sanitizer]
    subprocess.run(["cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DPYMTP_TESTS=ON", f"-DPYMTP_SANITIZE={sanitizer}"], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder], check=True)
    (ROOT / "pymtp" / "include").mkdir(exist_ok=True)
    shutil.copy(ROOT / "csrc" / "pymtp.h", ROOT / "pymtp" / "include")
    subprocess.run([sys.executable, ROOT / "pymtp" / "_build_ffi.py", ROOT / "csrc" / "pymtp.h", ROOT / "pymtp" / "_ffi.py"], check=True)
    return folder


def environment(sanitizer, folder, log):
    """exitcode=0 leaves leaks to leaks.txt; errors abort, which no test can take for an expected exit."""
    out = {**os.environ, "PYMTP_LIB": str(folder / "libpymtp.so"), "PYMTP_TEST_BUILD": str(folder), "PYMTP_TEST_SANITIZER": sanitizer,
           "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'sanitizers'}",
           "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={log}/report:stack_trace_format={FRAME_FORMAT}"}
    if sanitizer == "address":
        runtime = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
        out |= {"LD_PRELOAD": str(pathlib.Path(runtime).resolve()), "PYTHONMALLOC": "malloc",
                # intercept_tls_get_addr=0: once in a dozen runs gcc 12's LeakSanitizer dies in the thread-local data that this tracks
                "ASAN_OPTIONS": f"abort_on_error=1:exitcode=0:allocator_may_return_null=1:intercept_tls_get_addr=0:log_path={log}/report:"
                                f"stack_trace_format={FRAME_FORMAT}:malloc_context_size=12"}
    return out


def allowed():
    """Modules of tests/sanitizers/leaks.txt: lines of a name's start and, after #, why."""
    lines = (ROOT / "tests" / "sanitizers" / "leaks.txt").read_text().splitlines()
    return tuple(line.partition("#")[0].strip() for line in lines if line.partition("#")[0].strip())


def allocator(leak):
    """(module, function) that asked for the memory of a leak."""
    for module, function in FRAME.findall(leak):
        if not pathlib.Path(module).name.startswith(RUNTIME):
            return pathlib.Path(module).name, function
    return "unknown", ""


def findings(log, modules):
    """(findings, allowed leaks by module) of the reports in a folder."""
    out, ignored = [], {}
    for report in sorted(log.glob("report.*")):
        text = report.read_text(errors="replace")
        for leak in text.split("\n\n"):
            if "Direct leak of" not in leak:  # the indirect ones hang on these
                continue
            module, function = allocator(leak)
            if module.startswith(modules):
                ignored[module] = ignored.get(module, 0) + 1
            else:
                out.append(f"{report}: {leak.strip().splitlines()[0]} {module} {function}")
        errors = [line for line in text.splitlines() if re.search("ERROR: AddressSanitizer|runtime error:|fatal error", line)]
        if errors or "detected memory leaks" not in text:
            out.append(f"{report}: {(errors or text.splitlines() or ['empty'])[0]}")
    return out, ignored


def run(file, sanitizer, folder, log):
    """One test file: (name, pytest's exit status, its last lines, findings, ignored leaks, seconds)."""
    place = log / file.stem
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pytest", "-n0", "-q", "-rfE", "--no-header", "-p", "no:cacheprovider", file], cwd=ROOT,
                          capture_output=True, text=True, errors="replace", env=environment(sanitizer, folder, place))
    (place / "pytest.txt").write_text(done.stdout + done.stderr)
    return file, done.returncode, done.stdout.splitlines(), *findings(place, allowed()), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sanitizer", choices=NAMES)
    parser.add_argument("files", nargs="*", type=pathlib.Path, help="test files; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="test files side by side")
    options = parser.parse_intermixed_args()
    files = [f.resolve() for f in options.files] or sorted((ROOT / "tests").glob("test_*.py"))
    folder = build(options.sanitizer)
    bad, ignored = 0, {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(run, f, options.sanitizer, folder, folder / "log") for f in files]
        for job in concurrent.futures.as_completed(jobs):
            file, status, lines, found, passed_over, seconds = job.result()
            failed = status not in (0, 5)  # 5: nothing to run here, all skipped
            bad += failed or bool(found)
            print(f"{file.name}: {lines[-1] if lines else 'no output'}; {len(found)} findings, {seconds:.0f} s", flush=True)
            for line in found + ([x for x in lines if x.startswith(("FAILED", "ERROR"))] or lines[-20:] if failed else []):
                print(f"  {line}", flush=True)
            for module, n in passed_over.items():
                ignored[module] = ignored.get(module, 0) + n
    print(f"{len(files)} files, {bad} with failures or findings; reports in {folder / 'log'}")
    if ignored:
        print("leaks of modules named in leaks.txt: " + ", ".join(f"{m} {n}" for m, n in sorted(ignored.items())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
