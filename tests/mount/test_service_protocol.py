# SPDX-License-Identifier: Apache-2.0
"""The node service's protocol: what is answered, and clients that misbehave."""
import array
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time

import pytest

from support.command import PROJECT, binary, thaw
from support.mounts import wait_until
from support.service import service, thaw_client
from support.tars import member, tar

pytestmark = [pytest.mark.fuse, pytest.mark.root]

NodeError = thaw_client.NodeError
DESCRIPTION = (PROJECT / "fs" / "io.thaw.Node.varlink").read_text()


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(tar(member(b"file", b"data")))
    thaw("pack", work / "x.tar", "--quiet", "-o", work / "env.thaw")
    return work / "env.thaw"


@pytest.fixture
def node(work):
    with service(work, "--linger=0", "--grace=0") as running:
        yield running


def connect(node):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(node.socket))
    return connection


def answers(connection, count):
    received = b""
    while received.count(b"\0") < count:
        data = connection.recv(65536)
        assert data, f"hung up after {received!r}"
        received += data
    return [json.loads(part) for part in received.split(b"\0")[:-1]]


def hung_up(connection):
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def call(method, **parameters):
    return json.dumps({"method": method, "parameters": parameters}).encode() + b"\0"


def test_introspection(node):
    with node.client() as client:
        info = client.call("org.varlink.service.GetInfo")
        assert info["interfaces"] == ["org.varlink.service", "io.thaw.Node"]
        assert info["vendor"] == "thaw" and re.match(r"\d+\.\d+", info["version"])
        for interface in info["interfaces"]:
            text = client.call("org.varlink.service.GetInterfaceDescription",
                               {"interface": interface})["description"]
            assert f"interface {interface}\n" in text
        assert text == DESCRIPTION
        with pytest.raises(NodeError) as caught:
            client.call("org.varlink.service.GetInterfaceDescription", {"interface": "x.y"})
        assert caught.value.name == "InterfaceNotFound"


def test_every_method_that_is_described_is_there(node):
    methods = re.findall(r"^method (\w+)\(", DESCRIPTION, re.M)
    assert len(methods) == 17
    with node.client() as client:
        for method in methods:
            if method == "Drain":
                continue
            try:
                client.call(method, {"no_such_parameter": 1})
                raise AssertionError(f"{method} took anything")
            except NodeError as error:
                assert error.name in ("InvalidParameter", "ExpectedMore"), (method, error)


def test_every_error_that_is_described_has_a_reason(node):
    for line in re.findall(r"^error .*$", DESCRIPTION, re.M):
        assert line.endswith("(reason: string)")


@pytest.mark.parametrize("method, error", [
    ("io.thaw.Node.Nonsense", "org.varlink.service.MethodNotFound"),
    ("io.thaw.Other.List", "org.varlink.service.InterfaceNotFound"),
    ("org.varlink.service.Nonsense", "org.varlink.service.MethodNotFound"),
    ("List", "org.varlink.service.MethodNotFound"), ("", "org.varlink.service.MethodNotFound"),
    ("io.thaw.Node.", "org.varlink.service.MethodNotFound"),
    ("io.thaw.NodeX.List", "org.varlink.service.InterfaceNotFound"),
    (".List", "org.varlink.service.InterfaceNotFound")])
def test_unknown_methods(node, method, error):
    with connect(node) as connection:
        connection.sendall(call(method))
        answer, = answers(connection, 1)
        assert answer["error"] == error
        connection.sendall(call("io.thaw.Node.List"))
        assert answers(connection, 1) == [{"parameters": {"views": []}}]


@pytest.mark.parametrize("bytes_sent", [
    b"\0", b"{}\0", b"[]\0", b"nonsense\0", b'{"method":1}\0', b'{"method":"x","parameters":[]}\0',
    b'{"method":"x","more":true,"oneway":true}\0', b'{"method":"\xff"}\0', b"\xff" * 100 + b"\0",
    b'{"method":"x","parameters":' + b"[" * 60000 + b"]" * 1000 + b"}\0",
    b'{"method":"x","upgrade":true}\0', b"GET / HTTP/1.1\r\n\r\n\0", b"x" * 300000])
def test_nonsense_ends_the_connection(node, bytes_sent):
    with connect(node) as connection:
        try:
            connection.sendall(bytes_sent)
        except OSError:
            pass
        assert hung_up(connection)
    assert node.views() == []
    assert node.metrics()["thaw_clients_dropped_total"] == 1


def test_parameters_of_the_wrong_type(node, image):
    good = {"session": "s", "image": "x", "fd": 0, "directory": "/nowhere"}
    with node.client() as client, open(image, "rb") as stream:
        for key, value in (("session", 1), ("session", None), ("image", []), ("fd", "0"),
                           ("fd", 1), ("fd", -1), ("fd", 2**40), ("directory", {}),
                           ("writable", "yes"), ("shared", 1), ("labels", []), ("layers", {}),
                           ("layers", [1]), ("lease", "x"), ("uid", -1), ("gid", "x"),
                           ("scratch_size", -1), ("warm", 1), ("labels", {"a": 1}),
                           ("labels", {"k" * 300: "v"}), ("more_than_that", 1)):
            with pytest.raises(NodeError) as caught:
                # None: left out
                client.call("Open", {**good, key: value}, [stream.fileno()])
            assert caught.value.name == "InvalidParameter", (key, value, caught.value)
            assert caught.value.parameters == {"parameter": key}
        with pytest.raises(NodeError) as caught:
            client.call("Open", {**good, "layers": [{"image": "x", "fd": 5}]}, [stream.fileno()])
        assert caught.value.parameters == {"parameter": "fd"}
    assert node.views() == []


def test_pipelined_calls_are_answered_in_order(node, image, work):
    with connect(node) as connection, open(image, "rb") as stream:
        first = call("io.thaw.Node.Open", session="s", image="x", fd=0,
                     directory=str(work / "view"))
        connection.sendmsg([first], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                      array.array("i", [stream.fileno()]))])
        connection.sendall(call("io.thaw.Node.List") + call("io.thaw.Node.Close", session="s") +
                           call("io.thaw.Node.List"))
        opened, listed, closed, empty = answers(connection, 4)
        assert opened["parameters"]["view"] in listed["parameters"]["views"]
        assert closed["parameters"] == {"closed": 1} and empty["parameters"] == {"views": []}


def test_oneway(node, image, work):
    with node.client() as client, open(image, "rb") as stream:
        client.send("Open", {"session": "s", "image": "x", "fd": 0,
                             "directory": str(work / "view")}, [stream.fileno()], oneway=True)
        client.send("Nonsense", oneway=True)
        assert [v["session"] for v in client.list()] == ["s"]  # the next answer is this one's


def test_half_closed(node):
    """printf ... | nc: who has said all may still read."""
    with connect(node) as connection:
        connection.sendall(call("io.thaw.Node.List"))
        connection.shutdown(socket.SHUT_WR)
        assert answers(connection, 1) == [{"parameters": {"views": []}}]
        assert hung_up(connection)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_descriptors_are_closed(node, image, work):
    """Those of failed calls, of unknown ones, and those that no parameter names."""
    node.views()
    before = descriptors(node.process.pid)
    with open(image, "rb") as stream:
        for _ in range(20):
            with node.client() as client:
                for method, parameters in (("Open", {"session": ""}), ("Nonsense", {}),
                                           ("List", {})):
                    try:
                        client.call(method, parameters, [stream.fileno()] * 4)
                    except NodeError:
                        pass
                client.send("Open", {"session": "s", "image": "x", "fd": 3, "directory": "rel"},
                            [stream.fileno()] * 4)
    # Fewer, if the first connection's was not closed yet.
    wait_until(lambda: descriptors(node.process.pid) <= before, "descriptors to be closed")


def test_too_many_descriptors(node, image):
    with connect(node) as connection, open(image, "rb") as stream:
        try:
            for _ in range(4):
                connection.sendmsg([b" "], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                             array.array("i", [stream.fileno()] * 10))])
        except OSError:
            pass
        assert hung_up(connection)


def test_slow_reader_is_dropped(node, work):
    """Who asks and does not read is hung up on, and holds nobody else up."""
    with connect(node) as connection:
        question = call("org.varlink.service.GetInterfaceDescription", interface="io.thaw.Node")
        connection.setblocking(False)
        sent = 0
        deadline = time.monotonic() + 60
        while sent < 40000 and time.monotonic() < deadline:
            try:
                sent += connection.send(question) > 0
            except BlockingIOError:
                node.views()  # others are served meanwhile
            except OSError:
                break
        assert node.metrics()["thaw_clients_dropped_total"] == 1
    assert "does not read" in node.log
    resident = node.metrics()["thaw_resident_bytes"]
    assert resident < 64 << 20


def test_watchers_that_do_not_read(node, image, work):
    """Their queue is bounded; the views go on."""
    with connect(node) as connection:
        connection.sendall(json.dumps({"method": "io.thaw.Node.Watch", "more": True}).encode()
                           + b"\0")
        assert answers(connection, 1)[0]["continues"]
        with node.client() as client:
            for _ in range(10):
                client.open("s", str(image), work / "view")
                client.close_view("s")
            assert client.list() == []


def test_watch_needs_more(node):
    with node.client() as client:
        with pytest.raises(NodeError) as caught:
            client.call("Watch")
        assert caught.value.name == "ExpectedMore"


def test_client_that_leaves_while_its_view_is_opened(node, image, work):
    """With the connection its view goes, however far it had come."""
    for number in range(10):
        with connect(node) as connection, open(image, "rb") as stream:
            connection.sendmsg([call("io.thaw.Node.Open", session=f"s{number}", image="x", fd=0,
                                     directory=str(work / f"v{number}"))],
                               [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                 array.array("i", [stream.fileno()]))])
    wait_until(lambda: node.metrics()["thaw_jobs"] == 0 and not node.views(), "the views to end")
    assert [n for n in os.listdir(work) if n.startswith("v")] == []


def test_no_descriptors_left(node, image, work):
    """Out of descriptors the service refuses and goes on; nothing spins."""
    limit = descriptors(node.process.pid) + 20
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
    held = []
    for _ in range(40):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(node.socket))
        held.append(connection)
    time.sleep(0.2)
    before = sum(map(int, open(f"/proc/{node.process.pid}/stat").read().rpartition(")")[2]
                     .split()[11:13]))
    time.sleep(0.5)
    after = sum(map(int, open(f"/proc/{node.process.pid}/stat").read().rpartition(")")[2]
                    .split()[11:13]))
    assert after - before <= 10  # of 50 ticks
    for connection in held:
        connection.close()
    wait_until(lambda: _works(node), "the service to be reachable")
    with node.client() as client:
        client.open("s", str(image), work / "view")
        assert (work / "view" / "file").read_bytes() == b"data"


def _works(node):
    try:
        return node.views() == []
    except OSError:
        return False


def test_socket_activation_and_readiness(node, work, image):
    """As systemd starts it: with the socket that clients are waiting at, and told when ready."""
    node.stop()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(work / "activated"))
    listening.listen()
    notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notified.bind(str(work / "notify"))
    notified.settimeout(20)
    early = socket.socket(socket.AF_UNIX)
    early.settimeout(20)
    early.connect(str(work / "activated"))
    early.sendall(call("io.thaw.Node.List"))
    script = ("import os, sys; os.dup2(int(sys.argv[2]), 3); "
              "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); "
              "os.execv(sys.argv[1], [sys.argv[1], 'serve'])")
    process = subprocess.Popen(
        [sys.executable, "-c", script, binary(), str(listening.fileno())],
        pass_fds=[listening.fileno()],
        env=dict(node.env, NOTIFY_SOCKET=str(work / "notify")), stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    try:
        assert notified.recv(1000).startswith(b"READY=1\n")
        assert answers(early, 1) == [{"parameters": {"views": []}}]
        assert not (node.runtime / "socket").exists()
        process.terminate()
        assert process.wait(20) == 0
        assert notified.recv(1000) == b"STOPPING=1"
        assert (work / "activated").exists()  # it is not ours to remove
    finally:
        process.kill()
        process.wait()
        for one in (listening, notified, early):
            one.close()
    node.start()


def test_units_are_complete():
    """What the units say about the service is true."""
    for place in ("", "user/"):
        unit = (PROJECT / "tools" / "systemd" / f"{place}thaw.service.in").read_text()
        assert "ExecStart=@thaw@ serve\n" in unit and "Type=notify" in unit
        assert "KillMode=process" in unit
        assert not re.search(r"^(Protect|Private|RuntimeDirectory|ReadOnly)", unit, re.M)
        listen = (PROJECT / "tools" / "systemd" / f"{place}thaw.socket").read_text()
        assert ("ListenStream=%t/thaw/socket" if place else "ListenStream=/run/thaw/socket") \
            in listen
