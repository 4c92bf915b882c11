# SPDX-License-Identifier: Apache-2.0
"""Nobody with privileges looks into a stranger's image: who holds its index is confined."""
import os
import pathlib
import shutil
import signal
import subprocess
import threading

import pytest

from support import images
from support.background import Background
from support.command import binary, environment, sanitized, thaw
from support.mounts import descendants, kill, wait_until
from support.service import service, thaw_client
from support.tars import END, header, member, tar
from support.warm import flip, stored_part

pytestmark = [pytest.mark.fuse, pytest.mark.root]

MANY = 1_000_000
INDEX_KIB = 45 << 10  # of so many files: nobody else's memory is anywhere near
SMALL_KIB = 24 << 10

SCRIPT = b"#!/x\n_prefix_records = [('a', '/build/env', 'text')]\n"
RELOCATED = (member(b"bin/conda-unpack", SCRIPT, mode=0o755), member(b"conda-meta/history"),
             member(b"conda-meta/x-1-0.json", b"{}"), member(b"a", b"/build/env/lib\n"))


@pytest.fixture
def node(work):
    with service(work, "--linger=0") as running:
        yield running


@pytest.fixture
def relocated(work):
    (work / "env.tar").write_bytes(tar(*RELOCATED))
    thaw("pack", work / "env.tar", "--quiet", "-o", work / "env.thaw")
    return work / "env.thaw"


def many_files(count):
    """Headers of empty files, 100 directories of them: only digits and sums differ."""
    block = bytearray(header(b"d/000/0000000"))
    rest = sum(block[:2]) + sum(block[5:6]) + sum(block[13:148]) + sum(block[156:]) + 8 * 32
    for number in range(count):
        digits = b"%07d" % number
        block[2:5], block[6:13] = digits[:3], digits
        block[148:156] = b"%06o\0 " % (rest + sum(digits) + sum(digits[:3]))
        yield bytes(block)


@pytest.fixture
def huge(work):
    """An index of some 50 MB, and a file that must be rendered for each view."""
    with subprocess.Popen([binary(), "pack", "-", "--quiet", "-o", work / "huge.thaw"],
                          stdin=subprocess.PIPE, env=environment()) as packer:
        with packer.stdin as to:
            to.write(b"".join(RELOCATED))
            for block in many_files(MANY):
                to.write(block)
            to.write(END)
    assert packer.returncode == 0
    return work / "huge.thaw"


def status(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
        if os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") != binary():
            return None
    except OSError:
        return None
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def kib(fields, name):
    return int(fields.get(name, "0 kB").split()[0])  # zombies have none


def is_confined(fields):
    return (int(fields["CapEff"], 16) == 0 and int(fields["CapPrm"], 16) == 0 and
            int(fields["CapBnd"], 16) == 0 and fields["NoNewPrivs"] == "1" and
            (sanitized() or fields["Seccomp"] == "2"))


def maps_index(pid):
    return "/memfd:thaw-index" in pathlib.Path(f"/proc/{pid}/maps").read_text()


class Watch(Background):
    """Looks at all processes of the binary under test, as often as it can."""

    def __init__(self, *known):
        super().__init__()
        self.known = {str(pid) for pid in known}
        self.decoders = set()  # hold an index of their own; confined
        self.peak = 0          # KiB, of those that are not confined
        self.exposed = {}

    def run(self):
        before = set(os.listdir("/proc")) - self.known
        while not self.finished.wait(0.001):
            for pid in set(os.listdir("/proc")) - before:
                if not pid.isdigit() or (fields := status(pid)) is None:
                    continue
                if is_confined(fields):
                    if kib(fields, "RssAnon") > INDEX_KIB:
                        self.decoders.add(pid)
                    continue
                self.peak = max(self.peak, kib(fields, "VmHWM"))
                if kib(fields, "VmHWM") > SMALL_KIB:
                    self.exposed[pid] = fields


@pytest.mark.skipif(sanitized(), reason="a sanitizer's memory is large")
def test_only_confined_processes_hold_the_index(node, work, huge):
    with node.client() as client, Watch(node.process.pid) as watch:
        client.open("s", str(huge), work / "view")
        assert (work / "view" / "a").read_bytes() == bytes(work / "view") + b"/lib\n"
        keeper = client.images()[0]["keeper"]
        assert watch.decoders and not watch.exposed, (watch.decoders, watch.exposed)
        fields = status(keeper)
        assert not is_confined(fields)
        assert kib(fields, "VmHWM") < SMALL_KIB and not maps_index(keeper)
        worker = client.stat("s", str(work / "view"))["worker"]
        assert is_confined(status(worker))
        assert kib(status(worker), "RssAnon") < SMALL_KIB and maps_index(worker)
        # Neither does a new worker decode anything, nor a further view.
        watch.decoders.clear()
        os.kill(worker, signal.SIGKILL)
        assert len(os.listdir(work / "view" / "d" / "000")) == 10_000
        client.open("t", str(huge), work / "further")
        assert (work / "further" / "a").read_bytes() == bytes(work / "further") + b"/lib\n"
        assert not watch.decoders and not watch.exposed
    assert kib(status(node.process.pid), "VmHWM") < SMALL_KIB
    assert not maps_index(node.process.pid)


def damaged_index(image, path):
    """The same image by its table, of which the index cannot be read."""
    shutil.copy(image, path)
    part = stored_part(path, images.INDEX)
    flip(path, part.offset + part.size // 2)
    return path


def test_an_index_is_decoded_once(node, work, relocated):
    """Whoever opens a further view, or serves after a worker's death, never reads it again."""
    other = damaged_index(relocated, work / "other.thaw")
    with node.client() as client:
        client.open("s", str(relocated), work / "view")
        client.open("t", str(other), work / "further")
        assert (work / "further" / "a").read_bytes() == bytes(work / "further") + b"/lib\n"
        part = stored_part(relocated, images.INDEX)
        flip(relocated, part.offset + part.size // 2)
        worker = client.stat("s", str(work / "view"))["worker"]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: client.stat("s", str(work / "view"))["worker"] != worker, "a worker")
        assert (work / "view" / "bin" / "conda-unpack").exists()
        for session in ("s", "t"):
            client.close_view(session)
    # Whoever had it has ended: now it must be read, and is found damaged.
    wait_until(lambda: not node.images(), "the image to be unmounted")
    with node.client() as client, pytest.raises(thaw_client.NodeError) as caught:
        client.open("s", str(other), work / "view")
    assert caught.value.name == "Malformed" and "index" in str(caught.value)


def test_decoder_that_is_killed_fails_the_view_alone(node, work, huge):
    """Whatever becomes of it, its job says so, and nothing is left."""
    stop = threading.Event()

    def kill_decoders():
        while not stop.is_set():
            for pid in descendants(node.process.pid):
                fields = status(pid)
                if fields and is_confined(fields):
                    kill(pid)

    killer = threading.Thread(target=kill_decoders, daemon=True)
    killer.start()
    try:
        with node.client() as client, pytest.raises(thaw_client.NodeError) as caught:
            client.open("s", str(huge), work / "view")
        assert "killed by signal 9" in str(caught.value)
    finally:
        stop.set()
        killer.join()
    assert not (work / "view").exists() and not node.views()
