# SPDX-License-Identifier: Apache-2.0
"""Views of one command: places of their own, and what may be left of them (nothing)."""
import os
import pathlib

import pytest

from . import command
from .command import binary
from .mounts import mount_table, processes, wait_until
from .warm import require_views

THAW, NOT_RUN, NOT_FOUND = 125, 126, 127

# What thaw starts beside those that serve.
HELPERS = ("thaw-holder", "thaw-janitor")


@pytest.fixture(autouse=True)
def places(work, monkeypatch):
    """
    Run-time and state directories of the test's own: otherwise two tests at once, with
    views of one image, would share its worker.
    """
    made = []
    for name, variable in (("run", "THAW_RUNTIME_DIR"), ("state", "THAW_STATE_DIR")):
        (work / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(work / name))
        made.append(work / name)
    return made


@pytest.fixture(params=["root", "user"])
def who(request, work, places):
    """Options for run(): as root (or whoever runs the tests), and as somebody else."""
    if request.param == "root":
        require_views()
        return {"cwd": work}
    user = request.getfixturevalue("user")
    require_views(user)
    for path in (work, *places):
        os.chown(path, user.pw_uid, user.pw_gid)
    return {"cwd": work, "user": user}


@pytest.fixture(autouse=True)
def leaves_nothing(work, places):
    """
    No mount outside, ever; no process once the last one inside has ended; no scratch layer,
    no socket.
    """
    # Others mount and unmount at the same time; they do not use thaw in this namespace.
    def ours():
        return [m.path for m in mount_table() if m.type == "fuse.thaw" or
                m.source.startswith("thaw:") or m.path.startswith(os.fsencode(work))]

    before = ours()
    yield
    wait_until(lambda: not processes(os.environ[command.MARKER]), "the worker to end")
    assert ours() == before
    assert scratch_layers(work) == [] and sockets(work) == []


def scratch_layers(work):
    try:
        return sorted(name for name in os.listdir(work / "state" / "scratch") if name != ".lock")
    except FileNotFoundError:
        return []


def sockets(work):
    """Of holders, to whom further views of the same images come."""
    try:
        return sorted(name for name in os.listdir(work / "run" / "share") if name != "lock")
    except FileNotFoundError:
        return []


def comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def of_thaw(*held):
    """{pid: name} of thaw's own processes, beside these commands."""
    return {pid: comm(pid) for pid, name in processes(os.environ[command.MARKER]).items()
            if name.startswith(binary()) and pid not in [process.pid for process in held]}


def parent(pid):
    """None for one that is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def serving(*held):
    """Those that serve, without their children."""
    found = [pid for pid, name in of_thaw(*held).items() if name not in HELPERS]
    return [pid for pid in found if parent(pid) not in (None, *found)]


def served_by(count, *held):
    """The same, once there are just so many: others live for a moment, as things start and end."""
    def found():
        now = serving(*held)
        return now if len(now) == count else None
    return wait_until(found, f"{count} to serve")
