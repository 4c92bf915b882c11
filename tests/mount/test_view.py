# SPDX-License-Identifier: Apache-2.0
"""What a view is made of: scratch layers, further images, shared workers, extracted trees."""
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
from support.command import binary, environment, one_error_line, run, start, thaw
from support.cgroups import cgroups  # noqa: F401
from support.mounts import processes, wait_until
from support.tars import directory, member, tar
from support.views import (THAW, leaves_nothing, of_thaw, places, scratch_layers,  # noqa: F401
                           served_by, sockets, who)
from support.warm import image, process_state, reclaims, require_views

pytestmark = pytest.mark.fuse


@pytest.fixture
def small(work):
    return image("small-warmed", work)


def packed(work, name, *members, options=()):
    """An image of these members."""
    archive = work / f"{name}.tar"
    archive.write_bytes(tar(*members))
    thaw("pack", archive, "-o", work / f"{name}.thaw", "--quiet", *options)
    return work / f"{name}.thaw"


@pytest.fixture
def tiny(work):
    return packed(work, "tiny", directory(b"bin/"), directory(b"lib/"),
                  member(b"lib/one", b"one\n"), member(b"lib/two", b"two\n"),
                  member(b"bin/tool", b"#!/bin/sh\necho tool \"$@\"\n", mode=0o755))


def failed(result, word):
    assert result.code == THAW and result.out == b"", repr(result)
    one_error_line(result, word)


class Held:
    """A view whose command runs until it is told to go on, by lines that it reads."""

    def __init__(self, work, who, *args, script="", cwd=None):
        go = {**who, **({"cwd": cwd} if cwd else {})}
        loop = 'while read line; do eval "$line"; echo "done $?"; done'
        self.process = start("run", *args, "--", "sh", "-c", f"{script}\necho ready\n{loop}",
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, **go)
        assert self.line() == "ready"

    def line(self):
        return self.process.stdout.readline().decode().rstrip("\n")

    def tell(self, text):
        """What it printed; its exit code last."""
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()
        said = []
        while True:
            said.append(self.line())
            if said[-1].startswith("done ") or self.process.poll() is not None:
                return said

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(timeout=20) == 0
        self.process.stdout.close()


@contextlib.contextmanager
def held(work, who, *args, **options):
    one = Held(work, who, *args, **options)
    try:
        yield one
        if one.process.poll() is None:
            one.end()
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


# -- writable

def test_writable(tiny, work, who):
    script = """set -e
    cd "$THAW_ENV"
    echo new >lib/new; echo more >>lib/one; rm lib/two; mkdir lib/deep; mv lib/new lib/deep/moved
    rm -r bin; mkdir bin; echo mine >bin/tool; chmod 700 bin/tool
    cat lib/one lib/deep/moved bin/tool; ls lib bin"""
    before = tiny.read_bytes()
    result = thaw("run", "--writable", tiny, "--", "sh", "-c", script, **who)
    assert result.text.split() == ["one", "more", "new", "mine", "bin:", "tool", "lib:", "deep", "one"]
    assert result.err == b""
    # The next one knows nothing of it, and the image has not changed.
    assert thaw("run", "--writable", tiny, "--", "sh", "-c", 'ls "$THAW_ENV"/*; cat "$THAW_ENV/lib/one"',
                **who).text.split()[-1] == "one"
    assert tiny.read_bytes() == before
    wait_until(lambda: scratch_layers(work) == [], "the scratch layers to be removed")


def test_writable_views_do_not_see_each_other(tiny, work, who):
    with held(work, who, "--writable", tiny) as first, held(work, who, "--writable", tiny) as second:
        assert first.tell('echo 1 >"$THAW_ENV/mine"') == ["done 0"]
        assert second.tell('ls "$THAW_ENV"; echo 2 >"$THAW_ENV/mine"') == ["bin", "lib", "done 0"]
        assert first.tell('cat "$THAW_ENV/mine"') == ["1", "done 0"]
        assert len(scratch_layers(work)) == 2
        first.end()
        wait_until(lambda: len(scratch_layers(work)) == 1, "one scratch layer to go")
        assert second.tell('cat "$THAW_ENV/mine"') == ["2", "done 0"]


def test_files_are_the_users(tiny, who):
    out = thaw("run", "--writable", tiny, "--", "sh", "-c",
               'touch "$THAW_ENV/new" && cd "$THAW_ENV" && stat -c %u . new lib lib/one && id -u', **who)
    assert len(set(out.lines)) == 1, out


def wheel(work, version, *modules):
    """A wheel of the package "trinket"."""
    name = f"trinket-{version}"
    path = work / f"{name}-py3-none-any.whl"
    info = f"{name}.dist-info"
    files = {f"trinket/{module}.py": f"version = {version!r}\n" for module in ("__init__", *modules)}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: trinket\nVersion: {version}\n"
    files[f"{info}/WHEEL"] = ("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
                              "Tag: py3-none-any\n")
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_pip_installs_upgrades_and_removes(small, work, who):
    pip = pytest.importorskip("pip", reason="needs pip")
    shutil.copytree(pathlib.Path(pip.__file__).parent, work / "pips" / "pip")
    one, two = wheel(work, "1.0", "old"), wheel(work, "2.0", "new")
    script = f"""set -e
    python="$THAW_ENV/bin/python"
    pip() {{ PYTHONPATH={work}/pips PYTHONDONTWRITEBYTECODE=1 "$python" -m pip --isolated "$@" >&2; }}
    show() {{ "$python" -c 'import trinket, os; print(trinket.version,
        sorted(n for n in os.listdir(os.path.dirname(trinket.__file__)) if n.endswith(".py")))'; }}
    pip install --no-index --no-deps {one}
    show
    pip install --no-index --no-deps --upgrade {two}
    show
    pip uninstall --yes trinket
    "$python" -c 'import trinket' 2>/dev/null || echo none
    pip uninstall --yes click tabulate
    pip install --no-index --no-deps {one}
    "$python" -c 'import click' 2>/dev/null || echo none
    show"""
    env = {k: v for k, v in environment(HOME=str(work)).items() if not k.startswith(("PYTHON", "PIP_"))}
    result = thaw("run", "--writable", small, "--", "sh", "-c", script, env=env, **who)
    assert result.text.splitlines() == ["1.0 ['__init__.py', 'old.py']", "2.0 ['__init__.py', 'new.py']",
                                        "none", "none", "1.0 ['__init__.py', 'old.py']"]


def test_scratch_of_limited_size(tiny, work, who):
    """In memory: nothing of it is ever on disk, and its end is an error of the command's."""
    result = thaw("run", "--scratch-size=1M", tiny, "--", "sh", "-c",
                  'cd "$THAW_ENV"; head -c 100000 /dev/zero >small && echo fits; '
                  'head -c 2000000 /dev/zero >big || echo full; df -k --output=size . | tail -n1', **who)
    assert result.text.split() == ["fits", "full", "1024"]
    assert not (work / "state" / "scratch").exists()
    for bad in ("0", "lots", "-1", ""):
        failed(thaw("run", f"--scratch-size={bad}", tiny, "--", "true", code=None, **who), "size")


@pytest.mark.parametrize("how", ["command", "all"])
def test_scratch_is_removed_after_a_kill(tiny, work, who, how):
    with held(work, who, "--writable", tiny) as one:
        assert one.tell('mkdir "$THAW_ENV/deep" && echo x >"$THAW_ENV/deep/file" && '
                        'chmod 0 "$THAW_ENV/deep"') == ["done 0"]
        assert len(scratch_layers(work)) == 1
        if how == "command":
            one.process.kill()
        else:
            # The janitor first, before it can see that the view is gone.
            ours = of_thaw(one.process)
            first = [pid for pid, name in ours.items() if name == "thaw-janitor"]
            assert len(first) == 1
            for pid in (*first, *processes(os.environ[command.MARKER])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        one.process.wait(timeout=20)
    wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    if how == "all":
        # Nobody was left to do it: the next one does.
        assert len(scratch_layers(work)) == 1
        thaw("run", "--writable", tiny, "--", "true", **who)
        wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    assert scratch_layers(work) == []


def test_scratch_survives_the_janitor(tiny, work, who):
    """Killed alone, it leaves a layer that is in use, which nobody may remove."""
    with held(work, who, "--writable", tiny) as one:
        assert one.tell('echo mine >"$THAW_ENV/mine"') == ["done 0"]
        layer = scratch_layers(work)
        janitors = [pid for pid, name in of_thaw(one.process).items() if name == "thaw-janitor"]
        assert len(janitors) == 1
        os.kill(janitors[0], signal.SIGKILL)
        wait_until(lambda: janitors[0] not in of_thaw(one.process), "the janitor to end")
        thaw("run", "--writable", tiny, "--", "true", **who)
        wait_until(lambda: len(scratch_layers(work)) < 2, "the other's layer to go")
        assert scratch_layers(work) == layer
        assert (work / "state" / "scratch" / layer[0] / "upper" / "mine").read_text() == "mine\n"
        assert one.tell('cat "$THAW_ENV/mine" && echo more >>"$THAW_ENV/mine"') == ["mine", "done 0"]
    wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    thaw("run", "--writable", tiny, "--", "true", **who)
    wait_until(lambda: scratch_layers(work) == [], "both layers to go")


def test_scratch_without_inotify(tiny, work):
    """A user may have used all instances up."""
    require_views()
    script = (f'{shlex.quote(binary())} run --writable tiny.thaw -- sh -c '
              '\'echo mine >"$THAW_ENV/mine"; sleep 1.5; cat "$THAW_ENV/mine"; ls state/scratch | wc -l\'')
    result = in_user_namespace(work, f"echo 0 >/proc/sys/user/max_inotify_instances && exec {script}")
    if b"cannot create /proc/sys" in result.err:
        pytest.skip(f"no user namespaces with limits of their own: {result!r}")
    assert result.code == 0 and result.text.split() == ["mine", "1"], result
    wait_until(lambda: scratch_layers(work) == [], "the scratch layer to be removed")


def test_background_process_keeps_the_scratch_layer(tiny, work, who):
    script = ('echo kept >"$THAW_ENV/mine"; ( while ! test -e go; do sleep 0.02; done; '
              'cat "$THAW_ENV/mine" >late; mv late done ) >/dev/null 2>&1 </dev/null &')
    thaw("run", "--writable", tiny, "--", "sh", "-c", script, **who)
    assert len(scratch_layers(work)) == 1
    (work / "go").touch()
    wait_until((work / "done").exists, "the background process")
    assert (work / "done").read_bytes() == b"kept\n"
    wait_until(lambda: scratch_layers(work) == [], "the scratch layer to be removed")


def test_state_directory_that_overlayfs_cannot_use(tiny, work):
    """Another overlay is such a one; the scratch layer is in memory then."""
    require_views()
    script = (f'cd {work} && mkdir l u w && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w none state '
              f'&& chmod 700 state && exec {shlex.quote(binary())} run --writable {tiny} -- sh -c '
              '\'echo new >"$THAW_ENV/new" && cat "$THAW_ENV/new"; ls state/scratch\'')
    assert run("unshare", "-m", "sh", "-c", script).text.split() == ["new"]


# -- layers

@pytest.fixture
def extra(work):
    return packed(work, "extra", directory(b"lib/"), member(b"lib/two", b"two of extra\n"),
                  member(b"lib/three", b"three\n"))


@pytest.mark.parametrize("mode", ["private", "extracted"])
def test_layers(tiny, extra, work, who, mode):
    top = packed(work, "top", directory(b"lib/"), member(b"lib/three", b"three of top\n"))
    go = ["run", f"--mode={mode}", "--layer", extra, "--layer", top]
    script = 'cd "$THAW_ENV" && cat lib/one lib/two lib/three && bin/tool x && ls lib'
    assert thaw(*go, tiny, "--", "sh", "-c", script, **who).lines == [
        b"one", b"two of extra", b"three of top", b"tool x", b"one", b"three", b"two"]
    # The other way round.
    assert thaw("run", f"--mode={mode}", "--layer", top, "--layer", extra, f"{tiny}#env", "--", "cat",
                "env/lib/three", **who).out == b"three\n"
    # Writable above them all.
    assert thaw(*go, "--writable", tiny, "--", "sh", "-c",
                'cd "$THAW_ENV" && echo mine >lib/three && rm lib/two && cat lib/*', **who).lines == [
                    b"one", b"mine"]


def test_layers_that_cannot_be(tiny, extra, work, who):
    go = {**who, "code": None}
    failed(thaw("run", "--layer", "missing.thaw", tiny, "--", "true", **go), "layer missing.thaw")
    failed(thaw("run", "--layer", tiny, tiny, "--", "true", **go), "already")
    (work / "bad.thaw").write_bytes(extra.read_bytes()[:-1])
    failed(thaw("run", "--layer", "bad.thaw", tiny, "--", "true", **go), "layer bad.thaw")


def test_python_imports_from_layers(small, work, who):
    version = next(name for name in os.listdir(f"{small_tree()}/lib") if name.startswith("python3"))
    site = f"lib/{version}/site-packages".encode()
    above = packed(work, "above", member(site + b"/gadget.py", b"where = 'layer'\n"))
    code = "import gadget, click; print(gadget.where, gadget.__file__)"
    result = thaw("run", "--layer", above, f"{small}#env", "--", "env/bin/python", "-c", code, **who)
    assert result.text == f"layer {work}/env/{site.decode()}/gadget.py\n"


def small_tree():
    sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))
    import environment as fixtures
    return fixtures.get("small").tree


def test_stat_of_layers(tiny, extra, who):
    """It is the environment's worker that is asked, not a layer's."""
    identity = json.loads(thaw("info", "--json", tiny).out)["identity"]
    shown = thaw("run", "--layer", extra, tiny, "--", "sh", "-c",
                 f'exec {shlex.quote(binary())} stat --json "$THAW_ENV"', **who)
    assert json.loads(shown.out)["identity"] == identity


# -- sharing

def requests(one):
    """What the worker below a view was asked, by asking it: ioctl is not counted."""
    text = "\n".join(one.tell(f'{shlex.quote(binary())} stat --json "$THAW_ENV"')[:-1])
    counts = json.loads(text)["requests"]
    return {name: n for name, n in counts.items() if name not in ("ioctl", "statfs")}


def test_sessions_share_one_worker(small, work, who):
    """And a second one's import reads nothing from it."""
    imports = 'python -c "import attr, click, tabulate"'
    with held(work, who, "--warm=none", small) as first:
        workers = served_by(1, first.process)
        assert first.tell(imports) == ["done 0"]
        with held(work, who, "--warm=none", small) as second:
            assert served_by(1, first.process, second.process) == workers
            # Others may empty the machine's caches meanwhile: then that import says nothing.
            for _ in range(10):
                assert first.tell(imports) == ["done 0"]
                drops, before = reclaims(), requests(second)
                assert second.tell(imports) == ["done 0"]
                after = requests(second)
                if reclaims() == drops:
                    break
            assert before["read"] > 20 and after["read"] == before["read"]
            assert len(sockets(work)) == 1
            # The first one's end is not the second one's.
            first.end()
            wait_until(lambda: first.process.pid not in of_thaw(), "the first to end")
            assert second.tell('cat "$THAW_ENV/pyvenv.cfg" >/dev/null') == ["done 0"]
            assert second.tell(imports) == ["done 0"]
            with held(work, who, "--warm=none", small) as third:
                assert served_by(1, second.process, third.process) == workers


def test_a_view_outlives_the_holder(small, work, who):
    with held(work, who, small) as first:
        holder = [pid for pid, name in of_thaw(first.process).items() if name == "thaw-holder"]
        assert len(holder) == 1
        os.kill(holder[0], signal.SIGKILL)
        wait_until(lambda: holder[0] not in of_thaw(first.process), "the holder to end")
        assert first.tell('python -c "import click"') == ["done 0"]
        # Its socket is there, and nobody behind it.
        assert len(sockets(work)) == 1
        with held(work, who, small) as second:
            assert second.tell('python -c "import click"') == ["done 0"]
            assert len(sockets(work)) == 1
            served_by(2, first.process, second.process)


def test_a_holder_that_does_not_answer(tiny, work, who):
    """Is waited for, for a while; then the view is made without it."""
    with held(work, who, tiny) as first:
        holder = [pid for pid, name in of_thaw(first.process).items() if name == "thaw-holder"]
        os.kill(holder[0], signal.SIGSTOP)
        try:
            assert thaw("run", tiny, "--", "sh", "-c", 'cat "$THAW_ENV/lib/one"', **who).out == b"one\n"
        finally:
            os.kill(holder[0], signal.SIGCONT)


def test_not_shared(small, tiny, work, who):
    """Other warm sets, other images."""
    with held(work, who, small) as first, held(work, who, "--warm=none", small) as second, \
            held(work, who, tiny) as third, held(work, who, "--layer", tiny, small) as fourth:
        served_by(5, *(one.process for one in (first, second, third, fourth)))


def test_many_at_once_share(tiny, work, who):
    """Started together: one of them starts the holder, and none is refused."""
    script = 'cat "$THAW_ENV/lib/one"; echo up; read line'
    many = [start("run", tiny, "--", "sh", "-c", script, stdin=subprocess.PIPE,
                  stdout=subprocess.PIPE, **who) for _ in range(12)]
    try:
        for process in many:
            assert [process.stdout.readline(), process.stdout.readline()] == [b"one\n", b"up\n"]
        served_by(1, *many)
    finally:
        for process in many:
            process.communicate(b"go\n", timeout=20)
    assert [process.returncode for process in many] == [0] * 12


def test_a_holder_without_descriptors(tiny, work, who):
    """Takes no further views, which get another holder; it does not ask again for ever."""
    script = 'cat "$THAW_ENV/lib/one"; echo up; read line'
    limited = f"ulimit -n 20; exec {shlex.quote(binary())} run tiny.thaw -- sh -c {shlex.quote(script)}"
    ids = {key: value for key, value in who.items() if key == "cwd"}
    if "user" in who:
        ids.update(user=who["user"].pw_uid, group=who["user"].pw_gid, extra_groups=[])
    many = []
    try:
        for _ in range(20):
            many.append(subprocess.Popen(["sh", "-c", limited], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, env=environment(), **ids))
            assert many[-1].stdout.readline() == b"one\n"
            assert many[-1].stdout.readline() == b"up\n"
        holders = [pid for pid, name in of_thaw(*many).items() if name == "thaw-holder"]
        assert len(holders) > 1
        for pid in holders:
            wait_until(lambda pid=pid: process_state(pid) == "S", "the holder to wait")
    finally:
        for process in many:
            process.communicate(b"go\n", timeout=20)


def in_cgroup(path, tiny, **options):
    """A view like Held's, in a cgroup."""
    script = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
    loop = 'echo ready; while read line; do eval "$line"; echo "done $?"; done'
    args = [binary(), "run", tiny, "--", "sh", "-c", loop]
    one = Held.__new__(Held)
    one.process = subprocess.Popen(
        ["sh", "-c", script, "sh", str(path), *map(str, args)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env=environment(), **options)
    assert one.line() == "ready"
    return one


def test_nothing_is_shared_across_cgroups(tiny, work, cgroups):
    """When one container's processes are all killed, the other's view lives on."""
    require_views()
    first, second = (in_cgroup(path, tiny, cwd=work) for path in cgroups)
    third = in_cgroup(cgroups[1], tiny, cwd=work)
    try:
        served_by(2, first.process, second.process, third.process)
        (cgroups[0] / "cgroup.kill").write_text("1")
        assert first.process.wait(timeout=20) == -signal.SIGKILL
        served_by(1, second.process, third.process)
        for one in (second, third):
            assert one.tell('cat "$THAW_ENV/lib/one" "$THAW_ENV/lib/two"') == ["one", "two", "done 0"]
        wait_until(lambda: "populated 0" in (cgroups[0] / "cgroup.events").read_text(), "all to end")
        # Only the socket of the killed is left, until somebody comes.
        thaw("run", tiny, "--", "true", cwd=work)
        for one in (second, third):
            one.end()
        # Before the cgroups are emptied: a holder that is killed leaves its socket.
        wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    finally:
        for one in (first, second, third):
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
            one.process.stdout.close()


# -- rules for what stands in for python

def test_stands_in_for_a_program(tiny, work, who):
    """The same process; its group, session, signals, descriptors and variables are the caller's."""
    script = ("import json, os, signal, sys\n"
              "json.dump({'pid': os.getpid(), 'group': os.getpgid(0), 'session': os.getsid(0),\n"
              "           'path': os.environ.get('PYTHONPATH'), 'cwd': os.getcwd(),\n"
              "           'ignored': signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN,\n"
              "           'fds': sorted(os.listdir('/proc/self/fd'))}, sys.stdout)\n"
              "sys.stdout.flush(); os.setpgid(0, 0)\n"
              "sys.stdin.read(); print('end')\n")
    process = start("run", tiny, "--", sys.executable if "user" not in who else "/usr/bin/python3",
                    "-S", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    env=environment(PYTHONPATH="/some/path"), **who)
    said = json.loads(read_object(process.stdout))
    assert said["pid"] == process.pid
    assert said["group"] == os.getpgid(0) and said["session"] == os.getsid(0)
    assert said["path"] == "/some/path" and said["cwd"] == str(work)
    assert len(said["fds"]) == 4  # three, and the one that lists them
    out, _ = process.communicate(timeout=20)  # the end of its input is an order to stop
    assert out == b"end\n" and process.returncode == 0


def read_object(stream):
    text = b""
    while not text.endswith(b"}"):
        byte = stream.read(1)
        assert byte, text
        text += byte
    return text


def test_sigterm_reaches_the_command(tiny, work, who):
    with held(work, who, tiny, script="trap 'echo caught; exit 7' TERM") as one:
        one.process.terminate()
        # dash handles traps between commands; if it is there, it has ended already.
        with contextlib.suppress(BrokenPipeError):
            os.write(one.process.stdin.fileno(), b":\n")
        assert one.process.wait(timeout=20) == 7
        assert one.process.stdout.read() == b"caught\n"


@pytest.mark.parametrize("options", [[], ["--writable"]])
def test_killing_everything_leaves_nothing(tiny, extra, work, who, options):
    with held(work, who, *options, "--layer", extra, f"{tiny}#env") as one:
        assert one.tell("cat env/lib/one") == ["one", "done 0"]
        for pid in processes(os.environ[command.MARKER]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.process.wait(timeout=20)
    wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    assert os.listdir(work / "env") == []
    assert thaw("run", *options, f"{tiny}#env", "--", "cat", "env/lib/one", **who).out == b"one\n"
    wait_until(lambda: not processes(os.environ[command.MARKER]), "all to end")
    # What belongs to other layers' views is swept by those who come to them.
    thaw("run", *options, "--layer", extra, f"{tiny}#env", "--", "true", **who)


# -- extracted

def extracted_trees(work):
    return sorted(name for name in os.listdir(work / "state" / "extracted") if name[0] != ".")


@pytest.mark.parametrize("alias", ["", "#env", "#with space, 'and' \"more\" %s"])
def test_extracted(tiny, work, who, alias):
    go = ["run", "--mode=extracted", f"{tiny}{alias}", "--", "sh", "-c"]
    result = thaw(*go, 'cd "$THAW_ENV" && pwd && cat lib/one && ls && bin/tool a; exit 5',
                     code=5, **who)
    assert result.lines[1:] == [b"one", b"bin", b"lib", b"tool a"]
    if alias:
        assert result.lines[0] == os.fsencode(work / alias[1:])
        assert os.listdir(work / alias[1:]) == []
    assert one_error_line(result, "extracted") and len(extracted_trees(work)) == 1
    # Read-only, like any view; found again.
    inode = os.stat(work / "state" / "extracted" / extracted_trees(work)[0] / "tree").st_ino
    result = thaw(*go, 'touch "$THAW_ENV/lib/one"', code=None, **who)
    assert result.code not in (0, THAW) and b"read-only" in result.err.lower()
    assert os.stat(work / "state" / "extracted" / extracted_trees(work)[0] / "tree").st_ino == inode
    # And writable, each with a scratch layer of its own.
    assert thaw(go[0], "--writable", *go[1:], 'echo x >>"$THAW_ENV/lib/one" && cat "$THAW_ENV/lib/one"',
                **who).lines == [b"one", b"x"]
    assert thaw(*go, 'cat "$THAW_ENV/lib/one"', **who).out == b"one\n"


def test_many_at_once_share_one_extraction(small, work, who):
    many = [start("run", "--mode=extracted", small, "--", "cat", "/proc/self/mountinfo",
                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, **who) for _ in range(8)]
    outs = [process.communicate(timeout=60) for process in many]
    assert [process.returncode for process in many] == [0] * 8, outs
    assert len(extracted_trees(work)) == 1
    assert [name for name in os.listdir(work / "state" / "extracted") if name.endswith(".new")] == []


def test_damaged_extraction_is_made_anew(tiny, work, who):
    go = ["run", "--mode=extracted", tiny, "--", "sh", "-c", 'cat "$THAW_ENV/lib/one"']
    thaw(*go, **who)
    place = work / "state" / "extracted" / extracted_trees(work)[0]
    (place / "tree" / "lib" / "one").write_text("changed\n")
    for text in ("", "thaw extracted 1\nelse\n", (place / "complete").read_text()[:-3]):
        (place / "complete").write_text(text)
        assert thaw(*go, **who).out == b"one\n", text
    (place / "complete").unlink()
    (place.parent / f".{place.name}.new" / "tree").mkdir(parents=True)
    (place.parent / f".{place.name}.new" / "tree" / "left").touch()
    if "user" in who:
        run("chown", "-R", str(who["user"].pw_uid), place.parent)
    assert thaw(*go, **who).out == b"one\n"
    # Not ours: never used.
    os.chmod(place, 0o777)
    failed(thaw(*go, code=None, **who), "not a directory of our own")


def as_user(who, *args):
    user = who.get("user")
    if user is None:
        return list(args)
    return ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups",
            *args]


def without_fuse(work, script, who):
    """Run a shell script where /dev/fuse is none."""
    inner = shlex.join(as_user(who, "sh", "-c", script))
    return run("unshare", "-m", "sh", "-c", f"mount --bind /dev/null /dev/fuse; exec {inner}", cwd=work,
               code=None)


def in_user_namespace(work, script):
    """Run a shell script in a user namespace with all our ids and capabilities."""
    process = subprocess.Popen(["unshare", "-m", "-U", "--keep-caps", "sh", "-c", f"read go; {script}"],
                               cwd=work, env=environment(), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        base = pathlib.Path(f"/proc/{process.pid}")
        wait_until(lambda: process.poll() is not None or
                   os.readlink(base / "ns/user") != os.readlink("/proc/self/ns/user"),
                   "the user namespace")
        if process.poll() is not None:
            pytest.skip(f"no user namespaces with limits of their own: {process.stderr.read()!r}")
        for name in ("uid_map", "gid_map"):
            (base / name).write_text("0 0 65536\n")
        out, err = process.communicate(b"go\n", timeout=command.TIMEOUT)
    except OSError as error:
        pytest.skip(f"no user namespaces with limits of their own: {error}")
    finally:
        process.kill()
        process.wait()
    command.check_sanitizers(err, script)
    return command.Result([script], process.returncode, out, err)


def without_namespaces(work, script, who):
    """In a user namespace that may have no further ones, as containers often are; no capabilities."""
    inner = shlex.join(as_user(who, "setpriv", "--ambient-caps=-all", "--bounding-set=-all",
                               "--inh-caps=-all", "sh", "-c", script))
    return in_user_namespace(work, f"echo 0 >/proc/sys/user/max_user_namespaces && exec {inner}")


@pytest.fixture
def own_limits(work):
    """Namespaces whose limits can be set without changing the machine's."""
    result = without_namespaces(work, "exit 7", {})
    if result.code != 7:
        pytest.skip(f"no user namespaces with limits of their own: {result!r}")


def test_auto_without_fuse(tiny, work, who, private_namespace):
    script = (f"{shlex.quote(binary())} run tiny.thaw#env -- sh -c "
              '\'echo "$THAW_ENV"; cat env/lib/one; exit 9\'')
    result = without_fuse(work, script, who)
    assert result.code == 9 and result.lines == [os.fsencode(work / "env"), b"one"], result
    one_error_line(result, "tiny.thaw: extracted, since .*fuse|mounted")
    assert os.listdir(work / "env") == []
    result = without_fuse(work, script.replace(" run ", " run --mode=private "), who)
    failed(result, "fuse|mounted")


def test_auto_without_namespaces(tiny, work, who, own_limits):
    """A symlink at the alias, which stays; nothing that needs mounts."""
    binary_ = shlex.quote(binary())
    script = (f"{binary_} run tiny.thaw#env -- "
              "sh -c 'echo \"$THAW_ENV\"; cat env/lib/one; env/bin/tool; exit 9'")

    def go(text):
        return without_namespaces(work, text, who)

    result = go(script)
    assert result.code == 9 and result.lines == [os.fsencode(work / "env"), b"one", b"tool"], result
    one_error_line(result, "extracted, since")
    target = os.readlink(work / "env")
    assert target.startswith(str(work / "state" / "extracted")) and target.endswith("/tree")
    assert go(script).code == 9
    assert os.readlink(work / "env") == target
    # Without an alias, the tree itself.
    result = go(f"{binary_} run tiny.thaw -- sh -c 'echo $THAW_ENV'")
    assert result.text.strip() == target
    # Another image, or something else, is left alone.
    packed(work, "other", member(b"x", b"x"))
    failed(go(f"{binary_} run other.thaw#env -- true"), "exists")
    assert os.readlink(work / "env") == target
    (work / "dir").mkdir()
    failed(go(f"{binary_} run tiny.thaw#dir -- true"), "exists")
    for option in ("--writable", "--scratch-size=1M", "--layer=other.thaw"):
        failed(go(f"{binary_} run {option} tiny.thaw -- true"), "namespaces")
    # Where views can be mounted again, the symlink is that of an extracted view.
    assert thaw("run", "tiny.thaw#env", "--", "cat", "env/lib/two", **who).out == b"two\n"


def test_python_without_namespaces(small, work, who, own_limits):
    """Relocated to the tree, bound to an interpreter, and called by the symlink's name."""
    code = "import click, sys; print(sys.prefix); print(click.__file__)"
    script = (f"{shlex.quote(binary())} run small-warmed.thaw#env -- sh -c "
              f"'env/bin/python -c \"{code}\" && env/bin/tabulate --help | head -n1'")
    result = without_namespaces(work, script, who)
    assert result.code == 0, result
    lines = result.text.splitlines()
    assert lines[0] == str(work / "env") and lines[1].startswith(f"{work}/env/lib/python3")
    assert lines[2]


def test_waits_for_a_warmer_that_another_started(work, who):
    slow = image("slow", work)
    with held(work, who, slow) as one:
        shown = thaw("run", "--wait-warm", slow, "--", "sh", "-c",
                     f'exec {shlex.quote(binary())} stat "$THAW_ENV"', **who).text
        assert "warmer     finished" in shown
        served_by(1, one.process)


def test_modes(tiny, who):
    failed(thaw("run", "--mode=other", tiny, "--", "true", code=None, **who), "mode")
    assert thaw("run", "--mode=auto", tiny, "--", "echo", "x", **who).err == b""
    assert thaw("run", "--mode=private", tiny, "--", "echo", "x", **who).err == b""
