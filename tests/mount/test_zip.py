# SPDX-License-Identifier: Apache-2.0
"""Zip archives as images: every kind of member that zips of Unix systems have."""
import os
import random
import stat
import subprocess
import time
import zipfile

import pytest

from support import command
from support.command import REFUSED, one_error_line, thaw, thaw_fails
from support.mounts import mounted
from support.trees import assert_same, content, random_tree, served, snapshot


def zip_tree(tree, path, compression=zipfile.ZIP_DEFLATED, mode="w", pipe=False):
    """
    As Python's zipfile packs a tree, with symlinks, and with directories named. Names
    are bytes without any encoding, as zip(1) has them: Python would write UTF-8.
    """
    class Pipe:
        def __init__(self, out):
            self.write, self.flush = out.write, out.flush

    with open(path, "rb+" if mode == "a" else "wb") as out:
        with zipfile.ZipFile(Pipe(out) if pipe else out, mode) as archive:
            for name, entry in sorted(snapshot(tree, contents=False).items(), reverse=True):
                if name == b".":
                    continue
                full = os.fsencode(tree) + b"/" + name
                status = os.lstat(full)
                stamp = time.gmtime(min(max(entry.mtime, 315532800), 4354819198))[:6]
                info = zipfile.ZipInfo("x", stamp)
                info.filename = info.orig_filename = Raw(name + b"/" * (entry.kind == "directory"))
                info.external_attr = (status.st_mode & 0xFFFF) << 16
                info.create_system = 3
                info.compress_type = compression
                if entry.kind == "directory":
                    archive.writestr(info, b"", zipfile.ZIP_STORED)
                elif entry.kind == "symlink":
                    archive.writestr(info, os.readlink(full))
                else:
                    with open(full, "rb") as file:
                        archive.writestr(info, file.read())


class Raw(str):
    """A name that is written as the bytes that it was made of."""

    def __new__(cls, name):
        self = super().__new__(cls, name.decode("latin-1"))
        self.raw = name
        return self

    def encode(self, *_):
        return self.raw

    def endswith(self, *arguments):
        return str(self).endswith(*arguments)


def expected(tree):
    """
    What an image of the zip serves: times from 1980 on, of two seconds; hard links are
    files of their own; setuid and the like are gone.
    """
    entries = served(snapshot(tree))
    for entry in entries.values():
        entry.mtime = min(max(entry.mtime, 315532800), 4354819198) // 2 * 2
        if entry.kind == "file":
            entry.nlink, entry.links = 1, ()
    return entries


@pytest.fixture
def tree(work):
    """Names that a zip can have: no backslash."""
    root = work / "tree"
    random_tree(root, 20260, 120)
    for path in sorted(snapshot(root, contents=False), reverse=True):
        if b"\\" in path and path != b".":
            full = os.fsencode(root) + b"/" + path
            if os.path.lexists(full):
                subprocess.run(["rm", "-rf", "--", full], check=True)
    assert len(snapshot(root)) > 60
    return root


@pytest.mark.fuse
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_mount_equals_tree(tree, work, compression):
    zip_tree(tree, work / "tree.zip", compression)
    thaw("pack", work / "tree.zip", "--quiet")
    with mounted(work / "tree.thaw", work / "mnt") as mount:
        actual = snapshot(mount.path)
    want = expected(tree)
    # The root is in no zip.
    actual[b"."].mtime = want[b"."].mtime
    assert_same(want, actual)


def test_same_stream_however_it_was_zipped(tree, work):
    """Stored, deflated, through a pipe, behind other bytes: one canonical tar."""
    streams = set()
    for name, options in {"a": {}, "b": {"compression": zipfile.ZIP_STORED}, "c": {"pipe": True},
                          "d": {"mode": "a"}}.items():
        path = work / f"{name}.zip"
        if name == "d":
            path.write_bytes(b"#!/bin/sh\nexit 1\n")
        zip_tree(tree, path, **options)
        thaw("pack", path, "--quiet")
        streams.add(subprocess.run(["zstd", "-dcq", path.with_suffix(".thaw")], check=True,
                                   stdout=subprocess.PIPE).stdout)
    assert len(streams) == 1


def test_execute_bits_and_links(work):
    with zipfile.ZipFile(work / "x.zip", "w") as archive:
        for name, mode, data in (("bin/python3", 0o100755, b"#!"), ("bin/python", 0o120777,
                                                                    b"python3"),
                                 ("data", 0o100600, b"x"), ("empty/", 0o040755, b"")):
            info = zipfile.ZipInfo(name, (2021, 12, 31, 23, 59, 58))
            info.external_attr = mode << 16
            archive.writestr(info, data)
    result = thaw("pack", work / "x.zip", "--json").text
    assert '"source_kind": "zip"' in result
    thaw("extract", work / "x.thaw", work / "tree", "--quiet")
    assert os.access(work / "tree/bin/python3", os.X_OK)
    assert os.readlink(work / "tree/bin/python") == "python3"
    assert not os.access(work / "tree/data", os.X_OK)
    assert stat.S_ISDIR((work / "tree/empty").stat().st_mode)
    # No zone in a zip's time: it is taken as UTC, wherever this runs.
    for zone in ("UTC", "America/New_York"):
        thaw("pack", work / "x.zip", "-o", work / f"{zone[:3]}.thaw", "--quiet",
             env=command.environment(TZ=zone))
    assert (work / "UTC.thaw").read_bytes() == (work / "Ame.thaw").read_bytes()
    assert (work / "tree/data").stat().st_mtime == 1640995198


def test_standard_input(work):
    with zipfile.ZipFile(work / "x.zip", "w") as archive:
        archive.writestr("file", "text")
    data = (work / "x.zip").read_bytes()
    result = thaw("pack", "-", "-o", work / "x.thaw", input=data, code=REFUSED)
    one_error_line(result, "zip archive cannot be read from a pipe")
    assert not (work / "x.thaw").exists()
    result = thaw("pack", "-", "-o", work / "x.thaw", input=b"#!/usr/bin/env python3\n" + data,
                  code=REFUSED)
    one_error_line(result, "PEX cannot be read from a pipe")
    assert not (work / "x.thaw").exists()
    with open(work / "x.zip", "rb") as stream:
        thaw("pack", "-", "-o", work / "x.thaw", "--quiet", stdin=stream)
    assert thaw("cat", work / "x.thaw", "file").out == b"text"


def test_tar_that_ends_as_a_zip(work):
    """What begins as a tar is one; its last bytes do not make it another thing."""
    with zipfile.ZipFile(work / "x.zip", "w") as archive:
        archive.writestr("inner", "text")
    (work / "tree").mkdir()
    (work / "x.zip").rename(work / "tree/last.zip")
    subprocess.run(["tar", "-C", work / "tree", "-cf", work / "x.tar", "last.zip"], check=True)
    with open(work / "x.tar", "rb+") as stream:
        stream.truncate(512 + (work / "tree/last.zip").stat().st_size)
    thaw("pack", work / "x.tar", "-o", work / "x.thaw", code=command.DAMAGED)
    thaw("pack", work / "tree", "-o", work / "x.thaw", "--quiet")
    assert thaw("ls", work / "x.thaw").text == "last.zip\n"


@pytest.mark.parametrize("count", [65535, 65536])
def test_as_many_members_as_fields_can_count(work, count):
    with zipfile.ZipFile(work / "x.zip", "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number:05}"), b"")
    result = thaw("pack", work / "x.zip", "--json", "--level", "1").text
    assert f'"files": {count}' in result
    thaw_fails(command.LIMIT, "entries|members", "pack", work / "x.zip", "-o", work / "y.thaw",
               "--max-entries", "1000")


def test_memory_is_bounded(work):
    """A member of 150 MB, and fifty of 1 MB, in less than that."""
    generator = random.Random(5)
    with zipfile.ZipFile(work / "x.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        with archive.open("large", "w") as out:
            piece = content(generator, 1 << 20)
            for _ in range(150):
                out.write(piece)
        for number in range(50):
            archive.writestr(f"{number}", piece)
    _, small = command.peak_memory("pack", "--level", "1", "--threads", "1", work / "x.zip",
                                   "-o", work / "x.thaw", code=0)
    if not command.sanitized():
        assert small < 100 << 20
