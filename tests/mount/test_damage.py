# SPDX-License-Identifier: Apache-2.0
"""
Damage under a mount (cases 34-36): EIO for what is hit, one line in the log,
everything else served; never ENOENT, since Python would import another copy.
"""
import errno
import os
import random
import re

import pytest

from support import images, tars
from support.command import thaw
from support.mounts import mounted
from support.tars import member, tar

pytestmark = pytest.mark.fuse

FRAME = 64 << 10
NAMES = [b"f%02d" % i for i in range(12)]


@pytest.fixture
def contents(work):
    """Incompressible files of two frames each: damage hits one file, or two neighbours."""
    generator = random.Random(34)
    files = {name: generator.randbytes(2 * FRAME) for name in NAMES}
    (work / "x.tar").write_bytes(tar(*(member(n, data) for n, data in files.items()),
                                     member(b"small/a", b"a"), member(b"small/b", b"b")))
    thaw("pack", work / "x.tar", "--quiet", f"--frame-size={FRAME}")
    return files


def flip(path, offset):
    with open(path, "r+b", buffering=0) as stream:
        byte = os.pread(stream.fileno(), 1, offset)
        os.pwrite(stream.fileno(), bytes([byte[0] ^ 0x10]), offset)


def read(mount, name):
    """A file's bytes, or the name of the error."""
    try:
        with open(os.fsencode(mount.path) + b"/" + name, "rb", buffering=0) as stream:
            return stream.readall()
    except OSError as error:
        return errno.errorcode[error.errno]


def own_frame(image, name):
    """A frame that holds bytes of this file only."""
    inode = image.inode(image.find(name))
    return next(n for n in image.frames_of(name) if image.frame(n).data >= inode.data
                and image.frame(n).data + image.frame(n).size <= inode.data + inode.size)


def test_34_flipped_byte_in_a_frame(work, contents):
    path = work / "x.thaw"
    image = images.load(path)
    victim, number = b"f05", own_frame(image, b"f05")
    flip(path, image.frame(number).file + 1000)
    with mounted(path, work / "mnt") as mount:
        assert read(mount, victim) == "EIO"
        assert read(mount, victim) == "EIO", "the second try as well"
        for name in NAMES:
            if name != victim:
                assert read(mount, name) == contents[name]
        status = os.stat(os.fsencode(mount.path) + b"/" + victim)
        assert status.st_size == 2 * FRAME
        lines = mount.log.splitlines()
        assert lines and len(set(lines)) == len(lines) == 1, mount.log
        assert str(path) in lines[0] and "f05" in lines[0]
        assert re.search(rf"\bframe {number}\b", lines[0]), lines[0]


def test_34_sound_part_of_the_file_is_served(work, contents):
    path = work / "x.thaw"
    image = images.load(path)
    number = own_frame(image, b"f05")
    frame, inode = image.frame(number), image.inode(image.find(b"f05"))
    flip(path, frame.file + 1000)
    bad = range((frame.data - inode.data) // 4096 * 4096, frame.data - inode.data + frame.size)
    with mounted(path, work / "mnt") as mount:
        with open(mount.path / "f05", "rb", buffering=0) as stream:
            for offset in range(0, 2 * FRAME, 4096):
                hit = offset in bad
                try:
                    assert os.pread(stream.fileno(), 4096, offset) == \
                        contents[b"f05"][offset:offset + 4096]
                    assert not hit, f"damaged page at {offset} was served"
                except OSError as error:
                    assert error.errno == errno.EIO and hit, offset


def test_34_flipped_under_the_mount(work, contents):
    path = work / "x.thaw"
    image = images.load(path)
    with mounted(path, work / "mnt", "--cache-size=256K") as mount:
        assert read(mount, b"f01") == contents[b"f01"]
        for name in (b"f05", b"f08"):
            flip(path, image.frame(own_frame(image, name)).file + 77)
        assert read(mount, b"f05") == read(mount, b"f08") == "EIO"
        # What the kernel holds already stays right; what it does not is read and is right.
        for name in NAMES:
            if name not in (b"f05", b"f08"):
                assert read(mount, name) == contents[name]
        assert sorted(os.listdir(mount.path)) == sorted(n.decode() for n in NAMES) + ["small"]
        assert len(mount.lines_about("f05")) == len(mount.lines_about("f08")) == 1, mount.log


def test_34_repaired_file_is_served_again(work, contents):
    """Nothing wrong was cached, and no error is kept."""
    path = work / "x.thaw"
    image = images.load(path)
    offset = image.frame(own_frame(image, b"f05")).file + 77
    with mounted(path, work / "mnt") as mount:
        flip(path, offset)
        assert read(mount, b"f05") == "EIO"
        flip(path, offset)
        assert read(mount, b"f05") == contents[b"f05"]


def test_35_truncated_under_the_mount(work, contents):
    path = work / "x.thaw"
    image = images.load(path)
    cut = image.frame(own_frame(image, b"f06")).file + 5
    with mounted(path, work / "mnt") as mount:
        assert read(mount, b"f01") == contents[b"f01"]
        os.truncate(path, cut)
        for name in (b"f06", b"f07", b"f11"):
            assert read(mount, name) == "EIO"
        for name in (b"f00", b"f01", b"f04"):
            assert read(mount, name) == contents[name]
        os.truncate(path, 0)
        assert read(mount, b"f09") == "EIO"
        assert len(os.listdir(mount.path)) == len(NAMES) + 1
        assert os.stat(mount.path / "small/a").st_size == 1
        assert mount.process.poll() is None


def test_35_deleted_and_replaced_under_the_mount(work, contents):
    """The open descriptor serves on; another image under the same name changes nothing (33)."""
    path = work / "x.thaw"
    with mounted(path, work / "mnt") as mount:
        assert read(mount, b"f00") == contents[b"f00"]
        path.unlink()
        assert read(mount, b"f05") == contents[b"f05"]
        (work / "y.tar").write_bytes(tar(*(member(n, b"other") for n in NAMES)))
        thaw("pack", work / "y.tar", "-o", path, "--quiet")
        for name in NAMES:
            assert read(mount, name) == contents[name]
        assert mount.log == ""


def test_36_swapped_frames(work, contents):
    path = work / "x.thaw"
    image = images.load(path)
    number = own_frame(image, b"f05")
    one, two = image.frame(number), image.frame(number + 1)
    data = bytearray(path.read_bytes())
    data[one.file:two.file + two.stored] = (
        data[two.file:two.file + two.stored] + data[one.file:two.file])
    path.write_bytes(data)
    hit = {n for n in NAMES if {number, number + 1} & set(image.frames_of(n))}
    assert b"f05" in hit and len(hit) <= 2
    with mounted(path, work / "mnt") as mount:
        for name in NAMES:
            assert read(mount, name) == ("EIO" if name in hit else contents[name])


def test_damage_never_hides_a_name(work, contents):
    """Random damage in the frames: names, sizes and listings come from the index alone."""
    path = work / "x.thaw"
    image = images.load(path)
    generator = random.Random(7)
    end = image.frame(image.frame_count() - 1)
    for _ in range(40):
        flip(path, generator.randrange(image.frame(0).file, end.file + end.stored))
    with mounted(path, work / "mnt") as mount:
        for name in NAMES:
            assert os.stat(os.fsencode(mount.path) + b"/" + name).st_size == 2 * FRAME
            assert read(mount, name) in ("EIO", contents[name])


def test_image_behind_other_bytes(work, contents):
    """An image may follow an executable: offsets count from where the image begins."""
    (work / "long").write_bytes(b"\x7fELF" + os.urandom(5000) + (work / "x.thaw").read_bytes())
    with mounted(work / "long", work / "mnt") as mount:
        for name in NAMES:
            assert read(mount, name) == contents[name]


def test_tar_is_inside(contents, work):
    """Here the oracle is zstd: what a file's frames hold is in the tar as well."""
    assert tars.unzstd((work / "x.thaw").read_bytes()) == (work / "x.tar").read_bytes()
