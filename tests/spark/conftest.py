# SPDX-License-Identifier: Apache-2.0
"""What the tests with a real Spark share: images, and one server for most of them."""
import pathlib
import tempfile

import pytest

from support import command
from support.command import thaw
from support.spark import log, others, require_java, server
from support.warm import fixtures, once


def _prefix(path):
    # A low level: a third of the time, and nothing here depends on the size.
    thaw("pack", fixtures.get("prefix").archive, "-o", path, "--quiet", "--level=3", timeout=120)


@pytest.fixture(autouse=True)
def java():
    require_java()


@pytest.fixture(scope="session")
def scientific(session_directory):
    """An image with its own interpreter, numpy, pandas and pyarrow."""
    return once("scientific.thaw", _prefix)


@pytest.fixture(scope="session")
def other(session_directory):
    """
    other("3.12", path): an executable image with that interpreter, and an older pandas than
    the scientific one has.
    """
    # Fetched here: it may take longer than a test may.
    for version in (others.OWN, *(others.other_python() or ())[:1]):
        others.get(version, log)

    def make(version, python):
        return once(f"other-{version}.thaw", lambda path: thaw(
            "pack", others.get(version, log) / "wheels", "-o", path, "--quiet", "--level=1",
            "--executable", "--with-python", "--python", python, timeout=120))
    return make


@pytest.fixture(scope="session")
def stubs(scientific):
    """stubs("NAME", options): a stub of the scientific image."""
    def make(name, *options):
        path = pathlib.Path(command.binary()).parent / name
        if not path.exists():
            thaw("stub", scientific, "-o", path, "--quiet", *options)
        return path
    return make


@pytest.fixture(scope="session")
def cluster(session_directory):
    """A Connect server with two executors."""
    require_java()
    directory = pathlib.Path(tempfile.mkdtemp(dir=session_directory, prefix="cluster-"))
    with server("spark4", "local-cluster[2,1,512]", directory) as running:
        yield running
    assert not running.traces.files(), "left when all sessions and the server had ended"
