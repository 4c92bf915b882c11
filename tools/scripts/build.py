# SPDX-License-Identifier: Apache-2.0
"""Build thaw with meson for the scripts in tools/: quietly, and one at a time."""

import contextlib
import fcntl
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class BuildError(Exception):
    """The message holds the end of what the failing program printed."""


def directory(kind):
    """Where a build goes: build/ (release) or build-sanitize/, or where THAW_BUILD says."""
    base = Path(os.environ.get("THAW_BUILD") or ROOT / "build").absolute()
    return base if kind == "release" else base.with_name(f"{base.name}-{kind}")


def build(kind, *options):
    """Configure and compile; returns the build directory. Quick when nothing changed.

    Only one build runs at a time in one source tree; others wait.
    """
    path = directory(kind)
    arguments = [f"-D{option}" for option in ("fuse=enabled", *options)]
    if kind == "sanitize":
        arguments += ["--native-file", str(ROOT / "build-dev.ini")]
    else:
        arguments += ["-Dbuildtype=release"]
    # What this directory was configured with by us: meson takes seconds to find
    # out that nothing changed.
    stamp = path / "thaw-build-arguments"
    wanted = json.dumps([str(ROOT), *arguments])
    with _locked(ROOT):
        if not (stamp.exists() and stamp.read_text() == wanted):
            configured = (path / "meson-private" / "coredata.dat").exists()
            reconfigure = ["--reconfigure"] if configured else []
            _run("meson", "setup", *reconfigure, *arguments, path, ROOT)
            stamp.write_text(wanted)
        _run("ninja", "-C", path)
    return path


@contextlib.contextmanager
def _locked(path):
    # A directory can be locked without leaving a file behind.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(*command):
    words = [str(word) for word in command]
    environment = dict(os.environ, LC_ALL="C.UTF-8")
    result = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
    )
    if result.returncode != 0:
        end = "\n".join(result.stdout.splitlines()[-60:])
        raise BuildError(f"{' '.join(words)}: exit status {result.returncode}\n{end}")
