# SPDX-License-Identifier: Apache-2.0
"""thaw warm: what it adds to an image, and that otherwise nothing changes."""
import hashlib
import json
import os
import shlex
import signal
import subprocess

import pytest

from support import images, tars
from support.command import (DAMAGED, IO, REFUSED, USAGE, environment, run,
                             start, thaw, thaw_fails)
from support.mounts import mounted, wait_until
from support.warm import (IMPORT, flip, image, info, require_views, stat, stored_part, warm_sets)

pytestmark = pytest.mark.fuse

PYTHON = ["--", "python", "-c", IMPORT]


@pytest.fixture(autouse=True)
def scratch(work, monkeypatch):
    """Scratch layers go here; none may be left."""
    require_views()
    (work / "tmp").mkdir()
    (work / "tmp").chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(work / "tmp"))
    yield work / "tmp"
    assert os.listdir(work / "tmp") == []


def stream_of(path):
    return run("zstd", "-dc", path).out


def warm(*args, **options):
    return json.loads(thaw("warm", "--json", *args, **options).out)


def test_in_place(work):
    path = image("small", work)
    before, stream = info(path), stream_of(path)
    content = hashlib.sha256(path.read_bytes()).digest()
    with open(path, "rb") as old:
        result = thaw("warm", path, *PYTHON)
        after = info(path)
        # Readers of the old file keep it: it was replaced, not changed.
        assert os.fstat(old.fileno()).st_nlink == 0
        assert hashlib.sha256(old.read()).digest() == content
    assert before["identity"] != after["identity"]
    assert f"identity   sha256:{after['identity']}" in result.text
    assert f"was    sha256:{before['identity']}" in result.text
    for digest in ("stream_digest", "index_digest"):
        assert before[digest] == after[digest]
    assert stream_of(path) == stream
    (name, found), = warm_sets(path).items()
    assert name == "default" and found["pages"] > 50 and 10 < found["files"] < 100
    assert found["bytes"] <= found["pages"] * 4096
    assert 0 < found["share"] < 0.5
    assert f"{found['pages']} pages of {found['files']} files" in thaw("info", path).text
    verified = json.loads(thaw("verify", "--json", path).out)
    assert verified["warm_pages"] == found["pages"]
    (work / "other").mkdir()
    assert thaw("diff", path, image("small", work / "other")).out == b""


def test_output(work):
    path = image("small", work)
    old = path.read_bytes()
    thaw("warm", path, "-o", work / "new.thaw", *PYTHON)
    assert path.read_bytes() == old and "default" in warm_sets(work / "new.thaw")
    # Refused at once, and not only when the workload is done.
    ran = work / "ran"
    thaw_fails(REFUSED, "exists already", "warm", path, "-o", work / "new.thaw", "--", "touch", ran)
    assert not ran.exists()
    thaw("warm", path, "-o", work / "new.thaw", "--force", "--name=other", *PYTHON)
    assert list(warm_sets(work / "new.thaw")) == ["other"]
    thaw_fails(IO, "no such", "warm", path, "-o", work / "missing" / "new.thaw", "--", "touch", ran)


def test_several_sets_side_by_side(work):
    path = image("small", work)
    result = warm(path, "--name=one", "-c", f"python -c '{IMPORT}'",
                  "--name=two", "-c", 'cat "$THAW_ENV/lib/python3"*/site-packages/click/__init__.py',
                  "-c", 'cat "$THAW_ENV/lib/python3"*/site-packages/tabulate/__init__.py')
    assert result["warm_sets"] == ["one", "two"] and result["dropped_events"] == 0
    sets = warm_sets(path)
    assert sorted(sets) == ["one", "two"]
    assert sets["two"]["files"] == 2  # two commands, one set
    assert sets["one"]["files"] > 10
    # One of the same name replaces it, the other stays as it was.
    warm(path, "--name=two", "--", "sh", "-c",
         'cat "$THAW_ENV/lib/python3"*/site-packages/click/__init__.py')
    again = warm_sets(path)
    assert sorted(again) == ["one", "two"] and again["two"]["files"] == 1
    assert {k: v for k, v in again["one"].items() if k != "offset"} == \
        {k: v for k, v in sets["one"].items() if k != "offset"}
    thaw("verify", path)


def test_trace_names_just_the_pages_that_are_touched(work):
    """Of a large file, one page in the middle: no readahead, no neighbours."""
    (work / "x.tar").write_bytes(tars.tar(tars.member(b"large", os.urandom(1 << 20)),
                                          tars.member(b"other", b"never read")))
    thaw("pack", work / "x.tar", "--quiet")
    warm(work / "x.thaw", "-c",
         'dd if="$THAW_ENV/large" bs=4096 skip=100 count=1 of=/dev/null 2>/dev/null')
    found = warm_sets(work / "x.thaw")["default"]
    assert (found["pages"], found["files"], found["bytes"]) == (1, 1, 4096)


def failing(work):
    return [(["false"], "exit code 1"), (["sh", "-c", "exit 77"], "exit code 77"),
            (["sh", "-c", "kill -9 $$"], "signal 9")]


def test_failing_command_changes_nothing(work):
    path = image("small", work)
    old, entries = path.read_bytes(), sorted(os.listdir(work))
    for command, word in failing(work):
        result = thaw_fails(REFUSED, f"left as it was.*{word}", "warm", path, "--", *command)
        assert result.out == b""
        assert path.read_bytes() == old
    # The second of two.
    thaw_fails(REFUSED, "left as it was", "warm", path, "-c", "true", "-c", "false")
    thaw_fails(IO, "no-such-command", "warm", path, "--", "no-such-command")
    thaw_fails(IO, "no such", "warm", work / "missing.thaw", "--", "true")
    assert path.read_bytes() == old and sorted(os.listdir(work)) == entries


@pytest.mark.parametrize("arguments", [
    [], ["x.thaw"], ["--", "true"], ["x.thaw", "true"], ["--name=all", "x.thaw", "--", "true"],
    ["--name=none", "x.thaw", "--", "true"], ["--name=-x", "x.thaw", "--", "true"],
    ["--name=" + "x" * 32, "x.thaw", "--", "true"], ["--name=a/b", "x.thaw", "--", "true"]])
def test_usage(arguments):
    assert thaw_fails(USAGE, "warm", "warm", *arguments).out == b""


def test_reserved_names():
    thaw_fails(USAGE, "'none' is not .*not all or none", "warm", "--name=none", "x", "--", "true")


def test_alias(work):
    path = image("small", work)
    script = 'test "$THAW_ENV" = "$PWD/my env" && test -x "my env/bin/python" && ' \
             'test "$(command -v python)" = "$THAW_ENV/bin/python"'
    thaw("warm", f"{path}#my env", "-c", script, cwd=work)
    assert os.listdir(work / "my env") == []
    thaw_fails(REFUSED, "alias", "warm", f"{path}#../up", "--", "true", cwd=work)


def test_interrupt(work):
    path = image("small", work)
    old = path.read_bytes()
    for number in (signal.SIGINT, signal.SIGTERM):
        ready = work / f"ready-{number}"
        process = start("warm", path, "-c", f"touch {shlex.quote(str(ready))}; exec sleep 60",
                        stderr=subprocess.PIPE)
        wait_until(ready.exists, "the command")
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 128 + number
        assert err.startswith(b"thaw: ") and err.count(b"\n") == 1 and b"left as it was" in err
        assert path.read_bytes() == old


def test_image_replaced_meanwhile(work):
    """The trace is of the old one: its inodes are other files in the new."""
    path, other = image("small", work), image("small-warmed", work)
    new = other.read_bytes()
    thaw_fails(REFUSED, "replaced", "warm", path, "--", "mv", other, path)
    assert path.read_bytes() == new


def test_file_attributes_are_kept(work):
    path = image("small", work)
    path.chmod(0o600)
    (work / "link.thaw").symlink_to(path.name)
    thaw("warm", work / "link.thaw", "-c", 'cat "$THAW_ENV/pyvenv.cfg"')
    assert (work / "link.thaw").is_symlink() and "default" in warm_sets(path)
    assert path.stat().st_mode & 0o777 == 0o600


def python_v(path, work):
    """How an import found each module: lines of `python -v`."""
    env = {k: v for k, v in environment().items() if not k.startswith("PYTHON")}
    result = thaw("run", path, "--", "python", "-v", "-c", IMPORT, env=env)
    return [line for line in result.err.decode().splitlines() if "site-packages" in line]


def test_bytecode_goes_into_the_annex(work):
    path = image("small-bare", work)
    before, stream = info(path), stream_of(path)
    assert any(line.startswith("# code object from /") and line.endswith(".py")
               for line in python_v(path, work))
    first = warm(path, *PYTHON)
    assert first["added_files"] > 10
    after = info(path)
    assert after["stream_digest"] == before["stream_digest"]
    assert after["index_digest"] != before["index_digest"]
    assert after["files"] == before["files"] + first["added_files"]
    assert after["meta"]["bytecode"]["stale"] == 0
    assert stream_of(path) == stream
    # Python takes what is there, and compiles nothing.
    lines = python_v(path, work)
    assert sum(".pyc matches" in line for line in lines) == first["added_files"]
    assert not [line for line in lines if line.startswith("# code object from /")
                and line.endswith(".py")]
    thaw("verify", path)
    second = warm(path, *PYTHON)
    assert second["added_files"] == 0
    # The set of the first run holds what the second one touched: bytecode, not sources.
    thaw("extract", path, work / "tree")
    assert len(list((work / "tree").rglob("*.pyc"))) == first["added_files"]
    (work / "other").mkdir()
    listed = json.loads(thaw("diff", "--json", path, image("small-bare", work / "other"),
                             code=1).out)
    assert "__pycache__" in json.dumps(listed) and "pyvenv.cfg" not in json.dumps(listed)
    # A further annex behind the first.
    third = warm(path, "--name=more", "--", "python", "-c", "import pkg_resources")
    assert third["added_files"] > 5
    thaw("verify", path)
    assert stream_of(path) == stream


def test_other_sets_survive_new_inode_numbers(work):
    """A file that is added moves all that follow it; the set of before is still right."""
    path = image("small-bare", work)
    script = 'cat "$THAW_ENV"/lib/python3*/site-packages/tabulate/*.py "$THAW_ENV/bin/Activate.ps1"'
    warm(path, "--name=before", "-c", script + " >/dev/null")
    before = warm_sets(path)["before"]
    assert warm(path, "--name=after", *PYTHON)["added_files"] > 0
    after = warm_sets(path)["before"]
    assert [before[k] for k in ("pages", "files", "bytes", "names")] == \
        [after[k] for k in ("pages", "files", "bytes", "names")]
    thaw("verify", path)
    (work / "mnt").mkdir()
    thaw("mount", "--warm=before", "--wait-warm", path, work / "mnt")
    try:
        run("sh", "-c", script, env=environment(THAW_ENV=str(work / "mnt")))
        found = stat(work / "mnt")
        assert found["requests"].get("read", 0) == 0
        assert found["warm_pages"] == found["warm_pages_total"] == after["pages"]
    finally:
        thaw("umount", work / "mnt")


def test_bytecode_of_other_sources_is_left_out(work):
    """What the run itself wrote or changed is not in the image: its bytecode would be stale."""
    path = image("small-bare", work)
    script = ('site=$(echo "$THAW_ENV"/lib/python3*/site-packages)\n'
              'echo "new = 1" > "$site/new.py"\n'
              'echo "# changed" >> "$site/tabulate/version.py"\n'
              "python -c 'import new, tabulate'")
    result = warm(path, "-c", script)
    names = thaw("ls", "-R", path).text
    assert "__init__.cpython" in names
    assert "new.cpython" not in names and "version.cpython" not in names
    assert result["added_files"] == names.count(".pyc") > 0


def test_scratch_is_removed_whatever_the_command_did(work):
    path = image("small", work)
    thaw("warm", path, "-c", 'cd "$THAW_ENV" && mkdir -p a/b && touch a/b/c && '
                             'rm pyvenv.cfg && mv bin bin2 && chmod 0 a/b && chmod 0555 a')


@pytest.mark.parametrize("place", ["head", "frame"])
def test_damaged_set(work, place):
    """A hint that is broken is no hint; what is read stays right."""
    path = image("small-warmed", work)
    part = stored_part(path, images.WARM)
    flip(path, part.offset + (10 if place == "head" else part.size - 10))
    result = thaw("verify", path, code=DAMAGED)
    assert b"warm set" in result.out + result.err
    shown = info(path)
    if place == "head":
        assert "damaged" in thaw("info", path).text
        assert "pages" not in next(p for p in shown["parts"] if p["type"] == "warm set")
    with mounted(path, work / "mnt") as mount:
        if place == "frame":
            state = wait_until(lambda: stat(mount.path)["warm_state"] != "running" and
                               stat(mount.path), "the warmer to end")
            assert state["warm_state"] == "stopped"
            assert state["warm_pages"] < state["warm_pages_total"]
        else:
            assert stat(mount.path)["warm_state"] == "none"
            assert len(mount.lines_about("warm set")) == 1
        run(mount.path / "bin" / "python", "-B", "-c", IMPORT)
    # Another run mends it; what is damaged can even be replaced only.
    thaw("warm", path, *PYTHON)
    thaw("verify", path)


def test_ordinary_user(work, user, monkeypatch):
    require_views(user)
    path = image("small-bare", work)
    os.chown(path, user.pw_uid, user.pw_gid)
    os.chown(work, user.pw_uid, user.pw_gid)
    (work / "run").mkdir()
    os.chown(work / "run", user.pw_uid, user.pw_gid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(work / "run"))
    # Not the environment's Python: its home may be closed to others.
    if run("/usr/bin/python3", "-c", "", user=user, code=None).code != 0:
        pytest.skip("needs /usr/bin/python3")
    result = warm(path, "-c", 'PYTHONPATH=$(echo "$THAW_ENV"/lib/python3*/site-packages) '
                              f"exec /usr/bin/python3 -c '{IMPORT}'", user=user)
    assert result["added_files"] > 10
    assert path.stat().st_uid == user.pw_uid
    thaw("verify", path)
    thaw("warm", path, "-c", 'cd "$THAW_ENV" && mkdir a && touch a/b && chmod 0555 a', user=user)
    thaw_fails(REFUSED, "left as it was", "warm", path, "--", "false", user=user)
