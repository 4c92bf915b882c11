# SPDX-License-Identifier: Apache-2.0
"""Odd archives with a defined meaning: what is normalised, dropped, clamped or kept."""
import gzip
import os
import unicodedata

import pytest

from support import tars, trees
from support.command import thaw
from support.tars import END, directory, hardlink, header, member, pax, record, symlink, tar


def unpacked(work, data, *options):
    """Pack these bytes and extract the image: {path: Entry}."""
    (work / "x.tar").write_bytes(data)
    thaw("pack", work / "x.tar", "--quiet", *options)
    thaw("verify", work / "x.thaw")
    assert tars.unzstd((work / "x.thaw").read_bytes()) == (
        data if not data.startswith(b"\x1f\x8b") else gzip.decompress(data))
    thaw("extract", work / "x.thaw", work / "out")
    return trees.snapshot(work / "out")


def content_of(work, path):
    return trees.read_all(os.fsencode(work) + b"/out/" + path)


def test_3_leading_dot_is_normalised(work):
    tree = unpacked(work, tar(directory(b"./"), directory(b"./d"), member(b"./d/f", b"1"),
                              hardlink(b"./g", b"./d/f"), hardlink(b"h", b"d/f")))
    assert sorted(tree) == [b".", b"d", b"d/f", b"g", b"h"]
    assert tree[b"h"].links == (b"d/f", b"g", b"h")


def test_implied_directories_are_made(work):
    tree = unpacked(work, tar(member(b"a/b/c/file", b"1")))
    assert [tree[p].mode for p in (b"a", b"a/b", b"a/b/c")] == [0o755] * 3


def test_4_longest_names(work):
    # A file's path of exactly 4,095 bytes, in components of 255.
    path = b"/".join([b"n" * 255] * 15) + b"/" + b"m" * 255
    assert len(path) == 4095
    (work / "x.tar").write_bytes(tar(member(path, b"deep")))
    thaw("pack", work / "x.tar", "--quiet")
    assert thaw("cat", work / "x.thaw", os.fsdecode(path)).out == b"deep"


def test_6_names_that_are_not_utf8(work):
    names = [b"caf\xe9", b"\xff\xfe", b"\xed\xa0\x80", b"new\nline", b"tab\t", b" ", b"-rf", b"'\"$(x)"]
    tree = unpacked(work, tar(*(member(n, n) for n in names)))
    assert sorted(tree) == sorted([b".", *names])
    assert all(content_of(work, n) == n for n in names)


def test_7_later_member_wins(work):
    tree = unpacked(work, tar(member(b"a", b"old", mode=0o644), member(b"b", b"b"),
                              member(b"a", b"newer", mode=0o755, mtime=7)))
    assert content_of(work, b"a") == b"newer"
    assert (tree[b"a"].mode, tree[b"a"].mtime) == (0o755, 7)


def test_7_hard_link_keeps_what_it_named(work):
    # As tar(1) does: the link was made to the first "a"; a later "a" is another file.
    tree = unpacked(work, tar(member(b"a", b"first"), hardlink(b"b", b"a"), member(b"a", b"second")))
    assert content_of(work, b"a") == b"second"
    assert content_of(work, b"b") == b"first"
    assert tree[b"a"].nlink == tree[b"b"].nlink == 1


def test_7_file_and_symlink_replace_each_other(work):
    tree = unpacked(work, tar(member(b"a", b"x"), symlink(b"a", b"b"),
                              symlink(b"b", b"c"), member(b"b", b"y")))
    assert (tree[b"a"].kind, tree[b"b"].kind) == ("symlink", "file")


def test_7_directory_twice(work):
    tree = unpacked(work, tar(directory(b"d", mtime=1), member(b"d/f"), directory(b"d", mtime=9)))
    assert tree[b"d"].mtime == 9


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../up", b"nowhere", b"."])
def test_9_symlinks_are_stored_and_never_followed(work, target):
    tree = unpacked(work, tar(symlink(b"l", target)))
    assert tree[b"l"].target == target


@pytest.mark.parametrize("target", [b"file", b"d/../file", b"./d/file", b"l"])
def test_9_contained_links_are_accepted(work, target):
    tree = unpacked(work, tar(member(b"file"), member(b"d/file"), symlink(b"l", target)),
                    "--links=contained")
    assert tree[b"l"].target == target


def test_13_modes_and_owners_are_normalised(work):
    modes = {b"setuid": (0o4755, 0o755), b"setgid": (0o2644, 0o644), b"none": (0, 0o444),
             b"group": (0o060, 0o444), b"ro": (0o400, 0o444), b"x": (0o100, 0o555),
             b"all": (0o7777, 0o755)}
    tree = unpacked(work, tar(directory(b"d", uid=5, gid=6, mtime=3),
                              *(member(n, mode=m, uid=1234, gid=4321)
                                for n, (m, _) in modes.items())))
    assert {n: tree[n].mode for n in modes} == {n: want for n, (_, want) in modes.items()}
    assert tree[b"d"].mode == 0o755
    assert os.stat(work / "out" / "none").st_uid == os.geteuid()


def test_14_extended_attributes_are_dropped(work):
    tree = unpacked(work, tar(
        pax(SCHILY__xattr__security__capability=b"\x01\0\0\x02" + bytes(16),
            SCHILY__xattr__user__x=b"1", LIBARCHIVE__xattr__user__y=b"MQ"), member(b"f", b"1")))
    assert tree[b"f"].kind == "file"
    assert os.listxattr(work / "out" / "f") == []


def test_15_case_and_unicode_form_are_distinct(work):
    names = ["caf\u00e9".encode(), unicodedata.normalize("NFD", "caf\u00e9").encode(), b"A", b"a",
             "\u00df".encode(), b"ss"]
    tree = unpacked(work, tar(*(member(n, n) for n in names)))
    assert sorted(tree) == sorted([b".", *names])
    assert all(content_of(work, n) == n for n in names)


def test_19_multi_member_gzip_is_one_stream(work):
    data = tar(member(b"a", b"1" * 5000), member(b"b", b"2" * 5000))
    packed = gzip.compress(data[:3000]) + gzip.compress(b"") + gzip.compress(data[3000:])
    assert set(unpacked(work, packed)) == {b".", b"a", b"b"}


def test_19_zeros_behind_the_end_are_kept(work):
    unpacked(work, tar(member(b"a")) + bytes(9000))


def test_archive_of_nothing(work):
    assert set(unpacked(work, END)) == {b"."}


def test_21_pax_size_path_mtime_are_honoured(work):
    name = b"long/" + b"n" * 200
    tree = unpacked(work, tar(
        pax(raw=record(b"path", name) + record(b"size", b"5") + record(b"mtime", b"1234.99")),
        header(b"short", size=0) + tars.pad(b"12345"),
        member(b"next")))
    assert content_of(work, name) == b"12345"
    assert tree[name].mtime == 1234
    assert b"next" in tree and b"short" not in tree


@pytest.mark.parametrize("mtime, served", [
    (b"-1", 0), (b"-0.5", 0), (b"-99999999999", 0), (b"0.9999999999", 0), (b"1.5", 1),
    (b"4294967295.9", 2**32 - 1), (b"4294967296", 2**32 - 1), (b"99999999999999999999", 2**32 - 1)])
def test_21_mtimes_are_floored_and_clamped(work, mtime, served):
    assert unpacked(work, tar(pax(mtime=mtime), member(b"f")))[b"f"].mtime == served


@pytest.mark.parametrize("mtime, served", [
    (tars.base256(-5, 12), 0), (tars.base256(2**40, 12), 2**32 - 1), (tars.base256(77, 12), 77)])
def test_21_binary_mtimes(work, mtime, served):
    assert unpacked(work, tar(member(b"f", mtime=mtime)))[b"f"].mtime == served


def test_21_global_pax_header_disturbs_nothing(work):
    tree = unpacked(work, tar(pax(kind=b"g", globexthdr=b"50"), member(b"a", mtime=9),
                              pax(mtime=b"60"), member(b"b"), pax(kind=b"g", comment=b"x"),
                              member(b"c", mtime=8)))
    assert [tree[n].mtime for n in (b"a", b"b", b"c")] == [9, 60, 8]


def test_21_comment_in_global_header_is_ignored(work):
    # "git archive" writes one.
    assert b"a" in unpacked(work, tar(pax(kind=b"g", comment=b"0" * 40), member(b"a")))


def test_21_gnu_long_names(work):
    name, target = b"n" * 150, b"t" * 150
    tree = unpacked(work, tar(
        tars.gnu_long(b"L", name), member(b"cut", b"1"),
        tars.gnu_long(b"K", target), tars.gnu_long(b"L", b"l" * 150),
        member(b"cut", kind=tars.SYMLINK, link=b"cut")))
    assert tree[name].size == 1
    assert tree[b"l" * 150].target == target


def test_old_tar_without_magic_and_prefix_field(work):
    tree = unpacked(work, tar(member(b"old", b"1", magic=bytes(8), kind=b"\0"),
                              member(b"name", b"2", prefix=b"some/dir")))
    assert tree[b"old"].kind == "file" and tree[b"some/dir/name"].size == 1


def test_12_unknown_type_is_a_regular_file(work):
    """As POSIX asks for."""
    tree = unpacked(work, tar(member(b"f", b"data", kind=b"Z")))
    assert (tree[b"f"].kind, tree[b"f"].size) == ("file", 4)


def test_22_sparse_file_on_disk_is_exact(work):
    """Packing a directory: holes read as zeros, and the content is what counts."""
    source = work / "d"
    source.mkdir()
    with open(source / "holes", "wb") as stream:
        stream.truncate(3 << 20)
        stream.seek(1 << 20)
        stream.write(b"island")
    thaw("pack", source, "--quiet")
    assert thaw("cat", work / "d.thaw", "holes").out == (source / "holes").read_bytes()
