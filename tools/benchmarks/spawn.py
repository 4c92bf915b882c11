# SPDX-License-Identifier: Apache-2.0
"""One command, timed from just before it is spawned until it has been waited for."""

import os
import select
import shutil
import signal
import tempfile
import time


class Failed(Exception):
    """A command of a row did not do what it should; the row shows this instead of a figure."""


class TimedOut(Failed):
    """A command needed longer than its row may take."""


def find(tool, path=None):
    """The absolute path of a tool, or None. Directories of sbin count."""
    path = path or os.environ.get("PATH", os.defpath)
    return shutil.which(tool, path=path + ":/usr/local/sbin:/usr/sbin:/sbin")


def _last_line(stream):
    stream.seek(0)
    lines = [line for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing on stderr"


def _wait(pid, timeout):
    """Wait for pid; after timeout seconds kill its process group. True when it ended in time."""
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        if poll.poll(None if timeout is None else int(timeout * 1000)):
            return True
        os.killpg(pid, signal.SIGKILL)
        return False
    finally:
        os.close(descriptor)


def run(argv, env=None, cwd=None, stdin=None, stdout=None, timeout=None, ok=(0,)):
    """Run argv; return the seconds it took. Failed or TimedOut otherwise.

    The child leads a process group of its own, so that a shell's pipeline ends with it.
    stdin and stdout are paths; without them, /dev/null. posix_spawn, since fork would copy
    this process's page tables within the time measured.
    """
    argv = [str(word) for word in argv]
    program = find(argv[0])
    if not program:
        raise Failed("%s is not installed" % argv[0])
    if cwd:
        argv = ["env", "-C", str(cwd)] + argv
        program = find("env")
    with tempfile.TemporaryFile() as errors:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, str(stdin or os.devnull), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(stdout or os.devnull),
             os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, errors.fileno(), 2),
        ]
        start = time.monotonic()
        pid = os.posix_spawn(program, argv, env or os.environ, file_actions=actions,
                             setpgroup=0)
        in_time = False
        try:
            in_time = _wait(pid, timeout)
        except BaseException:
            os.killpg(pid, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(pid, 0)
        seconds = time.monotonic() - start
        if not in_time:
            raise TimedOut("not done after %g s" % timeout)
        code = os.waitstatus_to_exitcode(status)
        if code not in ok:
            raise Failed("%s ended with %d: %s"
                         % (os.path.basename(argv[0]), code, _last_line(errors)))
    return seconds


def output(argv, env=None, timeout=None):
    """Standard output of a command, as text; Failed when it fails."""
    with tempfile.NamedTemporaryFile() as out:
        run(argv, env=env, stdout=out.name, timeout=timeout)
        with open(out.name, encoding="utf-8", errors="replace") as stream:
            return stream.read()


def shell(script, *args):
    """argv of a shell script in which a failure anywhere in a pipeline is a failure."""
    return ["bash", "-o", "pipefail", "-ec", script, "bash"] + [str(arg) for arg in args]
