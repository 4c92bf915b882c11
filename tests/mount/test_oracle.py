# SPDX-License-Identifier: Apache-2.0
"""A seeded random tree, packed in several ways, against its mount."""
import concurrent.futures
import errno
import os
import random
import subprocess
import sys
import tarfile

import pytest

from support import command, trees
from support.command import run, thaw
from support.mounts import mounted

pytestmark = pytest.mark.fuse


def pack_directory(work):
    thaw("pack", work / "tree", "--quiet")


def pack_with_gnu_tar(work):
    run("tar", "-C", work / "tree", "--format=gnu", "-cf", work / "tree.tar", ".")
    thaw("pack", work / "tree.tar", "--quiet", "--frame-size=64K")


def pack_with_pax_tar(work):
    run("tar", "-C", work / "tree", "--format=pax", "-czf", work / "tree.tar.gz", ".")
    thaw("pack", work / "tree.tar.gz", "--quiet", "--frame-size=4K", "--level=3")


def pack_with_python(work):
    """Names without a leading "./", members in an order of their own."""
    names = sorted((n for n in trees.snapshot(work / "tree", contents=False) if n != b"."),
                   key=lambda name: (name.count(b"/"), name[::-1]))
    with tarfile.open(work / "tree.tar", "w", format=tarfile.PAX_FORMAT,
                      encoding="utf-8", errors="surrogateescape") as archive:
        def exact_time(info):
            # tarfile writes a float, which rounds a fraction of 0.999999999 up.
            nanoseconds = os.lstat(work / "tree" / info.name).st_mtime_ns
            info.pax_headers["mtime"] = "%d.%09d" % divmod(nanoseconds, 10**9)
            return info

        for name in [b".", *names]:
            name = os.fsdecode(name)
            archive.add(work / "tree" / name, name, recursive=False, filter=exact_time)
    thaw("pack", work / "tree.tar", "--quiet", "--frame-size=1M")


@pytest.mark.parametrize("pack", [pack_directory, pack_with_gnu_tar, pack_with_pax_tar,
                                  pack_with_python])
def test_mount_equals_source(work, pack):
    seed = random.randrange(2**32)
    print("seed", seed)
    trees.random_tree(work / "tree", seed)
    pack(work)
    expected = trees.served(trees.snapshot(work / "tree"))
    with mounted(work / "tree.thaw", work / "mnt") as mount:
        trees.assert_same(expected, trees.snapshot(mount.path))
        # Again, from the kernel's caches.
        trees.assert_same(expected, trees.snapshot(mount.path))
    # extract is the other way to have the same tree.
    thaw("extract", work / "tree.thaw", work / "out")
    trees.assert_same(expected, trees.snapshot(work / "out"))


def opened(path):
    os.close(os.open(path, os.O_RDONLY))


def refusal(function, path):
    """The name of its error; None when there is none."""
    try:
        function(path)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def test_names_that_cannot_be_are_refused_alike(work):
    """By the length of a name: one that is missing, one that is there, one below a file."""
    tree = work / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "file").write_bytes(b"x")
    (tree / "d" / ("n" * 255)).write_bytes(b"y")
    thaw("pack", tree, "--quiet")
    names = [parent + letter * length + rest
             for parent in ("", "d/", "file/", "missing/") for letter in "nm\u00e9"
             for length in (1, 127, 128, 254, 255, 256, 257, 1000, 1024, 1025, 4000)
             for rest in ("", "/", "/below")]
    with mounted(work / "tree.thaw", work / "mnt") as mount:
        for function in (os.lstat, os.stat, os.listdir, os.readlink, opened):
            for name in names:
                assert ((name, refusal(function, f"{mount.path}/{name}"))
                        == (name, refusal(function, f"{tree}/{name}")))


@pytest.fixture
def big_files(work):
    """A tree of few, larger files, mounted with small frames and a small cache."""
    generator = random.Random(4711)
    source = work / "tree"
    source.mkdir()
    for number in range(6):
        (source / f"f{number}").write_bytes(trees.content(generator, 3_000_000 + number * 777))
    thaw("pack", source, "--quiet", "--frame-size=128K", "--level=1")
    with mounted(work / "tree.thaw", work / "mnt", "--cache-size=1M") as mount:
        yield source, mount


def random_reads(source, path, seed, count=300):
    """Compare reads at random offsets, also around and behind the end."""
    generator = random.Random(seed)
    names = sorted(os.listdir(source))
    contents = {name: (source / name).read_bytes() for name in names}
    files = {name: os.open(path / name, os.O_RDONLY) for name in names}
    try:
        for _ in range(count):
            name = generator.choice(names)
            size = len(contents[name])
            offset = generator.choice((generator.randrange(size), size - 1, size, size + 5,
                                       generator.randrange(size) & ~4095))
            length = generator.choice((1, 100, 4096, 70000, 300000))
            data = os.pread(files[name], length, offset)
            assert data == contents[name][offset:offset + length], (name, offset, length)
    finally:
        for descriptor in files.values():
            os.close(descriptor)


def test_random_offsets(big_files):
    source, mount = big_files
    seed = random.randrange(2**32)
    print("seed", seed)
    random_reads(source, mount.path, seed)


def test_parallel_threads(big_files):
    source, mount = big_files
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for result in [pool.submit(random_reads, source, mount.path, seed, 100)
                       for seed in range(8)]:
            result.result(timeout=60)


def test_parallel_processes(big_files):
    source, mount = big_files
    program = [sys.executable, "-I", trees.__file__]
    readers = [subprocess.Popen([*program, mount.path], stdout=subprocess.PIPE, text=True,
                                env=command.environment()) for _ in range(4)]
    try:
        digests = {reader.communicate(timeout=60)[0] for reader in readers}
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
    assert digests == {trees.digest(source) + "\n"}


def test_mapped_files(big_files):
    """Shared libraries are read by page faults."""
    import mmap
    source, mount = big_files
    with open(mount.path / "f3", "rb") as stream, \
            mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE) as area:
        assert area[1_000_000:1_000_100] == (source / "f3").read_bytes()[1_000_000:1_000_100]
        assert bytes(area) == (source / "f3").read_bytes()
