# SPDX-License-Identifier: Apache-2.0
"""thaw stat: what a worker has done, in numbers that add up."""
import json
import os
import re

import pytest

from support.command import IO, REFUSED, USAGE, run, thaw, thaw_fails
from support.mounts import children, mounted
from support.tars import directory, member, symlink, tar
from support.warm import flip, info, stat

pytestmark = pytest.mark.fuse

DATA = os.urandom(300000)


@pytest.fixture
def packed(work):
    (work / "x.tar").write_bytes(tar(directory(b"d/"), member(b"d/file", DATA),
                                     member(b"d/other", b"other"), symlink(b"link", b"d/file")))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def test_counts_what_is_asked(packed, work):
    with mounted(packed, work / "mnt") as mount:
        fresh = stat(mount.path)
        assert fresh["identity"] == info(packed)["identity"]
        assert fresh["keeper"] == mount.process.pid
        assert fresh["worker"] in children(mount.process.pid)
        assert fresh["restarts"] == fresh["refused"] == 0 and fresh["last_death"] is None
        assert fresh["requests"]["ioctl"] == 1 and "read" not in fresh["requests"]
        assert fresh["bytes_read"] == fresh["bytes_decompressed"] == fresh["cache_misses"] == 0
        assert fresh["warm_state"] == "none" and fresh["warm_pages_total"] == 0

        assert (mount.path / "d" / "file").read_bytes() == DATA
        os.readlink(mount.path / "link")
        assert not (mount.path / "missing").exists()
        after = stat(mount.path)
        requests = after["requests"]
        assert requests["lookup"] == fresh["requests"].get("lookup", 0) + 4
        assert requests["readlink"] == 1 and requests["read"] >= 1
        # Whole pages of the file, once; frames are decompressed once, and whole.
        assert after["bytes_read"] == len(DATA)
        assert len(DATA) <= after["bytes_decompressed"] <= info(packed)["stream_size"]
        assert 0 < after["bytes_stored"] <= info(packed)["stream_stored"]
        assert 1 <= after["cache_misses"] <= info(packed)["frames"]
        assert after["requests_total"] == sum(requests.values())
        # All but the one that asks, which is not answered yet, and those without an answer.
        assert requests.get("forget", 0) == 0
        assert sum(after["latency_us_log2"]) == after["requests_total"] - 1

        # The kernel has it all now, what is missing too.
        assert (mount.path / "d" / "file").read_bytes() == DATA
        assert not (mount.path / "missing").exists()
        again = stat(mount.path)["requests"]
        assert {k: v for k, v in again.items() if k not in ("ioctl", "flush", "getattr")} == \
            {k: v for k, v in requests.items() if k not in ("ioctl", "flush", "getattr")}


def test_any_directory_of_the_mount(packed, work):
    with mounted(packed, work / "mnt") as mount:
        assert stat(mount.path / "d")["identity"] == stat(mount.path)["identity"]
        (work / "link").symlink_to(mount.path / "d")
        assert stat(work / "link")["identity"] == stat(mount.path)["identity"]
        thaw_fails(IO, "directory", "stat", mount.path / "d" / "file")


def test_errors_are_counted(packed, work):
    flip(packed, info(packed)["stream_stored"] // 2)
    with mounted(packed, work / "mnt") as mount:
        with pytest.raises(OSError):
            (mount.path / "d" / "file").read_bytes()
        assert stat(mount.path)["frame_errors"] >= 1


def test_text(packed, work):
    with mounted(packed, work / "mnt") as mount:
        (mount.path / "d" / "other").read_bytes()
        text = thaw("stat", mount.path).text
        assert f"identity   sha256:{info(packed)['identity']}\n" in text
        assert re.search(r"^requests   \d+ \(half within \d+ us, 99 % within \d+ us\)$", text, re.M)
        assert re.search(r"^  lookup +2$", text, re.M) and re.search(r"^  read +1$", text, re.M)
        assert text.endswith("warmer     none\n")
        assert all(len(line) <= 120 and line == line.rstrip() for line in text.splitlines())


def test_what_is_no_mount_of_thaws(packed, work):
    for place in (work, "/", "/proc", "/dev"):
        thaw_fails(REFUSED, "not a mount", "stat", place)
    thaw_fails(IO, "no such", "stat", work / "missing")
    thaw_fails(IO, "directory", "stat", packed)
    thaw_fails(USAGE, "one directory", "stat")
    thaw_fails(USAGE, "one directory", "stat", work, work)
    with mounted(packed, work / "mnt") as mount:
        mount.kill_all()
        thaw_fails(IO, "not connected|abort", "stat", mount.path)


@pytest.mark.root
def test_through_an_overlay(packed, work):
    """A view answers for the mount below it; an overlay over something else does not."""
    for name in ("view", "empty", "plain"):
        (work / name).mkdir()
    with mounted(packed, work / "mnt") as mount:
        run("mount", "-t", "overlay", "-o", f"lowerdir={mount.path}:{work / 'empty'}", "none",
            work / "view")
        try:
            assert stat(work / "view")["keeper"] == mount.process.pid
        finally:
            run("umount", work / "view")
        run("mount", "-t", "overlay", "-o", f"lowerdir={work / 'plain'}:{work / 'empty'}", "none",
            work / "view")
        try:
            thaw_fails(REFUSED, "not a mount", "stat", work / "view")
        finally:
            run("umount", work / "view")


def test_as_an_ordinary_user(packed, work, user):
    """Root's mounts are open to all, and so is this; a user's is not even root's."""
    with mounted(packed, work / "mnt") as mount:
        assert json.loads(thaw("stat", "--json", mount.path, user=user).out)["keeper"] == \
            mount.process.pid
    os.chown(work, user.pw_uid, user.pw_gid)
    with mounted(packed, work / "own", user=user) as mount:
        assert json.loads(thaw("stat", "--json", mount.path, user=user).out)["keeper"] == \
            mount.process.pid
        thaw_fails(IO, "denied", "stat", mount.path)
