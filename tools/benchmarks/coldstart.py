# SPDX-License-Identifier: Apache-2.0
"""One session's cold start: prepare, first import, second import."""

import os
import time

from . import machine, mounts, spawn
from .material import disk_bytes
from .rows import Column, Row, Skip, Table, Target

HELP = "mount (or unpack) and first import, beside everything else that opens an environment"

COLUMNS = [
    Column("prepare", "prepare", "s"),
    Column("first", "first import", "s"),
    Column("total", "both", "s", ratio="× warm directory"),
    Column("second", "second import", "s", ratio="× warm directory"),
    Column("cpu", "CPU", "s"),
    Column("disk", "on disk", "MB"),
    Column("page_cache", "page cache", "MB"),
    Column("requests", "FUSE requests", "n"),
    Column("reads", "of them reads", "n"),
    Column("overtaken", "warm pages read nevertheless", "n"),
]
OTHER_WORKLOAD = "import json, sqlite3, email, xml.dom.minidom, unittest, scipy.sparse"


def add_options(parser):
    parser.add_argument("--other-workload", metavar="CODE", default=OTHER_WORKLOAD,
                        help="what the warm set of another workload is made from (%(default)s)")


class ImportRow(Row):
    """prepare() gives the session its interpreter; then the import runs, twice."""

    bytecode = False  # whether Python writes .pyc: only where the user's would be missing

    def __init__(self, bench, name, label):
        super().__init__(name, label)
        self.bench, self.material = bench, bench.material

    def environment(self):
        kept = {key: value for key, value in os.environ.items()
                if key in ("PATH", "HOME", "LANG", "TMPDIR")}
        if not self.bytecode:
            kept["PYTHONDONTWRITEBYTECODE"] = "1"
        return kept

    def command(self, python):
        return [python, "-I", "-c", self.bench.workload]

    def prepare(self, meter):
        """Timed. Returns the interpreter."""
        raise NotImplementedError

    def counts(self):
        """Requests to the filesystem, by column, where they are known."""
        return {}

    def disk(self):
        """What has to lie on this machine's disk: the archive or image, and what it became."""
        raise NotImplementedError

    def measure(self, meter):
        start = time.monotonic()
        python = self.prepare(meter)
        prepared = time.monotonic()
        meter.time(self.command(python), env=self.environment())
        done = time.monotonic()
        values = meter.usage()
        values.update(self.counts(), prepare=prepared - start, first=done - prepared,
                      total=done - start)
        values["second"] = meter.time(self.command(python), env=self.environment())
        values["disk"] = self.disk()
        return values


class Directory(ImportRow):
    def __init__(self, bench, name, label, warm):
        super().__init__(bench, name, label)
        self.warm = warm
        self.root_only = not warm  # caches are to be dropped

    def setup(self):
        if self.warm:
            spawn.run(self.command(self.bench.python), env=self.environment())

    def prepare(self, meter):
        return self.bench.python

    def disk(self):
        return disk_bytes(self.material.tree)


class Untar(ImportRow):
    def __init__(self, bench, name, label, option, archive):
        super().__init__(bench, name, label)
        self.option, self.archive, self.path = option, archive, None

    def check(self):
        self.path = self.archive()

    def cached(self):
        return [self.path]

    def prepare(self, meter):
        directory = os.path.join(self.work, "env")
        os.mkdir(directory)
        meter.time(["tar", "-C", directory, self.option, "-xf", self.path])
        return os.path.join(directory, "bin", "python3")

    def disk(self):
        return disk_bytes(self.path, os.path.join(self.work, "env"))


class Clone(ImportRow):
    """Hard links to an unpacked directory that is warm, names and pages."""

    def check(self):
        if os.stat(self.bench.scratch).st_dev != os.stat(self.material.tree).st_dev:
            raise Skip("the environment lies on another filesystem")
        self.source = self.material.tree
        try:
            os.link(os.path.realpath(self.bench.python), os.path.join(self.bench.scratch, "link"))
        except OSError as error:
            raise Skip("no hard links: %s" % error.strerror) from None
        os.unlink(os.path.join(self.bench.scratch, "link"))

    def setup(self):
        spawn.run(["find", self.source, "-size", "+0"])
        spawn.run(self.command(self.bench.python), env=self.environment())

    def prepare(self, meter):
        clone = os.path.join(self.work, "env")
        meter.time(["cp", "-al", self.source, clone])
        return os.path.join(clone, "bin", "python3")

    def disk(self):
        return disk_bytes(self.material.tree, os.path.join(self.work, "env"))


class Installed(ImportRow):
    """Rows that install packages beside the environment's interpreter; that one is warm."""

    bytecode = True

    def requirements(self):
        """What is installed in the environment, pinned."""
        code = ("import importlib.metadata as m\n"
                "for d in m.distributions(): print(d.metadata['Name'] + '==' + d.version)")
        found = spawn.output([self.bench.python, "-I", "-c", code]).split()
        return sorted(line for line in found if line.split("==")[0] not in ("pip", "setuptools"))

    def setup(self):
        library = os.path.join(self.material.tree, "lib")
        for folder, folders, names in os.walk(library):
            folders[:] = [name for name in folders if name != "site-packages"]
            for name in names:
                machine.read_into_cache(os.path.join(folder, name))
        spawn.run([self.bench.python, "-I", "-c", "import ctypes, json, decimal"],
                  env=dict(self.environment(), PYTHONDONTWRITEBYTECODE="1"))


class Uv(Installed):
    def __init__(self, bench, name, label, options=()):
        super().__init__(bench, name, label)
        self.options = list(options)
        self.cache = os.path.join(self.material.folder, "uv-cache")

    def uv(self, *words):
        return ["uv", "--quiet", "--no-config", "--cache-dir", self.cache] + list(words)

    def install(self, folder, *options):
        python = os.path.join(folder, "bin", "python")
        return self.uv("pip", "install", "--python", python, *self.options, *options,
                       *self.requirements_)

    def check(self):
        self.material.tool("uv")
        self.requirements_ = self.requirements()
        # Fills the cache; later installs are offline and cannot download anything.
        folder = os.path.join(self.bench.scratch, "uv")
        spawn.run(self.uv("venv", "--clear", "--python", self.bench.python, folder))
        spawn.run(self.install(folder), timeout=600)

    def cached(self):
        return [self.cache, spawn.find("uv")]

    def prepare(self, meter):
        folder = os.path.join(self.work, "venv")
        meter.time(self.uv("venv", "--offline", "--python", self.bench.python, folder))
        meter.time(self.install(folder, "--offline"))
        return os.path.join(folder, "bin", "python")

    def disk(self):
        return disk_bytes(self.cache, os.path.join(self.work, "venv"))


class Pex(Installed):
    """A PEX file run with an empty PEX_ROOT: it unpacks itself at the first start."""

    def __init__(self, bench, name, label, options=()):
        super().__init__(bench, name, label)
        self.options = list(options)
        self.file = name + ".pex"
        self.path = None

    def check(self):
        tool = self.material.tool("pex")
        self.path = self.material.make(self.file, lambda out: spawn.run(
            [tool, "--python", self.bench.python] + self.options + ["-o", out]
            + self.requirements(), timeout=900,
            env=dict(os.environ, PEX_ROOT=os.path.join(self.bench.scratch, "pex-build"))))

    def cached(self):
        return [self.path]

    def environment(self):
        return dict(super().environment(), PEX_ROOT=os.path.join(self.work, "root"))

    def prepare(self, meter):
        return self.bench.python

    def command(self, python):
        return [python, self.path, "-c", self.bench.workload]

    def setup(self):
        super().setup()
        spawn.run([self.bench.python, "-I", "-c", "import zipimport, zipfile, subprocess, "
                   "argparse, urllib.request, hashlib"],
                  env=dict(super().environment(), PYTHONDONTWRITEBYTECODE="1"))

    def disk(self):
        return disk_bytes(self.path, os.path.join(self.work, "root"))


class Mounted(ImportRow):
    def __init__(self, bench, mount, name=None, label=None, image_cached=True):
        super().__init__(bench, name or mount.name, label or mount.label)
        self.mount, self.image_cached = mount, image_cached
        self.root_only = mount.root_only or not image_cached
        self.timeout = 60.0 if mount.name in ("archivemount", "ratarmount") else 300.0

    @property
    def directory(self):
        return os.path.join(self.work, "mnt")

    def check(self):
        self.mount.check()

    def cached(self):
        return self.mount.cached() if self.image_cached else []

    def setup(self):
        os.mkdir(self.directory)
        self.mount.warm_up()

    def prepare(self, meter):
        self.mount.mount(meter, self.directory)
        return os.path.join(self.directory, "bin", "python3")

    def counts(self):
        return self.mount.counts(self.directory)

    def disk(self):
        return self.mount.bytes()

    def teardown(self):
        self.mount.unmount(self.directory)


class Run(ImportRow):
    """`thaw run`: the imports run in its private view, and time themselves.

    A shell is the command, so that the second import meets the same view.
    """

    SCRIPT = """
    one=$EPOCHREALTIME; python3 -I -c "$1"; two=$EPOCHREALTIME
    cat "$4" >"$2.cpu"; cat "$5" >"$2.meminfo"
    "$3" stat --json "$THAW_ENV" >"$2.stat" 2>/dev/null || true
    three=$EPOCHREALTIME; python3 -I -c "$1"; echo "$one $two $three $EPOCHREALTIME" >"$2"
    """

    def __init__(self, bench, name, label, image, *options):
        super().__init__(bench, name, label)
        self.image, self.options, self.path = image, list(options), None

    def check(self):
        self.material.thaw_tag()
        spawn.run([self.material.thaw, "run", "--help"])
        self.path = self.image()

    def cached(self):
        return [self.path]

    def disk(self):
        return os.stat(self.path).st_size

    def measure(self, meter):
        marks = os.path.join(self.work, "marks")
        start = time.time()
        meter.time([self.material.thaw, "run"] + self.options + [self.path, "--"]
                   + spawn.shell(self.SCRIPT, self.bench.workload, marks, self.material.thaw,
                                 *meter.sources()),
                   env=self.environment())
        with open(marks, encoding="ascii") as stream:
            one, two, three, end = (float(word) for word in stream.read().split())
        values = {"prepare": one - start, "first": two - one, "total": two - start,
                  "second": end - three, "disk": self.disk()}
        values.update(meter.usage_of_copies(marks + ".cpu", marks + ".meminfo"))
        with open(marks + ".stat", encoding="utf-8") as stream:
            values.update(mounts.stat_counts(stream.read()))
        return values


class Second(Mounted):
    """A second session: an overlay of its own above a mount that another session has used."""

    def setup(self):
        super().setup()
        self.views = [os.path.join(self.work, name) for name in ("view1", "view2")]
        for path in self.views + [os.path.join(self.work, "empty")]:
            os.mkdir(path)
        spawn.run(self.mount.argv(self.directory))
        python = self._view(self.views[0], spawn.run)
        spawn.run(self.command(python), env=self.environment())
        self._settle()
        # The second call tells what asking costs.
        first, self.before = (self.mount.counts(self.directory) for _ in range(2))
        self.asking = {key: self.before[key] - first[key] for key in first}

    def _settle(self):
        """Until nothing is asked ahead of the first session any more."""
        reads, end = None, time.monotonic() + 10
        while time.monotonic() < end:
            before, reads = reads, self.mount.counts(self.directory)["reads"]
            if reads == before:
                return
            time.sleep(0.5)

    def _view(self, path, run):
        # Without an upper directory an overlay wants two lower ones.
        layers = "lowerdir=%s:%s" % (self.directory, os.path.join(self.work, "empty"))
        run(["mount", "-t", "overlay", "-o", "ro," + layers, "overlay", path])
        return os.path.join(path, "bin", "python3")

    def prepare(self, meter):
        return self._view(self.views[1], meter.time)

    def counts(self):
        now = self.mount.counts(self.directory)
        return {key: now[key] - self.before[key] - self.asking[key] for key in now}

    def teardown(self):
        for path in getattr(self, "views", []):
            if mounts.is_mounted(path):
                spawn.run(["umount", path])
        super().teardown()


def tables(bench):
    material = bench.material
    gz, zst = (lambda: material.tar_gz), (lambda: material.tar_zst)
    squashfs, workload, other = material.squashfs, bench.workload, bench.options.other_workload
    rows = [
        Directory(bench, "warm", "unpacked directory, warm", warm=True),
        Directory(bench, "cold", "unpacked directory, cold", warm=False),
        Untar(bench, "untar-gz", "untar `.tar.gz`", "--gzip", gz),
        Untar(bench, "untar-zst", "untar `.tar.zst`", "--zstd", zst),
        Clone(bench, "clone", "hard-link clone (`cp -al`)"),
        Uv(bench, "uv", "`uv pip install`, warm cache"),
        Uv(bench, "uv-compile", "`uv pip install --compile-bytecode`", ["--compile-bytecode"]),
        Pex(bench, "pex", "PEX zipapp, first run"),
        Pex(bench, "pex-venv", "PEX `--venv`, first run", ["--venv"]),
        Mounted(bench, mounts.Squashfs(material, squashfs)),
        Mounted(bench, mounts.Erofs(material, "lz4hc")),
        Mounted(bench, mounts.Erofs(material, "zstd,9")),
        Mounted(bench, mounts.Squashfuse(material, squashfs)),
        Mounted(bench, mounts.Ratarmount(material, gz)),
        Mounted(bench, mounts.Archivemount(material, gz)),
        Mounted(bench, mounts.Thaw(material, material.image)),
        Mounted(bench, mounts.Thaw(material, material.image), "thaw-uncached",
                "thaw, on demand, image not cached", image_cached=False),
        Run(bench, "thaw-run", "thaw run, on demand", material.image, "--warm=none"),
        Mounted(bench, mounts.ThawWarm(material, "thaw-warm", "thaw, warm set", workload)),
        Run(bench, "thaw-run-warm", "thaw run, warm set",
            lambda: material.warm_image(workload), "--warm=all"),
        Mounted(bench, mounts.ThawWarm(material, "thaw-warm-other",
                                       "thaw, warm set of another workload", other)),
        Run(bench, "thaw-run-warm-other", "thaw run, warm set of another workload",
            lambda: material.warm_image(other), "--warm=all"),
        Second(bench, mounts.Thaw(material, material.image), "thaw-second",
               "thaw, second session in a view of its own"),
    ]
    notes = [
        "workload: `python -I -c '%s'`; %d files" % (bench.workload, count_files(material.tree)),
        "image or archive in the page cache where the row does not say otherwise, all other "
        "caches dropped before each row; on disk: archive or image, and what was unpacked",
    ]
    return [Table("coldstart", "Cold start of one session", COLUMNS, rows, "warm", notes,
                  chart={"segments": ["prepare", "first"], "total": "total"}, targets=[
                      Target("thaw run on demand against a warm directory", "thaw-run",
                             "total", 1.6, of="warm"),
                      Target("on demand against a warm directory", "thaw", "total", 1.6,
                             of="warm"),
                      Target("on demand against kernel squashfs", "thaw", "total", 1.0,
                             of="squashfs"),
                      Target("on demand against untar of the .tar.gz", "thaw", "total", 0.5,
                             of="untar-gz"),
                      Target("second session against a warm directory", "thaw-second", "total",
                             1.06, of="warm"),
                      # Mounting the overlay asks for the size of the filesystem beneath.
                      Target("requests of a second session, its mounting included",
                             "thaw-second", "requests", 1),
                  ] + [target for name in ("thaw-warm", "thaw-run-warm") for target in (
                      Target(name + " against a warm directory", name, "total", 1.15, of="warm"),
                      Target(name + " against kernel squashfs", name, "total", 1.0,
                             of="squashfs"),
                      Target(name + " against kernel erofs", name, "total", 1.0,
                             of="erofs-lz4hc"))
                  ])]


def count_files(tree):
    return sum(len(names) for _, _, names in os.walk(tree))
