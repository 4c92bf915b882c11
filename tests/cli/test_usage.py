# SPDX-License-Identifier: Apache-2.0
"""Help, versions, options: what every command does alike."""
import os
import re
import signal
import subprocess

import pytest

from support.command import IO, USAGE, binary, environment, thaw, thaw_fails
from support.tars import member, tar

COMMANDS = ["pack", "warm", "run", "mount", "umount", "stat", "ls", "cat", "info", "diff", "verify",
            "extract", "report", "open", "close"]
# These do something without any argument.
MORE = ["ps", "images", "gc", "serve", "stub", "doctor"]
# As in podman: 2 could be the command's own.
RUN_USAGE = 125


def check_help(result):
    assert result.err == b""
    lines = result.text.splitlines()
    assert lines[0].startswith("Usage: thaw ")
    assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []
    assert not any("\t" in line for line in lines)


def test_overview():
    result = thaw("--help")
    check_help(result)
    assert thaw("help").out == thaw("help", "--help").out == result.out
    listed = re.search(r"Commands:\n((?:  .*\n)+)", result.text)[1]
    listed = [line.split()[0] for line in listed.splitlines()]
    assert set(COMMANDS) < set(listed)
    for command in listed:
        if command != "help":
            check_help(thaw(command, "--help"))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    result = thaw(command, "--help")
    check_help(result)
    assert result.text.startswith(f"Usage: thaw {command} ")
    assert "--help" in result.text
    assert thaw("help", command).out == result.out


@pytest.mark.parametrize("command, options", [
    ("pack", "output level frame-size threads max-bytes max-entries max-ratio links force quiet "
             "json"),
    ("ls", "long recursive all json"), ("info", "json"), ("verify", "json"),
    ("extract", "threads"), ("diff", "json"),
    ("mount", "foreground threads cache-size"), ("umount", "lazy"),
    ("serve", "socket metrics linger grace"), ("close", "force socket json"),
    ("open", "writable scratch-size layer lease label shared warm user socket json"),
    ("ps", "watch socket json"), ("images", "socket json"), ("gc", "dry-run days socket json")])
def test_help_names_every_option(command, options):
    text = thaw(command, "--help").text
    assert [o for o in options.split() if f"--{o}" not in text] == []


def test_version():
    assert re.fullmatch(r"thaw \d+\.\d+\S*\n", thaw("--version").text)


@pytest.mark.parametrize("arguments, word", [
    ([], "command"), (["nonsense"], "nonsense"), (["help", "nonsense"], "nonsense"),
    (["--nonsense"], "--nonsense"), (["-x"], "-x"), (["help", "ls", "cat"], "one")])
def test_wrong_command(arguments, word):
    result = thaw_fails(USAGE, re.escape(word), *arguments)
    assert result.out == b""


@pytest.mark.parametrize("command", COMMANDS + MORE)
def test_wrong_options(command):
    usage = RUN_USAGE if command == "run" else USAGE
    for arguments in (["--nonsense"], ["-%"], ["--nonsense=1"]):
        result = thaw_fails(usage, re.escape(arguments[0].split("=")[0]), command, *arguments)
        assert result.out == b""
        assert result.err.startswith(f"thaw: {command}: ".encode())
    if command not in MORE:
        thaw_fails(usage, "", command)


@pytest.mark.parametrize("arguments", [
    "pack --level=0", "pack --threads=1025", "verify --threads=0", "extract --threads=x",
    "mount --threads= ", "mount --hang-limit=86401", "mount --cache-size=0", "serve --linger=-1",
    "serve --grace=1.5", "gc --days=36501", "open --scratch-size=x", "open --lease=pid:0",
    "open --label=x", "open --user=1:", "run --scratch-size=0", "run --mode=sideways",
    "warm --name=/ ", "extract --prefix=x", "stub --search=x", "pack --python-version=2.7"])
def test_every_command_refuses_a_value_in_the_same_words(work, arguments):
    command, option = arguments.split()
    name, value = option.split("=")
    result = thaw_fails(RUN_USAGE if command == "run" else USAGE, "", command, option, work / "a",
                        work / "b", cwd=work)
    assert result.err.startswith(f"thaw: {command}: {name}: '{value}' is not ".encode())


@pytest.mark.parametrize("command, option, most", [("open", "--layer", 8), ("stub", "--layer", 63),
                                                   ("stub", "--search", 64)])
def test_lists_have_an_end(command, option, most):
    thaw_fails(USAGE, f"{option}: more than", command, *[f"{option}=/x"] * (most + 1))
    result = thaw_fails(USAGE, "needed", command, *[f"{option}=/x"] * most)
    assert b"more than" not in result.err


def test_the_letter_of_an_option_and_its_name_are_one(image):
    assert thaw("ls", "-lR", image).out == thaw("ls", image, "--long", "--rec").out
    assert thaw("ls", "-1", image).out == b"f\n"
    thaw_fails(USAGE, "'--output' needs a value", "report", image, "--output")
    thaw_fails(USAGE, "'-o' needs a value", "report", image, "-o")


@pytest.mark.parametrize("option", [
    "--level=0", "--level=100", "--level=x", "--level=", "--frame-size=1", "--frame-size=1G",
    "--frame-size=12q", "--threads=-1", "--threads=x", "--max-bytes=0", "--max-bytes=-5",
    "--max-bytes=99999999999999999999", "--max-bytes=20000000T", "--max-entries=x",
    "--max-ratio=1.5", "--links=sometimes"])
def test_values_out_of_range(work, option):
    (work / "x.tar").write_bytes(tar(member(b"f")))
    result = thaw_fails(USAGE, re.escape(option.split("=")[0].lstrip("-")), "pack",
                        work / "x.tar", option)
    assert result.out == b""
    assert not (work / "x.thaw").exists()


@pytest.mark.parametrize("size", ["1M", "1m", "1048576", "1024K", "1MiB"])
def test_sizes(work, size):
    (work / "x.tar").write_bytes(tar(member(b"f", bytes((1 << 20) - 3 * 512 - 1))))
    assert (work / "x.tar").stat().st_size == 1 << 20
    thaw("pack", work / "x.tar", "--quiet", f"--max-bytes={size}")


def test_options_may_follow_arguments(work):
    (work / "x.tar").write_bytes(tar(member(b"f", b"1")))
    thaw("pack", work / "x.tar", "--quiet", "-o", work / "a.thaw")
    assert thaw("ls", work / "a.thaw", "-a").lines == [b".", b"..", b"f"]
    # Behind "--" nothing is an option.
    thaw_fails(IO, "--json", "ls", work / "a.thaw", "--", "--json")


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(tar(member(b"f", b"1" * 100000)))
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["info"], ["info", "--json"],
                                     ["cat"], ["verify"], ["verify", "--json"]])
def test_full_output_is_an_error(image, command):
    more = ["f"] if command == ["cat"] else []
    with open("/dev/full", "wb") as full:
        thaw_fails(IO, "no space", *command, image, *more, stdout=full)


@pytest.mark.parametrize("command", [["ls"], ["info"], ["cat"], ["--help"], ["help", "ls"]])
def test_closed_pipe_ends_like_other_tools(image, command):
    """By the signal, without a word: who ends `thaw ls IMAGE | head` has not failed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    arguments = [] if "help" in command[0] else [image]
    more = ["f"] if command == ["cat"] else []
    try:
        ended = subprocess.run([binary(), *command, *arguments, *more], stdout=write_end,
                               stderr=subprocess.PIPE, env=environment())
    finally:
        os.close(write_end)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors(work, image, closed):
    """An image or a directory that got descriptor 1 would have messages written into it."""
    script = f'"$1" pack "$2" -o "$3" --force {closed}; "$1" verify "$3" {closed}; true'
    subprocess.run(["sh", "-c", script, "sh", binary(), work / "x.tar", work / "y.thaw"],
                   env=environment(), timeout=60, check=True, capture_output=True)
    assert (work / "y.thaw").read_bytes() == image.read_bytes()


@pytest.mark.parametrize("command", ["ls", "info", "verify", "extract", "cat", "diff"])
def test_images_that_cannot_be_opened(work, command):
    more = {"extract": [work / "out"], "cat": ["f"], "diff": [work / "missing"]}.get(command, [])
    (work / "text").write_bytes(b"no image\n" * 100)
    (work / "empty").write_bytes(b"")
    thaw_fails(IO, "missing: .*no such file", command, work / "missing", *more)
    thaw_fails(IO, "directory|regular", command, work, *more)
    thaw_fails(4, "text: .*image", command, work / "text", *more)
    thaw_fails(4, "empty: .*image", command, work / "empty", *more)
    assert not (work / "out").exists()


def test_names_of_files_are_escaped_in_messages(work):
    result = thaw_fails(IO, r"\\x1b|\\033", "info", work / "a\x1b[31mb")
    assert b"\x1b" not in result.err
