# SPDX-License-Identifier: Apache-2.0
"""A genuine environment, made by venv-pack, from its archive to an import."""
import hashlib
import os
import subprocess
import sys

import pytest

from support import command, tars, trees
from support.command import run, thaw
from support.mounts import mounted

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment as fixtures  # noqa: E402

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def packed():
    """The small environment: built from PyPI when this machine has none yet."""
    return fixtures.get("small")


@pytest.fixture
def image(packed, work):
    thaw("pack", packed.archive, "-o", work / "environment.thaw", "--quiet")
    return work / "environment.thaw"


def python_environment():
    """Without what the test run sets for itself: import may write bytecode, if it can."""
    return {k: v for k, v in command.environment().items() if not k.startswith("PYTHON")}


def test_import_from_mount(packed, image, work):
    """Every module comes from the mount, and its bytecode too: a stale one is silent, but slow."""
    script = ("import attr, click, sys, tabulate\n"
              "for module in attr, click, tabulate:\n"
              "    print(module.__file__)\n")
    with mounted(image, work / "mnt") as mount:
        result = run(mount.path / "bin" / "python3", "-I", "-v", "-c", script,
                     env=python_environment())
        site_packages = os.path.join(mount.path, "lib", os.listdir(mount.path / "lib")[0],
                                     "site-packages")
        assert len(result.text.splitlines()) == 3
        assert all(line.startswith(site_packages) for line in result.text.splitlines())
        # -v tells of each cached file that was found good, and of each source compiled.
        lines = [line for line in result.err.decode().splitlines() if str(mount.path) in line]
        assert any(".pyc matches " in line for line in lines)
        assert not [line for line in lines
                    if line.startswith("# code object from /") and line.endswith(".py")]
        assert fixtures.pyc_report(mount.path) == fixtures.pyc_report(packed.tree)


def test_mount_equals_unpacked(packed, image, work):
    """tar makes the directories that the archive does not name, at the time of unpacking."""
    named = {line.rstrip(b"/") for line in run("tar", "-tzf", packed.archive).lines}
    expected = trees.served(trees.snapshot(packed.tree))
    with mounted(image, work / "mnt") as mount:
        actual = trees.snapshot(mount.path)
    for path, entry in actual.items():
        if entry.kind == "directory" and path not in named:
            expected[path].mtime = entry.mtime
    trees.assert_same(expected, actual)


def test_stream_equals_archive(packed, image):
    """zstd alone gives the tar back, byte for byte."""
    stream = subprocess.run(["zstd", "-dcq", image], stdout=subprocess.PIPE, timeout=60,
                            stdin=subprocess.DEVNULL, check=True).stdout
    assert hashlib.sha256(stream).digest() == hashlib.sha256(packed.tar.read_bytes()).digest()


def test_one_wrong_byte_in_a_source_makes_its_bytecode_stale(packed, image, work):
    """The check of the check: pyc_report sees what Python would see."""
    tree = work / "tree"
    run("cp", "-a", packed.tree, tree)
    source = next(tree.rglob("click/core.py"))
    os.utime(source, (0, 0))
    before, after = fixtures.pyc_report(packed.tree), fixtures.pyc_report(tree)
    assert before["stale"] == 0
    assert after == {**before, "valid": before["valid"] - 1, "stale": 1}
