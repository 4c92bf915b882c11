# SPDX-License-Identifier: Apache-2.0
"""Mounting in tests: what is mounted, and mounts that never outlive their test."""
import contextlib
import ctypes
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import time

from .command import MARKER, check_sanitizers, environment, run, start, thaw

READY_TIMEOUT = 20
END_TIMEOUT = 20
MNT_DETACH = 2


class MountEntry:
    """A line of /proc/self/mountinfo."""

    def __init__(self, line):
        fields = line.split()
        rest = fields[fields.index(b"-") + 1:]
        self.device = fields[2].decode()
        self.path = unescape(fields[4])
        self.options = fields[5].decode().split(",")
        self.type = rest[0].decode()
        self.source = unescape(rest[1]).decode(errors="surrogateescape")
        self.super_options = rest[2].decode().split(",")


def unescape(text):
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m[1], 8)]), text)


def mount_table():
    return [MountEntry(line) for line in
            pathlib.Path("/proc/self/mountinfo").read_bytes().splitlines()]


def mounts_below(directory):
    prefix = os.fsencode(os.path.realpath(directory))
    return [m for m in mount_table() if m.path == prefix or m.path.startswith(prefix + b"/")]


def mount_at(directory):
    """The topmost mount exactly here, or None. Never touches the mount itself."""
    parent, name = os.path.split(os.path.abspath(directory))
    path = os.fsencode(os.path.join(os.path.realpath(parent), name))
    found = [m for m in mount_table() if m.path == path]
    return found[-1] if found else None


def detach(entry):
    """Take a leftover mount away, and end its FUSE connection, so that nothing hangs on it."""
    if entry.type.startswith("fuse"):
        minor = entry.device.split(":")[1]
        with contextlib.suppress(OSError):
            pathlib.Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")
    if os.geteuid() == 0:
        ctypes.CDLL(None, use_errno=True).umount2(entry.path, MNT_DETACH)
    else:
        subprocess.run(["fusermount3", "-u", "-z", "--", entry.path], timeout=10,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def processes(marker):
    """Live processes that carry this marker in their environment: {pid: command line}."""
    found = {}
    needle = f"{MARKER}={marker}".encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            base = pathlib.Path(entry.path)
            if needle not in (base / "environ").read_bytes().split(b"\0"):
                continue
            state = (base / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                found[int(entry.name)] = (base / "cmdline").read_bytes().replace(
                    b"\0", b" ").decode(errors="replace").strip()
    return found


def why_no_fuse():
    """A reason why mounts cannot be tested here, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        # An ordinary user may lack access that the setuid fusermount3 has.
        if os.geteuid() == 0 or not os.path.exists("/dev/fuse"):
            return f"/dev/fuse cannot be used: {error.strerror}"
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        return "not root, and no fusermount3"
    if os.geteuid() == 0:
        status = pathlib.Path("/proc/self/status").read_text()
        if not int(re.search(r"CapEff:\s*([0-9a-f]+)", status)[1], 16) & 1 << 21:
            return "root without CAP_SYS_ADMIN"
    return None


def why_no_namespace():
    """A reason why a private mount namespace cannot be had, or None."""
    if os.geteuid() != 0:
        return "needs root"
    try:
        run("unshare", "-m", "true")
    except (AssertionError, OSError) as error:
        return f"no private mount namespace (unshare -m): {error}"
    return None


def ordinary_user():
    """Somebody who is not root, with an entry in the user database (fusermount3 wants one)."""
    for name in (1000, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(name) if isinstance(name, int) else pwd.getpwnam(name)
    return None


def wait_until(condition, what, timeout=END_TIMEOUT):
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(0.005)


def children(pid):
    try:
        return [int(child) for task in os.scandir(f"/proc/{pid}/task")
                for child in pathlib.Path(task.path, "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def descendants(pid):
    """All below a process, parents first."""
    return [p for child in children(pid) for p in (child, *descendants(child))]


def kill(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class Mount:
    """A mount whose keeper is in the foreground, and our child."""

    def __init__(self, image, path, process, log):
        self.image, self.path, self.process, self.log_path = image, path, process, log

    @property
    def log(self):
        return self.log_path.read_bytes().decode(errors="replace")

    def lines_about(self, word):
        return [line for line in self.log.splitlines() if word in line]

    @property
    def worker(self):
        """The process that serves now. Asked of the mount, so it does serve."""
        return json.loads(thaw("stat", "--json", self.path).out)["worker"]

    def kill_all(self):
        """The keeper first, or it would start another worker."""
        others = descendants(self.process.pid)
        self.process.kill()
        self.process.wait(END_TIMEOUT)
        for pid in others:
            kill(pid)

    def wait_ready(self):
        def ready():
            code = self.process.poll()
            assert code is None, f"thaw mount ended with {code}: {self.log}"
            return mount_at(self.path)

        wait_until(ready, f"the mount at {self.path}", READY_TIMEOUT)
        return self

    def wait_end(self, code=0):
        ended = self.process.wait(timeout=END_TIMEOUT)
        check_sanitizers(self.log_path.read_bytes(), f"the keeper of {self.path}")
        assert ended == code, f"the keeper ended with {ended}: {self.log}"
        wait_until(lambda: mount_at(self.path) is None, "the mount to vanish")

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        self.wait_end()


@contextlib.contextmanager
def mounted(image, directory, *options, user=None):
    """
    Mount image at directory (made if missing); the keeper must exit 0 when it
    is unmounted. A test that ends the keeper itself just does so.
    """
    directory = pathlib.Path(os.path.abspath(directory))
    if not directory.exists():
        directory.mkdir()
        if user is not None:
            os.chown(directory, user.pw_uid, user.pw_gid)
    log = directory.parent / (directory.name + ".log")
    with open(log, "wb") as stream:
        process = start("mount", "--foreground", *options, image, directory, user=user,
                        stdout=stream, stderr=stream)
    mount = Mount(image, directory, process, log)
    try:
        yield mount.wait_ready()
        if process.poll() is None:
            thaw("umount", directory, user=user)
        if process.returncode is None:
            mount.wait_end()
    finally:
        if process.poll() is None:
            mount.kill_all()
        for entry in mounts_below(directory):
            detach(entry)


@contextlib.contextmanager
def background(image, directory, *options, user=None):
    """Mount as users do: the command returns when the mount answers."""
    directory = pathlib.Path(directory)
    directory.mkdir(exist_ok=True)
    reports = directory.parent / (directory.name + ".sanitizer")
    env = environment()
    # Keeper and worker have no stderr of ours any more: reports go to files.
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        env[name] += f":log_path={reports}"
    thaw("mount", *options, image, directory, user=user, env=env)
    try:
        yield directory
        if mount_at(directory):
            thaw("umount", directory, user=user)
        wait_until(lambda: mount_at(directory) is None, "the mount to vanish")
    finally:
        for entry in mounts_below(directory):
            detach(entry)
    for path in directory.parent.glob(reports.name + "*"):
        raise AssertionError(f"sanitizer report: {path.read_text(errors='replace')}")
