# SPDX-License-Identifier: Apache-2.0
"""
Archives that must be refused: one line each, with the exit code and a word of
the error. Numbers in names are those of the list of hostile cases.
"""
import pytest

from support import tars
from support.command import DAMAGED, LIMIT, REFUSED, run, thaw_fails
from support.tars import END, directory, hardlink, header, member, pax, symlink, tar

FILE = member(b"file", b"data")


def deep(levels):
    return b"/".join([b"d"] * levels)


CASES = {
    # 1-5: names
    "1-dotdot": (tar(member(b"../x")), REFUSED, r"\.\."),
    "1-dotdot-inside": (tar(member(b"a/../../x")), REFUSED, r"\.\."),
    "1-dotdot-harmless": (tar(member(b"a/../x")), REFUSED, r"\.\."),
    "1-dotdot-last": (tar(directory(b"a/..")), REFUSED, r"\.\."),
    "1-dotdot-in-pax": (tar(pax(path=b"a/../../x"), member(b"x")), REFUSED, r"\.\."),
    "1-dotdot-in-longname": (tar(tars.gnu_long(b"L", b"../x"), member(b"x")), REFUSED, r"\.\."),
    "1-dotdot-in-prefix": (tar(member(b"x", prefix=b"../y")), REFUSED, r"\.\."),
    "2-absolute": (tar(member(b"/etc/passwd")), REFUSED, "absolute"),
    "2-absolute-twice": (tar(member(b"//x")), REFUSED, "absolute"),
    "2-absolute-in-pax": (tar(pax(path=b"/x"), member(b"x")), REFUSED, "absolute"),
    "3-empty": (tar(member(b"")), REFUSED, "empty|name"),
    "3-dot-component": (tar(member(b"a/./b")), REFUSED, r"'\.'|\"\.\"|\. "),
    "3-empty-component": (tar(member(b"a//b")), REFUSED, "empty"),
    "3-nul-in-pax-path": (tar(pax(path=b"a\0b"), member(b"x")), REFUSED, "NUL"),
    "3-nul-in-pax-linkpath": (tar(pax(linkpath=b"a\0b"), symlink(b"x", b"t")), REFUSED, "NUL"),
    "4-component-256": (tar(member(b"n" * 256)), LIMIT, "255"),
    "4-component-256-inside": (tar(member(b"a/" + b"n" * 256 + b"/b")), LIMIT, "255"),
    "4-path-4096": (tar(member(b"/".join([b"n" * 255] * 15 + [b"m" * 200, b"k" * 55]))), LIMIT, "4095"),
    "5-depth-100000": (tar(member(deep(100_000))), LIMIT, "409[56]|pax|deep|long"),

    # 7-8: two members that exclude each other
    "7-file-then-directory": (tar(member(b"a"), directory(b"a")), REFUSED, "director"),
    "7-directory-then-file": (tar(directory(b"a"), member(b"a")), REFUSED, "director"),
    "7-file-then-child": (tar(member(b"a"), member(b"a/b")), REFUSED, "director|beneath|below"),
    "7-child-then-file": (tar(member(b"a/b"), member(b"a")), REFUSED, "director"),
    "8-beneath-symlink": (tar(symlink(b"a", b"/tmp"), member(b"a/b")), REFUSED, "symlink|link"),
    "8-beneath-symlink-deep": (
        tar(symlink(b"a", b"."), member(b"a/a/a/b")), REFUSED, "symlink|link"),
    "8-symlink-over-directory": (
        tar(member(b"a/b"), symlink(b"a", b"/tmp")), REFUSED, "director|link"),
    "8-directory-over-symlink": (
        tar(symlink(b"a", b"/tmp"), directory(b"a")), REFUSED, "director|link"),

    # 10-12: links and types
    "10-empty-target": (tar(symlink(b"a", b"")), REFUSED, "empty|target"),
    "10-target-4096": (tar(symlink(b"a", b"t" * 4096)), LIMIT, "409[56]|target"),
    "11-hardlink-to-nothing": (tar(hardlink(b"a", b"nothing")), REFUSED, "hard link"),
    "11-hardlink-to-later": (tar(hardlink(b"a", b"file"), FILE), REFUSED, "hard link"),
    "11-hardlink-to-itself": (tar(hardlink(b"a", b"a")), REFUSED, "hard link"),
    "11-hardlink-over-its-file": (tar(FILE, hardlink(b"file", b"file")), REFUSED, "hard link"),
    "11-hardlink-to-directory": (tar(directory(b"d"), hardlink(b"a", b"d")), REFUSED, "hard link"),
    "11-hardlink-to-dotdot": (tar(FILE, hardlink(b"a", b"../file")), REFUSED, "hard link|\\.\\."),
    "11-hardlink-to-absolute": (tar(FILE, hardlink(b"a", b"/file")), REFUSED, "hard link|absol"),
    "11-hardlink-to-empty": (tar(FILE, hardlink(b"a", b"")), REFUSED, "link|type"),
    "12-character-device": (
        tar(member(b"a", kind=tars.CHARDEV, major=1, minor=3)), REFUSED, "device"),
    "12-block-device": (tar(member(b"a", kind=tars.BLOCKDEV, major=8)), REFUSED, "device"),
    "12-fifo": (tar(member(b"a", kind=tars.FIFO)), REFUSED, "fifo|pipe"),

    # 16-20: numbers and structure
    "16-size-negative": (header(b"a", size=tars.base256(-1, 12)) + END, DAMAGED, "size"),
    "16-size-2^63": (header(b"a", size=tars.base256(2**63, 12)) + END, DAMAGED, "size"),
    "16-size-2^63-1": (
        header(b"a", size=tars.base256(2**63 - 1, 12)) + END, (DAMAGED, LIMIT), "size|bytes"),
    "16-size-2^88": (header(b"a", size=b"\x80\x7f" + b"\xff" * 10) + END, DAMAGED, "size"),
    "16-size-not-a-number": (header(b"a", size=b"12x45678901\0") + END, DAMAGED, "size|tar"),
    "16-size-past-the-end": (header(b"a", size=1 << 20) + END, DAMAGED, "end|truncated|short"),
    "16-pax-size-negative": (tar(pax(raw=tars.record(b"size", b"-1")), member(b"a")),
                             DAMAGED, "size"),
    "16-pax-size-huge": (tar(pax(raw=tars.record(b"size", b"99999999999999999999")),
                             member(b"a")), DAMAGED, "size"),
    "16-pax-size-not-a-number": (tar(pax(raw=tars.record(b"size", b"12a")), member(b"a")),
                                 DAMAGED, "size|end"),
    "17-checksum": (header(b"a", checksum=1) + END, DAMAGED, "tar"),
    "17-checksum-second": (FILE + header(b"a", checksum=1) + END, DAMAGED, "file.*damaged|damaged.*file"),
    "17-not-a-tar": (b"This is not an archive.\n" * 100, DAMAGED, "tar|archive|checksum"),
    "17-empty-file": (b"", DAMAGED, "empty|end|tar|archive"),
    "17-no-members-no-end": (bytes(512), DAMAGED, "end"),
    "18-no-end-marker": (FILE, DAMAGED, "end"),
    "18-half-an-end-marker": (FILE + bytes(512), DAMAGED, "end"),
    "19-garbage-behind": (tar(FILE) + b"garbage", DAMAGED, "end|behind|after"),
    "19-garbage-far-behind": (tar(FILE) + bytes(10240) + b"x" * 512, DAMAGED, "end|behind|after"),
    "19-two-tars": (tar(FILE) + tar(member(b"b")), DAMAGED, "end|behind|after"),
    "20-pax-1-GiB": (tar(pax(raw=b"", size=1 << 30), FILE), LIMIT, "pax"),
    "20-pax-length-too-long": (tar(pax(raw=b"99 path=x\n"), FILE), DAMAGED, "pax"),
    "20-pax-length-too-short": (tar(pax(raw=b"5 path=x\n"), FILE), DAMAGED, "pax"),
    "20-pax-length-zero": (tar(pax(raw=b"0 path=x\n"), FILE), DAMAGED, "pax"),
    "20-pax-length-negative": (tar(pax(raw=b"-9 path=x\n"), FILE), DAMAGED, "pax"),
    "20-pax-length-overflow": (
        tar(pax(raw=b"99999999999999999999999 path=x\n"), FILE), DAMAGED, "pax"),
    "20-pax-no-newline": (tar(pax(raw=b"11 path=abc"), FILE), DAMAGED, "pax"),
    "20-pax-no-equals": (tar(pax(raw=b"9 pathabc\n"), FILE), DAMAGED, "pax"),
    "20-pax-not-a-record": (tar(pax(raw=b"nonsense"), FILE), DAMAGED, "pax"),
    "20-pax-at-the-end": (tar(FILE, pax(path=b"x")), DAMAGED, "pax|end|damaged"),
    "20-longname-1-GiB": (
        tar(header(b"././@LongLink", size=1 << 30, kind=b"L"), FILE), LIMIT, "long|name|pax"),
}


def refuse(work, data, codes, word, *options, name="hostile.tar", timeout=60):
    source = work / name
    source.write_bytes(data)
    before = sorted(work.rglob("*"))
    codes = codes if isinstance(codes, tuple) else (codes,)
    result = thaw_fails(None, word, "pack", source, "-o", work / "out.thaw", *options,
                        timeout=timeout)
    assert result.code in codes, repr(result)
    assert result.err.startswith(b"thaw: " + str(source).encode() + b": "), repr(result)
    assert sorted(work.rglob("*")) == before, "something was left behind"
    assert result.out == b""
    return result


@pytest.mark.parametrize("name", CASES)
def test_refused(work, name):
    refuse(work, *CASES[name])


@pytest.mark.parametrize("target", [b"/etc/passwd", b"..", b"../x", b"e/../../x", b"d/../../../x"])
def test_9_escaping_symlink_refused_when_links_must_be_contained(work, target):
    refuse(work, tar(directory(b"d"), directory(b"e"), symlink(b"d/a", b"../" + target) if target[:1] != b"/"
                     else symlink(b"d/a", target)), REFUSED, "link", "--links=contained")


SPARSE_FORMATS = ["gnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1",
                  "posix --sparse-version=1.0"]


@pytest.mark.parametrize("form", SPARSE_FORMATS)
@pytest.mark.parametrize("where", [None, 0, 500_000, (1 << 20) - 5000])
def test_22_sparse_members(work, form, where):
    """As GNU tar writes them; a hole is not in the stream, so it cannot be served from there."""
    with open(work / "holes", "wb") as stream:
        stream.truncate(1 << 20)
        if where is not None:
            stream.seek(where)
            stream.write(b"x" * 5000)
    run("sh", "-c", f'cd "$1" && tar -S --format={form} -cf t.tar holes', "sh", work)
    refuse(work, (work / "t.tar").read_bytes(), REFUSED, '"holes".*sparse')


def test_size_limit_of_the_stream(work):
    refuse(work, tar(member(b"a", bytes(2 << 20))), LIMIT, "bytes", "--max-bytes=1M")


def test_error_line_escapes_names(work):
    name = b"\xff\x1b[2J\n/../x"
    result = refuse(work, tar(member(name)), REFUSED, r"\\x[fF][fF]\\x1[bB]")
    assert b"\x1b" not in result.err
