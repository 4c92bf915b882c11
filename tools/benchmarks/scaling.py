# SPDX-License-Identifier: Apache-2.0
"""How cold start changes with the environment's size, with sessions at once, with less machine;
and what administrators do: find, ls -lR, reading everything."""

import os
import time

from . import machine, mounts, spawn
from .coldstart import ImportRow
from .rows import Column, Row, Skip, Table, Target

HELP = "larger environments, sessions at once, a small machine, find and ls -lR"
SIZES = (1, 4, 16)
SESSIONS = (1, 2, 4, 8, 16)


def add_options(parser):
    parser.add_argument("--memory", type=int, default=128, metavar="MIB",
                        help="what the worker may use on the small machine (%(default)s)")


def settle(bench, row):
    """As before each row: for rows that measure one thing after the other."""
    machine.drop_caches()
    for path in bench.system_files() + row.cached():
        machine.read_into_cache(path)


# -- size of the environment --

class Sized(ImportRow):
    """`thaw run` of an environment that holds itself several times."""

    def __init__(self, bench, name, label, warm):
        super().__init__(bench, name, label)
        self.warm, self.paths = warm, {}

    def check(self):
        for size in SIZES:
            self.paths[size] = self.bench.material.copies_image(
                size, self.bench.workload if self.warm else None)

    def cached(self):
        return list(self.paths.values())

    def measure(self, meter):
        values = {}
        for size in SIZES:
            settle(self.bench, self)
            values["x%d" % size] = meter.time(
                [self.material.thaw, "run", "--warm=all" if self.warm else "--warm=none",
                 self.paths[size], "--"] + self.command("python3"), env=self.environment())
            values["mb%d" % size] = os.stat(self.paths[size]).st_size
        values["growth"] = values["x16"] / values["x1"]
        return values


def size_table(bench):
    rows = [Sized(bench, "size/on-demand", "thaw run, on demand", warm=False),
            Sized(bench, "size/warm", "thaw run, warm set", warm=True)]
    columns = [Column("x%d" % size, "× %d" % size, "s") for size in SIZES] \
        + [Column("growth", "× 16 ÷ × 1", "x")] \
        + [Column("mb%d" % size, "image × %d" % size, "MB") for size in SIZES]
    return Table("size", "Cold start of larger environments", columns, rows, "size/on-demand",
                 ["files and bytes of the environment, so many times; the workload is the same"],
                 targets=[Target("16 times the environment, warm set", "size/warm", "growth", 1.05),
                          Target("16 times the environment, on demand", "size/on-demand",
                                 "growth", 1.05)])


# -- sessions at once --

class AtOnce(ImportRow):
    """So many sessions started at one moment, each with its own way to the environment."""

    # $1: how many; $2: the script of one session, which is given its number.
    SCRIPT = 'for i in $(seq "$1"); do bash -o pipefail -ec "$2" session "$i" & all="$all $!"; ' \
             'done; for one in $all; do wait "$one"; done'

    def session(self):
        """A session, as a script; $1 is its number."""
        raise NotImplementedError

    def between(self):
        """Undo what the sessions of one measurement left. Not timed."""

    def measure(self, meter):
        values = {}
        for count in SESSIONS:
            settle(self.bench, self)
            self.setup_sessions()
            values["n%d" % count] = meter.time(
                spawn.shell(self.SCRIPT, count, self.session()), env=self.environment())
            self.between()
        return values

    def setup_sessions(self):
        """What is there before the first session comes. Not timed."""

    def words(self, argv):
        return " ".join("'%s'" % word.replace("'", "'\\''") for word in argv)


class DirectoryAtOnce(AtOnce):
    def setup_sessions(self):
        spawn.run(self.command(self.bench.python), env=self.environment())

    def session(self):
        return self.words(self.command(self.bench.python))


class RunAtOnce(AtOnce):
    def __init__(self, bench, name, label, image, warm):
        super().__init__(bench, name, label)
        self.image, self.warm, self.path = image, warm, None

    def check(self):
        self.material.thaw_tag()
        self.path = self.image()

    def cached(self):
        return [self.path]

    def session(self):
        return self.words([self.material.thaw, "run", "--warm=" + self.warm, self.path, "--"]
                          + self.command("python3"))


class MountAtOnce(AtOnce):
    """Each session mounts for itself."""

    def __init__(self, bench, mount, name, label):
        super().__init__(bench, name, label)
        self.mount, self.root_only = mount, True

    def check(self):
        self.mount.check()

    def cached(self):
        return self.mount.cached()

    def session(self):
        directory = os.path.join(self.work, "mnt-")
        argv = self.mount.argv("@@")
        return 'mkdir -p "%s$1"; ' % directory \
            + self.words(argv).replace("'@@'", '"%s$1"' % directory) + "; " \
            + self.words(self.command("@@")).replace("'@@'", '"%s$1/bin/python3"' % directory)

    def between(self):
        for name in sorted(os.listdir(self.work)):
            if name.startswith("mnt-"):
                self.mount.unmount(os.path.join(self.work, name))

    def teardown(self):
        self.between()


def sessions_table(bench):
    material = bench.material
    rows = [
        DirectoryAtOnce(bench, "at-once/directory", "one unpacked directory, warm"),
        MountAtOnce(bench, mounts.Squashfs(material, material.squashfs), "at-once/squashfs",
                    "kernel squashfs, one mount each"),
        MountAtOnce(bench, mounts.Squashfuse(material, material.squashfs), "at-once/squashfuse",
                    "squashfuse_ll, one each"),
        RunAtOnce(bench, "at-once/thaw-run", "thaw run, on demand", material.image, "none"),
        RunAtOnce(bench, "at-once/thaw-run-warm", "thaw run, warm set",
                  lambda: material.warm_image(bench.workload), "all"),
    ]
    columns = [Column("n%d" % count, "%d at once" % count, "s", ratio="× directory")
               for count in SESSIONS]
    return Table("at-once", "Sessions at once: until the last has imported", columns, rows,
                 "at-once/directory", ["each prepares and imports; caches dropped before each "
                                       "number of sessions"])


# -- one CPU, little memory --

def memory_group(name, mib):
    """A cgroup with a limit of memory, of either version. Returns its directory."""
    with open("/proc/self/cgroup", encoding="ascii") as stream:
        lines = stream.read().splitlines()
    old = [line.split(":", 2)[2] for line in lines if ":memory:" in line]
    if old:
        parent, limit = "/sys/fs/cgroup/memory" + old[0], "memory.limit_in_bytes"
    else:
        parent = "/sys/fs/cgroup" + [line[3:] for line in lines if line.startswith("0::")][0]
        limit = "memory.max"
    path = os.path.join(parent, name)
    try:
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, limit), "w", encoding="ascii") as stream:
            stream.write(str(mib << 20))
    except OSError as error:
        raise Skip("no cgroup with a limit of memory: %s" % error.strerror) from None
    return path


class Small(ImportRow):
    """All on one CPU; who serves the mount, in a cgroup of its own, with little memory."""

    root_only = True

    def __init__(self, bench, mount, name, label):
        super().__init__(bench, name, label)
        self.mount = mount

    @property
    def directory(self):
        return os.path.join(self.work, "mnt")

    def check(self):
        self.material.tool("taskset")
        if self.mount:
            self.mount.check()
            os.rmdir(memory_group("thaw-bench-try", self.bench.options.memory))

    def cached(self):
        return self.mount.cached() if self.mount else []

    def setup(self):
        os.mkdir(self.directory)
        if not self.mount:
            spawn.run(self.command(self.bench.python), env=self.environment())

    def command(self, python):
        return ["taskset", "-c", "0"] + super().command(python)

    def prepare(self, meter):
        if not self.mount:
            return self.bench.python
        self.group = memory_group("thaw-bench-%d" % os.getpid(), self.bench.options.memory)
        meter.time(spawn.shell('echo 0 >"$1/cgroup.procs"; shift; exec taskset -c 0 "$@"',
                               self.group, *self.mount.argv(self.directory)))
        return os.path.join(self.directory, "bin", "python3")

    def counts(self):
        return self.mount.counts(self.directory) if self.mount else {}

    def disk(self):
        return self.mount.bytes() if self.mount else 0

    def teardown(self):
        if not self.mount:
            return
        self.mount.unmount(self.directory)
        end = time.monotonic() + 10
        while os.path.isdir(getattr(self, "group", "")) and time.monotonic() < end:
            try:
                os.rmdir(self.group)
            except OSError:
                time.sleep(0.05)


def small_table(bench):
    material = bench.material
    rows = [
        Small(bench, None, "small/directory", "unpacked directory, warm"),
        Small(bench, mounts.Squashfs(material, material.squashfs), "small/squashfs",
              "kernel squashfs (zstd)"),
        Small(bench, mounts.Squashfuse(material, material.squashfs), "small/squashfuse",
              "squashfuse_ll"),
        Small(bench, mounts.Thaw(material, material.image), "small/thaw", "thaw, on demand"),
        Small(bench, mounts.ThawWarm(material, "thaw-warm", "", bench.workload),
              "small/thaw-warm", "thaw, warm set"),
    ]
    columns = [
        Column("prepare", "prepare", "s"),
        Column("first", "first import", "s"),
        Column("total", "both", "s", ratio="× warm directory"),
        Column("second", "second import", "s", ratio="× warm directory"),
        Column("cpu", "CPU", "s"),
        Column("requests", "FUSE requests", "n"),
        Column("overtaken", "warm pages read nevertheless", "n"),
    ]
    return Table("small", "One CPU, and %d MiB for who serves" % bench.options.memory, columns,
                 rows, "small/directory",
                 ["pages that a process stores in the page cache count as its cgroup's"])


# -- what administrators do --

class Walk(Row):
    """find, ls -lR, and every file read, each from cold caches."""

    def __init__(self, bench, mount, name, label):
        super().__init__(name, label)
        self.bench, self.mount = bench, mount
        self.root_only = True

    @property
    def directory(self):
        return os.path.join(self.work, "mnt") if self.mount else self.bench.material.tree

    def check(self):
        if self.mount:
            self.mount.check()

    def cached(self):
        return self.mount.cached() if self.mount else []

    def setup(self):
        if self.mount:
            os.mkdir(self.directory)

    def _cold(self, meter, script):
        settle(self.bench, self)
        if self.mount:
            self.mount.mount(meter, self.directory)
        seconds = meter.time(spawn.shell(script, self.directory))
        requests = self.mount.counts(self.directory).get("requests") if self.mount else None
        if self.mount:
            self.mount.unmount(self.directory)
        return seconds, requests

    def measure(self, meter):
        values = {}
        values["find"], values["requests"] = self._cold(meter, 'find "$1" >/dev/null')
        values["ls"], _ = self._cold(meter, 'ls -lR "$1" >/dev/null')
        values["read"], _ = self._cold(
            meter, 'find "$1" -type f -print0 | xargs -0 -n 128 cat >/dev/null')
        return values

    def teardown(self):
        if self.mount:
            self.mount.unmount(self.directory)


def walk_table(bench):
    material = bench.material
    rows = [
        Walk(bench, None, "walk/directory", "unpacked directory, cold"),
        Walk(bench, mounts.Squashfs(material, material.squashfs), "walk/squashfs",
             "kernel squashfs (zstd)"),
        Walk(bench, mounts.Erofs(material, "lz4hc"), "walk/erofs", "kernel erofs (lz4hc)"),
        Walk(bench, mounts.Squashfuse(material, material.squashfs), "walk/squashfuse",
             "squashfuse_ll"),
        Walk(bench, mounts.Thaw(material, material.image), "walk/thaw", "thaw"),
    ]
    columns = [
        Column("find", "find", "s", ratio="× squashfs"),
        Column("ls", "ls -lR", "s", ratio="× squashfs"),
        Column("read", "read all", "s", ratio="× squashfs"),
        Column("requests", "FUSE requests of find", "n"),
    ]
    return Table("walk", "What administrators do", columns, rows, "walk/squashfs",
                 ["each from cold caches, the image cached"])


def tables(bench):
    return [size_table(bench), sessions_table(bench), small_table(bench), walk_table(bench)]
