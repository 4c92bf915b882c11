# SPDX-License-Identifier: Apache-2.0
"""The node service: opening, sharing, changing and closing views."""
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import threading

import pytest

from support import command, images
from support.command import REFUSED, USAGE, binary, environment, one_error_line, run, thaw
from support.mounts import mount_at, mount_table, wait_until
from support.service import identity, service, thaw_client
from support.tars import member, tar
from support.warm import flip, stored_part

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment as fixtures  # noqa: E402
from wheels import make_wheel  # noqa: E402

pytestmark = [pytest.mark.fuse, pytest.mark.root]

NodeError = thaw_client.NodeError


def pack(path, *members):
    path.with_suffix(".tar").write_bytes(tar(*members))
    thaw("pack", path.with_suffix(".tar"), "--quiet", "-o", path)
    return path


@pytest.fixture
def image(work):
    return pack(work / "env.thaw", member(b"file", b"data"), member(b"bin/tool", b"#!/bin/sh\n"),
                member(b"lib/module.py", b"x = 1\n" * 1000))


@pytest.fixture
def other(work):
    return pack(work / "other.thaw", member(b"file", b"other"), member(b"extra", b"more"))


@pytest.fixture
def node(work):
    with service(work, "--linger=0") as running:
        yield running


def refused(name, call, *args, **options):
    with pytest.raises(NodeError) as caught:
        call(*args, **options)
    assert caught.value.name == name, caught.value
    return caught.value.parameters.get("reason", "")


def test_a_view(node, work, image):
    with node.client() as client:
        view = client.open("s", str(image), work / "view", labels={"application": "x"})
        assert (work / "view" / "file").read_bytes() == b"data"
        with pytest.raises(OSError):
            (work / "view" / "new").write_bytes(b"")
        assert view["session"] == "s" and view["identity"] == identity(image)
        assert view["directory"] == str(work / "view") and view["state"] == "open"
        assert view["labels"] == {"application": "x"} and view["lease"] == {"kind": "connection"}
        assert not view["writable"] and view["layers"] == [] and view["uid"] == 0
        assert client.list() == client.list("s") == [view] == [client.show("s", view["directory"])]
        assert client.list("t") == []
        mounted = mount_at(work / "view")
        assert mounted.type == "overlay" and mounted.source == f"thaw:sha256:{identity(image)}"
        assert {"ro", "nosuid", "nodev"} <= set(mounted.options)
        # To walk with ls.
        link = node.runtime / "sessions" / "s" / "view"
        assert os.readlink(link) == str(work / "view")
        assert sorted(os.listdir(link)) == ["bin", "file", "lib"]
        below = node.runtime / "images" / identity(image)
        assert view["image_directory"] == str(below) and (below / "file").read_bytes() == b"data"

        assert client.close_view("s", work / "view") == 1
        assert not (work / "view").exists()  # it was made with the view
        assert not link.parent.exists()
        assert refused("NotFound", client.close_view, "s")
    wait_until(lambda: not node.images(), "the image to be unmounted")


def test_open_again_is_the_same_view(node, work, image, other):
    with node.client() as client:
        view = client.open("s", str(image), work / "view")
        for directory in (work / "view", str(work / "view") + "/", work / "." / "view"):
            with open(image, "rb") as stream:
                again = client.call("Open", {"session": "s", "image": "x", "fd": 0,
                                             "directory": str(directory)}, [stream.fileno()])
            assert again["repeated"] and again["view"]["id"] == view["id"]
        # By another way to the same place.
        (work / "link").symlink_to(work)
        assert client.open("s", str(image), work / "link" / "view")["id"] == view["id"]
        assert "image" in refused("Exists", client.open, "s", str(other), work / "view")
        assert "session" in refused("Exists", client.open, "t", str(image), work / "view")
        assert "layers" in refused("Exists", client.open, "s", str(image), work / "view",
                                   layers=[str(other)])
        assert "writable" in refused("Exists", client.open, "s", str(image), work / "view",
                                     writable=True)
        assert len(client.list()) == 1
        assert node.metrics()["thaw_launches_total"] == 1


def test_views_share_one_mount(node, work, image):
    with node.client() as client:
        for number in range(5):
            client.open(f"s{number}", str(image), work / f"view{number}")
        assert [i["views"] for i in client.images()] == [5]
        assert sum(m.type == "fuse.thaw" for m in mount_table()
                   if os.fsencode(work) in m.path) == 1
        devices = {os.stat(work / f"view{n}").st_dev for n in range(5)}
        assert len(devices) == 5
        for number in range(4):
            client.close_view(f"s{number}")
        assert (work / "view4" / "file").read_bytes() == b"data"
        assert [i["views"] for i in client.images()] == [1]


def test_an_unused_image_lingers(work, image):
    with service(work, "--linger=3600") as node, node.client() as client:
        client.open("s", str(image), work / "view")
        client.close_view("s")
        assert [(i["state"], i["views"]) for i in client.images()] == [("ready", 0)]
        client.open("s", str(image), work / "view")
        assert node.metrics()["thaw_launches_total"] == 1


def test_directory_that_was_there(node, work, image):
    (work / "empty").mkdir(mode=0o700)
    with node.client() as client:
        client.open("s", str(image), work / "empty")
        client.close_view("s")
    assert stat.S_IMODE(os.stat(work / "empty").st_mode) == 0o700


def test_directories_that_are_refused(node, work, image):
    """Nothing is changed by a refusal."""
    (work / "full").mkdir()
    (work / "full" / "precious").write_bytes(b"1")
    (work / "file").write_bytes(b"1")
    (work / "link").symlink_to("full")
    (work / "dangling").symlink_to("nowhere")
    (work / "mounted").mkdir()
    run("mount", "-t", "tmpfs", "none", work / "mounted")
    try:
        before = sorted(os.listdir(work))
        with node.client() as client:
            for name, word in (("full", "not empty"), ("file", "no directory"),
                               ("link", "no directory"), ("dangling", "no directory"),
                               ("mounted", "mounted there")):
                reason = refused("Refused", client.open, "s", str(image), work / name)
                assert word in reason, reason
            with open(image, "rb") as stream:
                for path in ("relative", "", "/", f"{work}/full/../x", f"{work}/."):
                    refused("Refused", client.call, "Open", {
                        "session": "s", "image": "x", "fd": 0, "directory": path},
                        [stream.fileno()])
            refused("Io", client.open, "s", str(image), work / "missing" / "deeper")
            refused("Io", client.open, "s", str(image), work / ("n" * 300))
            assert client.list() == []
        assert sorted(os.listdir(work)) == before
        assert os.listdir(work / "full") == ["precious"]
    finally:
        run("umount", work / "mounted")


@pytest.mark.parametrize("name", [
    "with blank", "quo'te\"s", "per%cent%s", "back\\slash", "new\nline", "comma,colon:equals=",
    "#hash", "gr\u00fc\u00df \u2603", "-dash", "..x", "n" * 255, "tab\ttab", "$(touch x)"])
def test_odd_directories(node, work, image, name):
    place = work / name
    with node.client() as client:
        assert client.open("s", str(image), place)["directory"] == str(place)
        assert (place / "file").read_bytes() == b"data"
        assert [v["directory"] for v in client.list()] == [str(place)]
        assert os.listdir(node.runtime / "sessions" / "s") == [name]
        client.close_view("s", place)
    assert not place.exists()


def test_session_names(node, work, image):
    with node.client() as client:
        for name in ("", ".", "..", ".hidden", "a/b", "a b", "n" * 129, "\u00fc", "a\n"):
            with pytest.raises(NodeError) as caught:
                client.open(name, str(image), work / "view")
            assert caught.value.parameters == {"parameter": "session"}
        for name in ("a", "n" * 128, "5f2c2f6e-7e0e-4d9e-8e43-b3c4f6b1b3a1", "~!@#$%^&*()=+{}[]|;:'\",<>?"):
            client.open(name, str(image), work / "view")
            client.close_view(name)


def test_what_is_no_image(node, work, image):
    (work / "text").write_bytes(b"no image\n" * 1000)
    (work / "cut").write_bytes(image.read_bytes()[:-1])
    with node.client() as client:
        for name in ("text", "cut"):
            refused("Malformed", client.open, "s", str(work / name), work / "view")
        refused("Io", client.open, "s", "/dev/null", work / "view")
        assert client.list() == [] and client.images() == []
    assert not (work / "view").exists()
    assert node.metrics()["thaw_opens_failed_total"] == 3


def test_damage_behind_a_good_footer(node, work, image):
    """The service looks at the footer only; the worker finds the rest, and its words arrive."""
    data = bytearray(image.read_bytes())
    index = json.loads(thaw("info", "--json", image).out)
    at = data.rfind(b"thaw\r\n") - 400
    data[at] ^= 255
    (work / "bad.thaw").write_bytes(data)
    with node.client() as client:
        name = "Malformed" if index else ""
        assert refused(name, client.open, "s", str(work / "bad.thaw"), work / "view")
        assert client.list() == [] and client.images() == []
    assert not (work / "view").exists()


def test_writable(node, work, image):
    with node.client() as client:
        client.open("a", str(image), work / "a", writable=True)
        client.open("b", str(image), work / "b", writable=True)
        client.open("c", str(image), work / "c")
        (work / "a" / "new").write_bytes(b"mine")
        (work / "a" / "file").write_bytes(b"changed")
        (work / "a" / "lib" / "module.py").unlink()
        assert not (work / "b" / "new").exists() and not (work / "c" / "new").exists()
        assert (work / "b" / "file").read_bytes() == b"data"
        assert (work / "c" / "lib" / "module.py").exists()
        scratch = node.state / "service-scratch"
        assert len([n for n in os.listdir(scratch) if n[0] != "."]) == 2
        client.close_view("a")
        assert len([n for n in os.listdir(scratch) if n[0] != "."]) == 1
        client.open("a", str(image), work / "a", writable=True)
        assert (work / "a" / "file").read_bytes() == b"data"


def test_writable_of_a_size(node, work, image):
    with node.client() as client:
        view = client.open("s", str(image), work / "view", writable=True, scratch_size=1 << 20)
        assert view["scratch_size"] == 1 << 20
        (work / "view" / "small").write_bytes(b"x" * 1000)
        with pytest.raises(OSError):
            (work / "view" / "large").write_bytes(b"x" * (2 << 20))
        assert len(os.listdir(node.runtime / "memory")) == 1
        client.close_view("s")
        assert os.listdir(node.runtime / "memory") == []
        with pytest.raises(NodeError) as caught:
            client.open("s", str(image), work / "view", scratch_size=1 << 20)
        assert caught.value.parameters == {"parameter": "scratch_size"}


def test_layers(node, work, image, other):
    third = pack(work / "third.thaw", member(b"file", b"third"))
    with node.client() as client:
        view = client.open("s", str(image), work / "view", layers=[str(other), str(third)])
        assert (work / "view" / "file").read_bytes() == b"third"
        assert (work / "view" / "extra").read_bytes() == b"more"
        assert (work / "view" / "bin" / "tool").exists()
        assert [x["identity"] for x in view["layers"]] == [identity(other), identity(third)]
        assert [x["image"] for x in view["layers"]] == ["other.thaw", "third.thaw"]
        assert len(client.images()) == 3
        client.close_view("s")
    wait_until(lambda: not node.images(), "the images to be unmounted")


def test_add_layer(node, work, image, other):
    with node.client() as client:
        client.open("s", str(image), work / "view")
        with open(work / "view" / "file", "rb") as stream:
            view = client.add_layer("s", work / "view", str(other))
            assert stream.read() == b"data"  # what is open stays what it was
        assert [x["identity"] for x in view["layers"]] == [identity(other)]
        assert (work / "view" / "file").read_bytes() == b"other"
        assert (work / "view" / "bin" / "tool").exists()
        # Asked for with that layer, it is the same view.
        assert client.open("s", str(image), work / "view", layers=[str(other)])["id"] == view["id"]
        assert len([m for m in mount_table() if m.path == os.fsencode(work / "view")]) == 1


def test_swap(node, work, image, other):
    with node.client() as client:
        client.open("s", str(image), work / "view")
        stream = open(work / "view" / "file", "rb")
        inside = subprocess.Popen(["sh", "-c", "read line; cat file"], cwd=work / "view",
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        view = client.swap("s", work / "view", str(other))
        assert view["identity"] == identity(other)
        assert (work / "view" / "file").read_bytes() == b"other"
        assert stream.read() == b"data"
        stream.close()
        assert inside.communicate(b"\n", timeout=20)[0] == b"data"
        assert mount_at(work / "view").source == f"thaw:sha256:{identity(other)}"
        refused("NotFound", client.swap, "s", work / "nowhere", str(other))
        refused("Malformed", client.swap, "s", work / "view", "/etc/passwd")
        assert (work / "view" / "file").read_bytes() == b"other"
        wait_until(lambda: [i["image"] for i in client.images()] == ["other.thaw"],
                   "the old image to be unmounted")


def test_swap_of_a_busy_writable_view(node, work, image, other):
    """Its scratch layer cannot serve two views: then busy is the answer, and nothing changes."""
    with node.client() as client:
        client.open("s", str(image), work / "view", writable=True)
        (work / "view" / "new").write_bytes(b"mine")
        with open(work / "view" / "new", "ab"):
            refused("Busy", client.swap, "s", work / "view", str(other))
            assert (work / "view" / "file").read_bytes() == b"data"
        client.swap("s", work / "view", str(other))
        assert (work / "view" / "file").read_bytes() == b"other"
        assert (work / "view" / "new").read_bytes() == b"mine"


def test_close_of_a_busy_view(node, work, image):
    with node.client() as client:
        client.open("s", str(image), work / "view")
        with open(work / "view" / "file", "rb") as stream:
            assert "in use" in refused("Busy", client.close_view, "s")
            assert (work / "view" / "file").exists() and client.list()
            assert client.close_view("s", force=True) == 1
            assert not (work / "view").exists() or not os.listdir(work / "view")
            assert stream.read() == b"data"
        assert client.list() == []


def test_attach(node, work, image):
    """The descriptor can be mounted in a namespace where no path leads to the view."""
    (work / "there").mkdir()
    with node.client() as client:
        client.open("s", str(image), work / "view")
        fd = client.attach("s", str(work / "view"))
        script = ("import ctypes, os, sys\n"
                  "libc = ctypes.CDLL(None, use_errno=True)\n"
                  "move_mount = 429\n"
                  "r = libc.syscall(move_mount, int(sys.argv[1]), b'', -100,"
                  " sys.argv[2].encode(), 4)\n"
                  "assert r == 0, os.strerror(ctypes.get_errno())\n"
                  "print(open(sys.argv[2] + '/file').read())\n")
        result = subprocess.run(["unshare", "-m", "python3", "-c", script, str(fd),
                                 str(work / "there")], pass_fds=[fd], capture_output=True,
                                timeout=20, check=False)
        os.close(fd)
        assert result.stdout == b"data\n", result.stderr
        assert mount_at(work / "there") is None


def test_stat(node, work, image):
    with node.client() as client:
        client.open("s", str(image), work / "view")
        (work / "view" / "lib" / "module.py").read_bytes()
        answer = client.stat("s", str(work / "view"))
        assert answer["identity"] == identity(image)
        assert answer["requests"]["lookup"] >= 1 and answer["bytes_decompressed"] > 0


def test_watch(node, work, image):
    events, client = [], node.client()
    ready = threading.Event()

    def listen():
        for event in client.watch(initial=True):
            events.append((event["event"], event.get("view", {}).get("session")))
            if event["event"] == "ready":
                ready.set()
            if event["event"] == "closed" and event["view"]["session"] == "b":
                return

    with node.client() as opener:
        opener.open("a", str(image), work / "a")
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        assert ready.wait(20)
        opener.open("b", str(image), work / "b")
        opener.close_view("b")
        listener.join(20)
        assert not listener.is_alive()
        assert events == [("present", "a"), ("ready", None), ("opened", "b"), ("closed", "b")]
    client.close()


def test_unmounted_by_somebody_else(node, work, image):
    """The mount table is the truth."""
    with node.client() as client:
        client.open("s", str(image), work / "view", writable=True)
        run("umount", work / "view")
        wait_until(lambda: not client.list(), "the view to be missed")
        assert node.metrics()["thaw_views_lost_total"] == 1
        client.open("s", str(image), work / "view")
        assert (work / "view" / "file").read_bytes() == b"data"


def test_moved_by_its_owner(node, work, image):
    """A directory above a view can be renamed; the view then ends, wherever it is."""
    (work / "above").mkdir()
    with node.client() as client:
        client.open("s", str(image), work / "above" / "view")
        (work / "above").rename(work / "elsewhere")
        wait_until(lambda: not client.list(), "the view to be missed")
        wait_until(lambda: not [m for m in mount_table() if m.type == "overlay"
                                and os.fsencode(work) in m.path], "the view to be unmounted")


def test_drain(work, image):
    with service(work) as node:
        with node.client() as client:
            client.open("s", str(image), work / "view")
            assert client.call("Drain") == {"views": 1}
            refused("Draining", client.open, "t", str(image), work / "other")
            # What is there can be taken up and used.
            assert (work / "view" / "file").read_bytes() == b"data"
            client.close_view("s")
        assert node.wait() == 0
        assert not [m for m in mount_table() if os.fsencode(work) in m.path]


def test_metrics(work, image):
    with service(work, f"--metrics={work}/thaw.prom") as node, node.client() as client:
        assert "thaw_views 0\n" in (work / "thaw.prom").read_text()
        client.open("s", str(image), work / "view")
        assert node.metrics()["thaw_views"] == node.metrics()["thaw_images_mounted"] == 1
        wait_until(lambda: "thaw_views 1\n" in (work / "thaw.prom").read_text(), "the file")
        text = (work / "thaw.prom").read_text()
        for line in text.splitlines():
            assert line.startswith(("# HELP thaw_", "# TYPE thaw_", "thaw_")), line
        assert not [n for n in os.listdir(work) if n.endswith(".tmp")]
        client.close_view("s")
        # What is told last is true for as long as nothing happens.
        wait_until(lambda: {"thaw_views 0", "thaw_jobs 0"} <=
                   set((work / "thaw.prom").read_text().splitlines()), "the file")
        node.stop()
        assert "thaw_closes_total 1\n" in (work / "thaw.prom").read_text()
        node.start()


def test_log_lines(node, work, image):
    with node.client() as client:
        client.open("s", str(image), work / "a b\t\"c")
    line, = node.events("opened")
    assert f'directory="{work}/a b\\x09\\"c"' in line and "session=s" in line and "uid=0" in line


def test_one_service_to_a_directory(node, work):
    result = node.thaw("serve", code=REFUSED)
    one_error_line(result, "already")
    # And the first one is not disturbed.
    assert node.views() == []


def test_what_lies_where_the_socket_is_to_be(work):
    """A dead socket is replaced; what is none stays, and so does one that somebody listens to."""
    path = work / "place"
    with service(work, f"--socket={path}") as running:
        others = {**running.env, "THAW_RUNTIME_DIR": str(work / "other"),
                  "THAW_STATE_DIR": str(work / "elsewhere")}
        (work / "other").mkdir()
        (work / "elsewhere").mkdir()
        taken = running.thaw("serve", f"--socket={path}", env=others, code=REFUSED)
        one_error_line(taken, "listens")
        assert running.views() == []
        running.kill()
        assert path.is_socket()
        running.start()
    path.write_text("precious")
    refused = running.thaw("serve", f"--socket={path}", code=REFUSED)
    one_error_line(refused, "no socket")
    assert path.read_text() == "precious"



def test_warm(node, work, image):
    run(binary(), "warm", image, "--", "sh", "-c", "cat $THAW_ENV/lib/module.py",
        env=node.env)
    with node.client() as client:
        view = client.open("s", str(image), work / "view", warm="none")
        answer = client.call("Warm", {"session": "s", "directory": view["directory"]})
        assert answer["pages"] >= 1
        before = client.stat("s", view["directory"])["requests"].get("read", 0)
        (work / "view" / "lib" / "module.py").read_bytes()
        assert client.stat("s", view["directory"])["requests"].get("read", 0) == before


def test_unknown_option(node):
    assert one_error_line(node.thaw("serve", "--nonsense", code=USAGE), "nonsense")
    assert one_error_line(node.thaw("serve", "--linger=x", code=USAGE), "no. a number")
    long = pathlib.Path("/tmp") / ("x" * 120)
    other = dict(node.env, THAW_RUNTIME_DIR=str(node.work / "run2"),
                 THAW_STATE_DIR=str(node.work / "state2"))
    (node.work / "run2").mkdir()
    (node.work / "state2").mkdir()
    assert one_error_line(node.thaw("serve", f"--socket={long}", env=other, code=None), "limit")


# -- genuine environments --

@pytest.fixture(scope="module")
def packed():
    """A venv-pack: its interpreter is this node's, and paths in it are another machine's."""
    return fixtures.get("small")


def python(view, script):
    env = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    return run(view / "bin" / "python", "-c", script, env=env).text.strip()


def test_environment_is_bound_to_its_place(node, work, packed):
    """Each view for its own directory; what was rendered for it goes with it."""
    thaw("pack", packed.archive, "-o", work / "env.thaw", "--quiet")
    layers = node.runtime / "layers"
    with node.client() as client:
        for name in ("a", "b"):
            client.open("s", str(work / "env.thaw"), work / name, writable=name == "b")
            place = str(work / name)
            assert python(work / name, "import sys; print(sys.prefix)") == place
            assert python(work / name, "import attr; print(attr.__file__)").startswith(place)
            assert python(work / name, "import sys; print(sys.base_prefix)") != place
        rendered = [n for n in os.listdir(layers) if not n.startswith(".")]
        assert len(rendered) == 2
        client.close_view("s")
        assert os.listdir(layers) == []
        # In a directory that stays, the next session finds it rendered.
        (work / "kept").mkdir()
        client.open("s", str(work / "env.thaw"), work / "kept")
        client.close_view("s")
        kept, = [n for n in os.listdir(layers) if not n.startswith(".")]
        before = os.stat(layers / kept / "manifest").st_ino
        client.open("s", str(work / "env.thaw"), work / "kept")
        assert os.stat(layers / kept / "manifest").st_ino == before


@pytest.mark.parametrize("padding, place", [(0, "runtime"), (1 << 20, "state")])
def test_small_layers_live_in_the_run_time_directory(node, work, padding, place):
    script = b"#!/x\n_prefix_records = [('a', '/build/env', 'text')]\n"
    image = pack(work / "env.thaw", member(b"bin/conda-unpack", script, mode=0o755),
                 member(b"conda-meta/history"), member(b"conda-meta/x-1-0.json", b"{}"),
                 member(b"a", b"/build/env/lib\n" + b"#" * padding))
    (work / "view").mkdir()
    with node.client() as client:
        client.open("s", str(image), work / "view")
        assert (work / "view" / "a").read_bytes().startswith(bytes(work / "view") + b"/lib\n")
        found = {name: [n for n in os.listdir(store) if not n.startswith(".")]
                 for name in ("runtime", "state")
                 if (store := getattr(node, name) / "layers").exists()}
        assert {name: len(keys) for name, keys in found.items()} == {
            "runtime": 0, "state": 0, place: 1}
        client.close_view("s")
    node.thaw("gc", "--days=0")
    assert not [n for n in os.listdir(getattr(node, place) / "layers") if not n.startswith(".")]


def test_pip_in_a_users_writable_view(node, work, packed, user):
    """Genuine pip, by an ordinary user, in root's service: install, upgrade, remove."""
    pip = pytest.importorskip("pip", reason="needs pip")
    shutil.copytree(pathlib.Path(pip.__file__).parent, work / "pips" / "pip")
    thaw("pack", packed.archive, "-o", work / "env.thaw", "--quiet")
    script = b"[console_scripts]\ntrinket = trinket:main\n"
    code = b"version = %d\ndef main():\n    print('script', version)\n"
    one, two = (make_wheel(work, "trinket", {
        "trinket.py": code % n, f"trinket-{n}.0.dist-info/entry_points.txt": script},
        version=f"{n}.0") for n in (1, 2))
    home = work / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    node.thaw("open", "--writable", "s", work / "env.thaw", home / "env", user=user)
    script = f"""set -e
    python={home}/env/bin/python
    pip() {{ PYTHONPATH={work}/pips "$python" -B -m pip --isolated "$@" >&2; }}
    show() {{
        "$python" -c 'import trinket; print(trinket.version)' 2>/dev/null || echo none
        {home}/env/bin/trinket 2>/dev/null || echo gone
    }}
    pip install --no-index --no-deps {one}
    show
    pip install --no-index --no-deps --upgrade {two}
    show
    pip uninstall --yes trinket
    show
    pip uninstall --yes click
    "$python" -c 'import click' 2>/dev/null || echo none"""
    env = {k: v for k, v in environment(HOME=str(home)).items()
           if not k.startswith(("PYTHON", "PIP_"))}
    out = run("sh", "-c", script, user=user, env=env, cwd=home).text
    assert out.split() == ["1", "script", "1", "2", "script", "2", "none", "gone", "none"]
    # What was bound to this place is his, too; and of a layer of its own.
    for path in [home / "env", *(home / "env").rglob("*")]:
        assert os.lstat(path).st_uid == user.pw_uid, path
    with node.client() as client:
        client.open("r", str(work / "env.thaw"), work / "roots")
        client.open("w", str(work / "env.thaw"), work / "writable", writable=True)
        for name in ("roots", "writable"):
            assert os.lstat(work / name / "bin" / "python").st_uid == 0
        for session in "rw":
            client.close_view(session)
    node.thaw("close", "s", user=user)
    node.thaw("open", "s", work / "env.thaw", home / "env", user=user)
    assert list((home / "env" / "lib").glob("python*/site-packages/click"))


def test_the_index_is_opened_once(node, work, packed):
    """Further views get their own files without it: here it cannot even be read any more."""
    thaw("pack", packed.archive, "-o", work / "env.thaw", "--quiet")
    with node.client() as client:
        client.open("s", str(work / "env.thaw"), work / "a")
        part = stored_part(work / "env.thaw", images.INDEX)
        flip(work / "env.thaw", part.offset + part.size // 2)
        for name in ("b", "c"):
            client.open("s", str(work / "env.thaw"), work / name)
            assert python(work / name, "import sys; print(sys.prefix)") == str(work / name)
        client.close_view("s")
        wait_until(lambda: node.images() == [], "the image to be unmounted")
        assert "damaged: index" in refused("Malformed", client.open, "s",
                                           str(work / "env.thaw"), work / "a")


def test_packages_are_installed_into_a_writable_view(node, work, packed, user):
    """By an ordinary user, in root's service: new, upgraded, removed, and gone with the view."""
    thaw("pack", packed.archive, "-o", work / "env.thaw", "--quiet")
    home = work / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    node.thaw("open", "--writable", "s", work / "env.thaw", home / "env", user=user)
    site = next((home / "env" / "lib").glob("python*")) / "site-packages"
    script = (f"import pathlib, shutil; p = pathlib.Path({str(site)!r}); "
              "(p / 'mine').mkdir(); (p / 'mine' / '__init__.py').write_text('x = 1'); "
              "shutil.rmtree(p / 'attr'); (p / 'tabulate.py').unlink(missing_ok=True); "
              "import mine; print(mine.__file__)")
    env = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    out = run(home / "env" / "bin" / "python", "-c", script, user=user, env=env).text.strip()
    assert out == str(site / "mine" / "__init__.py")
    assert not (site / "attr").exists()
    node.thaw("close", "s", user=user)
    node.thaw("open", "s", work / "env.thaw", home / "env", user=user)
    assert (site / "attr").exists() and not (site / "mine").exists()
