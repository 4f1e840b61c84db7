"""The command line as a user meets it: output, exit codes, one-line errors, the interactive chat in a pseudo-terminal."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

import pymtp
from pymtp import cli
from pymtp.cli import base

COMMAND = [sys.executable, "-m", "pymtp"]


def pymtp_cli(*args, stdin="", **env):
    return subprocess.run([*COMMAND, *map(str, args)], input=stdin, capture_output=True, text=True, env={**os.environ, **env}, timeout=300)


def refused(done, code, *words):
    """One line on stderr, nothing on stdout, the exit code."""
    assert done.returncode == code, done.stderr
    assert done.stdout == "" and done.stderr.startswith("pymtp: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


@pytest.fixture(scope="module")
def target(data):
    return data / "tiny-26b.gguf"


GREEDY = ("--temperature", 0, "--max-tokens", 12, "--ignore-eos", "--threads", 1)


def test_version_and_help():
    version = pymtp_cli("--version").stdout
    assert version.startswith(f"pymtp    {pymtp.__version__}\n") and "kernels" in version and ", ABI " in version and "threads" in version
    assert "run" in pymtp_cli("--help").stdout and "--repetition-penalty" in pymtp_cli("run", "-h").stdout
    assert pymtp_cli().returncode == 2


def test_usage_errors(target):
    refused(pymtp_cli("nope"), 2, "nope")
    refused(pymtp_cli("run"), 2, "MODEL")
    refused(pymtp_cli("run", target, "hi", "--draft", 17), 2, "--draft")
    refused(pymtp_cli("run", target, "hi", "--draft", "many"), 2, "--draft")
    refused(pymtp_cli("run", target, "hi", "--raw", "--system", "x"), 2, "--raw")
    refused(pymtp_cli("run", target, "hi", "--seed", "x"), 2, "--seed")
    refused(pymtp_cli("config"), 2, "--cflags")


HUGE = ("99999999999999999999", "100000000000000", "9" * 4000)


@pytest.mark.parametrize("number", HUGE, ids=["20 digits", "15 digits", "4000 digits"])
def test_at_most_so_many_tokens_of_a_text(data, tmp_path, number):
    """More than there are means all; no memory is reserved for what the file does not have."""
    text, out = tmp_path / "text.txt", tmp_path / "out.gguf"
    text.write_text("a few words\n" * 3)
    target, drafter = data / "tiny-31b.gguf", data / "tiny-31b-drafter.gguf"
    compared = pymtp_cli("quantize", "compare", target, target, "--text", text, "--tokens", number)
    assert compared.returncode == 0 and re.search(r"^\d\d tokens predicted", compared.stdout, re.M), compared.stderr
    done = pymtp_cli("quantize", "add-centroids", drafter, out, "--target", target, "--text", text, "--tokens", number, "--clusters", 16, "--top-k", 2)
    assert done.returncode == 0 and out.exists(), done.stderr
    out.unlink()
    done = pymtp_cli("quantize", "imatrix", target, text, "-o", out, "--piece", number, "--pieces", number)
    assert done.returncode == 0 and "in 1 pieces" in done.stdout, done.stderr
    assert pymtp_cli("show", target, "--items", number).returncode == 0


@pytest.mark.parametrize("number", [HUGE[0], HUGE[2], "9" * 5000], ids=["20 digits", "4000 digits", "5000 digits"])
def test_numbers_beyond_all_bounds_are_usage_or_argument_errors(target, number):
    refused(pymtp_cli("bench", target, "--context", number), 2, "--context", "expected numbers of tokens", "999")
    for option in ("--context", "--max-tokens", "--threads", "--top-k", "--seed"):
        done = pymtp_cli("run", target, "Hi", option, number)
        refused(done, 1 if done.returncode == 1 else 2, option if done.returncode == 2 else option.strip("-").replace("-", "_"))
        assert len(done.stderr) < 1100


def test_file_errors(target, data, tmp_path):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + bytes(100))
    refused(pymtp_cli("run", tmp_path / "none.gguf", "hi"), 1, "none.gguf")
    refused(pymtp_cli("run", bad, "hi"), 1, "bad.gguf")
    refused(pymtp_cli("show", bad), 1, "bad.gguf")
    refused(pymtp_cli("show", tmp_path), 1)
    refused(pymtp_cli("run", target, "hi", "--drafter", data / "trained-py-drafter.gguf"), 1, "trained-py-drafter.gguf")
    refused(pymtp_cli("run", target, "hi", "--top-p", 3, "--raw"), 1, "top_p")
    refused(pymtp_cli("run", target, "hi", "--context", 10**9), 1, "context")


def test_raw_and_chat(target):
    with pymtp.Model(target, threads=1) as model:
        options = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
        raw = model.complete("def f", **options).text
        chat = model.chat([{"role": "system", "content": "Be"}, {"role": "user", "content": "Hi"}], **options)
    for draft in ("auto", 0, 3):
        assert pymtp_cli("run", target, "def f", "--raw", "--draft", draft, *GREEDY).stdout == raw.rstrip("\n") + "\n" or raw.endswith("\n")
    assert pymtp_cli("run", target, "--raw", "--drafter", "none", *GREEDY, stdin="def f").stdout.startswith(raw)
    done = pymtp_cli("run", target, "-", "--system", "Be", "--json", *GREEDY, stdin="Hi")
    out = json.loads(done.stdout)
    assert out["content"] == chat.content and out["tokens"] == chat.tokens and out["finish_reason"] == "length"
    assert out["stats"]["tokens"] == 12 and out["seed"] >= 0


def test_stats_and_seed(target):
    args = ("run", target, "Hi", "--raw", "--max-tokens", 8, "--seed", 7, "--temperature", 1.2, "--ignore-eos", "--stats", "--draft", 2)
    one, two = pymtp_cli(*args), pymtp_cli(*args)
    assert one.stdout == two.stdout
    assert re.search(r"answer: 8 tokens, \d+ passes, [\d.]+ tokens/s; length, seed 7", one.stderr)
    assert re.search(r"drafts: \d+ of \d+ accepted; by position \d+/\d+", one.stderr)
    assert "\x1b" not in one.stderr + one.stdout


def test_stop(target):
    text = json.loads(pymtp_cli("run", target, "def f", "--raw", "--json", *GREEDY).stdout)["text"]
    stop = text[4:6]
    out = json.loads(pymtp_cli("run", target, "def f", "--raw", "--json", "--stop", "never seen", "--stop", stop, *GREEDY).stdout)
    assert out["text"] == text[:text.index(stop)] and out["finish_reason"] == "stop"


def test_malformed_stdin(target):
    done = subprocess.run([*COMMAND, "run", str(target), "--raw", *map(str, GREEDY)], input=b"a\xff\xfeb", capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_show(target, data):
    text = pymtp_cli("show", target).stdout
    for part in ("general.architecture", '"gemma4"', "blk.0-5.attn_norm.weight", "F32", "memory", "cache at full context", "weights"):
        assert part in text, part
    out = json.loads(pymtp_cli("show", target, "--json").stdout)
    embed = next(t for t in out["tensors"] if t["name"] == "token_embd.weight")
    assert embed["dims"] == [128, 1280] and embed["bytes"] == 4 * 128 * 1280 and embed["type"] == "F32"
    assert out["metadata"]["gemma4.block_count"] == 6
    drafter = json.loads(pymtp_cli("show", data / "tiny-e2b-drafter.gguf", "--json").stdout)
    assert set(drafter["memory"]) == {"weights"}


@pytest.mark.parametrize("name", ["tiny-26b", "tiny-e2b", "tiny-31b"])
def test_show_estimates_what_a_model_uses(data, name):
    """f16 caches: the estimate equals what the open model says."""
    memory = json.loads(pymtp_cli("show", data / f"{name}.gguf", "--json").stdout)["memory"]
    with pymtp.Model(data / f"{name}.gguf", drafter=None, threads=1) as model:
        assert memory["cache_per_1024_positions"] == 1024 * model.info.kv_bytes_per_position
        assert memory["cache_of_sliding_layers"] == model.info.kv_bytes_fixed


def test_show_of_a_vocabulary(vocab_gguf):
    done = pymtp_cli("show", vocab_gguf)
    assert done.returncode == 0 and '"..."' in done.stdout and len(done.stdout) < 20000


def test_one_shot_interrupt(target):
    child = subprocess.Popen([*COMMAND, "run", str(target), "x", "--raw", "--ignore-eos", "--context", "4000", "--draft", "0"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.read(1)  # it has begun to answer
    child.send_signal(signal.SIGINT)
    child.stdout.read()
    assert child.wait(60) == 130 and b"Traceback" not in child.stderr.read()


def test_broken_pipe(target):
    child = subprocess.Popen([*COMMAND, "run", str(target), "x", "--raw", "--ignore-eos", "--context", "4000"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout.read(1)
    child.stdout.close()
    assert child.wait(60) == 1 and b"Traceback" not in child.stderr.read()


def test_memory_that_python_lacks():
    """In a command as in any part of it: one line."""
    code = "import click, pymtp.cli as cli; cli.run_command(click.Command('c', callback=lambda: bytearray(2**62)), 'c', [])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "pymtp: out of memory\n")


@pytest.mark.parametrize("error, shown", [
    ("x\x1b]0;owned\x07: expected\n a\x9bb\udcff", "x\\x1b]0;owned\\x07: expected a\\x9bb\\udcff"),
    ("model\u202efugg.exe\u202c: \u2066a\u2069", "model\\u202efugg.exe\\u202c: \\u2066a\\u2069"),  # what turns text around
    ("tensor '" + "n" * 1_000_000 + "': expected", "tensor '" + "n" * 992 + "..."),
])
def test_errors_and_warnings_are_one_short_line_without_commands(capsys, error, shown):
    """Whatever a file put into them."""
    with pytest.raises(SystemExit):
        cli.fail(error, 1)
    base.warn(error)
    assert capsys.readouterr().err == f"pymtp: {shown}\npymtp: warning: {shown}\n"


def test_tables_do_not_command_the_terminal():
    lines = base.table(("A", "B"), [("a\x1b[31m\u2028\u2067", "b"), ("long" * 100, "c")])
    assert lines[1].split() == ["a\\x1b[31m\\u2028\\u2067", "b"] and lines[2].split() == ["long" * 50 + "...", "c"]


@pytest.mark.parametrize("command, code, words", [
    ("--version >&-", 0, ""), ("list >&-", 0, ""), ("list 2>&-", 0, ""), ("run {target} Hi {greedy} >&-", 0, ""), ("run {target} {greedy} <&-", 0, "."),
    ("run {target} Hi {greedy} 2>&-", 0, "."), ("run {target} Hi {greedy} --stats <&- >&- 2>&-", 0, ""), ("nope 2>&-", 2, ""), ("nope >&-", 2, "nope"),
    ("show {data}/none.gguf >&-", 1, "none.gguf"), ("rm x <&-", 1, "x"),
])
def test_closed_streams(target, data, tmp_path, command, code, words):
    """What would go to a closed stream is lost, no more."""
    line = command.format(target=target, data=data, greedy=" ".join(map(str, GREEDY)))
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m pymtp {line}"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYMTP_HOME": str(tmp_path)})
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and re.search(words, done.stdout + done.stderr)


@pytest.mark.parametrize("name", [b"none\xff.gguf", "n\u00f6ne.gguf".encode()])
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_a_stream_cannot_say(tmp_path, name, encoding):
    done = subprocess.run([*COMMAND, "show", os.fsencode(tmp_path) + b"/" + name], capture_output=True, timeout=300, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 1 and done.stderr.startswith(b"pymtp: ") and done.stderr.count(b"\n") == 1 and b"ne" in done.stderr, done.stderr


def test_a_full_disk(tmp_path):
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m pymtp --version > /dev/full"], capture_output=True, text=True, timeout=300)
    refused(done, 1, "No space left")


class Terminal:
    """A pymtp run in a pseudo-terminal."""

    def __init__(self, *args, home):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(XDG_STATE_HOME=str(home), TERM="dumb", NO_COLOR="1")
            os.execv(sys.executable, [*COMMAND, *map(str, args)])
        self.seen = ""

    def expect(self, pattern, seconds=60):
        """Waits for a pattern in the output since the last match; returns the output up to its end."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.seen, re.S)):
            assert time.monotonic() < end, f"{pattern!r} not in {self.seen[-2000:]!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:  # the child has closed the terminal
                    self.seen += "<end>"
        out, self.seen = self.seen[:match.end()], self.seen[match.end():]
        return out

    def interrupt(self, pattern):
        """Ctrl-C until it is seen: Python's readline may miss one that comes while it handles a key."""
        for _ in range(20):
            self.send("\x03")
            try:
                return self.expect(pattern, 1)
            except AssertionError:
                pass
        return self.expect(pattern)

    def send(self, text):
        os.write(self.fd, text.encode())

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_interactive(target, tmp_path):
    t = Terminal("run", target, "--temperature", "0", "--max-tokens", "6", "--stats", "--threads", "1", home=tmp_path)
    t.expect(r"drafts by tiny-26b-drafter.gguf.*>>> ")
    t.send("Hello\n")
    first = t.expect(r"answer: \d+ tokens.*>>> ")
    assert " 0 reused" in first
    t.send('"""two\nlines"""\n')
    assert " 0 reused" not in t.expect(r"answer: \d+ tokens.*>>> ")  # the chat goes on from its cache
    t.send("/nope\n")
    t.expect(r"no command /nope.*>>> ")
    t.send("/clear\n")
    t.expect(">>> ")
    t.send("half a line")
    t.expect("half a line")
    t.interrupt(">>> ")  # drops it
    t.send("/help\n")
    t.expect("/exit.*>>> ")
    t.send("\x04")  # Ctrl-D
    t.expect("<end>")
    assert t.status() == 0
    assert "Hello" in (tmp_path / "pymtp" / "history").read_text()


def test_interrupt_stops_the_answer_only(target, tmp_path):
    t = Terminal("run", target, "--temperature", "0", "--ignore-eos", "--draft", "0", "--raw", "--threads", "1", "--context", "4000", home=tmp_path)
    t.expect(">>> ")
    t.send("Hello\n")
    t.expect(r"Hello\r\n.{200}")  # well into the answer
    t.interrupt(r"\n>>> ")
    t.send("/exit\n")
    t.expect("<end>")
    assert t.status() == 0
