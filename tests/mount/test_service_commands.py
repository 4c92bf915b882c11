# SPDX-License-Identifier: Apache-2.0
"""thaw open, close, ps, images, stat and gc against a node service."""
import json
import os
import re
import subprocess
import threading

import pytest

from support.command import (IO, REFUSED, USAGE, binary, environment, one_error_line, run,
                             thaw)
from support.mounts import mount_at, wait_until
from support.service import identity, service
from support.tars import member, tar

pytestmark = [pytest.mark.fuse, pytest.mark.root]


@pytest.fixture
def archive(work):
    path = work / "environment.tar.gz"
    (work / "x.tar").write_bytes(tar(member(b"file", b"data"), member(b"d/other", b"more")))
    path.write_bytes(subprocess.run(["gzip", "-c", work / "x.tar"], capture_output=True,
                                    check=True).stdout)
    return path


@pytest.fixture
def image(work, archive):
    thaw("pack", archive, "--quiet", "-o", work / "env.thaw")
    return work / "env.thaw"


@pytest.fixture
def node(work):
    with service(work, "--linger=0") as running:
        yield running


def fails(node, code, word, *arguments, **options):
    return one_error_line(node.thaw(*arguments, code=code, **options), word)


def test_open_and_close(node, work, image):
    assert node.thaw("open", "s", image, work / "view").out == b""
    assert (work / "view" / "file").read_bytes() == b"data"
    answer = json.loads(node.thaw("open", "--json", "s", image, work / "view").out)
    assert answer["repeated"] and answer["view"]["directory"] == str(work / "view")
    # A relative path is the caller's.
    node.thaw("open", "s", image, "second", cwd=work)
    assert (work / "second" / "file").exists()
    fails(node, REFUSED, "no view", "close", "s", work / "third")
    node.thaw("close", "s", "second", cwd=work)
    assert json.loads(node.thaw("close", "--json", "s").out) == {"closed": 1}
    fails(node, REFUSED, "no session", "close", "s")


def test_close_of_what_is_in_use(node, work, image):
    node.thaw("open", "s", image, work / "view")
    with open(work / "view" / "file", "rb"):
        fails(node, IO, "in use", "close", "s")
        node.thaw("close", "--force", "s")
    assert mount_at(work / "view") is None


def test_mistakes(node, work, image):
    fails(node, USAGE, "needed", "open", "s", image)
    fails(node, USAGE, "needed", "open")
    fails(node, USAGE, "needed", "close")
    fails(node, USAGE, "writable", "open", "--scratch-size=1M", "s", image, work / "v")
    fails(node, USAGE, "size", "open", "--writable", "--scratch-size=x", "s", image, work / "v")
    fails(node, USAGE, "label", "open", "--label=x", "s", image, work / "v")
    fails(node, USAGE, "user", "open", "--user=x", "s", image, work / "v")
    fails(node, IO, "no such", "open", "s", work / "missing.thaw", work / "v")
    fails(node, REFUSED, "directory", "open", "s", work, work / "v")
    fails(node, IO, "no such", "open", "s", image, work / "missing" / "v")
    fails(node, REFUSED, "name", "open", "s", image, work / "..")
    fails(node, REFUSED, "parameter|session", "open", "a/b", image, work / "v")
    fails(node, REFUSED, "UTF-8", "open", "s", image, os.fsencode(work) + b"/\xff")
    (work / "junk").write_bytes(b"no archive\n" * 50)
    assert fails(node, None, "junk", "open", "s", work / "junk", work / "v")
    os.mkfifo(work / "fifo")
    for file in (work / "fifo", "/dev/zero"):
        fails(node, REFUSED, "no regular file", "open", "s", file, work / "v")
    assert node.views() == [] and not (work / "v").exists()


def test_without_a_service(work, image):
    env = environment(THAW_RUNTIME_DIR=str(work / "nowhere"))
    for arguments in (("open", "s", image, work / "v"), ("close", "s"), ("images",),
                      ("ps", "--watch"), ("ps", "s"), ("stat", "session/s")):
        result = run(binary(), *arguments, env=env, code=IO)
        assert "no node service" in one_error_line(result) or "nowhere" in one_error_line(result)
    # The mount table is read instead.
    (work / "mnt").mkdir()
    thaw("mount", image, work / "mnt")
    try:
        listed = json.loads(run(binary(), "ps", "--json", env=env).out)
        mine, = [v for v in listed["views"] if v["directory"] == str(work / "mnt")]
        assert mine["identity"] == identity(image) and mine["state"] == "mount"
        assert str(work / "mnt") in run(binary(), "ps", env=env).text
    finally:
        thaw("umount", work / "mnt")


def test_socket_by_option_and_variable(work, image):
    with service(work, f"--socket={work}/other") as node:
        pass_socket = dict(node.env, THAW_RUNTIME_DIR=str(work / "nowhere"))
        run(binary(), "ps", f"--socket={work}/other", env=pass_socket)
        run(binary(), "ps", "s", env=dict(pass_socket, THAW_SOCKET=str(work / "other")))
        run(binary(), "ps", "s", env=pass_socket, code=IO)


def test_ps(node, work, image):
    node.thaw("open", "--label=application=shell", "--label=user=me", "--lease=ttl:500", "s", image,
              work / "view")
    node.thaw("open", "--writable", "t", image, work / "w")
    lines = node.thaw("ps").text.splitlines()
    assert lines[0].split() == ["SESSION", "STATE", "UID", "AGE", "LEASE", "IMAGE", "DIRECTORY"]
    text = {line.split()[0]: line for line in lines[1:]}
    assert "ttl " in text["s"] and text["s"].endswith("application=shell user=me")
    assert "until closed" in text["t"] and "(writable, " in text["t"]
    assert len(node.thaw("ps", "s").text.splitlines()) == 2
    assert len(json.loads(node.thaw("ps", "--json", "t").out)["views"]) == 1
    lines = node.thaw("images").text.splitlines()
    assert len(lines) == 2 and lines[1].split()[0] == identity(image)[:16]
    assert json.loads(node.thaw("images", "--json").out)["images"][0]["views"] == 2


def test_ps_watch(node, work, image):
    process = subprocess.Popen([binary(), "ps", "--watch", "--json"], env=node.env,
                               stdout=subprocess.PIPE)
    try:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        node.thaw("open", "s", image, work / "view")
        assert json.loads(process.stdout.readline())["event"] == "opened"
        node.thaw("close", "s")
        event = json.loads(process.stdout.readline())
        assert event["event"] == "closed" and event["view"]["session"] == "s"
        node.stop()
        process.wait(20)
        assert process.returncode == IO
        node.start()
    finally:
        process.kill()
        process.communicate()


def test_an_archive_is_packed_once(node, work, archive):
    node.thaw("open", "s", archive, work / "view")
    assert (work / "view" / "file").read_bytes() == b"data"
    packed, = [n for n in os.listdir(node.state / "images") if n.endswith(".thaw")]
    assert packed.startswith("environment-")
    before = os.stat(node.state / "images" / packed)
    node.thaw("open", "t", archive, work / "second")
    # Over a restart too, since it is written down.
    node.stop().start()
    node.thaw("open", "u", archive, work / "third")
    after = os.stat(node.state / "images" / packed)
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert node.metrics()["thaw_images_mounted"] == 1
    # Changed: another image.
    (work / "x.tar").write_bytes(tar(member(b"file", b"changed")))
    archive.write_bytes((work / "x.tar").read_bytes())
    node.thaw("open", "v", archive, work / "fourth")
    assert (work / "fourth" / "file").read_bytes() == b"changed"
    assert len([n for n in os.listdir(node.state / "images") if n.endswith(".thaw")]) == 2
    assert not [n for n in os.listdir(node.state / "images") if n.endswith(".lock")]


def test_a_packed_image_that_is_gone_or_another(node, work, archive):
    node.thaw("open", "s", archive, work / "view")
    node.thaw("close", "s")
    packed, = [n for n in os.listdir(node.state / "images") if n.endswith(".thaw")]
    (node.state / "images" / packed).unlink()
    node.thaw("open", "s", archive, work / "view")
    node.thaw("close", "s")
    (work / "other.tar").write_bytes(tar(member(b"file", b"another")))
    thaw("pack", work / "other.tar", "--quiet", "--force", "-o", node.state / "images" / packed)
    node.thaw("open", "s", archive, work / "view")
    assert (work / "view" / "file").read_bytes() == b"data"


def test_many_open_one_archive(node, work, archive):
    """One packs; the others share."""
    wrong = []

    def opener(number):
        try:
            node.thaw("open", f"s{number}", archive, work / f"v{number}")
        except BaseException as error:  # noqa: B902
            wrong.append(error)

    threads = [threading.Thread(target=opener, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong, wrong
    assert len(node.views()) == 8 and node.metrics()["thaw_launches_total"] == 1
    assert [n for n in os.listdir(node.state / "images") if not n.endswith(".thaw")] == []


def test_stat_by_name(node, work, image):
    node.thaw("open", "s", image, work / "view")
    by_path = json.loads(node.thaw("stat", "--json", work / "view").out)
    for name in ("session/s", "s", "image/env", "image/env.thaw", "env",
                 f"image/{identity(image)[:12]}"):
        found = json.loads(node.thaw("stat", "--json", name).out)
        assert (found["identity"], found["worker"]) == (by_path["identity"], by_path["worker"])
    fails(node, REFUSED, "no such session", "stat", "session/x")
    fails(node, REFUSED, "no such image", "stat", "image/x")
    fails(node, IO, "no such file", "stat", "neither", cwd=work)
    # Two views of one session.
    node.thaw("open", "s", image, work / "second")
    found = json.loads(node.thaw("stat", "--json", "session/s").out)
    assert sorted(f["directory"] for f in found) == [str(work / "second"), str(work / "view")]
    assert node.thaw("stat", "s").text.count("identity   sha256:") == 2


def test_stat_of_an_ambiguous_name(node, work, image):
    node.thaw("open", "env", image, work / "view")
    line = fails(node, REFUSED, "ambiguous", "stat", "env")
    assert "session/env" in line and "image/env" in line
    node.thaw("stat", "session/env")
    node.thaw("stat", "image/env")
    node.thaw("open", "view", image, work / "view2")
    line = fails(node, REFUSED, "ambiguous", "stat", "view", cwd=work)
    assert "session/view" in line and "./view" in line
    node.thaw("stat", "./view", cwd=work)


def test_layers_and_writable(node, work, image):
    (work / "x.tar").write_bytes(tar(member(b"file", b"upper")))
    thaw("pack", work / "x.tar", "--quiet", "-o", work / "upper.thaw")
    node.thaw("open", "--layer", work / "upper.thaw", "--writable", "--scratch-size=2M", "s", image,
              work / "view")
    assert (work / "view" / "file").read_bytes() == b"upper"
    (work / "view" / "new").write_bytes(b"1")
    assert node.views()[0]["scratch_size"] == 2 << 20
    (work / "view" / "more").write_bytes(b"x" * (512 << 10))
    node.thaw("open", "--writable", "t", image, work / "other")
    (work / "other" / "more").write_bytes(b"x" * (1 << 20))
    node.thaw("open", "u", image, work / "third")
    shown = node.thaw("ps").text.splitlines()
    assert [line for line in shown if re.search(r"/view \(writable, 5\d\d.\d KiB of 2.0 MiB\)$", line)]
    assert [line for line in shown if re.search(r"/other \(writable, 1.0 MiB\)$", line)]
    assert [line for line in shown if line.endswith("/third")]
    used = {v["session"]: v.get("scratch_used", -1)
            for v in json.loads(node.thaw("ps", "--json").text)["views"]}
    assert 512 << 10 < used["s"] < 1 << 20 <= used["t"] < 2 << 20 and used["u"] == -1
    # Where only a session can be meant, it may be called by its full name.
    assert "/other" in node.thaw("ps", "session/t").text
    node.thaw("close", "session/t")
    assert {view["session"] for view in node.views()} == {"s", "u"}


# -- gc --

def old(path):
    for directory, _, names in os.walk(path):
        for name in [*names, "."]:
            os.utime(os.path.join(directory, name), (1, 1), follow_symlinks=False)


def test_gc(node, work, archive):
    node.thaw("open", "s", archive, work / "view")
    packed, = [n for n in os.listdir(node.state / "images") if n.endswith(".thaw")]
    forgotten = node.state / "layers" / ("ab" * 32)
    recent = node.state / "layers" / ("cd" * 32)
    for layer in (forgotten, recent):
        (layer / "tree").mkdir(parents=True)
        (layer / "tree" / "file").write_bytes(b"x" * 5000)
        (layer / "manifest").write_bytes(b"")
    old(forgotten)
    old(node.state / "images")
    (node.state / "scratch").mkdir(mode=0o755, exist_ok=True)
    left = node.state / "scratch" / "s-abcdef"
    (left / "upper" / "d").mkdir(parents=True)
    (left / "upper" / "d" / "f").write_bytes(b"x" * 9000)
    (left / "work").mkdir()

    dry = json.loads(node.thaw("gc", "--dry-run", "--json").out)
    assert sorted((r["kind"], os.path.basename(r["path"])) for r in dry["removed"]) == [
        ("layers", "ab" * 32), ("scratch", "s-abcdef")]
    assert forgotten.exists() and left.exists()
    assert json.loads(node.thaw("gc", "--json").out) == dry
    assert not forgotten.exists() and not left.exists() and recent.exists()
    assert dry["bytes"] >= 14000
    # In use, however old.
    assert (node.state / "images" / packed).exists()
    assert node.thaw("gc").text == "0 removed, 0 bytes\n"
    node.thaw("close", "s")
    wait_until(lambda: not node.images(), "the image to be unmounted")
    old(node.state / "images")
    assert packed not in node.thaw("gc", "--days=30").text  # it was used today, says the catalogue
    assert packed in node.thaw("gc", "--days=0").text
    assert not (node.state / "images" / packed).exists() and not recent.exists()


def test_gc_spares_layers_in_use_in_other_namespaces(node, work):
    """A private view's overlay is seen in no table but its own namespace's."""
    key = "ef" * 32
    layer = node.state / "layers" / key
    (layer / "tree").mkdir(parents=True)
    (layer / "manifest").write_bytes(b"")
    old(layer)
    for name in ("view", "empty"):
        (work / name).mkdir()
    script = (f"mount -t overlay -o lowerdir={layer}/tree:{work}/empty none {work}/view && "
              "echo ready && read line")
    holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"ready\n"
        assert key not in node.thaw("gc", "--days=0").text
        assert layer.exists()
    finally:
        holder.communicate(b"\n", timeout=20)
    assert key in node.thaw("gc", "--days=0").text


def test_gc_without_a_service(work):
    state = work / "state"
    (state / "layers" / ("ab" * 32) / "tree").mkdir(parents=True)
    old(state / "layers")
    state.chmod(0o755)
    env = environment(THAW_RUNTIME_DIR=str(work / "nowhere"), THAW_STATE_DIR=str(state))
    (work / "nowhere").mkdir()
    assert "ab" * 32 in run(binary(), "gc", "--dry-run", env=env).text
    assert "1 removed" in run(binary(), "gc", env=env).text
    assert [n for n in os.listdir(state / "layers") if not n.startswith(".")] == []
