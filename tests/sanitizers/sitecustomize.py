"""In every interpreter that tools/sanitize.py lets the tests start: leaks are counted when the program ends and while the interpreter stands.
Later it has torn down its modules, and what they held, models and sessions too, would count as lost."""
import atexit
import ctypes

if check := getattr(ctypes.CDLL(None), "__lsan_do_leak_check", None):
    atexit.register(check)  # the first to be registered is the last to run; the check at the process's end does not repeat it
