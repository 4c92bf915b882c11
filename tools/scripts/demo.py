#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build thaw, pack a real environment, mount it, import from it, and compare.

Everything that this makes lies in one directory of the cache, which goes away at
the end, however the end comes. What a killed run left is removed by the next.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import build

sys.path.insert(0, str(build.ROOT / "tests" / "fixtures"))

import environment  # noqa: E402

IMPORT = "import numpy, pandas, pyarrow, sklearn.linear_model"
SHOW = IMPORT + """
for module in numpy, pandas, pyarrow, sklearn:
    print(f"  {module.__name__:8} {module.__version__:8} {module.__file__}")
"""


class DemoError(Exception):
    """A step failed; the message says which and why."""


class Demo:
    def __init__(self, thaw, packed, work):
        self.thaw = thaw
        self.packed = packed
        self.work = work
        self.image = work / "environment.thaw"
        self.mountpoint = work / "mounted"
        self.unpacked = work / "unpacked"

    def pack(self):
        heading("Pack it, once")
        print(f"  (in {self.work})")
        start = time.monotonic()
        self._show("pack", self.packed.archive, "-o", self.image)
        print(f"  ({time.monotonic() - start:.1f} s)")

    def look(self):
        heading("Look into it, without mounting")
        self._show("ls", "-l", self.image)
        heading("Mount it, import from it")
        self.mountpoint.mkdir()
        start = time.monotonic()
        self._show("mount", self.image, self.mountpoint)
        print(f"  (ready after {1000 * (time.monotonic() - start):.0f} ms)")
        print(f"$ ls {self.mountpoint.name}")
        print("  " + "  ".join(sorted(os.listdir(self.mountpoint))))
        print(f"$ {self.mountpoint.name}/bin/python3 -c '{IMPORT}'", flush=True)
        run([self.mountpoint / "bin" / "python3", "-I", "-B", "-c", SHOW], stdout=None)
        self._unmount()

    def compare(self, runs):
        heading(f"Compare with unpacking, medians of {runs}")
        # The interpreter itself lies outside of the environment: neither way is
        # to pay for reading it from disk.
        self._import(self.packed.tree)
        rows = []
        for number in range(1, runs + 1):
            rows.append((self._one_unpacked(), self._one_mounted()))
            unpacked, mounted = (one["both"] for one in rows[-1])
            print(f"  {number} of {runs}: unpacked and imported in {unpacked:.1f} s, "
                  f"mounted and imported in {mounted:.1f} s", flush=True)
        unpacked, mounted = (
            {key: statistics.median(one[key] for one in column) for key in column[0]}
            for column in zip(*rows)
        )
        print()
        print_table(unpacked, mounted)

    def close(self):
        """Leave nothing. A mount that was under way when we were stopped may still come."""
        deadline = time.monotonic() + 5
        while self.work.exists() and time.monotonic() < deadline:
            if is_mounted(self.mountpoint):
                with contextlib.suppress(DemoError, OSError):
                    run([self.thaw, "umount", "--lazy", self.mountpoint])
            else:
                shutil.rmtree(self.work, ignore_errors=True)
            if self.work.exists():
                time.sleep(0.1)

    def _one_unpacked(self):
        self.unpacked.mkdir()
        ready = timed(lambda: run(["tar", "-xzf", self.packed.archive, "-C", self.unpacked]))
        times = self._two_imports(self.unpacked, ready)
        times["bytes"] = disk_usage(self.unpacked)
        times["files"] = sum(len(dirs) + len(files) for _, dirs, files in os.walk(self.unpacked))
        shutil.rmtree(self.unpacked)
        return times

    def _one_mounted(self):
        ready = timed(lambda: run([self.thaw, "mount", self.image, self.mountpoint]))
        times = self._two_imports(self.mountpoint, ready)
        self._unmount()
        times["bytes"] = self.image.stat().st_blocks * 512
        times["files"] = 1
        return times

    def _two_imports(self, tree, ready):
        first = timed(lambda: self._import(tree))
        second = timed(lambda: self._import(tree))
        return {"ready": ready, "first": first, "both": ready + first, "second": second}

    def _import(self, tree):
        run([tree / "bin" / "python3", "-I", "-B", "-c", IMPORT])

    def _show(self, *words):
        # Whatever lies in the working directory is shown, and called, by its name.
        words = [str(word).replace(f"{self.work}/", "") for word in words]
        print("$ thaw " + " ".join(words), flush=True)
        output = run([self.thaw, *words], cwd=self.work)
        print("".join(f"  {line}\n" for line in output.splitlines()), end="", flush=True)

    def _unmount(self):
        run([self.thaw, "umount", self.mountpoint])


def heading(text):
    print(f"\n== {text}", flush=True)


def run(command, stdout=subprocess.PIPE, cwd=None):
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout,
                            stderr=subprocess.PIPE, errors="replace")
    if result.returncode != 0:
        raise DemoError(f"{' '.join(words)}: exit status {result.returncode}\n{result.stderr}")
    return result.stdout


def is_mounted(path):
    """Asks the kernel's table: stat fails on a mount whose worker has died."""
    # Field 5, in which blanks are octal.
    wanted = str(path).replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[4] == wanted for line in table)


def timed(function):
    start = time.monotonic()
    function()
    return time.monotonic() - start


def disk_usage(tree):
    total = 0
    for directory, _, files in os.walk(tree):
        for name in files:
            total += os.lstat(os.path.join(directory, name)).st_blocks * 512
    return total


def print_table(unpacked, mounted):
    def seconds(value):
        return f"{value:.3f} s"

    def megabytes(value):
        return f"{value / 1e6:.0f} MB"

    print(f"  {'':26}{'tar -xzf':>12}{'thaw mount':>14}")
    for label, key, form in (
        ("environment ready", "ready", seconds),
        ("first import", "first", seconds),
        ("ready and first import", "both", seconds),
        ("second import", "second", seconds),
        ("on disk", "bytes", megabytes),
        ("files and directories made", "files", "{:.0f}".format),
    ):
        print(f"  {label:26}{form(unpacked[key]):>12}{form(mounted[key]):>14}")
    ratio = unpacked["both"] / mounted["both"]
    print(f"\nFrom the packed file to the end of the first import, mounting took 1/{ratio:.1f} "
          "of the time of unpacking.")


@contextlib.contextmanager
def work_directory(thaw):
    """A directory of our own, locked while we live: what is not locked is left over."""
    cache = environment.cache_directory()
    for leftover in cache.glob("demo-*"):
        remove_leftover(thaw, leftover)
    # Resolved, as the kernel's table of mounts shows it.
    work = Path(os.path.realpath(tempfile.mkdtemp(dir=cache, prefix="demo-")))
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield work
    finally:
        os.close(lock)


def remove_leftover(thaw, directory):
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # Between mkdtemp and flock a living one is not locked either: spare the young.
            if time.time() - os.fstat(descriptor).st_mtime > 60:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Demo(thaw, None, directory).close()
        finally:
            os.close(descriptor)


def interrupted(number, _frame):
    # Only once: a second signal must not end the cleaning up.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def demonstrate(runs):
    heading("Build thaw")
    thaw = build.build("release") / "thaw"
    print(run([thaw, "--version"]), end="")
    heading("Get a real environment: venv-pack of numpy, pandas, pyarrow and scikit-learn")
    packed = environment.get("venv", log=lambda text: print(f"  {text}", flush=True))
    print(f"  {packed.archive}: {packed.archive.stat().st_size / 1e6:.0f} MB", flush=True)
    with work_directory(thaw) as work:
        demo = Demo(thaw, packed, work)
        try:
            demo.pack()
            demo.look()
            demo.compare(runs)
        finally:
            demo.close()


def main():
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description="Set up and build thaw, pack a real Python environment, mount it, import from "
        "it, and print how long that took against unpacking. Leaves only the build "
        "directory and the cache of environments.",
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="how often to measure (3)")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs: at least 1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        demonstrate(arguments.runs)
    except (DemoError, build.BuildError, environment.FixtureError, OSError) as error:
        sys.exit(f"tools/demo: {error}")


if __name__ == "__main__":
    main()
