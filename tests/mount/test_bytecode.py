# SPDX-License-Identifier: Apache-2.0
"""
Bytecode of sources that carry the environment's own path: with --compile there is
none in a view that Python would not take, and it is what a compiler makes of the
source as conda-unpack leaves it.
"""
import json
import os
import pathlib
import subprocess
import sys

import pytest

from support import command
from support.command import run, thaw
from support.warm import info, require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import conda  # noqa: E402

pytestmark = pytest.mark.fuse

SITE = conda.SITE
LIBRARY = f"lib/{conda.PYTHON}"
TAG = sys.implementation.cache_tag
# Modules of the fixture with the path in them; _sysconfigdata* is another.
RELOCATED = [f"{SITE}/archplace/config.py", f"{SITE}/pureplace/config.py"]


@pytest.fixture(autouse=True)
def state(work, monkeypatch):
    """Layers are rendered into it: it must be ours."""
    require_views()
    monkeypatch.setenv("THAW_STATE_DIR", str(work / "state"))
    (work / "state").mkdir()


def compiled(name, work):
    """The compiled image of an archive of the fixture, made once a run, and what packing said."""
    shared = pathlib.Path(command.binary()).parent / f"compiled-{name}.thaw"
    report = shared.with_suffix(".json")
    if not report.exists():
        unfinished = work / "unfinished"
        out = thaw("pack", conda.get() / name, "-o", unfinished, "--json", "--level", "1",
                   "--compile").out
        os.replace(unfinished, shared)
        (work / "report").write_bytes(out)
        os.replace(work / "report", report)
    return shared, json.loads(report.read_text())


def bytecode_of(source):
    directory, name = os.path.split(source)
    return f"{directory}/__pycache__/{name[:-len('.py')]}.{TAG}.pyc"


# Takes every module as an import does, up to running it; those that it had to compile.
LOAD_ALL = """
import importlib.machinery, json, os, sys
count, compiled = 0, []
class Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data, path, **options):
        compiled.append(os.path.relpath(path, sys.prefix))
        return super().source_to_code(data, path, **options)
for top, _, names in os.walk(os.path.join(sys.prefix, sys.argv[1])):
    for name in names:
        if name.endswith(".py"):
            count += 1
            code = Loader("module", os.path.join(top, name)).get_code("module")
            assert code.co_filename == os.path.join(top, name), code.co_filename
print(json.dumps([count, compiled]))
"""
VALUES = """
import sys, sysconfig, archplace.config, pureplace.config
assert archplace.config.PREFIX == pureplace.config.PREFIX == sys.prefix, archplace.config.PREFIX
data = __import__(sysconfig._get_sysconfigdata_name())
print(sys.prefix, [m.__cached__ for m in (archplace.config, pureplace.config, data)])
"""


def load_all(image, *options):
    out = thaw("run", *options, image, "--", "python", "-c", LOAD_ALL, LIBRARY).out
    count, slow = json.loads(out)
    assert count > 400
    return slow


@pytest.mark.parametrize("archive", ["conda.tar.gz", "nocache.tar.gz"])
def test_no_import_compiles(work, archive):
    """Every module of the environment, in a view that cannot be written to."""
    image, report = compiled(archive, work)
    assert report["compiled"]["hidden"] == report["compiled"]["failed"] == 0
    assert info(image)["meta"]["bytecode"] == {**report["pyc"], "stale": 0, "missing": 0}
    assert load_all(image) == []
    result = thaw("run", image, "--", "python", "-v", "-c", VALUES)
    for source in RELOCATED:
        assert f"{bytecode_of(source)}'".encode() in result.err, "code object from ..."
    assert b"wrote" not in result.err and b"could not create" not in result.err
    thaw("verify", image)


def test_others_compile(work):
    """The same without --compile: what is counted above is there to be counted."""
    image = work / "plain.thaw"
    thaw("pack", conda.get() / "nocache.tar.gz", "-o", image, "--quiet", "--level", "1")
    assert set(RELOCATED) <= set(load_all(image))


def test_in_a_writable_view(work):
    """Nothing is written over what is valid."""
    image, _ = compiled("nocache.tar.gz", work)
    script = VALUES + """
import os
for m in (archplace.config, pureplace.config):
    assert open(m.__cached__, "rb").read()[4] == 1, "unchecked: not written by this run"
"""
    thaw("run", "--writable", image, "--", "python", "-c", script)


# Each .pyc against the compiler's own result for the source beside it, or elsewhere.
COMPARE = """
import json, marshal, sys
def same(a, b, where):
    assert type(a) is type(b), where
    if hasattr(a, "co_code"):
        for name in dir(a):
            if name.startswith("co_") and not callable(getattr(a, name)):
                same(getattr(a, name), getattr(b, name), where + "." + name)
        assert list(a.co_lines()) == list(b.co_lines()) if hasattr(a, "co_lines") else True
    elif isinstance(a, tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b)):
            same(x, y, "%s[%d]" % (where, i))
    else:
        assert a == b, (where, a, b)
for name, source, pyc in json.load(sys.stdin):
    code = marshal.loads(open(pyc, "rb").read()[16:])
    wanted = compile(open(source, "rb").read(), name, "exec", dont_inherit=True)
    same(code, wanted, name)
    assert code == wanted
"""


def relocated_sources(root):
    data = [path.relative_to(root).as_posix() for path in root.glob(f"{LIBRARY}/_sysconfigdata*.py")
            if not path.is_symlink()]
    assert data
    return RELOCATED + data


def a_path(work, length):
    path = os.fsencode(work)
    while length - len(path) > 101:
        path += b"/" + b"p" * 99
    return pathlib.Path(os.fsdecode(path + b"/" + b"q" * (length - len(path) - 1)))


@pytest.mark.parametrize("kind", ["short", "equal", "long", "unicode"])
def test_like_a_compiler(work, kind):
    """At each prefix what compiling gives there, where conda-unpack has been."""
    built = (conda.get() / "built").read_text()
    prefix = {
        "short": work / "s",
        "equal": a_path(work, max(len(built), len(str(work)) + 2)),
        "long": a_path(work, 400),
        "unicode": work / "\u00e4\u00f6\u20ac \U0001f40d and blanks",
    }[kind]
    image, _ = compiled("nocache.tar.gz", work)
    prefix.mkdir(parents=True)
    run("tar", "-xf", conda.get() / "nocache.tar.gz", "-C", prefix)
    run(prefix / "bin" / "python", prefix / "bin" / "conda-unpack",
        env=command.environment(PYTHONDONTWRITEBYTECODE="1"))
    thaw("extract", "--quiet", "--prefix", prefix, image, work / "out")
    cases = []
    for source in relocated_sources(prefix):
        assert str(prefix).encode() in (prefix / source).read_bytes()
        if source in RELOCATED: # others may have it in comments only
            assert str(prefix).encode() in (work / "out" / bytecode_of(source)).read_bytes()
        cases.append((source, str(prefix / source), str(work / "out" / bytecode_of(source))))
    subprocess.run([sys.executable, "-I", "-X", "no_debug_ranges", "-c", COMPARE],
                   input=json.dumps(cases), text=True, check=True, timeout=60)


def test_prefix_that_changes_literals(work):
    """With a quote in it, a source may mean something else: its bytecode does not count."""
    image, _ = compiled("nocache.tar.gz", work)
    thaw("extract", "--quiet", "--prefix", "/it's", image, work / "out")
    for source in relocated_sources(work / "out"):
        assert (work / "out" / source).exists()
        assert not (work / "out" / bytecode_of(source)).exists()
    assert (work / "out" / bytecode_of(f"{LIBRARY}/os.py")).exists()


# Compilers take a character out of the path, and count its characters.
ODD = "PREFIX = '%(p)s'\nTENTH = '%(p)s'[10]\n"


def test_what_cannot_follow(work):
    """Found out when packing: hidden as before, counted, said, and right all the same."""
    tree = work / "tree"
    tree.mkdir()
    run("tar", "-xf", conda.get() / "nocache.tar.gz", "-C", tree)
    built = (conda.get() / "built").read_text()
    script = tree / "bin" / "conda-unpack"
    text = script.read_text()
    records = "_prefix_records = "
    path = f"{SITE}/odd.py"
    (tree / path).write_text(ODD % {"p": built})
    at = text.index("[", text.index(records)) + 1
    script.write_text(text[:at] + f"({path!r}, {built!r}, 'text'),\n" + text[at:])
    run("tar", "-cf", work / "odd.tar", "-C", tree, ".")
    image = work / "odd.thaw"
    report = json.loads(thaw("pack", work / "odd.tar", "-o", image, "--json", "--level", "1",
                             "--compile").out)
    assert report["compiled"]["hidden"] == 1 and report["compiled"]["failed"] == 0
    said = info(image)
    assert said["meta"]["bytecode"]["hidden"] == 1
    assert any("1 modules carry its own path" in warning for warning in said["warnings"])
    assert b" missing, 1 hidden\n" in thaw("info", image).out
    assert load_all(image) == [path]
    check = "import odd, sys; assert odd.PREFIX == sys.prefix and odd.TENTH == sys.prefix[10]"
    thaw("run", image, "--", "python", "-c", check)
    # a training run compiles it, for its own view: that is not kept
    thaw("warm", image, "--", "python", "-c", check)
    assert bytecode_of(path).encode() not in thaw("ls", "-R", image).out
    assert load_all(image) == [path]
