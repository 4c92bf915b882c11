# SPDX-License-Identifier: Apache-2.0
"""Keeper and worker: whoever is killed, stopped or replaced, requests are answered."""
import contextlib
import errno
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from support import command
from support.background import Background
from support.command import environment, run, thaw, thaw_fails
from support.mounts import background, children, kill, mount_at, mounted, processes, wait_until
from support.tars import directory, member, tar
from support.warm import IMPORT, ended, image, process_state, require_views, stat

pytestmark = pytest.mark.fuse

DATA = random.Random(5).randbytes(1 << 20)


@pytest.fixture
def packed(work):
    (work / "x.tar").write_bytes(tar(directory(b"d/"), member(b"d/file", DATA),
                                     member(b"other", b"other")))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def workers(keeper):
    """Of the keeper's children, those that hold the device (the warmer's, too, while it lives)."""
    def holds(pid):
        with contextlib.suppress(OSError):
            return "/dev/fuse" in (os.readlink(entry.path)
                                   for entry in os.scandir(f"/proc/{pid}/fd"))
        return False

    return [pid for pid in children(keeper) if holds(pid)]


def serving(keeper):
    """Workers that have begun to serve: they have more than one thread."""
    def threads(pid):
        with contextlib.suppress(OSError):
            return len(os.listdir(f"/proc/{pid}/task"))
        return 0

    return [pid for pid in workers(keeper) if threads(pid) > 1]


def next_worker(keeper, old=None):
    return wait_until(lambda: next((pid for pid in workers(keeper) if pid != old), None),
                      "another worker")


def start_cat(path, **options):
    return subprocess.Popen(["cat", path], env=environment(), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def status(pid):
    return dict(line.split(":\t", 1) for line in
                pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


# -- killed

class Killer(Background):
    """Kills one worker after the other, each a moment after it has begun to serve."""

    def __init__(self, keeper, pause=0.02):
        super().__init__()
        self.keeper, self.pause = keeper, pause
        self.kills = 0

    def run(self):
        last = None
        while not self.finished.wait(0.002):
            pid = next((pid for pid in serving(self.keeper) if pid != last), None)
            if pid is not None:
                self.finished.wait(self.pause)
                kill(pid)
                last = pid
                self.kills += 1


def test_import_while_workers_are_killed(work):
    require_views()  # to make the image
    path = image("small", work)
    kills = 0
    for _ in range(4):
        with mounted(path, work / "mnt", "--warm=none") as mount:
            wait_until(lambda m=mount: workers(m.process.pid), "the first worker")
            with Killer(mount.process.pid) as killer:
                run(mount.path / "bin" / "python", "-B", "-c", IMPORT)
            after = stat(mount.path)
            # The last one killed may not have been replaced yet, but then that was not a restart.
            assert killer.kills - 1 <= after["restarts"] <= killer.kills
            assert after["refused"] == 0 and "signal 9" in after["last_death"]
            kills += killer.kills
    assert kills >= 4


def test_bytes_are_right_while_workers_are_killed(work):
    """Every byte, by several readers at once."""
    generator = random.Random(11)
    files = {b"%02d" % i: generator.randbytes(generator.randrange(1 << 18)) for i in range(60)}
    (work / "x.tar").write_bytes(tar(*(member(name, data) for name, data in files.items())))
    thaw("pack", work / "x.tar", "--quiet", "--frame-size=16K")
    script = ("import pathlib, sys\n"
              "for name in sys.argv[3:]:\n"
              "    wanted = pathlib.Path(sys.argv[2], name).read_bytes()\n"
              "    assert pathlib.Path(sys.argv[1], name).read_bytes() == wanted, name\n")
    (work / "plain").mkdir()
    for name, data in files.items():
        (work / "plain" / name.decode()).write_bytes(data)
    names = [name.decode() for name in files]
    with mounted(work / "x.thaw", work / "mnt", "--cache-size=64K") as mount:
        wait_until(lambda: workers(mount.process.pid), "the first worker")
        with Killer(mount.process.pid, 0.01) as killer:
            readers = []
            for part in range(3):
                order = generator.sample(names, len(names))
                readers.append(subprocess.Popen(
                    [sys.executable, "-I", "-c", script, mount.path, work / "plain", *order],
                    env=environment(), stderr=subprocess.PIPE))
            for reader in readers:
                _, err = reader.communicate(timeout=60)
                assert reader.returncode == 0, err
        assert killer.kills >= 2 and stat(mount.path)["refused"] == 0


def test_request_that_nobody_took(work, packed):
    with mounted(packed, work / "mnt") as mount:
        worker = mount.worker
        os.kill(worker, signal.SIGSTOP)
        reader = start_cat(mount.path / "d" / "file")
        wait_until(lambda: process_state(reader.pid) in "DS" and process_state(worker) == "T",
                   "the reader to wait")
        os.kill(worker, signal.SIGKILL)
        out, err = reader.communicate(timeout=20)
        assert (reader.returncode, err) == (0, b"") and out == DATA
        after = stat(mount.path)
        assert (after["restarts"], after["refused"]) == (1, 0)
        assert after["last_death"] == "was killed by signal 9 (Killed)"
        # Requests of both workers are counted.
        assert after["requests"]["read"] >= 1 and after["requests"]["init"] == 1


def test_worker_that_is_told_to_end_is_replaced(work, packed):
    with mounted(packed, work / "mnt") as mount:
        for count in range(1, 4):
            worker = mount.worker
            os.kill(worker, signal.SIGTERM)
            next_worker(mount.process.pid, worker)
            after = stat(mount.path)
            assert (after["restarts"], after["last_death"]) == (count, None)
        assert (mount.path / "other").read_bytes() == b"other"
    assert mount.log == ""


def test_unmounted_while_there_is_no_worker(work, packed):
    with mounted(packed, work / "mnt") as mount:
        keeper = mount.process.pid
        worker = mount.worker
        os.kill(worker, signal.SIGKILL)
        thaw("umount", mount.path)
        mount.wait_end(0)
        assert not workers(keeper)


# Any signal but SIGKILL counts as the worker's own doing. This one leaves no core, whose
# writing would wait for the thread that waits for storage, and no worker holds it back.
CRASH = signal.SIGUSR2


# -- in flight: the image lies on a mount whose own worker is stopped

@pytest.fixture
def nested(work):
    """
    An image inside an image: while the outer worker is stopped, reading from the
    inner image takes as long as we like. Yields (outer, inner mount options).
    """
    (work / "in.tar").write_bytes(tar(
        *(member(b"f%d" % i, data) for i, data in enumerate(contents())),
        member(b"small", b"small")))
    thaw("pack", work / "in.tar", "--quiet", "-o", work / "in.thaw")
    (work / "tree").mkdir()
    shutil.move(work / "in.thaw", work / "tree" / "in.thaw")
    thaw("pack", work / "tree", "--quiet", "-o", work / "out.thaw")
    with mounted(work / "out.thaw", work / "outer") as outer:
        yield outer


def in_flight(outer, mount, name):
    """A reader, whose only request a worker has taken and cannot answer yet."""
    worker = mount.worker
    os.kill(outer.worker, signal.SIGSTOP)
    # Past the page cache: it would read ahead, and quietly ask again for what was refused.
    reader = subprocess.Popen(["dd", f"if={mount.path / name}", "iflag=direct", "bs=64K", "count=1",
                               "status=none"], env=environment(), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until(lambda: "D" in [process_state_of_thread(worker, thread)
                               for thread in os.listdir(f"/proc/{worker}/task")],
               "the worker to wait for storage")
    return reader, worker


def contents():
    """Of the nested image's files."""
    generator = random.Random(3)
    return [generator.randbytes(2 << 20) for _ in range(3)]


def process_state_of_thread(pid, thread):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(
            ")")[2].split()[0]
    return "X"


def stopped(outer):
    return [pid for pid in workers(outer.process.pid) if process_state(pid) == "T"]


def resume(outer):
    for pid in stopped(outer):
        os.kill(pid, signal.SIGCONT)


def serves_again(keeper, old):
    """A worker that is back at what its predecessor left: it waits for storage, too."""
    def look():
        for pid in workers(keeper):
            if pid != old and process_state(pid) == "D" and status(pid)["Seccomp"] != "0" or \
                    command.sanitized() and pid != old and process_state(pid) == "D":
                return pid
        return None

    return wait_until(look, "the next worker to serve it again")


@pytest.mark.parametrize("ending, times", [(CRASH, 1), (signal.SIGKILL, 3)])
def test_request_in_flight_is_served_by_the_next_worker(work, nested, ending, times):
    with mounted(nested.path / "in.thaw", work / "mnt") as mount:
        try:
            reader, worker = in_flight(nested, mount, "f1")
            for _ in range(times):
                os.kill(worker, ending)
                worker = serves_again(mount.process.pid, worker)
        finally:
            resume(nested)
        out, err = reader.communicate(timeout=20)
        assert (reader.returncode, err) == (0, b"") and out == contents()[1][:65536]
        after = stat(mount.path)
        assert (after["restarts"], after["refused"]) == (times, 0)


@pytest.mark.parametrize("ending, times", [(CRASH, 2), (signal.SIGKILL, 4)])
def test_request_that_workers_died_of(work, nested, ending, times):
    """It is refused, and nothing else is. What is killed from outside counts for less."""
    with mounted(nested.path / "in.thaw", work / "mnt") as mount:
        try:
            reader, worker = in_flight(nested, mount, "f1")
            for _ in range(times - 1):
                os.kill(worker, ending)
                worker = serves_again(mount.process.pid, worker)
            os.kill(worker, ending)
            # The keeper answers by itself: storage does not.
            out, err = reader.communicate(timeout=20)
        finally:
            resume(nested)
        assert reader.returncode == 1 and out == b"" and b"Input/output error" in err, err
        after = stat(mount.path)
        assert (after["restarts"], after["refused"]) == (times, 1)
        assert f"signal {int(ending)} " in after["last_death"]
        for i, content in enumerate(contents()):
            assert (mount.path / f"f{i}").read_bytes() == content
        assert (mount.path / "small").read_bytes() == b"small"
        refused, = mount.lines_about("I/O error")
        assert "in.thaw" in refused


def test_waiting_for_storage_is_not_hanging(work, nested):
    with mounted(nested.path / "in.thaw", work / "mnt", "--hang-limit=1") as mount:
        try:
            reader, worker = in_flight(nested, mount, "f1")
            with pytest.raises(subprocess.TimeoutExpired):
                reader.wait(2.5)
            assert workers(mount.process.pid) == [worker]
        finally:
            resume(nested)
        assert reader.communicate(timeout=20)[0] == contents()[1][:65536]
        assert stat(mount.path)["restarts"] == 0


# -- hung

def test_hung_worker_is_replaced(work, packed):
    with mounted(packed, work / "mnt", "--hang-limit=1") as mount:
        worker = mount.worker
        os.kill(worker, signal.SIGSTOP)
        assert (mount.path / "d" / "file").read_bytes() == DATA
        after = stat(mount.path)
        assert after["worker"] != worker and after["restarts"] == 1
        assert after["last_death"].startswith("hung: ")
        assert mount.lines_about("hung: ")


def test_idle_worker_is_left_alone(work, packed):
    """Stopped, but nobody wants anything of it. And its keeper sleeps."""
    with mounted(packed, work / "mnt", "--hang-limit=1") as mount:
        worker = mount.worker
        keeper = mount.process.pid
        os.kill(worker, signal.SIGSTOP)

        def wakeups():
            return status(keeper)["voluntary_ctxt_switches"]

        def sleeps():
            before = wakeups()
            with contextlib.suppress(TimeoutError):
                signal.sigtimedwait([], 0.7)  # four times as long as between two looks
            return wakeups() == before

        wait_until(sleeps, "the keeper to sleep")
        assert process_state(worker) == "T" and children(keeper).count(worker) == 1
        os.kill(worker, signal.SIGCONT)
        assert (mount.path / "other").read_bytes() == b"other"
        assert mount.worker == worker


# -- a worker that cannot live

@pytest.mark.root
def test_no_worker_lives(work, packed):
    with mounted(packed, work / "mnt") as mount:
        assert (mount.path / "other").read_bytes() == b"other"
        keeper, worker = mount.process.pid, mount.worker
        # No room for the stacks of threads.
        limits = resource.prlimit(keeper, resource.RLIMIT_AS)
        size = int(status(keeper)["VmSize"].split()[0]) << 10
        resource.prlimit(keeper, resource.RLIMIT_AS, (size + (1 << 20), limits[1]))
        os.kill(worker, signal.SIGKILL)
        # Nobody is kept waiting for ever.
        with pytest.raises(OSError) as caught:
            (mount.path / "d" / "file").read_bytes()
        assert caught.value.errno == errno.EIO
        assert mount.lines_about("the worker could not serve: ")
        assert len(mount.lines_about("no worker lives")) == 1
        assert len(mount.lines_about("could not serve")) == 1, "said once, not with each try"
        # It never gives up.
        resource.prlimit(keeper, resource.RLIMIT_AS, limits)

        def read():
            with contextlib.suppress(OSError):
                return (mount.path / "d" / "file").read_bytes()
            return None

        assert wait_until(read, "a worker that lives") == DATA
        after = stat(mount.path)
        assert after["refused"] >= 1 and after["last_death"].startswith("could not serve: ")


def test_killing_idle_workers_delays_nobody(work, packed):
    """Deaths that nobody waited for say nothing about the next request."""
    with mounted(packed, work / "mnt") as mount:
        worker = None
        for _ in range(13):  # pauses between them double from the sixth on
            worker = wait_until(lambda old=worker: next(
                (pid for pid in serving(mount.process.pid) if pid != old), None), "a worker")
            kill(worker)
            wait_until(lambda: ended(worker), "it to end")
        assert (mount.path / "d" / "file").read_bytes() == DATA
        assert stat(mount.path)["refused"] == 0


# -- the keeper

def test_worker_serves_on_without_its_keeper(work, packed):
    with mounted(packed, work / "mnt") as mount:
        worker = mount.worker
        mount.process.kill()
        mount.process.wait(10)
        assert (mount.path / "d" / "file").read_bytes() == DATA
        after = stat(mount.path)
        assert (after["keeper"], after["worker"]) == (0, worker)
        assert "keeper     none" in thaw("stat", mount.path).text
        thaw("umount", mount.path)
        wait_until(lambda: ended(worker), "the worker to end")


def test_both_dead(work, packed):
    with mounted(packed, work / "mnt") as mount:
        mount.kill_all()
        with pytest.raises(OSError) as caught:
            os.stat(mount.path / "other")
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        thaw("umount", mount.path)
        assert mount_at(mount.path) is None


@pytest.mark.root
@pytest.mark.parametrize("victim", ["worker", "keeper"])
def test_background(work, packed, victim):
    with background(packed, work / "mnt") as place:
        before = stat(place)
        os.kill(before[victim], signal.SIGKILL)
        wait_until(lambda: ended(before[victim]), "it to end")
        assert (place / "d" / "file").read_bytes() == DATA
        assert stat(place)["restarts"] == (victim == "worker")


@pytest.mark.parametrize("victim", ["worker", "keeper"])
def test_ordinary_user(work, packed, user, victim):
    """Through fusermount3, and without a right to anything."""
    os.chown(work, user.pw_uid, user.pw_gid)
    with mounted(packed, work / "mnt", user=user) as mount:
        before = stat(mount.path, user=user)
        os.kill(before[victim], signal.SIGKILL)
        wait_until(lambda: ended(before[victim]), "it to end")
        assert run("cat", mount.path / "d" / "file", user=user).out == DATA
        assert stat(mount.path, user=user)["restarts"] == (victim == "worker")
        if victim == "keeper":
            thaw("umount", mount.path, user=user)
    wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")


# -- handing over

def upgrade(path, content=None):
    """As package managers do: another file of that name."""
    new = path.with_name("new")
    if content is None:
        shutil.copy2(path, new)
    else:
        new.write_text(content)
        new.chmod(0o755)
    new.rename(path)


def replaced(mount, worker):
    found = stat(mount.path)
    return found if found["worker"] != worker else None


def test_handing_over(work, packed, own_binary):
    with mounted(packed, work / "mnt") as mount:
        keeper = mount.process.pid
        with open(mount.path / "d" / "file", "rb") as stream:
            stream.read(1000)
            for count in range(1, 4):
                before = stat(mount.path)
                inode = os.stat(own_binary).st_ino
                upgrade(own_binary)
                assert os.stat(own_binary).st_ino != inode
                assert os.readlink(f"/proc/{keeper}/exe").endswith(" (deleted)")
                mount.process.send_signal(signal.SIGHUP)
                after = wait_until(lambda: replaced(mount, before["worker"]), "another worker")
                assert os.readlink(f"/proc/{keeper}/exe") == str(own_binary)
                assert os.readlink(f"/proc/{after['worker']}/exe") == str(own_binary)
                assert after["worker"] in children(keeper) and after["keeper"] == keeper
                assert (after["restarts"], after["refused"]) == (count, 0)
                assert after["last_death"] is None
                # Counted on, in the same memory.
                assert after["requests_total"] > before["requests_total"]
            assert stream.read() == DATA[1000:]
        # And it is a keeper like any other.
        os.kill(mount.worker, signal.SIGKILL)
        assert (mount.path / "other").read_bytes() == b"other"
        assert len(mount.lines_about("handing over")) == 3
        mount.terminate()


def test_handing_over_under_load(work, packed, own_binary):
    script = ('cd "$1" && while test ! -e "$2"; do cat d/file other >/dev/null || exit 1; '
              "ls d nothing >/dev/null 2>&1; done; exit 0")
    with mounted(packed, work / "mnt", "-o", "noatime") as mount:
        readers = [subprocess.Popen(["sh", "-c", script, "sh", mount.path, work / "stop"],
                                    env=environment()) for _ in range(3)]
        try:
            for _ in range(8):
                worker = mount.worker
                mount.process.send_signal(signal.SIGHUP)
                wait_until(lambda old=worker: replaced(mount, old), "another worker")
        finally:
            (work / "stop").touch()
            codes = [reader.wait(20) for reader in readers]
        assert codes == [0, 0, 0]
        assert stat(mount.path)["refused"] == 0


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 1\n", "no program", "#!/bin/sh\nexit 0\n"])
def test_handing_over_to_what_is_no_keeper(work, packed, own_binary, content):
    """It is asked first, and nothing changes."""
    with mounted(packed, work / "mnt") as mount:
        monitor = mount.worker
        original = own_binary.with_name("original")
        shutil.copy2(own_binary, original)
        os.environ["THAW_TEST_BINARY"] = str(original)
        upgrade(own_binary, content)
        mount.process.send_signal(signal.SIGHUP)
        wait_until(lambda: mount.lines_about("not handed over"), "it to say so")
        assert mount.worker == monitor
        assert (mount.path / "d" / "file").read_bytes() == DATA
        # Still the keeper that it was.
        os.kill(monitor, signal.SIGKILL)
        assert (mount.path / "other").read_bytes() == b"other"
        assert stat(mount.path)["restarts"] == 1


# -- apart from any command: as the node service has them

@contextlib.contextmanager
def kept(packed, work):
    (work / "mnt").mkdir()
    (work / "state").mkdir()
    pid = int(thaw("keep", "start", packed, work / "mnt", work / "state").out)
    try:
        yield work / "mnt", work / "state", pid
        if mount_at(work / "mnt"):
            thaw("umount", work / "mnt")
        wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    finally:
        if mount_at(work / "mnt"):
            thaw("umount", "--lazy", work / "mnt", code=None)


def test_kept(work, packed):
    with kept(packed, work) as (place, state, keeper):
        found = stat(place)
        assert found["keeper"] == keeper and found["worker"] in children(keeper)
        assert os.path.exists(f"/proc/{keeper}/exe")
        assert status(keeper)["PPid"] == "1" or int(status(keeper)["PPid"]) != os.getpid()
        other = packed.rename(work / "other.thaw")
        thaw_fails(command.IO, "exists", "keep", "start", other, place, state)
        other.unlink()  # it is held open
        os.kill(found["worker"], signal.SIGKILL)
        assert (place / "d" / "file").read_bytes() == DATA
        thaw_fails(command.IO, "has a keeper", "keep", "adopt", state)


def test_adopted(work, packed):
    with kept(packed, work) as (place, state, keeper):
        packed.unlink()
        for _ in range(3):
            before = stat(place)
            os.kill(keeper, signal.SIGKILL)
            wait_until(lambda: stat(place)["keeper"] == 0, "the keeper's end to be seen")
            assert (place / "other").read_bytes() == b"other"
            keeper = int(thaw("keep", "adopt", state).out)
            after = stat(place)
            # The worker did not notice.
            assert (after["keeper"], after["worker"]) == (keeper, before["worker"])
            os.kill(after["worker"], signal.SIGKILL)
            assert len((place / "d" / "file").read_bytes()) == len(DATA)
            after = stat(place)
            assert after["restarts"] == before["restarts"] + 1
            assert after["worker"] in children(keeper)


def test_adopted_keeper_hands_over(work, packed, own_binary):
    with kept(packed, work) as (place, state, keeper):
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: stat(place)["keeper"] == 0, "the keeper's end to be seen")
        keeper = int(thaw("keep", "adopt", state).out)
        worker = stat(place)["worker"]
        upgrade(own_binary)
        os.kill(keeper, signal.SIGHUP)
        wait_until(lambda: stat(place)["worker"] != worker, "another worker")
        assert os.readlink(f"/proc/{stat(place)['worker']}/exe") == str(own_binary)
        assert (place / "d" / "file").read_bytes() == DATA


def test_nothing_to_adopt(work, packed):
    with kept(packed, work) as (place, state, keeper):
        worker = stat(place)["worker"]
        for pid in (keeper, worker):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
        thaw_fails(command.IO, "worker has ended", "keep", "adopt", state)
        (state / "state").write_bytes(b"x" * 100)
        thaw_fails(command.DAMAGED, "no keeper's state", "keep", "adopt", state)
        (state / "state").unlink()
        thaw_fails(command.IO, "no keeper's state", "keep", "adopt", state)
        thaw("umount", place)


def test_what_cannot_be_kept(work, packed):
    (work / "mnt").mkdir()
    (work / "state").mkdir()
    thaw_fails(command.IO, "no such", "keep", "start", packed, work / "missing", work / "state")
    thaw_fails(command.IO, "no such", "keep", "start", work / "missing", work / "mnt", work / "state")
    thaw_fails(command.DAMAGED, "image", "keep", "start", work / "x.tar", work / "mnt", work / "state")
    thaw_fails(command.USAGE, "keepers", "keep")
    thaw_fails(command.USAGE, "descriptor", "keep", "check", "1", "2", "3")
    thaw_fails(command.IO, "state", "keep", "check", "7", "8", "9")
    assert os.listdir(work / "state") == [] and mount_at(work / "mnt") is None


# -- the sandbox

def test_sandbox(work, packed):
    with mounted(packed, work / "mnt") as mount:
        worker = mount.worker
        found = status(worker)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(found[name], 16) == 0, name
        assert found["NoNewPrivs"] == "1"
        assert found["Seccomp"] == ("0" if command.sanitized() else "2")
        assert "Max core file size        0" in pathlib.Path(f"/proc/{worker}/limits").read_text()
        targets = sorted(os.readlink(entry.path) for entry in os.scandir(f"/proc/{worker}/fd"))
        targets = [name for name in targets if not name.startswith(("pipe:", "socket:"))]
        allowed = {"/dev/null", "/dev/fuse", str(packed), str(mount.log_path)}
        assert set(targets) <= allowed and targets.count("/dev/fuse") == 2, targets
        # Its keeper is no such thing, and does not decode.
        assert status(mount.process.pid)["Seccomp"] == "0"


def test_sandbox_of_the_warmer(work):
    require_views()
    with mounted(image("slow", work), work / "mnt") as mount:
        def look():
            for pusher in children(mount.process.pid):
                for lister in children(pusher):
                    found = status(pusher), status(lister)
                    if all(one.get("NoNewPrivs") == "1" for one in found):
                        return found
            return None

        for found in wait_until(look, "the warmer to begin"):
            assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == 0
            assert found["Seccomp"] == ("0" if command.sanitized() else "2")
