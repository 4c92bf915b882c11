# SPDX-License-Identifier: Apache-2.0
"""Stubs as their users start them: in place of python, and on nodes of all kinds."""
import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile

import pytest

from support import command
from support.command import environment, one_error_line, run, thaw
from support.mounts import wait_until
from support.views import THAW, leaves_nothing, places, who  # noqa: F401
from support.warm import fixtures, flip, image, info

pytestmark = pytest.mark.fuse

FORMS = ["e.tar.gz", "e.zip", "e.pex"]
SHOW = "import json, os, sys, attr; print(json.dumps([sys.prefix, sys.executable, attr.__file__, os.getpid()]))"


@pytest.fixture
def small(work):
    return image("small-warmed", work)


def owned(who, *paths):
    if who.get("user"):
        for path in paths:
            for sub in [path, *pathlib.Path(path).rglob("*")]:
                os.chown(sub, who["user"].pw_uid, who["user"].pw_gid, follow_symlinks=False)


def unpack(stub, directory):
    directory.mkdir()
    if stub.suffix == ".zip":
        with zipfile.ZipFile(stub) as archive:
            for entry in archive.infolist():
                path = archive.extract(entry, directory)
                os.chmod(path, entry.external_attr >> 16 & 0o777)
    else:
        run("tar", "-xzf", stub, "-C", directory)
    return directory / "bin" / "python"


def made(work, small, name, *options, who=None):
    """A stub, unpacked where it is an archive: what is to be started as python."""
    stub = work / name
    thaw("stub", small, "-o", stub, "--quiet", *options)
    program = stub if stub.suffix in (".pex", ".thaw") else unpack(stub, work / "environment")
    owned(who or {}, program.parent if stub == program else work / "environment")
    return program


def show(program, *words, **who):
    return json.loads(run(program, "-B", "-c", SHOW, *words, **who).out)


def test_machine_is_checked(work, small):
    """Where it was made for another architecture: one line that says so."""
    program = made(work, small, "e.tar.gz")
    failed = run("setarch", "i686", program, "-c", "pass", code=THAW)
    if os.uname().machine == "x86_64":
        one_error_line(failed, "python: this environment is for x86_64, and this node is i686")
        assert failed.out == b""


@pytest.mark.parametrize("name", FORMS)
def test_is_the_environments_python(work, small, who, name):
    program = made(work, small, name, who=who)
    prefix, executable, module, _ = show(program, **who)
    identity = info(small)["identity"]
    assert pathlib.Path(prefix) == work / "run" / "view" / identity[:16]
    assert executable == f"{prefix}/bin/python" and module.startswith(f"{prefix}/lib/")
    # Relative, as Spark has it, and from another directory.
    relative = os.path.relpath(program, work)
    assert show(f"./{relative}", **who)[:3] == [prefix, executable, module]


def test_every_program(work, small, who):
    program = made(work, small, "e.tar.gz", who=who)
    usage = run(program.parent / "tabulate", "--help", **who)
    assert usage.out.startswith(b"Usage: tabulate")
    for name in ("python3", f"python3.{sys.version_info[1]}"):
        assert show(program.parent / name, **who)[1].endswith(f"/bin/{name}")
    # By a link from elsewhere.
    (work / "link").symlink_to(program.parent / "tabulate")
    assert run(work / "link", "--help", **who).out == usage.out
    for name in ("missing", "python-config"):
        os.link(program, program.parent / name)
        result = run(program.parent / name, code=127, **who)
        one_error_line(result, f"{name}: .*no such program")


@pytest.mark.parametrize("name", FORMS)
def test_rules_for_python(work, small, who, name):
    """What Spark asks of what it starts: see thaw-stub(1)."""
    program = made(work, small, name, who=who)
    script = ("import os, sys; sys.stdout.write(f'{os.getpid()} {os.getsid(0)} {os.getpgid(0)}\\n'); "
              "sys.stdout.flush(); print(sys.stdin.read()); print(os.environ['PYTHONPATH'], os.getcwd(), "
              "sys.argv[1:], extra.NAME)")
    (work / "path").mkdir()
    (work / "path" / "extra.py").write_text("NAME = 'extra'\n")
    env = environment(PYTHONPATH=str(work / "path"))
    options = {"user": who["user"].pw_uid, "group": who["user"].pw_gid, "extra_groups": []} \
        if "user" in who else {}
    process = subprocess.Popen(
        [program, "-B", "-c", "import extra; " + script, "a b", ""], cwd=work, env=env,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    first = process.stdout.readline()
    # The very process that was started, in its session and group; nothing before it on stdout.
    assert first.split() == [str(process.pid), str(os.getsid(0)), str(os.getpgid(0))]
    assert process.poll() is None, "stdin has not ended"
    out, err = process.communicate("line\n", timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == f"line\n\n{work / 'path'} {work} ['a b', ''] extra\n"
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(
            [program, "-c", "import time; print('ready', flush=True); time.sleep(60)"], cwd=work,
            env=env, stdout=subprocess.PIPE, text=True, **options)
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(60) == -number
    assert run(program, "-c", "raise SystemExit(77)", code=77, **who).err == b""


def test_directory_may_vanish(work, small, who):
    """Spark removes a session's directory when it evicts the session."""
    program = made(work, small, "e.tar.gz", "--embed", who=who)
    small.unlink()
    options = {"user": who["user"].pw_uid, "group": who["user"].pw_gid, "extra_groups": []} \
        if "user" in who else {}
    process = subprocess.Popen(
        [program, "-B", "-c", "print('ready', flush=True); input(); import click; print(click.__file__)"],
        cwd=work, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout.readline() == "ready\n"
    shutil.rmtree(work / "environment")
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0 and "/site-packages/click/" in out


# -- where images are

def moved(small, *names):
    """The image is not where the stub says."""
    target = small.parent.joinpath(*names)
    target.parent.mkdir(exist_ok=True, parents=True)
    small.rename(target)
    return target


@pytest.mark.parametrize("by", ["identity", "name"])
@pytest.mark.parametrize("where", ["variable", "search", "state"])
def test_found_in_directories(work, small, where, by, monkeypatch):
    program = made(work, small, "e.pex", "--search", work / "searched")
    identity = info(small)["identity"]
    directory = {"variable": "v", "search": "searched", "state": "state/images"}[where]
    image = moved(small, directory, f"{identity}.thaw" if by == "identity" else small.name)
    monkeypatch.setenv("THAW_IMAGES", f"/nowhere::relative:{work / 'v'}")
    assert show(program)[0].endswith(identity[:16])
    image.unlink()
    result = run(program, "-c", "pass", code=THAW)
    line = one_error_line(result, "is not on this node: looked at /nowhere, ")
    assert [word in line for word in (str(work / "v"), str(work / "searched"), str(small), "relative")] == \
        [True, True, True, False]
    assert result.out == b""


def test_only_the_very_image_counts(work, small):
    """Another one of the same name, or no image at all, is passed over and named."""
    program = made(work, small, "e.pex", "--search", work / "other", "--search", work / "bad",
                   "--search", work / "good")
    good = moved(small, "good", small.name)
    for name, text in (("other", None), ("bad", b"no image\n" * 100)):
        (work / name).mkdir()
        if text:
            (work / name / small.name).write_bytes(text)
        else:
            image("small", work).rename(work / name / small.name)
    assert show(program)
    good.unlink()
    line = one_error_line(run(program, "-c", "pass", code=THAW), "not on this node")
    assert f"{work / 'other'} (another image)" in line and f"{work / 'bad'} (no image)" in line


def test_damaged_image_is_said(work, small):
    program = made(work, small, "e.tar.gz")
    offset = next(part["offset"] for part in info(small)["parts"] if part["type"] == "index")
    flip(small, offset + 100)
    result = run(program, "-c", "pass", code=THAW)
    one_error_line(result, "python: .*damaged")


@pytest.mark.parametrize("name", ["e.tar.gz", "e.zip", "e.pex", "e.thaw"])
def test_embedded(work, small, who, name):
    """The node keeps the image; stubs of it that come later need not have it."""
    identity = info(small)["identity"]
    program = made(work, small, name, "--embed", who=who)
    small.unlink()
    assert show(program, **who)[0].endswith(identity[:16])
    kept = work / "state" / "images" / f"{identity}.thaw"
    assert os.listdir(kept.parent) == [kept.name]
    assert info(kept)["identity"] == identity
    assert kept.stat().st_mtime > 1e9  # in use: thaw gc goes by that
    for path in (work / "environment" / "thaw").glob("*.thaw"):
        # No second copy on the disk, and not needed any more.
        assert os.path.samefile(path, kept)
        path.unlink()
    assert show(program, **who)


def test_embedded_without_a_home(work, small, user, monkeypatch):
    """As in containers: what nothing else can keep is kept until the boot."""
    who = {"user": user, "cwd": work}
    monkeypatch.delenv("THAW_STATE_DIR")
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    owned(who, work, work / "run")
    program = made(work, small, "e.tar.gz", "--embed", who=who)
    identity = info(small)["identity"]
    small.unlink()
    assert show(program, **who)[0].endswith(identity[:16])
    assert os.listdir(work / "run" / "state" / "images") == [f"{identity}.thaw"]


def test_damaged_embedded_image(work, small):
    program = made(work, small, "e.tar.gz", "--embed")
    small.unlink()
    path, = (work / "environment" / "thaw").glob("*.thaw")
    path.write_bytes(path.read_bytes()[:-10])
    one_error_line(run(program, "-c", "pass", code=THAW), "image in the stub is missing or another")


def test_layers(work, small):
    """A session's further packages, over the environment that others use as well."""
    site = next(line for line in thaw("ls", small, "lib").text.split() if line.startswith("python3"))
    tree = work / "extra" / "lib" / site / "site-packages"
    tree.mkdir(parents=True)
    (tree / "more.py").write_text("VALUE = 'more'\n")
    (tree / "tabulate.py").write_text("VALUE = 'newer'\n")
    thaw("pack", work / "extra", "-o", work / "extra.thaw", "--quiet")
    program = made(work, small, "e.tar.gz", "--layer", work / "extra.thaw", "--embed")
    small.unlink()
    (work / "extra.thaw").unlink()
    result = run(program, "-B", "-c", "import more, attr; print(more.VALUE, attr.__file__)")
    assert result.text.startswith("more ") and "/site-packages/attr/" in result.text


def test_sessions_share_one_view(work, small):
    """Two stubs, two directories, one worker and one prefix."""
    first = made(work, small, "e.tar.gz")
    second = unpack(work / "e.tar.gz", work / "environment2")
    code = "import sys; print(sys.prefix, flush=True); input()"
    processes = [subprocess.Popen([p, "-c", code], env=environment(), stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True) for p in (first, second)]
    prefixes = {p.stdout.readline() for p in processes}
    workers = [pid for pid, line in command_lines().items() if "launch" in line]
    for process in processes:
        process.communicate("\n", timeout=60)
    assert len(prefixes) == 1
    alone = subprocess.Popen([first, "-c", code], env=environment(), stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
    wait_until(lambda: alone.stdout.readline(), "the prefix")
    one = [pid for pid, line in command_lines().items() if "launch" in line]
    alone.communicate("\n", timeout=60)
    assert len(workers) == len(one)


def command_lines():
    from support.mounts import processes
    return processes(os.environ[command.MARKER])


def test_without_fuse(work, small, who, private_namespace):
    """Extracted, once, and said on stderr; the same python otherwise."""
    program = made(work, small, "e.tar.gz", who=who)
    inner = [str(program), "-B", "-c", SHOW]
    if "user" in who:
        inner = ["setpriv", "--reuid", str(who["user"].pw_uid), "--regid", str(who["user"].pw_gid),
                 "--clear-groups", *inner]
    script = f"mount --bind /dev/null /dev/fuse; exec {shlex.join(inner)}"
    results = [run(*private_namespace, "sh", "-c", script, cwd=work) for _ in range(2)]
    for result in results:
        assert "/site-packages/attr/" in json.loads(result.out)[2]
        one_error_line(result, "extracted, since")
    assert len([p for p in (work / "state" / "extracted").iterdir() if p.name[0] != "."]) == 1


# -- one file

def test_names_of_one_file(work, small):
    """What is called like a program is that program; anything else is python."""
    program = made(work, small, "e.thaw", "--embed")
    (work / "tabulate").symlink_to(program)
    assert run(work / "tabulate", "--help").out.startswith(b"Usage: tabulate")
    (work / "environment").symlink_to(program)
    assert show(work / "environment")[1].endswith("/bin/python")
    # Under thaw's own name it is thaw.
    (work / "thaw").symlink_to(program)
    assert run(work / "thaw", "ls", program).out == thaw("ls", small).out


def test_executable_image_is_used_like_any(work, small, who):
    """thaw pack --executable: run, and warmed; then it starts the warmed image."""
    mine = work / "mine"
    mine.mkdir()
    path = mine / "environment.thaw"
    thaw("pack", "--executable", small_archive(), "-o", path, "--quiet")
    first = info(path)
    owned(who, mine)
    assert show(path, **who)[0].endswith(first["identity"][:16])
    ran = json.loads(thaw("run", path, "--", "python", "-B", "-c", SHOW, **who).out)
    assert ran[0].endswith(first["identity"][:16])
    # In place, and into another file.
    thaw("warm", path, "--", "python", "-c", "import attr", **who)
    thaw("warm", path, "-o", mine / "again.thaw", "--name=more", "--", "python", "-c",
         "import click", **who)
    for warmed in (path, mine / "again.thaw"):
        found = info(warmed)
        assert found["executable"] and found["image_start"] == first["image_start"]
        assert found["identity"] != first["identity"]
        thaw("verify", "--quiet", warmed)
        # From itself: nobody else has it.
        assert show(warmed, **who)[0].endswith(found["identity"][:16])
    # What follows the launcher in it is what thaw stub makes of the warmed image.
    (work / "alone").mkdir()
    alone = work / "alone" / "environment.thaw"
    alone.write_bytes(path.read_bytes()[first["image_start"]:])
    thaw("stub", "--embed", alone, "-o", work / "e.thaw", "--quiet")
    assert (work / "e.thaw").read_bytes() == path.read_bytes()


def small_archive():
    return fixtures.get("small").archive


def test_damaged_trailer(work, small):
    program = made(work, small, "e.pex")
    data = bytearray(program.read_bytes())
    data[-16:-8] = (1 << 40).to_bytes(8, "little")
    program.unlink()
    program.write_bytes(data)
    program.chmod(0o755)
    one_error_line(run(program, "-c", "pass", code=THAW), "e.pex: damaged: the stub's trailer")
    data[-16:-8] = (5).to_bytes(8, "little")
    program.write_bytes(data)
    one_error_line(run(program, "-c", "pass", code=THAW), "e.pex: no stub's description")


@pytest.mark.parametrize("text, word", [
    (b"", "no stub's description"), (b"[]", "no version"), (b"{}", "no version"),
    (b'{"thaw-stub": 2, "machine": "x"}', "newer thaw"),
    (b'{"thaw-stub": 1, "machine": "x86_64", "images": []}', "no images"),
    (b'{"thaw-stub": 1, "machine": "x86_64", "images": [{"identity": "00", "name": "x"}]}', "identity"),
    (b'{"thaw-stub": 1, "machine": "x86_64", "images": [{"identity": "' + b"0" * 64 +
     b'", "name": "../x"}]}', "identity or name"),
    (b'{"thaw-stub": 1, "machine": "x86_64", "images": [{"identity": "' + b"0" * 64 +
     b'", "name": "x", "path": "x"}]}', "absolute"),
    (b" " * (1 << 19), "too long")])
def test_damaged_description(work, small, text, word):
    program = made(work, small, "e.tar.gz")
    (work / "environment" / "thaw" / "stub.json").write_bytes(text)
    one_error_line(run(program, "-c", "pass", code=THAW), word)
    with contextlib.suppress(FileNotFoundError):
        (work / "environment" / "thaw" / "stub.json").unlink()
    one_error_line(run(program, "-c", "pass", code=THAW), "stub.json")
