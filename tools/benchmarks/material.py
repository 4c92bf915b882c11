# SPDX-License-Identifier: Apache-2.0
"""The environment that is measured, and what is made from it once and kept.

Kept files lie below the cache directory of tests/fixtures/environment.py, under a name that
changes with the environment's archive, so that a stale one is never used.
"""

import gzip
import hashlib
import os
import random
import shutil
import sys
import tempfile

from . import spawn
from .rows import Skip

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))


def fixtures():
    """The module that builds environments for tests and benchmarks."""
    folder = os.path.join(SOURCE, "tests", "fixtures")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import environment  # pylint: disable=import-outside-toplevel
    return environment


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def disk_bytes(*paths):
    """Bytes that files and trees occupy on disk together; hard links count once."""
    seen, total = set(), 0

    def count(path):
        nonlocal total
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512

    for path in paths:
        count(os.path.realpath(path))
        for folder, folders, names in os.walk(path):
            for name in folders + names:
                count(os.path.join(folder, name))
    return total


def find_thaw(named=None):
    """The executable to measure: --thaw, $THAW, a build in the source tree, else on PATH."""
    for choice in (named, os.environ.get("THAW")):
        if choice:
            if not os.access(choice, os.X_OK):
                raise spawn.Failed("%s is not an executable" % choice)
            return os.path.abspath(choice)
    # tools/demo and tools/test build there (tools/scripts/build.py).
    path = os.path.join(os.environ.get("THAW_BUILD") or os.path.join(SOURCE, "build"), "thaw")
    if os.access(path, os.X_OK):
        return path
    return spawn.find("thaw")


class Material:
    """Paths of the environment and of everything made from it. Made when first asked for."""

    def __init__(self, kind, thaw, level, say, tree=None):
        self.thaw, self.level, self.say = thaw, level, say
        self._digests = {}
        cache = str(fixtures().cache_directory())
        if tree:
            self.tree = os.path.realpath(tree)
            key = hashlib.sha256(self._listing(self.tree)).hexdigest()[:12]
            self.folder = os.path.join(cache, "bench", "tree-" + key)
        else:
            found = fixtures().get(kind, say)
            self.tree = os.path.realpath(found.tree)
            self.folder = os.path.join(cache, "bench", os.path.basename(str(found.path)))
        os.makedirs(self.folder, exist_ok=True)
        self.shared = os.path.join(cache, "bench", "shared")
        os.makedirs(self.shared, exist_ok=True)
        self.tar_gz = os.path.join(self.folder, "env.tar.gz")
        if not tree and not os.path.exists(self.tar_gz):
            os.symlink(found.archive, self.tar_gz)
        if tree:
            self.make("env.tar.gz", lambda out: spawn.run(spawn.shell(
                'tar -C "$1" -c . | gzip -6 >"$2"', self.tree, out)))
        self.python_name = "bin/python3"

    @staticmethod
    def _listing(tree):
        lines = []
        for folder, _, names in os.walk(tree):
            for name in names:
                path = os.path.join(folder, name)
                status = os.lstat(path)
                lines.append("%s %d %d" % (path, status.st_size, status.st_mtime_ns))
        return "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")

    def make(self, name, build, folder=None):
        """The kept file of this name, built by build(path) when there is none. Atomic."""
        folder = folder or self.folder
        final = os.path.join(folder, name)
        if not os.path.exists(final):
            self.say("making %s" % name)
            with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as temporary:
                path = os.path.join(temporary, name)
                build(path)
                os.rename(path, final)
        return final

    def tool(self, name):
        path = spawn.find(name)
        if not path:
            raise Skip("%s is not installed" % name)
        return path

    @property
    def tar(self):
        def build(out):
            with gzip.open(self.tar_gz, "rb") as packed, open(out, "wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        return self.make("env.tar", build)

    @property
    def tar_zst(self):
        """One solid zstd stream at the level of the image."""
        self.tool("zstd")
        return self.make("env-%d.tar.zst" % self.level, lambda out: spawn.run(
            ["zstd", "-q", "-T0", "-%d" % self.level, self.tar, "-o", out]))

    def squashfs(self, block="128K"):
        self.tool("mksquashfs")
        return self.make("env-%d-%s.squashfs" % (self.level, block), lambda out: spawn.run(
            self.sqfstar(self.tar_gz, out, block)))

    def sqfstar(self, source, out, block):
        """A squashfs image straight from a tar. mksquashfs -tar does what sqfstar does; sqfstar
        4.5.1, which Debian 12 has, takes no compression level (squashfs-tools issue 191)."""
        return spawn.shell(
            'gzip -dc "$1" | mksquashfs - "$4" -tar -comp zstd -Xcompression-level "$2" '
            '-b "$3" -quiet -no-progress', source, self.level, block, out)

    def erofs(self, compressor):
        tool = self.tool("mkfs.erofs")
        try:
            told = spawn.output(spawn.shell('"$1" --help 2>&1', tool))
        except spawn.Failed:
            told = ""
        if compressor.split(",")[0] not in told:
            raise Skip("this mkfs.erofs has no " + compressor.split(",")[0])
        return self.make("env-%s.erofs" % compressor.replace(",", "-"), lambda out: spawn.run(
            [tool, "-z" + compressor, out, self.tree]))

    def thaw_tag(self):
        """Changes with the executable: an image of another build is not measured."""
        if not self.thaw:
            raise Skip("no thaw executable found (--thaw)")
        if self.thaw not in self._digests:
            self._digests[self.thaw] = file_digest(self.thaw)[:8]
        return self._digests[self.thaw]

    def _drop_older(self, folder, start, keep):
        """Images of earlier builds would only fill the disk."""
        for name in os.listdir(folder):
            if name.startswith(start) and name.endswith(".thaw") and name != keep:
                os.unlink(os.path.join(folder, name))

    def image(self):
        start = "env-%d-" % self.level
        name = "%s%s.thaw" % (start, self.thaw_tag())
        self._drop_older(self.folder, start, name)
        return self.make(name, lambda out: spawn.run(
            [self.thaw, "pack", "--quiet", "--level", self.level, "-o", out, self.tar_gz]))

    def copies_image(self, copies, workload=None):
        """An image of the environment with further copies of itself in it, so many in all."""
        if copies == 1:
            return self.warm_image(workload) if workload else self.image()
        start = "copies-%d-%d-" % (copies, self.level)
        name = "%s%s.thaw" % (start, self.thaw_tag())
        self._drop_older(self.folder, start, name)
        # A directory by several names, which tar takes one after the other.
        script = """
        thaw=$1 level=$2 tree=$3 copies=$4 out=$5; names=$(dirname "$out")/names; mkdir "$names"
        set --; for i in $(seq 2 "$copies"); do
            ln -s "$tree" "$names/copy-$i"; set -- "$@" "copy-$i/."; done
        tar --hard-dereference --transform 's,/\\./,/,S;s,/\\.$,,S' -cf - -C "$tree" . -C "$names" "$@" |
            "$thaw" pack --quiet --level "$level" -o "$out" -
        """
        image = self.make(name, lambda out: spawn.run(spawn.shell(
            script, self.thaw, self.level, self.tree, copies, out), timeout=1800))
        return self._warm_image_of(image, workload, "copies-%d-" % copies) if workload else image

    def warm_image(self, workload):
        """The image with a warm set for a workload (Python code)."""
        return self._warm_image_of(self.image(), workload, "")

    def _warm_image_of(self, image, workload, prefix):
        try:
            spawn.run([self.thaw, "warm", "--help"])
        except spawn.Failed:
            raise Skip("this thaw has no command `warm`") from None
        code = hashlib.sha256(workload.encode()).hexdigest()[:8]
        start = "%swarm-%s-%d-" % (prefix, code, self.level)
        name = "%s%s.thaw" % (start, self.thaw_tag())
        self._drop_older(self.folder, start, name)
        return self.make(name, lambda out: spawn.run(
            [self.thaw, "warm", image, "-o", out, "--", "python3", "-I", "-c", workload]))

    def many(self, entries):
        """A tar of very many tiny files, in directories of a thousand."""
        return self.make("many-%d.tar" % entries, lambda out: write_many(out, entries),
                         folder=self.shared)

    def many_image(self, entries):
        start = "many-%d-" % entries
        name = "%s%s.thaw" % (start, self.thaw_tag())
        self._drop_older(self.shared, start, name)
        return self.make(name, lambda out: spawn.run(
            [self.thaw, "pack", "--quiet", "--level", "3", "-o", out, self.many(entries)]),
            folder=self.shared)

    def many_squashfs(self, entries):
        self.tool("mksquashfs")
        return self.make("many-%d.squashfs" % entries, lambda out: spawn.run(spawn.shell(
            'mksquashfs - "$1" -tar -no-duplicates -comp zstd -Xcompression-level 3 -quiet '
            '-no-progress <"$2"',
            out, self.many(entries))), folder=self.shared)


def _header(name, size, kind):
    """A ustar header. Written by hand: tarfile needs minutes for a million entries."""
    block = bytearray(512)
    mode = b"0000755\0" if kind == b"5" else b"0000644\0"
    block[0:len(name)] = name
    block[100:124] = mode + b"0000000\0" * 2
    block[124:148] = b"%011o\0" % size + b"14000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def write_many(path, entries):
    """Write a tar of `entries` entries: directories of a thousand tiny files each."""
    rng = random.Random(entries)
    with open(path, "wb", buffering=1 << 20) as out:
        left, folder = entries, 0
        while left > 0:
            name = b"package%05d" % folder
            out.write(_header(name + b"/", 0, b"5"))
            left -= 1
            for number in range(min(999, left)):
                data = b"%x\n" % rng.getrandbits(rng.randrange(32, 256))
                out.write(_header(b"%s/module%04d.py" % (name, number), len(data), b"0"))
                out.write(data.ljust(512, b"\0"))
            left -= min(999, left)
            folder += 1
        out.write(bytes(1024))
