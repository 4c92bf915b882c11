#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build thaw, run every test, and count.

The unit tests and the replay of the fuzz corpus run with AddressSanitizer and
UndefinedBehaviorSanitizer. Whatever mounts or runs the command runs against the
release build; what reads hostile input runs against the sanitized build too.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import build

TESTS = build.ROOT / "tests"
CAP_SYS_ADMIN = 21
MESON_GOOD = ("OK", "SKIP", "EXPECTEDFAIL")
SANITIZED_PARTS = ("cli", "hostile")


class Part:
    """One run of one test program: its counts, and what failed."""

    def __init__(self, name, output=None):
        """output: where the program's own output goes; None: as it comes."""
        self.name = name
        self.output = output
        self.passed = 0
        self.skipped = []
        self.failed = []
        self.seconds = 0.0

    def count(self, report, excuses):
        """Add the test cases of a JUnit report. A report that is not there is a failure.

        excuses: see find_excuses().
        """
        try:
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            self.failed.append(f"no usable report: {error}")
            return
        for case in cases:
            self._count_case(case, excuses)

    def count_programs(self, log):
        """Add the programs in meson's own log that failed, though none of their cases did.

        Such as one that crashed, or leaked, after its last case: the JUnit report
        says nothing of that.
        """
        try:
            programs = [json.loads(line) for line in log.read_text().splitlines()]
        except (OSError, ValueError) as error:
            self.failed.append(f"no usable log: {error}")
            return
        for program in programs:
            name, result = program["name"], program["result"]
            if result in MESON_GOOD or any(name in failed for failed in self.failed):
                continue
            self.failed.append(f"{name}: {result}, exit status {program.get('returncode')}")

    def _count_case(self, case, excuses):
        name = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            self.failed.append(name)
        elif skipped is None:
            self.passed += 1
        else:
            reason = skipped.get("message") or "no reason given"
            # Programs' own words may follow on further lines.
            reason = reason.splitlines()[0]
            if _mounts(case) and not _excused(reason, excuses):
                self.failed.append(f"{name}: skipped ({reason}), though this machine can mount")
            else:
                self.skipped.append(f"{name}: {reason}")


def _mounts(case):
    """Whether a test of pytest lies in tests/mount."""
    place = f"{case.get('file') or ''}/{case.get('classname') or ''}"
    return "mount" in place.replace(".", "/").split("/")


def _excused(reason, excuses):
    return excuses is None or any(excuse in reason for excuse in excuses)


def can_mount():
    """Whether nothing but thaw itself can make a mount fail here."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    if os.geteuid() != 0:
        return shutil.which("fusermount3") is not None
    # Root of a container often lacks the right to mount.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    capabilities = int(re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)[1], 16)
    return bool(capabilities & 1 << CAP_SYS_ADMIN)


# What a container may lack though it can mount; the tests find out by trying.
BESIDE_MOUNTS = ("no cgroup can be made", "no memory controller", "no user namespaces")


def find_excuses():
    """Words of the reasons for which a test of mounts may be skipped here; None: any reason."""
    if not can_mount():
        return None
    excuses = list(BESIDE_MOUNTS)
    if os.geteuid() != 0:
        excuses.append("root")
    # Not in a root directory that is no mount of its own, as after a mere chroot.
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        excuses.append("private mount namespace")
    return excuses


def run_meson(directory, suites, excuses):
    """Run the suites that meson knows, and count every case inside of them."""
    part = Part("unit tests and fuzz corpus")
    base = f"tools-test-{os.getpid()}"
    command = ["meson", "test", "-C", str(directory), "--no-rebuild", "--print-errorlogs",
               "--logbase", base]
    for suite in suites:
        command += ["--suite", suite]
    code = _run(part, command)
    logs = directory / "meson-logs"
    part.count(logs / f"{base}.junit.xml", excuses)
    part.count_programs(logs / f"{base}.json")
    _distrust(part, code)
    for log in logs.glob(f"{base}*"):
        log.unlink()
    return part


def run_pytest(name, binary, scratch, arguments, excuses, output=None):
    part = Part(name, output)
    report = scratch / (re.sub(r"\W+", "-", name) + ".xml")
    command = [sys.executable, "-B", "-m", "pytest", "-q", f"--junitxml={report}",
               "-c", str(TESTS / "pytest.ini"), "--rootdir", str(TESTS), *arguments]
    code = _run(part, command, THAW_BIN=str(binary))
    if code == 5:
        part.failed.append("no test was found")
        return part
    part.count(report, excuses)
    _distrust(part, code)
    return part


def _run(part, command, **variables):
    print(f"\n== {part.name}", file=part.output, flush=True)
    environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **variables)
    start = time.monotonic()
    code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=part.output,
                          stderr=subprocess.STDOUT, cwd=build.ROOT).returncode
    part.seconds = time.monotonic() - start
    return code


def run_lanes(lanes, scratch):
    """Run lists of jobs beside each other, each list in order; gives all their parts.

    Tests wait more than they compute. A job takes where its output goes: the first list's
    is shown as it comes, the others' when all have ended.
    """
    results = [[] for _ in lanes]
    outputs = [None] + [open(scratch / f"lane-{number}", "w+", encoding="utf-8", errors="replace")
                        for number in range(1, len(lanes))]

    def go(number):
        for job in lanes[number]:
            results[number].append(job(outputs[number]))

    threads = [threading.Thread(target=go, args=(number,)) for number in range(1, len(lanes))]
    for thread in threads:
        thread.start()
    go(0)
    for thread in threads:
        thread.join()
    for output in outputs[1:]:
        output.seek(0)
        shutil.copyfileobj(output, sys.stdout)
        output.close()
    for number, (jobs, parts) in enumerate(zip(lanes, results)):
        if len(jobs) != len(parts):
            raise RuntimeError(f"list {number} of the tests ended early")
    return [part for parts in results for part in parts]


def _distrust(part, code):
    """An exit status that the counts do not explain is a failure of its own."""
    if code != 0 and not part.failed:
        part.failed.append(f"exit status {code}, though no test failed")
    if code == 0 and not part.passed and not part.failed:
        part.failed.append("not one test passed")


def summary(parts):
    print()
    for part in parts:
        for name in part.skipped:
            print(f"skipped  {part.name}: {name}")
    for part in parts:
        for name in part.failed:
            print(f"FAILED   {part.name}: {name}")
    for part in parts:
        print(f"{part.seconds:7.1f} s  {part.passed:5} passed  {len(part.failed):3} failed  "
              f"{len(part.skipped):3} skipped  {part.name}")
    passed = sum(part.passed for part in parts)
    failed = sum(len(part.failed) for part in parts)
    skipped = sum(len(part.skipped) for part in parts)
    if skipped:
        print(f"{skipped} skipped")
    # The very last line, alone: other programs read it.
    sys.stderr.flush()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="tools/test",
        usage="tools/test [--fast] [--all] [--werror] [-- PYTEST-ARGUMENT...]",
        description="Build thaw and run every test. The last line is `N passed, N failed`.",
        epilog="With arguments for pytest, only pytest runs, and only what they select: "
        "tools/test -- tests/cli -k pack",
    )
    parser.add_argument("--fast", action="store_true", help="release build only, no sanitizers")
    parser.add_argument("--all", action="store_true",
                        help="the long tests as well (Spark on further kinds of clusters)")
    parser.add_argument("--werror", action="store_true", help="a compiler's warning is a failure")
    # argparse would take only the first of several words after `--`.
    words = sys.argv[1:] + ["--"]
    at = words.index("--")
    arguments = parser.parse_args(words[:at])
    arguments.pytest = words[at + 1:-1]
    return arguments


def run(arguments, scratch):
    options = ["werror=" + ("true" if arguments.werror else "false"), "tests=enabled"]
    print("building", flush=True)
    release = build.build("release", *options)
    checked = release if arguments.fast else build.build("sanitize", *options)
    excuses = find_excuses()

    def pytest(name, binary, *selected):
        return lambda output: run_pytest(name, binary, scratch, selected, excuses, output)

    if arguments.pytest:
        lanes = [[pytest("selected tests", release / "thaw", *arguments.pytest)]]
        if not arguments.fast:
            lanes[0].append(pytest("selected tests, with sanitizers", checked / "thaw",
                                   *arguments.pytest))
        return summary(run_lanes(lanes, scratch))
    light = [] if arguments.all else ["-m", "not heavy"]
    parts = [run_meson(checked, ("unit", "fuzz"), excuses)]
    lanes = [[pytest("commands and mounts", release / "thaw", *light,
                     *(str(TESTS / part) for part in ("cli", "hostile", "mount")))],
             [pytest("Spark", release / "thaw", *light, str(TESTS / "spark"))]]
    if not arguments.fast:
        lanes[1].append(pytest("commands and hostile input, with sanitizers", checked / "thaw",
                               *(str(TESTS / part) for part in SANITIZED_PARTS)))
    parts += run_lanes(lanes, scratch)
    return summary(parts)


def main():
    # A shell starts what runs in its background with this ignored, and tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="thaw-tools-test-") as scratch:
        try:
            code = run(arguments, Path(scratch))
        except (build.BuildError, RuntimeError) as error:
            print(f"tools/test: {error}", file=sys.stderr)
            print("0 passed, 1 failed", flush=True)
            code = 1
        except KeyboardInterrupt:
            code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
