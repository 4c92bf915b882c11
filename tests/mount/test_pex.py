# SPDX-License-Identifier: Apache-2.0
"""
PEX files in every layout, as the environments that they would make. The reference is
the PEX itself: what its application sees and answers.
"""
import functools
import json
import os
import pathlib
import shutil
import sys

import pytest

from support import command
from support.command import DAMAGED, REFUSED, run, thaw, thaw_fails
from support.trees import snapshot
from support.views import leaves_nothing, places  # noqa: F401
from support.warm import require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import environment  # noqa: E402
import wheels as fixtures  # noqa: E402

# What tells one installation from another; RECORD has what PEX rewrote.
ABOUT = (b"RECORD", b"INSTALLER", b"REQUESTED", b"direct_url.json")


@functools.lru_cache(maxsize=None)
def fixture():
    return fixtures.get()


@pytest.fixture(scope="module", autouse=True)
def built():
    """Before any test's watchdog starts: it takes a minute when the cache has none."""
    fixture()


def pack(name, work):
    image = work / f"{name}.thaw"
    thaw("pack", fixture() / name, "-o", image, "--quiet")
    return image


def view(image, *arguments, code=0, env=None):
    require_views()
    return thaw("run", f"--python={environment._base_python()}", image, "--", *arguments,
                code=code, env=env)


def site_packages(tree):
    """{path: what it is} of site-packages, but for what is about the installation."""
    root = os.fsencode(fixtures.SITE) + b"/"
    return {path[len(root):]: (entry.kind, entry.digest, entry.target)
            for path, entry in snapshot(tree).items()
            if path.startswith(root) and os.path.basename(path) not in ABOUT}


@pytest.mark.parametrize("name", fixtures.LAYOUTS)
def test_same_modules_in_every_layout(name, work):
    """What pip installs of the wheels, and the application's own code."""
    thaw("extract", pack(name, work), work / "tree", "--quiet")
    expected = site_packages(fixture() / "pip")
    found = site_packages(work / "tree")
    for path in (fixture() / "app").rglob("*"):
        own = os.fsencode(path.relative_to(fixture() / "app"))
        if "__pycache__" in path.parts:
            continue
        kind, digest, _ = found.pop(own)
        assert kind == ("directory" if path.is_dir() else "file")
        if path.is_file():
            text = (work / "tree" / fixtures.SITE / os.fsdecode(own)).read_bytes()
            assert text == path.read_bytes()
    assert found == expected
    top = {path.name for path in (work / "tree").iterdir()}
    assert top == {"__main__.py", "bin", "etc", "include", "lib", "lib64", "pyvenv.cfg", "share"}
    assert (work / "tree/etc/schemes/schemes.conf").read_bytes() == b"[schemes]\n"
    assert not [path for path in snapshot(work / "tree") if b"PEX" in path or b".deps" in path
                or b".bootstrap" in path or b"pex-info" in path or b".layout" in path]


@pytest.mark.parametrize("name", fixtures.LAYOUTS)
def test_application_starts(name, work):
    image = pack(name, work)
    answer = json.loads(view(image, "__pex__", "a", "b c", code=7).text)
    assert answer["argv"] == ["a", "b c"]
    assert answer["names"] == ["left", "right", "schemes"]
    assert answer["attr"] == f"{answer['prefix']}/{fixtures.SITE}/attr/__init__.py"
    assert answer["prefix"] != answer["base"]
    assert not [entry for entry in answer["path"] if ".pex" in entry or ".bootstrap" in entry]
    for script, text in (("schemes-entry", "entry schemes\n"),
                         ("schemes-script", "script schemes\n"), ("schemes-shell", "shell\n")):
        assert view(image, script).text == text


def pex_itself(name, *arguments, code=0, **variables):
    """What the PEX answers when it is started as it is."""
    env = {k: v for k, v in command.environment(**variables).items() if not k.startswith("PEX_")}
    # Shared by the tests of a run, and gone with it.
    env["PEX_ROOT"] = str(pathlib.Path(command.binary()).parent / "pex-root")
    return run(environment._base_python(), fixture() / name, *arguments, code=code, env=env,
               timeout=120)


@pytest.mark.parametrize("name", ["zipapp.pex", "injected.pex", "module.pex", "file.pex"])
def test_answers_as_the_pex_does(name, work):
    variables = {"HOME": "/nowhere at all"}
    reference = json.loads(pex_itself(name, "one", "--two", code=7, **variables).text)
    ours = json.loads(view(pack(name, work), "__pex__", "one", "--two", code=7,
                           env=command.environment(**variables)).text)
    for key in ("argv", "names", "warnings", "colour"):
        assert ours[key] == reference[key], key
    if name == "injected.pex":
        assert ours["argv"][:2] == ["--first", "/nowhere at all \u00e9"]
        assert ours["colour"] == "blue \U0001f40d" and ours["warnings"] == ["ignore::ImportWarning"]


def test_variables_that_are_set_win(work):
    answer = view(pack("injected.pex", work), "__pex__", code=7,
                  env=command.environment(APPLICATION_COLOUR="red"))
    assert json.loads(answer.text)["colour"] == "red"


def test_script_as_entry_point(work):
    reference = pex_itself("script.pex")
    image = pack("script.pex", work)
    assert view(image, "__pex__").text == reference.text == "entry schemes\n"


def test_no_entry_point(work):
    """A PEX that is an interpreter: python is all that there is to start."""
    image = pack("interpreter.pex", work)
    assert "__pex__" not in thaw("ls", image, "bin").text.split()
    assert "__main__.py" not in thaw("ls", image).text.split()
    assert view(image, "python", "-c", "import attr, schemes; print(schemes.NAME)").text == \
        "schemes\n"


def test_started_by_its_directory(work):
    """Where PEX has __main__.py in the environments that it makes."""
    result = view(pack("zipapp.pex", work), "sh", "-c", 'exec python "$THAW_ENV" x', code=7)
    assert json.loads(result.text)["argv"] == ["x"]


def test_modules_and_python_path(work):
    """As Spark starts its workers: -m, with a package that only PYTHONPATH leads to."""
    package = work / "sent" / "sparkish"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "daemon.py").write_text("import attr, sys\nprint(__name__, attr.__name__, "
                                       "sys.executable)\n")
    image = pack("zipapp.pex", work)
    result = view(image, "python", "-m", "sparkish.daemon",
                  env=command.environment(PYTHONPATH=str(work / "sent")))
    assert result.text.split()[:2] == ["__main__", "attr"]
    assert result.text.split()[2].endswith("/bin/python")
    answer = json.loads(view(image, "python", "-m", "application.main", "-x", code=7,
                             env=command.environment(PYTHONPATH="/a:/b")).text)
    assert answer["argv"] == ["-x"] and answer["pythonpath"] == "/a:/b"
    assert {"/a", "/b"} <= set(answer["path"])


def test_described(work):
    result = thaw("info", "--json", pack("injected.pex", work))
    info = json.loads(result.text)
    text = json.dumps(info)
    assert info["kind"] == "pex"
    assert "application.main:run" in text and "CPython" in text and ">=3.9" in text
    assert {"attrs", "schemes"} <= {package["name"] for package in info["packages"]}


@pytest.mark.parametrize("name", ["zipapp.pex", "packed.pex", "loose.pex"])
def test_same_bytes(name, work):
    first = pack(name, work)
    copy = work / "copy"
    if (fixture() / name).is_dir():
        shutil.copytree(fixture() / name, copy, symlinks=True)
    else:
        shutil.copy(fixture() / name, copy)
    thaw("pack", copy, "-o", work / "second.thaw", "--quiet")
    assert first.read_bytes() == (work / "second.thaw").read_bytes()


def test_stored_as_files(work):
    for name, kind in (("zipapp.pex", "zip"), ("loose.pex", "directory")):
        image = work / f"{name}.thaw"
        result = thaw("pack", fixture() / name, "-o", image, "--kind", "tree", "--json")
        assert json.loads(result.text)["source_kind"] == kind
        assert {"PEX-INFO", "__main__.py", ".deps"} <= set(thaw("ls", "-a", image).text.split())


def test_other_python(work):
    """The wheel with an extension module is for one version only."""
    other = sys.version_info[1] + 1
    thaw_fails(REFUSED, f"MarkupSafe.*is not for Python 3.{other}", "pack",
               fixture() / "zipapp.pex", "-o", work / "bad.thaw", "--python-version", f"3.{other}")


def test_interpreter_constraints_hold_when_it_is_bound(work):
    """Down to the patch level: the same as PEX itself takes and refuses."""
    python = environment._base_python()
    version = run(python, "-c", "import platform; print(platform.python_version())").text.strip()
    for constraint, code in ((f"CPython=={version}", 0), (f"CPython!={version},>=3.9", REFUSED)):
        pex = work / "constrained.pex"
        shutil.copytree(fixture() / "loose.pex", pex, symlinks=True)
        info = json.loads((pex / "PEX-INFO").read_text())
        info["interpreter_constraints"] = [constraint]
        (pex / "PEX-INFO").write_text(json.dumps(info))
        thaw("pack", pex, "-o", work / "constrained.thaw", "--quiet")
        options = ("run", f"--python={python}", work / "constrained.thaw", "--", "python", "-c", "1")
        require_views()
        if code == 0:
            thaw(*options)
            thaw("pack", pex, "-o", work / "whole.thaw", "--quiet", f"--python={python}",
                 "--with-python")
        else:
            result = thaw(*options, code=125)
            assert f"is Python {version}, not {constraint}".encode() in result.err
            thaw_fails(REFUSED, f"is Python {version}, not", "pack", pex, "-o",
                       work / "bad.thaw", f"--python={python}", "--with-python")
            assert not (work / "bad.thaw").exists()
        shutil.rmtree(pex)
        (work / "constrained.thaw").unlink()


def test_made_for_several_pythons(work):
    """Of a project that it has twice, the wheel for the Python that is chosen."""
    pex = work / "several.pex"
    shutil.copytree(fixture() / "loose.pex", pex, symlinks=True)
    own = f"cp3{sys.version_info[1]}"
    wheel, = pex.glob(".deps/[Mm]arkup[Ss]afe-*")
    other = wheel.with_name(wheel.name.replace(f"{own}-{own}", "cp37-cp37m"))
    foreign = wheel.with_name(wheel.name.split(f"{own}-{own}")[0] + f"{own}-{own}-win_amd64.whl")
    info = json.loads((pex / "PEX-INFO").read_text())
    for added in (other, foreign):
        shutil.copytree(wheel, added)
        (added / "markupsafe" / "__init__.py").write_text("raise ImportError\n")
        info["distributions"][added.name] = info["distributions"][wheel.name]
    (pex / "PEX-INFO").write_text(json.dumps(info))
    thaw("pack", pex, "-o", work / "several.thaw", "--quiet")
    assert view(work / "several.thaw", "python", "-c",
                "import markupsafe; print(markupsafe._speedups.__name__)").text == \
        "markupsafe._speedups\n"
    thaw_fails(REFUSED, "is not for Python 3.8", "pack", pex, "-o", work / "bad.thaw",
               "--python-version", "3.8")


def test_damaged(work):
    whole = (fixture() / "zipapp.pex").read_bytes()
    for at in (len(whole) // 2, len(whole) - 30):
        broken = work / "broken.pex"
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
        thaw_fails(DAMAGED, ".", "pack", broken, "-o", work / "bad.thaw")
    (work / "cut.pex").write_bytes(whole[:-1])
    thaw_fails(DAMAGED, ".", "pack", work / "cut.pex", "-o", work / "bad.thaw")
    assert not (work / "bad.thaw").exists()


def test_needs_other_pex_files(work):
    loose = work / "loose.pex"
    shutil.copytree(fixture() / "loose.pex", loose, symlinks=True)
    info = json.loads((loose / "PEX-INFO").read_text())
    (loose / "PEX-INFO").write_text(json.dumps({**info, "pex_path": "other.pex"}))
    thaw_fails(REFUSED, "other PEX files", "pack", loose, "-o", work / "bad.thaw")
    (loose / "PEX-INFO").write_text(json.dumps({**info, "distributions": {"x": ""}}))
    thaw_fails(DAMAGED, "not in .deps", "pack", loose, "-o", work / "bad.thaw")
    (loose / "PEX-INFO").write_text("[")
    thaw_fails(DAMAGED, "PEX-INFO", "pack", loose, "-o", work / "bad.thaw")
    pathlib.Path(loose / "PEX-INFO").unlink()
    thaw("pack", loose, "-o", work / "plain.thaw", "--quiet")
