# SPDX-License-Identifier: Apache-2.0
"""The node service and other users: whose views are whose, with whose rights."""
import json
import os
import pathlib
import signal
import stat
import subprocess

import pytest

from support.command import REFUSED, environment, one_error_line, run, thaw
from support.mounts import mount_at, mounted, wait_until
from support.service import Service, identity, image, service, thaw_client  # noqa: F401
from support.tars import member, tar
from support.warm import kill_together

pytestmark = pytest.mark.fuse

NodeError = thaw_client.NodeError


@pytest.fixture
def node(work):
    with service(work, "--linger=0") as running:
        yield running


@pytest.fixture
def home(work, user):
    path = work / "home"
    path.mkdir(mode=0o755)
    os.chown(path, user.pw_uid, user.pw_gid)
    return path


def as_user(node, user, *arguments, **options):
    return node.thaw(*arguments, user=user, **options)


def denied(node, user, word, *arguments, code=REFUSED):
    result = as_user(node, user, *arguments, code=code)
    return one_error_line(result, word)


@pytest.mark.root
def test_a_user_of_roots_service(node, work, image, home, user):
    as_user(node, user, "open", "s", image, home / "view")
    view, = node.views()
    assert view["uid"] == user.pw_uid
    assert (home / "view" / "file").read_bytes() == b"data"
    assert run("cat", home / "view" / "file", user=user).out == b"data"
    link = node.runtime / "sessions" / "s" / "view"
    assert os.lstat(link).st_uid == user.pw_uid
    as_user(node, user, "close", "s")
    assert not (home / "view").exists()


@pytest.mark.root
def test_the_directory_is_looked_at_with_the_callers_rights(node, work, image, home, user):
    (work / "private").mkdir(mode=0o700)
    (work / "roots").mkdir(mode=0o777)
    (work / "roots").chmod(0o777)
    (home / "link").symlink_to(work / "roots")
    (home / "full").mkdir()
    (home / "full" / "x").touch()
    os.chown(home / "full", user.pw_uid, user.pw_gid)
    before = sorted(os.listdir(work))
    denied(node, user, "permission denied", "open", "s", image, work / "private" / "view", code=6)
    denied(node, user, "permission denied", "open", "s", image, work / "view", code=6)
    denied(node, user, "another user", "open", "s", image, work / "roots")
    denied(node, user, "no directory", "open", "s", image, home / "link")
    denied(node, user, "not empty", "open", "s", image, home / "full")
    assert node.views() == [] and sorted(os.listdir(work)) == before
    assert os.listdir(work / "private") == []
    # In a directory that everybody may write to, what is made is the caller's.
    as_user(node, user, "open", "s", image, work / "roots" / "view")
    assert node.views()[0]["directory"] == str(work / "roots" / "view")
    as_user(node, user, "close", "s")
    assert os.listdir(work / "roots") == []


@pytest.mark.root
def test_groups_count_too(node, work, image, home, user):
    """A directory that is open to a supplementary group of the caller's."""
    place = work / "group"
    place.mkdir()
    os.chown(place, 0, 54321)
    place.chmod(0o2775)
    script = ("import os, sys; os.setgroups([54321]); os.setgid(%d); os.setuid(%d); "
              "os.execv(sys.argv[1], sys.argv[1:])" % (user.pw_gid, user.pw_uid))
    run("python3", "-c", script, os.environ["THAW_TEST_BINARY"], "open", "s", image,
        place / "view", env=node.env)
    assert (place / "view" / "file").read_bytes() == b"data"


@pytest.mark.root
def test_a_group_that_is_not_ones_own(node, work, image, home, user):
    """Its rights would be the caller's when the directory is made."""
    (work / "roots").mkdir()
    (work / "roots").chmod(0o770)
    for owner in (f"{user.pw_uid}:0", f"0:{user.pw_gid}"):
        denied(node, user, "only root", "open", f"--user={owner}", "s", image,
               work / "roots" / "view")
    denied(node, user, "permission denied", "open", f"--user={user.pw_uid}", "s", image,
           work / "roots" / "view", code=6)
    assert os.listdir(work / "roots") == [] and node.views() == []
    as_user(node, user, "open", f"--user={user.pw_uid}:{user.pw_gid}", "s", image, home / "view")
    as_user(node, user, "close", "s")


@pytest.mark.root
def test_the_image_is_opened_by_the_caller(node, work, image, home, user):
    """Nobody gets to see through the service what he cannot open himself."""
    image.chmod(0o600)
    denied(node, user, "permission denied", "open", "s", image, home / "view", code=6)
    assert node.views() == []
    # And the other way round: root's service needs no right to the file but the descriptor.
    mine = home / "mine.thaw"
    mine.write_bytes(image.read_bytes())
    os.chown(mine, user.pw_uid, user.pw_gid)
    mine.chmod(0o600)
    as_user(node, user, "open", "s", mine, home / "view")
    assert (home / "view" / "file").read_bytes() == b"data"


@pytest.mark.root
def test_sessions_of_others(node, work, image, home, user):
    with node.client() as client:
        client.open("roots", str(image), work / "view")
        client.open("shared", str(image), work / "shared", shared=True)
    (work / "open").mkdir()
    as_user(node, user, "open", "mine", image, home / "mine")
    with node.client() as client:
        client.open("roots", str(image), work / "view")  # the lease is taken up
        client.open("shared", str(image), work / "shared", shared=True)
        listed = as_user(node, user, "ps").text
        assert "mine" in listed and "shared" in listed and "roots" not in listed
        denied(node, user, "no session", "close", "roots")
        denied(node, user, "another user's", "close", "shared")
        denied(node, user, "another user's", "open", "roots", image, home / "other")
        denied(node, user, "only root", "open", "--user=0", "x", image, home / "other")
        denied(node, user, "there|another", "open", "mine", image, work / "view")
        assert {v["session"] for v in client.list()} == {"roots", "shared", "mine"}
        # Root may close it.
        assert client.close_view("mine") == 1
    assert not (home / "mine").exists()


@pytest.mark.root
def test_what_only_root_may(node, work, image, home, user):
    script = ("import sys; sys.path.insert(0, sys.argv[1])\n"
              "import thaw_client\n"
              "client = thaw_client.Client(sys.argv[2])\n"
              "for method in ('Drain', 'Gc', 'Metrics'):\n"
              "    try:\n"
              "        client.call(method)\n"
              "        print(method, 'allowed')\n"
              "    except thaw_client.NodeError as error:\n"
              "        print(error.name)\n")
    library = node.work / "lib"
    library.mkdir()
    source = pathlib.Path(thaw_client.__file__)
    (library / source.name).write_bytes(source.read_bytes())
    result = run("python3", "-c", script, library, node.socket, user=user)
    assert result.lines == [b"Denied"] * 3


@pytest.mark.root
def test_what_a_user_says_of_an_archive(node, work, home, user):
    """Of an image that root has packed too: root does not go by it."""
    (home / "a.tar").write_bytes(tar(member(b"file", b"data")))
    (home / "a.tar").chmod(0o644)
    node.thaw("open", "s", home / "a.tar", work / "view")
    with node.client() as client:
        packed, = [i for i in client.images() if i["state"] == "known"]
    os.mkfifo(work / "planted")
    (work / "planted").chmod(0o644)
    script = ("import os, sys; sys.path.insert(0, sys.argv[1])\n"
              "import thaw_client\n"
              "client = thaw_client.Client(sys.argv[2])\n"
              "fd = os.open(sys.argv[3], os.O_RDONLY)\n"
              "source = {'source': sys.argv[3], 'fd': 0}\n"
              "client.call('Register', {**source, 'path': sys.argv[4], 'identity': sys.argv[5]}, [fd])\n"
              "answer = client.call('Lookup', source, [fd])\n"
              "print(answer['path'], answer['identity'])\n")
    library = work / "lib"
    library.mkdir()
    (library / "thaw_client.py").write_text(pathlib.Path(thaw_client.__file__).read_text())
    result = run("python3", "-c", script, library, node.socket, home / "a.tar", work / "planted",
                 packed["identity"], user=user)
    assert result.text.split() == [str(work / "planted"), packed["identity"]]  # kept, for him
    with node.client() as client:
        assert [i["path"] for i in client.images() if i["state"] == "known"] == [packed["path"]]
    node.thaw("open", "t", home / "a.tar", work / "second")
    assert os.listdir(node.state / "images") == [os.path.basename(packed["path"])]


@pytest.mark.root
def test_somebody_elses_process(node, work, image, home, user):
    denied(node, user, "another user's", "open", "--lease=pid:1", "s", image, home / "view")
    denied(node, user, "no process", "open", "--lease=pid:2147483647", "s", image, home / "view")
    assert node.views() == []


@pytest.mark.root
def test_root_opens_for_a_user(node, work, image, home, user):
    """As a session manager does: with the user's rights, and the user's from then on."""
    node.thaw("open", f"--user={user.pw_uid}:{user.pw_gid}", "--writable", "s", image,
              home / "view")
    assert node.views()[0]["uid"] == user.pw_uid
    run("sh", "-c", "echo new > new; mkdir e; rm file; mv d/other d/another", cwd=home / "view",
        user=user)
    assert sorted(os.listdir(home / "view")) == ["d", "e", "new"]
    assert os.stat(home / "view" / "new").st_uid == user.pw_uid
    (work / "closed").mkdir(mode=0o700)
    denied_place = work / "closed" / "view"
    result = node.thaw("open", f"--user={user.pw_uid}:{user.pw_gid}", "t", image, denied_place,
                       code=6)
    one_error_line(result, "permission denied")
    as_user(node, user, "close", "s")


@pytest.mark.root
def test_writable_view_of_a_user(node, work, image, home, user):
    """All files are the user's there, those of the image too: so each can be replaced."""
    as_user(node, user, "open", "--writable", "s", image, home / "view")
    run("sh", "-c", "echo more >> file; chmod 600 file; rm -r d; ln -s file link",
        cwd=home / "view", user=user)
    assert (home / "view" / "file").read_bytes() == b"datamore\n"
    assert stat.S_IMODE(os.stat(home / "view" / "file").st_mode) == 0o600
    for name in os.listdir(home / "view"):
        assert os.lstat(home / "view" / name).st_uid == user.pw_uid
    # Root's read-only views have a mount of their own, with root's files.
    with node.client() as client:
        client.open("r", str(image), work / "view")
        assert os.stat(work / "view" / "file").st_uid == 0
        assert {(i["uid"], i["views"]) for i in client.images()} == {(0, 1), (user.pw_uid, 1)}
        client.close_view("r")
    names = os.listdir(node.runtime / "images")
    assert f"{identity(image)}-{user.pw_uid}" in names


@pytest.mark.root
def test_umask_of_whoever_starts_it(work, image, home, user):
    """Root's, on many machines, lets nobody else in; and so may have been earlier ones."""
    before = os.umask(0o077)
    try:
        node = Service(work)
        node.start()
    finally:
        os.umask(before)
    try:
        as_user(node, user, "open", "s", image, home / "view")
        assert run("cat", node.runtime / "sessions" / "s" / "view" / "file",
                   user=user).out == b"data"
        mounted, = node.images()
        assert run("cat", pathlib.Path(mounted["directory"]) / "file", user=user).out == b"data"
        node.drain()
    finally:
        node.kill()


@pytest.mark.root
def test_too_many_connections(node, user):
    """A user who takes all he can get leaves room for others."""
    script = ("import socket, sys\n"
              "sockets = []\n"
              "for _ in range(200):\n"
              "    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sockets.append(s)\n"
              "open_ones = 0\n"
              "for s in sockets:\n"
              "    s.settimeout(2)\n"
              "    try:\n"
              "        s.sendall(b'{\"method\":\"org.varlink.service.GetInfo\"}\\0')\n"
              "        open_ones += s.recv(1) == b'{'\n"
              "    except OSError:\n"
              "        pass\n"
              "print(open_ones, flush=True)\n"
              "sys.stdin.read()\n")
    process = subprocess.Popen(["python3", "-c", script, str(node.socket)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, user=user.pw_uid, group=user.pw_gid,
                               extra_groups=[])
    try:
        assert process.stdout.readline() == b"64\n"
        assert node.views() == []
        assert node.metrics()["thaw_connections_refused_total"] == 136
    finally:
        process.communicate(timeout=20)


@pytest.mark.root
def test_an_image_that_its_user_may_change(node, work, image, home, user):
    """It is the same one, until he cuts it short: then only he is without."""
    own = home / "own.thaw"
    own.write_bytes(image.read_bytes())
    os.chown(own, user.pw_uid, user.pw_gid)
    as_user(node, user, "open", "mine", own, home / "mine")
    as_user(node, user, "open", "also", own, home / "also")
    node.thaw("open", "roots", image, work / "roots")
    as_user(node, user, "open", "shared", image, home / "shared")
    assert {(i["uid"], i["views"]) for i in node.images()} == {(0, 2), (user.pw_uid, 2)}
    os.truncate(own, 100)
    with pytest.raises(OSError):
        (home / "mine" / "file").read_bytes()
    assert (work / "roots" / "file").read_bytes() == b"data"
    assert (home / "shared" / "d" / "other").read_bytes() == b"more"
    # Found again, whose worker is whose.
    node.kill().start()
    assert {(i["uid"], i["views"]) for i in node.images()} == {(0, 2), (user.pw_uid, 2)}
    assert {(v["session"], v["writable"]) for v in node.views()} == {
        (name, False) for name in ("mine", "also", "roots", "shared")}


HANGING = """
import array, os, socket, sys
sys.path.insert(0, sys.argv[1])
import thaw_client
fd = os.open(sys.argv[3], os.O_RDONLY)
print("open", flush=True)
sys.stdin.readline()
def ask(number):
    client = thaw_client.Client(sys.argv[2], timeout=20)
    client.send("Open", {"session": "s", "image": "x", "fd": 0,
                         "directory": f"{sys.argv[4]}/v{number}"}, [fd])
    return client
clients = [ask(number) for number in range(64)]
print("asked", flush=True)
sys.stdin.readline()
for client in clients:
    client.close()
try:
    print(ask(64).receive())
except thaw_client.NodeError as error:
    print(error.name, flush=True)
# Calls that only look at the file, and one that does not come whole.
client = thaw_client.Client(sys.argv[2], timeout=20)
try:
    print(client.call("Lookup", {"source": "/x", "fd": 0}, [fd]))
except thaw_client.NodeError as error:
    print(error.name, flush=True)
client.socket.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
print(client.socket.recv(1), flush=True)
"""


def held(directory):
    """Whether a process has a file open there."""
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link).startswith(f"{directory}/"):
                return True
        except OSError:
            pass  # it has ended, or closed it
    return False


@pytest.mark.root
def test_jobs_that_hang_leave_room_for_root(node, work, image, home, user):
    """With storage that does not answer, here an image inside of a mount that is stopped."""
    library = work / "lib"
    library.mkdir()
    (library / "thaw_client.py").write_text(pathlib.Path(thaw_client.__file__).read_text())
    (work / "outer.tar").write_bytes(tar(member(b"env.thaw", image.read_bytes())))
    thaw("pack", work / "outer.tar", "--quiet", "-o", work / "outer.thaw")
    with mounted(work / "outer.thaw", work / "storage") as storage:
        script = subprocess.Popen(
            ["python3", "-c", HANGING, library, node.socket, storage.path / "env.thaw", home],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=user.pw_uid, group=user.pw_gid,
            extra_groups=[], bufsize=0, env=environment())
        assert script.stdout.readline() == b"open\n"
        stopped = [storage.process.pid, storage.worker]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for task in [t for pid in stopped for t in pathlib.Path(f"/proc/{pid}/task").iterdir()]:
            wait_until(lambda: (task / "stat").read_text().rpartition(")")[2].split()[0] == "T",
                       "the storage to stop")
        try:
            script.stdin.write(b"\n")
            assert script.stdout.readline() == b"asked\n"
            wait_until(lambda: node.metrics()["thaw_jobs"] == 64, "the jobs to hang")
            script.stdin.write(b"\n")
            assert script.stdout.readline() == b"Limit\n"
            assert script.stdout.readline() == b"NotFound\n"
            assert script.stdout.readline() == b"b''\n"
            node.thaw("open", "r", image, work / "view")
            assert (work / "view" / "file").read_bytes() == b"data"
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)
            script.communicate(timeout=20)  # its end closes the file, which waited too
        wait_until(lambda: node.metrics()["thaw_jobs"] == 0, "the jobs to go on")
        with node.client() as client:
            for session in {view["session"] for view in client.list()}:
                client.close_view(session, force=True)
        wait_until(lambda: not node.images(), "the storage not to be in use")
        # The jobs that held a file there have said what they had to, and may not have ended.
        wait_until(lambda: not held(storage.path), "the jobs to end")


def test_service_of_an_ordinary_user(work, image, user):
    """Plain mounts through fusermount3; what needs root says what works without."""
    os.chown(work, user.pw_uid, user.pw_gid)
    with service(work, "--linger=0", user=user) as node:
        as_user(node, user, "open", "s", image, work / "view")
        assert run("cat", work / "view" / "file", user=user).out == b"data"
        entry = mount_at(work / "view")
        assert entry.type == "fuse.thaw" and entry.source == f"thaw:sha256:{identity(image)}"
        as_user(node, user, "open", "s", image, work / "view")
        denied(node, user, "thaw run --writable", "open", "--writable", "s", image, work / "w")
        denied(node, user, "thaw run --layer", "open", "--layer", image, "s", image, work / "w")
        as_user(node, user, "open", "t", image, work / "second")
        listed = as_user(node, user, "ps").text
        assert listed.count(str(user.pw_uid)) >= 2
        as_user(node, user, "close", "s")
        assert mount_at(work / "view") is None and not (work / "view").exists()
        # What stands stays over a restart.
        node.stop().start()
        assert run("cat", work / "second" / "file", user=user).out == b"data"
        as_user(node, user, "close", "t")
        assert as_user(node, user, "ps", "--json").text.count("session") == 0


def test_socket_of_a_user_is_his_own(work, user):
    os.chown(work, user.pw_uid, user.pw_gid)
    with service(work, user=user) as node:
        assert stat.S_IMODE(os.stat(node.socket).st_mode) == 0o600


@pytest.mark.root
def test_a_run_directory_that_is_not_ours(work, user):
    node = Service(work)
    os.chown(node.runtime, user.pw_uid, -1)
    result = node.thaw("serve", code=REFUSED)
    one_error_line(result, "not a directory of our own|belongs|ours")


def test_deaths_under_a_users_service(work, image, user):
    """As under root's: a dead worker or keeper is replaced, and with both the view ends."""
    os.chown(work, user.pw_uid, user.pw_gid)
    with service(work, "--linger=0", user=user) as node:
        as_user(node, user, "open", "s", image, work / "view")

        def look():
            answer = json.loads(as_user(node, user, "stat", "--json", work / "view").out)
            return answer["keeper"], answer["worker"]

        def data():
            return run("cat", work / "view" / "file", user=user).out

        keeper, worker = look()
        os.kill(worker, signal.SIGKILL)
        assert data() == b"data" and look()[1] != worker
        os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: look()[0] not in (0, keeper), "another keeper")
        assert data() == b"data"
        keeper, worker = look()
        kill_together([keeper], [worker])
        wait_until(lambda: not json.loads(as_user(node, user, "ps", "--json").out)["views"],
                   "the view to be given up")
        as_user(node, user, "open", "s", image, work / "view")
        assert data() == b"data"
