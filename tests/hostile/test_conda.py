# SPDX-License-Identifier: Apache-2.0
"""Record lists that lie (cases 29 and 30 of the hostile ones): refused, nothing left, nothing run."""
import pytest

from support.command import REFUSED, USAGE, thaw, thaw_fails
from support.tars import member, tar

RECORD = b"('a', '/build/env', 'text')"

REFUSALS = {
    "empty placeholder": (b"[('a', '', 'text')]", "less than two bytes"),
    "placeholder of one byte": (b"[('a', '/', 'binary')]", "less than two bytes"),
    "out of the tree": (b"[('../../etc/passwd', '/build', 'text')]", "does not stay inside"),
    "out of the tree, escaped": (b"[('a/\\x2e\\x2e/b', '/build', 'text')]",
                                 "does not stay inside"),
    "absolute": (b"[('/etc/passwd', '/build', 'text')]", "does not stay inside"),
    "a million": (b"[" + b",".join([RECORD] * 1_000_000) + b"]", "more than 500000 records"),
    "call": (b"[__import__('os').system('touch %s')]", "no record"),
    "call in a record": (b"[(open('%s', 'w').name, '/build', 'text')]", "no string literal"),
    "comprehension": (b"[('a', '/build', 'text') for _ in iter(lambda: open('%s', 'w'), 1)]",
                      "no record"),
    "expression behind": (b"[] or open('%s', 'w')", "behind the list"),
    "no list": (b"list(open('%s', 'w'))", "no list of records"),
    "not ended": (b"[('a', '/build', 'te", "without an end"),
    "second list": (b"[]\n_prefix_records = [" + RECORD + b"]", "two lists"),
}


def conda(script):
    return tar(member(b"bin/conda-unpack", b"#!/usr/bin/env python\n_prefix_records = " + script +
                      b"\n", mode=0o755),
               member(b"conda-meta/history"), member(b"conda-meta/x-1-0.json", b"{}"),
               member(b"a", b"/build/env/lib\n"))


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(work, name):
    script, word = REFUSALS[name]
    trap = work / "was-run"
    (work / "x.tar").write_bytes(conda(script.replace(b"%s", bytes(trap))))
    thaw_fails(REFUSED, word, "pack", work / "x.tar", "-o", work / "x.thaw", "--quiet")
    assert sorted(path.name for path in work.iterdir()) == ["x.tar"]


def test_the_same_without_the_lie(work):
    (work / "x.tar").write_bytes(conda(b"[" + RECORD + b"]"))
    thaw("pack", work / "x.tar", "-o", work / "x.thaw", "--quiet")
    thaw("extract", "--quiet", "--prefix", "/p", work / "x.thaw", work / "out")
    assert (work / "out" / "a").read_text() == "/p/lib\n"


@pytest.mark.parametrize("prefix, word", [
    ("relative", "not absolute"), ("/a/../b", r"'\.\.'"), ("/a\nb", "line break")])
def test_impossible_prefixes(work, prefix, word):
    (work / "x.tar").write_bytes(conda(b"[" + RECORD + b"]"))
    thaw("pack", work / "x.tar", "-o", work / "x.thaw", "--quiet")
    thaw_fails(USAGE if word == "not absolute" else REFUSED, word, "extract", "--prefix", prefix,
               work / "x.thaw", work / "out")
    assert not (work / "out").exists()
