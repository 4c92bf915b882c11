# SPDX-License-Identifier: Apache-2.0
"""
conda environments wherever they stand. The reference is conda-unpack: what it makes of
an unpacked copy at a path must be what a view there shows, byte for byte.
"""
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys

import pytest

from support import command
from support.command import REFUSED, run, thaw, thaw_fails
from support.trees import snapshot
from support.warm import require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import conda  # noqa: E402

# The state directory must be ours: layers are rendered into it.
pytestmark = pytest.mark.usefixtures("state")

ARCHIVES = ("conda.tar.gz", "conda.tar.zst", "conda.zip", "nocache.tar.gz")
PYC = f".cpython-{sys.version_info[0]}{sys.version_info[1]}.pyc"
SCRIPT = b"bin/conda-unpack"


@pytest.fixture
def state(work, monkeypatch):
    monkeypatch.setenv("THAW_STATE_DIR", str(work / "state"))
    (work / "state").mkdir()
    return work / "state"


@functools.lru_cache(maxsize=None)
def fixture():
    return conda.get()


def image_of(name, work):
    """The image of an archive of the fixture, made once a run."""
    shared = pathlib.Path(command.binary()).parent / f"conda-{name}.thaw"
    if not shared.exists():
        unfinished = work / "unfinished.thaw"
        thaw("pack", fixture() / name, "-o", unfinished, "--quiet", "--level", "1")
        os.replace(unfinished, shared)
    return shared


def unpack(archive, directory):
    directory.mkdir(parents=True)
    if archive.suffix == ".zip":
        run("bsdtar" if shutil.which("bsdtar") else "unzip", *(
            ("-xf", archive, "-C", directory) if shutil.which("bsdtar") else
            ("-q", archive, "-d", directory)))
    else:
        run("tar", "-xf", archive, "-C", directory)


def conda_unpack(prefix):
    """What users do today."""
    run(prefix / "bin" / "python", prefix / "bin" / "conda-unpack",
        env=command.environment(PYTHONDONTWRITEBYTECODE="1"))


def a_path(work, length):
    """A path of so many bytes below work."""
    path = os.fsencode(work)
    while length - len(path) > 1:
        path += b"/" + b"p" * min(length - len(path) - 1, 100)
        if length - len(path) == 1:
            path = path[:-1]
    assert len(path) == length or length == len(path) + 1
    return pathlib.Path(os.fsdecode(path if len(path) == length else path + b"x"))


def contents(root):
    return {path: (entry.kind, entry.digest, entry.target)
            for path, entry in snapshot(root).items() if entry.kind != "directory"}


def bytecode_of(path):
    directory, name = os.path.split(os.fsdecode(path))
    return os.fsencode(os.path.join(directory, "__pycache__", name[:-len(".py")] + PYC))


def assert_as_unpacked(got, original, reference):
    """
    got is the reference, but for the emptied script and bytecode: that of
    sources that changed is not there, all other is.
    """
    changed = {path for path in reference if reference[path] != original.get(path)}
    assert changed, "conda-unpack changed nothing"
    hidden = {bytecode_of(path) for path in changed if path.endswith(b".py")} & original.keys()
    expected = {path: entry for path, entry in reference.items() if path not in hidden}
    wrong = {path for path in expected.keys() | got.keys()
             if expected.get(path) != got.get(path)}
    assert wrong == {SCRIPT}
    assert got[SCRIPT] is not None
    return changed, hidden


@pytest.mark.parametrize("archive, length", [
    *((archive, "short") for archive in ARCHIVES),
    *((archive, length) for archive in ("conda.tar.gz", "nocache.tar.gz")
      for length in ("equal", "long"))])
def test_extracted_like_conda_unpack(work, archive, length):
    image = image_of(archive, work)
    binary = archive != "nocache.tar.gz"
    prefix = a_path(work, {"short": len(str(work)) + 3, "equal": 255 if binary else
                           len((fixture() / "built").read_text()), "long": 300}[length])
    if binary and length == "long":
        result = thaw_fails(REFUSED, "300 bytes", "extract", "--quiet", "--prefix", prefix,
                            image, work / "out")
        assert b"255" in result.err
        assert not (work / "out").exists()
        return
    unpack(fixture() / archive, prefix)
    original = contents(prefix)
    conda_unpack(prefix)
    thaw("extract", "--quiet", "--prefix", prefix, image, work / "out")
    changed, hidden = assert_as_unpacked(contents(work / "out"), original, contents(prefix))
    assert b"share/place/config.txt" in changed
    assert (b"lib/libplace.so.1" in changed) == binary
    # Bytecode that Python never checks would still name the placeholder.
    assert any(b"archplace" in path for path in hidden)


def test_extract_without_prefix_is_as_packed(work):
    unpack(fixture() / "conda.tar.gz", work / "packed")
    thaw("extract", "--quiet", image_of("conda.tar.gz", work), work / "out")
    assert contents(work / "out") == contents(work / "packed")


def test_attributes_are_those_of_the_image(work):
    image = image_of("conda.tar.gz", work)
    thaw("extract", "--quiet", image, work / "plain")
    thaw("extract", "--quiet", "--prefix", "/short", image, work / "out")
    plain, out = snapshot(work / "plain"), snapshot(work / "out")
    for path, entry in out.items():
        if entry.kind != "directory":
            assert (entry.mode, entry.mtime) == (plain[path].mode, plain[path].mtime), path


def test_pack_for_a_fixed_path(work):
    """--dest-prefix: what was built for one path becomes that of another."""
    prefix = work / "p"
    thaw("extract", "--quiet", "--prefix", prefix, image_of("dest.tar.gz", work), work / "out")
    unpack(fixture() / "conda.tar.gz", prefix)
    conda_unpack(prefix)
    got, reference = contents(work / "out"), contents(prefix)
    # conda-pack treats scripts in another way when it knows the path.
    for path in reference:
        if not path.startswith((b"bin/", b"conda-meta/")) and path in got:
            assert got[path] == reference[path], path
    for path in (work / "out" / "bin").iterdir():
        if path.is_file() and not path.is_symlink():
            assert conda.DEST.encode() not in path.read_bytes(), path
    first = (work / "out" / "bin" / "place-twice").read_bytes().split(b"\n")[0]
    assert first == b"#!" + os.fsencode(prefix) + f"/bin/{conda.PYTHON} -E".encode()


def install_live(work, prefix, *names):
    conda.install(fixture(), prefix, names, work / "package-cache")


def test_live_prefix(work):
    """The same as packing it with conda-pack, and unpacking that."""
    live, prefix = work / "live", work / "elsewhere"
    install_live(work, live, "place", "python")
    conda.pack(fixture(), live, work / "genuine.tar.gz")
    unpack(work / "genuine.tar.gz", prefix)
    conda_unpack(prefix)
    thaw("pack", live, "-o", work / "live.thaw", "--quiet", "--level", "1")
    thaw("extract", "--quiet", "--prefix", prefix, work / "live.thaw", work / "out")
    got, reference = contents(work / "out"), contents(prefix)
    bytecode = {bytecode_of(path) for path in reference if path.endswith(b".py") and
                os.fsencode(prefix) in (prefix / os.fsdecode(path)).read_bytes()}
    compared = 0
    for path, entry in reference.items():
        if path.startswith((b"bin/", b"conda-meta/")) or path == b"share/place/strings.bin":
            continue
        if path in bytecode:
            assert path not in got  # it would name another path
            continue
        compared += 1
        assert got.get(path) == entry, path
    assert compared > 500
    # rattler gives an end to the one string that conda leaves without.
    ours = (work / "out/share/place/strings.bin").read_bytes()
    theirs = (prefix / "share/place/strings.bin").read_bytes()
    end = theirs.index(b"the last one")
    assert len(ours) == len(theirs) and ours[:end] == theirs[:end]
    assert ours[end:].rstrip(b"\0").endswith(os.fsencode(prefix) + b"/lib")
    assert str(live).encode() not in b"".join(
        path.read_bytes() for path in (work / "out" / "bin").iterdir() if path.is_file())
    run(work / "live" / "bin" / "place-python")


def test_live_prefix_that_was_moved(work):
    """Its scripts say where it was."""
    built = (fixture() / "built").read_text()
    thaw("pack", fixture() / "prefix", "-o", work / "moved.thaw", "--quiet", "--level", "1")
    thaw("extract", "--quiet", "--prefix", work / "p", work / "moved.thaw", work / "out")
    for name in ("share/place/config.txt", "lib/pkgconfig/place.pc", "bin/place-shell"):
        content = (work / "out" / name).read_text()
        assert built not in content and str(work / "p") in content


def test_unpacked_once_and_packed_again(work):
    """conda-unpack has run: its records are not true any more, the prefix is."""
    here, there = work / "here", work / "there"
    unpack(fixture() / "conda.tar.gz", here)
    conda_unpack(here)
    thaw("pack", here, "-o", work / "again.thaw", "--quiet", "--level", "1")
    thaw("extract", "--quiet", "--prefix", there, work / "again.thaw", work / "out")
    unpack(fixture() / "conda.tar.gz", there)
    conda_unpack(there)
    got, reference = contents(work / "out"), contents(there)
    for path, entry in reference.items():
        if path != SCRIPT and b"__pycache__" not in path:
            assert got.get(path) == entry, path


def test_editable_installs_are_named(work):
    live = work / "live"
    install_live(work, live, "place", "python")
    site = live / conda.SITE
    (site / "my_tool-1.0.dist-info").mkdir()
    (site / "my_tool-1.0.dist-info" / "direct_url.json").write_text(json.dumps(
        {"url": "file:///home/me/my-tool", "dir_info": {"editable": True}}))
    (site / "__editable__.my_tool-1.0.pth").write_text("/home/me/my-tool/src\n")
    (site / "old.egg-link").write_text("/home/me/old\n.")
    thaw("pack", live, "-o", work / "x.thaw", "--quiet", "--level", "1")
    warnings = "\n".join(json.loads(thaw("info", "--json", work / "x.thaw").text)["warnings"])
    assert warnings.count("my_tool") == 1 and "file:///home/me/my-tool" in warnings
    assert "old is installed in editable mode" in warnings


# -- views

def view(image, alias, *words, **options):
    """Run words in a view at alias."""
    return thaw("run", f"{image}#{alias.name}", "--", *words, cwd=alias.parent, **options)


@pytest.fixture(params=["root", "user"])
def who(request, work, state, monkeypatch):
    if request.param == "root":
        require_views()
        return {}
    user = request.getfixturevalue("user")
    require_views(user)
    for path in (work, state):
        os.chown(path, user.pw_uid, user.pw_gid)
    (work / "run").mkdir(mode=0o700)
    os.chown(work / "run", user.pw_uid, user.pw_gid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(work / "run"))
    return {"user": user}


SHOW = """
import ctypes, sys
from archplace.config import PREFIX
library = ctypes.CDLL(sys.prefix + "/lib/libplace.so")
library.place_path.restype = ctypes.c_char_p
from pureplace.config import PREFIX as PURE
print(sys.prefix, PREFIX, PURE, library.place_path().decode(), sep="\\n")
"""


@pytest.mark.fuse
def test_view(work, who):
    """Python, modules, a library and scripts all know where they are."""
    image = image_of("conda.tar.gz", work)
    alias = work / "environment"
    out = view(image, alias, alias / "bin" / "python", "-c", SHOW, **who).text.split("\n")
    assert out[:3] == [str(alias)] * 3
    assert out[3] == f"{alias}/bin:/usr/bin:{alias}/sbin"
    assert view(image, alias, alias / "bin" / "place-shell", "-c",
                "import sys; print(sys.prefix)", **who).text == f"{alias}\n"
    # It could only fail on what cannot be written, and has nothing left to do.
    view(image, alias, alias / "bin" / "python", alias / "bin" / "conda-unpack", **who)
    assert view(image, alias, alias / "bin" / "python", alias / "bin" / "conda-unpack",
                "--version", **who).text.startswith("conda-unpack")


@pytest.mark.fuse
def test_view_is_what_conda_unpack_makes(work, who):
    image, alias = image_of("conda.tar.gz", work), work / "environment"
    view(image, alias, "cp", "-a", alias, work / "copy", **who)
    if alias.exists():
        alias.rmdir()  # the place where it stood
    unpack(fixture() / "conda.tar.gz", alias)
    original = contents(alias)
    conda_unpack(alias)
    got = contents(work / "copy")
    empty = {path for path in got if got[path][1] == hashlib.sha256(b"").hexdigest()}
    assert_as_unpacked({path: entry for path, entry in got.items()
                        if path in original or path not in empty}, original, contents(alias))


@pytest.mark.fuse
def test_layer_is_rendered_once_and_again_when_damaged(work, state):
    require_views()
    image, alias = image_of("conda.tar.gz", work), work / "environment"
    words = (alias / "bin" / "python", "-c", SHOW)
    first = view(image, alias, *words).out
    config, = state.rglob("archplace/config.py")
    born = os.stat(config).st_ino
    assert view(image, alias, *words).out == first
    assert os.stat(config).st_ino == born
    mode = os.stat(config).st_mode
    os.chmod(config, 0o644)
    config.write_text("PREFIX = 'evil'\n")
    os.chmod(config, mode)
    assert view(image, alias, *words).out == first
    assert os.stat(config).st_ino != born
    # Something that nobody rendered.
    (config.parent / "planted.py").write_text("")
    assert view(image, alias, *words).out == first
    assert not (config.parent / "planted.py").exists()
    # A layer for another path is another one.
    view(image, work / "other", "true")
    assert len(list(state.rglob("archplace/config.py"))) == 2


@pytest.mark.fuse
def test_many_views_at_once_share_a_layer(work, state):
    require_views()
    image, alias = image_of("conda.tar.gz", work), work / "environment"
    words = (alias / "bin" / "python", "-c", SHOW)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = [future.result().out for future in
                   [pool.submit(view, image, alias, *words) for _ in range(6)]]
    assert len(set(results)) == 1 and results[0].count(os.fsencode(alias)) == 5
    assert len(list(state.rglob("archplace/config.py"))) == 1
    assert not list(state.rglob(".*.new"))


ODD = ("with a blank", "it's \"quoted\"", "100% $HOME `id`", "b\\n\\", "\u00fcml\u00e4ut \u2013", "a'''b")


@pytest.mark.fuse
@pytest.mark.parametrize("name", ODD)
def test_odd_aliases(work, name):
    require_views()
    alias = work / name / "environment"
    alias.parent.mkdir()
    # As packed for a path, scripts name their interpreter.
    image = image_of("dest.tar.gz", work)
    for options in ((), ("-W", "error")):
        result = view(image, alias, *((alias / "bin" / "python", *options) if options else ()),
                      alias / "bin" / "place-python")
        assert result.out == os.fsencode(f"{alias}\n") and result.err == b""
    text = view(image, alias, "cat", alias / "share/place/config.txt").out
    assert text.count(os.fsencode(alias)) == 3


@pytest.mark.fuse
def test_alias_too_long(work):
    require_views()
    alias = a_path(work, 280)
    alias.parent.mkdir(parents=True)
    result = view(image_of("conda.tar.gz", work), alias, "true", code=125)
    assert b"280 bytes" in result.err and b"255" in result.err


# -- what the other commands say

def test_verify_and_diff_know_relocations(work):
    image = image_of("conda.tar.gz", work)
    verified = json.loads(thaw("verify", "--json", "--quiet", image).text)
    assert verified["sites"] > 20 and verified["bad_sites"] == 0 and verified["ok"]
    # The same files, of which nobody says that they carry a path.
    thaw("extract", "--tar", image, work / "plain.tar")
    thaw("pack", work / "plain.tar", "-o", work / "plain.thaw", "--quiet", "--level", "1",
         "--kind", "tree")
    differences = json.loads(thaw("diff", "--json", image, work / "plain.thaw",
                                  code=command.DIFFERENT).text)
    changed = {entry["path"]: entry["changes"] for entry in differences["changed"]}
    assert changed["share/place/config.txt"] == ["relocations"]
    assert all(changes == ["relocations"] for changes in changed.values())
    text = thaw("diff", image, work / "plain.thaw", code=command.DIFFERENT).text
    assert "* share/place/config.txt: relocations\n" in text


@pytest.mark.fuse
def test_warming_keeps_relocations(work, state):
    """A rewritten image has other inode numbers, and the same files to render."""
    require_views()
    image = work / "warm.thaw"
    alias = work / "environment"
    thaw("warm", image_of("conda.tar.gz", work), "-o", image, "--", "python", "-c",
         "import pureplace.cli, json", env=command.environment(THAW_STATE_DIR=str(state)))
    assert json.loads(thaw("verify", "--json", "--quiet", image).text)["ok"]
    out = view(image, alias, alias / "bin" / "python", "-c", SHOW).text.split("\n")
    assert out[:3] == [str(alias)] * 3
