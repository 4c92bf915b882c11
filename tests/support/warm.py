# SPDX-License-Identifier: Apache-2.0
"""Images to warm, counters to compare, and the processes behind a mount."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys

import pytest

from . import command, images
from .command import binary, run, thaw
from .mounts import children, wait_until  # noqa: F401 (children: for tests)
from .tars import directory, member, tar

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment as fixtures  # noqa: E402

IMPORT = "import attr, click, tabulate"


def once(name, make):
    """A file of the whole test run; make(path) is called for the first who asks."""
    path = pathlib.Path(binary()).parent / name
    if not path.exists():
        unfinished = path.with_name(f".{os.getpid()}.{name}")
        make(unfinished)
        unfinished.rename(path)
    return path


def _small(path):
    thaw("pack", fixtures.get("small").archive, "-o", path, "--quiet")


def _small_warmed(path):
    thaw("warm", once("small.thaw", _small), "-o", path, "--", "python", "-c", IMPORT)


def _small_plain_warmed(path):
    """
    For mounts: as a tree, so that training sees the image's own pyvenv.cfg and links to
    the interpreter, as a mount does, and not those that a view is given.
    """
    plain = path.with_suffix(".plain")
    thaw("pack", fixtures.get("small").archive, "-o", plain, "--quiet", "--kind=tree")
    thaw("warm", plain, "-o", path, "--", "python", "-c", IMPORT)
    plain.unlink()


def _small_bare(path):
    """The small environment without the bytecode of its packages."""
    tree = path.with_suffix(".tree")
    shutil.copytree(fixtures.get("small").tree, tree, symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__"))
    thaw("pack", tree, "-o", path, "--quiet")
    shutil.rmtree(tree)


DIRECTORIES = 3000


def _slow(path):
    """
    The set "slow" takes a while to push: thousands of directories are listed
    before the one large file.
    """
    archive = path.with_suffix(".tar")
    archive.write_bytes(tar(
        *(directory(b"d%04d/" % i) for i in range(DIRECTORIES)),
        directory(b"z/"), member(b"z/big", bytes(range(256)) * 16384)))
    thaw("pack", archive, "-o", path, "--quiet")
    archive.unlink()
    thaw("warm", path, "--name=slow", "-c",
         'cd "$THAW_ENV" && ls d* >/dev/null && cat z/big >/dev/null')


def _big(path):
    """40 MiB in the set "big", which are a few KiB in the image."""
    archive = path.with_suffix(".tar")
    archive.write_bytes(tar(member(b"big", bytes(40 << 20))))
    thaw("pack", archive, "-o", path, "--quiet", "--max-ratio", "100000")
    archive.unlink()
    thaw("warm", path, "--name=big", "-c", 'cat "$THAW_ENV/big" >/dev/null')


MAKERS = {"small": _small, "small-warmed": _small_warmed,
          "small-plain-warmed": _small_plain_warmed, "small-bare": _small_bare,
          "slow": _slow, "big": _big}


def image(name, work):
    """A copy of one's own of one of the images above."""
    path = work / f"{name}.thaw"
    shutil.copyfile(once(f"{name}.thaw", MAKERS[name]), path)
    return path


def info(path):
    return json.loads(thaw("info", "--json", path).out)


def warm_sets(path):
    return {part["name"]: part for part in info(path)["parts"] if part["type"] == "warm set"}


def stat(path, **options):
    return json.loads(thaw("stat", "--json", path, **options).out)


def reclaims():
    """Changes whenever somebody, or want of memory, empties the machine's caches.

    Or when a page is read again that was taken away: DAMON does that uncounted. Each CPU
    counts for itself at first, and only root can have it all added up at once.
    """
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/sys/vm/stat_refresh").read_bytes()
    return [line for line in pathlib.Path("/proc/vmstat").read_text().splitlines()
            if line.startswith(("drop_", "pgsteal_", "slabs_scanned ", "pginodesteal ",
                                "workingset_refault_file "))]


def stored_part(path, kind):
    """Offset and record of the first part of this type (images.WARM and so on)."""
    return next(part for part in images.load(path).parts if part.type == kind)


def flip(path, offset):
    with open(path, "r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes([byte ^ 0x40]))


# -- processes

def process_state(pid):
    """One letter; "X" for one that is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def ended(pid):
    return process_state(pid) in "XZ"


def kill_together(keepers, workers):
    """So that no keeper replaces a worker, and nobody a keeper whose worker lives."""
    for pid in keepers:
        os.kill(pid, signal.SIGSTOP)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(ended(pid) for pid in workers), "the workers to end")
    for pid in keepers:
        os.kill(pid, signal.SIGKILL)


# -- what a machine may lack

def require_views(user=None):
    """Skip where private views cannot be had, with the reason."""
    if user is not None or os.geteuid() != 0:
        result = run("unshare", "-U", "-m", "true", user=user, code=None)
        if result.code != 0:
            pytest.skip(f"no user namespaces: {result.err.decode().strip()}")
