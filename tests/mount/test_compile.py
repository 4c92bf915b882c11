# SPDX-License-Identifier: Apache-2.0
"""thaw pack --compile and --check: an environment's own Python over it, confined."""
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from support.command import DAMAGED, MARKER, binary, environment, start, thaw
from support.mounts import mount_table, processes, wait_until
from support.tars import member, symlink, tar
from support.warm import fixtures, info, require_views

pytestmark = pytest.mark.fuse

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE = f"lib/python{VERSION}/site-packages"


@pytest.fixture(params=["root", "user"])
def who(request, work, monkeypatch):
    monkeypatch.setenv("THAW_STATE_DIR", str(work / "state"))
    if request.param == "root":
        require_views()
        return {}
    user = request.getfixturevalue("user")
    require_views(user)
    os.chown(work, user.pw_uid, user.pw_gid)
    (work / "tmp").mkdir()
    os.chown(work / "tmp", user.pw_uid, user.pw_gid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(work / "tmp"))
    return {"user": user}


@pytest.fixture(autouse=True)
def leaves_nothing(work, monkeypatch):
    """Scratch layers go to a place that is looked at; no view outlives the command."""
    (work / "scratch").mkdir()
    (work / "scratch").chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(work / "scratch"))
    monkeypatch.setenv("THAW_PYTHON_PATH", os.path.dirname(python_for_all()))
    before = [m.path for m in mount_table() if m.source.startswith("thaw:")]
    yield
    wait_until(lambda: not processes(os.environ[MARKER]), "workers to end")
    assert not list((work / "scratch").iterdir())
    assert not (work / "state" / "layers").exists(), "rendered for one run, kept for none"
    assert [m.path for m in mount_table() if m.source.startswith("thaw:")] == before


def python_for_all():
    """An interpreter of this version that an ordinary user may run too."""
    system = os.path.realpath("/usr/bin/python3")
    ours = os.path.realpath(fixtures._base_python())
    return system if os.path.basename(system) == os.path.basename(ours) else ours


def site(name):
    return os.fsencode(f"{SITE}/{name}")


def venv(work, *members, name="x.tar"):
    """A venv with these files in site-packages."""
    path = work / name
    path.write_bytes(tar(
        member(b"pyvenv.cfg", b"home = /nowhere/bin\n"),
        symlink(b"bin/python", b"/nowhere/bin/python3"), *members))
    return path


def pack(work, source, *options, code=0, **who):
    result = thaw("pack", source, "-o", work / "x.thaw", "--force", "--json", *options, code=code,
                  **who)
    return json.loads(result.out)


def files_of(image):
    return {line.decode() for line in thaw("ls", "-R", image).lines}


def test_bare_environment(work, who):
    """No bytecode at all becomes all of it, valid, and the same in every image."""
    tree = work / "bare"
    shutil.copytree(fixtures.get("small").tree, tree, symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__"))
    report = pack(work, tree, "--compile", **who)
    sources = len(list(tree.rglob(f"{SITE}/**/*.py")))
    assert report["compiled"]["compiled"] == sources > 100
    assert report["compiled"]["valid"] == report["compiled"]["failed"] == 0
    assert report["pyc"] == {"valid": sources, "stale": 0, "missing": 0}
    said = info(work / "x.thaw")
    assert said["meta"]["bytecode"] == {"valid": sources, "stale": 0, "missing": 0}
    assert said["annex_size"] > 0 and said["warnings"] == []
    thaw("verify", work / "x.thaw")
    # Python takes it: it would not write into the read-only view, but it would say so.
    script = "import sys; sys.dont_write_bytecode = False; import click; print(click.__cached__)"
    result = thaw("run", work / "x.thaw", "--", "python", "-v", "-c", script, **who)
    log = result.err.decode()
    assert "click/__pycache__" in log and "code object from" in log
    assert "wrote" not in log and "bad mtime" not in log
    first = (work / "x.thaw").read_bytes()
    pack(work, tree, "--compile", "--threads=1", **who)
    assert (work / "x.thaw").read_bytes() == first
    shutil.rmtree(work / "state", ignore_errors=True)


@pytest.mark.parametrize("options, shown", [([], True), (["--quiet"], False)])
def test_progress_is_shown_on_a_terminal_only(work, who, options, shown):
    """One bar a step, on standard error; each is wiped before anything else is printed."""
    source = venv(work, *(member(site(f"m{i}.py"), b"import time\ntime.sleep(0.3)\n")
                          for i in range(4)))
    ours, theirs = os.openpty()
    said = []
    reader = threading.Thread(target=read_all, args=[ours, said])
    reader.start()
    process = start("pack", source, "-o", work / "x.thaw", "--compile", "--check", *options,
                    stdout=subprocess.PIPE, stderr=theirs, **who)
    try:
        os.close(theirs)
        out, _ = process.communicate(timeout=60)
        reader.join(60)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0, b"".join(said)
    bars = re.findall(rb"\r(\w+) \[[#.]*\] +(\d+)%  (\d+) of (\d+)", b"".join(said))
    assert (bool(bars), bool(out)) == (shown, not options)
    if shown:
        assert [bar for bar in bars if bar[3] != b"4" or bar[2] > b"4"] == []
        importing = [int(bar[2]) for bar in bars if bar[0] == b"importing"]
        assert importing == sorted(importing) and len(set(importing)) > 1
        assert {bar[0] for bar in bars} <= {b"compiling", b"importing"}
        assert b"".join(said).endswith(b"\r\033[K")
    assert b"\r" not in out
    shutil.rmtree(work / "state", ignore_errors=True)


def read_all(fd, chunks):
    try:
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError:
        pass  # what a terminal says when nobody has its other side any more


def test_only_what_is_needed(work, who):
    """Valid files stay; stale and missing ones come; what does not compile is counted."""
    magic, tag = importlib.util.MAGIC_NUMBER, sys.implementation.cache_tag
    code = importlib._bootstrap_external._code_to_timestamp_pyc(
        compile("x = 1\n", "good.py", "exec"), 1000, 6)

    def pyc(name, data):
        return member(site(f"__pycache__/{name}.{tag}.pyc"), data)

    source = venv(
        work,
        *(member(site(name), b"x = 1\n", mtime=1000) for name in
          ("good.py", "stale.py", "resized.py", "unchecked.py", "missing.py", "d/e.py",
           "other_magic.py", "flags.py", "short.py")),
        member(site("broken.py"), b"def (:\n"), member(site("data.txt"), b""),
        member(b"share/tool.py", b"x = 1\n"),
        pyc("good", bytes(code)), pyc("stale", magic + struct.pack("<III", 0, 999, 6) + code[16:]),
        pyc("resized", magic + struct.pack("<III", 0, 1000, 5) + code[16:]),
        pyc("unchecked", magic + struct.pack("<III", 1, 0, 0) + code[16:]),
        pyc("other_magic", b"\0\0\r\n" + struct.pack("<III", 0, 1000, 6) + code[16:]),
        pyc("flags", magic + struct.pack("<III", 4, 1000, 6) + code[16:]),
        pyc("short", magic))
    report = pack(work, source, "--compile", **who)
    assert report["compiled"] == {"valid": 2, "compiled": 7, "hidden": 0, "failed": 1}
    assert report["pyc"] == {"valid": 9, "stale": 0, "missing": 1}
    out = thaw("cat", work / "x.thaw", f"{SITE}/__pycache__/stale.{tag}.pyc").out
    assert out[:8] == magic + struct.pack("<I", 1), "unchecked: no mtime makes it stale again"
    assert thaw("cat", work / "x.thaw", f"{SITE}/__pycache__/good.{tag}.pyc").out == bytes(code)
    names = files_of(work / "x.thaw")
    assert not any("broken" in name and name.endswith(".pyc") for name in names)
    assert not any(name.startswith("share/__pycache__") for name in names)
    # nothing left to do: the image stays as it is
    again = pack(work, work / "x.tar", "--compile", **who)
    assert again["identity"] == report["identity"]


def test_nothing_of_the_environment_is_run(work, who):
    """Compiling executes no module, no .pth file, no sitecustomize."""
    evil = b"raise SystemExit('run')\nimport os; os._exit(9)\n"
    source = venv(work, member(site("sitecustomize.py"), evil), member(site("usercustomize.py"), evil),
                  member(site("evil.pth"), b"import os; os._exit(9)\n"), member(site("os.py"), evil),
                  member(site("compileall.py"), evil), member(site("good.py"), b"x = 1\n"))
    assert pack(work, source, "--compile", **who)["compiled"]["compiled"] == 5


ESCAPES = '''
import os, socket
escaped = []
def attempt(what, function, *arguments):
    try:
        function(*arguments)
    except OSError:
        return
    escaped.append(what)
attempt("file", open, {outside!r} + "/escaped", "w")
attempt("tmp", open, "/tmp/thaw-escaped-{number}", "w")
attempt("unlink", os.unlink, {outside!r} + "/victim")
attempt("chmod", os.chmod, {outside!r} + "/victim", 0)
attempt("unix socket", socket.socket, socket.AF_UNIX)
attempt("network", socket.create_connection, ("127.0.0.1", {port}), 2)
attempt("kill", os.kill, {number}, 0)
attempt("mount", os.listdir, "/proc/1/root/root") if os.geteuid() else None
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", b"/", None, 32 | 4096, None) == 0:
    escaped.append("remount")
if libc.unshare(0x10000000) == 0 and libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
    open("/tmp/x", "w").close()
status = open("/proc/self/status").read()
assert "CapEff:\\t0000000000000000" in status, status
assert "NoNewPrivs:\\t1" in status
open(os.environ["HOME"] + "/mine", "w").close()
assert not escaped, escaped
'''


def test_confined(work, who):
    """A hostile package, imported: no file, no socket, no process, no privilege."""
    (work / "outside").mkdir()
    (work / "outside").chmod(0o777)
    (work / "outside" / "victim").write_text("mine")
    (work / "outside" / "victim").chmod(0o666)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = ESCAPES.format(outside=str(work / "outside"), number=os.getpid(),
                              port=server.getsockname()[1])
        report = pack(work, venv(work, member(site("evil.py"), code.encode())), "--check", **who)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [i["outcome"] for i in report["imports"]] == ["ok"], report["imports"]
    assert os.listdir(work / "outside") == ["victim"]
    assert (work / "outside" / "victim").read_text() == "mine"
    assert not os.path.exists(f"/tmp/thaw-escaped-{os.getpid()}")


def test_check(work, who):
    """Each package in a process of its own: what one breaks, the next does not see."""
    source = venv(
        work,
        member(site("good.py"), b"import sys\nassert sys.prefix in __file__\nprint('noise')\n"),
        member(site("package/__init__.py"), b"from . import part\n"),
        member(site("package/part.py"), b""),
        member(site("lacking.py"), b"import no_such_module.part\n"),
        member(site("advising.py"), b"try:\n    import no_such_module\nexcept ImportError as e:\n"
               b"    raise ImportError('install advising[all]') from e\n"),
        member(site("refusing.py"), b"raise ImportError('not today')\n"),
        member(site("raising.py"), b"raise ValueError('two\\nlines \\x1b[31m')\n"),
        member(site("exiting.py"), b"raise SystemExit(3)\n"),
        member(site("dying.py"), b"import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"),
        member(site("leaving.py"), b"import os; os._exit(5)\n"),
        member(site("forking.py"), b"import os\nif os.fork() == 0:\n    import time; time.sleep(99)\n"),
        member(site("namespace/inner.py"), b"raise ValueError\n"),
        member(site("_private.py"), b"raise ValueError\n"),
        member(site("not-a-name.py"), b"raise ValueError\n"),
        member(site("text.txt"), b""))
    report = pack(work, source, "--check", code=DAMAGED, **who)
    found = {i["name"]: (i["outcome"], i.get("reason", "")) for i in report["imports"]}
    assert found.pop("raising")[0] == "failed"
    assert found == {
        "good": ("ok", ""), "package": ("ok", ""), "forking": ("ok", ""),
        "lacking": ("lacks", "No module named 'no_such_module'"),
        "advising": ("lacks", "No module named 'no_such_module'"),
        "refusing": ("failed", "ImportError: not today"),
        "exiting": ("failed", "SystemExit: 3"),
        "dying": ("died", "SIGKILL"), "leaving": ("died", "exit code 5"),
    }
    assert [i["name"] for i in report["imports"]] == sorted([*found, "raising"])
    # the image is there: what is wrong with it has been said
    thaw("verify", work / "x.thaw")
    result = thaw("pack", source, "-o", work / "x.thaw", "--force", "--check", code=DAMAGED, **who)
    assert result.err.endswith(b"x.thaw: 5 of its packages cannot be imported\n")
    text = result.out
    assert b"imports   3 good, 2 lack something optional, 5 broken" in text
    assert b"\x1b" not in text and b"noise" not in text


def test_check_of_the_genuine_one(work, who):
    """An optional module that is missing is no failure of the environment."""
    source = shutil.copyfile(fixtures.get("small").archive, work / "environment.tar.gz")
    report = pack(work, source, "--check", **who)
    outcomes = {i["name"]: i["outcome"] for i in report["imports"]}
    assert {name: outcomes[name] for name in ("attr", "attrs", "click", "tabulate")} == dict.fromkeys(
        ("attr", "attrs", "click", "tabulate"), "ok")


def test_interrupted(work):
    """Whatever is running then: no image, no process, no scratch layer (see the fixture)."""
    require_views()
    source = venv(work, member(site("slow.py"), b"import time; time.sleep(50)\n"))
    process = subprocess.Popen([binary(), "pack", source, "-o", work / "x.thaw", "--check"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    wait_until(lambda: any("importlib" in line for line in
                           processes(os.environ[MARKER]).values()) or list_scratch(work), "the check")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert not (work / "x.thaw").exists()


def list_scratch(work):
    return [p for p in (work / "scratch").iterdir() if p.name.startswith("thaw-warm")]


def test_own_interpreter(work):
    """Of an environment that brings one, that is used: nothing of the machine's."""
    require_views()
    image = work / "p.thaw"
    tree = work / "bare"
    shutil.copytree(fixtures.get("small").tree, tree, symlinks=True,
                    ignore=shutil.ignore_patterns("__pycache__"))
    report = json.loads(thaw("pack", tree, "-o", image, "--json", "--with-python",
                             f"--python={python_for_all()}", "--compile", "--check",
                             env=environment(THAW_PYTHON_PATH="")).out)
    assert report["compiled"]["compiled"] > 100
    assert report["pyc"]["stale"] == 0
    assert all(i["outcome"] == "ok" for i in report["imports"])
    thaw("verify", image)
