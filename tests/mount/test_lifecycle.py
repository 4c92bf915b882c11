# SPDX-License-Identifier: Apache-2.0
"""Mounting and unmounting: who may, what fails and how, and how a keeper ends."""
import errno
import os
import random
import shlex
import signal
import subprocess
import time

import pytest

from support.command import (DAMAGED, IO, REFUSED, USAGE, binary, environment, one_error_line, run,
                             start, thaw, thaw_fails)
from support.mounts import background, mount_at, mounted, processes, wait_until
from support.tars import member, tar

pytestmark = pytest.mark.fuse


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(tar(member(b"file", b"data"), member(b"d/other", b"more")))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def test_mount_returns_when_it_answers(work, image):
    with background(image, work / "mnt") as path:
        assert (path / "file").read_bytes() == b"data"
        assert len(processes(os.environ["THAW_TEST_ID"])) >= 1
        assert thaw("umount", path).out == b""
        assert mount_at(path) is None
    wait_until(lambda: not processes(os.environ["THAW_TEST_ID"]), "the worker to end")


def test_mount_says_nothing_and_leaves_the_terminal(work, image):
    """A caller that reads our output to its end must not wait for the worker."""
    (work / "mnt").mkdir()
    result = thaw("mount", image, work / "mnt", timeout=15)
    try:
        assert (result.out, result.err) == (b"", b"")
    finally:
        thaw("umount", work / "mnt")


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_keeper_exits_0_when_told_to_end(work, image, ending):
    with mounted(image, work / "mnt") as mount:
        assert (mount.path / "file").read_bytes() == b"data"
        mount.process.send_signal(ending)
        mount.wait_end(0)
    assert mount.log == ""


def test_keeper_told_to_end_at_any_moment(work, image):
    """Also before it serves, or while it unmounts: never a mount that nobody serves."""
    (work / "mnt").mkdir()
    generator = random.Random(1)
    for _ in range(30):
        process = start("mount", "--foreground", image, work / "mnt", stderr=subprocess.PIPE)
        try:
            wait_until(lambda: mount_at(work / "mnt"), "the mount")
            time.sleep(generator.choice((0, 0, 0.001, 0.003)))
            for _ in range(generator.choice((1, 1, 2, 3))):
                process.terminate()
            assert process.wait(20) == 0, process.stderr.read()
            assert mount_at(work / "mnt") is None
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


def test_keeper_exits_0_on_unmount(work, image):
    with mounted(image, work / "mnt") as mount:
        (mount.path / "file").read_bytes()
        thaw("umount", mount.path)
        mount.wait_end(0)
    assert mount.log == ""


@pytest.mark.root
def test_plain_umount_ends_the_keeper_too(work, image):
    with mounted(image, work / "mnt") as mount:
        run("umount", mount.path)
        mount.wait_end(0)


def test_dead_mount_can_be_unmounted(work, image):
    """When keeper and worker have both been killed."""
    with mounted(image, work / "mnt") as mount:
        mount.kill_all()
        with pytest.raises(OSError) as caught:
            os.stat(mount.path / "file")
        assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        thaw("umount", mount.path)
        assert mount_at(mount.path) is None
        # And the place can be used again.
        with background(image, mount.path) as path:
            assert (path / "file").read_bytes() == b"data"


def test_busy(work, image):
    with mounted(image, work / "mnt") as mount:
        with open(mount.path / "file", "rb") as stream:
            thaw_fails(IO, "busy|in use", "umount", mount.path)
            assert mount_at(mount.path)
            thaw("umount", "--lazy", mount.path)
            assert mount_at(mount.path) is None
            assert mount.process.poll() is None
            assert stream.read() == b"data"
        mount.wait_end(0)


def test_umount_of_what_is_not_ours(work, image):
    (work / "plain").mkdir()
    thaw_fails(REFUSED, "nothing is mounted", "umount", work / "plain")
    thaw_fails(IO, "no such", "umount", work / "missing")
    thaw_fails(REFUSED, "thaw", "umount", "/proc")
    assert mount_at("/proc")
    with mounted(image, work / "mnt") as mount:
        thaw_fails(REFUSED, "nothing is mounted", "umount", mount.path / "d")
        thaw_fails(REFUSED, "nothing is mounted", "umount", mount.path / "file")


@pytest.mark.root
def test_umount_spares_other_file_systems(work):
    (work / "t").mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k", "thaw:sha256:" + "0" * 64, work / "t")
    try:
        thaw_fails(REFUSED, "thaw", "umount", work / "t")
        assert mount_at(work / "t")
    finally:
        run("umount", work / "t")


def test_two_mounts_of_one_image(work, image):
    with mounted(image, work / "a") as one, mounted(image, work / "b") as two:
        assert mount_at(one.path).source == mount_at(two.path).source
        one.terminate()
        assert (two.path / "file").read_bytes() == b"data"


def test_mounting_over_a_mount_is_refused(work, image):
    with mounted(image, work / "mnt") as mount:
        for foreground in ([], ["--foreground"]):
            thaw_fails(REFUSED, "mounted there", "mount", *foreground, image, mount.path)
        assert (mount.path / "file").read_bytes() == b"data"
        # Another image, by another way to the same place.
        (work / "link").symlink_to("mnt")
        thaw_fails(REFUSED, "mounted there", "mount", image, work / "link")
    assert mount_at(work / "mnt") is None


def test_mount_failures(work, image):
    place = work / "mnt"
    place.mkdir()
    (work / "file").write_bytes(b"")
    (work / "bad.thaw").write_bytes(image.read_bytes()[:-1])
    (work / "empty.thaw").write_bytes(b"")
    for foreground in ([], ["--foreground"]):
        command = ["mount", *foreground]
        thaw_fails(IO, "no such", *command, image, work / "missing")
        thaw_fails(IO, "not a directory", *command, image, work / "file")
        thaw_fails(IO, "no such", *command, work / "missing.thaw", place)
        thaw_fails(DAMAGED, "image", *command, work / "bad.thaw", place)
        thaw_fails(DAMAGED, "image", *command, work / "empty.thaw", place)
        thaw_fails(DAMAGED, "image", *command, work / "x.tar", place)
        thaw_fails(IO, "directory|regular", *command, work, place)
        for option in ("rw", "suid", "dev", "nonsense=1"):
            result = thaw(*command, "-o", option, image, place, code=None)
            assert result.code in (USAGE, REFUSED, IO), repr(result)
            one_error_line(result, option.split("=")[0])
    assert mount_at(place) is None
    thaw_fails(USAGE, "", "mount", image)
    thaw_fails(USAGE, "", "mount", image, place, "more")


@pytest.mark.root
def test_mount_without_a_fuse_device(work, image, private_namespace):
    (work / "mnt").mkdir()
    script = "mount --bind /dev/null /dev/fuse && exec \"$@\""
    result = run(*private_namespace, "sh", "-c", script, "sh", binary(), "mount", image,
                 work / "mnt", code=IO)
    one_error_line(result, "cannot be mounted")
    script = "mount -t tmpfs none /dev && exec \"$@\""
    result = run(*private_namespace, "sh", "-c", script, "sh", binary(), "mount", image,
                 work / "mnt", code=IO)
    one_error_line(result, "/dev/fuse")
    assert mount_at(work / "mnt") is None


@pytest.mark.parametrize("options, present, absent", [
    ("noexec", ["noexec"], []), ("noatime", ["noatime"], []), ("ro,nosuid,nodev", ["ro"], ["rw"]),
    ("auto,user,nofail,x-systemd.automount,_netdev", ["nosuid"], ["x-systemd.automount"])])
def test_mount_options(work, image, options, present, absent):
    if os.geteuid() != 0 and "user" in options:
        pytest.skip("needs root")
    with mounted(image, work / "mnt", "-o", options) as mount:
        found = mount_at(mount.path).options
        assert {"ro", "nosuid", "nodev", *present} <= set(found)
        assert not set(absent) & set(found)


def test_ordinary_user(work, image, user):
    """Through fusermount3, and closed to everybody else, as without allow_other always."""
    os.chown(work, user.pw_uid, user.pw_gid)
    with mounted(image, work / "mnt", user=user) as mount:
        assert run("cat", mount.path / "file", user=user).out == b"data"
        owner = run("stat", "-c", "%u:%g", mount.path / "file", user=user).text.strip()
        assert owner == f"{user.pw_uid}:{user.pw_gid}"
        with pytest.raises(PermissionError):
            os.stat(mount.path / "file")
        entry = mount_at(mount.path)
        assert entry.type == "fuse.thaw" and entry.source.startswith("thaw:sha256:")
        assert {"ro", "nosuid", "nodev"} <= set(entry.options)
        thaw("umount", mount.path, user=user)
        mount.wait_end(0)


def test_ordinary_user_in_the_background(work, image, user):
    os.chown(work, user.pw_uid, user.pw_gid)
    (work / "mnt").mkdir()
    os.chown(work / "mnt", user.pw_uid, user.pw_gid)
    thaw("mount", image, work / "mnt", user=user)
    assert run("cat", work / "mnt" / "file", user=user).out == b"data"
    thaw("umount", work / "mnt", user=user)
    assert mount_at(work / "mnt") is None


def test_ordinary_user_ends_the_keeper(work, image, user):
    os.chown(work, user.pw_uid, user.pw_gid)
    with mounted(image, work / "mnt", user=user) as mount:
        mount.terminate()


def test_ordinary_user_may_not_mount_over_others_directories(work, image, user):
    (work / "mnt").mkdir()
    result = thaw("mount", image, work / "mnt", user=user, code=None)
    assert result.code == IO, repr(result)
    one_error_line(result)
    assert mount_at(work / "mnt") is None


def test_root_serves_every_user(work, image, user):
    with mounted(image, work / "mnt") as mount:
        assert run("cat", mount.path / "file", user=user).out == b"data"
        run("sh", "-c", f"echo > {mount.path}/new", user=user, code=2)


def with_helper(work, script):
    """A script for a private namespace in which mount(8) finds thaw's helper in /sbin."""
    helper = work / "sbin"
    helper.mkdir()
    (helper / "mount.fuse.thaw").symlink_to(binary())
    sbin = os.path.realpath("/sbin")
    return (f"set -e; mount -t overlay -o lowerdir={helper}:{sbin} overlay {sbin}\n"
            f"image={shlex.quote(str(work / 'x.thaw'))} dir={shlex.quote(str(work / 'mnt'))}\n"
            + script)


@pytest.mark.root
def test_mount_8(work, image, private_namespace):
    (work / "mnt").mkdir()
    script = with_helper(work, """
        mount -t fuse.thaw -o noexec "$image" "$dir"
        cat "$dir/file"; echo
        findmnt -n -o SOURCE,FSTYPE,OPTIONS "$dir"
        umount "$dir"
        ! findmnt "$dir"
    """)
    lines = run(*private_namespace, "sh", "-c", script).text.splitlines()
    assert lines[0] == "data"
    source, kind, options = lines[1].split()
    assert source.startswith("thaw:sha256:") and kind == "fuse.thaw"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))


@pytest.mark.root
def test_fstab(work, image, private_namespace):
    (work / "mnt").mkdir()
    (work / "fstab").write_text(
        f"{image} {work / 'mnt'} fuse.thaw ro,noauto,nofail,x-systemd.automount,allow_other 0 0\n")
    script = with_helper(work, f"""
        mount -T {shlex.quote(str(work / 'fstab'))} "$dir"
        cat "$dir/d/other"
        umount "$dir"
    """)
    assert run(*private_namespace, "sh", "-c", script).out == b"more"


@pytest.mark.root
def test_mount_8_reports_failure(work, image, private_namespace):
    (work / "mnt").mkdir()
    script = with_helper(work, 'mount -t fuse.thaw "$image.missing" "$dir"')
    result = run(*private_namespace, "sh", "-c", script, code=None)
    assert result.code != 0 and b"thaw: " in result.err


def test_readers_at_unmount(work, image):
    """Lazy unmount under readers in other processes: they end, the worker ends."""
    with mounted(image, work / "mnt") as mount:
        reader = subprocess.Popen(
            ["sh", "-c", 'cd "$1" && while cat file d/other >/dev/null 2>&1; do :; done', "sh",
             mount.path], env=environment())
        try:
            time.sleep(0.2)
            thaw("umount", "--lazy", mount.path)
        finally:
            reader.kill()
            reader.wait(10)
        mount.wait_end(0)
