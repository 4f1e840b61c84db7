"""Every command as a process, in a pseudo-terminal and in a pipe; from nothing to an answer with models from a server that speaks the
Hub's protocol; Ctrl-C in each phase: exit code 130, no traceback, the terminal as it was."""
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import termios
import threading
import time

import micro_models
import pexpect
import pytest
from hub_server import HubServer
from test_cli import COMMAND, refused

import pymtp.memory
from pymtp import ResourceError
from pymtp.cli import base, chat
from pymtp.cli.drafts import WAITING, DraftView

LOOP = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # minutes inside of C, deaf to signals
GREEDY = ("--temperature", "0", "--max-tokens", "8", "--ignore-eos", "--threads", "1")
NAME = "gemma4-e2b"


@pytest.fixture
def server(data):
    """Offers the small pair of E2B structure in the first repository of the catalogue's gemma4-e2b, and another one."""
    content = {"gemma-4-E2B-it-Q4_K_M.gguf": (data / "tiny-e2b.gguf").read_bytes(), "mtp-gemma-4-E2B-it.gguf": (data / "tiny-e2b-drafter.gguf").read_bytes()}
    with HubServer() as running:
        running.add("ggml-org/gemma-4-E2B-it-GGUF", content)
        running.add("user/other", {"other-F32.gguf": content["gemma-4-E2B-it-Q4_K_M.gguf"]})
        yield running


@pytest.fixture
def machine(tmp_path, server):
    """The environment of a fresh machine whose Hub is the server."""
    gone = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "NO_COLOR", "PYMTP_CONFIG", "PYMTP_CATALOGUE")
    env = {name: value for name, value in os.environ.items() if name not in gone}
    return env | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_STATE_HOME": str(tmp_path / "state"),
                  "PYMTP_HOME": str(tmp_path / "pymtp"), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": server.url,
                  "HF_HUB_DISABLE_XET": "1", "TERM": "xterm", "COLUMNS": "100"}


def pipe(machine, *args, stdin="", **env):
    return subprocess.run([*COMMAND, *map(str, args)], input=stdin, capture_output=True, text=True, env=machine | env, timeout=120)


class Terminal:
    """A command in a pseudo-terminal. code: Python to run in the process instead of `python -m pymtp`."""

    def __init__(self, machine, *args, code=None, **env):
        command = ["-c", code] if code else COMMAND[1:]
        self.child = pexpect.spawn(sys.executable, [*command, *map(str, args)], env=machine | env, timeout=60, encoding="utf-8", codec_errors="replace", dimensions=(40, 100))
        self.before = termios.tcgetattr(self.child.child_fd)

    def expect(self, pattern):
        self.child.expect(pattern)
        return self.child.before + self.child.after

    def send(self, text):
        self.child.send(text)

    def end(self):
        """All output that is left, and the exit code. The terminal is as it was, the cursor shown, colours off."""
        self.child.expect(pexpect.EOF)
        out = self.child.before
        self.after = termios.tcgetattr(self.child.child_fd)
        self.child.close()
        return out, self.child.exitstatus

    def interrupted(self):
        """After one Ctrl-C: exit code 130 within seconds, one line at most."""
        began = time.monotonic()
        self.send("\x03")
        out, code = self.end()
        assert code == 130, out
        assert "Traceback" not in out and time.monotonic() - began < 20
        assert self.after == self.before
        assert out.count("\x1b[?25l") <= out.count("\x1b[?25h")  # a hidden cursor is shown again
        text = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|\r", "", out.rpartition("^C")[2])
        assert len([line for line in text.split("\n") if line.strip() and "━" not in line]) <= 1, text  # bars stay where they were
        return out


def unusable():
    """Settings with which no request can be made on this machine, and what the error says."""
    yield {"SSL_CERT_FILE": "/nonexistent"}, "No such file"
    yield {"HTTP_PROXY": "foo://user:SECRET@127.0.0.1:1"}, "foo"
    if not importlib.util.find_spec("socksio"):
        yield {"ALL_PROXY": "socks5://user:SECRET@127.0.0.1:1"}, "socks"


@pytest.mark.parametrize("env, word", list(unusable()), ids=lambda v: "".join(v))
def test_settings_with_which_no_request_can_be_made(machine, env, word):
    done = pipe(machine, "pull", "user/other", **env)
    refused(done, 1, "pymtp: user/other", word)
    assert "SECRET" not in done.stderr


# ---- from nothing to an answer ----


def test_one_command(machine, server):
    """run on an empty machine: target and drafter are pulled, checked, paired; text comes out. Then without a network."""
    done = pipe(machine, "run", NAME, "Hi", "--json", *GREEDY)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert len(first["tokens"]) == 8 and first["stats"]["drafted"] > 0 and "\x1b" not in done.stderr
    asked = len(server.requests)
    again = pipe(machine, "run", NAME, "Hi", *GREEDY, "--offline")
    assert again.returncode == 0 and again.stdout.rstrip("\n") == first["content"].rstrip("\n") and len(server.requests) == asked
    plain = pipe(machine, "run", NAME, "Hi", "--json", "--drafter", "none", *GREEDY, HF_HUB_OFFLINE="1")
    assert json.loads(plain.stdout)["tokens"] == first["tokens"]
    refused(pipe(machine, "run", "gemma4-12b", "Hi", "--offline"), 1, "gemma4-12b", "offline")


def test_one_command_in_a_terminal(machine, server):
    server.rate = 20_000_000  # bars are seen
    t = Terminal(machine, "run", NAME, *GREEDY)
    assert "gemma-4-E2B" in t.expect("MB|MiB|bytes")
    t.expect("drafts by .*>>> ")
    t.send("Hello\r")
    t.expect("Hello.*>>> ")
    t.send("\x04")
    assert t.end()[1] == 0


# ---- the verbs on pulled models ----


def test_pull_list_show_rm(machine):
    empty = pipe(machine, "list")
    assert empty.returncode == 0 and empty.stdout == "" and "no models yet" in empty.stderr
    assert json.loads(pipe(machine, "list", "--json").stdout) == []
    known = pipe(machine, "show", NAME)
    assert known.returncode == 0 and f"pymtp pull {NAME}" in known.stdout and "ggml-org/gemma-4-E2B-it-GGUF" in known.stdout
    pulled = pipe(machine, "pull", NAME)
    assert pulled.returncode == 0 and pulled.stdout.startswith(f"{NAME}:q4_k_m: ") and "mtp-gemma" in pulled.stdout
    other = json.loads(pipe(machine, "pull", "user/other", "--json").stdout)
    assert other["repo"] == "user/other" and other["drafter"] is None

    rows = {e["name"]: e for e in json.loads(pipe(machine, "list", "--json").stdout)}
    assert rows[f"{NAME}:q4_k_m"]["drafter"].endswith("mtp-gemma-4-E2B-it.gguf") and rows[f"{NAME}:q4_k_m"]["complete"]
    listed = pipe(machine, "list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "SIZE", "QUANT", "DRAFTER", "USED", "WHERE"] and len(listed) == 3
    assert re.search(rf"^{NAME}:q4_k_m +11\.\d MiB +q4_k_m +yes +just now +/", "\n".join(listed), re.M)

    shown = json.loads(pipe(machine, "show", NAME, "--json").stdout)
    assert shown["model"]["name"] == f"{NAME}:q4_k_m" and shown["memory"]["weights"] > 0 and shown["tensors"]
    assert "licence" in pipe(machine, "show", NAME).stdout

    refused(pipe(machine, "rm", NAME), 2, "--yes")
    assert len(json.loads(pipe(machine, "list", "--json").stdout)) == 2
    removed = pipe(machine, "rm", NAME, "--yes")
    assert removed.returncode == 0 and removed.stdout.startswith(f"removed {NAME}:q4_k_m: ")
    assert [e["repo"] for e in json.loads(pipe(machine, "list", "--json").stdout)] == ["user/other"]
    refused(pipe(machine, "rm", NAME, "--yes"), 1, NAME)


def test_pull_and_rm_in_a_terminal(machine):
    t = Terminal(machine, "pull", NAME)
    out, code = t.end()
    assert code == 0 and "mtp-gemma" in out and t.after == t.before
    t = Terminal(machine, "list")
    assert "\x1b[1m" in t.end()[0]  # a bold head
    assert "\x1b[1m" not in Terminal(machine, "list", NO_COLOR="1").end()[0]
    t = Terminal(machine, "rm", NAME)
    t.expect(r"remove gemma4-e2b:q4_k_m: .* MiB.*\? \[y/N\]")
    t.send("n\r")
    out, code = t.end()
    assert code == 1 and "nothing removed" in out
    t = Terminal(machine, "rm", NAME)
    t.expect(r"\[y/N\]")
    t.interrupted()
    assert len(json.loads(pipe(machine, "list", "--json").stdout)) == 1
    t = Terminal(machine, "rm", NAME)
    t.expect(r"\[y/N\]")
    t.send("y\r")
    out, code = t.end()
    assert code == 0 and "removed" in out and json.loads(pipe(machine, "list", "--json").stdout) == []


def test_other_commands_in_a_terminal(machine, data):
    target = data / "tiny-e2b.gguf"
    for args, words in [(("show", target), ["general.architecture", "activations"]),
                        (("list", "--catalogue"), [NAME, "q8_0", "demo"]),
                        (("config", "--libs"), ["-lpymtp"]),
                        (("completion", "bash"), ["_PYMTP_COMPLETE=bash_complete"]),
                        (("--version",), ["kernels", "ABI"]),
                        (("verify", target, "--tokens", "4", "--depth", "2", "--threads", "1"), ["same output", "2.00|speed-up"]),
                        (("bench", target, "--quick", "--only", "prompt", "--threads", "1"), ["prompt", "tokens/s"])]:
        t = Terminal(machine, *args)
        out, code = t.end()
        assert code == 0 and t.after == t.before, out
        assert all(re.search(word, out) for word in words), (args, out)


def test_quantize_in_a_terminal(machine, data, tmp_path):
    """Every command of the group; those that write a file show bars and leave it."""
    target, drafter, out = data / "trained-py.gguf", data / "trained-py-drafter.gguf", tmp_path / "out.gguf"
    text = tmp_path / "text.txt"
    text.write_text("def add(a, b):\n    return a + b\n" * 40)
    for args, words in [(("inspect", target), ["token_embd.weight", "Q8_0"]),
                        (("requantize", target, out, "Q4_0", "--dry-run"), ["Q4_0"]),
                        (("requantize", target, out, "Q4_0", "--threads", "1"), ["out.gguf"]),
                        (("compare", target, target), ["198 hold the same values"]),
                        (("imatrix", target, text, "-o", out, "--threads", "1"), ["out.gguf"]),
                        (("convert", data / "ckpt-26b" / "target", out), ["out.gguf"]),
                        (("add-centroids", drafter, out, "--clusters", "64", "--top-k", "8", "--threads", "1"), ["out.gguf"])]:
        t = Terminal(machine, "quantize", *args)
        shown, code = t.end()
        assert code == 0 and t.after == t.before and "Traceback" not in shown, shown
        assert all(re.search(word, shown) for word in words), (args, shown)
        assert out.exists() == (out in args and "--dry-run" not in args)
        out.unlink(missing_ok=True)


# ---- --show-drafts ----


def test_show_drafts(machine, data):
    """In a terminal: the text of a plain run, with the accepted drafts' part in colour, a legend and the acceptance; in a pipe no colours."""
    args = ("run", data / "trained-py.gguf", "def add(a, b):", "--drafter", data / "trained-py-drafter.gguf", "--raw", "--temperature", "0",
            "--max-tokens", "40", "--draft", "4", "--threads", "1", "--show-drafts")
    plain = pipe(machine, *args)
    assert plain.returncode == 0 and "\x1b" not in plain.stdout + plain.stderr
    count = re.match(r"(\d+) of 40 tokens were drafts, .*\naccepted by position: (\d+ % ?){4}\n", plain.stderr)
    assert count and int(count[1]) > 0
    t = Terminal(machine, *args)
    shown, code = t.end()
    shown = shown.rpartition("\x1b[K")[2].replace("\r\n", "\n")  # behind the status line
    assert code == 0 and re.sub(r"\x1b\[\d*m", "", shown) == plain.stdout + plain.stderr
    text = shown[:shown.index(" of 40 tokens")]
    assert 0 < sum(map(len, re.findall(r"\x1b\[32m(.*?)\x1b\[0m", text, re.S))) < len(plain.stdout)
    assert "\x1b" not in Terminal(machine, *args, NO_COLOR="1").end()[0].rpartition("\x1b[K")[2]


class Letters:
    """Tokens are code points."""

    def decoder(self):
        return self

    push = staticmethod(chr)


def test_colours_follow_tokens():
    def tokens(text):
        return [ord(c) for c in text]

    view = DraftView(Letters())
    view.push(tokens("hidden mark"), 6)       # never shown
    view.push(tokens("abcd"), 3)
    assert view.colour("ab") == "\x1b[32mab\x1b[0m"
    view.push(tokens("ef"), 1)                # text lags: c is still to come
    assert view.colour("cdef") == "\x1b[32mc\x1b[0md\x1b[32me\x1b[0mf"
    view.push(tokens("thought answer"), 14)
    view.skip("thought")
    assert view.colour(" answer") == "\x1b[32m answer\x1b[0m"
    assert view.colour("of no token") == "of no token"


def test_what_is_never_shown_does_not_pile_up():
    """An endless call of a tool: no text at all for hundreds of thousands of tokens, then some."""
    view = DraftView(Letters())
    for _ in range(300_000):
        view.push([ord("x")], 0)
        view.skip("")
        assert view.colour("") == ""
    assert len(view.waiting) == WAITING
    view.push([ord("a"), ord("b")], 1)
    assert view.colour("ab") == "\x1b[32ma\x1b[0mb" and not view.waiting


# ---- verify -------------------------------------------------------------------------------------------------------------


def test_verify(machine, data):
    done = pipe(machine, "verify", data / "trained-py.gguf", "--tokens", "12", "--depth", "1", "--depth", "5", "--json", "--threads", "1")
    out = json.loads(done.stdout)
    assert done.returncode == 0 and out["same_output"] and out["speedup"] > 0
    assert {(r["workload"], r["sampling"]) for r in out["runs"]} == {(w, s) for w in ("prose", "code", "chat", "list") for s in ("greedy", "sampled")}
    for run in out["runs"]:
        assert run["tokens"] == 12 and [d["depth"] for d in run["depths"]] == [1, 5]
        assert all(d["same_output"] and d["first_difference"] is None and d["drafted"] > 0 for d in run["depths"])
    refused(pipe(machine, "verify", data / "tiny-e2b.gguf", "--drafter", "none"), 1, "without a drafter")
    refused(pipe(machine, "verify", data / "tiny-e2b.gguf", "--drafter", data / "tiny-31b-drafter.gguf"), 1, "tiny-31b-drafter.gguf")


@pytest.mark.parametrize("change", ["tokens[2] ^= 1", "tokens.pop()"])
def test_verify_reports_a_difference(machine, data, change):
    """Cannot happen, so generations with drafts are changed afterwards."""
    code = f"""
import sys, pymtp.model
real = pymtp.model.Model.complete
def complete(self, *args, **options):
    done = real(self, *args, **options)
    if options["draft"]:
        done.{change}
    return done
pymtp.model.Model.complete = complete
from pymtp.cli import main
main(sys.argv[1:])
"""
    args = ["verify", str(data / "tiny-e2b.gguf"), "--tokens", "4", "--depth", "2", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, env=machine, timeout=120)
    assert done.returncode == 1 and "OUTPUT DIFFERS" in done.stdout and "DIFFERS" in done.stdout and done.stderr.startswith("pymtp: drafts changed the output")


# ---- memory -------------------------------------------------------------------------------------------------------------


def with_left(n):
    """The command line on a machine that has n bytes of memory left."""
    return child(f"import dataclasses, pymtp.memory\nreal = pymtp.memory.estimate\n"
                 f"pymtp.memory.estimate = lambda *a: dataclasses.replace(real(*a), available={n})")


def test_refusal_when_the_memory_does_not_suffice(machine, data):

    target = data / "trained-py.gguf"
    e = pymtp.memory.estimate(target, data / "trained-py-drafter.gguf", threads=1)

    def run(left, *args):
        return subprocess.run([sys.executable, "-c", with_left(left), "run", str(target), "x", "--raw", *GREEDY, *map(str, args)],
                              capture_output=True, text=True, env=machine, timeout=120)

    plain = run(e.needed)
    assert plain.returncode == 0 and e.positions == 2048
    refused(run(e.needed - 1), 1, "trained-py.gguf", "needs", "2048 positions", "MiB are available", "lower --context, use --kv q8_0", "--force")
    refused(run(e.needed - 1, "--kv", "f32"), 1, "lower --context")
    refused(run(e.weights), 1, "take a smaller quantization", "--force")
    assert run(e.needed - 1, "--context", 100).stdout == run(e.weights, "--force").stdout == plain.stdout


def test_estimate_knows_what_the_machine_has(data):

    with open("/proc/meminfo") as file:
        total = int(re.search(r"MemTotal: +(\d+) kB", file.read())[1]) << 10
    estimate = pymtp.memory.estimate(data / "tiny-e2b.gguf")
    assert 0 < estimate.available <= total and estimate.fits and estimate.positions == 4096


def numbers_of(*paths):
    """Bytes of the tensors that become numbers of the network and are counted by the estimate alone."""
    total = 0
    for path in paths:
        with pymtp.File(path) as file:
            total += sum(t.bytes for t in file.tensors() if t.name == "rope_freqs.weight" or t.name.endswith("layer_output_scale.weight"))
    return total


def test_estimate_counts_the_padding_of_narrow_matrices(tmp_path, monkeypatch):
    """Rows of 1 value take those of 32 once they are loaded."""
    monkeypatch.setattr(micro_models, "D", 1)
    monkeypatch.setattr(micro_models, "FF", 4096)
    path = tmp_path / "narrow.gguf"
    path.write_bytes(micro_models.target("ple").bytes())
    with pymtp.Model(path, None, threads=1) as model:
        assert model.info.weight_bytes > 4 * path.stat().st_size
        assert pymtp.memory.estimate(path, threads=1).weights == model.info.weight_bytes + numbers_of(path)


def test_estimate_is_what_an_open_model_says(data):
    for name in ("tiny-26b", "tiny-e2b", "tiny-31b", "trained-py"):
        paths = (data / f"{name}.gguf", data / f"{name}-drafter.gguf")
        for kv in ("f16", "f32", "q8_0"):
            estimate = pymtp.memory.estimate(*paths, kv=kv, context=1000, threads=2)
            with pymtp.Model(*paths, kv=kv, context=1000, threads=2) as model:
                info = model.info
                assert (estimate.kv_per_position, estimate.kv_fixed, estimate.snapshots) == \
                    (info.kv_bytes_per_position, info.kv_bytes_fixed, 2 * info.snapshot_bytes)
                assert estimate.weights == info.weight_bytes + numbers_of(*paths)
    with pytest.raises(pymtp.MismatchError):
        pymtp.memory.estimate(data / "tiny-26b.gguf", data / "tiny-31b-drafter.gguf")
    with pytest.raises(pymtp.ReadError, match="none.gguf"):
        pymtp.memory.estimate(data / "none.gguf")
    with pytest.raises(pymtp.ArgumentError, match="context"):
        pymtp.memory.estimate(data / "tiny-26b.gguf", context=10**6)


# ---- Ctrl-C -------------------------------------------------------------------------------------------------------------


def test_interrupt_while_resolving(machine, server):
    server.listing = lambda out: time.sleep(30) or out
    t = Terminal(machine, "run", NAME, "Hi")
    while not server.requests:
        time.sleep(0.02)
    t.interrupted()


@pytest.mark.parametrize("command", [("pull", NAME), ("run", NAME, "Hi", *GREEDY)])
def test_interrupt_while_downloading(machine, server, command):
    server.rate = 2_000_000
    t = Terminal(machine, *command)
    t.expect("MB|MiB")
    time.sleep(0.5)
    t.interrupted()
    server.rate = None
    assert pipe(machine, *command).returncode == 0


def child(patch):
    """The command line with one function in the place of another."""
    return f"import sys, pymtp.model, pymtp.streams\n{patch}\nfrom pymtp.cli import main\nmain(sys.argv[1:])"


def test_interrupt_while_loading(machine, data):
    code = child(f"def load(*_, **__):\n    sys.stderr.write('LOADING'); sys.stderr.flush()\n    {LOOP}\npymtp.model.Model = load")
    t = Terminal(machine, "run", data / "tiny-e2b.gguf", "x", code=code)
    t.expect("LOADING")
    t.interrupted()


def test_interrupt_in_the_prompt(machine, data):
    """A prompt far longer than a pass; the first pass has begun."""
    code = child("real = pymtp.streams.step\ndef step(sessions):\n    sys.stderr.write('STEP'); sys.stderr.flush()\n    return real(sessions)\n"
                 "pymtp.streams.step = step")
    t = Terminal(machine, "run", data / "tiny-26b.gguf", "word " * 1500, "--raw", "--threads", "1", "--drafter", "none", code=code)
    t.expect("STEP")
    t.interrupted()


def test_interrupt_while_generating(machine, data):
    t = Terminal(machine, "run", data / "tiny-26b.gguf", "x", "--raw", "--ignore-eos", "--draft", "0", "--temperature", "0", "--threads", "1", NO_COLOR="1")
    t.expect("[a-zA-Z]{3}")
    t.send("\x03")
    out, code = t.end()
    assert code == 130 and "Traceback" not in out and t.after == t.before


def test_interrupt_in_the_chat(machine, data):
    """Once drops what is typed, twice leaves."""
    t = Terminal(machine, "run", data / "tiny-26b.gguf", *GREEDY)
    t.expect(">>> ")
    t.send("half")
    t.expect("half")
    time.sleep(0.3)  # readline has handled the keys
    t.send("\x03")
    t.expect(">>> ")
    time.sleep(0.3)
    t.interrupted()


def test_typed_bytes_that_are_no_text(machine, data):
    """In a locale that insists on UTF-8; what is not is replaced, as in a pipe."""
    t = Terminal(machine, "run", data / "tiny-26b.gguf", *GREEDY, PYTHONIOENCODING="utf-8:strict")
    for line in (b"a\xff\xfe\n", b'"""\xff\n\xfe"""\n', b"/\xffa\n", b"/exit\n"):
        t.expect(">>> ")
        os.write(t.child.child_fd, line)
    out, code = t.end()
    assert code == 0 and "Traceback" not in out, out


def test_a_chat_without_a_home(monkeypatch):
    """A user that the system does not know, and no HOME: nothing is kept, least of all in a folder called ~."""
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", none)
    chat._history()()
    assert not os.path.exists("~")


def test_a_thread_that_is_refused(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(ResourceError, match="no thread could be started: can't start new thread"):
        base.or_leave(lambda: 1)


@pytest.mark.parametrize("name", ["verify", "bench"])
def test_interrupt_while_measuring(machine, data, name):
    t = Terminal(machine, name, data / "tiny-26b.gguf", "--tokens", "500", "--threads", "1")
    t.expect("prose|round|filling")
    t.interrupted()


def test_interrupt_while_quantizing(machine, data, tmp_path):
    """No file is left, under whatever name."""
    code = child("import time\nimport pymtp.codec as codec\ndef encode(*_, **__):\n    sys.stderr.write('ENCODING'); sys.stderr.flush()\n    time.sleep(60)\n"
                 "codec.encode = encode")
    t = Terminal(machine, "quantize", "requantize", data / "trained-py.gguf", tmp_path / "out.gguf", "Q4_0", code=code)
    t.expect("ENCODING")
    t.interrupted()
    assert not [p for p in tmp_path.iterdir() if "out.gguf" in p.name]


# ---- completion ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(machine, shell):
    done = pipe(machine, "completion", shell)
    assert done.returncode == 0 and f"_PYMTP_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=done.stdout, text=True, timeout=20).returncode == 0


def complete(machine, *words):
    done = pipe(machine, _PYMTP_COMPLETE="bash_complete", COMP_WORDS=" ".join(["pymtp", *words]), COMP_CWORD=str(len(words)))
    assert done.returncode == 0 and done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_completion(machine):
    assert {"run", "rm"} <= set(complete(machine, "r")) and "verify" not in complete(machine, "r")
    assert NAME in complete(machine, "run", "gemma4-e") and complete(machine, "rm", "gemma4-e") == []
    assert "--temperature" in complete(machine, "run", "--temp")
    assert complete(machine, "completion", "z") == ["zsh"]
    assert pipe(machine, "pull", NAME).returncode == 0
    assert complete(machine, "rm", "gemma4-e") == [f"{NAME}:q4_k_m"]
    (config := os.path.join(machine["XDG_CONFIG_HOME"], "pymtp")) and os.makedirs(config)
    with open(os.path.join(config, "catalogue.json"), "w") as file:
        file.write("[")
    assert complete(machine, "show", "gemma4-e") == ["gemma4-e"]  # a broken catalogue is no reason to print errors: a path
