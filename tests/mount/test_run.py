# SPDX-License-Identifier: Apache-2.0
"""thaw run: a private view, seen by one command, gone with it, and no trace of thaw inside."""
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time

import pytest

from support import command
from support.command import binary, one_error_line, run, start, thaw
from support.mounts import processes, wait_until
from support.views import (NOT_FOUND, NOT_RUN, THAW, comm, leaves_nothing, places,  # noqa: F401
                           served_by, who)
from support.warm import IMPORT, children, image, require_views, warm_sets

pytestmark = pytest.mark.fuse

@pytest.fixture
def small(work):
    return image("small-warmed", work)


def failed(result, code, word):
    assert result.code == code, repr(result)
    assert result.out == b""
    one_error_line(result, word)


def test_sees_the_environment(small, work, who):
    result = thaw("run", small, "--", "sh", "-c", 'command -v tabulate; echo "$THAW_ENV"; '
                  'echo "$PATH"; ls "$THAW_ENV"; pwd', **who)
    lines = result.text.splitlines()
    assert lines[0] == f"{lines[1]}/bin/tabulate"
    assert lines[2].startswith(f"{lines[1]}/bin:") and lines[2].endswith(os.environ["PATH"])
    assert lines[3:8] == ["bin", "include", "lib", "lib64", "pyvenv.cfg"]
    assert lines[8] == str(work)
    assert result.err == b""
    # Nobody else sees anything of it.
    assert not os.path.exists(os.path.join(lines[1], "pyvenv.cfg"))


def test_import(small, who):
    """With an interpreter of the machine's, since the environment's lies in root's home."""
    script = ('PYTHONPATH=$(echo "$THAW_ENV"/lib/python3*/site-packages) '
              f"exec /usr/bin/python3 -B -c '{IMPORT}; print(click.__file__)'")
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("needs /usr/bin/python3")
    for options in ([], ["--warm=none"], ["--wait-warm"], ["--warm=default", "--wait-warm"]):
        result = thaw("run", *options, small, "--", "sh", "-c", script, **who)
        assert "/site-packages/click/__init__.py" in result.text


@pytest.mark.parametrize("script, code", [
    ("exit 0", 0), ("exit 1", 1), ("exit 3", 3), ("exit 124", 124), ("exit 255", 255),
    ("kill -TERM $$", -signal.SIGTERM), ("kill -KILL $$", -signal.SIGKILL)])
def test_exit_status_is_the_commands(small, script, code):
    require_views()
    result = thaw("run", small, "sh", "-c", script, code=code)
    assert (result.out, result.err) == (b"", b"")


def test_exit_status_of_thaw(small, work, who):
    (work / "text").write_text("no program\n")
    (work / "text").chmod(0o644)
    (work / "bad.thaw").write_bytes(small.read_bytes()[:-1])
    go = {**who, "code": None}
    failed(thaw("run", small, "--", "no-such-command", **go), NOT_FOUND, "no-such-command")
    failed(thaw("run", small, "--", "./missing", **go), NOT_FOUND, "missing")
    failed(thaw("run", small, "--", "./text", **go), NOT_RUN, "text")
    failed(thaw("run", small, "--", "/", **go), NOT_RUN, "denied|directory")
    failed(thaw("run", "missing.thaw", "--", "true", **go), THAW, "missing.thaw")
    failed(thaw("run", "bad.thaw", "--", "true", **go), THAW, "bad.thaw")
    failed(thaw("run", "--warm=nonsense", small, "--", "true", **go), THAW, "no warm set")
    failed(thaw("run", **go), THAW, "command")
    failed(thaw("run", small, **go), THAW, "command")
    failed(thaw("run", "--nonsense", small, "--", "true", **go), THAW, "--nonsense")
    # Options behind the image are the command's.
    assert thaw("run", small, "echo", "--warm=x", **who).out == b"--warm=x\n"


def test_standard_streams_pass_through(small, who):
    data = os.urandom(300000)
    result = thaw("run", small, "--", "sh", "-c", "cat; echo error >&2", input=data, **who)
    assert result.out == data and result.err == b"error\n"
    # A pipe that nobody reads any more ends the command, as anywhere else.
    run("bash", "-c", 'set -o pipefail; "$@" | head -n1; test "${PIPESTATUS[0]}" = 141', "bash",
        binary(), "run", small, "yes", **who)


ALIASES = ["environment", "with space", "quote's \"both\" `x` $HOME", "naïve-été-環境", "-dash",
           "a..b", "comma,equals=", "back\\slash", "tab\tx%n", b"\xff\xfe".decode(errors="surrogateescape")]


@pytest.mark.parametrize("alias", ALIASES)
def test_alias(small, work, who, alias):
    result = thaw("run", f"{small}#{alias}", "--", "sh", "-c",
                  'test "$THAW_ENV" = "$PWD/$1" && test "$THAW_ENV" -ef "./$1" && '
                  'cat "./$1/pyvenv.cfg" && command -v tabulate', "sh", alias, **who)
    assert b"version" in result.out
    assert result.out.endswith(os.fsencode(f"{work}/{alias}/bin/tabulate\n"))
    # Made, and empty for us.
    assert os.listdir(work / alias) == []
    # It may be there.
    thaw("run", f"{small}#{alias}", "--", "true", **who)


def test_alias_that_is_taken(small, work, who):
    go = {**who, "code": None}
    (work / "full").mkdir()
    (work / "full" / "file").write_text("mine")
    (work / "empty").mkdir()
    (work / "file").write_text("mine")
    (work / "link").symlink_to("empty")
    (work / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(work))
    for name, word in [("full", "not empty"), ("file", "no directory"), ("link", "no directory"),
                       ("dangling", "no directory"), ("", "alias"), ("..", "alias"), (".", "not empty"),
                       ("../up", "alias"), ("a/../../b", "alias"), (str(work / "abs"), "alias"),
                       ("missing/deep", "alias"), ("x" * 300, "alias")]:
        failed(thaw("run", f"{small}#{name}", "--", "true", **go), THAW, word)
        assert sorted(os.listdir(work)) == before, name
    assert (work / "full" / "file").read_text() == "mine"
    # One that was made for nothing is taken away again; a colon would cut PATH in two.
    failed(thaw("run", "missing.thaw#new", "--", "true", **go), THAW, "missing.thaw")
    assert not (work / "new").exists()
    # A file that is called so is meant.
    os.rename(small, work / "a#b")
    thaw("run", "a#b", "--", "true", **who)


def test_alias_that_files_cannot_hold(small, work, who):
    """A line break would cut the lines of scripts in two, and none is made."""
    failed(thaw("run", f"{small}#new\nline", "--", "true", **{**who, "code": None}), THAW,
           "line break")
    assert not (work / "new\nline").exists()


def test_alias_with_a_colon(small, work):
    require_views()
    failed(thaw("run", f"{small}#a:b", "--", "true", cwd=work, code=None), THAW, "colon")


def hold(small, work, who, number, alias=""):
    """A view whose command waits for the file "go"; it has said where the view is."""
    said = work / f"said-{number}"
    script = (f'ls "$THAW_ENV" >/dev/null; echo "$THAW_ENV" >said.{number} && mv said.{number} '
              f'{shlex.quote(said.name)}; while ! test -e go; do sleep 0.02; done; '
              'cat "$THAW_ENV/pyvenv.cfg"')
    process = start("run", "--warm=none", f"{small}{alias}", "--", "sh", "-c", script, stdout=subprocess.PIPE,
                    **who)
    wait_until(said.exists, "the command")
    return process, said.read_text().strip()


def finish(work, *held):
    (work / "go").touch()
    outs = [process.communicate(timeout=20)[0] for process, _ in held]
    assert all(process.returncode == 0 for process, _ in held)
    return outs


@pytest.mark.parametrize("alias", ["", "#env"])
def test_two_at_once(small, work, who, alias):
    """Each its own, at the same place; neither takes the other's away."""
    first = hold(small, work, who, 1, alias)
    second = hold(small, work, who, 2, alias)
    assert first[1] == second[1]
    assert not os.path.exists(os.path.join(first[1], "pyvenv.cfg"))
    outs = finish(work, first, second)
    assert outs[0] == outs[1] and b"version" in outs[0]


def test_no_child_of_thaws(small, who):
    """A command that waits for its children must find only those that it started."""
    script = ("import os\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('none')\n"
              "print(open('/proc/self/task/%d/children' % os.getpid()).read().strip() or 'no child')")
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("needs /usr/bin/python3")
    assert thaw("run", small, "--", "/usr/bin/python3", "-c", script, **who).text == \
        "none\nno child\n"


def test_worker_ends_with_a_killed_command(small, work, who):
    held, _ = hold(small, work, who, 1)
    marker = os.environ[command.MARKER]
    assert len([p for p in processes(marker) if p != held.pid]) >= 1
    held.kill()
    held.communicate(timeout=20)
    # The shell's own child may sleep a little longer.
    wait_until(lambda: not processes(marker), "the worker to end", 10)


def test_background_process_keeps_the_view(small, work, who):
    """And nobody's pipe: whoever reads the command's output sees its end."""
    script = ('( while ! test -e go; do sleep 0.02; done; cat "$THAW_ENV/pyvenv.cfg" >late; '
              'mv late done ) >/dev/null 2>&1 </dev/null & echo started')
    began = time.monotonic()
    result = thaw("run", small, "--", "sh", "-c", script, timeout=20, **who)
    assert result.out == b"started\n" and time.monotonic() - began < 15
    marker = os.environ[command.MARKER]
    assert len(processes(marker)) >= 2
    (work / "go").touch()
    wait_until((work / "done").exists, "the background process")
    assert b"version" in (work / "done").read_bytes()
    wait_until(lambda: not processes(marker), "the worker to end", 10)


def test_worker_holds_nothing_of_the_callers(small, work, who):
    """Not a descriptor, not the directory, not the terminal."""
    read_end, write_end = os.pipe()
    os.set_inheritable(write_end, True)
    held, _ = hold(small, work, {**who, "pass_fds": [write_end]}, 1)
    os.close(write_end)
    try:
        worker = served_by(1, held)
        assert len(worker) == 1
        base = pathlib.Path(f"/proc/{worker[0]}")
        assert os.readlink(base / "cwd") == "/"
        held_open = {os.readlink(entry) for entry in (base / "fd").iterdir()}
        callers = {os.readlink(f"/proc/self/fd/{fd}") for fd in (read_end, held.stdout.fileno())}
        assert len(callers) == 2 and not callers & held_open
        assert [name for name in held_open if name.startswith(str(work))] == [str(small)]
        fields = (base / "stat").read_text().rpartition(")")[2].split()
        assert fields[4] == "0"  # no terminal
    finally:
        finish(work, (held, None))
    # Only the command had it.
    assert os.read(read_end, 1) == b""
    os.close(read_end)


@pytest.mark.parametrize("who", ["user"], indirect=True)
def test_no_capabilities_as_user(small, who):
    text = thaw("run", small, "--", "cat", "/proc/self/status", **who).text
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(re.search(rf"{name}:\s*([0-9a-f]+)", text)[1], 16) == 0, name
    ids = thaw("run", small, "--", "sh", "-c", 'id -u; id -g; stat -c %u:%g "$THAW_ENV/pyvenv.cfg"',
               **who).lines
    uid, gid = b"%d" % who["user"].pw_uid, b"%d" % who["user"].pw_gid
    assert ids == [uid, gid, uid + b":" + gid]


def test_view_is_read_only(small, who):
    result = thaw("run", small, "--", "sh", "-c",
                  'cd "$THAW_ENV" && { touch new || rm pyvenv.cfg || echo x >>pyvenv.cfg; }',
                  code=None, **who)
    assert result.code not in (0, THAW, NOT_RUN, NOT_FOUND)
    assert result.err.lower().count(b"read-only") == 3


def test_views_inside_of_views(small, who):
    result = thaw("run", small, "--", binary(), "run", small, "--", "sh", "-c",
                  'cat "$THAW_ENV/pyvenv.cfg"', **who)
    assert b"version" in result.out


def test_stat_from_inside(small, who):
    """The view has no worker of its own; the mount below it answers."""
    total = warm_sets(small)["default"]["pages"]
    result = thaw("run", "--wait-warm", small, "--", "sh", "-c",
                  f'exec {shlex.quote(binary())} stat "$THAW_ENV"', **who)
    assert f"warmer     finished: {total} of {total} pages pushed" in result.text


def test_killed_worker(small, work, who):
    """Its keeper starts another, and those inside do not notice."""
    held, _ = hold(small, work, who, 1)
    keeper, = served_by(1, held)
    for pid in children(keeper):
        os.kill(pid, signal.SIGKILL)
    out, = finish(work, (held, None))
    assert b"version" in out


def test_killed_keeper(small, work, who):
    """Its worker serves on."""
    held, _ = hold(small, work, who, 1)
    keeper, = served_by(1, held)
    os.kill(keeper, signal.SIGKILL)
    out, = finish(work, (held, None))
    assert b"version" in out


def test_killed_keeper_and_worker(small, work, who):
    """A dead view is an error for those inside, and no hang for anybody."""
    held, _ = hold(small, work, who, 1)
    keeper, = served_by(1, held)
    below = children(keeper)
    for pid in (keeper, *below):
        os.kill(pid, signal.SIGKILL)
    (work / "go").touch()
    # What has been rendered beside the image may still be there.
    out, _ = held.communicate(timeout=20)
    assert (held.returncode, out) != (0, b"")


def keeper_of(process):
    """The keeper that has a warmer, by a look at few processes: it does not last long."""
    marker = f"{command.MARKER}={os.environ[command.MARKER]}".encode()

    def parents():
        found = {}
        for pid in range(process.pid + 1, process.pid + 100):
            try:
                if marker in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = set(children(pid))
            except OSError:
                pass
        return found

    # Others have children too, for the moment that starting a process takes.
    first = parents()
    time.sleep(0.005)
    second = parents()
    lasting = [pid for pid in second if comm(pid) != "thaw-holder" and
               first.get(pid, set()) & second[pid]]
    # The keeper's child, the pusher, has one too.
    return max((pid for pid in lasting if any(second.get(child) for child in second[pid])),
               default=None)


def test_killed_keeper_while_waiting_for_the_warmer(work, who):
    """The warmer ends with its keeper, and the worker serves on."""
    slow = image("slow", work)
    process = start("run", "--wait-warm", slow, "--", "true", stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, **who)
    try:
        os.kill(wait_until(lambda: keeper_of(process), "the warmer to begin"), signal.SIGKILL)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, b"", b"")


def test_interrupted_before_the_command_began(work, who):
    slow = image("slow", work)
    process = start("run", "--wait-warm", slow, "--", "touch", "ran", **who)
    try:
        wait_until(lambda: keeper_of(process), "the warmer to begin")
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert not (work / "ran").exists()
