# SPDX-License-Identifier: Apache-2.0
"""What the node service remembers of images, and what of it survives damage."""
import json
import os

import pytest

from support.service import identity, service
from support.tars import member, tar

pytestmark = pytest.mark.fuse


def known(node):
    return {image["path"]: image["identity"]
            for image in json.loads(node.thaw("images", "--json").out)["images"]
            if image["state"] == "known"}


def overwrite(path, data):
    with open(path, "r+b") as stream:
        stream.write(data)


DAMAGE = {
    "nothing": lambda path: None,
    "first page": lambda path: overwrite(path, bytes(4096)),
    "all of it": lambda path: overwrite(path, b"\xa5" * os.path.getsize(path)),
    "cut": lambda path: os.truncate(path, 5000),
    "gone": os.unlink,
    "open to others": lambda path: path.chmod(0o666),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_images_are_found_again(work, damage, end):
    """An archive is packed once; its image is known, whatever happens to the catalogue."""
    archive = work / "environment.tar"
    archive.write_bytes(tar(member(b"f", b"text")))
    with service(work) as node:
        node.thaw("open", "a", archive, work / "view")
        assert (work / "view" / "f").read_bytes() == b"text"
        node.thaw("close", "a")
        before = known(node)
        assert len(before) == 1
        path, digest = next(iter(before.items()))
        assert identity(path) == digest and os.path.dirname(path) == str(node.state / "images")
        getattr(node, end)()
        DAMAGE[damage](node.state / "catalogue" / "images.mdb")
        node.start()
        assert known(node) == before
        packed = os.stat(path).st_mtime_ns
        node.thaw("open", "b", archive, work / "view")
        assert (work / "view" / "f").read_bytes() == b"text"
        assert known(node) == before
        if damage == "nothing":
            # Nor was it packed again.
            assert os.stat(path).st_mtime_ns == packed
        rebuilt = [line for line in node.events("catalogue") if "of=images" in line]
        # What was lost is said; a file that is simply gone was never there.
        assert bool(rebuilt) == (damage not in ("nothing", "gone")), node.log
