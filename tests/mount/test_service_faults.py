# SPDX-License-Identifier: Apache-2.0
"""The node service when things go wrong, and when there is much of everything."""
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from support import command
from support.cgroups import cgroups  # noqa: F401
from support.command import one_error_line, run, thaw
from support.mounts import mount_at, mount_table, mounts_below, processes, wait_until
from support.service import Service, image, service, thaw_client  # noqa: F401
from support.tars import member, tar
from support.warm import kill_together

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment as fixtures  # noqa: E402

pytestmark = [pytest.mark.fuse, pytest.mark.root]

NodeError = thaw_client.NodeError


@pytest.fixture(scope="module")
def packed():
    return fixtures.get("small")


@contextlib.contextmanager
def disk(work, name, size):
    """A directory of work that has no more space than that."""
    (work / name).mkdir()
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "none", work / name)
    try:
        yield
    finally:
        for entry in reversed(mounts_below(work)):
            run("umount", "-l", os.fsdecode(entry.path), code=None)


def fill(path):
    """Write until there is no space left."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)
    return path


def worker_of(node, client, session, directory):
    return client.stat(session, str(directory))["worker"]


def keepers_of(client):
    return {i["keeper"] for i in client.images() if "keeper" in i}


def keeper_of(client):
    keeper, = keepers_of(client)
    return keeper


def replaced(node, client, view, worker):
    """Whether another worker answers. Here the state is on a disk: see doc/state.md."""
    try:
        return worker_of(node, client, "s", view) != worker
    except NodeError as error:
        if error.name != "Io":
            raise
        return False


# -- much of it --

def test_a_thousand_views(work, image):
    """Nothing is left of them: no mount, descriptor, process, file; and no memory grows."""
    with service(work, "--linger=3600") as node, node.client() as client:
        def look():
            # Asked over the connection that stands: of another one the service may or may
            # not have seen the end when its descriptors are counted.
            wait_until(lambda: node.metrics(client)["thaw_jobs"] == 0, "jobs to end")
            return (len(os.listdir(f"/proc/{node.process.pid}/fd")),
                    len(processes(os.environ["THAW_TEST_ID"])), len(mount_table()),
                    sorted(os.path.join(d, n) for top in (node.runtime, node.state)
                           for d, _, names in os.walk(top) for n in names
                           if not d.startswith(f"{node.runtime}/images/")))

        for number in range(50):
            client.open(f"s{number}", str(image), work / f"v{number}", writable=number % 10 == 0)
            client.close_view(f"s{number}")
        before, memory = look(), node.metrics(client)["thaw_resident_bytes"]
        for number in range(950):
            client.open(f"s{number}", str(image), work / f"v{number}", writable=number % 50 == 0)
            if number >= 10:
                client.close_view(f"s{number - 10}")
        for number in range(940, 950):
            client.close_view(f"s{number}")
        wait_until(lambda: look() == before, f"{before}, and not {look()}")
        assert node.metrics(client)["thaw_opens_total"] == 1000 == node.metrics(client)["thaw_closes_total"]
        assert node.metrics(client)["thaw_launches_total"] == 1
        if not command.sanitized():
            assert node.metrics(client)["thaw_resident_bytes"] - memory < 2 << 20
            assert node.metrics(client)["thaw_resident_bytes"] < 16 << 20
        assert [n for n in os.listdir(work) if n.startswith("v")] == []


def test_many_sessions_decompress_once(work):
    """64 at once, of one image: one worker, each frame once, and each ends by itself."""
    members = [member(b"lib/m%d.py" % n, (b"x%d = %d\n" % (n, n)) * 3000) for n in range(60)]
    (work / "x.tar").write_bytes(tar(*members))
    thaw("pack", work / "x.tar", "--quiet", "-o", work / "env.thaw")
    frames = json.loads(thaw("info", "--json", work / "env.thaw").out)["frames"]
    wrong = []

    def session(number):
        try:
            with node.client() as client:
                place = work / f"v{number}"
                client.open(f"s{number}", str(work / "env.thaw"), place)
                for name in os.listdir(place / "lib"):
                    (place / "lib" / name).read_bytes()
                barrier.wait(60)
                if number:
                    client.close_view(f"s{number}")
        except BaseException as error:  # noqa: B902
            wrong.append((number, error))
            barrier.abort()

    with service(work) as node:
        barrier = threading.Barrier(64)
        threads = [threading.Thread(target=session, args=(n,)) for n in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert not wrong, wrong
        with node.client() as client:
            assert [v["session"] for v in client.list()] == ["s0"]
            stat = client.stat("s0", str(work / "v0"))
            assert stat["cache_misses"] == frames
            assert node.metrics()["thaw_launches_total"] == 1
            assert client.images()[0]["views"] == 1


def test_hundreds_of_views_and_little_memory(work, image):
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "first")
        before = node.metrics()["thaw_resident_bytes"]
        for number in range(200):
            client.open("s", str(image), work / f"v{number}")
        if not command.sanitized():
            assert (node.metrics()["thaw_resident_bytes"] - before) / 200 < 32 << 10
        assert client.close_view("s") == 201


# -- deaths --

def test_worker_killed(work, image):
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view")
        for _ in range(5):
            worker = worker_of(node, client, "s", work / "view")
            os.kill(worker, signal.SIGKILL)
            assert (work / "view" / "d" / "other").read_bytes() == b"more"
            assert worker_of(node, client, "s", work / "view") != worker
        image_now, = client.images()
        assert image_now["restarts"] == 5 and "trouble" in image_now
        assert "restarted 5 times" in node.thaw("ps").text


def test_keeper_killed(work, image):
    """Its worker serves on, and gets a new keeper."""
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view")
        for number in range(3):
            keeper = keeper_of(client)
            worker = worker_of(node, client, "s", work / "view")
            os.kill(keeper, signal.SIGKILL)
            assert (work / "view" / "file").read_bytes() == b"data"
            wait_until(lambda: client.images()[0].get("keeper") not in (None, keeper),
                       "another keeper")
            assert worker_of(node, client, "s", work / "view") == worker
            assert node.metrics()["thaw_keepers_adopted_total"] == number + 1
        os.kill(worker, signal.SIGKILL)
        assert (work / "view" / "file").read_bytes() == b"data"


def test_keeper_killed_while_all_look(work, image):
    """Whoever asks how things are is not in the way of the keeper's successor."""
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view")
        done = threading.Event()
        wrong = []

        def look():
            try:
                with node.client() as own:
                    while not done.is_set():
                        assert own.images()[0]["state"] == "ready"
            except BaseException as error:  # noqa: B902
                wrong.append(error)

        threads = [threading.Thread(target=look) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(10):
                keeper = keeper_of(client)
                os.kill(keeper, signal.SIGKILL)
                wait_until(lambda: wrong or node.metrics(client)["thaw_keepers_adopted_total"] > number,
                           "another keeper")
                assert not wrong, wrong
                assert (work / "view" / "file").read_bytes() == b"data"
        finally:
            done.set()
            for thread in threads:
                thread.join(30)
        assert not wrong, wrong
        assert node.metrics(client)["thaw_keepers_lost_total"] == 0
        assert not node.events("keeper-unknown")


def test_service_killed_while_a_keeper_is_adopting(work, image):
    """The one that its job has started goes on, and the next service finds it."""
    with service(work) as node:
        with node.client() as client:
            client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        for number in range(10):
            with node.client() as client:
                keeper = keeper_of(client)
            os.kill(keeper, signal.SIGKILL)
            threading.Event().wait(number / 1000)
            node.kill().start()
            with node.client() as client:
                # The old one takes its time to die on a busy machine, and is found alive first.
                wait_until(lambda: keepers_of(client) not in (set(), {keeper}), "another keeper")
                worker = worker_of(node, client, "s", work / "view")
                os.kill(worker, signal.SIGKILL)
                # Asks the worker, so that there is another before its keeper is killed.
                wait_until(lambda: replaced(node, client, work / "view", worker), "a worker")
        assert not node.events("keeper-unknown") and not node.events("detached")


def test_keepers_killed_as_soon_as_they_are_known(work, image):
    """
    Also while the job that has found one is about to end. That takes a busy machine: of
    the service that forgot such a death, one run in two of 1,500 rounds failed on one.
    """
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        for _ in range(300):
            keeper = keeper_of(client)
            os.kill(keeper, signal.SIGKILL)
            wait_until(lambda: not keepers_of(client) <= {keeper, 0}, "another keeper")
        assert (work / "view" / "file").read_bytes() == b"data"


def test_keeper_killed_while_the_service_is_away(work, image):
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        keeper = keeper_of(client)
        node.kill()
        os.kill(keeper, signal.SIGKILL)
        assert (work / "view" / "file").read_bytes() == b"data"
        node.start()
        with node.client() as again:
            assert keeper_of(again) != keeper
            assert node.metrics()["thaw_keepers_adopted_total"] == 1
            os.kill(worker_of(node, again, "s", work / "view"), signal.SIGKILL)
            assert (work / "view" / "file").read_bytes() == b"data"


@pytest.mark.parametrize("service_away", [False, True])
def test_keeper_and_worker_killed(work, image, service_away):
    """Nobody serves any more: the view is detached, and can be opened again at once."""
    with service(work) as node, node.client() as client:
        forever = {"kind": "ttl"}
        client.open("s", str(image), work / "view", lease=forever)
        client.open("s", str(image), work / "other", lease=forever, writable=True)
        keeper, worker = keepers_of(client), worker_of(node, client, "s", work / "view")
        second = worker_of(node, client, "s", work / "other")
        if service_away:
            node.kill()
        kill_together(keeper, [worker, second])
        if service_away:
            node.start()
        wait_until(lambda: not node.views(), "the views to be given up")
        wait_until(lambda: not mounts_below(work), "the mounts to be detached")
        with node.client() as again:
            again.open("s", str(image), work / "view")
            assert (work / "view" / "file").read_bytes() == b"data"


def test_stale_mounts_with_something_on_top(work, image):
    """What is dead and ours goes, with everything stacked on it; others' mounts stay."""
    with service(work) as node, node.client() as client:
        client.open("s", str(image), work / "view", lease={"kind": "ttl"})
        keeper, worker = keeper_of(client), worker_of(node, client, "s", work / "view")
        (work / "foreign").mkdir()
        run("mount", "-t", "tmpfs", "none", work / "foreign")
        run("mount", "-t", "tmpfs", "none", work / "view" / "d")
        node.kill()
        os.kill(keeper, signal.SIGKILL)
        os.kill(worker, signal.SIGKILL)
        node.start()
        assert node.views() == []
        assert [os.path.basename(m.path) for m in mounts_below(work)] == [b"foreign"]
        run("umount", work / "foreign")


def test_killed_at_random_during_imports(work, packed):
    """Workers, keepers, the service and other clients: the imports do not notice."""
    thaw("pack", packed.archive, "-o", work / "env.thaw", "--quiet")
    script = "import attr, click, tabulate; print(tabulate.tabulate([[1]]))"
    environment = {k: v for k, v in command.environment().items() if not k.startswith("PYTHON")}
    generator = random.Random(7)
    done = threading.Event()
    killed = {"worker": 0, "keeper": 0, "service": 0, "client": 0}
    wrong = []

    def kill_around():
        try:
            kill_until_done()
        except BaseException as error:  # noqa: B902
            wrong.append(error)

    def kill_until_done():
        while not done.wait(0.05):
            what = generator.choice(sorted(killed))
            try:
                if what == "service":
                    node.kill().start()
                elif what == "client":
                    other = subprocess.Popen([command.binary(), "open", "--lease=ttl:100", "x",
                                              str(work / "env.thaw"), str(work / "x")],
                                             env=node.env, stdout=subprocess.DEVNULL,
                                             stderr=subprocess.DEVNULL)
                    done.wait(generator.choice((0, 0.002, 0.01)))
                    other.kill()
                    other.wait()
                else:
                    pid = serving(what)
                    if not pid:
                        continue
                    os.kill(pid, signal.SIGKILL)
                    # Both dead at once is the end: the next waits for a new one.
                    wait_until(lambda: serving(what) not in (None, pid), f"another {what}")
                killed[what] += 1
            except OSError:
                pass

    def serving(what):
        try:
            with node.client() as client:
                if what == "worker":
                    return client.stat("s", str(work / "view"))["worker"]
                return client.images()[0].get("keeper")
        except (OSError, NodeError, LookupError):
            return None

    with service(work) as node:
        node.thaw("open", "s", work / "env.thaw", work / "view")
        killer = threading.Thread(target=kill_around)
        killer.start()
        try:
            for number in range(12):
                run("sh", "-c", "echo 2 > /proc/sys/vm/drop_caches") if number % 3 == 0 else None
                out = run(work / "view" / "bin" / "python3", "-I", "-c", script, env=environment)
                assert b"1" in out.out
        finally:
            done.set()
            killer.join(60)
        assert not wrong, wrong
        assert sum(killed.values()) >= 5, killed
        assert [v["session"] for v in node.views() if v["session"] == "s"] == ["s"]


def test_service_ends_by_an_error_while_jobs_run(work, image):
    """SIGTERM at any time: exit 0, and the next service finds what is there."""
    with service(work, "--linger=0") as node:
        for number in range(8):
            opener = subprocess.Popen([command.binary(), "open", f"s{number}", str(image),
                                       str(work / f"v{number}")], env=node.env,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_until(lambda: opener.poll() is not None or number % 2 == 0, "the view")
            node.stop()
            opener.wait(20)
            node.start()
            for view in node.views():
                assert (pathlib.Path(view["directory"]) / "file").read_bytes() == b"data"
        assert all(mount_at(v["directory"]) for v in node.views())


@pytest.mark.parametrize("how", ["kill", "restart"])
def test_the_services_whole_cgroup_is_killed(work, image, cgroups, how):  # noqa: F811
    """
    As systemd ends a service: all that is in its cgroup. Keepers are in scopes of their own,
    which a stand-in for systemd-run makes here.
    """
    if os.environ.get("THAW_TEST_NAMESPACE") != "1":
        pytest.skip("needs a mount namespace of its own")
    own, scopes = cgroups
    programs = work / "programs"
    programs.mkdir()
    (programs / "systemd-run").write_text(f"""#!/bin/sh
echo "$*" >>{work}/scopes
echo $$ >{scopes}/cgroup.procs || exit
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
""")
    (programs / "systemd-run").chmod(0o755)
    inside = {"preexec_fn": lambda: (own / "cgroup.procs").write_text("0")}
    run("mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "none", "/run")
    try:
        os.makedirs("/run/systemd/system")
        node = Service(work, "--linger=0", env={"PATH": f"{programs}:{os.environ['PATH']}"})
        try:
            node.start(**inside)
            with node.client() as client:
                client.open("s", str(image), work / "view", lease={"kind": "ttl"})
                keeper = keeper_of(client)
            line, = (work / "scopes").read_text().splitlines()
            assert line.startswith("--scope ") and " --unit=thaw-" in line
            assert str(keeper) in (scopes / "cgroup.procs").read_text().split()
            if how == "restart":
                node.stop()
            (own / "cgroup.kill").write_text("1")
            node.process.wait(20)
            assert (work / "view" / "file").read_bytes() == b"data"
            assert (work / "view" / "d" / "other").read_bytes() == b"more"
            node.start(**inside)
            with node.client() as client:
                assert [v["session"] for v in client.list()] == ["s"]
                assert keeper_of(client) == keeper
            # One that dies is replaced by one in a scope of its own, too.
            os.kill(keeper, signal.SIGKILL)
            wait_until(lambda: node.metrics()["thaw_keepers_adopted_total"] == 1, "a new keeper")
            with node.client() as client:
                assert str(keeper_of(client)) in (scopes / "cgroup.procs").read_text().split()
            first, second = (work / "scopes").read_text().splitlines()
            assert first != second
            node.drain()
        finally:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()
            for entry in reversed(mounts_below(work)):
                run("umount", "-l", os.fsdecode(entry.path), code=None)
    finally:
        run("umount", "-l", "/run")


# -- places --

def test_no_space_for_the_run_time_directory(work, image):
    """A clear error; nothing half made; and what was there goes on."""
    with disk(work, "run", "400k"):
        with service(work, "--linger=0") as node, node.client() as client:
            client.open("first", str(image), work / "first")
            filler = fill(node.runtime / "filler")
            # Neither another image's keeper nor another view's record finds room.
            (work / "y.tar").write_bytes(tar(member(b"file", b"other")))
            thaw("pack", work / "y.tar", "--quiet", "-o", work / "other.thaw")
            with pytest.raises(NodeError) as caught:
                client.open("other", str(work / "other.thaw"), work / "other")
            assert caught.value.name == "Io" and "space" in caught.value.parameters["reason"].lower()
            assert not (work / "other").exists()
            failed = 0
            for number in range(5):
                try:
                    client.open(f"s{number}", str(image), work / f"v{number}")
                except NodeError as error:
                    assert error.name == "Io" and "space" in error.parameters["reason"].lower(), \
                        error
                    failed += 1
            assert (work / "first" / "file").read_bytes() == b"data"
            filler.unlink()
            client.open("after", str(image), work / "after")
            assert len(client.list()) == 2 + 5 - failed


def test_no_space_for_scratch(work, image):
    with disk(work, "state", "600k"):
        with service(work, "--linger=0") as node, node.client() as client:
            filler = fill(node.state / "filler")
            with pytest.raises(NodeError) as caught:
                client.open("s", str(image), work / "view", writable=True)
            assert caught.value.name == "Io" and "space" in caught.value.parameters["reason"].lower()
            assert not (work / "view").exists() and client.list() == []
            client.open("s", str(image), work / "view")  # what needs none works
            client.close_view("s")
            filler.unlink()
            client.open("s", str(image), work / "view", writable=True)
            client.close_view("s")


def test_no_space_for_relocated_files(work, packed):
    """Nothing half made is left, and nothing of it is used when there is space again."""
    tree = work / "tree"
    shutil.copytree(packed.tree, tree, symlinks=True)
    shebang = (tree / "bin" / "tabulate").read_bytes().splitlines()[0]
    (tree / "bin" / "large").write_bytes(shebang + b"\n" + b"#" * (3 << 19))  # smaller ones go to memory
    thaw("pack", tree, "-o", work / "venv.thaw", "--quiet")
    with disk(work, "state", "4m"):
        with service(work, "--linger=3600") as node, node.client() as client:
            filler = fill(node.state / "filler")
            for _ in range(2):
                with pytest.raises(NodeError) as caught:
                    client.open("s", str(work / "venv.thaw"), work / "view")
                assert caught.value.name == "Io"
                assert "space" in caught.value.parameters["reason"].lower()
                assert not (work / "view").exists() and client.list() == []
            assert [n for n in os.listdir(node.state / "layers") if not n.startswith(".")] == []
            filler.unlink()
            client.open("s", str(work / "venv.thaw"), work / "view")
            found = run(work / "view" / "bin" / "python", "-I", "-c",
                        "import attr, sys; print(sys.prefix)").text.strip()
            assert found == str(work / "view")
            client.close_view("s")


def test_read_only_state_directory(work, image):
    """Works, with a warning: state then ends with the boot."""
    if os.environ.get("THAW_TEST_NAMESPACE") != "1":
        pytest.skip("needs a mount namespace of its own")
    run("mount", "-t", "tmpfs", "-o", "ro,size=64k,mode=755", "none", "/var/lib")
    try:
        with service(work, "--linger=0", env={"THAW_STATE_DIR": ""}) as node:
            with node.client() as client:
                client.open("s", str(image), work / "view")
                assert (work / "view" / "file").read_bytes() == b"data"
                client.open("m", str(image), work / "m", writable=True)
                (work / "m" / "new").write_bytes(b"1")
                assert len([n for n in os.listdir(node.runtime / "state" / "service-scratch")
                            if not n.startswith(".")]) == 1
            line, = node.events("state-ends-with-the-boot")
            assert "/var/lib" in line
    finally:
        run("umount", "/var/lib")
    named = dict(node.env, THAW_STATE_DIR=str(work / "ro"))
    (work / "ro").mkdir()
    run("mount", "-t", "tmpfs", "-o", "ro,size=64k,mode=755", "none", work / "ro")
    try:
        one_error_line(node.thaw("serve", env=named, code=command.IO), "read-only")
    finally:
        run("umount", work / "ro")


def test_planted_in_the_run_time_directory(work, image, user):
    """Whoever could write there is root; but a symlink in it is not followed to be removed."""
    with service(work, "--linger=0") as node:
        node.thaw("open", "s", image, work / "view")
        (work / "precious").mkdir()
        (work / "precious" / "file").write_bytes(b"1")
        node.kill()
        (node.runtime / "images" / ("0" * 64)).symlink_to(work / "precious")
        (node.runtime / "sessions" / "evil").symlink_to(work / "precious")
        node.start()
        assert (work / "precious" / "file").read_bytes() == b"1"
        assert len(node.views()) == 1
        (node.runtime / "images" / ("0" * 64)).unlink()
        (node.runtime / "sessions" / "evil").unlink(missing_ok=True)


def test_blocked_standard_error(work, image):
    """A log that nobody reads holds nobody up."""
    node_log = os.pipe()
    with service(work, "--linger=0") as node:
        node.stop()
        os.set_blocking(node_log[1], False)
        try:
            while True:
                os.write(node_log[1], b"x" * 4096)
        except BlockingIOError:
            pass
        os.set_blocking(node_log[1], True)
        node.process = subprocess.Popen([command.binary(), "serve", "--linger=0"], env=node.env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=node_log[1])
        wait_until(lambda: works(node), "the service")
        for number in range(5):
            node.thaw("open", "s", image, work / f"v{number}")
        assert len(node.views()) == 5
    for fd in node_log:
        os.close(fd)


def works(node):
    try:
        return node.views() is not None
    except OSError:
        return False


def test_image_removed_and_truncated(work, image):
    """The open descriptor serves on; damage is that image's alone."""
    shutil.copy(image, work / "second.thaw")
    with service(work, "--linger=0") as node, node.client() as client:
        client.open("s", str(image), work / "view")
        image.unlink()
        assert (work / "view" / "d" / "other").read_bytes() == b"more"
        client.open("t", str(work / "second.thaw"), work / "again")  # the same image
        assert node.metrics()["thaw_launches_total"] == 1
