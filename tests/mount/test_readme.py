# SPDX-License-Identifier: Apache-2.0
"""The README's own words: a session manager's day, as it stands there."""
import os
import re
import subprocess
import sys
import tarfile

import pytest

from support import command
from support.command import binary, environment, thaw
from support.mounts import mounts_below, wait_until
from support.service import service

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

from wheels import make_wheel  # noqa: E402

pytestmark = [pytest.mark.fuse, pytest.mark.root]


def block(language):
    text = (command.PROJECT / "README.md").read_text(encoding="utf-8")
    day = text.split("## A session manager's day", 1)[1].split("\n## ", 1)[0]
    return re.search(r"```%s\n(.*?)```" % language, day, re.S).group(1)


@pytest.fixture
def day(work, monkeypatch):
    """What the README takes to be there: packed environments, a job, something to install."""
    folder = work / "day"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    with tarfile.open(folder / "environment.tar.gz", "w:gz") as tar:
        tar.add(folder / "venv", ".")
    (folder / "venv" / "newer").write_text("newer\n")
    thaw("pack", folder / "environment.tar.gz", "--quiet")
    thaw("pack", folder / "venv", "--quiet", "-o", folder / "newer.thaw")
    (folder / "job.py").write_text(
        "import os, sys; open('ran', 'a').write('%s %s\\n' % (sys.prefix, "
        "os.path.exists(sys.prefix + '/newer')))\n")
    make_wheel(folder, "more", {"more.py": b"answer = 42\n"})
    (folder / "more.txt").write_text("--no-index\n--find-links .\nmore\n")
    programs = work / "programs"
    programs.mkdir()
    (programs / "thaw").symlink_to(binary())
    (programs / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return folder


def test_a_day_in_shell(work, day):
    lines = block("sh").splitlines()
    assert len(lines) == 10 and lines[0].startswith("thaw serve &")
    with service(work, "--linger=0") as node:
        script = "\n".join(["set -e", *lines[1:], "grep -q answer bob/environment/lib/*/*/more.py",
                            "! ls venv/lib/*/*/more.py 2>/dev/null"])
        done = subprocess.run(["bash", "-c", script], cwd=day, env={**node.env,
                              "PATH": os.environ["PATH"]}, capture_output=True, text=True,
                              timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (day / "ran").read_text() == f"{day}/alice/environment False\n"
        assert re.search(r"^alice .*until closed", done.stdout, re.M)
        assert re.search(r"^bob .*pid \d+ .*writable", done.stdout, re.M)
        assert "worker" in done.stdout
        wait_until(lambda: not os.listdir(day / "bob"), "bob's view to end with his shell")
        assert not mounts_below(day)


def test_a_day_in_python(work, day):
    code = block("python")
    assert len(code.strip().splitlines()) == 10
    (day / "carol").mkdir()
    with service(work, "--linger=0") as node:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=day,
            env={**environment(**node.env), "PYTHONPATH":
                 str(command.PROJECT / "tools" / "python")},
            capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        place = f"{day}/carol/environment"
        assert (day / "ran").read_text() == f"{place} False\n{place} True\n"
        assert done.stdout.splitlines()[-1] == "['carol']"
        assert not mounts_below(day)
