# SPDX-License-Identifier: Apache-2.0
"""Large, wide, deep and long: what a random tree does not reach."""
import os
import random
import struct
import subprocess
import unicodedata

import pytest

from support import command, tars, trees
from support.command import binary, thaw
from support.mounts import mounted
from support.tars import END, directory, header, member, tar

pytestmark = pytest.mark.fuse
MIB = 1 << 20


def packed(work, data, *options):
    (work / "x.tar").write_bytes(data)
    thaw("pack", work / "x.tar", "--quiet", *options)
    return work / "x.thaw"


def test_100000_files_in_one_directory(work):
    names = [b"file-%06d" % (i * 7919 % 100_000) for i in range(100_000)]
    image = packed(work, b"".join(header(b"wide/" + n) for n in names) + END, "--level=1")
    with mounted(image, work / "mnt") as mount:
        wide = os.fsencode(mount.path) + b"/wide"
        assert sorted(os.listdir(wide)) == sorted(names)
        assert len(os.listdir(wide)) == 100_000
        for name in random.Random(1).sample(names, 500):
            assert os.lstat(wide + b"/" + name).st_size == 0
        assert not os.path.lexists(wide + b"/file-100000")
        # Subdirectories: none.
        assert os.lstat(wide).st_nlink in (1, 2)


def test_file_of_3_GiB(work):
    """Streamed through standard input, with a word at each offset that tells the offset."""
    blocks = 3 * 1024 + 1
    filler = bytes(MIB - 4096)
    stamp = struct.Struct("<Q")

    def block(number):
        return stamp.pack(number) * 512 + filler

    process = subprocess.Popen(
        [binary(), "pack", "-", "-o", work / "x.thaw", "--quiet", "--level=1"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=command.environment())
    try:
        process.stdin.write(header(b"large", size=blocks * MIB))
        for number in range(blocks):
            process.stdin.write(block(number))
        process.stdin.write(tars.member(b"behind", b"the large file") + END)
        error = process.communicate(timeout=120)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, error
    generator = random.Random(3)
    with mounted(work / "x.thaw", work / "mnt") as mount:
        assert os.lstat(mount.path / "large").st_size == blocks * MIB
        descriptor = os.open(mount.path / "large", os.O_RDONLY)
        try:
            numbers = [0, 2047, 2048, 2049, 3071, blocks - 1,
                       *(generator.randrange(2048, blocks) for _ in range(40))]
            for number in numbers:
                offset = generator.randrange(4000)
                start = number * MIB + offset
                assert os.pread(descriptor, 10_000, start) == block(number)[offset:offset + 10_000]
            assert os.pread(descriptor, 10, blocks * MIB - 3) == b"\0\0\0"
            assert os.pread(descriptor, 10, blocks * MIB) == b""
        finally:
            os.close(descriptor)
        assert (mount.path / "behind").read_bytes() == b"the large file"


def test_empty_files_at_every_place(work):
    members = [member(b"first"), member(b"data", b"x" * 5000), member(b"middle"),
               member(b"more", b"y" * 4096), member(b"last")]
    with mounted(packed(work, tar(*members), "--frame-size=4K"), work / "mnt") as mount:
        for name in ("first", "middle", "last"):
            assert (mount.path / name).read_bytes() == b""
            assert (mount.path / name).stat().st_size == 0
        assert (mount.path / "data").read_bytes() == b"x" * 5000


def test_image_of_nothing(work):
    with mounted(packed(work, END), work / "mnt") as mount:
        assert os.listdir(mount.path) == []


NAMES = [b"n" * 255, "\u00e9".encode() * 127, b"caf\xe9", b"\xff\xfe\xfd", b" leading", b"trailing ",
         b"new\nline", b"tab\tname", b"quote'\"", b"back\\slash", b"%s%n", b"...", b".hidden", b"*",
         unicodedata.normalize("NFC", "Am\u00e9lie").encode(),
         unicodedata.normalize("NFD", "Am\u00e9lie").encode(), b"case", b"CASE"]


def test_names_are_bytes(work):
    image = packed(work, tar(directory(b"d"), *(member(b"d/" + n, n) for n in NAMES)))
    with mounted(image, work / "mnt") as mount:
        base = os.fsencode(mount.path) + b"/d"
        assert sorted(os.listdir(base)) == sorted(NAMES)
        for name in NAMES:
            assert trees.read_all(base + b"/" + name) == name
        for missing in (b"n" * 254, b"Case", "Am\u00e8lie".encode(), b"caf\xc3\xa9"):
            assert not os.path.lexists(base + b"/" + missing)
        with pytest.raises(OSError):
            os.lstat(base + b"/" + b"n" * 256)


def test_deep_tree(work):
    depth = 1000
    path = b"/".join([b"d"] * depth)
    with mounted(packed(work, tar(member(path + b"/leaf", b"deep"))), work / "mnt") as mount:
        assert trees.read_all(os.fsencode(mount.path) + b"/" + path + b"/leaf") == b"deep"
        # Step by step, as find(1) does, and back by "..".
        at = os.open(mount.path, os.O_RDONLY)
        for name, count in (("d", depth), ("..", depth)):
            for _ in range(count):
                if name == "d":
                    assert os.listdir(at) == ["d"]
                below = os.open(name, os.O_RDONLY, dir_fd=at)
                os.close(at)
                at = below
            assert os.listdir(at) == (["leaf"] if name == "d" else ["d"])
        assert os.fstat(at).st_ino == os.stat(mount.path).st_ino
        os.close(at)
