# SPDX-License-Identifier: Apache-2.0
"""thaw extract: exact, only inside its directory, all or nothing."""
import os
import random

import pytest

from support import images, tars, trees
from support.command import DAMAGED, IO, REFUSED, run, thaw, thaw_fails
from support.tars import directory, hardlink, member, symlink, tar


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(tar(
        directory(b"d", mtime=12345), member(b"d/f", b"data", mode=0o750, mtime=99),
        hardlink(b"h", b"d/f"), symlink(b"d/up", b"../../outside"), symlink(b"abs", b"/etc"),
        member(b"ro", b"1", mode=0o400), member(b"empty"), directory(b"d/e", mtime=3)))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def test_into_a_new_directory(work, image):
    result = thaw("extract", image, work / "out")
    assert result.err == b""
    tree = trees.snapshot(work / "out")
    assert tree[b"d/f"].links == (b"d/f", b"h") and tree[b"d/f"].nlink == 2
    assert (tree[b"d/f"].mode, tree[b"d/f"].mtime) == (0o755, 99)
    assert (tree[b"d"].mode, tree[b"d"].mtime, tree[b"d/e"].mtime) == (0o755, 12345, 3)
    assert tree[b"ro"].mode == 0o444 and tree[b"abs"].target == b"/etc"


def test_into_an_empty_directory(work, image):
    (work / "out").mkdir()
    thaw("extract", image, work / "out")
    assert (work / "out" / "d" / "f").read_bytes() == b"data"


@pytest.mark.parametrize("occupied", ["file", ".hidden"])
def test_directory_that_is_not_empty_is_refused(work, image, occupied):
    (work / "out").mkdir()
    (work / "out" / occupied).write_text("mine")
    result = thaw_fails(REFUSED, "not empty", "extract", image, work / "out")
    assert "out" in result.err.decode()
    assert [(p.name, p.read_text()) for p in (work / "out").iterdir()] == [(occupied, "mine")]


def test_what_is_no_directory_is_refused(work, image):
    (work / "file").write_text("mine")
    thaw_fails(IO, "not a directory|exists", "extract", image, work / "file")
    assert (work / "file").read_text() == "mine"
    thaw_fails(IO, "no such", "extract", image, work / "missing" / "out")
    os.symlink("nowhere", work / "dangling")
    result = thaw("extract", image, work / "dangling", code=None)
    assert result.code in (REFUSED, IO)
    assert not (work / "nowhere").exists()


def test_umask_does_not_matter(work, image):
    old = os.umask(0o077)
    try:
        thaw("extract", image, work / "out")
    finally:
        os.umask(old)
    tree = trees.snapshot(work / "out")
    assert (tree[b"d"].mode, tree[b"d/f"].mode) == (0o755, 0o755)


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_equals_tar(work, threads):
    """The reference is tar, for what both of them keep."""
    trees.random_tree(work / "tree", seed=threads, entries=120)
    run("tar", "-C", work / "tree", "--format=pax", "-cf", work / "t.tar", ".")
    thaw("pack", work / "t.tar", "--quiet", "--frame-size=32K", "--level=1")
    thaw("extract", f"--threads={threads}", work / "t.thaw", work / "out")
    (work / "reference").mkdir()
    run("tar", "-C", work / "reference", "-xpf", work / "t.tar")
    trees.assert_same(trees.served(trees.snapshot(work / "reference")),
                      trees.snapshot(work / "out"))


def test_failure_leaves_nothing(work):
    generator = random.Random(1)
    (work / "x.tar").write_bytes(tar(*(member(b"d%d/f" % i, generator.randbytes(50_000))
                                       for i in range(20))))
    thaw("pack", work / "x.tar", "--quiet", "--frame-size=16K")
    image = images.load(work / "x.thaw")
    data = bytearray(image.data)
    data[image.frame(image.frames_of(b"d17/f")[1]).file + 9] ^= 2
    (work / "x.thaw").write_bytes(data)
    thaw_fails(DAMAGED, "d17/f|frame", "extract", work / "x.thaw", work / "out")
    assert not (work / "out").exists()
    (work / "empty").mkdir()
    thaw_fails(DAMAGED, "d17/f|frame", "extract", work / "x.thaw", work / "empty")
    assert list((work / "empty").iterdir()) == []


def test_tar_stream(work, image):
    thaw("extract", "--tar", image, work / "out.tar")
    assert (work / "out.tar").read_bytes() == (work / "x.tar").read_bytes()
    assert thaw("extract", "--tar", image, "-").out == (work / "x.tar").read_bytes()
    assert tars.unzstd(image.read_bytes()) == (work / "x.tar").read_bytes()


def test_ordinary_user(work, image, user):
    (work / "home").mkdir()
    os.chown(work / "home", user.pw_uid, user.pw_gid)
    thaw("extract", image, work / "home" / "out", user=user)
    assert (work / "home" / "out" / "ro").stat().st_uid == user.pw_uid
