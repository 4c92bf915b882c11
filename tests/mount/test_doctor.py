# SPDX-License-Identifier: Apache-2.0
"""thaw doctor where something is missing: each case in namespaces of its own."""
import contextlib
import json
import os
import signal
import socket

import pytest

from support import mounts
from support.command import OK, binary, environment, run, thaw
from support.mounts import mounted
from support.tars import member, tar
from support.warm import require_views

pytestmark = pytest.mark.fuse


@pytest.fixture
def places(work, request):
    for name in ("run", "state"):
        (work / name).mkdir(mode=0o700)
    return {"THAW_RUNTIME_DIR": str(work / "run"), "THAW_STATE_DIR": str(work / "state")}


def doctor(places, *prefix, code=OK, **options):
    before = mounts.mount_table()
    result = run(*prefix, binary(), "doctor", "--json", env=environment(**places), code=code,
                 **options)
    assert result.err == b""
    # What was tried is not mounted any more, nor was it ever here.
    assert [m.path for m in mounts.mount_table()] == [m.path for m in before]
    return json.loads(result.out)


def finding(report, what):
    found = [f for f in report["findings"] if f["what"] == what]
    assert len(found) == 1, (what, report)
    return found[0]


def states(report):
    return {f["what"]: f["state"] for f in report["findings"]}


def works(report):
    return [way for way, found in report["ways"].items() if found["works"]]


def run_goes(places, work, *prefix, **options):
    """The way that `thaw run` takes there: it says when it is not a private view."""
    if not (work / "x.thaw").exists():
        (work / "x.tar").write_bytes(tar(member(b"f", b"text")))
        thaw("pack", work / "x.tar", "--quiet")
    result = run(*prefix, binary(), "run", work / "x.thaw", "--", "sh", "-c",
                 'cat "$THAW_ENV/f"', env=environment(**places), **options)
    assert result.out == b"text"
    return "extracted" if b"extracted" in result.err else "private"


def shell(script):
    return "sh", "-ec", script + '; exec "$@"', "sh"


@pytest.mark.root
def test_root(places, private_namespace, work):
    report = doctor(places)
    assert works(report) == ["shared", "private", "extracted"]
    assert report["way"] == "shared"
    found = states(report)
    assert found["device"] == found["fuse"] == found["overlay"] == "ok"
    assert os.listdir(work / "state") == []
    assert run_goes(places, work) == "private"


@pytest.mark.parametrize("who", ["root", "user"])
def test_user(places, who, work, request):
    """Who may not mount has private views, by a user namespace."""
    user = None
    if who == "user":
        user = request.getfixturevalue("user")
        for place in places.values():
            os.chown(place, user.pw_uid, user.pw_gid)
        require_views(user)
        report = doctor(places, user=user)
        assert run_goes(places, work, user=user) == "private"
    else:
        if os.geteuid() != 0:
            pytest.skip("needs root")
        require_views()
        # As in most containers.
        ordinary = "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all"
        report = doctor(places, *ordinary)
        assert run_goes(places, work, *ordinary) == "private"
    assert works(report) == ["private", "extracted"]
    assert report["way"] == "private"
    assert states(report)["user namespaces"] == "ok"
    assert "no right to mount" in report["ways"]["shared"]["why"]


@pytest.mark.root
def test_no_device(places, private_namespace, work):
    """A container that was started without --device /dev/fuse."""
    (work / "empty").mkdir()
    # With what any shell needs.
    without = (*private_namespace, *shell(
        f"touch '{work}/empty/null'; mount --bind /dev/null '{work}/empty/null'; "
        f"mount --rbind '{work}/empty' /dev"))
    report = doctor(places, *without)
    assert run_goes(places, work, *without) == "extracted"
    assert works(report) == ["extracted"] and report["way"] == "extracted"
    assert "/dev/fuse: No such file" in report["ways"]["private"]["why"]
    assert "--device /dev/fuse" in finding(report, "device")["remedy"]
    # Overlays are not to blame.
    assert "overlay" not in states(report)
    assert "overlayfs works" in finding(report, "views")["why"]


@pytest.mark.root
def test_device_that_cannot_be_opened(places, private_namespace, work):
    (work / "fuse").write_bytes(b"")
    report = doctor(places, *private_namespace,
                    *shell(f"mount --bind '{work}/fuse' /dev/fuse"))
    # A plain file: opened, but no device.
    assert report["way"] == "extracted"
    assert "FUSE cannot be mounted" in report["ways"]["shared"]["why"]


def unprivileged_root(script=""):
    """Root of a user namespace, without the right to mount."""
    return ("unshare", "-U", "--map-root-user", *shell(script), "setpriv",
            "--bounding-set=-sys_admin", "--inh-caps=-all")


@pytest.mark.parametrize("limit, what", [("max_user_namespaces", "user"),
                                         ("max_mnt_namespaces", "mount")])
def test_namespaces_forbidden(places, work, limit, what):
    require_views()
    without = unprivileged_root(f"echo 0 >/proc/sys/user/{limit}")
    report = doctor(places, *without)
    assert run_goes(places, work, *without) == "extracted"
    assert works(report) == ["extracted"]
    assert report["way"] == "extracted"
    assert report["ways"]["private"]["why"] == \
        f"no {what} namespace can be made: the limit is reached"
    assert finding(report, "user namespaces")["state"] == "missing"
    assert finding(report, "limit")["why"] == f"user.{limit} is 0"
    assert finding(report, "limit")["remedy"].startswith(f"sysctl user.{limit}=")


def test_nothing_works(places, work):
    """No namespaces, and no place for a plain tree."""
    require_views()
    (work / "state").chmod(0o777)
    report = doctor(places, *unprivileged_root("echo 0 >/proc/sys/user/max_user_namespaces"),
                    code=6)
    assert works(report) == [] and report["way"] == "none"
    text = run(*unprivileged_root("echo 0 >/proc/sys/user/max_user_namespaces"), binary(),
               "doctor", env=environment(**places), code=6).text
    assert text.startswith("auto chooses: none\n")


@pytest.mark.root
def test_writable_views(places, private_namespace, work):
    """Scratch layers are tried where they would lie: a tmpfs will do, an overlay will not."""
    report = doctor(places, *private_namespace,
                    *shell(f"mount -t tmpfs -o mode=0700 none '{work}/state'"))
    assert finding(report, "scratch")["state"] == "ok"
    for name in ("a", "b"):
        (work / name).mkdir()
    report = doctor(places, *private_namespace, *shell(
        f"mount -t tmpfs none '{work}/a'; mkdir '{work}/a/u' '{work}/a/w'; "
        f"mount -t overlay -o lowerdir='{work}/b',upperdir='{work}/a/u',workdir='{work}/a/w' "
        f"none '{work}/state'"))
    assert finding(report, "scratch")["state"] == "warn"
    assert "THAW_STATE_DIR" in finding(report, "scratch")["remedy"]
    assert report["way"] == "shared"


def test_leftovers(places, work):
    """A mount whose worker is gone is named, with what takes it away; live ones are counted."""
    (work / "x.tar").write_bytes(tar(member(b"f", b"text")))
    thaw("pack", work / "x.tar", "--quiet")
    with mounted(work / "x.thaw", work / "mnt") as mount:
        alive = finding(doctor(places), "mounts")
        assert alive["state"] == "ok" and "none dead" in alive["why"]
        for pid in mounts.processes(os.environ["THAW_TEST_ID"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        mount.process.wait(10)
        mounts.wait_until(lambda: not mounts.processes(os.environ["THAW_TEST_ID"]),
                          "keeper and worker to end")
        left = finding(doctor(places), "leftover")
        assert left["state"] == "warn"
        assert left["why"] == f"{mount.path}: its worker is gone"
        assert left["remedy"] == f"thaw umount --lazy {mount.path}"
        run(binary(), *left["remedy"].split()[1:])
        assert mounts.mount_at(mount.path) is None


def test_service_is_found(places, work):
    """Somebody listens: that is enough to hear that there is a service."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(work / "run" / "socket"))
        listener.listen()
        report = doctor(places)
        assert finding(report, "node service") == {
            "state": "ok", "what": "node service", "why": f"answers at {work}/run/socket"}
        assert report["way"] == "shared"
        named = dict(places, THAW_RUNTIME_DIR=str(work / "state"),
                     THAW_SOCKET=str(work / "run" / "socket"))
        assert finding(doctor(named), "node service")["state"] == "ok"
    assert finding(doctor(places), "node service")["state"] == "warn"
