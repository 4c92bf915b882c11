# SPDX-License-Identifier: Apache-2.0
"""
The README's table "Every kind of pack, at its alias path", both columns: what one does
today is done with the genuine tools, at the path where the view stands afterwards, and
the view must answer the same. The commands are those of the table, word for word.
"""
import io
import json
import os
import re
import shutil
import sys
import tarfile
import zipfile

import pytest

from support import command
from support.command import binary, run, thaw
from support.trees import snapshot
from support.views import leaves_nothing, places  # noqa: F401
from support.warm import fixtures, require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import conda  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module", autouse=True)
def built():
    """Before any test's watchdog starts: it takes minutes when the cache has none."""
    conda.get()
    wheels.get()
    fixtures.get("small")


def table():
    """{first column: (what one does today, with thaw)}"""
    text = (command.PROJECT / "README.md").read_text(encoding="utf-8")
    part = text.split("## Every kind of pack, at its alias path", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in part.splitlines() if line.startswith("|")]
    return {row[0]: tuple(row[1:]) for row in rows[2:]}


def test_every_row_is_tested():
    assert list(table()) == ["conda-pack", "a live conda prefix", "venv-pack, a venv", "PEX",
                             "wheels", "any tarball, zip or directory"]


def base():
    return fixtures._base_python()


def commands(row):
    return re.findall(r"`([^`]+)`", table()[row][1])


@pytest.fixture
def folder(work):
    """Where the sources of the table lie, and the session's alias."""
    require_views()
    (work / "node").mkdir()
    return work / "node"


def shell(folder, text, **variables):
    """A command of the table."""
    path = f"{os.path.dirname(binary())}:{base().parent}:/usr/bin:/bin"
    return run("sh", "-c", text, cwd=folder, env=command.environment(PATH=path, **variables))


def pack(row, folder, name=None, replaced=None, **variables):
    """The image that the row's command makes; of another source than its example, if given."""
    text, = [word for word in commands(row) if word.startswith("thaw pack ")]
    if replaced:
        assert replaced in text
        text = text.replace(replaced, name)
    shell(folder, f"{text} --quiet", **variables)
    image, = folder.glob("*.thaw")
    return image


def in_view(image, *words, **options):
    return thaw("run", f"--python={base()}", f"{image.name}#environment", "--", *words,
                cwd=image.parent, **options)


ASK = """
import hashlib, importlib, importlib.metadata, json, os, pkgutil, sys, sysconfig
site = sysconfig.get_path("purelib")
modules = {}
for name in sorted(m.name for m in pkgutil.iter_modules([site])):
    modules[name] = importlib.import_module(name).__file__
print(json.dumps({
    "prefix": sys.prefix, "executable": sys.executable, "modules": modules,
    "packages": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}}))
"""


def answers(start, scripts):
    """What an environment says of itself, and its scripts of everything."""
    said = json.loads(start(ASK).text)
    assert said["modules"]
    return said, [start(None, *words).out for words in scripts]


def today(alias, scripts):
    def start(code, *words):
        env = command.environment(PATH=f"{alias}/bin:/usr/bin:/bin", PYTHONDONTWRITEBYTECODE="1")
        return run(*((alias / "bin" / "python", "-c", code) if code else
                     (alias / "bin" / words[0], *words[1:])), env=env, input=b"1 2\n")
    return answers(start, scripts)


def with_thaw(image, scripts):
    def start(code, *words):
        return in_view(image, *(("environment/bin/python", "-c", code) if code else words),
                       input=b"1 2\n")
    return answers(start, scripts)


def files(root, *left_out):
    """What is there, but for bytecode and what else a regular expression names."""
    unwanted = re.compile(rb"|".join((rb".*\.pyc", rb"(.*/)?__pycache__") + left_out))
    return {path: (entry.kind, entry.digest, entry.target)
            for path, entry in snapshot(root).items() if not unwanted.fullmatch(path)}


def of_view(image, *left_out):
    copy = image.parent.parent / "copy"
    in_view(image, "cp", "-a", "environment", copy)
    return files(copy, *left_out)


def away(alias):
    """What one does today is over; the place is the view's."""
    alias.rename(alias.parent.parent / "today")


SCRIPTS = {
    "conda": (("place-python",), ("place-shell", "-c", "import sys; print(sys.prefix)"),
              ("pureplace",)),
    "venv": (("tabulate",), ("tabulate", "--help")),
    "wheels": (("tabulate",), ("schemes-entry",)),
}


def unpack(archive, alias):
    alias.mkdir()
    run("tar", "-xf", archive, "-C", alias)


def conda_unpack(alias):
    run(alias / "bin" / "python", alias / "bin" / "conda-unpack",
        env=command.environment(PYTHONDONTWRITEBYTECODE="1"))


def test_conda_pack(folder):
    shutil.copy(conda.get() / "conda.tar.gz", folder / "packed.tar.gz")
    alias = folder / "environment"
    unpack(folder / "packed.tar.gz", alias)
    # Without the second step, what carries the prefix does not work.
    assert run(alias / "bin" / "place-shell", code=None).code == 127
    conda_unpack(alias)
    reference, tree = today(alias, SCRIPTS["conda"]), files(alias, rb"bin/conda-unpack")
    assert len(tree) > 500
    away(alias)
    image = pack("conda-pack", folder)
    assert with_thaw(image, SCRIPTS["conda"]) == reference
    assert of_view(image, rb"bin/conda-unpack") == tree


def test_live_conda_prefix(work, folder):
    live, alias = folder / "live", folder / "environment"
    conda.install(conda.get(), live, ["place", "pureplace", "python"], work / "cache")
    conda.pack(conda.get(), live, work / "packed.tar.gz")
    unpack(work / "packed.tar.gz", alias)
    conda_unpack(alias)
    # conda-pack adds scripts, and leaves alone what has no end (test_conda.py).
    own = rb"bin(/.*)?", rb"conda-meta(/.*)?", rb"share/place/strings\.bin"
    reference, tree = today(alias, SCRIPTS["conda"]), files(alias, *own)
    away(alias)
    image = pack("a live conda prefix", folder, CONDA_PREFIX=str(live))
    assert with_thaw(image, SCRIPTS["conda"]) == reference
    assert of_view(image, *own) == tree


def made_elsewhere(archive, path):
    """The archive as it were, had the builder's interpreter been one that is not here."""
    with tarfile.open(archive) as source, tarfile.open(path, "w:gz") as target:
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            if member.issym() and member.linkname == str(base()):
                member.linkname = f"/builder/bin/{base().name}"
            if member.name.endswith("pyvenv.cfg"):
                data = content.read().replace(os.fsencode(base().parent), b"/builder/bin")
                member.size, content = len(data), io.BytesIO(data)
            target.addfile(member, content)


def test_venv_pack(folder):
    alias, archive = folder / "environment", fixtures.get("small").archive
    unpack(archive, alias)
    assert os.path.realpath(alias / "bin" / "python") == str(base())
    reference, tree = today(alias, SCRIPTS["venv"]), files(alias, rb"(bin|pyvenv\.cfg)(/.*)?")
    away(alias)
    # On another machine:
    made_elsewhere(archive, folder / "packed.tar.gz")
    unpack(folder / "packed.tar.gz", alias)
    with pytest.raises(FileNotFoundError):
        today(alias, SCRIPTS["venv"])
    shutil.rmtree(alias)
    image = pack("venv-pack, a venv", folder)
    assert with_thaw(image, SCRIPTS["venv"]) == reference
    assert of_view(image, rb"(bin|pyvenv\.cfg)(/.*)?") == tree
    image.unlink()
    assert "--with-python" in commands("venv-pack, a venv")
    image = pack("venv-pack, a venv", folder, f"--with-python --python={base()} packed.tar.gz",
                 "packed.tar.gz")
    assert thaw("run", image, "--", "python", "-c",
                "import sys; print(sys.prefix == sys.base_prefix)").text == "True\n"


def pip_install(alias, *paths):
    """Into a new venv."""
    run(base(), "-m", "venv", "--without-pip", alias)
    run(wheels.get() / "tools" / "bin" / "python", "-m", "pip", f"--python={alias}/bin/python",
        "install", "--quiet", "--no-index", "--no-deps", "--no-compile", *paths,
        env=command.environment(PIP_DISABLE_PIP_VERSION_CHECK="1"))


def test_venv(folder):
    """A venv that is moved: its scripts start an interpreter that is not there."""
    alias = folder / "environment"
    pip_install(alias, *wheels.get().glob("wheels/tabulate-*"))
    reference = today(alias, SCRIPTS["venv"])
    alias.rename(folder / "moved")
    with pytest.raises(FileNotFoundError):
        today(folder / "moved", SCRIPTS["venv"])
    image = pack("venv-pack, a venv", folder, "moved", "packed.tar.gz")
    assert with_thaw(image, SCRIPTS["venv"]) == reference


PYSPARK = {
    "pyspark/__init__.py": b"",
    "pyspark/daemon.py": b"from pyspark.start import main\nmain()\n",
    "pyspark/start.py": b"""\
import json, sys

def main():
    import attr, click
    print(json.dumps({"argv": sys.argv[1:], "attr": attr.__version__, "click": click.__name__,
                      "pex": sorted(name for name in sys.modules if name.split(".")[0] == "pex"),
                      "venv": sys.prefix != sys.base_prefix}))
""",
}


def test_pex(work, folder):
    fixture, app, root = wheels.get(), folder / "app.pex", work / "pex-root"
    wheels.make_wheel(work, "pyspark", PYSPARK)
    clean = {k: v for k, v in command.environment().items() if not k.startswith("PEX_")}
    run(fixture / "tools" / "bin" / "python", "-I", "-m", "pex", "--pex-root", root, "--no-pypi",
        "--find-links", fixture / "wheels", "--find-links", work, "attrs", "click", "pyspark",
        "--entry-point", "pyspark.start:main", "--output-file", app, env=clean)
    shutil.rmtree(root)

    def itself(*words, **variables):
        return run(base(), app, *words, env={**clean, "PEX_ROOT": str(root), **variables})

    assert json.loads(itself("a").text)["argv"] == ["a"]
    unpacked = {path for path in root.rglob("*.py")}
    assert len(unpacked) > 100
    later = itself("a", PEX_VERBOSE="1")
    assert b"pex: Bootstrap complete" in later.err
    assert {path for path in root.rglob("*.py")} == unpacked
    reference = json.loads(later.text)
    assert reference["pex"]
    daemon = json.loads(itself("-m", "pyspark.daemon", PEX_INTERPRETER="1").text)
    shutil.rmtree(root)

    pack("PEX", folder)
    start, = [word for word in commands("PEX") if word.startswith("thaw run ")]
    own, = [word for word in commands("PEX") if word.startswith("-- ")]
    prefix = start.partition("-- ")[0].replace("thaw run", f"thaw run --python={base()}")
    for text, expected in ((f"{prefix}{own} a", reference),
                           (prefix + "-- " + start.partition("-- ")[2], daemon)):
        said = json.loads(shell(folder, text, PEX_ROOT=str(root)).text)
        assert said == {**expected, "pex": [], "venv": True}
    assert not root.exists()


def test_wheels(folder):
    alias = folder / "environment"
    shutil.copytree(wheels.get() / "wheels", folder / "wheels")
    pip_install(alias, *(folder / "wheels").iterdir())
    # scripts name their interpreter, and who installed it they say differently
    own = (rb"(?!(lib|etc|share)/).*",
           rb".*\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)")
    reference, tree = today(alias, SCRIPTS["wheels"]), files(alias, *own)
    assert any(path.endswith(b"attr/__init__.py") for path in tree)
    away(alias)
    image = pack("wheels", folder)
    assert with_thaw(image, SCRIPTS["wheels"]) == reference
    assert of_view(image, *own) == tree


@pytest.mark.parametrize("name", ["env.zip", "env.tar", "env.tar.gz", "env.tar.xz", "env.tar.bz2",
                                  "env.tar.zst", "env"])
def test_anything(work, folder, name):
    tree = work / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "hello").write_text("#!/bin/sh\necho \"hello $*\"\n")
    (tree / "bin" / "hello").chmod(0o755)
    (tree / "n\u00e4me with blanks").write_bytes(os.urandom(300000))
    alias, source = folder / "environment", folder / name
    if name == "env.zip":
        with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(tree.rglob("*")):
                archive.write(path, path.relative_to(tree))
        with zipfile.ZipFile(source) as archive:
            archive.extractall(alias)
        (alias / "bin" / "hello").chmod(0o755)  # which Python's zipfile forgets
    elif name == "env":
        shutil.copytree(tree, source)
        shutil.copytree(source, alias)
    else:
        run("tar", "-C", tree, "-caf", source, ".")
        unpack(source, alias)
    reference = run(alias / "bin" / "hello", "you").out, files(alias)
    away(alias)
    image = pack("any tarball, zip or directory", folder, name, "env.zip")
    assert (in_view(image, "hello", "you").out, of_view(image)) == reference
    assert files(tree) == reference[1]
