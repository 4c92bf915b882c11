# SPDX-License-Identifier: Apache-2.0
"""An image appears complete, or not at all: kills, signals, full disks (cases 39, 40)."""
import os
import random
import resource
import signal
import subprocess
import time

import pytest

from support.command import IO, one_error_line, run, start, thaw, thaw_fails
from support.mounts import wait_until
from support.tars import END, header, member, tar

MIB = 1 << 20


def data(size=6 * MIB):
    return tar(*(member(b"f%d" % i, random.Random(i).randbytes(size // 6)) for i in range(6)))


def packing_halfway(work, *options):
    """A pack that has read a good part of its source and waits for more."""
    process = start("pack", "-", "-o", work / "x.thaw", "--frame-size=64K", "--level=1", *options,
                    stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    half = len(data()) // 2
    process.stdin.write(data()[:half])
    process.stdin.flush()

    def has_written():
        with open(f"/proc/{process.pid}/io") as stream:
            return int(stream.read().split("write_bytes: ")[1].split()[0]) > MIB

    try:
        wait_until(has_written, "pack to write")
    except BaseException:
        end(process)
        raise
    return process


def end(process):
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stderr):
        try:
            stream.close()
        except BrokenPipeError:
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_leaves_nothing(work, number):
    process = packing_halfway(work)
    try:
        process.send_signal(number)
        code = process.wait(20)
        message = process.stderr.read().decode()
    finally:
        end(process)
    assert code in (128 + number, -number)
    if code > 0:
        assert message.startswith("thaw: ") and message.count("\n") == 1, message
    assert list(work.iterdir()) == []


def test_killed_halfway(work):
    process = packing_halfway(work)
    end(process)
    assert not (work / "x.thaw").exists()
    # What a kill leaves, if anything, does not stop the next run, which sweeps it up.
    thaw("pack", "-", "-o", work / "x.thaw", "--quiet", input=data())
    assert [p.name for p in work.iterdir()] == ["x.thaw"]
    thaw("verify", work / "x.thaw")


def test_killed_at_random_moments(work):
    (work / "x.tar").write_bytes(data())
    arguments = ("pack", work / "x.tar", "--quiet", "--level=1")
    before = time.monotonic()
    thaw(*arguments)
    duration = time.monotonic() - before
    whole = (work / "x.thaw").read_bytes()
    (work / "x.thaw").unlink()
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    for _ in range(40):
        process = start(*arguments)
        time.sleep(generator.uniform(0, duration * 1.1))
        process.kill()
        code = process.wait(20)
        if (work / "x.thaw").exists():
            assert (work / "x.thaw").read_bytes() == whole
            (work / "x.thaw").unlink()
        else:
            assert code != 0
    thaw(*arguments)
    assert sorted(p.name for p in work.iterdir()) == ["x.tar", "x.thaw"]


def test_two_at_once(work):
    """Two runs of one source: one image, whole; the other is refused or has replaced it."""
    (work / "x.tar").write_bytes(data())
    runs = [start("pack", work / "x.tar", "--quiet", "--level=1", stderr=subprocess.PIPE)
            for _ in range(3)]
    codes = [(process.wait(60), process.stderr.read()) for process in runs]
    for process in runs:
        process.stderr.close()
    assert sorted(code for code, _ in codes) in ([0, 0, 0], [0, 0, 3], [0, 3, 3]), codes
    assert sorted(p.name for p in work.iterdir()) == ["x.tar", "x.thaw"]
    thaw("verify", work / "x.thaw")


@pytest.fixture
def small_disk(work):
    place = work / "disk"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1M", "none", place)
    yield place
    run("umount", place)


@pytest.mark.root
def test_disk_full(work, small_disk):
    (work / "x.tar").write_bytes(data())
    thaw_fails(IO, "no space", "pack", work / "x.tar", "-o", small_disk / "x.thaw")
    assert list(small_disk.iterdir()) == []
    (small_disk / "old.thaw").write_bytes(b"old")
    thaw_fails(IO, "no space", "pack", work / "x.tar", "-o", small_disk / "old.thaw", "--force")
    assert [p.read_bytes() for p in small_disk.iterdir()] == [b"old"]


@pytest.mark.root
def test_disk_full_while_extracting(work, small_disk):
    (work / "x.tar").write_bytes(data())
    thaw("pack", work / "x.tar", "--quiet", "--level=1")
    thaw_fails(IO, "no space", "extract", work / "x.thaw", small_disk / "out")
    assert list(small_disk.iterdir()) == []


@pytest.mark.root
def test_read_only_disk(work, small_disk):
    (work / "x.tar").write_bytes(data())
    run("mount", "-o", "remount,ro", small_disk)
    thaw_fails(IO, "read-only", "pack", work / "x.tar", "-o", small_disk / "x.thaw")
    thaw("pack", work / "x.tar", "--quiet", "--level=1")
    thaw_fails(IO, "read-only", "extract", work / "x.thaw", small_disk / "out")


def test_directory_without_permission(work, user):
    (work / "x.tar").write_bytes(data())
    (work / "closed").mkdir(mode=0o555)
    thaw_fails(IO, "permission", "pack", work / "x.tar", "-o", work / "closed" / "x.thaw",
               user=user)
    assert list((work / "closed").iterdir()) == []


def test_file_size_limit(work):
    """As a quota would: the write fails, by an error or by SIGXFSZ."""
    (work / "x.tar").write_bytes(data())
    result = thaw("pack", work / "x.tar", code=None, limits={resource.RLIMIT_FSIZE: MIB})
    assert result.code in (IO, -signal.SIGXFSZ), repr(result)
    if result.code == IO:
        one_error_line(result, "large|size|limit")
    assert sorted(p.name for p in work.iterdir()) == ["x.tar"]


def test_no_descriptors(work):
    (work / "x.tar").write_bytes(data())
    for count in range(3, 9):
        result = thaw("pack", work / "x.tar", code=None, limits={resource.RLIMIT_NOFILE: count})
        assert result.code in (0, IO, 127), repr(result)  # 127: not even its libraries
        if result.code == 0:
            return
        assert sorted(p.name for p in work.iterdir()) == ["x.tar"]
    raise AssertionError("eight descriptors were not enough")


def test_source_that_breaks_off(work):
    """The writer of a pipe dies: the archive is truncated, not complete."""
    thaw_fails(4, "end|truncated", "pack", "-", "-o", work / "x.thaw", input=data()[:-100_000])
    thaw_fails(4, "end", "pack", "-", "-o", work / "x.thaw", input=header(b"f") + END[:512])
    thaw_fails(4, "", "pack", "-", "-o", work / "x.thaw", input=b"")
    assert list(work.iterdir()) == []


def test_image_has_ordinary_permissions(work):
    old = os.umask(0o027)
    try:
        (work / "x.tar").write_bytes(data(60))
        thaw("pack", work / "x.tar", "--quiet")
    finally:
        os.umask(old)
    assert (work / "x.thaw").stat().st_mode & 0o7777 == 0o640
