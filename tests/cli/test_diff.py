# SPDX-License-Identifier: Apache-2.0
"""thaw diff: what changed between two images."""
import json

import pytest

from support.command import DIFFERENT, IO, thaw, thaw_fails
from support.tars import directory, member, symlink, tar


def distribution(name, version):
    folder = f"lib/python3.11/site-packages/{name}-{version}.dist-info"
    return member(f"{folder}/METADATA".encode(),
                  f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode())


def image(work, name, *members):
    (work / f"{name}.tar").write_bytes(tar(*members))
    thaw("pack", work / f"{name}.tar", "--quiet")
    return work / f"{name}.thaw"


@pytest.fixture
def pair(work):
    old = image(work, "old", member(b"same", b"1"), member(b"removed", b"2"),
                member(b"content", b"aaaa"), member(b"size", b"a"), member(b"mode", mode=0o644),
                symlink(b"target", b"one"), member(b"type", b"file"), directory(b"gone"),
                member(b"gone/x"), distribution("numpy", "1.0"), distribution("old", "3"))
    new = image(work, "new", member(b"same", b"1"), member(b"added", b"2"),
                member(b"content", b"aaab"), member(b"size", b"aa"), member(b"mode", mode=0o755),
                symlink(b"target", b"two"), symlink(b"type", b"same"),
                distribution("numpy", "2.0"), distribution("new", "1"))
    return old, new


def test_same(work, pair):
    old, _ = pair
    assert thaw("diff", old, old).out == b""
    # Another order of members, other frames: the same tree.
    (work / "o.tar").write_bytes(tar(member(b"b", b"2"), member(b"a", b"1")))
    (work / "p.tar").write_bytes(tar(member(b"a", b"1"), member(b"b", b"2")))
    for name in "op":
        thaw("pack", work / f"{name}.tar", "--quiet")
    assert thaw("diff", work / "o.thaw", work / "p.thaw").out == b""


def test_different(pair):
    text = thaw("diff", *pair, code=DIFFERENT).text
    for word in ("removed", "added", "content", "size", "mode", "target", "type", "gone", "numpy",
                 "1.0", "2.0"):
        assert word in text, word
    assert "same\n" not in text.replace("type", "")


def test_different_json(pair):
    found = json.loads(thaw("diff", "--json", *pair, code=DIFFERENT).text)

    def paths(key):
        return {e["path"] if isinstance(e, dict) else e for e in found[key]}

    metadata = "lib/python3.11/site-packages/"
    assert "added" in paths("added") and "removed" in paths("removed")
    assert {"gone", "gone/x"} <= paths("removed")
    assert paths("changed") >= {"content", "size", "mode", "target", "type"}
    assert "same" not in paths("changed") | paths("added") | paths("removed")
    assert any(p.startswith(metadata) for p in paths("added"))
    assert json.loads(thaw("diff", "--json", pair[0], pair[0]).text) is not None
    packages = json.dumps(found["packages"])
    for word in ("numpy", "1.0", "2.0", "old", "new"):
        assert word in packages


def test_direction(pair):
    forwards = json.loads(thaw("diff", "--json", *pair, code=DIFFERENT).text)
    backwards = json.loads(thaw("diff", "--json", *reversed(pair), code=DIFFERENT).text)
    assert forwards["added"] == backwards["removed"]


def test_failure_is_not_difference(work, pair):
    thaw_fails(IO, "missing", "diff", pair[0], work / "missing")
    thaw_fails(IO, "missing", "diff", work / "missing", pair[0])
    thaw_fails(4, "old.tar", "diff", pair[0], work / "old.tar")
