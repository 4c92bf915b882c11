# SPDX-License-Identifier: Apache-2.0
"""Cgroups of a test's own, to be killed as a container's is."""
import contextlib
import os
import pathlib

import pytest

from .mounts import wait_until


@pytest.fixture
def cgroups():
    """Two cgroups: their directories."""
    roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
    root = next((pathlib.Path(r) for r in roots if os.path.exists(f"{r}/cgroup.subtree_control")), None)
    own = [line.split(":", 2)[2] for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines()
           if line.startswith("0::")]
    if root is None or not own:
        pytest.skip("no cgroup can be made: no second version")
    made = []
    try:
        for name in "ab":
            path = pathlib.Path(f"{root}{own[0]}/thaw-test-{os.getpid()}-{name}")
            path.mkdir()
            made.append(path)
        if not (made[0] / "cgroup.kill").exists():
            pytest.skip("no cgroup can be made that can be killed")
        yield made
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                (path / "cgroup.kill").write_text("1")

            def remove(path=path):
                try:
                    path.rmdir()
                    return True
                except OSError:
                    return False
            wait_until(remove, "the cgroup to be empty")
