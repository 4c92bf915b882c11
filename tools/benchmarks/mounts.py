# SPDX-License-Identifier: Apache-2.0
"""Ways to mount one packed environment: thaw, and what else there is.

Each object has a name, a label, check() which raises rows.Skip, the files it reads, and
mount(meter, directory), which returns the seconds until the mount command came back. To see
that the mount works is the caller's business: its own use of it fails otherwise.
"""

import json
import os
import time

from . import spawn
from .rows import Skip


def is_mounted(directory):
    """Not read from the table of mounts: while others mount, a reader of it may miss an entry."""
    try:
        return os.lstat(directory).st_dev != os.lstat(os.path.dirname(directory)).st_dev
    except FileNotFoundError:
        return False
    except OSError:
        return True  # a mount whose daemon has died


def _unmount(argv, directory):
    """Unmount, patiently: a daemon of someone else may look into every new mount."""
    for _ in range(20):
        if not is_mounted(directory):
            return
        try:
            spawn.run(argv, timeout=30)
        except spawn.Failed:
            time.sleep(0.1)
    if is_mounted(directory):
        spawn.run(argv[:1] + ["-l"] + argv[1:] if argv[0] == "umount" else argv)


def stat_counts(text):
    """Of what `thaw stat --json` prints, the figures that are columns; {} where it is not that."""
    try:
        told = json.loads(text)
        return {
            "requests": told["requests_total"],
            "reads": told["requests"].get("read", 0),
            "overtaken": told["warm_pages_read"],
        }
    except (ValueError, KeyError):
        return {}


class Mount:
    name = label = ""
    tools = ()
    fuse = False
    filesystem = None
    root_only = False

    def __init__(self, material, image):
        # image: a function, so that the file is made only when the row is measured
        self.material, self.image, self.path = material, image, None

    def check(self):
        for tool in self.tools:
            self.material.tool(tool)
        if self.filesystem:
            with open("/proc/filesystems", encoding="ascii") as stream:
                known = [line.split()[-1] for line in stream]
            if self.filesystem not in known:
                raise Skip("this kernel has no " + self.filesystem)
        if self.fuse and not os.access("/dev/fuse", os.R_OK | os.W_OK):
            raise Skip("/dev/fuse cannot be opened")
        self.path = self.image()

    def cached(self):
        return [self.path]

    def warm_up(self):
        """Run the tool once without measuring, when it is more than one executable."""

    def argv(self, directory):
        raise NotImplementedError

    def mount(self, meter, directory):
        return meter.time(self.argv(directory))

    def unmount(self, directory):
        root = os.geteuid() == 0 or not self.fuse
        _unmount(["umount", directory] if root else ["fusermount3", "-u", directory], directory)

    def counts(self, directory):
        """Requests so far, by column, where the filesystem counts them."""
        return {}

    def bytes(self):
        return os.stat(self.path).st_size


class Thaw(Mount):
    name, label, fuse = "thaw", "thaw, on demand", True
    options = ()

    def argv(self, directory):
        return [self.material.thaw, "mount"] + list(self.options) + [self.path, directory]

    def unmount(self, directory):
        _unmount([self.material.thaw, "umount", directory], directory)

    def counts(self, directory):
        try:
            return stat_counts(spawn.output([self.material.thaw, "stat", "--json", directory],
                                            timeout=5))
        except spawn.Failed:
            return {}

    def index_bytes(self):
        """The size of the image's index in memory, as `thaw info` tells it."""
        try:
            told = json.loads(spawn.output([self.material.thaw, "info", "--json", self.path]))
            return told["index_size"]
        except (spawn.Failed, ValueError, KeyError):
            return None


class ThawWarm(Thaw):
    """thaw with a warm set in the image."""

    def __init__(self, material, name, label, workload):
        super().__init__(material, lambda: material.warm_image(workload))
        self.name, self.label = name, label
        self.options = ("--warm=all",)

    def check(self):
        if self.material.thaw and "--warm" not in spawn.output(
                [self.material.thaw, "mount", "--help"]):
            raise Skip("`thaw mount` of this build has no --warm")
        super().check()


class Squashfs(Mount):
    name, label, tools = "squashfs", "kernel squashfs (zstd, 128K)", ("mksquashfs", "mount")
    filesystem, root_only = "squashfs", True

    def argv(self, directory):
        return ["mount", "-t", "squashfs", "-o", "loop,ro", self.path, directory]


class Erofs(Mount):
    tools, filesystem, root_only = ("mkfs.erofs", "mount"), "erofs", True

    def __init__(self, material, compressor):
        super().__init__(material, lambda: material.erofs(compressor))
        self.name = "erofs-" + compressor.split(",")[0]
        self.label = "kernel erofs (%s)" % compressor.split(",")[0]

    def argv(self, directory):
        return ["mount", "-t", "erofs", "-o", "loop,ro", self.path, directory]


class Squashfuse(Mount):
    name, label, tools, fuse = "squashfuse", "squashfuse_ll", ("mksquashfs", "squashfuse_ll"), True

    def argv(self, directory):
        return ["squashfuse_ll", self.path, directory]


class Ratarmount(Mount):
    name, label = "ratarmount", "ratarmount (.tar.gz, index made before)"
    tools, fuse = ("ratarmount",), True

    def check(self):
        super().check()
        self.index = self.material.make("env.ratarmount.sqlite", self._make_index)

    def _make_index(self, out):
        """Mounting once writes the index that later mounts read."""
        directory = os.path.join(os.path.dirname(out), "mnt")
        os.mkdir(directory)
        spawn.run(["ratarmount", "--index-file", out, self.path, directory], timeout=300)
        self.unmount(directory)

    def cached(self):
        return [self.path, self.index]

    def warm_up(self):
        spawn.output(["ratarmount", "--version"], timeout=60)

    def argv(self, directory):
        return ["ratarmount", "--index-file", self.index, self.path, directory]


class Archivemount(Mount):
    name, label = "archivemount", "archivemount (.tar.gz)"
    tools, fuse = ("archivemount",), True

    def argv(self, directory):
        return ["archivemount", "-o", "ro", self.path, directory]


def daemon_memory(meter):
    """The process that serves a mount is the one that grew largest."""
    found = sorted(meter.daemons(), key=lambda process: process["peak"])
    return found[-1] if found else None
