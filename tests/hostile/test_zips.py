# SPDX-License-Identifier: Apache-2.0
"""
Hostile zip archives, alone and inside of PEX files and wheels (cases 1 to 4, 7 to 9,
12, 20, 23 to 25 and 27). Single fields that lie are in tests/unit/test-zip.c.
"""
import io
import os
import stat
import struct
import zipfile
import zlib

import pytest

from support.command import DAMAGED, LIMIT, REFUSED, thaw, thaw_fails

FLAG_ENCRYPTED, FLAG_DESCRIPTOR, FLAG_UTF8 = 1, 8, 0x800


class Archive:
    """A zip, record by record. Names and data are bytes."""

    def __init__(self, prefix=b""):
        self.members, self.central, self.count = bytearray(prefix), bytearray(), 0

    def add(self, name, data=b"", mode=0o100644, deflate=False, central=None, at=None, **fields):
        """
        fields: of both headers; central: {field: value} that only the directory has;
        at: where the directory says that the member is, which is then not written.
        """
        raw = zlib.compressobj(9, zlib.DEFLATED, -15) if deflate else None
        stored = raw.compress(data) + raw.flush() if deflate else data
        values = {"version": 20, "flags": 0, "method": 8 if deflate else 0, "time": 0, "date": 0x21,
                  "crc": zlib.crc32(data), "stored": len(stored), "size": len(data), **fields}
        if at is None:
            at = len(self.members)
            self.members += struct.pack("<IHHHHHIIIHH", 0x04034B50, *values.values(), len(name), 0)
            self.members += name + stored
        values.update(central or {})
        self.central += struct.pack("<IHHHHHHIIIHHHHHII", 0x02014B50, 3 << 8 | 20,
                                    *values.values(), len(name), 0, 0, 0, 0, mode << 16, at)
        self.central += name
        self.count += 1
        return at

    def bytes(self, comment=b"", **end):
        fields = {"disk": 0, "first": 0, "here": self.count, "count": self.count,
                  "size": len(self.central), "offset": len(self.members), **end}
        return bytes(self.members + self.central +
                     struct.pack("<IHHHHIIH", 0x06054B50, *fields.values(), len(comment)) + comment)


def refuse(code, word, data, work, *options, name="bad.zip"):
    (work / name).write_bytes(data)
    result = thaw_fails(code, word, "pack", work / name, "-o", work / "bad.thaw", *options)
    assert not (work / "bad.thaw").exists(), "nothing is left behind"
    return result


def archive(*members):
    made = Archive()
    for name, *arguments in members:
        made.add(name, *arguments)
    return made.bytes()


def test_the_archives_made_here_are_good(work):
    """Else every test below would pass for the wrong reason."""
    made = Archive(b"#!/bin/sh\n")
    made.add(b"d/", mode=0o040755)
    made.add(b"d/file", b"text " * 100, deflate=True)
    made.add(b"link", b"d/file", mode=0o120777)
    (work / "good.zip").write_bytes(made.bytes(comment=b"fine"))
    assert zipfile.ZipFile(work / "good.zip").testzip() is None
    thaw("pack", work / "good.zip", "--quiet")
    assert thaw("cat", work / "good.thaw", "d/file").out == b"text " * 100


@pytest.mark.parametrize("name", [
    b"../x", b"a/../../x", b"..", b"/x", b"/", b"a//b", b"./a", b"a/./b", b"a\0b", b"a\\b",
    b"..\\x", b"C:\\x", b"n" * 256, b"n" * 250 + b"/" + b"m" * 256, b"a/" * 2100 + b"b"])
def test_names(work, name):
    refuse(REFUSED, ".", archive((name,)), work)


def test_the_same_name_twice(work):
    refuse(REFUSED, "two members of this name", archive((b"a", b"1"), (b"a", b"2")), work)
    refuse(REFUSED, "two members of this name", archive((b"a/", b"", 0o040755), (b"a", b"2")), work)


def test_beneath_a_file_or_a_symlink(work):
    refuse(REFUSED, ".", archive((b"a", b"1"), (b"a/b", b"2")), work)
    refuse(REFUSED, "symlink", archive((b"a", b"..", 0o120777), (b"a/b", b"2")), work)


def test_links(work):
    data = archive((b"out", b"../../etc/passwd", 0o120777))
    refuse(REFUSED, "out", data, work, "--links=contained")
    refuse(REFUSED, "NUL", archive((b"out", b"a\0b", 0o120777)), work)
    refuse(REFUSED, "symlink of 0 bytes", archive((b"out", b"", 0o120777)), work)
    refuse(REFUSED, "symlink of 5000", archive((b"out", b"x" * 5000, 0o120777)), work)


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices(work, kind):
    refuse(REFUSED, "no file, directory or symlink", archive((b"x", b"", kind | 0o666)), work)


def test_encrypted(work):
    made = Archive()
    made.add(b"x", b"0123456789ab" + b"secret", flags=FLAG_ENCRYPTED)
    refuse(REFUSED, "encrypted", made.bytes(), work)
    made = Archive()
    made.add(b"x", b"aes", method=99)
    refuse(REFUSED, "method 99", made.bytes(), work)


def test_headers_that_disagree(work):
    for field, value in (("method", 8), ("crc", 1), ("flags", FLAG_UTF8), ("size", 4)):
        made = Archive()
        made.add(b"x", b"data!", central={field: value})
        refuse(DAMAGED, ".", made.bytes(), work)
    made = Archive()
    at = made.add(b"innocent.py", b"good")
    made.central[46:46 + 11] = b"malware1.py"
    assert at == 0
    refuse(DAMAGED, "local header disagrees", made.bytes(), work)


def test_overlapping_members(work):
    """One stretch of data, a thousand times: 1 MB each for 50 bytes of directory."""
    made = Archive()
    at = made.add(b"00000", bytes(1 << 20), deflate=True)
    values = struct.unpack("<HHHHHIII", bytes(made.members[4:26]))
    for number in range(1, 1000):
        made.add(b"%05d" % number, at=at, crc=values[5], stored=values[6], size=values[7], method=8)
    refuse(DAMAGED, "overlaps", made.bytes(), work)


def test_bombs(work):
    made = Archive()
    made.add(b"zeros", bytes(100 << 20), deflate=True)
    data = made.bytes()
    assert len(data) < 120 << 10
    refuse(LIMIT, "max-ratio", data, work)
    refuse(LIMIT, "max-bytes", data, work, "--max-bytes", "10M", "--max-ratio", "2000")
    # A size that the data cannot have: known before a byte is decompressed.
    lying = Archive()
    lying.add(b"zeros", bytes(1 << 20), deflate=True, size=0xFFFFFFFE)
    refuse(DAMAGED, "cannot have been stored", lying.bytes(), work)
    # And one that says less than it holds.
    lying = Archive()
    lying.add(b"zeros", bytes(1 << 20), deflate=True, size=1000)
    refuse(DAMAGED, "longer than it says", lying.bytes(), work)


def test_zip64_that_lies(work):
    made = Archive()
    made.add(b"x", b"data")
    start, size = len(made.members), len(made.central)
    body = bytes(made.members + made.central)

    def end(count=1, record_offset=None, cd_size=size, cd_offset=start):
        record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, cd_size,
                             cd_offset)
        locator = struct.pack("<IIQI", 0x07064B50, 0,
                              len(body) if record_offset is None else record_offset, 1)
        return body + record + locator + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF,
                                                     0xFFFFFFFF, 0xFFFFFFFF, 0)

    (work / "good.zip").write_bytes(end())
    thaw("pack", work / "good.zip", "-o", work / "good.thaw", "--quiet")
    (work / "good.zip").unlink()
    (work / "good.thaw").unlink()
    for lie in ({"count": 2}, {"count": 2**63}, {"record_offset": 0}, {"record_offset": 2**63},
                {"cd_size": 2**64 - 1}, {"cd_size": 1}, {"cd_offset": 2**64 - 1},
                {"cd_offset": start + 1}):
        data = end(**lie)
        (work / "bad.zip").write_bytes(data)
        result = thaw("pack", work / "bad.zip", "-o", work / "bad.thaw", code=None)
        assert result.code in (DAMAGED, LIMIT), (lie, result)


def test_two_archives_in_one(work):
    """What one reader finds from the end, and another from the front."""
    first = archive((b"good", b"1"))
    second = archive((b"evil", b"2"))
    refuse(DAMAGED, "another zip archive", first + second, work)
    refuse(DAMAGED, "another zip archive", first + second[:-22] + first[-22:], work)
    hidden = Archive()
    hidden.add(b"a", b"1")
    hidden.members += archive((b"hidden", b"2"))
    hidden.add(b"b", b"3")
    refuse(DAMAGED, "bytes of no member", hidden.bytes(), work)
    comment = Archive()
    comment.add(b"a", b"1")
    refuse(DAMAGED, "two end records", comment.bytes(comment=archive()), work)


def test_trailing_bytes(work):
    """No zip ends there any more: neither that nor a tar."""
    refuse(DAMAGED, ".", archive((b"a", b"1")) + b"more", work)
    refuse(DAMAGED, ".", archive((b"a", b"1"))[:-1], work)


def test_every_truncation(work):
    made = Archive()
    made.add(b"a", b"one")
    made.add(b"b/c", b"two" * 50, deflate=True)
    data = made.bytes()
    for size in range(1, len(data), 3):
        (work / "cut.zip").write_bytes(data[:size])
        result = thaw("pack", work / "cut.zip", "-o", work / "cut.thaw", code=None)
        assert result.code == DAMAGED, (size, result)
    assert os.listdir(work) == ["cut.zip"]


def test_wrong_checksum(work):
    for deflate in (False, True):
        made = Archive()
        made.add(b"a", b"some data " * 10, deflate=deflate, crc=12345)
        refuse(DAMAGED, "wrong CRC", made.bytes(), work)


def pex(*members, info=b"{}"):
    made = Archive(b"#!/usr/bin/env python3.11\n")
    made.add(b"PEX-INFO", info)
    made.add(b"__main__.py", b"#!/usr/bin/env python3.11\n")
    for name, *arguments in members:
        made.add(name, *arguments)
    return made


WHEEL = "d-1-py3-none-any.whl"
INFO = b'{"distributions": {"%s": ""}}' % WHEEL.encode()


def test_a_bomb_within_a_pex(work):
    """A wheel in a deflated member: it is not even written out."""
    made = pex(info=INFO)
    made.add(b".deps/" + WHEEL.encode(), bytes(100 << 20), deflate=True)
    refuse(LIMIT, "unpacks to more than", made.bytes(), work, name="app.pex")


def test_a_wheel_within_a_pex_that_leads_out(work):
    inner = io.BytesIO(archive((b"../../../evil", b"x")))
    made = pex(info=INFO)
    made.add(b".deps/" + WHEEL.encode(), inner.getvalue(), deflate=True)
    refuse(REFUSED, r"\.\.", made.bytes(), work, name="app.pex")


@pytest.mark.parametrize("scheme, path", [
    (b"data", b"bin/python"), (b"data", b"pyvenv.cfg"), (b"scripts", b"python3"),
    (b"data", b"lib/python3.11/site-packages/d-1.dist-info/RECORD")])
def test_wheels_do_not_replace_what_others_made(work, scheme, path):
    name = b"d-1.data/" + scheme + b"/" + path
    data = archive((b"d-1.dist-info/WHEEL", b"Wheel-Version: 1.0\n"),
                   (b"d-1.dist-info/RECORD", name + b",,\n"), (name, b"evil"))
    refuse(REFUSED, "different (content|things) in", data, work, "--python-version", "3.11",
           name=WHEEL)


def test_scripts_cannot_be_injected(work):
    for line in (b"x = os:system('id') #:y", b"x = a:b\\nimport os", b"x/y = a:b", b"x = a:b; c"):
        data = archive((b"d-1.dist-info/WHEEL", b"Wheel-Version: 1.0\n"),
                       (b"d-1.dist-info/RECORD", b""),
                       (b"d-1.dist-info/entry_points.txt", b"[console_scripts]\n" + line + b"\n"))
        refuse((REFUSED if b"/" in line else DAMAGED), "entry_points.txt", data, work,
               "--python-version", "3.11", name=WHEEL)
    for entry in (b"a:b()", b"a\\nimport os", b"a;b", b"a b"):
        made = pex(info=b'{"entry_point": "%s"}' % entry)
        refuse(DAMAGED, "entry point", made.bytes(), work, name="app.pex")
