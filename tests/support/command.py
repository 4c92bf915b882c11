# SPDX-License-Identifier: Apache-2.0
"""Run the thaw command: with a timeout, and never past a sanitizer's report."""
import functools
import os
import pathlib
import re
import resource
import subprocess
import sys

PROJECT = pathlib.Path(__file__).resolve().parents[2]

SUPPRESSIONS = pathlib.Path(__file__).with_name("leaks.supp")

# Exit codes, as in include/thaw/error.h.
OK, DIFFERENT, USAGE, REFUSED, DAMAGED, LIMIT, IO = 0, 1, 2, 3, 4, 5, 6

TIMEOUT = 60
# The watchdog of conftest.py and the leak check find our processes by this variable.
MARKER = "THAW_TEST_ID"

SANITIZER_REPORT = re.compile(
    rb"ERROR: AddressSanitizer|runtime error:|LeakSanitizer|ThreadSanitizer")


def binary():
    """The thaw under test. conftest.py copies it to where every user can run it."""
    return os.environ.get("THAW_TEST_BINARY") or original_binary()


def original_binary():
    return os.path.abspath(os.environ.get("THAW_BIN") or PROJECT / "build" / "thaw")


@functools.lru_cache(maxsize=None)
def sanitized():
    """Built with AddressSanitizer: slower, larger, and without a bounded address space."""
    path = pathlib.Path(original_binary())
    return path.exists() and b"__asan_init" in path.read_bytes()


def environment(**extra):
    env = dict(os.environ)
    env["LC_ALL"] = "C.UTF-8"
    # A report must not depend on who started us; ours come last and win.
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":exitcode=99:allocator_may_return_null=1"
    env["LSAN_OPTIONS"] = f"suppressions={SUPPRESSIONS}:print_suppressions=0"
    env["UBSAN_OPTIONS"] = env.get("UBSAN_OPTIONS", "") + ":print_stacktrace=1"
    env.update(extra)
    return env


def check_sanitizers(text, what):
    if SANITIZER_REPORT.search(text):
        raise AssertionError(f"sanitizer report from {what}:\n{text.decode(errors='replace')}")


class Result:
    """What a finished command said. out and err are bytes; text is out as str."""

    def __init__(self, args, code, out, err):
        self.args, self.code, self.out, self.err = args, code, out, err

    @property
    def text(self):
        return self.out.decode()

    @property
    def lines(self):
        return self.out.splitlines()

    def __repr__(self):
        return (f"{' '.join(map(str, self.args))}\n  exit {self.code}\n"
                f"  stdout {self.out[:2000]!r}\n  stderr {self.err[:4000]!r}")


def run(*args, code=0, input=None, stdin=None, stdout=subprocess.PIPE, timeout=TIMEOUT,
        cwd=None, env=None, user=None, limits=None):
    """
    Run any command. code: the expected exit code, or None for any. user: a
    pwd entry to run as. limits: {resource.RLIMIT_X: value}.
    """
    args = [os.fspath(a) for a in args]

    def preexec():
        for which, value in (limits or {}).items():
            resource.setrlimit(which, (value, value))

    options = {}
    if user is not None:
        options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    process = subprocess.run(
        args, input=input, stdin=stdin if input is None and stdin is not None else
        (None if input is not None else subprocess.DEVNULL),
        stdout=stdout, stderr=subprocess.PIPE, timeout=timeout, cwd=cwd, env=env or environment(),
        preexec_fn=preexec if limits else None, **options)
    result = Result(args, process.returncode, process.stdout or b"", process.stderr)
    check_sanitizers(result.err, result)
    assert code is None or result.code == code, f"expected exit {code}: {result!r}"
    return result


def thaw(*args, **options):
    return run(binary(), *args, **options)


def one_error_line(result, word=None):
    """An error is one line on stderr, "thaw: FILE: cause", that contains word."""
    text = result.err.decode()  # bytes that are no UTF-8 are escaped
    assert text[:-1].isprintable(), repr(result)
    assert text.startswith("thaw: "), repr(result)
    assert text.endswith("\n") and text.count("\n") == 1, repr(result)
    if word is not None:
        assert re.search(word, text, re.IGNORECASE), f"no {word!r} in {text!r}"
    return text


def thaw_fails(code, word, *args, **options):
    """Expect this exit code, this word (a regular expression) in one line of stderr."""
    result = thaw(*args, code=code, **options)
    one_error_line(result, word)
    return result


def start(*args, user=None, **options):
    """Start thaw and return the process. Whoever calls it ends it."""
    if user is not None:
        options.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("env", environment())
    return subprocess.Popen([os.fspath(a) for a in (binary(), *args)], **options)


def peak_memory(*args, input_file=None, code=None, timeout=TIMEOUT):
    """Run thaw; return (Result, peak resident bytes), however it ended."""
    measure = ("import resource, subprocess, sys\n"
               "code = subprocess.run(sys.argv[2:]).returncode\n"
               "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
               "open(sys.argv[1], 'w').write(str(peak))\n"
               "sys.exit(code if code >= 0 else 128 - code)\n")
    read_end, write_end = os.pipe()
    try:
        process = subprocess.run(
            [sys.executable, "-I", "-c", measure, f"/dev/fd/{write_end}", binary(),
             *map(os.fspath, args)],
            stdin=input_file or subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=timeout, env=environment(), pass_fds=[write_end])
        peak = int(os.read(read_end, 64)) * 1024
    finally:
        os.close(read_end)
        os.close(write_end)
    result = Result(args, process.returncode, process.stdout, process.stderr)
    check_sanitizers(result.err, result)
    assert code is None or result.code == code, repr(result)
    return result, peak
