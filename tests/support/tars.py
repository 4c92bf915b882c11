# SPDX-License-Identifier: Apache-2.0
"""
Archives byte by byte.

Python's tarfile refuses to write much of what a hostile archive holds, so
headers are made here, field by field. All text is bytes.
"""
import bz2
import gzip
import lzma
import struct
import subprocess

BLOCK = 512
END = bytes(2 * BLOCK)

FILE, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIR, FIFO = (
    b"0", b"1", b"2", b"3", b"4", b"5", b"6")


def octal(value, width):
    return b"%0*o\0" % (width - 1, value)


def base256(value, width):
    """GNU's binary numbers, for what does not fit octal digits, and for negative ones."""
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


def header(name, size=0, kind=FILE, mode=0o644, mtime=0, link=b"", uid=0, gid=0, major=0,
           minor=0, prefix=b"", magic=b"ustar\00000", user=b"root", checksum=None):
    """One header block. Numbers may be given as the bytes of their field."""

    def number(value, width):
        return value if isinstance(value, bytes) else octal(value, width)

    block = bytearray(struct.pack(
        "100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x", name, number(mode, 8), number(uid, 8),
        number(gid, 8), number(size, 12), number(mtime, 12), b" " * 8, kind, link, magic, user,
        user, number(major, 8), number(minor, 8), prefix))
    total = sum(block) if checksum is None else checksum
    block[148:156] = b"%06o\0 " % total
    return bytes(block)


def pad(data):
    return data + bytes(-len(data) % BLOCK)


def member(name, data=b"", **fields):
    """A header and its data. Names over 100 bytes get a pax header."""
    before = b""
    if len(name) > 100:
        before = pax(path=name)
    if len(fields.get("link", b"")) > 100:
        before = pax(path=name, linkpath=fields["link"])
    fields.setdefault("size", len(data))
    return before + header(name[:100], **fields) + pad(data)


def directory(name, **fields):
    return member(name.rstrip(b"/") + b"/", kind=DIR, mode=0o755, **fields)


def symlink(name, target):
    return member(name, kind=SYMLINK, mode=0o777, link=target)


def hardlink(name, target):
    return member(name, kind=HARDLINK, link=target)


def record(key, value):
    """One pax record: its length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(kind=b"x", raw=None, size=None, **records):
    """A pax header: records by keyword, or raw bytes; size overrides the header's."""
    if raw is None:
        raw = b"".join(record(k.replace("__", ".").encode(), v) for k, v in records.items())
    return header(b"PaxHeaders/x", size=len(raw) if size is None else size, kind=kind) + pad(raw)


def gnu_long(kind, text):
    """GNU's long name (b"L") or long link (b"K") in front of a member."""
    return member(b"././@LongLink", text + b"\0", kind=kind, magic=b"ustar  \0")


def tar(*members):
    return b"".join(members) + END


def zstd(data, *options):
    return subprocess.run(["zstd", "-q", "-c", *options], input=data, stdout=subprocess.PIPE,
                          check=True, timeout=120).stdout


def unzstd(data):
    return subprocess.run(["zstd", "-q", "-d", "-c", "--memory=2048MB"], input=data,
                          stdout=subprocess.PIPE, check=True, timeout=120).stdout


COMPRESSORS = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, 6, mtime=0),
    "tar.zst": zstd,
    "tar.xz": lambda data: lzma.compress(data, preset=1),
    "tar.bz2": bz2.compress,
}
