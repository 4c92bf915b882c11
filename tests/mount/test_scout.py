# SPDX-License-Identifier: Apache-2.0
"""What the scout asks for before anybody else does, and that it asks for no more."""
import ctypes
import os
import struct
import time

import pytest

from support.command import thaw
from support.mounts import mounted
from support.tars import directory, member, tar
from support.warm import reclaims, stat

pytestmark = pytest.mark.fuse

BYTECODE = b"\xa7\r\r\n"  # as that of Python 3.11 begins
SUFFIX = ".cpython-311-x86_64-linux-gnu.so"
PAGE = 4096
MIB = 1 << 20


def packed(work, *members):
    (work / "x.tar").write_bytes(tar(*members))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def requests(path):
    """By kind; asking adds to the rest of them only."""
    counts = stat(path)["requests"]
    return {kind: counts.get(kind, 0) for kind in ("lookup", "readdirplus", "read")}


def settled(path):
    """The counts, once they no longer change."""
    before, since, end = None, time.monotonic(), time.monotonic() + 30
    while time.monotonic() - since < 0.3:
        now = requests(path)
        if now != before:
            before, since = now, time.monotonic()
        assert time.monotonic() < end, now
        time.sleep(0.02)
    return before


def nothing_asked(path, action):
    """That action makes no request; where pages go away by themselves, that it was tried."""
    pages = reclaims()
    before = settled(path)
    action()
    after = requests(path)
    if reclaims() == pages:
        assert after == before


def looked_up(before, after, names, walked):
    """
    That so many names were, and on the way to them no more than those walked: the scout
    may look them up before the kernel has taken in the listing that tells of them.
    """
    assert names <= after["lookup"] - before["lookup"] <= names + walked


def package(name, *modules):
    """Of modules, which have sources and bytecode of a page and a bit."""
    yield directory(name + b"/")
    yield directory(name + b"/__pycache__/")
    for module in (b"__init__",) + modules:
        yield member(name + b"/" + module + b".py", b"x")
        yield member(name + b"/__pycache__/" + module + b".cpython-311.pyc",
                     BYTECODE + module * 700)


def read(path):
    with open(path, "rb", buffering=0) as stream:
        return stream.read()


# -- bytecode --

def test_bytecode_of_a_package_is_read_with_its_first(work):
    names = [b"m%02d" % number for number in range(30)]
    image = packed(work, *package(b"pkg", *names), *package(b"other", *names))
    with mounted(image, work / "mnt") as mount:
        cache = mount.path / "pkg" / "__pycache__"
        assert read(cache / "m17.cpython-311.pyc") == BYTECODE + b"m17" * 700
        after = settled(mount.path)
        assert after["read"] == 31
        nothing_asked(mount.path, lambda: [read(cache / ("m%02d.cpython-311.pyc" % number))
                                           for number in range(30)])
        before = requests(mount.path)["read"]
        read(mount.path / "other" / "__pycache__" / "m03.cpython-311.pyc")
        assert settled(mount.path)["read"] == before + 31


def test_what_is_no_bytecode_of_a_package(work):
    """Others that begin like it, and bytecode without sources."""
    files = [member(b"data/f%d" % number, BYTECODE + b"x" * 5000) for number in range(9)]
    image = packed(work, directory(b"data/"), *files, member(b"__pycache__", BYTECODE * 1200))
    with mounted(image, work / "mnt") as mount:
        read(mount.path / "data" / "f3")
        read(mount.path / "__pycache__")
        assert settled(mount.path)["read"] == 2


def test_large_files_among_the_bytecode(work):
    image = packed(work, *package(b"pkg", b"m"),
                   member(b"pkg/__pycache__/large.pyc", BYTECODE + bytes(2 * MIB)))
    with mounted(image, work / "mnt") as mount:
        read(mount.path / "pkg" / "__pycache__" / "m.cpython-311.pyc")
        assert settled(mount.path)["read"] == 2  # the one, and __init__'s


# -- names --

def test_packages_are_looked_at_before_they_are_imported(work):
    image = packed(work, *package(b"first"), *package(b"top", b"m"), *package(b"top/sub", b"n"),
                   directory(b"top/plain/"), member(b"top/plain/data.py", b"x"),
                   *package(b"top/sub/deep"))
    vain = ["__init__" + SUFFIX, "__init__.abi3.so", "__init__.so"]
    with mounted(image, work / "mnt") as mount:
        for name in vain:
            assert not (mount.path / "first" / name).exists()
        assert not (mount.path / "first" / "other.so").exists()
        before = settled(mount.path)
        os.listdir(mount.path / "top")
        after = settled(mount.path)
        # Each listing is of two requests; of sub the names, but neither plain nor deep.
        assert after["readdirplus"] - before["readdirplus"] == 2 * 4
        looked_up(before, after, 1 + len(vain), walked=4)

        def import_sub():
            sub = mount.path / "top" / "sub"
            assert not any((sub / name).exists() for name in vain)
            assert (sub / "__init__.py").exists() and len(os.listdir(sub)) == 4
            assert (sub / "__pycache__" / "n.cpython-311.pyc").exists()

        nothing_asked(mount.path, import_sub)
        # As soon as something of sub is read, what is within it is looked at.
        read(mount.path / "top" / "sub" / "__pycache__" / "__init__.cpython-311.pyc")
        last = settled(mount.path)
        assert last["readdirplus"] - after["readdirplus"] == 2 * 2
        assert last["lookup"] - after["lookup"] == len(vain)


def test_names_that_are_too_many_or_too_long(work):
    """Which no Python asks for: some are taken, and nothing else happens."""
    image = packed(work, *package(b"top"), *package(b"top/sub"))
    with mounted(image, work / "mnt") as mount:
        for number in range(200):
            assert not (mount.path / ("__init__.%d" % number)).exists()
        assert not (mount.path / ("__init__." + "x" * 200)).exists()
        before = settled(mount.path)
        os.listdir(mount.path / "top")
        looked_up(before, settled(mount.path), 1 + 4, walked=3)


def test_names_of_two_pythons(work):
    """What the scout looks up in vain itself teaches it nothing, and uses nothing up."""
    kids = ["k%02d" % number for number in range(20)]
    image = packed(work, *(entry for top in (b"one", b"two") for entry in (
        *package(top), *(entry for kid in kids for entry in package(top + b"/" + kid.encode())))))
    with mounted(image, work / "mnt") as mount:
        for taught, top in enumerate(("one", "two"), 1):
            assert not (mount.path / ("__init__.%s.so" % top)).exists()
            before = settled(mount.path)
            os.listdir(mount.path / top)
            looked_up(before, settled(mount.path), 1 + taught * len(kids),
                      walked=2 + 2 * len(kids))
            nothing_asked(mount.path, lambda: [
                (mount.path / top / kid / ("__init__.%s.so" % name)).exists()
                for kid in kids for name in ("one", "two")[:taught]])


# -- libraries --

def elf(size, *segments, fill=os.urandom):
    """A file of that size whose program headers say so: flags, offset, bytes."""
    head = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 3, 62, 1, 0, 64, 0, 0,
                       64, 56, len(segments), 0, 0, 0)
    for flags, offset, length in segments:
        head += struct.pack("<IIQQQQQQ", 1, flags, offset, offset, offset, length, length, PAGE)
    return head + fill(size - len(head))


READ, CODE, WRITE = 4, 5, 6


def cached(path):
    """For each page of a file, whether the kernel has it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size = os.stat(path).st_size
    pages = (size + PAGE - 1) // PAGE
    fd = os.open(path, os.O_RDONLY)
    at = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), 1, 1, fd, ctypes.c_long(0)))
    vector = (ctypes.c_ubyte * pages)()
    assert libc.mincore(at, ctypes.c_size_t(size), vector) == 0
    libc.munmap(at, ctypes.c_size_t(size))
    os.close(fd)
    return [bool(byte & 1) for byte in vector]


def mostly(pages):
    """All that were read, but for single ones that are gone again: see reclaims()."""
    return sum(pages) >= 0.9 * len(pages)


def read_head(path):
    """As the dynamic loader does; the kernel reads ahead a little."""
    with open(path, "rb", buffering=0) as stream:
        assert stream.read(832)[:4] == b"\x7fELF"


def test_small_library_is_read_whole(work):
    image = packed(work, member(b"small.so", elf(MIB + 777)))
    with mounted(image, work / "mnt") as mount:
        read_head(mount.path / "small.so")
        settled(mount.path)
        nothing_asked(mount.path, lambda: read(mount.path / "small.so"))
        assert requests(mount.path)["read"] <= 15


def test_large_library_is_read_where_loading_reads_it(work):
    tables, code, written = (READ, 0, 300 << 10), (CODE, MIB, 4 * MIB), (WRITE, 6 * MIB, 200 << 10)
    constants = (READ, 5 * MIB, MIB)
    image = packed(work, member(b"large.so", elf(7 * MIB, tables, code, constants, written)))
    with mounted(image, work / "mnt") as mount:
        path = mount.path / "large.so"
        read_head(path)
        settled(mount.path)
        pages = cached(path)
        for _, offset, length in (tables, written):
            assert mostly(pages[offset // PAGE:(offset + length) // PAGE])
        assert not any(pages[400 * 1024 // PAGE:6 * MIB // PAGE - 32])


@pytest.mark.parametrize("segments", [
    [],
    [(READ, 1 << 62, 1 << 62), (WRITE, 2 ** 64 - PAGE, 2 ** 64 - 1)],
    [(WRITE, 0, 2 ** 64 - 1)],
    [(WRITE, 5 * MIB - 1, 2)],
    [(WRITE, 4 * MIB, 0)],
], ids=["none", "beyond", "endless", "across-the-end", "empty"])
def test_library_that_lies(work, segments):
    """Nothing but its head is read, and the next one is as if it had not been."""
    image = packed(work, member(b"lie.so", elf(5 * MIB, *segments)),
                   member(b"small.so", elf(MIB)))
    with mounted(image, work / "mnt") as mount:
        read_head(mount.path / "lie.so")
        settled(mount.path)
        assert sum(cached(mount.path / "lie.so")) <= 32
        read_head(mount.path / "small.so")
        settled(mount.path)
        assert mostly(cached(mount.path / "small.so"))


def test_more_than_is_read_for_one_hint(work):
    """65 MiB of it at once are left alone, 40 are read, and further 40 are not."""
    image = packed(work, member(b"one.so", elf(70 * MIB, (WRITE, MIB, 65 * MIB), fill=bytes)),
                   member(b"two.so", elf(90 * MIB, (WRITE, MIB, 40 * MIB),
                                         (WRITE, 45 * MIB, 40 * MIB), fill=bytes)))
    with mounted(image, work / "mnt") as mount:
        read_head(mount.path / "one.so")
        read_head(mount.path / "two.so")
        settled(mount.path)
        assert sum(cached(mount.path / "one.so")) <= 32
        assert sum(cached(mount.path / "two.so")) in range(20 * MIB // PAGE, 41 * MIB // PAGE)


def test_many_jobs_at_once(work):
    """More than are kept: the newest are done, and all ends."""
    libraries = [member(b"%02d.so" % number, elf(3 * MIB, (READ, 0, MIB))) for number in range(40)]
    image = packed(work, *libraries)
    with mounted(image, work / "mnt") as mount:
        for number in range(40):
            read_head(mount.path / ("%02d.so" % number))
        settled(mount.path)
        assert mostly(cached(mount.path / "39.so")[:MIB // PAGE])
        assert read(mount.path / "20.so")[:4] == b"\x7fELF"
