# SPDX-License-Identifier: Apache-2.0
"""The warmer: what it spares, and that nothing ever waits for it, dead or alive."""
import contextlib
import functools
import hashlib
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
from support.mounts import kill, mount_at, mounted, processes, wait_until
from support.warm import (IMPORT, children, ended, image, process_state, reclaims,
                          require_views, stat, warm_sets)

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
    path = image("small-plain-warmed", work)
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
    (work / "empty").mkdir()
    with background(path, work / "mnt", "--wait-warm") as place, contextlib.ExitStack() as stack:
        def view(name):
            (work / name).mkdir()
            run("mount", "-t", "overlay", "-o", f"lowerdir={place}:{work / 'empty'}", "none",
                work / name)
            stack.callback(run, "umount", work / name)
            return work / name

        def requests_of_import(view):
            before = stat(view)  # asked there, the mount below answers
            import_from(view)
            import_packages(view)
            return between(before, stat(view))

        def unless_disturbed(measure):
            """When others empty the machine's caches meanwhile, a count says nothing."""
            for _ in range(10):
                before = reclaims()
                requests_of_import(first)  # whatever it takes, it is in the caches then
                made = measure()
                if made == {} or reclaims() == before:
                    break
            return made

        first, names = view("first"), iter(range(10))
        assert unless_disturbed(lambda: requests_of_import(view(f"v{next(names)}"))) == {}
        assert unless_disturbed(lambda: requests_of_import(first)) == {}


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
def test_keeper_ends_orderly_while_warming(work, ending):
    with mounted(image("slow", work), work / "mnt") as mount:
        warming(mount)
        mount.process.send_signal(ending)
        mount.wait_end(0)
    assert mount.log == ""
    wait_until(lambda: not processes(os.environ[command.MARKER]), "the warmer to end")


class Warming:
    """The processes of a warmer at work, and those beside it."""

    def __init__(self, keeper, worker, pusher, lister):
        self.keeper, self.worker, self.pusher, self.lister = keeper, worker, pusher, lister


def look(keeper):
    below = children(keeper)
    for pusher in below:
        for lister in children(pusher):
            worker, = [pid for pid in below if pid != pusher]
            return Warming(keeper, worker, pusher, lister)
    return None


def warming(mount):
    return wait_until(lambda: look(mount.process.pid), "the warmer to begin")


def is_whole(path):
    assert (path / "z" / "big").read_bytes() == bytes(range(256)) * 16384
    assert len(os.listdir(path)) == 3001


@pytest.mark.parametrize("victim", ["pusher", "lister"])
def test_killed_warmer(work, victim):
    path = image("slow", work)
    with mounted(path, work / "mnt") as mount:
        found = warming(mount)
        os.kill(getattr(found, victim), signal.SIGKILL)
        for pid in (found.pusher, found.lister):
            wait_until(lambda pid=pid: ended(pid), "the warmer to end")
        wait_until(lambda: stat(mount.path)["warm_state"] == "stopped", "that to be noticed")
        after = stat(mount.path)
        assert after["warm_pages"] < after["warm_pages_total"]
        is_whole(mount.path)
        # Nobody is left behind, not even as a zombie.
        wait_until(lambda: children(mount.process.pid) == [found.worker], "the warmer to be reaped")


def test_killed_worker_while_warming(work):
    """Another takes its place, and the warmer does not notice."""
    with mounted(image("slow", work), work / "mnt") as mount:
        found = warming(mount)
        os.kill(found.worker, signal.SIGSTOP)
        time.sleep(0.1)  # the lister's next request is one that nobody takes
        assert not ended(found.lister) and not ended(found.pusher)
        os.kill(found.worker, signal.SIGKILL)
        wait_until(lambda: stat(mount.path)["warm_state"] == "finished", "the warmer")
        after = stat(mount.path)
        assert after["warm_pages"] == after["warm_pages_total"] and after["restarts"] == 1
        is_whole(mount.path)


class Missed(Exception):
    """The warmer had ended before it could be caught, as it does when memory is wanted."""


def until_caught(test):
    @functools.wraps(test)
    def repeat(*args, **kwargs):
        for _ in range(4):
            try:
                return test(*args, **kwargs)
            except Missed:
                pass
        return test(*args, **kwargs)
    return repeat


def waiting_for_a_page(mount, stack):
    """
    A reader has locked the page and waits for a stopped worker; the pusher waits
    for the page. Neither can be killed until somebody answers.
    """
    found = warming(mount)
    os.kill(found.pusher, signal.SIGSTOP)
    wait_until(lambda: ended(found.lister), "the lister to end")
    # Once before: then neither opening nor closing asks the worker again.
    os.close(os.open(mount.path / "z" / "big", os.O_RDONLY))
    with open(mount.path / "z" / "big", "rb") as stream:
        os.kill(found.worker, signal.SIGSTOP)
        reader = subprocess.Popen(["sha256sum"], env=environment(), stdin=stream,
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    stack.callback(reader.wait, 10)
    stack.callback(reader.kill)
    wait_until(lambda: process_state(reader.pid) == "D", "the reader to wait")
    os.kill(found.pusher, signal.SIGCONT)
    wait_until(lambda: process_state(found.pusher) == "D" or ended(found.pusher),
               "the pusher to wait")
    if ended(found.pusher):
        os.kill(found.worker, signal.SIGCONT)
        raise Missed
    return found, reader


DIGEST = hashlib.sha256(bytes(range(256)) * 16384).hexdigest().encode()


@until_caught
def test_killed_worker_while_the_warmer_waits_for_a_page(work):
    with mounted(image("slow", work), work / "mnt") as mount, contextlib.ExitStack() as stack:
        found, reader = waiting_for_a_page(mount, stack)
        os.kill(found.worker, signal.SIGKILL)
        out, _ = reader.communicate(timeout=20)
        assert reader.returncode == 0 and out.split()[0] == DIGEST
        wait_until(lambda: ended(found.pusher), "the pusher to end")
        is_whole(mount.path)


@until_caught
def test_killed_keeper_while_the_warmer_waits_for_a_page(work):
    """The worker, once it goes on, answers; the warmer ends with the keeper."""
    with mounted(image("slow", work), work / "mnt") as mount, contextlib.ExitStack() as stack:
        found, reader = waiting_for_a_page(mount, stack)
        stack.callback(kill, found.worker)
        os.kill(found.keeper, signal.SIGKILL)
        mount.process.wait(10)
        os.kill(found.worker, signal.SIGCONT)
        out, _ = reader.communicate(timeout=20)
        assert reader.returncode == 0 and out.split()[0] == DIGEST
        wait_until(lambda: ended(found.pusher), "the pusher to end")
        is_whole(mount.path)
        thaw("umount", mount.path)
        wait_until(lambda: ended(found.worker), "the worker to end")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
@until_caught
def test_keeper_ends_while_the_warmer_waits_for_a_page(work, ending):
    """The worker is stopped and cannot answer: the keeper refuses in its place."""
    with mounted(image("slow", work), work / "mnt") as mount, contextlib.ExitStack() as stack:
        found, reader = waiting_for_a_page(mount, stack)
        mount.process.send_signal(ending)
        mount.wait_end(0)
        assert reader.wait(10) != 0
        for pid in (found.worker, found.pusher):
            assert ended(pid)
        assert mount_at(mount.path) is None


@pytest.mark.parametrize("victims", [("worker",), ("keeper",), ("keeper", "worker")])
def test_killed_while_a_mount_waits_for_the_warmer(work, victims):
    path = image("slow", work)
    (work / "mnt").mkdir()
    process = start("mount", "--wait-warm", path, work / "mnt", stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE)
    try:
        found = wait_until(lambda: next((found for keeper in children(process.pid)
                                         if (found := look(keeper))), None), "the warmer to begin")
        for pid in (getattr(found, name) for name in victims):
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    if victims == ("worker",):
        assert (process.returncode, out, err) == (0, b"", b"")
        assert stat(work / "mnt")["warm_state"] == "finished"
        thaw("umount", work / "mnt")
        return
    assert process.returncode == IO and out == b"", err
    assert err.startswith(b"thaw: ") and err.count(b"\n") == 1
    assert b"keeper" in err or b"worker" in err
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
