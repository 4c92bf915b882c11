#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the seeds of the fuzz corpora, a few kilobytes each, the same on every machine.

    tests/fuzz/make-corpus.py [DIRECTORY]      (default: corpus, beside this script)

Only files called seed-* are written; what a fuzzer found stands beside them
under another name and is left alone. zstd frames are made of raw blocks, since
Python has no zstd: valid, and easy to mutate.
"""

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

SKIPPABLE = 0x184D2A57
DIRECTORY, REGULAR, SYMLINK, HARDLINK = 1, 2, 3, 4


def zstd_raw(data):
    """A zstd frame of one segment, its content size in 4 bytes, raw blocks."""
    frame = struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data))
    blocks = [data[i:i + 65536] for i in range(0, len(data), 65536)] or [b""]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        frame += struct.pack("<I", len(block) << 3 | last)[:3] + block
    return frame


def skippable(payload):
    return struct.pack("<II", SKIPPABLE, len(payload)) + payload


def sha256(data):
    return hashlib.sha256(data).digest()


def record(name, kind, mode, parent, nlink, size, data):
    offset, length = name
    return struct.pack("<IBBHIIIIQQ", offset, length, kind, mode, 1700000000, parent, nlink, 0,
                       size, data)


def make_index(stream, frames, records, strings, extra=()):
    table = b"".join(struct.pack("<QQII", data, place, stored, size) + digest
                     for data, place, stored, size, digest in frames)
    sections = [(1, 1, b"\0" * 40 + b"".join(records)), (2, 1, strings), (3, 1, table),
                (4, 0, b'{"tool":"thaw"}'), *extra]
    raw = struct.pack("<IIQ", 0x58574854, len(sections), len(stream)) + sha256(stream)
    raw += struct.pack("<QQ", 0, 0)
    at = len(raw) + 24 * len(sections)
    entries, bodies = b"", b""
    for kind, flags, body in sections:
        padding = -at % 8
        at += padding
        entries += struct.pack("<IIQQ", kind, flags, at, len(body))
        bodies += b"\0" * padding + body
        at += len(body)
    return raw + entries + bodies


def make_image(stored, stream_size, index, parts=(), incompat=0, names=b""):
    image = stored
    entries = struct.pack("<IIQQQ", 1, 0, 0, len(stored), stream_size) + b"\0" * 64
    packed = zstd_raw(index)
    for kind, head, payload, raw_size, digest, name in [
            (3, 0, packed, len(index), sha256(packed), b""), *parts]:
        entries += struct.pack("<IIQQQ", kind, head, len(image) + 8, len(payload), raw_size)
        entries += digest + name.ljust(32, b"\0")
        image += skippable(payload)
    size = 40 + len(entries) + len(names)
    table = struct.pack("<IIQQQII", 0x54574854, len(entries) // 96,
                        len(image) + 8 + size + 64, 0, incompat, len(names), 0) + entries + names
    footer = struct.pack("<II", SKIPPABLE, 56) + b"\x89thaw\r\n\x1a"
    footer += struct.pack("<II", 1, len(table)) + sha256(table) + b"\0" * 8
    return image + skippable(table) + footer


def sample_index():
    """Index and stored stream of a small image; two frames, every type of inode."""
    stream = bytes(i * 7 & 255 for i in range(1500))
    stored, frames = b"", []
    for at in range(0, len(stream), 1000):
        piece = stream[at:at + 1000]
        frame = zstd_raw(piece)
        frames.append((at, len(stored), len(frame), len(piece), sha256(frame)))
        stored += frame
    strings = b"abcdef\0a\0"
    records = [
        record((0, 0), DIRECTORY, 0o755, 1, 3, 4, 2),
        record((0, 1), REGULAR, 0o644, 1, 2, 5, 512),
        record((1, 1), DIRECTORY, 0o755, 1, 2, 2, 6),
        record((2, 1), SYMLINK, 0o777, 1, 1, 1, 7),
        record((3, 1), HARDLINK, 0o644, 1, 2, 0, 2),
        record((4, 1), REGULAR, 0o755, 3, 1, 800, 700),
        record((5, 1), REGULAR, 0o644, 3, 1, 0, 0),
    ]
    return stream, stored, frames, records, strings


def warm_part():
    """A warm set: list the root, look a name up, one page of the file number 6."""
    page = bytes((700 + i) * 7 & 255 for i in range(800))
    frame = zstd_raw(page)
    operations = struct.pack("<BBHIII", 2, 0, 0, 1, 0, 0)
    operations += struct.pack("<BBHIII", 3, 4, 0, 3, 0, 0)
    operations += struct.pack("<BBHIII", 1, 0, 0, 6, 0, 1)
    head = struct.pack("<IIIIQ", 0x57574854, 1, 3, 4, 0)
    head += struct.pack("<QII", 0, len(frame), len(page)) + sha256(frame) + operations + b"none"
    packed = zstd_raw(head)
    return (4, len(packed), packed + frame, len(head), sha256(packed), b"import")


def images():
    stream, stored, frames, records, strings = sample_index()
    index = make_index(stream, frames, records, strings)
    yield "plain", make_image(stored, len(stream), index)
    yield "prefixed", b"#!/bin/sh\n" * 5 + make_image(stored, len(stream), index)
    yield "warm", make_image(stored, len(stream), index, [warm_part()])
    yield "later-part", make_image(stored, len(stream), index,
                                   [(77, 0, b"later", 5, sha256(b"later"), b"")])
    yield "feature", make_image(stored, len(stream), index, incompat=5, names=b"one\0three\0")
    empty = make_index(b"", [], [record((0, 0), DIRECTORY, 0o755, 1, 2, 0, 2)], b"")
    yield "empty", make_image(b"", 0, empty)


def indexes():
    stream, stored, frames, records, strings = sample_index()
    for name, extra in (("plain", ()), ("later-section", ((900, 0, b"later"),))):
        index = make_index(stream, frames, records, strings, extra)
        yield name, struct.pack("<I", len(index)) + index + stored
    root = record((0, 0), DIRECTORY, 0o755, 1, 2, 0, 2)
    index = make_index(b"", [], [root], b"")
    yield "empty", struct.pack("<I", len(index)) + index


def warm_sets():
    """Heads as they are when decompressed, and frames, for the image that fuzz-warm makes."""
    page = bytes(range(256)) * 16
    frames = [zstd_raw(page), zstd_raw(b"tail" * 226)]
    table, at = b"", 0
    for frame, size in zip(frames, (4096, 904)):
        table += struct.pack("<QII", at, len(frame), size) + sha256(frame)
        at += len(frame)

    def operation(kind, length, ino, a, b):
        return struct.pack("<BBHIII", kind, length, 0, ino, a, b)

    pages = [operation(1, 0, 6, 0, 1), operation(1, 0, 6, 1, 1)]
    others = [operation(2, 0, 1, 0, 0), operation(3, 6, 3, 0, 0), operation(4, 0, 4, 0, 0)]
    for name, operations, strings, used in (("all", others + pages, b"absent", 2),
                                            ("no-pages", others, b"absent", 0),
                                            ("empty", [], b"", 0)):
        head = struct.pack("<IIIIQ", 0x57574854, used, len(operations), len(strings), 0)
        head += table[:48 * used] + b"".join(operations) + strings
        yield name, struct.pack("<I", len(head)) + head + b"".join(frames[:used])


def member(name, kind=tarfile.REGTYPE, data=b"", link="", mode=0o644, mtime=1700000000, pax=None):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    info.mode, info.mtime = mode, mtime
    info.pax_headers = pax or {}
    return info, data


def tar(members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    # tarfile pads to 20 blocks; two end an archive.
    whole = out.getvalue().rstrip(b"\0")
    return whole + b"\0" * (-len(whole) % 512) + b"\0" * 1024


def tars():
    tree = [
        member("bin", tarfile.DIRTYPE, mode=0o755),
        member("bin/python3", data=b"#!", mode=0o755),
        member("bin/python", tarfile.SYMTYPE, link="python3"),
        member("lib/python3.11/site-packages/m/__init__.py", data=b"x = 1\n"),
        member("lib/python3.11/site-packages/m/__pycache__/__init__.cpython-311.pyc",
               data=struct.pack("<IIII", 0xA0D0DA7, 0, 1700000000, 6) + b"code"),
        member("copy", tarfile.LNKTYPE, link="bin/python3"),
    ]
    long_name = "n" * 120 + "/" + "m" * 130
    yield "tree", tar(tree)
    yield "gnu-long", tar([member(long_name, data=b"a"),
                           member("l", tarfile.SYMTYPE, link=long_name)], tarfile.GNU_FORMAT)
    yield "pax-long", tar([member(long_name, data=b"a")])
    yield "pax-unicode", tar([member("naïve/\u212b", data=b"a")])
    yield "pax-mtime", tar([member("f", mtime=1.5), member("g", mtime=-1.5)])
    yield "pax-xattr", tar([member("f", pax={"SCHILY.xattr.user.a": "b"})])
    yield "pax-size", tar([member("f", data=b"abc", pax={"size": "3"})])
    yield "pax-nul", tar([member("f", pax={"path": "a\0b"})])
    yield "sparse", tar([member("f", data=b"1\n0\n1\n" + b"\0" * 506 + b"x", pax={
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "f",
        "GNU.sparse.realsize": "9"})])
    yield "duplicates", tar([member("a", data=b"1"), member("b", tarfile.LNKTYPE, link="a"),
                             member("a", data=b"22"), member("a", tarfile.SYMTYPE, link="b")])
    yield "refused", tar([member("../a", data=b"1")])
    yield "device", tar([member("d", tarfile.CHRTYPE)])
    yield "links", tar([member("a", tarfile.SYMTYPE, link="b/../.."),
                        member("b", tarfile.SYMTYPE, link="c/d"), member("c/d/e", data=b"1")])
    yield "no-end", tar([member("f", data=b"1")])[:-1024]
    yield "after-end", tar([member("f", data=b"1")]) + b"x"
    yield "empty", tar([])


def inputs():
    plain = tar([member("f", data=b"text " * 40)])
    yield "plain", plain
    yield "gz", gzip.compress(plain, mtime=0)
    yield "gz-two", gzip.compress(plain[:700], mtime=0) + gzip.compress(plain[700:], mtime=0)
    yield "gz-padded", gzip.compress(plain, mtime=0) + b"\0" * 100
    yield "bz2", bz2.compress(plain)
    yield "bz2-two", bz2.compress(plain[:700]) + bz2.compress(plain[700:])
    yield "xz", lzma.compress(plain, preset=0)
    yield "xz-two", lzma.compress(plain[:700], preset=0) + lzma.compress(plain[700:], preset=0)
    yield "xz-crc32", lzma.compress(plain, preset=0, check=lzma.CHECK_CRC32)
    yield "zst", zstd_raw(plain)
    yield "zst-two", zstd_raw(plain[:700]) + skippable(b"between") + zstd_raw(plain[700:])
    yield "zst-padded", zstd_raw(plain) + b"\0" * 100
    yield "zip", b"PK\x03\x04" + b"\0" * 26


class Pipe:
    """What cannot seek: sizes and checksums then follow the data."""

    def __init__(self, out):
        self.write, self.flush = out.write, out.flush


def zip_archive(members, compression=zipfile.ZIP_DEFLATED, prefix=b"", pipe=False):
    out = io.BytesIO(prefix)
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(Pipe(out) if pipe else out, "a" if prefix else "w") as archive:
        for name, data, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression if data else zipfile.ZIP_STORED
            archive.writestr(info, data)
    return out.getvalue()


RECORD = b"""a/__init__.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0
a-1.data/scripts/run,,
a-1.dist-info/WHEEL,,
a-1.dist-info/METADATA,,
"a-1.dist-info/entry_points.txt",,39
a-1.dist-info/RECORD,,
"""
ENTRY_POINTS = b"[console_scripts]\n# comment\na = a:main\n"


def wheel():
    return [
        ("a/__init__.py", b"", 0o100644),
        ("a-1.data/scripts/run", b"#!python\nprint()\n", 0o100755),
        ("a-1.dist-info/WHEEL", b"Wheel-Version: 1.0\n", 0o100644),
        ("a-1.dist-info/METADATA", b"Name: a\nRequires-Python: >=3.8\n\ntext\n", 0o100644),
        ("a-1.dist-info/entry_points.txt", ENTRY_POINTS, 0o100644),
        ("a-1.dist-info/RECORD", RECORD, 0o100644),
    ]


PEX_INFO = (b'{"entry_point": "app:main", "interpreter_constraints": ["CPython<3.13,>=3.9"],'
            b' "inject_args": ["-v"], "inject_env": {"A": "b"}, "inject_python_args": ["-B"],'
            b' "distributions": {"a-1-py3-none-any.whl": "0"}}')


def pex():
    installed = [(name, data, mode) for name, data, mode in wheel() if ".data/" not in name]
    rows = b"".join(line for line in RECORD.splitlines(True) if b".data/" not in line)
    deps = ".deps/a-1-py3-none-any.whl/"
    return [(".bootstrap/", b"", 0o040755), ("PEX-INFO", PEX_INFO, 0o100644),
            ("__main__.py", b"#!/usr/bin/env python3.11\n", 0o100755),
            ("app.py", b"def main(): pass\n", 0o100644),
            (deps + ".layout.json", b"{}", 0o100644),
            (deps + ".prefix/bin/run", b"#!python\n", 0o100755),
            *((deps + name, rows if name.endswith("RECORD") else data, mode)
              for name, data, mode in installed)]


def zips():
    plain = [("d/", b"", 0o040755), ("d/f", b"text " * 40, 0o100644), ("l", b"d/f", 0o120777)]
    yield "plain", b"\2" + zip_archive(plain)
    yield "stored", b"\2" + zip_archive(plain, zipfile.ZIP_STORED)
    yield "prefixed", b"\2" + zip_archive(plain, prefix=b"#!/bin/sh\n")
    yield "descriptors", b"\2" + zip_archive(plain[1:], pipe=True)
    yield "empty", b"\2" + zip_archive([])
    yield "wheel", b"\1" + zip_archive(wheel())
    yield "wheel-stored", b"\1" + zip_archive(wheel(), zipfile.ZIP_STORED)
    yield "pex", b"\0" + zip_archive(pex(), prefix=b"#!/usr/bin/env python3.11\n")
    yield "pex-stored", b"\0" + zip_archive(pex(), zipfile.ZIP_STORED)
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        members = [member for member in pex() if not member[0].startswith(".deps/")]
        members.append((".deps/a-1-py3-none-any.whl", zip_archive(wheel()), 0o100644))
        yield f"pex-wheels-{compression}", b"\0" + zip_archive(members, compression)


def wheel_texts():
    yield "record", b"\0" + RECORD
    yield "record-quotes", b'\0"a ""b"",c",sha512=abc,7\r\n\r\n'
    yield "scripts", b"\1" + ENTRY_POINTS + b"[gui_scripts]\nb=a.b:C.d [x]\n[other]\nc=1\n"
    yield "pex-info", b"\2" + PEX_INFO
    yield "pex-script", b'\2{"script": "a b", "pex_path": null}'
    yield "pex-module", b'\2{"entry_point": "a.b"}'
    for number, name in enumerate((
            b"a-1-py3-none-any.whl", b"a_b-1.0-2-cp311-abi3-manylinux_2_17_x86_64.whl",
            b"a-1-cp39.cp310-cp39.cp310-linux_aarch64.musllinux_1_1_aarch64.whl",
            b"a-1-py2.py3-none-any.whl")):
        yield f"name-{number}", b"\3" + name
    for number, text in enumerate((b"CPython>=3.9,<3.13", b"~=3.8, !=3.9.*", b"===3.11.2",
                                   b"CPython-t==3.13.*", b"PyPy")):
        yield f"constraint-{number}", b"\4" + text
    yield "metadata", b"\5Metadata-Version: 2.1\nRequires-Python:  >=3.8 \n\nRequires-Python: 2\n"


def environment_texts():
    """The first byte: pyvenv.cfg, ELF, meta section, or a text for every file of an environment."""
    yield "pyvenv", b"\0home = /usr/bin\ninclude-system-site-packages = false\nHOME=/b\r\n"
    yield "pyvenv-odd", b"\0= x\n# c\nk\0=v\na=b=c\n"
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64,
                                                     56, 2, 64, 0, 0)
    dynamic = struct.pack("<QQQQQQQQQQ", 5, 336, 10, 40, 1, 1, 29, 15, 0, 0)
    strings = b"\0libpython3.1\0\0/a/longer/run/path\0"
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, 400, 400, 4096)
    section = struct.pack("<IIQQQQQQ", 2, 4, 176, 176, 176, len(dynamic), len(dynamic), 8)
    elf = ((head + load + section + dynamic).ljust(336, b"\0") + strings).ljust(400, b"\0")
    yield "elf", b"\1" + elf
    yield "meta", (b'\2{"python":"3.11","interpreter":false,"binding":{"links":["python","python3"],'
                   b'"executable":"/usr/bin/python3.11"}}')
    for number, text in enumerate((
            b"#!/usr/bin/env python3\nimport a\n", b"#!/b/env/bin/python3.11 -I\n",
            b"#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n",
            b"VIRTUAL_ENV=\"/b/env\"\nPATH=/b/env/bin\nhome = /b\nversion = 3.11.2\n",
            b"Tag: cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64\n/src/a\n",
            b'{"url":"file:///a","dir_info":{"editable":true}}', elf)):
        yield f"text-{number}", b"\3" + text


def mount_options():
    yield "fstab", b"ro,nosuid,nodev,auto,user,nofail,x-systemd.automount,_netdev,comment=a"
    yield "passed", b"allow_other,noexec,noatime,max_read=131072"
    yield "context", b"context=system_u:object_r:usr_t:s0"
    yield "refused", b"noatime,suid"
    yield "unknown", b"noexec,fsname=x"
    yield "commas", b",,,allow_root,,"


def conda_scripts():
    record = b"('bin/pip', '/opt/env', 'text')"
    yield "script", (b"#!/usr/bin/env python\nimport re\n_prefix_records = [\n" + record + b",\n"
                     b"(\"it's\", '/opt/env', 'binary')\n]\n\nif __name__ == '__main__':\n"
                     b"    for path in _prefix_records:\n        pass\n")
    yield "escapes", (b"_prefix_records = [('a\\\\b\\'\\t\\x7f\\xe9\\u20ac\\U0001f40d\\udce9', "
                      b"u'/opt', 'text' ) , ]")
    yield "empty", b"_prefix_records = []\n"
    for number, list_ in enumerate((
            b"[__import__('os')]", b"[('../x', '/opt', 'text')]", b"[('a', '', 'text')]",
            b"[('a' 'b', '/opt', 'text')]", b"[" + record + b"] + x", b"[\\\n]", b"[('a\\")):
        yield f"refused-{number}", b"_prefix_records = " + list_ + b"\n"


def relocations():
    def made(prefix, rules, sites, content):
        strings = b"".join(placeholder + suffix for _, placeholder, suffix, _ in rules)
        section, at = struct.pack("<4I", len(rules), 1, len(sites), len(strings)), 0
        for kind, placeholder, suffix, room in rules:
            section += struct.pack("<6I", kind, at, len(placeholder), at + len(placeholder),
                                   len(suffix), room)
            at += len(placeholder + suffix)
        section += struct.pack("<3I", 2, 0, len(sites))
        section += b"".join(struct.pack("<QII", offset, rule, 0) for offset, rule in sites)
        section += strings
        return struct.pack("<BH", len(prefix), len(section)) + prefix + section + content

    text, binary = (1, b"/build/env", b"", 0), (2, b"/build/env", b"/lib", 20)
    shebang = (3, b"/usr/bin/env python3", b"/bin/python3 -E", 0)
    yield "text", made(b"new", [text], [(1, 0), (11, 0)], b"x/build/env/build/env\n")
    yield "binary", made(b"n", [binary], [(0, 0), (11, 0)],
                         b"/build/env:/build/env/x\0next /build/env")
    yield "room", made(b"longer-than", [binary], [(0, 0)], b"/build/env/x" + bytes(11) + b"next")
    yield "no-room", made(b"longer-than", [binary], [(0, 0)], b"/build/env/x\0next")
    yield "no-end", made(b"n", [binary], [(0, 0)], b"/build/env/x")
    yield "shebang", made(b"new", [shebang, text], [(2, 0), (40, 1)],
                          b"#!/usr/bin/env python3 -s\nimport sys /build/env\n")
    yield "shebang-blank", made(b"new one$", [shebang], [(3, 0)], b"#! /usr/bin/env python3")
    yield "another-text", made(b"new", [text], [(0, 0)], b"/another/text")
    compiled = pyc(3495, b")\x01" + marshalled(b"/build/env/share"))
    head, constant = (4, compiled[:8], b"", 0), (5, b"/build/env", b"", 0)
    place = compiled.index(marshalled(b"/build/env/share"))
    yield "bytecode", made(b"new", [head, constant], [(0, 0), (place, 1)], compiled)
    yield "bytecode-elsewhere", made(b"new", [head, constant], [(0, 0), (place + 1, 1)], compiled)
    yield "bytecode-only", made(b"new", [head], [(0, 0)], compiled)
    yield "constant-only", made(b"new", [constant], [(place, 0)], compiled)


def catalogue_entry(kind, path, name=b"", first=0, count=0):
    return struct.pack("<BBHII", kind, len(name), len(path), first, count) + path + name


def catalogue_records():
    """The first byte: a record, a learned trace, JSON."""
    payload = b'{"session":"a"}'
    head = struct.pack("<II", 1, len(payload))
    digest = sha256(head + struct.pack("<I", 4) + b"lkey" + payload)[:16]
    yield "record", b"\0" + head + digest + payload
    trace = struct.pack("<QB", 1700000000, 1) + b"w"
    yield "trace-empty", b"\1" + trace
    yield "trace", b"\1" + trace + catalogue_entry(1, b"lib/a.py", b"", 3, 7) + \
        catalogue_entry(2, b"") + catalogue_entry(4, b"lib", b"b\xff.so")
    yield "trace-cut", b"\1" + trace + catalogue_entry(1, b"lib/a.py")[:-1]
    digits = b"01" * 32
    yield "image", b"\2" + b'{"index":"%s","kind":null,"mtime_ns":1,"name":"e","path":{"hex":' \
        b'"2ff0"},"python":"3.11","size":5,"used":1}' % digits
    yield "source", b"\2" + b'{"identity":"%s","inode":-1,"mtime_ns":1,"options":"","path":' \
        b'"/a","size":5}' % digits


def learned_traces():
    """Of the image that fuzz-learned makes."""
    trace = struct.pack("<QB", 1700000000, 1) + b"w"
    yield "empty", trace
    yield "pages", trace + catalogue_entry(1, b"b/e", b"", 1, 1) + \
        catalogue_entry(1, b"a", b"", 0, 9) + catalogue_entry(1, b"b/e", b"", 0, 1 << 31)
    yield "names", trace + catalogue_entry(2, b"") + catalogue_entry(4, b"b", b"none") + \
        catalogue_entry(4, b"b", b"..") + catalogue_entry(3, b"b", b"e") + catalogue_entry(5, b"c")
    yield "strange", trace + catalogue_entry(1, b"b/../a", b"", 0, 1) + \
        catalogue_entry(1, b"b", b"", 0, 1) + catalogue_entry(4, b"a", b"x") + \
        catalogue_entry(1, b"a", b"", (1 << 32) - 1, (1 << 32) - 1) + catalogue_entry(1, b"b/f", b"", 0, 1)


def stubs():
    """The first byte: a stub's description, or what follows an executable."""
    image = b'{"embedded":true,"identity":"%s","name":"e.thaw","path":"/e.thaw"}' % (b"0a" * 32)
    text = b'{"images":[%s],"machine":"x86_64","search":["/images"],"thaw-stub":1}'
    yield "description", b"\0" + text % image
    yield "layers", b"\0" + text % (image + b"," + image)
    yield "no-images", b"\0" + text % b""
    yield "relative", b"\0" + (text % image).replace(b"/images", b"images")
    body = text % image
    trailer = struct.pack("<8sQQ", b"THAWSTUB", len(body), 0)
    yield "executable", b"\1" + b"\x7fELF" + body + trailer
    yield "executable-image", b"\1" + b"\x7fELF" + body + trailer + next(iter(images()))[1]
    yield "trailer-lies", b"\1" + body + struct.pack("<8sQQ", b"THAWSTUB", len(body) + 1, 0)


def marshalled(text, kind=b"z"):
    short = kind in b"zZ\xfa\xda"
    return kind + (struct.pack("<B", len(text)) if short else struct.pack("<I", len(text))) + text


def pyc(magic, constants, name=b"f", flags=1):
    """A compiled module, as CPython marshals it: magic 3413 is 3.8's, 3495 is 3.11's."""
    new = magic >= 3495
    code = b"\xe3" + bytes(4 * (5 if new else 6)) + marshalled(b"\x97\0", b"s")
    code += constants + b")\0)\0" + (marshalled(b"", b"s") if new else b")\0)\0")
    code += marshalled(b"f.py") + marshalled(name, b"\xda") + (b"r\x01\0\0\0" if new else b"")
    code += struct.pack("<I", 1) + marshalled(b"\x01", b"s") * (2 if new else 1)
    return struct.pack("<H2sI", magic, b"\r\n", flags) + bytes(8) + code


def bytecode():
    def made(path, prefix, data):
        return struct.pack("<BB", len(path), len(prefix)) + path + prefix + data

    path, text = b"/build/env", marshalled(b"/build/env/share")
    yield "old", made(path, b"x", pyc(3413, b")\x02" + text + b"N"))
    yield "new", made(path, b"longer/than/that", pyc(3495, b")\x02" + text + b"r\0\0\0\0"))
    yield "kinds", made(path, b"x", pyc(3571, b"(" + struct.pack("<I", 9) + b"".join(
        marshalled(path + b":" + path, kind) for kind in (b"z", b"Z", b"a", b"A", b"u", b"t", b"s",
                                                          b"\xfa", b"\xf5"))))
    yield "unicode", made(path, "\u00e4".encode(), pyc(3531, b")\x01" + text))
    yield "long", made(path, b"x" * 250, pyc(3495, b")\x01" + marshalled(b"y" * 200 + path)))
    yield "others", made(path, b"x", pyc(3627, b")\x08i\1\0\0\0g" + bytes(8) + b"y" + bytes(16)
                                         + b"l\xfe\xff\xff\xff\1\0\1\0>\0\0\0\0T.:NNN"))
    yield "nested", made(path, b"x", pyc(3495, b")\x01" + pyc(3495, b")\x01" + text)[16:]))
    yield "in-a-name", made(path, b"x", pyc(3495, b")\x01" + text, name=path))
    yield "checked", made(path, b"x", pyc(3495, b")\x01" + text, flags=3))
    yield "unknown", made(path, b"x", pyc(3394, b")\x01" + text))


CORPORA = {
    "bytecode": bytecode,
    "stub": stubs,
    "environment": environment_texts,
    "catalogue": catalogue_records,
    "image": images,
    "learned": learned_traces,
    "records": conda_scripts,
    "relocations": relocations,
    "index": indexes,
    # The first byte chooses the size of blocks: 512.
    "tar": lambda: ((name, b"\x02" + data) for name, data in tars()),
    "input": inputs,
    "warm": warm_sets,
    "zip": zips,
    "wheel": wheel_texts,
    "mount-options": mount_options,
}


def main():
    top = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "corpus"
    for corpus, seeds in CORPORA.items():
        directory = top / corpus
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("seed-*"):
            old.unlink()
        for name, data in seeds():
            (directory / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
