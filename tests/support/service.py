# SPDX-License-Identifier: Apache-2.0
"""A node service of the test's own, that leaves nothing behind."""
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys

import pytest

from .command import PROJECT, binary, check_sanitizers, environment, run, thaw
from .mounts import END_TIMEOUT, READY_TIMEOUT, detach, mounts_below, wait_until
from .tars import member, tar

sys.path.insert(0, str(PROJECT / "tools" / "python"))

import thaw_client  # noqa: E402

TIMEOUT = 30


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(tar(member(b"file", b"data"), member(b"d/other", b"more")))
    thaw("pack", work / "x.tar", "--quiet", "-o", work / "env.thaw")
    return work / "env.thaw"


class Service:
    """thaw serve in directories below work."""

    def __init__(self, work, *options, user=None, env=None, run_directory=None):
        self.work, self.options, self.user = work, options, user
        self.runtime = run_directory or work / "run"
        self.state = work / "state"
        self.socket = next((option.partition("=")[2] for option in options
                            if option.startswith("--socket=")), self.runtime / "socket")
        self.log_path = work / "serve.log"
        self.env = {**environment(THAW_RUNTIME_DIR=str(self.runtime),
                                  THAW_STATE_DIR=str(self.state)), **(env or {})}
        self.process = None
        for directory in (self.runtime, self.state):
            directory.mkdir(exist_ok=True, mode=0o755)
            if user is not None:
                os.chown(directory, user.pw_uid, user.pw_gid)

    def start(self, **options):
        """Start it, and return when it can be called."""
        if self.user is not None:
            options.update(user=self.user.pw_uid, group=self.user.pw_gid, extra_groups=[])
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [binary(), "serve", *map(str, self.options)], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env=self.env, **options)

        def ready():
            code = self.process.poll()
            assert code is None, f"thaw serve ended with {code}: {self.log}"
            try:
                # Not the one before, whose socket a child of its last moment may have yet.
                with self.client() as client:
                    peer = client.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    return struct.unpack("iII", peer)[0] == self.process.pid
            except OSError:
                return False

        wait_until(ready, "the service", READY_TIMEOUT)
        return self

    @property
    def log(self):
        return self.log_path.read_bytes().decode(errors="replace")

    def events(self, name):
        return [line for line in self.log.splitlines() if f"event={name} " in line + " "]

    def client(self):
        return thaw_client.Client(str(self.socket), timeout=TIMEOUT)

    def thaw(self, *args, **options):
        options.setdefault("env", self.env)
        return run(binary(), *args, **options)

    def views(self, session=None):
        with self.client() as client:
            return client.list(session)

    def images(self):
        """Those that are mounted."""
        with self.client() as client:
            return [image for image in client.images() if image["state"] != "known"]

    def metrics(self, client=None):
        with contextlib.nullcontext(client) if client else self.client() as one:
            text = one.call("Metrics")["text"]
        return {line.split()[0]: int(line.split()[1])
                for line in text.splitlines() if not line.startswith("#")}

    def stop(self):
        """As for an upgrade: views stay."""
        self.process.send_signal(signal.SIGTERM)
        assert self.wait() == 0, self.log
        return self

    def kill(self):
        self.process.kill()
        self.process.wait(END_TIMEOUT)
        return self

    def wait(self):
        code = self.process.wait(END_TIMEOUT)
        check_sanitizers(self.log_path.read_bytes(), "thaw serve")
        return code

    def drain(self):
        """Close everything, and see that nothing is left."""
        with self.client() as client:
            # What was asked for by a client that was killed may yet become a view.
            wait_until(lambda: self.metrics(client)["thaw_jobs"] == 0, "jobs to end")
            for session in {view["session"] for view in client.list()}:
                try:
                    client.close_view(session, force=True)
                except thaw_client.NodeError as error:
                    assert error.name == "NotFound", error  # its lease has ended meanwhile
            client.call("Drain")
        assert self.wait() == 0, self.log
        left = [os.fsdecode(m.path) for m in mounts_below(self.work)
                if m.source.startswith("thaw:")]
        assert not left, f"mounts left: {left}"
        for name in ("sessions", "images", "memory", "keepers"):
            left = os.listdir(self.runtime / name)
            assert not left, f"left in {name}: {left}"
        scratch = self.state / "service-scratch"
        left = [n for n in os.listdir(scratch) if not n.startswith(".")] if scratch.exists() else []
        assert not left, f"scratch left: {left}"


@contextlib.contextmanager
def service(work, *options, **more):
    """Ends with a drain: views that are left are closed, and then nothing may be there."""
    node = Service(work, *options, **more)
    try:
        yield node.start()
        if node.process.poll() is None:
            node.drain()
    finally:
        if node.process is not None and node.process.poll() is None:
            node.process.kill()
            node.process.wait(END_TIMEOUT)
        for entry in reversed(mounts_below(work)):
            detach(entry)


def identity(image):
    return json.loads(run(binary(), "info", "--json", image).out)["identity"]
