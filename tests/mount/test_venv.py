# SPDX-License-Identifier: Apache-2.0
"""
Virtual environments in views: bound to an interpreter of this machine, acting on
the view and on nothing else, wherever it stands.
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from support import images
from support.command import MARKER, REFUSED, binary, environment, run, thaw, thaw_fails
from support.mounts import processes, wait_until
from support.tars import directory, member, symlink, tar
from support.warm import fixtures, info, once, require_views

import wheels  # noqa: E402 (of tests/fixtures, which support.warm puts on the path)

pytestmark = pytest.mark.fuse

THAW = 125
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
ASK = ("import json, sys, sysconfig; print(json.dumps({'prefix': sys.prefix, "
       "'base': sys.base_prefix, 'executable': sys.executable, "
       "'site': sysconfig.get_path('purelib')}))")


@pytest.fixture(autouse=True)
def own_state(work, monkeypatch):
    """Rendered layers go where the test's files go; no process outlives its view."""
    require_views()
    monkeypatch.setenv("THAW_STATE_DIR", str(work / "state"))
    yield
    wait_until(lambda: not processes(os.environ[MARKER]), "workers to end")


def base():
    return os.path.realpath(fixtures._base_python())


def packed(work, *options):
    thaw("pack", fixtures.get("small").archive, "-o", work / "env.thaw", "--quiet", *options)
    return work / "env.thaw"


def in_view(image, *command, **options):
    options.setdefault("cwd", image.parent)
    return thaw("run", image, "--", *command, **options)


def ask(image, python="python", **options):
    return json.loads(in_view(image, python, "-c", ASK, **options).out)


def test_genuine_venv_pack(work):
    """What venv-pack leaves dangling on another machine: interpreter, pyvenv.cfg, scripts."""
    image = packed(work)
    for python in ("python", "python3", f"python{VERSION}"):
        said = ask(image, python)
        assert said["executable"] == f"{said['prefix']}/bin/{python}"
        assert said["site"] == f"{said['prefix']}/lib/python{VERSION}/site-packages"
        assert os.path.samefile(said["base"], subprocess.run(
            [base(), "-I", "-c", "import sys; print(sys.base_prefix)"],
            stdout=subprocess.PIPE, check=True, text=True).stdout.strip())
    where = in_view(image, "sh", "-c", "echo $THAW_ENV").text.strip()
    assert ask(image)["prefix"] == where
    assert in_view(image, "python", "-c", "import click; print(click.__file__)").text.startswith(
        where + "/")


def test_console_script(work):
    """Whatever is first on PATH, the script runs with the view's interpreter."""
    image = packed(work)
    (work / "bin").mkdir()
    for name in ("python", "python3", f"python{VERSION}"):
        (work / "bin" / name).write_text("#!/bin/sh\nexit 77\n")
        (work / "bin" / name).chmod(0o755)
    result = in_view(image, "sh", "-c", 'PATH="$1:$PATH"; echo 1 2 | "$THAW_ENV/bin/tabulate"',
                     "sh", work / "bin")
    assert "1  2" in result.text


ODD = ["environment", "with space", "it's", 'two"quotes', "$HOME", "`id`", "naïve-環境",
       "percent%s", "back\\slash", "-dash", "a" * 200]


@pytest.mark.parametrize("alias", ODD)
def test_alias(work, alias):
    """At its alias, exactly: prefix, scripts and activate."""
    image = packed(work)
    view = work / alias
    script = ('"$0/bin/python" -c "$1"; echo 3 4 | "$0/bin/tabulate"; '
              '. "$0/bin/activate"; printf "%s\\n" "$VIRTUAL_ENV"; command -v tabulate')
    result = thaw("run", f"{image}#{alias}", "--", "bash", "-c", script, view, ASK, cwd=work)
    lines = result.text.splitlines()
    said = json.loads(lines[0])
    assert said["prefix"] == str(view) and said["executable"] == f"{view}/bin/python"
    assert "3  4" in lines
    assert lines[-2] == str(view)
    assert lines[-1] == f"{view}/bin/tabulate"


@pytest.mark.parametrize("alias", ["environment", "with space", "it's", "$HOME", "`id`"])
def test_activate_of_a_plain_venv(work, alias):
    run(base(), "-m", "venv", "--without-pip", work / "venv")
    image = work / "env.thaw"
    thaw("pack", work / "venv", "-o", image, "--quiet")
    shutil.rmtree(work / "venv")
    view = work / alias
    result = thaw("run", f"{image}#{alias}", "--", "bash", "-c",
                  '. "$0/bin/activate"; printf "%s\\n" "$VIRTUAL_ENV"; python -c "$1"', view, ASK,
                  cwd=work)
    lines = result.text.splitlines()
    assert lines[0] == str(view)
    assert json.loads(lines[1])["prefix"] == str(view)


def test_pip_acts_on_the_view(work):
    """bin/pip of a moved venv would act on the Python that is first on PATH."""
    run(base(), "-m", "venv", work / "venv")
    image = work / "env.thaw"
    thaw("pack", work / "venv", "-o", image, "--quiet")
    shutil.rmtree(work / "venv")
    result = thaw("run", f"{image}#my env", "--", "sh", "-c",
                  '"$0/bin/pip" --version; "$0/bin/pip" list --format=freeze', work / "my env",
                  cwd=work, env=environment(PIP_DISABLE_PIP_VERSION_CHECK="1"))
    lines = result.text.splitlines()
    assert f" from {work}/my env/lib/python{VERSION}/site-packages/pip " in lines[0]
    assert any(line.startswith("pip==") for line in lines[1:])


def test_uv_venv(work):
    """uv writes scripts and activate in other forms, and keys of its own."""
    uv = wheels.get() / "tools" / "bin" / "uv"
    run(uv, "venv", "--quiet", "--offline", "--python", base(), work / "venv")
    site = work / "venv" / "lib" / f"python{VERSION}" / "site-packages"
    small = fixtures.get("small").tree / "lib" / f"python{VERSION}" / "site-packages"
    shutil.copytree(small, site, dirs_exist_ok=True)
    (work / "venv" / "bin" / "tool").write_text(
        f"#!{work}/venv/bin/python\nimport sys; print(sys.prefix)\n")
    (work / "venv" / "bin" / "tool").chmod(0o755)
    image = work / "env.thaw"
    thaw("pack", work / "venv", "-o", image, "--quiet")
    shutil.rmtree(work / "venv")
    assert info(image)["kind"] == "venv"
    for alias in ("plain", "with space"):
        result = thaw("run", f"{image}#{alias}", "--", "bash", "-c",
                      '"$0/bin/tool"; . "$0/bin/activate"; printf "%s\\n" "$VIRTUAL_ENV"; '
                      'cat "$0/pyvenv.cfg"', work / alias, cwd=work)
        lines = result.text.splitlines()
        assert lines[:2] == [str(work / alias)] * 2
        assert f"home = {os.path.dirname(base())}" in lines


def test_pyvenv_cfg(work):
    text = in_view(packed(work), "sh", "-c", 'cat "$THAW_ENV/pyvenv.cfg"').text
    keys = [line.partition(" = ")[0] for line in text.splitlines()]
    assert len(keys) == len(set(keys)), "venv-pack writes the file twice; a view has it once"
    said = dict(line.split(" = ", 1) for line in text.splitlines())
    assert said["home"] == os.path.dirname(base())
    assert said["executable"] == base()
    assert said["include-system-site-packages"] == "false"
    assert "command" not in said, "it names the machine that built it"


def other_interpreters():
    """Interpreters of other minor versions that this machine has."""
    found = {}
    for pattern in ("/usr/bin/python3.*", "/usr/local/bin/python3.*", "/opt/*/bin/python3.*",
                    os.path.expanduser("~/.pyenv/versions/*/bin/python3.*")):
        for path in pathlib.Path("/").glob(pattern.lstrip("/")):
            version = path.name[len("python"):]
            if version != VERSION and version.replace(".", "").isdigit():
                found.setdefault(version, path)
    return found


def make_venv(work, version, recorded="/nowhere/bin/python"):
    """A venv for any version, made by hand."""
    site = f"lib/python{version}/site-packages/".encode()
    (work / "made.tar").write_bytes(tar(
        member(b"pyvenv.cfg", f"home = {os.path.dirname(recorded)}\nversion = {version}.1\n".encode()),
        symlink(b"bin/python", os.fsencode(recorded)), symlink(b"bin/python3", b"python"),
        member(b"bin/tool", b"#!/build/env/bin/python\nprint('tool')\n", mode=0o755),
        member(site + b"thing.py", b"import sys\nwhere = sys.prefix\n")))
    thaw("pack", work / "made.tar", "--quiet", "--force")
    return work / "made.thaw"


def failed(result, *words):
    assert result.code == THAW and result.out == b""
    text = result.err.decode()
    assert text.count("\n") == 1 and text.startswith("thaw: "), repr(result)
    for word in words:
        assert word in text, text


def test_no_such_interpreter(work):
    image = make_venv(work, "3.77")
    failed(in_view(image, "true", code=None), "Python 3.77", "/usr/bin")
    failed(thaw("run", f"--python={base()}", image, "--", "true", code=None),
           f"is Python {VERSION}, not 3.77")
    failed(thaw("run", "--python=/nonexistent/python", image, "--", "true", code=None),
           "/nonexistent/python")
    assert not (work / "state" / "layers").exists() or not [
        p for p in (work / "state" / "layers").iterdir() if not p.name.startswith(".")]


def test_moved_to_where_the_builder_is_not(work):
    """The recorded interpreter is not here: the search finds one."""
    image = make_venv(work, VERSION)
    env = environment(THAW_PYTHON_PATH=os.path.dirname(base()))
    said = json.loads(in_view(image, "python", "-c", ASK, env=env).out)
    assert said["executable"] == f"{said['prefix']}/bin/python"
    assert in_view(image, "tool", env=env).out == b"tool\n"
    assert in_view(image, "python", "-c", "import thing; print(thing.where)",
                   env=env).text.strip() == said["prefix"]


def test_python_option(work):
    image = make_venv(work, VERSION)
    for wanted in (base(), os.path.basename(base())):
        env = environment(PATH=os.path.dirname(base()) + ":" + os.environ["PATH"])
        said = json.loads(thaw("run", f"--python={wanted}", image, "--", "python", "-c", ASK,
                               env=env).out)
        assert said["executable"].endswith("/bin/python")


def test_wrapper_is_asked(work):
    """A script in front of an interpreter: run once, its answer is the real one."""
    image = make_venv(work, VERSION)
    wrapper = work / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho hello\nexec {base()} "$@"\n')
    wrapper.chmod(0o755)
    text = thaw("run", f"--python={wrapper}", image, "--", "sh", "-c",
                'readlink "$THAW_ENV/bin/python"').text
    assert text.strip() == base()
    (work / "other").write_text("#!/bin/sh\necho hello\n")
    (work / "other").chmod(0o755)
    failed(thaw("run", f"--python={work}/other", image, "--", "true", code=None),
           "no CPython interpreter")


def test_other_versions(work):
    others = other_interpreters()
    if not others:
        pytest.skip("this machine has one version of Python")
    for version, path in sorted(others.items())[:3]:
        if tuple(map(int, version.split("."))) < (3, 8):
            continue
        image = make_venv(work, version)
        said = json.loads(thaw("run", f"--python={path}", image, "--", "python", "-c", ASK).out)
        assert said["site"].endswith(f"/lib/python{version}/site-packages")


@pytest.mark.parametrize("change", [
    (b'"links":["python","python3"]', b'"links":["../a/b"]'),
    (b'"links":["python","python3"]', b'"links":["pip"]'),
    (b'"python":"', b'"pythox":"'),
    (b'"binding":{"', b'"binding":{,'),
])
def test_hostile_meta(work, change):
    """Whoever writes an image writes its digests too: so what it says is checked."""
    image = images.load(make_venv(work, VERSION))
    raw = bytes(image.index)
    assert raw.count(change[0]) == 1
    image.index = bytearray(raw.replace(change[0], change[1].ljust(len(change[0]))))
    (work / "bad.thaw").write_bytes(image.build())
    failed(in_view(work / "bad.thaw", "true", code=None), "bad.thaw")


def test_hostile_pyvenv_cfg(work):
    """Nothing of it but keys and values comes through, and it names no interpreter of ours."""
    site = f"lib/python{VERSION}/site-packages/".encode()
    (work / "x.tar").write_bytes(tar(
        member(b"pyvenv.cfg", b"HOME = /evil\nhome = /evil\n\x1b[31mred = x\nprompt = a\x07b\n"
               b"executable = relative/python\n= nothing\nlong = " + b"x" * 200000 + b"\n"),
        directory(b"bin"), member(site + b"thing.py", b"")))
    thaw("pack", work / "x.tar", "--quiet")
    env = environment(THAW_PYTHON_PATH=os.path.dirname(base()))
    result = in_view(work / "x.thaw", "sh", "-c", 'cat "$THAW_ENV/pyvenv.cfg"', env=env)
    assert b"\x1b" not in result.out and b"\x07" not in result.out
    assert result.text.count("home = ") == 1 and "/evil" not in result.text
    assert json.loads(in_view(work / "x.thaw", "python", "-c", ASK, env=env).out)["site"]


# -- the interpreter inside

HIDE = r"""
set -e
for path in "$@"; do
    if test -d "$path"; then mount -t tmpfs none "$path"; else mount --bind /dev/null "$path"; fi
done
"""


def every_python():
    """Whatever could be mistaken for the image's interpreter and its library."""
    found = set()
    for pattern in ("usr/bin/python*", "usr/local/bin/python*", "usr/lib/python3*",
                    "usr/local/lib/python3*", "usr/lib/x86_64-linux-gnu/libpython*"):
        found |= {str(p) for p in pathlib.Path("/").glob(pattern) if not p.is_symlink()}
    for prefix in (pathlib.Path(os.path.expanduser("~/.pyenv/versions")),
                   pathlib.Path(base()).parents[1]):
        if prefix.is_dir() and str(prefix) not in ("/", "/usr", "/usr/local") and \
                not any(str(prefix).startswith(other + "/") for other in found):
            found.add(str(prefix))
    return sorted(found)


def taken(which):
    """The small environment with an interpreter; made once, since that takes a while."""
    return once(f"with-python-{which}.thaw", lambda path: thaw(
        "pack", fixtures.get("small").archive, "-o", path, "--quiet", "--with-python",
        f"--python={interpreters()[which]}"))


def interpreters():
    """The base interpreter, and the machine's: Debian's is laid out in its own way."""
    found = [base()]
    system = os.path.realpath("/usr/bin/python3")
    if os.path.exists(system) and system != base() and \
            os.path.basename(system) == os.path.basename(base()):
        found.append(system)
    return found


@pytest.mark.parametrize("which", [0, 1], ids=["base", "system"])
def test_with_python_where_there_is_none(work, which):
    """Taken in, it runs on a machine on which no Python is to be found."""
    if os.geteuid() != 0:
        pytest.skip("hiding the machine's Python needs root")
    known = interpreters()
    if which >= len(known):
        pytest.skip("this machine has no second interpreter of this version")
    image = taken(which)
    thaw("verify", image)
    said = info(image)
    assert said["interpreter"] is True and said["kind"] == "venv-pack"
    check = (ASK + "; import click, ctypes, sqlite3, ssl, zlib, _ctypes; "
             "import os; assert os.__file__.startswith(sys.prefix); "
             "assert click.__file__.startswith(sys.prefix); "
             "assert all(p == '' or p.startswith(sys.prefix) for p in sys.path), sys.path")
    script = HIDE + ('unset THAW_PYTHON_PATH; test ! -s /usr/bin/python3; '
                     'exec "$THAW" run "$IMAGE" -- sh -c "exec \\"\\$THAW_ENV/bin/python\\" -c '
                     '\\"\\$CHECK\\"; "')
    result = run("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh",
                 *every_python(),
                 env=environment(THAW=binary(), IMAGE=str(image), CHECK=check))
    answer = json.loads(result.out.splitlines()[-1])
    assert answer["prefix"] == answer["base"], "a prefix, not a virtual environment"
    assert answer["executable"] == answer["prefix"] + "/bin/python"


def test_with_python_keeps_the_stream(work):
    image = taken(0)
    plain = work / "plain.tar"
    with open(plain, "wb") as out:
        run("zstd", "-dc", image, stdout=out)
    assert plain.read_bytes() == fixtures.get("small").tar.read_bytes()
    # scripts still get the view's own interpreter
    assert "1  2" in in_view(image, "sh", "-c", 'echo 1 2 | "$THAW_ENV/bin/tabulate"').text
    # extracted, it is a prefix that can be moved
    thaw("extract", image, work / "tree")
    moved = work / "moved"
    (work / "tree").rename(moved)
    said = json.loads(run(moved / "bin" / "python3", "-I", "-c", ASK).out)
    assert said["prefix"] == said["base"] == str(moved)


def test_with_python_twice(work):
    thaw("pack", fixtures.get("small").archive, "-o", work / "x.thaw", "--quiet", "--with-python",
         f"--python={base()}")
    assert (work / "x.thaw").read_bytes() == taken(0).read_bytes()


def test_with_python_that_does_not_fit(work):
    archive = fixtures.get("small").archive
    for version, path in sorted(other_interpreters().items())[:1]:
        thaw_fails(REFUSED, f"is Python {version}, not {VERSION}", "pack", archive, "-o",
                   work / "x.thaw", "--with-python", f"--python={path}")
    thaw_fails(REFUSED, "no CPython interpreter|no Python|not", "pack", archive, "-o",
               work / "x.thaw", "--with-python", "--python=/bin/sh")
    assert not (work / "x.thaw").exists()
