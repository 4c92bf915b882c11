# SPDX-License-Identifier: Apache-2.0
"""What thaw pack takes a source for, what it says of it, and what info shows."""
import importlib.util
import json
import os
import re
import shutil
import struct
import sys

import pytest

from support import tars
from support.command import REFUSED, USAGE, run, thaw, thaw_fails
from support.tars import directory, member, symlink, tar
from support.warm import fixtures, info

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


def packed(work, source, *options, name="x.thaw"):
    report = json.loads(thaw("pack", source, "-o", work / name, "--force", "--json", *options).out)
    return report, info(work / name)


def test_venv_pack(work):
    """Genuine: made by venv-pack from PyPI."""
    environment = fixtures.get("small")
    report, said = packed(work, environment.archive)
    assert report["kind"] == said["kind"] == "venv-pack"
    assert report["python"] == said["python"] == VERSION
    assert report["interpreter"] is said["interpreter"] is False
    assert re.fullmatch(r"\d+\.\d+\.\d+", said["python_version"])
    # its own activate script finds out where it is; only the console script names a Python
    assert said["relocations"] == {"files": 1, "places": 1}
    assert report["relocated_files"] == 1 and report["relocations"] == 1
    assert {"attrs", "click", "tabulate"} <= {p["name"] for p in said["packages"]}
    assert said["warnings"] == []
    links = said["meta"]["binding"]["links"]
    assert {"python", "python3", f"python{VERSION}"} == set(links)
    assert os.path.basename(said["meta"]["binding"]["executable"]).startswith("python")
    text = thaw("info", work / "x.thaw").text
    assert re.search(r"^kind       venv-pack$", text, re.M)
    assert re.search(r"^python     [\d.]+, to be bound to one of each node$", text, re.M)
    assert re.search(r"^paths      1 in 1 files, relocated in each view$", text, re.M)


def test_plain_venv(work):
    environment = fixtures.get("small")
    run(sys.executable, "-m", "venv", "--without-pip", work / "venv")
    shutil.copytree(environment.tree / "lib" / f"python{VERSION}" / "site-packages",
                    work / "venv" / "lib" / f"python{VERSION}" / "site-packages",
                    dirs_exist_ok=True)
    report, said = packed(work, work / "venv")
    assert said["kind"] == "venv"
    assert said["warnings"] == []
    # activate, for three shells
    assert said["relocations"]["files"] == 3
    assert report["pyc"]["stale"] == 0


def test_prefix_is_a_python(work):
    """An interpreter and its library: nothing to be bound."""
    root = fixtures._base_stdlib()
    interpreter = os.path.realpath(fixtures._base_python())
    bytes_ = open(interpreter, "rb").read()
    (work / "x.tar").write_bytes(tar(
        member(b"bin/python%s" % VERSION.encode(), bytes_, mode=0o755),
        symlink(b"bin/python3", b"python%s" % VERSION.encode()),
        member(b"lib/python%s/os.py" % VERSION.encode(), (root / "os.py").read_bytes()),
        member(b"bin/tool", b"#!/somewhere/bin/python3\n", mode=0o755)))
    report, said = packed(work, work / "x.tar")
    assert said["kind"] == "python" and said["interpreter"] is True
    assert said["platform"] == f"linux-{os.uname().machine}"
    assert "binding" not in said["meta"]
    assert said["relocations"]["files"] == 1
    assert "with its interpreter" in thaw("info", work / "x.thaw").text


def test_tree(work):
    (work / "x.tar").write_bytes(tar(member(b"readme", b"text")))
    report, said = packed(work, work / "x.tar")
    assert report["kind"] == said["kind"] == "tree"
    assert said["python"] is None and said["platform"] is None
    assert said["warnings"] == ["no Python environment was found"]


def test_kind_overrides(work):
    archive = fixtures.get("small").archive
    _, said = packed(work, archive, "--kind=tree")
    assert said["kind"] == "tree" and said["relocations"]["files"] == 0
    assert "binding" not in said["meta"]
    _, said = packed(work, archive, "--kind=venv")
    assert said["kind"] == "venv"


@pytest.mark.parametrize("kind", ["conda-pack", "conda", "pex", "wheels", "python"])
def test_kind_that_it_cannot_be(work, kind):
    archive = fixtures.get("small").archive
    thaw_fails(REFUSED, f"not of the kind {kind} .--kind", "pack", archive, "-o", work / "x.thaw",
               f"--kind={kind}")
    assert not list(work.iterdir())


def test_usage(work):
    (work / "x.tar").write_bytes(tar(member(b"a", b"")))
    thaw_fails(USAGE, "--kind: 'venvs' is not", "pack", work / "x.tar", "--kind=venvs")
    thaw_fails(USAGE, "--python-version: '2.7'", "pack", work / "x.tar", "--python-version=2.7")
    thaw_fails(USAGE, "--python-version: '3.x'", "pack", work / "x.tar", "--python-version=3.x")
    assert sorted(p.name for p in work.iterdir()) == ["x.tar"]


def test_with_python_wants_a_venv(work):
    (work / "x.tar").write_bytes(tar(member(b"a", b"")))
    thaw_fails(REFUSED, "no virtual environment", "pack", work / "x.tar", "--with-python")
    assert sorted(p.name for p in work.iterdir()) == ["x.tar"], "nothing less than was asked for"


def test_compile_wants_python(work):
    (work / "x.tar").write_bytes(tar(member(b"a", b"")))
    for option in ("--compile", "--check"):
        thaw_fails(REFUSED, "no Python environment", "pack", work / "x.tar", option)
        assert sorted(p.name for p in work.iterdir()) == ["x.tar"]


def test_warnings(work):
    site = b"lib/python3.11/site-packages/"
    (work / "x.tar").write_bytes(tar(
        member(b"pyvenv.cfg", b"home = /x\n"), directory(b"bin"),
        member(site + b"dev.pth", b"/src/dev\n"),
        symlink(b"share", b"/usr/share/thing"),
        member(site + b"p-1.dist-info/direct_url.json",
               b'{"url": "file:///src/p", "dir_info": {"editable": true}}')))
    report, said = packed(work, work / "x.tar")
    text = "\n".join(said["warnings"])
    assert 'dev.pth adds "/src/dev"' in text
    assert "p-1 is an editable install of file:///src/p" in text
    assert 'first "share" to "/usr/share/thing"' in text
    assert report["warnings"] == 3
    shown = thaw("info", work / "x.thaw").text
    assert shown.count("\nwarning ") == len(said["warnings"])


def test_environment_in_a_directory_of_its_own(work):
    """Views stand where the archive's root is: one level off is worth a word."""
    (work / "x.tar").write_bytes(tar(member(b"env/pyvenv.cfg", b"home = /x\n")))
    _, said = packed(work, work / "x.tar")
    assert said["kind"] == "tree"
    assert any('in the directory "env"' in warning for warning in said["warnings"])


def test_stale_bytecode_is_counted(work):
    """What checks the source's time goes stale with it; what is unchecked does not."""
    site = b"lib/python%s/site-packages/" % VERSION.encode()
    tag = sys.implementation.cache_tag.encode()
    magic = importlib.util.MAGIC_NUMBER

    def pyc(name, flags, first, second):
        return member(site + b"__pycache__/" + name + b"." + tag + b".pyc",
                      magic + struct.pack("<III", flags, first, second) + b"code")

    names = [b"good", b"old", b"resized", b"unchecked", b"checked"]
    (work / "x.tar").write_bytes(tar(
        *(member(site + name + b".py", b"x = 1\n", mtime=1000) for name in names),
        member(site + b"never.py", b"y = 1\n", mtime=1000),
        pyc(b"good", 0, 1000, 6), pyc(b"old", 0, 999, 6), pyc(b"resized", 0, 1000, 7),
        pyc(b"unchecked", 1, 0, 0), pyc(b"checked", 3, 0, 0)))
    report, said = packed(work, work / "x.tar")
    assert report["pyc"] == {"valid": 3, "stale": 2, "missing": 1}
    assert any("2 .pyc files are stale" in warning for warning in said["warnings"])


def test_the_same_bytes(work):
    archive = fixtures.get("small").archive
    for name in ("a.thaw", "b.thaw"):
        thaw("pack", archive, "-o", work / name, "--quiet")
    assert (work / "a.thaw").read_bytes() == (work / "b.thaw").read_bytes()


def test_the_stream_is_not_touched(work):
    archive = fixtures.get("small").tar
    thaw("pack", archive, "-o", work / "x.thaw", "--quiet")
    assert tars.unzstd((work / "x.thaw").read_bytes()) == archive.read_bytes()
    thaw("verify", work / "x.thaw")
