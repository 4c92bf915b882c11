# SPDX-License-Identifier: Apache-2.0
"""The image itself: pack, extract, mount, read every file."""

import os
import time

from . import machine, mounts, spawn
from .material import disk_bytes
from .rows import Column, Row, Table, Target

HELP = "pack, extract, time to mount, and reading every file through the mount"


def add_options(parser):
    parser.add_argument("--entries", type=int, default=1000000, metavar="N",
                        help="size of the large image that is mounted (%(default)s)")


class Pack(Row):
    """One command that reads the .tar.gz and writes an image."""

    def __init__(self, material, name, label, argv, tool):
        super().__init__("pack/" + name, label)
        self.material, self.argv, self.tool = material, argv, tool

    def check(self):
        if self.tool == "thaw":
            self.material.thaw_tag()
        else:
            self.material.tool(self.tool)

    def cached(self):
        return [self.material.tar_gz]

    def measure(self, meter):
        out = os.path.join(self.work, "image")
        seconds = meter.time(self.argv(out))
        size = os.stat(out).st_size
        return {
            "seconds": seconds, "cpu": meter.usage()["cpu"], "size": size,
            "share": size / os.stat(self.material.tar_gz).st_size,
        }


def pack_table(material):
    def zstd(out):
        return spawn.shell('gzip -dc "$1" | zstd -q -T0 "-$2" -o "$3"',
                           material.tar_gz, material.level, out)

    def thaw(out):
        return [material.thaw, "pack", "--quiet", "--level", material.level, "-o", out,
                material.tar_gz]
    rows = [Pack(material, "sqfstar-%s" % block.lower(), "sqfstar, %s" % block,
                 lambda out, block=block: material.sqfstar(material.tar_gz, out, block),
                 "mksquashfs") for block in ("128K", "256K")]
    rows += [
        Pack(material, "zstd", "`gzip -dc | zstd -T0` (no index)", zstd, "zstd"),
        Pack(material, "thaw", "thaw pack", thaw, "thaw"),
    ]
    columns = [
        Column("seconds", "time", "s", ratio="× sqfstar 128K"),
        Column("cpu", "CPU", "s"),
        Column("size", "image", "MB", ratio="× sqfstar 128K"),
        Column("share", "image ÷ .tar.gz", "x"),
    ]
    return Table("pack", "Pack from a .tar.gz", columns, rows, "pack/sqfstar-128k",
                 ["zstd level %d everywhere; sqfstar is run as `mksquashfs - OUT -tar`"
                  % material.level],
                 chart={"segments": ["seconds"], "total": "seconds"},
                 targets=[Target("time against sqfstar 128K", "pack/thaw", "seconds", 1.0,
                                 of="pack/sqfstar-128k"),
                          Target("size against the .tar.gz", "pack/thaw", "share", 1.0)])


class Extract(Row):
    """One command that fills an empty directory; the second figure includes writing it back."""

    def __init__(self, material, name, label, argv, source, tool):
        super().__init__("extract/" + name, label)
        self.material, self.argv, self.source, self.tool = material, argv, source, tool
        self.path = None

    def check(self):
        if self.tool == "thaw":
            self.material.thaw_tag()
        else:
            self.material.tool(self.tool)
        self.path = self.source()

    def cached(self):
        return [self.path]

    def measure(self, meter):
        out = os.path.join(self.work, "tree")
        start = time.monotonic()
        seconds = meter.time(self.argv(self.path, out))
        used = meter.usage()["cpu"]
        os.sync()
        return {
            "seconds": seconds, "synced": time.monotonic() - start, "cpu": used,
            "disk": disk_bytes(out),
        }


def extract_table(material):
    def tar(path, out):
        return spawn.shell('mkdir "$2"; tar -C "$2" --zstd -xf "$1"', path, out)
    rows = [
        Extract(material, "tar-solid", "`tar --zstd -x`, solid .tar.zst", tar,
                lambda: material.tar_zst, "zstd"),
        Extract(material, "tar-image", "`tar --zstd -x`, the image", tar, material.image, "zstd"),
        Extract(material, "unsquashfs", "unsquashfs",
                lambda path, out: ["unsquashfs", "-quiet", "-no-progress", "-d", out, path],
                material.squashfs, "unsquashfs"),
        Extract(material, "thaw", "thaw extract",
                lambda path, out: [material.thaw, "extract", path, out], material.image, "thaw"),
    ]
    columns = [
        Column("seconds", "time", "s", ratio="× tar, solid"),
        Column("synced", "and synced", "s", ratio="× tar, solid"),
        Column("cpu", "CPU", "s"),
        Column("disk", "on disk", "MB"),
    ]
    return Table("extract", "Extract to a directory", columns, rows, "extract/tar-solid",
                 chart={"segments": ["seconds"], "total": "seconds"},
                 targets=[Target("time against `tar --zstd -x`", "extract/thaw", "seconds", 1.0,
                                 of="extract/tar-solid")])


class Ready(Row):
    """Until the mount command has returned, and until the root has been listed after it."""

    def __init__(self, mount, name, label):
        super().__init__("mount/" + name, label)
        self.mount, self.root_only = mount, mount.root_only

    @property
    def directory(self):
        return os.path.join(self.work, "mnt")

    def check(self):
        self.mount.check()

    def cached(self):
        return self.mount.cached()

    def setup(self):
        os.mkdir(self.directory)

    def measure(self, meter):
        start = time.monotonic()
        ready = self.mount.mount(meter, self.directory)
        os.listdir(self.directory)
        listed = time.monotonic() - start
        values = {"ready": ready, "listed": listed, "cpu": meter.usage()["cpu"]}
        daemon = mounts.daemon_memory(meter)
        if daemon:
            values["peak"] = daemon["peak"]
        return values

    def teardown(self):
        self.mount.unmount(self.directory)


def mount_table(bench):
    material, entries = bench.material, bench.options.entries

    def large(kind):
        return lambda: kind(entries)
    words = "{:,} entries".format(entries)
    squashfs, thaw = material.squashfs, material.image
    many_squashfs, many_thaw = large(material.many_squashfs), large(material.many_image)
    rows = [
        Ready(mounts.Squashfs(material, squashfs), "squashfs", "kernel squashfs"),
        Ready(mounts.Squashfuse(material, squashfs), "squashfuse", "squashfuse_ll"),
        Ready(mounts.Thaw(material, thaw), "thaw", "thaw mount"),
        Ready(mounts.Squashfs(material, many_squashfs), "squashfs-many",
              "kernel squashfs, " + words),
        Ready(mounts.Squashfuse(material, many_squashfs), "squashfuse-many",
              "squashfuse_ll, " + words),
        Ready(mounts.Thaw(material, many_thaw), "thaw-many", "thaw mount, " + words),
    ]
    columns = [
        Column("ready", "ready", "ms"),
        Column("listed", "and root listed", "ms"),
        Column("cpu", "CPU", "ms"),
        Column("peak", "peak memory of the daemon", "MB"),
    ]
    return Table("mount", "Time from starting the mount command to its return", columns, rows,
                 "mount/squashfs", ["image in the page cache"],
                 chart={"segments": ["ready"], "total": "ready"},
                 targets=[Target("thaw mount ready", "mount/thaw", "ready", 0.010),
                          Target("thaw mount ready, " + words, "mount/thaw-many", "ready",
                                 0.150)])


# Hands every file to cat in the order of the directories; $2 processes at once.
READ = 'find "$1" -type f -print0 | xargs -0 -n 128 -P "$2" cat >/dev/null'


class ReadAll(Row):
    """Every file once, by one reader and then, with caches dropped again, by several."""

    def __init__(self, bench, mount, name, label):
        super().__init__("read/" + name, label)
        self.bench, self.mount = bench, mount
        self.root_only = mount is not None and mount.root_only

    @property
    def directory(self):
        return os.path.join(self.work, "mnt") if self.mount else self.bench.material.tree

    def check(self):
        if self.mount:
            self.mount.check()

    def cached(self):
        return self.mount.cached() if self.mount else [self.bench.material.tree]

    def setup(self):
        if self.mount:
            os.mkdir(self.directory)

    def _read(self, meter, readers):
        return meter.time(spawn.shell(READ, self.directory, readers))

    def measure(self, meter):
        if self.mount:
            self.mount.mount(meter, self.directory)
        values = {"one": self._read(meter, 1)}
        values["cpu"] = meter.usage()["cpu"]
        daemon = mounts.daemon_memory(meter)
        if self.mount:
            machine.drop_caches()
            for path in self.bench.system_files() + self.cached():
                machine.read_into_cache(path)
        values["several"] = self._read(meter, 2 * os.cpu_count())
        values["again"] = self._read(meter, 1)
        daemon = mounts.daemon_memory(meter) or daemon
        if daemon:
            values["peak"], values["anonymous"] = daemon["peak"], daemon["anonymous"]
            index = index_bytes(self.mount)
            if index is not None:
                values["beyond"] = daemon["peak"] - index
        return values

    def teardown(self):
        if self.mount:
            self.mount.unmount(self.directory)


def index_bytes(mount):
    """The size of the index of a mounted thaw image, as `thaw info` tells it."""
    return mount.index_bytes() if isinstance(mount, mounts.Thaw) else None


def read_table(bench):
    material = bench.material
    rows = [
        ReadAll(bench, mounts.Squashfuse(material, material.squashfs), "squashfuse",
                "squashfuse_ll"),
        ReadAll(bench, mounts.Squashfs(material, material.squashfs), "squashfs",
                "kernel squashfs"),
        ReadAll(bench, mounts.Thaw(material, material.image), "thaw", "thaw"),
        ReadAll(bench, None, "directory", "unpacked directory, warm"),
    ]
    columns = [
        Column("one", "one reader", "s", ratio="× squashfuse_ll"),
        Column("several", "%d readers" % (2 * os.cpu_count()), "s", ratio="× squashfuse_ll"),
        Column("again", "once more", "s"),
        Column("cpu", "CPU, one reader", "s"),
        Column("peak", "peak memory of the daemon", "MB"),
        Column("anonymous", "anonymous at the end", "MB"),
        Column("beyond", "peak − index", "MB"),
    ]
    return Table("read", "Every file once, through a cold mount", columns, rows,
                 "read/squashfuse", ["`%s`; caches dropped before each of the first two; once "
                                     "more: from the page cache" % READ.replace("|", "\\|")],
                 chart={"segments": ["one"], "total": "one"},
                 targets=[Target("one reader against squashfuse_ll", "read/thaw", "one", 1.0,
                                 of="read/squashfuse"),
                          Target("%d readers against squashfuse_ll" % (2 * os.cpu_count()),
                                 "read/thaw", "several", 1.0, of="read/squashfuse"),
                          Target("memory of the worker beyond the index", "read/thaw", "beyond",
                                 64 << 20)])


def tables(bench):
    return [pack_table(bench.material), extract_table(bench.material), mount_table(bench),
            read_table(bench)]
