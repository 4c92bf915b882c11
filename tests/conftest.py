# SPDX-License-Identifier: Apache-2.0
"""
Rules for every test: a directory of its own, no mount, process or file left,
and an end even when a mount hangs.
"""
import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
import uuid

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from support import command, mounts  # noqa: E402

CLONE_NEWNS = 0x20000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19


def pytest_configure(config):
    """
    Clean up when told to end, as for Ctrl-C. As root, run in a mount namespace of our own, where it can be had: then not
    even a killed run leaves a mount, and nobody else sees any.
    """
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) == 0:
        # Fails in a plain chroot, whose root is no mount: then it is not ours, and stays so.
        os.environ["THAW_TEST_NAMESPACE"] = str(
            int(libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None) == 0))


def open_fuse_to_all(directory):
    """
    /dev/fuse is everybody's where udev runs; on a machine without, it is not,
    and mounting as an ordinary user could not be tested. In our namespace only.
    """
    status = os.stat("/dev/fuse")
    if status.st_mode & 0o006 == 0o006 or os.environ.get("THAW_TEST_NAMESPACE") != "1":
        return
    node = directory / "fuse"
    os.mknod(node, 0o666 | stat.S_IFCHR, status.st_rdev)
    node.chmod(0o666)
    ctypes.CDLL(None).mount(os.fsencode(node), b"/dev/fuse", None, MS_BIND, None)


# Longer than any timeout inside a test: only a hang gets here.
WATCHDOG_SECONDS = 180


@pytest.fixture(scope="session", autouse=True)
def session_directory():
    original = pathlib.Path(command.original_binary())
    if not os.access(original, os.X_OK):
        pytest.exit(f"no thaw at {original}: build it, or set THAW_BIN", returncode=4)
    # Short, since paths count against limits; 0755, since some tests run as another user.
    path = pathlib.Path(tempfile.mkdtemp(prefix="thaw-test-"))
    path.chmod(0o755)
    # A checkout may lie where another user cannot go.
    copy = path / "thaw"
    shutil.copy2(original, copy)
    copy.chmod(0o755)
    os.environ["THAW_TEST_BINARY"] = str(copy)
    if os.path.exists("/dev/fuse") and os.geteuid() == 0:
        open_fuse_to_all(path)
    yield path
    leftovers = mounts.mounts_below(path)
    for entry in reversed(leftovers):
        mounts.detach(entry)
    shutil.rmtree(path, ignore_errors=True)
    assert not leftovers, f"mounts left: {[m.path for m in leftovers]}"


class Watchdog(threading.Thread):
    """
    Ends what hangs. A read from a dead mount blocks this process in the
    kernel: aborting the connection and killing the worker from another
    thread makes it fail instead.
    """

    def __init__(self, directory, marker):
        super().__init__(daemon=True)
        self.directory, self.marker = directory, marker
        self.finished = threading.Event()
        self.fired = False

    def run(self):
        if self.finished.wait(WATCHDOG_SECONDS):
            return
        self.fired = True
        clear_away(self.directory, self.marker)


def clear_away(directory, marker):
    for pid in mounts.processes(marker):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for entry in reversed(mounts.mounts_below(directory)):
        mounts.detach(entry)


@pytest.fixture(autouse=True)
def work(session_directory, monkeypatch):
    """The test's own directory; afterwards no mount below it and no process may be left."""
    path = pathlib.Path(tempfile.mkdtemp(dir=session_directory))
    path.chmod(0o755)
    marker = uuid.uuid4().hex
    monkeypatch.setenv(command.MARKER, marker)
    watchdog = Watchdog(path, marker)
    watchdog.start()
    yield path
    watchdog.finished.set()
    left_mounts = mounts.mounts_below(path)
    deadline = time.monotonic() + 5
    while (left := mounts.processes(marker)) and not left_mounts and time.monotonic() < deadline:
        time.sleep(0.02)
    clear_away(path, marker)
    shutil.rmtree(path, ignore_errors=True)
    assert not watchdog.fired, f"hung for more than {WATCHDOG_SECONDS} s"
    assert not left_mounts, f"mounts left: {[m.path for m in left_mounts]}"
    assert not left, f"processes left: {left}"


@pytest.fixture(autouse=True)
def requirements(request):
    if request.node.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root")
    if request.node.get_closest_marker("fuse"):
        reason = mounts.why_no_fuse()
        if reason:
            pytest.skip(reason)


@pytest.fixture
def private_namespace():
    """A command prefix that runs the rest in a mount namespace of its own."""
    reason = mounts.why_no_namespace()
    if reason:
        pytest.skip(reason)
    return ["unshare", "-m"]


@pytest.fixture
def own_binary(work, monkeypatch):
    """A copy of thaw that can be replaced; services and commands run it."""
    path = work / "thaw-copy"
    shutil.copy2(command.binary(), path)
    monkeypatch.setenv("THAW_TEST_BINARY", str(path))
    return path


@pytest.fixture
def user():
    """Somebody who is not root, for tests run by root."""
    found = mounts.ordinary_user()
    if os.geteuid() != 0 or found is None:
        pytest.skip("needs root, and another user")
    if os.path.exists("/dev/fuse") and os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("/dev/fuse is closed to ordinary users")
    return found
