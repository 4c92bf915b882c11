# SPDX-License-Identifier: Apache-2.0
"""
The image as the attacker (cases 31, 32, 36): whatever is done to its bytes,
opening it is refused, or reading fails; never a crash, never wrong bytes.
"""
import os
import random
import shutil
import struct

import pytest

from support import images, tars, trees
from support.command import DAMAGED, LIMIT, REFUSED, one_error_line, sanitized, thaw, thaw_fails
from support.images import FRAMES, HARDLINK, INODES, REGULAR, Record

SEED = 31


@pytest.fixture(scope="module")
def sample(session_directory):
    """A small image of many kinds of things: Record(data, tar, tree, names)."""
    generator = random.Random(SEED)
    stream = tars.tar(
        tars.directory(b"d", mtime=5), tars.member(b"d/a", generator.randbytes(6000), mtime=1),
        tars.member(b"d/b", b"text " * 3000, mode=0o755), tars.symlink(b"d/l", b"a"),
        tars.hardlink(b"h", b"d/a"), tars.member(b"empty"), tars.directory(b"d/e"),
        tars.member(b"d/e/z", b"z" * 100), tars.member(b"big", generator.randbytes(20000)))
    base = session_directory / f"sample-{os.getpid()}"
    base.mkdir(exist_ok=True)
    (base / "s.tar").write_bytes(stream)
    thaw("pack", base / "s.tar", "--quiet", "--force", "--frame-size=4K")
    thaw("extract", base / "s.thaw", base / "out")
    result = Record(data=(base / "s.thaw").read_bytes(), tar=stream,
                    tree=trees.snapshot(base / "out"))
    shutil.rmtree(base)
    return result


def attack(work, sample, data, what):
    """Try every reader on these bytes; return the codes of (info, verify, extract)."""
    path, out = work / "bad.thaw", work / "out"
    path.write_bytes(data)
    codes = []
    for command in (["info", path], ["verify", path], ["extract", path, out]):
        result = thaw(*command, code=None)
        assert result.code in (0, REFUSED, DAMAGED, LIMIT), f"{what}: {result!r}"
        if result.code and command[0] != "verify":
            one_error_line(result)
        codes.append(result.code)
    if codes[2] == 0:
        trees.assert_same(sample.tree, trees.snapshot(out))
        shutil.rmtree(out)
    assert not out.exists(), f"{what}: a refused extraction left its directory"
    if codes[1] == 0:
        # What verify accepts serves the right tree, and is the right tar to zstd as well.
        assert codes[2] == 0, what
        assert tars.unzstd(data) == sample.tar, f"{what}: verify saw nothing"
    return codes


def test_sample_is_sound(work, sample):
    assert attack(work, sample, sample.data, "nothing") == [0, 0, 0]
    image = images.Image(sample.data)
    assert image.frame_count() > 5
    assert image.build() is not None
    assert attack(work, sample, image.build(), "rebuilt") == [0, 0, 0]


def interesting_offsets(image):
    """The bytes that structure is made of, by name."""
    end = len(image.data)
    footer, table, index = end - images.FOOTER_SIZE, image.table_offset, image.index_part.offset
    yield from ((footer + i, "footer") for i in range(images.FOOTER_SIZE))
    yield from ((table + i, "table") for i in range(0, len(image.table), 3))
    yield from ((table - 8 + i, "table's skippable header") for i in range(8))
    yield from ((index - 8 + i, "index's skippable header") for i in range(8))
    yield from ((index + i, "index") for i in range(0, image.index_part.size, 17))
    for number in range(image.frame_count()):
        frame = image.frame(number)
        yield frame.file, f"frame {number}, first byte"
        yield frame.file + 5, f"frame {number}, header"
        yield frame.file + frame.stored - 1, f"frame {number}, last byte"


def test_31_flips_at_every_structure(work, sample):
    image = images.Image(sample.data)
    generator = random.Random(SEED)
    offsets = list(interesting_offsets(image))
    if sanitized():
        offsets = generator.sample(offsets, 60)
    for offset, what in offsets:
        data = bytearray(sample.data)
        data[offset] ^= 1 << generator.randrange(8)
        codes = attack(work, sample, bytes(data), f"{what} at {offset}")
        assert codes[1] != 0, f"verify did not notice a flip at {offset} ({what})"


def test_31_random_damage(work, sample):
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    for _ in range(15 if sanitized() else 60):
        data = bytearray(sample.data)
        for _ in range(generator.choice((1, 1, 2, 30))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        attack(work, sample, bytes(data), f"seed {seed}")


def test_31_truncations(work, sample):
    generator = random.Random(SEED)
    image = images.Image(sample.data)
    size = len(sample.data)
    lengths = {0, 1, 7, 8, 63, 64, 65, size - 1, size - 63, size - 64, size - 65,
               image.table_offset, image.table_offset - 8, image.index_part.offset,
               image.index_part.offset + image.index_part.size, image.frame(1).file}
    lengths |= {generator.randrange(size) for _ in range(10)}
    for length in sorted(lengths):
        assert attack(work, sample, sample.data[:length], f"cut at {length}") == [DAMAGED] * 3


@pytest.mark.parametrize("extra", [b"\0", b"x" * 64, bytes(512)])
def test_31_bytes_behind_the_footer(work, sample, extra):
    assert attack(work, sample, sample.data + extra, "appended") == [DAMAGED] * 3


def test_31_footer_of_another_image(work, sample):
    """The newest footer wins, and it must fit what stands before it."""
    data = sample.data[:-images.FOOTER_SIZE] + bytes(4096) + sample.data[-images.FOOTER_SIZE:]
    assert attack(work, sample, data, "moved footer")[0] == DAMAGED


# Case 32: records that lie, with all digests above them repaired.

def set_inode(path, **changes):
    return lambda image: image.set_inode(image.find(path) if path else 1, **changes)


def swap_names(image):
    """Of two neighbours, so that nothing but their order is wrong."""
    a, b = image.find(b"d/a"), image.find(b"d/b")
    one, two = image.inode(a), image.inode(b)
    image.set_inode(a, name=two.name, name_len=two.name_len)
    image.set_inode(b, name=one.name, name_len=one.name_len)


def same_name_twice(image):
    first = image.inode(1).data
    one = image.inode(first)
    image.set_inode(first + 1, name=one.name, name_len=one.name_len)


def rename(path, name):
    """Give a record another name of the same length or shorter, in place in the strings."""
    def edit(image):
        number = image.find(path)
        inode = image.inode(number)
        start = image.sections[images.STRINGS].offset + inode.name
        assert len(name) <= inode.name_len
        image.index[start:start + len(name)] = name
        image.set_inode(number, name_len=len(name))
    return edit


def section(kind, **changes):
    def edit(image):
        entry = Record(zip(("type", "flags", "offset", "size"), images.SECTION.unpack_from(
            image.index, image.sections[kind].entry)))
        entry.update(changes)
        images.SECTION.pack_into(image.index, image.sections[kind].entry, *entry.values())
    return edit


def index_field(offset, form, value):
    return lambda image: struct.pack_into(form, image.index, offset, value)


def frame(number, **changes):
    return lambda image: image.set_frame(number, **changes)


def link_record(image):
    """Of the two names of one file, the record that is only a name."""
    return next(n for n in map(image.find, (b"h", b"d/a")) if image.inode(n).type == HARDLINK)


def file_record(image):
    return next(n for n in map(image.find, (b"h", b"d/a")) if image.inode(n).type == REGULAR)


def set_file(**changes):
    return lambda image: image.set_inode(file_record(image), **changes)


BIG = 2**64 - 1
INDEX_LIES = {
    "magic": index_field(0, "<I", 0),
    "no sections": index_field(4, "<I", 0),
    "too many sections": index_field(4, "<I", 2**32 - 1),
    "stream size": index_field(8, "<Q", BIG),
    "stream size zero": index_field(8, "<Q", 0),
    "annex size": index_field(48, "<Q", 4096),
    "reserved": index_field(56, "<Q", 1),
    "section outside": section(INODES, offset=BIG - 7),
    "section too long": section(FRAMES, size=BIG - 7),
    "section half a record": section(INODES, size=41),
    "section of unknown type that must be known": section(images.META, type=77, flags=1),
    "root is no directory": set_inode(b"", type=REGULAR),
    "root's parent": set_inode(b"", parent=2),
    "children outside": set_inode(b"", data=2**32),
    "children overflow": set_inode(b"", data=BIG, size=2),
    "more children than records": set_inode(b"d", size=BIG),
    "directory holds itself": set_inode(b"d", data=1, size=1),
    "cycle": lambda image: image.set_inode(image.find(b"d/e"), data=image.find(b"d"), size=1),
    "child of two directories": lambda image: image.set_inode(
        image.find(b"d/e"), data=image.inode(image.find(b"d")).data),
    "parent of another": set_inode(b"d/a", parent=1),
    "parent outside": set_inode(b"d/a", parent=2**31),
    "parent zero": set_inode(b"d/a", parent=0),
    "orphan": set_inode(b"d/e", size=0),
    "name outside": set_inode(b"d/a", name=2**32 - 1),
    "name empty": set_inode(b"d/a", name_len=0),
    "name with slash": rename(b"empty", b"e/pty"),
    "name with NUL": rename(b"empty", b"e\0pty"),
    "name dot": rename(b"empty", b"."),
    "name dotdot": rename(b"empty", b".."),
    "unsorted names": swap_names,
    "same name twice": same_name_twice,
    "type zero": set_inode(b"d/a", type=0),
    "type unknown": set_inode(b"d/a", type=9),
    "mode with setuid": set_file(mode=0o4755),
    "reserved in inode": set_file(reserved=1),
    "nlink zero": set_file(nlink=0),
    "file outside": set_file(data=2**40),
    "file past the end": set_inode(b"big", size=2**30),
    "file wraps around": set_file(data=BIG - 10, size=6000),
    "file size wraps around": set_file(size=BIG),
    "target outside": set_inode(b"d/l", data=2**33),
    "target too long": set_inode(b"d/l", size=5000),
    "target empty": set_inode(b"d/l", size=0),
    "hard link to nothing": lambda i: i.set_inode(link_record(i), data=0),
    "hard link to the root": lambda i: i.set_inode(link_record(i), data=1),
    "hard link outside": lambda i: i.set_inode(link_record(i), data=2**31),
    "hard link to a directory": lambda i: i.set_inode(link_record(i), data=i.find(b"d")),
    "hard link to itself": lambda i: i.set_inode(link_record(i), data=link_record(i)),
    "hard link with a size": lambda i: i.set_inode(link_record(i), size=1),
    "frame with a gap": frame(1, data=10**6),
    "frames overlap": lambda image: image.set_frame(1, data=image.frame(0).data),
    "frame outside": frame(0, file=2**50),
    "frame wraps around": frame(0, file=BIG - 3),
    "frame into the index": lambda i: i.set_frame(0, file=i.index_part.offset),
    "frame too large": frame(0, size=(16 << 20) + 1),
    "frame empty": frame(0, size=0),
    "frame of nothing": frame(0, stored=0),
    "last frame too short": lambda i: i.set_frame(
        i.frame_count() - 1, size=i.frame(i.frame_count() - 1).size - 1),
}


@pytest.mark.parametrize("name", INDEX_LIES)
def test_32_index_that_lies_is_rejected_at_open(work, sample, name):
    image = images.Image(sample.data)
    before = bytes(image.index)
    INDEX_LIES[name](image)
    assert image.index != before, "the edit changed nothing"
    codes = attack(work, sample, image.build(), name)
    # REFUSED: it asks for a newer thaw.
    want = (REFUSED,) if "must be known" in name else (DAMAGED, LIMIT)
    assert codes[0] in want, f"{name} was accepted: {codes}"


def table_field(offset, form, value):
    return lambda table: struct.pack_into(form, table, offset, value)


def part_field(number, offset, form, value):
    return table_field(images.TABLE_HEADER + number * images.PART_ENTRY + offset, form, value)


TABLE_LIES = {
    "magic": (table_field(0, "<I", 0), DAMAGED, None),
    "no parts": (table_field(4, "<I", 0), DAMAGED, None),
    "too many parts": (table_field(4, "<I", 2**32 - 1), (DAMAGED, LIMIT), None),
    "image size": (table_field(8, "<Q", 1), DAMAGED, None),
    "image size beyond": (table_field(8, "<Q", BIG), DAMAGED, None),
    "unknown incompatible feature without a name": (
        table_field(24, "<Q", 1 << 40), DAMAGED, None),
    "names outside": (table_field(32, "<I", 2**32 - 1), DAMAGED, None),
    "reserved": (table_field(36, "<I", 1), DAMAGED, None),
    "part type": (part_field(0, 0, "<I", 99), DAMAGED, None),
    "part reserved": (part_field(0, 4, "<I", 1), DAMAGED, None),
    "part outside": (part_field(0, 8, "<Q", BIG), DAMAGED, None),
    "part too long": (part_field(0, 16, "<Q", BIG - 100), DAMAGED, None),
}


@pytest.mark.parametrize("name", TABLE_LIES)
def test_32_table_that_lies_is_rejected_at_open(work, sample, name):
    edit, codes, word = TABLE_LIES[name]
    data = images.Image(sample.data).build(edit)
    found = attack(work, sample, data, name)
    assert found[0] in (codes if isinstance(codes, tuple) else (codes,)), f"{name}: {found}"
    if word:
        one_error_line(thaw("info", work / "bad.thaw", code=None), word)


def test_unknown_feature_is_named_and_can_still_be_extracted_as_tar(work, sample):
    data = images.Image(sample.data).build(feature=(40, b"time-travel"))
    (work / "new.thaw").write_bytes(data)
    for command in (["info"], ["ls"], ["verify"]):
        thaw_fails(REFUSED, "time-travel", *command, work / "new.thaw")
    thaw_fails(REFUSED, "time-travel", "extract", work / "new.thaw", work / "out")
    assert not (work / "out").exists()
    thaw("extract", "--tar", work / "new.thaw", work / "x.tar")
    assert (work / "x.tar").read_bytes() == sample.tar


def test_36_frames_swapped_in_the_file(work, sample):
    """The two frames' bytes change places: both are sound, and both in the wrong place."""
    image = images.Image(sample.data)
    one, two = image.frame(2), image.frame(3)
    assert one.file + one.stored == two.file
    data = bytearray(sample.data)
    data[one.file:two.file + two.stored] = (
        sample.data[two.file:two.file + two.stored] + sample.data[one.file:two.file])
    assert attack(work, sample, bytes(data), "swapped") == [0, DAMAGED, DAMAGED]


def test_36_frames_swapped_in_the_index_with_their_digests(work, sample):
    """
    A forged index is another identity, so its bytes are what they claim; but
    the stream's own digest tells verify that they are in the wrong order.
    """
    image = images.Image(sample.data)
    full = [n for n in range(image.frame_count()) if image.frame(n).size == 4096]
    one, two = image.frame(full[0]), image.frame(full[1])
    image.set_frame(full[0], file=two.file, stored=two.stored, digest=two.digest)
    image.set_frame(full[1], file=one.file, stored=one.stored, digest=one.digest)
    (work / "swapped.thaw").write_bytes(image.build())
    assert thaw("verify", work / "swapped.thaw", code=None).code == DAMAGED
    # Reading must not crash either, whatever it finds.
    assert thaw("extract", work / "swapped.thaw", work / "out", code=None).code in (0, DAMAGED)
