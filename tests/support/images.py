# SPDX-License-Identifier: Apache-2.0
"""
An image's structure, read and rewritten as include/thaw/format.h lays it out.

A second implementation on purpose: it tells tests where a file's frames lie,
and lets them change a record and repair every digest above it, so that the
reader's validation is reached and not only its checksums.
"""
import hashlib
import struct

from . import tars

SKIPPABLE = struct.pack("<I", 0x184D2A57)
FOOTER_SIZE = 64
FOOTER_MAGIC = b"\x89thaw\r\n\x1a"
TABLE_HEADER, PART_ENTRY = 40, 96
INDEX_HEADER, SECTION_ENTRY = 64, 24
INODE_SIZE, FRAME_SIZE = 40, 56
STREAM, ANNEX, INDEX, WARM = 1, 2, 3, 4
INODES, STRINGS, FRAMES, META = 1, 2, 3, 4
DIRECTORY, REGULAR, SYMLINK, HARDLINK = 1, 2, 3, 4

PART = struct.Struct("<IIQQQ32s32s")
SECTION = struct.Struct("<IIQQ")
INODE = struct.Struct("<IBBHIIIIQQ")
INODE_FIELDS = ("name", "name_len", "type", "mode", "mtime", "parent", "nlink", "reserved",
                "size", "data")
FRAME = struct.Struct("<QQII32s")
FRAME_FIELDS = ("data", "file", "stored", "size", "digest")


class Record(dict):
    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


class Image:
    """Parsed parts of an image's bytes. Change index records, then call build()."""

    def __init__(self, data):
        self.data = bytes(data)
        footer = self.data[-FOOTER_SIZE:]
        assert footer[:4] == SKIPPABLE and footer[8:16] == FOOTER_MAGIC, "no footer"
        self.version, self.table_size = struct.unpack_from("<II", footer, 16)
        self.identity = footer[24:56]
        self.table_offset = len(self.data) - FOOTER_SIZE - self.table_size
        self.table = bytearray(self.data[self.table_offset:-FOOTER_SIZE])
        assert hashlib.sha256(self.table).digest() == self.identity, "identity of the table"
        count, = struct.unpack_from("<I", self.table, 4)
        self.image_size, = struct.unpack_from("<Q", self.table, 8)
        self.parts = [
            Record(zip(("type", "reserved", "offset", "size", "raw_size", "digest", "name"),
                       PART.unpack_from(self.table, TABLE_HEADER + i * PART_ENTRY)))
            for i in range(count)]
        self.index_part = next(p for p in self.parts if p.type == INDEX)
        start = self.index_part.offset
        self.index = bytearray(tars.unzstd(self.data[start:start + self.index_part.size]))
        self.sections = {}
        for i in range(struct.unpack_from("<I", self.index, 4)[0]):
            kind, flags, offset, size = SECTION.unpack_from(
                self.index, INDEX_HEADER + i * SECTION_ENTRY)
            self.sections[kind] = Record(entry=INDEX_HEADER + i * SECTION_ENTRY, flags=flags,
                                         offset=offset, size=size)

    # Reading

    def strings(self, offset, length):
        start = self.sections[STRINGS].offset + offset
        return bytes(self.index[start:start + length])

    def inode_count(self):
        return self.sections[INODES].size // INODE_SIZE

    def inode(self, number):
        return Record(zip(INODE_FIELDS, INODE.unpack_from(
            self.index, self.sections[INODES].offset + number * INODE_SIZE)))

    def frame_count(self):
        return self.sections[FRAMES].size // FRAME_SIZE

    def frame(self, number):
        return Record(zip(FRAME_FIELDS, FRAME.unpack_from(
            self.index, self.sections[FRAMES].offset + number * FRAME_SIZE)))

    def path(self, number):
        names = []
        while number != 1:
            inode = self.inode(number)
            names.append(self.strings(inode.name, inode.name_len))
            number = inode.parent
        return b"/".join(reversed(names))

    def find(self, path):
        """The record of this path: its number."""
        for number in range(2, self.inode_count()):
            if self.path(number) == path:
                return number
        raise KeyError(path)

    def frames_of(self, path):
        """Numbers of the frames that hold a file's bytes."""
        inode = self.inode(self.find(path))
        return [n for n in range(self.frame_count())
                if self.frame(n).data < inode.data + inode.size
                and inode.data < self.frame(n).data + self.frame(n).size and inode.size]

    # Changing

    def set_inode(self, number, **changes):
        inode = self.inode(number)
        inode.update(changes)
        INODE.pack_into(self.index, self.sections[INODES].offset + number * INODE_SIZE,
                        *(inode[f] for f in INODE_FIELDS))

    def set_frame(self, number, **changes):
        frame = self.frame(number)
        frame.update(changes)
        FRAME.pack_into(self.index, self.sections[FRAMES].offset + number * FRAME_SIZE,
                        *(frame[f] for f in FRAME_FIELDS))

    def build(self, table_edit=None, feature=None):
        """
        The image again, with this index and with every digest repaired.
        feature: (bit, name) of an incompatible feature to ask for.
        """
        compressed = tars.zstd(bytes(self.index), "-3")
        before = self.data[:self.index_part.offset - 8]
        middle = SKIPPABLE + struct.pack("<I", len(compressed)) + compressed
        after_index = self.data[self.index_part.offset + self.index_part.size:self.table_offset]
        assert not after_index.strip(b"\0") or len(after_index) == 8, "parts behind the index"
        table = bytearray(self.table)
        for i, part in enumerate(self.parts):
            if part.type == INDEX:
                PART.pack_into(table, TABLE_HEADER + i * PART_ENTRY, INDEX, part.reserved,
                               part.offset, len(compressed), len(self.index),
                               hashlib.sha256(compressed).digest(), part.name)
        if feature:
            struct.pack_into("<Q", table, 24, 1 << feature[0])
            struct.pack_into("<I", table, 32, len(feature[1]) + 1)
            table += feature[1] + b"\0"
        total = len(before) + len(middle) + 8 + len(table) + FOOTER_SIZE
        struct.pack_into("<Q", table, 8, total)
        if table_edit:
            table_edit(table)
        footer = bytearray(self.data[-FOOTER_SIZE:])
        footer[24:56] = hashlib.sha256(table).digest()
        struct.pack_into("<I", footer, 20, len(table))
        return bytes(before + middle + SKIPPABLE + struct.pack("<I", len(table)) + table + footer)


def load(path):
    with open(path, "rb") as stream:
        return Image(stream.read())
