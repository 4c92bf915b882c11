# SPDX-License-Identifier: Apache-2.0
"""The warmer: what it spares, and that nothing ever waits for it, dead or alive."""
import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from support import command
from support.command import (IO, USAGE, binary, environment, run, start, thaw,
                             thaw_fails)
from support.mounts import mount_at, mounted, processes, wait_until
from support.warm import (IMPORT, children, ended, image, process_state, require_views, stat,
                          warm_sets)

pytestmark = pytest.mark.fuse


@pytest.fixture(autouse=True)
def views():
    require_views()  # to make the images


@contextlib.contextmanager
def background(path, place, *options):
    place.mkdir(exist_ok=True)
    thaw("mount", *options, path, place)
    try:
        yield place
    finally:
        thaw("umount", place)


def import_from(place):
    run(place / "bin" / "python", "-B", "-c", IMPORT)


def import_packages(place):
    """With this interpreter, which is not in the mount: only packages are read there."""
    site, = (place / "lib").glob("python3*/site-packages")
    script = f"import sys; sys.path.insert(0, {str(site)!r}); {IMPORT}; print(click.__file__)"
    assert run(sys.executable, "-I", "-B", "-c", script).text.startswith(str(place))


def between(before, after):
    """Requests by type, without those that asking takes."""
    asked = {"ioctl": 1}
    counts = {name: after["requests"].get(name, 0) - before["requests"].get(name, 0)
              - asked.get(name, 0) for name in after["requests"]}
    return {name: count for name, count in counts.items() if count}


def test_first_import_reads_nothing(work):
    path = image("small-warmed", work)
    total = warm_sets(path)["default"]["pages"]
    with background(path, work / "mnt", "--wait-warm") as place:
        before = stat(place)
        assert before["warm_state"] == "finished"
        assert before["warm_pages"] == before["warm_pages_total"] == total
        import_from(place)
        after = stat(place)
        assert after["requests"].get("read", 0) == 0 and after["bytes_read"] == 0
        assert after["warm_pages_read"] == after["warm_overtaken"] == 0
        # What is asked of every open file (TCGETS), and once of the mount.
        made = between(before, after)
        assert set(made) - {"ioctl"} <= {"open", "flush", "opendir", "statfs"}
        assert all(count == 1 for name, count in made.items() if name != "ioctl"), made
        # Without a set, the same import does read.
    with background(path, work / "mnt", "--warm=none") as place:
        import_from(place)
        after = stat(place)
        assert after["requests"]["read"] > 10 and after["bytes_read"] > 100000
        assert (after["warm_state"], after["warm_pages"], after["warm_pages_total"]) == ("none", 0, 0)


@pytest.mark.root
def test_further_view_makes_no_request(work):
    path = image("small-warmed", work)
    for name in ("one", "two", "empty"):
        (work / name).mkdir()
    with background(path, work / "mnt", "--wait-warm") as place:
        with contextlib.ExitStack() as stack:
            for name in ("one", "two"):
                run("mount", "-t", "overlay", "-o", f"lowerdir={place}:{work / 'empty'}", "none",
                    work / name)
                stack.callback(run, "umount", work / name)
                before = stat(place)
                import_from(work / name)
                import_packages(work / name)
                made = between(before, stat(place))
                if name == "two":
                    assert made == {}
            # And through the first again; asked there, the mount below answers.
            before = stat(work / "one")
            import_from(work / "one")
            assert between(before, stat(work / "one")) == {}


def test_two_sets(work):
    """The second one's pages wait for the second one's listing, not for the first's."""
    path = image("small", work)
    thaw("warm", path, "--name=a", "-c",
         'cat "$THAW_ENV"/lib/python3*/site-packages/*/*.py "$THAW_ENV/pyvenv.cfg" >/dev/null',
         "--name=b", "-c", 'cat "$THAW_ENV"/bin/[aA]ct* >/dev/null; '
         'for d in "$THAW_ENV"/lib/python3*/site-packages/*/*/; do cat "$d"/* 2>/dev/null; done; true')
    sets = warm_sets(path)
    for _ in range(3):
        with background(path, work / "mnt", "--wait-warm") as place:
            found = stat(place)
            assert found["warm_pages_total"] == sets["a"]["pages"] + sets["b"]["pages"]
            assert found["warm_pages"] == found["warm_pages_total"]
    with background(path, work / "mnt", "--wait-warm", "--warm=b") as place:
        found = stat(place)
        assert found["warm_pages"] == found["warm_pages_total"] == sets["b"]["pages"]


def test_choice(work):
    path = image("small-warmed", work)
    (work / "mnt").mkdir()
    for options in (["--warm=nonsense"], ["-o", "warm=nonsense"], ["--foreground", "--warm=x"]):
        result = thaw_fails(USAGE, "no warm set", "mount", *options, path, work / "mnt")
        assert result.out == b"" and mount_at(work / "mnt") is None
    thaw_fails(USAGE, "wait-warm", "mount", "--foreground", "--wait-warm", path, work / "mnt")
    for options, state in ((["-o", "warm=none,noatime"], "none"), (["--warm=all"], "finished"),
                           (["-o", "noatime,warm=default"], "finished")):
        with background(path, work / "mnt", "--wait-warm", *options) as place:
            assert stat(place)["warm_state"] == state
            if "-o" in options:
                assert "noatime" in mount_at(place).options
    # An image without any.
    with background(image("small", work), work / "mnt", "--wait-warm") as place:
        assert stat(place)["warm_state"] == "none"


def test_unmounting_is_never_refused(work):
    """Right after mounting the warmer is at work; that is nobody's use of the mount."""
    path = image("slow", work)
    (work / "mnt").mkdir()
    for _ in range(6):
        thaw("mount", path, work / "mnt")
        thaw("umount", work / "mnt")
        assert mount_at(work / "mnt") is None
    wait_until(lambda: not processes(os.environ[command.MARKER]), "workers and warmers to end")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_worker_ends_orderly_while_warming(work, ending):
    with mounted(image("slow", work), work / "mnt") as mount:
        warming(mount)
        mount.process.send_signal(ending)
        mount.wait_end(0)
    assert mount.log == ""
    wait_until(lambda: not processes(os.environ[command.MARKER]), "the warmer to end")


class Warming:
    """The three processes of a warmer at work."""

    def __init__(self, worker, guard, pusher, lister):
        self.worker, self.guard, self.pusher, self.lister = worker, guard, pusher, lister
        self.all = (worker, guard, pusher, lister)


def warming(mount):
    def look():
        worker = mount.process.pid
        for guard in children(worker):
            for pusher in children(guard):
                for lister in children(pusher):
                    return Warming(worker, guard, pusher, lister)
        return None

    return wait_until(look, "the warmer to begin")


@pytest.mark.parametrize("victim", ["guard", "pusher", "lister"])
def test_killed_warmer(work, victim):
    path = image("slow", work)
    with mounted(path, work / "mnt") as mount:
        found = warming(mount)
        os.kill(getattr(found, victim), signal.SIGKILL)
        for pid in (found.guard, found.pusher, found.lister):
            wait_until(lambda pid=pid: ended(pid), "the warmer to end")
        after = stat(mount.path)
        assert after["warm_state"] == "stopped"
        assert after["warm_pages"] < after["warm_pages_total"]
        assert (mount.path / "z" / "big").read_bytes() == bytes(range(256)) * 16384
        assert len(os.listdir(mount.path)) == 3001
        # Nobody is left behind, not even as a zombie.
        wait_until(lambda: children(mount.process.pid) == [], "the warmer to be reaped")


def gone(path, found):
    """Everything has ended, and the place can be used again."""
    for pid in found.all[1:]:
        wait_until(lambda pid=pid: ended(pid), f"process {pid} ({process_state(pid)}) to end", 10)
    with pytest.raises(OSError) as caught:
        os.stat(path / "never asked for")
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    thaw("umount", path)
    assert mount_at(path) is None


def test_killed_worker_while_the_warmer_waits_for_it(work):
    with mounted(image("slow", work), work / "mnt") as mount:
        found = warming(mount)
        os.kill(found.worker, signal.SIGSTOP)
        time.sleep(0.1)  # the lister's next request is one that nobody takes
        assert not ended(found.lister) and not ended(found.pusher)
        os.kill(found.worker, signal.SIGKILL)
        mount.process.wait(10)
        gone(mount.path, found)


def test_killed_worker_while_the_warmer_waits_for_a_page(work):
    """
    A reader has locked the page and waits for a dead worker; the pusher waits for
    the page, and holds the device whose closing would end the reader's waiting.
    """
    with mounted(image("slow", work), work / "mnt") as mount:
        found = warming(mount)
        os.kill(found.pusher, signal.SIGSTOP)
        wait_until(lambda: ended(found.lister), "the lister to end")
        # Once before: then neither opening nor closing asks the worker again.
        os.close(os.open(mount.path / "z" / "big", os.O_RDONLY))
        with open(mount.path / "z" / "big", "rb") as stream:
            os.kill(found.worker, signal.SIGSTOP)
            reader = subprocess.Popen(["cat"], env=environment(), stdin=stream,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: process_state(reader.pid) == "D", "the reader to wait")
            os.kill(found.pusher, signal.SIGCONT)
            wait_until(lambda: process_state(found.pusher) == "D", "the pusher to wait")
            os.kill(found.worker, signal.SIGKILL)
            mount.process.wait(10)
            assert reader.wait(10) != 0
        finally:
            reader.kill()
            reader.wait(10)
        gone(mount.path, found)


def test_killed_worker_while_a_mount_waits_for_the_warmer(work):
    path = image("slow", work)
    (work / "mnt").mkdir()
    process = start("mount", "--wait-warm", path, work / "mnt", stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE)
    try:
        def worker():
            return next((pid for pid in children(process.pid) if children(pid)), None)

        os.kill(wait_until(worker, "the warmer to begin"), signal.SIGKILL)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == IO and out == b"", err
    assert err.startswith(b"thaw: ") and err.count(b"\n") == 1 and b"worker" in err
    assert mount_at(work / "mnt") is None


# -- memory

@pytest.fixture
def cgroup(request):
    """A cgroup of 32 MiB: its procs file."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    old = [line.split(":", 2)[2] for line in lines if ":memory:" in line]
    if old:
        parent, limit = pathlib.Path("/sys/fs/cgroup/memory" + old[0]), "memory.limit_in_bytes"
    else:
        parent = pathlib.Path("/sys/fs/cgroup" + lines[0].split(":", 2)[2])
        limit = "memory.max"
    path = parent / f"thaw-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    try:
        try:
            (path / limit).write_text(str(32 << 20))
        except OSError as error:
            pytest.skip(f"no memory controller: {error}")
        yield path / "cgroup.procs"
    finally:
        def remove():
            with contextlib.suppress(OSError):
                path.rmdir()
            return not path.exists()

        wait_until(remove, "the cgroup to be empty")


def test_stops_in_a_small_cgroup(work, cgroup):
    path = image("big", work)
    (work / "mnt").mkdir()
    run("sh", "-c", 'echo $$ > "$1" && shift && exec "$@"', "sh", cgroup, binary(), "mount",
        "--wait-warm", path, work / "mnt")
    try:
        found = stat(work / "mnt")
        assert found["warm_state"] == "stopped"
        # A quarter of the limit, looked at every 8 MiB.
        assert found["warm_pages_total"] == 10240
        assert 2048 <= found["warm_pages"] <= 4096
    finally:
        thaw("umount", work / "mnt")
    # Without the limit all of it is pushed.
    with background(path, work / "mnt", "--wait-warm") as place:
        assert stat(place)["warm_pages"] == 10240
