# SPDX-License-Identifier: Apache-2.0
"""
The README's table "Every kind of pack, at its alias path", a row each: made by the genuine
tools, packed, compiled and checked, and every module of it imported at an alias.
"""
import json
import shutil
import sys

import pytest

from support import command
from support.command import thaw
from support.views import leaves_nothing, places  # noqa: F401
from support.warm import fixtures, require_views

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import conda  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.fuse

BARE = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module", autouse=True)
def built():
    """Before any test's watchdog starts: it takes minutes when the cache has none."""
    conda.get()
    wheels.get()
    fixtures.get("small")


def bare(tree, work):
    """Without the bytecode that its tools have made."""
    return shutil.copytree(tree, work / "bare", symlinks=True, ignore=BARE)


# row of the table: what is packed, and the kind that thaw says it is
ROWS = {
    "conda-pack": (lambda work: conda.get() / "conda.tar.gz", "conda-pack"),
    "conda-pack.zip": (lambda work: conda.get() / "conda.zip", "conda-pack"),
    "live conda prefix": (lambda work: conda.get() / "prefix", "conda"),
    "venv-pack": (lambda work: fixtures.get("small").archive, "venv-pack"),
    "unpacked venv": (lambda work: bare(fixtures.get("small").tree, work), "venv-pack"),
    "PEX zipapp": (lambda work: wheels.get() / "zipapp.pex", "pex"),
    "PEX packed": (lambda work: wheels.get() / "packed.pex", "pex"),
    "PEX loose": (lambda work: wheels.get() / "loose.pex", "pex"),
    "wheels": (lambda work: wheels.get() / "wheels", "wheels"),
}

IMPORT_ALL = """
import importlib, json, pkgutil, sys
site = [path for path in sys.path if path.endswith("site-packages")]
names = [m.name for m in pkgutil.walk_packages(site, onerror=lambda name: None)
         if not m.name.endswith("__main__")]
done = []
for name in names + ["json.tool", "sysconfig"]:
    try:
        importlib.import_module(name)
    except Exception:  # some are for another system
        continue
    done.append(name)
print(json.dumps({"prefix": sys.prefix, "executable": sys.executable, "done": done}))
"""


def compiled_anew(log, view):
    """Modules of the view that Python had to compile, by what -v says."""
    start, end = f"# code object from {view}/", ".py"
    return [line.split(" from ", 1)[1] for line in log.splitlines()
            if line.startswith(start) and line.endswith(end)]


@pytest.mark.parametrize("row", ROWS)
def test_row(row, work):
    require_views()
    source, kind = ROWS[row]
    image, view = work / "env.thaw", work / "environment"
    python = f"--python={fixtures._base_python()}"
    minor = [f"--python-version=3.{sys.version_info[1]}"] if kind == "wheels" else []
    report = json.loads(thaw("pack", "--compile", "--check", "--json", python, *minor, "-o", image,
                             source(work), env=command.environment(PATH="/usr/bin:/bin")).out)
    assert report["kind"] == kind
    assert report["pyc"]["missing"] == report["pyc"]["stale"] == 0
    program = work / "import_all.py"
    program.write_text(IMPORT_ALL)
    result = thaw("run", python, f"{image}#environment", "--", "python", "-I", "-v", program,
                  cwd=work)
    said = json.loads(result.text.splitlines()[-1])
    assert said["prefix"] == str(view)
    assert said["executable"] == f"{view}/bin/python"
    assert len(said["done"]) > 5
    log = result.err.decode()
    assert f"{view}/lib" in log
    assert compiled_anew(log, view) == []
