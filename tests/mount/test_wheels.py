# SPDX-License-Identifier: Apache-2.0
"""
A directory of wheels as an environment. The references are pip and uv: what they
install of the same wheels, without bytecode, must be in it, byte for byte.
"""
import csv
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

from support import command
from support.command import DAMAGED, LIMIT, REFUSED, one_error_line, run, thaw, thaw_fails
from support.trees import snapshot
from support.views import leaves_nothing, places  # noqa: F401
from support.warm import require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment  # noqa: E402
import wheels as fixtures  # noqa: E402

SITE = os.fsencode(fixtures.SITE)
# What whoever installs writes about that.
ABOUT = (b"RECORD", b"INSTALLER", b"REQUESTED", b"direct_url.json", b"uv_cache.json")

# What a venv has before anything is installed into it.
ACTIVATE = ("activate", "activate.csh", "activate.fish")


@functools.lru_cache(maxsize=None)
def fixture():
    return fixtures.get()


@pytest.fixture(scope="module", autouse=True)
def built():
    """Before any test's watchdog starts: it takes a minute when the cache has none."""
    fixture()


def python_option():
    """The interpreter that the fixture was made with: no other need be here."""
    return f"--python={environment._base_python()}"


@pytest.fixture
def image(work):
    thaw("pack", fixture() / "wheels", "-o", work / "wheels.thaw", "--quiet", *version())
    return work / "wheels.thaw"


def version():
    """Without it, wheels of any kind leave the version open to what this machine has."""
    return "--python-version", f"3.{sys.version_info[1]}"


@pytest.fixture
def tree(image, work):
    thaw("extract", image, work / "tree", "--quiet")
    return work / "tree"


def installed(root, below=SITE):
    """{path: Entry} of what was installed, without what is about the installation."""
    entries = snapshot(root)
    return {path: (entry.kind, entry.digest, entry.target, entry.mode & 0o111)
            for path, entry in entries.items()
            if path.startswith(below + b"/") and os.path.basename(path) not in ABOUT}


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_site_packages_as_installed(tree, tool):
    expected = installed(fixture() / tool)
    assert len(expected) > 80
    assert installed(tree) == expected


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_data_as_installed(tree, tool):
    for below in (b"etc", b"share"):
        assert installed(tree, below) == installed(fixture() / tool, below) != {}
    # Both take a venv's directory for headers; where they differ is above the version.
    headers = {path.name: path.read_bytes() for path in tree.glob("include/site/*/schemes/*")}
    assert headers == {"schemes.h": b"#define SCHEMES 1\n"}


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_scripts_as_installed(tree, tool):
    """The same names; those that come from wheels the same but for their first line."""
    reference = fixture() / tool / "bin"
    venvs = {"python", "python3", f"python3.{sys.version_info[1]}", *ACTIVATE}
    assert {path.name for path in (tree / "bin").iterdir()} - venvs == \
           {path.name for path in reference.iterdir()}
    for name in ("schemes-script", "schemes-shell"):
        ours, theirs = (directory / name for directory in (tree / "bin", reference))
        assert ours.read_bytes().partition(b"\n")[2] == theirs.read_bytes().partition(b"\n")[2]
        assert os.access(ours, os.X_OK)
    assert (tree / "bin" / "schemes-script").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert (tree / "bin" / "schemes-shell").read_bytes().startswith(b"#!/bin/sh\n")


def test_records_tell_the_truth(tree):
    """Every file is in one RECORD, with the digest that it has, or none."""
    site = tree / fixtures.SITE
    named = set()
    for record in site.glob("*.dist-info/RECORD"):
        for path, digest, size in csv.reader(record.read_text().splitlines()):
            target = pathlib.Path(os.path.normpath(site / path))
            assert target.is_file(), path
            named.add(target)
            if digest:
                row = fixtures._row(path, target.read_bytes())
                assert next(csv.reader([row])) == [path, digest, size]
    files = {path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    venvs = {tree / "pyvenv.cfg", *(tree / "bin" / name for name in ACTIVATE)}
    assert files - named == venvs


def test_a_view_of_it(image):
    require_views()
    script = ("import attr, click, corp.left, corp.right, markupsafe._speedups, os, schemes, sys, "
              "tabulate; from importlib import metadata; "
              "assert sys.prefix == os.environ['THAW_ENV'] != sys.base_prefix; "
              "assert attr.__file__.startswith(sys.prefix + '/'); "
              "print(sorted(d.name for d in metadata.distributions() if d.read_text('INSTALLER') "
              "== 'thaw\\n'), [str(f) for f in metadata.files('schemes')][-3:])")
    result = thaw("run", python_option(), image, "--", "python", "-c", script)
    assert "['MarkupSafe', 'attrs', 'click', 'corp_left', 'corp_right', 'schemes', 'tabulate']" \
        in result.text
    assert "../../../bin/schemes-entry" in result.text
    for name, answer in (("schemes-script", "script schemes\n"), ("schemes-shell", "shell\n"),
                         ("schemes-entry", "entry schemes\n")):
        assert thaw("run", python_option(), image, "--", name).text == answer
    assert thaw("run", python_option(), image, "--", "tabulate", "-h").text.startswith("Usage")


IN_SHELL = """
. "$1/bin/activate"; echo "$VIRTUAL_ENV $VIRTUAL_ENV_PROMPT $PATH"; command -v schemes-entry
deactivate; echo "${VIRTUAL_ENV-unset} $PATH"; command -v deactivate || echo gone
"""
IN_FISH = """
source "$argv[1]/bin/activate.fish"; echo "$VIRTUAL_ENV $VIRTUAL_ENV_PROMPT" (string join : $PATH)
command -v schemes-entry
deactivate; echo (set -q VIRTUAL_ENV; or echo unset) (string join : $PATH)
functions -q deactivate; or echo gone
"""
IN_CSH = """
source "{view}/bin/activate.csh"; echo "$VIRTUAL_ENV $VIRTUAL_ENV_PROMPT $PATH"
which schemes-entry
deactivate
if (! $?VIRTUAL_ENV) echo "unset $PATH"
if ("" == "`alias deactivate`") echo gone
"""


@pytest.mark.parametrize("alias", ["env", "it's an env"])
def test_activate(image, work, alias):
    """In every shell that is here; sh and bash are everywhere."""
    require_views()
    view = work / alias
    programs = {"sh": IN_SHELL, "bash": IN_SHELL, "zsh": IN_SHELL, "fish": IN_FISH,
                "tcsh": IN_CSH.format(view=view)}
    for shell, text in programs.items():
        if not shutil.which(shell):
            assert shell not in ("sh", "bash")
            continue
        program = work / f"program.{shell}"
        program.write_text(text)
        strict = ["-eu"] if text is IN_SHELL else ["-f"] if shell == "tcsh" else []
        result = thaw("run", python_option(), f"{image}#{alias}", "--", "env", "PATH=/usr/bin:/bin",
                      shell, *strict, program, view, cwd=work)
        assert result.text.splitlines() == [
            f"{view} {alias} {view}/bin:/usr/bin:/bin", f"{view}/bin/schemes-entry",
            "unset /usr/bin:/bin", "gone"], shell


def test_activate_of_a_wheel_stays(work):
    """As an installer writes over that of the venv."""
    (work / "in").mkdir()
    fixtures.make_wheel(work / "in", "shells",
                        {"shells-1.0.data/scripts/activate": b"#!/bin/sh\necho mine\n"})
    thaw("pack", work / "in", "-o", work / "env.thaw", "--quiet", *version())
    assert thaw("cat", work / "env.thaw", "bin/activate").text == "#!/bin/sh\necho mine\n"


def test_same_bytes(image, work):
    """Of the same wheels in another directory, in another order of arrival, at another time."""
    copy = work / "copy"
    copy.mkdir()
    for wheel in sorted((fixture() / "wheels").iterdir(), reverse=True):
        shutil.copy(wheel, copy)
        os.utime(copy / wheel.name, (0, 0))
    thaw("pack", copy, "-o", work / "copy.thaw", "--quiet", *version())
    assert (work / "copy.thaw").read_bytes() == image.read_bytes()


def test_report(image):
    result = thaw("info", "--json", image)
    for text in ('"kind": "wheels"', f'"python": "3.{sys.version_info[1]}"', '"MarkupSafe"'):
        assert text in result.text


def test_one_wheel(work):
    wheel = next((fixture() / "wheels").glob("attrs-*.whl"))
    thaw("pack", wheel, "-o", work / "attrs.thaw", "--quiet", *version())
    assert "__init__.py" in thaw("ls", work / "attrs.thaw", f"{fixtures.SITE}/attr").text.split()


def test_stored_as_files(work):
    """--kind=tree takes wheels for what they are: zip archives in a directory."""
    thaw("pack", fixture() / "wheels", "-o", work / "files.thaw", "--quiet", "--kind", "tree")
    names = thaw("ls", work / "files.thaw").text.split()
    assert names == sorted(path.name for path in (fixture() / "wheels").iterdir())


# -- what is refused; that the parts of the check work is for tests/unit/test-wheel.c --


@pytest.fixture
def directory(work):
    path = work / "wheels"
    path.mkdir()
    return path


def pack_fails(code, word, directory, work):
    result = thaw_fails(code, word, "pack", directory, "-o", work / "bad.thaw", *version())
    assert not (work / "bad.thaw").exists()
    return result


def test_conflict(directory, work):
    fixtures.make_wheel(directory, "one", {"shared.py": b"a = 1\n"})
    fixtures.make_wheel(directory, "two", {"shared.py": b"a = 2\n"})
    pack_fails(REFUSED, "shared.py.*different content in one-1.0-.* and two-1.0-", directory, work)


def test_changed_after_the_record(directory, work):
    whl = fixtures.make_wheel(directory, "one", {"one.py": b"a = 1\n"})
    good = whl.read_bytes()
    fixtures.make_wheel(directory, "one", {"one.py": b"a = 1\n"}, record="one.py,sha256=A,\n")
    pack_fails(DAMAGED, "one-1.0-py3-none-any.whl: RECORD: bad digest .*one.py", directory, work)
    record = "one.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,\n"
    fixtures.make_wheel(directory, "one", {"one.py": b"a = 1\n"}, record=record)
    pack_fails(DAMAGED, "one.py.*not what RECORD says", directory, work)
    # A wrong byte in the file, which zip's own checksum finds.
    at = good.index(b"one.py") + 6
    whl.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1:])
    pack_fails(DAMAGED, "one-1.0-.*one.py.*damaged", directory, work)


def test_for_other_pythons(directory, work):
    fixtures.make_wheel(directory, "one", {"one.py": b""}, tag="cp38-cp38-manylinux2014_x86_64")
    fixtures.make_wheel(directory, "two", {"two.py": b""}, tag="cp39-cp39-manylinux2014_x86_64")
    pack_fails(REFUSED, "one-1.0-.* and two-1.0-.* no version of Python in common", directory, work)


def test_for_other_machines(directory, work):
    tag = f"cp3{sys.version_info[1]}"
    for project, machine in (("one", "x86_64"), ("two", "aarch64")):
        fixtures.make_wheel(directory, project, {f"{project}.py": b""},
                            tag=f"{tag}-{tag}-manylinux2014_{machine}")
    pack_fails(REFUSED, "two-1.0-.* for manylinux_aarch64.*one-1.0-.* for manylinux_x86_64",
               directory, work)


def requires(whl, constraint):
    """Say which Python a wheel of the fixtures' requires."""
    with zipfile.ZipFile(whl) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(whl, "w") as archive:
        for name, data in files.items():
            if name.endswith("/METADATA"):
                data += f"Requires-Python: {constraint}\n".encode()
            if name.endswith("/RECORD"):  # of METADATA it says nothing now
                data = b"\n".join(line for line in data.split(b"\n") if b"METADATA" not in line)
            archive.writestr(name, data)


def test_requires_python_to_the_patch_level(directory, work):
    """pip refuses an interpreter that a wheel is not for: so does a view."""
    require_views()
    python = environment._base_python()
    exact = run(python, "-c", "import platform; print(platform.python_version())").text.strip()
    image = work / "wheels.thaw"
    for number, constraint in enumerate(("", f">=3.9, >= {exact},!=3.10.4", f"!={exact}")):
        if constraint:
            whl = fixtures.make_wheel(directory, f"one{number}", {f"one{number}.py": b""})
            requires(whl, constraint)
        fixtures.make_wheel(directory, "two", {"two.py": b""})
        thaw("pack", directory, "-o", image, "--quiet", "--force", *version())
        said = json.loads(thaw("info", "--json", image).text)["constraints"]
        assert said == (None, f">={exact}", f">={exact},!={exact}")[number]
        result = thaw("run", python_option(), image, "--", "python", "-c", "import two",
                      code=(0, 0, 125)[number])
        if constraint:
            pip = run(python, "-m", "pip", "install", "--no-index", "--find-links", directory,
                      "--target", work / f"pip{number}", f"one{number}", code=None)
            assert (pip.code == 0) == (result.code == 0), pip
    assert f"is Python {exact}, not >={exact},!={exact}".encode() in result.err


def test_version_left_open(directory, work):
    """It is said that a guess was made, and refused where nothing can be guessed."""
    fixtures.make_wheel(directory, "one", {"one.py": b""})
    result = thaw("pack", directory, "-o", work / "open.thaw", "--json")
    assert thaw("info", work / "open.thaw").text.count("newest") == 1, result
    fixtures.make_wheel(directory, "two", {"two.py": b""}, tag="cp363-none-any")
    fixtures.make_wheel(directory, "two", {"two.py": b""}, tag="py362-none-any")
    one_error_line(thaw("pack", directory, "-o", work / "bad.thaw", code=REFUSED))


def test_limits(directory, work):
    fixtures.make_wheel(directory, "one", {f"one/{i}.py": b"" for i in range(100)})
    thaw_fails(LIMIT, "entries|members", "pack", directory, "-o", work / "bad.thaw", *version(),
               "--max-entries", "50")
    fixtures.make_wheel(directory, "two", {"two/zeros": bytes(80 << 20)})
    thaw_fails(LIMIT, "max-ratio", "pack", directory, "-o", work / "bad.thaw", *version())
    thaw_fails(LIMIT, "max-bytes", "pack", directory, "-o", work / "bad.thaw", *version(),
               "--max-bytes", "1M")


def test_never_waits_for_a_pipe(directory, work):
    """A fifo called *.whl is no wheel."""
    fixtures.make_wheel(directory, "one", {"one.py": b""})
    os.mkfifo(directory / "two-1.0-py3-none-any.whl")
    one_error_line(thaw("pack", directory, "-o", work / "bad.thaw", code=REFUSED))


def test_installed_beside_it(image, work):
    """pip sees what is installed, and that its files are whole."""
    require_views()
    check = ("import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', 'pip', "
             "'--python', sys.argv[1], 'check'] , stdout=sys.stderr).returncode)")
    tools = fixture() / "tools" / "bin" / "python"
    result = run("sh", "-c", f"exec {command.binary()} run {python_option()} {image} -- "
                 f"sh -c '{tools} -I -m pip --python \"$THAW_ENV/bin/python\" list'",
                 cwd=work)
    assert check and "MarkupSafe" in result.text and "schemes" in result.text
