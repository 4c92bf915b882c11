# SPDX-License-Identifier: Apache-2.0
"""Looking ahead: bytecode directories are listed with their packages, and nothing stays behind."""
import os
import signal

import pytest

from support.command import MARKER, thaw
from support.mounts import background, mount_at, mounted, processes, wait_until
from support.tars import directory, member, tar
from support.warm import children, ended, require_views, stat

pytestmark = pytest.mark.fuse

NAMES = ["m%02d.cpython-311.pyc" % i for i in range(40)]


@pytest.fixture
def packed(work):
    (work / "x.tar").write_bytes(tar(
        directory(b"pkg/"), member(b"pkg/m.py", b"x"), directory(b"pkg/__pycache__/"),
        *(member(b"pkg/__pycache__/" + name.encode(), b"y") for name in NAMES),
        directory(b"plain/"), member(b"plain/__pycache__", b"a file of that name")))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def listings(path):
    return stat(path)["requests"].get("readdirplus", 0)


def look_up_all(path):
    """Look-ups that finding every file of the bytecode directory takes."""
    before = stat(path)["requests"].get("lookup", 0)
    for name in NAMES:
        os.stat(path / "pkg" / "__pycache__" / name)
    return stat(path)["requests"].get("lookup", 0) - before


def test_bytecode_is_listed_with_its_package(work, packed):
    with mounted(packed, work / "mnt") as mount:
        assert look_up_all(mount.path) == len(NAMES) + 2  # the two directories, too
    with mounted(packed, work / "mnt") as mount:
        before = listings(mount.path)
        os.listdir(mount.path / "plain")
        own = listings(mount.path) - before  # of a directory without bytecode
        os.listdir(mount.path / "pkg")
        wait_until(lambda: listings(mount.path) >= before + 3 * own, "a listing that nobody made")
        assert look_up_all(mount.path) == 0
        assert listings(mount.path) == before + 3 * own


def test_nothing_is_looked_up_after_a_pause(work, packed):
    """The mount is let go of meanwhile, and found again."""
    with mounted(packed, work / "mnt") as mount:
        scout = scout_of(mount)
        wait_until(lambda: holds_no_mount(scout), "the mount to be let go of")
        os.listdir(mount.path / "pkg")
        wait_until(lambda: listings(mount.path) >= 4, "a listing that nobody made")
        assert look_up_all(mount.path) == 0


def scout_of(mount):
    worker = mount.worker  # which is asked: then all have begun
    scout, = [pid for pid in children(mount.process.pid) if pid != worker]
    return scout


def holds_no_mount(pid):
    targets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not any("fuse" in target for target in targets), targets
    return not any(target == "/" or target.endswith("/mnt") for target in targets)


def test_worker_ends_after_unmounting(work, packed):
    with background(packed, work / "mnt") as path:
        os.listdir(path / "pkg")
        thaw("umount", path)
        assert mount_at(path) is None
    wait_until(lambda: not processes(os.environ[MARKER]), "the worker to end")


def test_killed_scout(work, packed):
    with mounted(packed, work / "mnt") as mount:
        scout = scout_of(mount)
        os.listdir(mount.path / "pkg")
        os.kill(scout, signal.SIGKILL)
        wait_until(lambda: ended(scout), "the scout to end")
        assert look_up_all(mount.path) in range(len(NAMES) + 1)
        assert os.listdir(mount.path / "plain") == ["__pycache__"]
        wait_until(lambda: len(children(mount.process.pid)) == 1, "the scout to be reaped")


def test_killed_worker(work, packed):
    """The next one has the scout's attention too."""
    with mounted(packed, work / "mnt") as mount:
        worker = mount.worker
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: mount.worker != worker, "another worker")
        before = listings(mount.path)
        os.listdir(mount.path / "plain")
        own = listings(mount.path) - before
        os.listdir(mount.path / "pkg")
        wait_until(lambda: listings(mount.path) >= before + 3 * own, "a listing that nobody made")


def test_scout_ends_with_keeper_and_worker(work, packed):
    with mounted(packed, work / "mnt") as mount:
        scout = scout_of(mount)
        mount.kill_all()
        wait_until(lambda: ended(scout), "the scout to end")
        thaw("umount", mount.path)


def test_view_ends_with_its_command(work, packed):
    require_views()
    thaw("run", packed, "--", "sh", "-c", 'ls "$THAW_ENV/pkg"')
    wait_until(lambda: not processes(os.environ[MARKER]), "the worker to end")
