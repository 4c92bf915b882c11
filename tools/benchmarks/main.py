# SPDX-License-Identifier: Apache-2.0
"""The command line of tools/bench."""

import argparse
import fcntl
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time

from . import chart, machine, output, spawn
from .material import Material, find_thaw, fixtures
from .rows import Runner, Skip, select

SUBCOMMANDS = ("coldstart", "image", "scaling", "packs", "sessions", "spark")
WORKLOAD = "import numpy, pandas, pyarrow, sklearn.linear_model"
TOOLS = ("cat", "cp", "env", "find", "fusermount3", "gzip", "mksquashfs", "mount", "squashfuse_ll",
         "tar", "umount", "unsquashfs", "xargs", "zstd", "bash", "archivemount")


def only_one(folder, say):
    """Wait until no other benchmark runs: both would drop caches. Held until this one ends."""
    lock = open(os.path.join(folder, ".lock"), "w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another benchmark to end")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


class Bench:
    """What every subcommand is given: its options, the material and the machine."""

    def __init__(self, options):
        self.runs, self.rows, self.quiet = options.runs, options.rows, options.quiet
        self.wait = options.wait
        self.retries = options.retries
        self.workload = options.workload
        self.options = options
        self.cgroup = machine.Cgroup()
        self.thaw = find_thaw(options.thaw)
        self.material = Material("prefix", self.thaw, options.level, self.say, options.env)
        self.python = os.path.join(self.material.tree, "bin", "python3")
        folder = os.path.dirname(self.material.folder)
        self.lock = None if options.list else only_one(folder, self.say)
        self.scratch = tempfile.mkdtemp(prefix="run-", dir=folder)
        self._system = None

    def say(self, text):
        if not self.quiet:
            print("bench: " + text, file=sys.stderr, flush=True)

    def close(self):
        shutil.rmtree(self.scratch, ignore_errors=True)
        if self.lock:
            self.lock.close()

    def system_files(self):
        """Programs and libraries outside of the environment, which no row is to pay for."""
        if self._system is None:
            files = set(machine.foreign_files(self.python, self.workload, self.material.tree))
            for tool in [spawn.find(name) for name in TOOLS] + [self.thaw]:
                if tool:
                    files.update([os.path.realpath(tool)] + machine.libraries(tool))
            self._system = sorted(files)
        return self._system


def parser():
    top = argparse.ArgumentParser(
        prog="tools/bench", description=__doc__.splitlines()[0],
        epilog="Without a subcommand: coldstart. Root is needed to drop caches and for the "
               "filesystems of the kernel.")
    commands = top.add_subparsers(dest="command", metavar="SUBCOMMAND")
    for name in SUBCOMMANDS:
        module = importlib.import_module("." + name, __package__)
        sub = commands.add_parser(name, help=module.HELP, description=module.HELP)
        sub.set_defaults(module=module)
        sub.add_argument("--list", action="store_true", help="list the rows and end")
        sub.add_argument("--rows", metavar="A,B", help="only these rows (patterns as in a shell)")
        sub.add_argument("--runs", type=int, default=5, metavar="N", help="runs a row (5)")
        sub.add_argument("--json", metavar="FILE", help="write all figures as JSON")
        sub.add_argument("--chart", metavar="FILE.svg",
                         help="draw the main table; a PNG beside it, where a renderer is found")
        sub.add_argument("--level", type=int, default=9, metavar="N", help="zstd level (9)")
        sub.add_argument("--thaw", metavar="PATH", help="the executable to measure")
        sub.add_argument("--env", metavar="DIR",
                         help="an unpacked prefix with its own interpreter, instead of the one "
                              "that tests/fixtures/environment.py builds")
        sub.add_argument("--workload", metavar="CODE", default=WORKLOAD,
                         help="what Python runs (%(default)s)")
        sub.add_argument("--wait", type=float, default=20, metavar="SECONDS",
                         help="wait so long for a quiet moment before each run (20)")
        sub.add_argument("--retries", type=int, default=2, metavar="N",
                         help="take a run disturbed by others again, at most N times (2)")
        sub.add_argument("--quiet", action="store_true", help="no progress on stderr")
        module.add_options(sub)
    return top


def run(bench, module, tables, options):
    runner = Runner(bench)
    notes = []
    if not machine.can_drop_caches():
        notes.append("**Caches were not dropped (that needs root): every row ran warm.**")
    if machine.takes_idle_pages():
        notes.append("The kernel takes idle pages away by itself here (DAMON): a few reads of a "
                     "session for which all was there are due to that.")
    if not bench.cgroup.path:
        notes.append("CPU seconds are those of the whole machine (no cgroup could be made).")
    start = time.time()
    results = []
    for table in tables:
        chosen = select(table.rows, bench.rows, None)
        if chosen:
            results.append(runner.measure(table))
    return {
        "benchmark": options.command,
        "about": {
            "runs": bench.runs, "level": options.level, "workload": bench.workload,
            "notes": notes, "seconds": round(time.time() - start),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start)),
        },
        "machine": machine.description(), "noise": runner.noise(), "tables": results,
    }


def main(argv=None):
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help")):
        argv.insert(0, SUBCOMMANDS[0])
    options = parser().parse_args(argv)
    if options.runs < 1:
        sys.exit("bench: --runs: at least one")
    # Also in the background, where a shell lets SIGINT be ignored: mounts are to be undone.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    bench = None
    try:
        bench = Bench(options)
        tables = options.module.tables(bench)
        if options.list:
            for table in tables:
                for row in table.rows:
                    print("%-24s %s" % (row.name, row.label))
            return 0
        if bench.rows and not any(select(table.rows, bench.rows, None) for table in tables):
            sys.exit("bench: no row is called %s (--list shows them)" % bench.rows)
        report = run(bench, options.module, tables, options)
        print(output.markdown(report), end="", flush=True)
        if options.json:
            output.write_json(report, options.json)
        if options.chart:
            chart.write(report, options.chart, bench.say)
        return 0
    except (spawn.Failed, Skip, fixtures().FixtureError, OSError) as error:
        sys.exit("bench: %s" % error)
    except KeyboardInterrupt:
        return 130
    finally:
        if bench:
            bench.close()
