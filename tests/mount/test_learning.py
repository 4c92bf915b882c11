# SPDX-License-Identifier: Apache-2.0
"""What the first mount of an image learns, and what the next one makes of it."""
import json
import os
import signal
import subprocess
import time

import pytest

from support.command import environment, run, thaw
from support.mounts import wait_until
from support.service import service
from support.tars import directory, member, tar
from support.warm import IMPORT, image

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def import_from(view):
    run(view / "bin" / "python", "-B", "-c", IMPORT)


def end_mounts(node):
    """With --linger=0: until what was learned is stored, and nothing is mounted."""
    wait_until(lambda: node.images() == [] and node.metrics()["thaw_jobs"] == 0, "images to end")


class Session:
    def __init__(self, node, client, path, name, **options):
        self.client, self.name, self.node = client, name, node
        self.view = node.work / f"view-{name}"
        client.open(name, str(path), self.view, **options)

    def stat(self):
        return self.client.stat(self.name, str(self.view))

    def warmed(self):
        wait_until(lambda: self.stat()["warm_state"] in ("finished", "stopped"), "the warmer")
        assert self.stat()["warm_state"] == "finished"
        return self

    def close(self):
        self.client.close_view(self.name)
        end_mounts(self.node)


def learn(node, client, path, use=import_from, name="first"):
    session = Session(node, client, path, name)
    found = session.stat()
    assert found["warm_source"] == "learning" and found["warm_state"] == "none"
    use(session.view)
    found = session.stat()
    session.close()
    return found["requests"]


def test_second_mount_is_warm(work):
    path = image("small", work)
    with service(work, "--linger=0") as node, node.client() as client:
        first = learn(node, client, path)
        assert first["read"] > 10 and first["lookup"] > 20
        assert len(node.events("learned")) == 1
        session = Session(node, client, path, "second").warmed()
        before = session.stat()
        assert before["warm_source"] == "learned"
        assert before["warm_pages"] == before["warm_pages_total"] > 20
        import_from(session.view)
        after = session.stat()
        assert after["requests"].get("read", 0) == 0 and after["bytes_read"] == 0
        looked = after["requests"].get("lookup", 0) - before["requests"].get("lookup", 0)
        assert looked * 10 < first["lookup"]
        # Each frame once.
        assert after["warm_pages_read"] == after["warm_overtaken"] == 0
        shown, = json.loads(node.thaw("ps", "--json").out)["views"]
        assert shown["warm_source"] == "learned"
        text = node.thaw("stat", "session/second").text
        assert "learned from an earlier mount" in text
        session.close()
        # What serves is not learned again.
        assert len(node.events("learned")) == 1


def test_survives_the_service(work):
    """One that recorded for the service before is heard by this one; then a restart."""
    path = image("small", work)
    with service(work, "--linger=0") as node:
        with node.client() as client:
            session = Session(node, client, path, "first", lease={"kind": "ttl"})
            import_from(session.view)
        node.kill()
        node.start()
        with node.client() as client:
            client.close_view("first")
            end_mounts(node)
            assert len(node.events("learned")) == 1
        node.stop()
        node.start()
        with node.client() as client:
            session = Session(node, client, path, "second").warmed()
            assert session.stat()["warm_source"] == "learned"
            import_from(session.view)
            assert session.stat()["requests"].get("read", 0) == 0
            session.close()


def test_another_image_of_the_same_name(work):
    """Traces belong to what an image holds, not to its name."""
    path = image("small", work)
    other = work / "other.tar"
    other.write_bytes(tar(directory(b"lib/"), member(b"lib/x", bytes(100000))))
    with service(work, "--linger=0") as node, node.client() as client:
        learn(node, client, path)
        path.unlink()
        thaw("pack", other, "-o", path, "--quiet")
        session = Session(node, client, path, "second")
        found = session.stat()
        assert found["warm_source"] == "learning" and found["warm_pages_total"] == 0
        assert (session.view / "lib" / "x").read_bytes() == bytes(100000)
        session.close()
        # Too little to be worth a record.
        assert len(node.events("learned")) == 1


def test_looking_around_teaches_nothing(work):
    path = image("small", work)
    with service(work, "--linger=0") as node, node.client() as client:
        learn(node, client, path, use=lambda view: run("ls", "-lR", view))
        assert node.events("learned") == []
        learn(node, client, path, name="second")
        assert len(node.events("learned")) == 1


@pytest.mark.parametrize("how", ["--no-learn", "warm", "warmed"])
def test_off(work, how):
    """Switched off, declined for one view, or not needed since there is a warm set."""
    path = image("small-warmed" if how == "warmed" else "small", work)
    options = ["--no-learn"] if how == "--no-learn" else []
    with service(work, "--linger=0", *options) as node, node.client() as client:
        more = {"warm": "none"} if how == "warm" else {}
        session = Session(node, client, path, "first", **more)
        expected = "image" if how == "warmed" else "none"
        assert session.stat()["warm_source"] == expected
        import_from(session.view)
        assert os.listdir(next((node.runtime / "keepers").iterdir())) == ["state"]
        session.close()
        assert node.events("learned") == []


def damage(path):
    """The record of a trace: found by the workload's name, with which its payload begins."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"\7learned")
    data[at + 40] ^= 0x40
    path.write_bytes(data)


def test_damaged_record(work):
    """It is dropped; the session sees nothing of it, and teaches anew."""
    path = image("small", work)
    with service(work, "--linger=0") as node:
        with node.client() as client:
            learn(node, client, path)
        node.stop()
        damage(node.state / "catalogue" / "images.mdb")
        node.start()
        with node.client() as client:
            learn(node, client, path, name="second")
            assert len(node.events("learned")) == 2
            session = Session(node, client, path, "third").warmed()
            assert session.stat()["warm_source"] == "learned"
            session.close()


def test_worker_killed_while_learning(work):
    """The next worker goes on recording: the second import needs what both have seen."""
    path = image("small", work)
    with service(work, "--linger=0") as node, node.client() as client:
        def use(view):
            run(view / "bin" / "python", "-B", "-c", "import attr")
            worker = client.stat("first", str(view))["worker"]
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: client.stat("first", str(view))["worker"] != worker, "a worker")
            import_from(view)
        learn(node, client, path, use=use)
        session = Session(node, client, path, "second").warmed()
        import_from(session.view)
        assert session.stat()["requests"].get("read", 0) == 0
        session.close()


def test_mount_that_others_keep(work):
    """A mount namespace that was copied meanwhile keeps the mount, and its keeper, alive."""
    path = image("small", work)
    with service(work, "--linger=0") as node, node.client() as client:
        holders, keepers = [], []

        def use(view):
            import_from(view)
            keepers.extend(i["keeper"] for i in node.images())
            holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "cat"],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            holders.append(holder)
            holder.stdin.write(b"x")
            holder.stdin.flush()
            assert holder.stdout.read(1) == b"x"  # it has its namespace

        try:
            learn(node, client, path, use=use)
            assert len(node.events("learned")) == 1
            assert os.path.exists(f"/proc/{keepers[0]}")  # or this tests nothing
        finally:
            for holder in holders:
                holder.communicate()
        wait_until(lambda: not os.path.exists(f"/proc/{keepers[0]}"), "the keeper's end")


def test_gc(work):
    path = image("small", work)
    with service(work, "--linger=0") as node, node.client() as client:
        learn(node, client, path)

        def traces(*options):
            report = json.loads(node.thaw("gc", "--json", *options).out)
            return [e for e in report["removed"] if e["kind"] == "trace"]

        assert traces("--dry-run", "--days=30") == []
        time.sleep(1.1)  # times are in seconds
        entry, = traces("--dry-run", "--days=0")
        assert entry["bytes"] > 1000
        assert traces("--days=0") == [entry]
        assert traces("--days=0") == []
        learn(node, client, path, name="second")
