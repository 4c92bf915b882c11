# SPDX-License-Identifier: Apache-2.0
"""
A client of thaw's node service, and the example of how to speak its protocol.

    with thaw_client.Client() as node:
        view = node.open("session-1", "environment.thaw", "/run/job/environment")
        ...                                  # the view lives as long as the connection
        node.close_view("session-1")

The protocol (doc/protocol.md) is Varlink: JSON objects over a unix socket, each
ended by a NUL; descriptors ride along with the message that names their numbers.
Nothing but the standard library is needed. A client is for one thread at a time.
"""
import array
import json
import os
import socket

INTERFACE = "io.thaw.Node"
REPLY_MAX = 8 << 20
FDS_MAX = 16


class NodeError(Exception):
    """An error that the service has answered: its name ("NotFound") and parameters."""

    def __init__(self, error, parameters):
        self.name = error.rpartition(".")[2]
        self.parameters = parameters
        super().__init__(f"{self.name}: {parameters.get('reason', parameters)}")


def places():
    """Sockets to try, in this order."""
    named = os.environ.get("THAW_SOCKET")
    if named:
        return [named]
    base = os.environ.get("THAW_RUNTIME_DIR")
    if base:
        return [os.path.join(base, "socket")]
    found = []
    if os.geteuid() != 0:
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        found.append(f"{runtime}/thaw/socket" if runtime else f"/tmp/thaw-{os.geteuid()}/socket")
    return found + ["/run/thaw/socket"]


class Client:
    def __init__(self, path=None, timeout=None):
        self.received = bytearray()
        self.fds = []
        error = None
        for place in [path] if path else places():
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            try:
                self.socket.connect(place)
                return
            except OSError as caught:
                self.socket.close()
                error = caught
        raise error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Hang up. Views of this connection end when their grace is over."""
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    # Messages

    def send(self, method, parameters=None, fds=(), more=False, oneway=False):
        message = {"method": method if "." in method else f"{INTERFACE}.{method}",
                   "parameters": {k: v for k, v in (parameters or {}).items() if v is not None}}
        if more:
            message["more"] = True
        if oneway:
            message["oneway"] = True
        data = json.dumps(message).encode() + b"\0"
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], control)
        if sent < len(data):
            self.socket.sendall(data[sent:])

    def receive(self):
        """The next answer: (parameters, whether more follow)."""
        while b"\0" not in self.received:
            data, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(4 * FDS_MAX))
            for level, kind, value in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(value[:len(value) - len(value) % 4])
                    self.fds += received
            if not data:
                raise ConnectionResetError("the node service has hung up")
            self.received += data
            if len(self.received) > REPLY_MAX:
                raise ConnectionError("the node service's answer is too long")
        data, _, self.received = self.received.partition(b"\0")
        message = json.loads(data.decode())
        if "error" in message:
            raise NodeError(message["error"], message.get("parameters") or {})
        return message.get("parameters") or {}, message.get("continues", False)

    def call(self, method, parameters=None, fds=()):
        self.send(method, parameters, fds)
        return self.receive()[0]

    # Methods

    def open(self, session, image, directory, **options):
        """
        Open a view and return it. options: writable, scratch_size, shared, warm,
        labels={}, uid, gid, layers=[paths of images], lease={"kind": "process",
        "pid": N} or {"kind": "ttl", "seconds": N}; without one, the connection's.
        """
        layers = options.pop("layers", ())
        fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in (image, *layers)]
        try:
            return self.call("Open", {
                "session": session, "image": os.path.basename(image), "fd": 0,
                "directory": os.path.abspath(directory), **options,
                "layers": [{"image": os.path.basename(path), "fd": number}
                           for number, path in enumerate(layers, 1)]}, fds)["view"]
        finally:
            for fd in fds:
                os.close(fd)

    def change(self, method, session, directory, image):
        fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.call(method, {"session": session, "directory": os.path.abspath(directory),
                                      "image": os.path.basename(image), "fd": 0}, [fd])["view"]
        finally:
            os.close(fd)

    def swap(self, session, directory, image):
        """Put another image in the place of a view's; what runs keeps the old one."""
        return self.change("Swap", session, directory, image)

    def add_layer(self, session, directory, image):
        """Stack one more image over a view's."""
        return self.change("AddLayer", session, directory, image)

    def close_view(self, session, directory=None, force=None):
        """End one view of a session, or all; returns how many."""
        directory = directory and os.path.abspath(directory)
        return self.call("Close", {"session": session, "directory": directory,
                                   "force": force})["closed"]

    def renew(self, session):
        return self.call("Renew", {"session": session})["renewed"]

    def list(self, session=None):
        return self.call("List", {"session": session})["views"]

    def images(self):
        return self.call("Images")["images"]

    def show(self, session, directory):
        return self.call("Show", {"session": session, "directory": directory})["view"]

    def stat(self, session, directory):
        return self.call("Stat", {"session": session, "directory": directory})

    def attach(self, session, directory):
        """A descriptor of a detached clone of the view's mount, for move_mount(2)."""
        answer = self.call("Attach", {"session": session, "directory": directory})
        fds, self.fds = self.fds, []
        return fds[answer["fd"]]

    def watch(self, initial=False):
        """Yield events; use a client of its own for this."""
        self.send("Watch", {"initial": initial}, more=True)
        more = True
        while more:
            event, more = self.receive()
            yield event
