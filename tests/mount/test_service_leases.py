# SPDX-License-Identifier: Apache-2.0
"""What ends a view: a connection, a process, a time; and what a restart leaves."""
import os
import shutil
import signal
import subprocess

import pytest

from support.command import REFUSED, USAGE, one_error_line, run, thaw
from support.mounts import mount_at, mounts_below, wait_until
from support.service import Service, image, service, thaw_client  # noqa: F401

pytestmark = [pytest.mark.fuse, pytest.mark.root]

NodeError = thaw_client.NodeError


def gone(node, directory):
    wait_until(lambda: mount_at(directory) is None and not node.views(), "the view to end")


def test_connection_without_grace(work, image):
    with service(work, "--grace=0", "--linger=0") as node:
        with node.client() as client:
            client.open("s", str(image), work / "view")
            assert (work / "view" / "file").exists()
        gone(node, work / "view")
        assert not (work / "view").exists()
        assert node.metrics()["thaw_leases_expired_total"] == 1


def test_lost_connection_has_grace(work, image):
    with service(work) as node:
        client = node.client()
        client.open("s", str(image), work / "view")
        client.close()
        wait_until(lambda: "remaining" in node.views()[0]["lease"], "the grace to begin")
        assert 0 < node.views()[0]["lease"]["remaining"] <= 60
        with node.client() as again:
            view = again.open("s", str(image), work / "view")
            assert view["lease"] == {"kind": "connection"}
        wait_until(lambda: "remaining" in node.views()[0]["lease"], "the grace to begin")
        with node.client() as again:
            assert again.renew("s") == 1
            assert node.views()[0]["lease"] == {"kind": "connection"}
            with pytest.raises(NodeError):
                again.renew("t")


def test_killed_client(work, image):
    """kill -9 of a manager is a lost connection."""
    with service(work, "--grace=0", "--linger=0") as node:
        script = ("import sys; sys.path.insert(0, sys.argv[1]); import thaw_client\n"
                  "client = thaw_client.Client(sys.argv[2])\n"
                  "client.open('s', sys.argv[3], sys.argv[4])\n"
                  "print('open', flush=True); sys.stdin.read()\n")
        process = subprocess.Popen(
            ["python3", "-c", script, os.path.dirname(thaw_client.__file__), str(node.socket),
             str(image), str(work / "view")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout.readline() == b"open\n"
            assert (work / "view" / "file").exists()
        finally:
            process.kill()
            process.communicate()
        gone(node, work / "view")


def test_process(work, image):
    with service(work, "--linger=0") as node:
        process = subprocess.Popen(["sleep", "1000"])
        try:
            node.thaw("open", f"--lease=pid:{process.pid}", "s", image, work / "view")
            assert node.views()[0]["lease"] == {"kind": "process", "pid": process.pid}
        finally:
            process.kill()
            process.wait()
        gone(node, work / "view")


def test_process_that_is_gone_while_the_service_is(work, image):
    with service(work, "--linger=0") as node:
        processes = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
        try:
            for number, process in enumerate(processes):
                node.thaw("open", f"--lease=pid:{process.pid}", f"s{number}", image,
                          work / f"view{number}")
            node.stop()
            processes[0].kill()
            processes[0].wait()
            node.start()
            wait_until(lambda: [v["session"] for v in node.views()] == ["s1"], "one to end")
            assert mount_at(work / "view0") is None
            assert (work / "view1" / "file").exists()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        gone(node, work / "view1")


def test_time(work, image):
    with service(work, "--linger=0") as node:
        node.thaw("open", "--lease=ttl:2", "s", image, work / "view")
        assert node.views()[0]["lease"]["seconds"] == 2
        gone(node, work / "view")


def test_time_is_put_off(work, image):
    with service(work, "--linger=0") as node, node.client() as client:
        lease = {"kind": "ttl", "seconds": 1000}
        client.open("s", str(image), work / "view", lease={"kind": "ttl", "seconds": 10})
        assert client.show("s", str(work / "view"))["lease"]["remaining"] <= 10
        client.open("s", str(image), work / "view", lease=lease)
        assert client.show("s", str(work / "view"))["lease"]["remaining"] > 900
        assert client.renew("s") == 1


def test_until_closed(work, image):
    with service(work, "--grace=0") as node:
        node.thaw("open", "s", image, work / "view")
        assert node.views()[0]["lease"] == {"kind": "ttl"}
        node.stop().start()
        assert node.views()[0]["lease"] == {"kind": "ttl"}


def test_busy_view_at_the_leases_end(work, image):
    """It goes at once; who has something open keeps it."""
    with service(work, "--grace=0", "--linger=0") as node:
        client = node.client()
        client.open("s", str(image), work / "view", writable=True)
        with open(work / "view" / "file", "rb") as stream:
            client.close()
            gone(node, work / "view")
            assert stream.read() == b"data"


@pytest.mark.parametrize("kind", [{"kind": "connection", "pid": -1}, {"kind": "other"}, {},
                                  {"kind": "process"}, {"kind": "process", "pid": 0},
                                  {"kind": "ttl", "seconds": -1}, {"kind": "ttl", "seconds": 1.5},
                                  {"kind": "ttl", "seconds": 10**12}, {"kind": "ttl", "x": 1}])
def test_impossible_leases(work, image, kind):
    with service(work) as node, node.client() as client:
        with pytest.raises(NodeError) as caught:
            client.open("s", str(image), work / "view", lease=kind)
        assert caught.value.name == "InvalidParameter"
        assert client.list() == [] and not (work / "view").exists()


def test_leases_on_the_command_line(work, image):
    with service(work) as node:
        for lease in ("pid:x", "pid:0", "ttl:", "ttl:-1", "forever", ""):
            one_error_line(node.thaw("open", f"--lease={lease}", "s", image, work / "v",
                                     code=USAGE), "lease")
        one_error_line(node.thaw("open", "--lease=pid:2147483647", "s", image, work / "v",
                                 code=REFUSED), "no process")


# -- restarts --

def open_some(node, image, work):
    with node.client() as client:
        forever = {"kind": "ttl"}
        client.open("a", str(image), work / "a", lease=forever, labels={"x": "y"})
        client.open("a", str(image), work / "a2", lease=forever)
        client.open("b", str(image), work / "b", writable=True, lease=forever)
        client.open("m", str(image), work / "m", writable=True, scratch_size=1 << 20,
                    lease=forever)
        return sorted(client.list(), key=lambda v: v["directory"])


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_disturbs_no_view(work, image, how):
    with service(work, "--linger=0") as node:
        before = open_some(node, image, work)
        (work / "b" / "mine").write_bytes(b"1")
        (work / "m" / "mine").write_bytes(b"2")
        tables = [(m.path, m.device) for m in mounts_below(work)]
        with open(work / "a" / "file", "rb") as stream:
            getattr(node, how)()
            assert (work / "b" / "mine").read_bytes() == b"1"
            assert (work / "a" / "d" / "other").read_bytes() == b"more"
            node.start()
            assert stream.read() == b"data"
        after = sorted(node.views(), key=lambda v: v["directory"])
        assert after == before
        assert [(m.path, m.device) for m in mounts_below(work)] == tables
        assert (work / "b" / "mine").read_bytes() == b"1"
        assert (work / "m" / "mine").read_bytes() == b"2"
        assert [i["views"] for i in node.images()] == [4]
        assert node.metrics()["thaw_views_restored_total"] == 4
        # And they can be closed, with all that was made for them.
        with node.client() as client:
            client.close_view("b")
            assert not (work / "b").exists()


def test_killed_again_and_again(work, image):
    with service(work, "--linger=0") as node:
        node.thaw("open", "s", image, work / "view")
        for number in range(5):
            node.kill().start()
            node.thaw("open", "s", image, work / f"view{number}")
            assert (work / f"view{number}" / "file").exists()
        assert len(node.views()) == 6
        assert [i["views"] for i in node.images()] == [6]


def test_killed_while_views_are_opened(work, image):
    """Whatever moment it dies at, the next one knows what there is, and nothing is left."""
    with service(work, "--linger=0", "--grace=0") as node:
        for number in range(12):
            opener = subprocess.Popen(
                ["python3", "-c",
                 "import sys; sys.path.insert(0, sys.argv[1]); import thaw_client\n"
                 "client = thaw_client.Client(sys.argv[2])\n"
                 "n = 0\n"
                 "while True:\n"
                 "    client.open(f's{n}', sys.argv[3], f'{sys.argv[4]}/v{n}', writable=n % 2 == 1)\n"
                 "    n += 1\n"
                 "    n > 3 and client.close_view(f's{n - 3}')\n",
                 os.path.dirname(thaw_client.__file__), str(node.socket), str(image), str(work)],
                stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: node.log.count("event=opened") > 3 * (number + 1), "some views")
                node.kill()
            finally:
                opener.kill()
                opener.wait()
            node.start()
            wait_until(lambda: not node.views(), "the leases of lost connections to end")
            assert [m.path for m in mounts_below(work) if m.type == "overlay"] == []
        assert [n for n in os.listdir(work) if n.startswith("v")] == []


@pytest.mark.parametrize("damage", ["lost", "garbage", "cut"])
def test_catalogue_lost(work, image, damage):
    """Mount table and links tell what there was; what they do not tell is said plainly."""
    with service(work, "--linger=0") as node:
        open_some(node, image, work)
        node.kill()
        path = node.runtime / "catalogue" / "leases.mdb"
        if damage == "lost":
            shutil.rmtree(path.parent)
        elif damage == "garbage":
            path.write_bytes(os.urandom(path.stat().st_size))
        else:
            os.truncate(path, 5000)
        node.start()
        views = sorted(node.views(), key=lambda v: v["directory"])
        assert [(v["session"], os.path.basename(v["directory"])) for v in views] == \
            [("a", "a"), ("a", "a2"), ("b", "b"), ("m", "m")]
        assert {v["state"] for v in views} == {"open"}
        assert (work / "a" / "file").read_bytes() == b"data"
        with node.client() as client:
            assert client.close_view("a") == 2
        assert mount_at(work / "a") is None
        for name in ("b", "m"):
            with node.client() as client:
                client.close_view(name)
        # What only the catalogue knew: these directories were made, and stay.
        for name in ("a", "a2", "b", "m"):
            if (work / name).exists():
                (work / name).rmdir()


def test_catalogue_and_links_lost(work, image):
    """What is unknown is taken to be alive."""
    with service(work, "--linger=0") as node:
        node.thaw("open", "s", image, work / "view")
        node.kill()
        shutil.rmtree(node.runtime / "catalogue")
        shutil.rmtree(node.runtime / "sessions")
        node.start()
        view, = node.views()
        assert view["session"] == "recovered" and view["directory"] == str(work / "view")
        assert (work / "view" / "file").read_bytes() == b"data"
        with node.client() as client:
            client.close_view("recovered")
        (work / "view").rmdir()


def test_after_a_reboot(work, image):
    """State on disk, run-time directory and mounts gone."""
    with service(work, "--linger=0") as node:
        node.thaw("open", "--writable", "s", image, work / "view")
        (work / "view" / "new").write_bytes(b"1")
        node.kill()
        for entry in reversed(mounts_below(work)):
            run("umount", "-l", os.fsdecode(entry.path))
        shutil.rmtree(node.runtime)
        node.runtime.mkdir()
        node.start()
        assert node.views() == [] and node.images() == []
        scratch = node.state / "service-scratch"
        assert [n for n in os.listdir(scratch) if not n.startswith(".")] == []
        if (work / "view").exists():
            (work / "view").rmdir()
        node.thaw("open", "s", image, work / "view")
        assert (work / "view" / "file").read_bytes() == b"data"


def test_mounts_gone_but_leases_there(work, image):
    with service(work, "--linger=0") as node:
        open_some(node, image, work)
        node.kill()
        for entry in reversed(mounts_below(work)):
            run("umount", "-l", os.fsdecode(entry.path))
        node.start()
        assert node.views() == []
        assert not (work / "a").exists() and not (work / "b").exists()
        assert len(node.events("lease-dropped")) == 4


def test_another_binary(work, image):
    """Upgrade and rollback: views stand while the service is another file's."""
    with service(work, "--linger=0") as node:
        node.thaw("open", "s", image, work / "view")
        for number in range(2):
            node.stop()
            copy = work / f"thaw{number}"
            shutil.copy2(os.environ["THAW_TEST_BINARY"], copy)
            first = subprocess.Popen([copy, "serve", "--linger=0"], env=node.env,
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: node.socket.exists(), "the other service")
                wait_until(lambda: [v["session"] for v in node.views()] == ["s"], "its views")
                assert (work / "view" / "file").read_bytes() == b"data"
            finally:
                first.send_signal(signal.SIGTERM)
                assert first.wait(20) == 0
            node.start()
        assert len(node.views()) == 1


def test_started_twice(work, image):
    with service(work) as node:
        node.thaw("open", "s", image, work / "view")
        second = Service(work)
        one_error_line(second.thaw("serve", code=REFUSED), "already")
        assert len(node.views()) == 1
