# SPDX-License-Identifier: Apache-2.0
"""The node service and its keepers when the program they were started from is replaced."""
import os
import resource
import signal
import subprocess

import pytest

from support.command import run, thaw
from support.mounts import wait_until
from support.service import service
from support.tars import member, tar

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@pytest.fixture
def image(work):
    return pack(work / "env.thaw", b"data")


def pack(path, content):
    path.with_suffix(".tar").write_bytes(tar(member(b"file", content)))
    thaw("pack", path.with_suffix(".tar"), "--quiet", "-o", path)
    return path


def version(path):
    return run(path, "--version").text.split()[1]


def install(path, wanted):
    """As package managers do: another file of that name. It calls itself by another version."""
    old, data = version(path).encode(), path.read_bytes()
    assert len(wanted) == len(old) and old + b"\0" in data
    new = path.with_name("new")
    new.write_bytes(data.replace(old + b"\0", wanted.encode() + b"\0"))
    new.chmod(0o755)
    new.rename(path)
    assert version(path) == wanted


def program(pid):
    return os.readlink(f"/proc/{pid}/exe")


def test_upgrade_and_rollback(work, image, own_binary):
    """Services of two versions, one after the other, over the same views."""
    first = version(own_binary)
    second = first[:-1] + ("1" if first[-1] != "1" else "2")
    with service(work, "--linger=3600") as node:
        node.thaw("open", "s", image, work / "view")
        node.thaw("open", "w", image, work / "writable", "--writable")
        (work / "writable" / "new").write_bytes(b"kept")
        with open(work / "view" / "file", "rb") as stream:
            for number, other in enumerate((second, first, second)):
                install(own_binary, other)
                # The old one goes on as before until it is restarted: first views too.
                before = node.metrics()["thaw_launches_total"]
                odd = pack(work / f"before{number}.thaw", b"%d" % number)
                node.thaw("open", f"before{number}", odd, work / f"before{number}")
                assert (work / f"before{number}" / "file").read_bytes() == b"%d" % number
                assert node.metrics()["thaw_launches_total"] == before + 1
                node.stop()
                node.start()
                assert not program(node.process.pid).endswith(" (deleted)")
                sessions = {v["session"] for v in node.views()}
                assert sessions == {"s", "w", *(f"before{n}" for n in range(number + 1))}
                assert (work / "writable" / "new").read_bytes() == b"kept"
                # And it can change what another version has opened.
                with node.client() as client:
                    client.swap("s", str(work / "view"), str(odd))
                    assert (work / "view" / "file").read_bytes() == b"%d" % number
                    client.swap("s", str(work / "view"), str(image))
            assert stream.read() == b"data"


def test_keepers_hand_over(work, image, own_binary):
    """SIGHUP to each: other programs then, and the service does not lose sight of them."""
    with service(work, "--linger=3600") as node, node.client() as client:
        client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        keeper = client.images()[0]["keeper"]
        for count in range(2):  # the second time begun by a service whose own file is gone
            install(own_binary, version(own_binary)[:-1] + "78"[count])
            later = pack(work / f"later{count}.thaw", b"later")
            client.open(f"later{count}", str(later), work / f"later{count}",
                        lease={"kind": "ttl"})
            for pid in [i["keeper"] for i in client.images()]:
                os.kill(pid, signal.SIGHUP)
                wait_until(lambda: program(pid) == str(own_binary), "the keeper to hand over")
        assert (work / "view" / "file").read_bytes() == b"data"
        assert (work / "later0" / "file").read_bytes() == b"later"
        assert keeper in [i["keeper"] for i in client.images()]
        # A keeper like any other: it replaces its worker, and is itself replaced.
        worker = client.stat("s", str(work / "view"))["worker"]
        os.kill(worker, signal.SIGKILL)
        assert client.stat("s", str(work / "view"))["worker"] != worker
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: node.metrics()["thaw_keepers_adopted_total"] == 1, "a new keeper")
        assert (work / "view" / "file").read_bytes() == b"data"


def test_why_no_worker_lives(work, image):
    """It is told where people look: thaw ps, thaw images, and with --json."""
    with service(work, "--linger=0") as node, node.client() as client:
        client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        keeper, worker = client.images()[0]["keeper"], client.stat("s", str(work / "view"))["worker"]
        # No room for the stacks of threads.
        limits = resource.prlimit(keeper, resource.RLIMIT_AS)
        with open(f"/proc/{keeper}/statm", encoding="ascii") as stream:
            size = int(stream.read().split()[0]) * resource.getpagesize()
        resource.prlimit(keeper, resource.RLIMIT_AS, (size + (1 << 20), limits[1]))
        try:
            os.kill(worker, signal.SIGKILL)
            subprocess.run(["cat", work / "view" / "file"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=60)
            for name in ("ps", "images"):
                text = node.thaw(name).text
                assert "its workers die; the next one in " in text, text
                assert "could not serve: " in text
            assert "could not serve: " in client.images()[0]["trouble"]
        finally:
            resource.prlimit(keeper, resource.RLIMIT_AS, limits)

        def read():
            return run("cat", work / "view" / "file", code=None).out == b"data"

        wait_until(read, "a worker that lives")
        assert "the next one in" not in node.thaw("ps").text
