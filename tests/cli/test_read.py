# SPDX-License-Identifier: Apache-2.0
"""thaw ls, cat, info, verify: looking into an image without mounting it."""
import hashlib
import json
import os
import pty
import random
import re
import struct

import pytest

from support import images
from support.command import DAMAGED, IO, thaw, thaw_fails
from support.tars import directory, hardlink, member, symlink, tar

MEMBERS = tar(
    directory(b"bin"), member(b"bin/tool", b"#!/bin/sh\necho hello\n", mode=0o755, mtime=86400),
    directory(b"lib", mtime=2 * 86400), member(b"lib/a.py", b"a = 1\n", mode=0o600),
    member(b"lib/.hidden", b"secret"), directory(b"lib/sub"), member(b"lib/sub/deep", b"d" * 12345),
    symlink(b"lib/link", b"../bin/tool"), symlink(b"loop", b"loop"), symlink(b"out", b"../up"),
    symlink(b"abs", b"/etc/passwd"), symlink(b"todir", b"lib"),
    hardlink(b"again", b"bin/tool"), member(b"empty"), member(b"caf\xe9", b"latin"))


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(MEMBERS)
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


def test_ls(image):
    assert thaw("ls", image).lines == [b"abs", b"again", b"bin", b"caf\xe9", b"empty", b"lib",
                                       b"loop", b"out", b"todir"]
    assert thaw("ls", image, "lib").lines == [b"a.py", b"link", b"sub"]
    assert thaw("ls", image, "/lib/").lines == thaw("ls", image, "./lib").lines
    assert thaw("ls", "-a", image, "lib").lines == [b".", b"..", b".hidden", b"a.py", b"link",
                                                    b"sub"]
    assert thaw("ls", image, "lib/a.py").lines == [b"lib/a.py"]
    assert thaw("ls", image, "todir").lines == [b"a.py", b"link", b"sub"]
    assert thaw("ls", image, b"caf\xe9").out == b"caf\xe9\n"


def test_ls_several(image):
    assert thaw("ls", image, "bin", "empty", "lib/sub").text == (
        "empty\n\nbin:\ntool\n\nlib/sub:\ndeep\n")


def test_ls_recursive(image):
    assert thaw("ls", "-R", image).out == (
        b".:\nabs\nagain\nbin\ncaf\xe9\nempty\nlib\nloop\nout\ntodir\n\n"
        b"./bin:\ntool\n\n./lib:\na.py\nlink\nsub\n\n./lib/sub:\ndeep\n")


def test_ls_long(image):
    text = thaw("ls", "-l", image, "bin", "lib").text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "bin:"
    assert re.fullmatch(r"-rwxr-xr-x 2 root root 21 Jan [12] 1970 tool", lines[1]), lines
    assert lines[3] == "lib:"
    assert re.fullmatch(r"-rw-r--r-- 1 root root 6 (Jan 1 1970|Dec 31 1969) a.py", lines[4]), lines
    assert re.fullmatch(r"lrwxrwxrwx 1 root root 11 .* link -> \.\./bin/tool", lines[5]), lines
    assert re.fullmatch(r"drwxr-xr-x \d+ root root \d+ .* sub", lines[6]), lines


def test_ls_long_lines_up(image):
    """Columns start at the same place in each line."""
    lines = thaw("ls", "-l", image, "lib").text.splitlines()
    assert len({line.index(" root ") for line in lines}) == 1
    assert len({re.search(r"\d{4} |\d\d:\d\d ", line).end() for line in lines}) == 1


def test_ls_json(image):
    found = {e["path"]: e for e in json.loads(thaw("ls", "-R", "--json", image).text)}
    assert len(found) == 15
    tool = found["bin/tool"]
    assert tool == found["again"] | {"path": "bin/tool"}
    assert (tool["type"], tool["mode"], tool["size"], tool["mtime"], tool["nlink"]) == (
        "file", "0755", 21, 86400, 2)
    assert found["lib/link"]["target"] == "../bin/tool"
    assert found["lib"]["type"] == "directory" and "lib/.hidden" in found
    odd = next(e for e in found.values() if e["path"].startswith("caf"))
    assert bytes.fromhex(odd["path_hex"]) == b"caf\xe9"
    assert json.loads(thaw("ls", "--json", image, "lib/sub").text)[0]["path"] == "lib/sub/deep"


def test_ls_of_what_is_missing(image):
    result = thaw_fails(IO, "no such file", "ls", image, "nothing")
    assert result.err.startswith(f"thaw: {image}: nothing: ".encode())
    # The rest is listed all the same, as ls does.
    assert thaw_fails(IO, "nothing", "ls", image, "nothing", "bin").out.endswith(b"tool\n")
    thaw_fails(IO, "not a directory", "ls", image, "empty/x")
    thaw_fails(IO, "", "ls", image, "x" * 5000)


def test_ls_escapes_on_a_terminal(work):
    (work / "x.tar").write_bytes(tar(member(b"a\x1b[31mb"), member(b"new\nline")))
    thaw("pack", work / "x.tar", "--quiet")
    leader, follower = pty.openpty()
    try:
        thaw("ls", work / "x.thaw", stdout=follower)
        shown = os.read(leader, 4096)
    finally:
        os.close(leader)
        os.close(follower)
    assert b"\x1b" not in shown and b"\\x1b" in shown
    # Byte-exact in a pipe.
    assert thaw("ls", work / "x.thaw").out == b"a\x1b[31mb\nnew\nline\n"


def test_cat(image):
    tool = b"#!/bin/sh\necho hello\n"
    assert thaw("cat", image, "bin/tool").out == tool
    assert thaw("cat", image, "again", "lib/a.py", "empty", "/bin/tool").out == (
        tool + b"a = 1\n" + tool)
    assert thaw("cat", image, "lib/link").out == tool
    assert thaw("cat", image, "todir/sub/deep").out == b"d" * 12345
    assert thaw("cat", image, b"caf\xe9").out == b"latin"


@pytest.mark.parametrize("path, word", [
    ("nothing", "no such"), ("bin", "directory"), ("loop", "symbolic links|loop"),
    ("out", "out"), ("abs", "out"), ("../x", "out"), ("bin/tool/x", "not a directory"),
    ("", "directory|no such")])
def test_cat_failures(image, path, word):
    assert thaw_fails(IO, word, "cat", image, path).out == b""


def test_cat_goes_on_after_a_failure(image):
    result = thaw_fails(IO, "nothing", "cat", image, "nothing", "lib/a.py")
    assert result.out == b"a = 1\n"


def test_info_json(image):
    info = json.loads(thaw("info", "--json", image).text)
    parsed = images.load(image)
    assert info["identity"] == parsed.identity.hex()
    assert info["stream_digest"] == hashlib.sha256(MEMBERS).hexdigest()
    assert info["index_digest"] == parsed.index_part.digest.hex()
    assert info["image_size"] == image.stat().st_size
    assert info["stream_size"] == len(MEMBERS)
    assert info["frames"] == parsed.frame_count()
    assert (info["files"], info["directories"], info["symlinks"], info["hardlinks"]) == (
        6, 4, 5, 1)


def test_info(image):
    text = thaw("info", image).text
    parsed = images.load(image)
    for word in (parsed.identity.hex(), hashlib.sha256(MEMBERS).hexdigest(),
                 parsed.index_part.digest.hex()):
        assert word in text
    assert all(len(line) <= 100 for line in text.splitlines())


def distribution(name, version):
    folder = f"lib/python3.11/site-packages/{name}-{version}.dist-info"
    return member(f"{folder}/METADATA".encode(),
                  f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n".encode())


def test_info_lists_packages(work):
    (work / "x.tar").write_bytes(tar(distribution("numpy", "1.26.4"), distribution("pip", "24.0"),
                                     member(b"bin/python3.11", b"\x7fELF", mode=0o755)))
    thaw("pack", work / "x.tar", "--quiet")
    text = thaw("info", work / "x.thaw").text
    assert re.search(r"numpy\s+1\.26\.4", text) and re.search(r"pip\s+24\.0", text)
    assert "3.11" in text
    info = json.loads(thaw("info", "--json", work / "x.thaw").text)
    assert {(p["name"], p["version"]) for p in info["packages"]} == {
        ("numpy", "1.26.4"), ("pip", "24.0")}


def test_image_behind_other_bytes(work, image):
    (work / "x").write_bytes(b"#!/bin/sh\nexit 0\n" + os.urandom(10_001) + image.read_bytes())
    plain = json.loads(thaw("info", "--json", image).text)
    other = json.loads(thaw("info", "--json", work / "x").text)
    assert other["identity"] == plain["identity"]
    thaw("verify", work / "x")
    assert thaw("cat", work / "x", "lib/a.py").out == b"a = 1\n"
    assert thaw("diff", image, work / "x").out == b""
    thaw("extract", work / "x", work / "out")
    assert (work / "out" / "lib" / "a.py").read_text() == "a = 1\n"


def test_verify(image):
    result = thaw("verify", image)
    assert result.err == b"" and result.out != b""
    found = json.loads(thaw("verify", "--json", image).text)
    assert isinstance(found, dict) and found["ok"] is True


def test_verify_names_the_damaged_file_and_frame(work):
    generator = random.Random(5)
    (work / "x.tar").write_bytes(tar(*(member(b"f%d" % i, generator.randbytes(9000))
                                       for i in range(5))))
    thaw("pack", work / "x.tar", "--quiet", "--frame-size=4K")
    parsed = images.load(work / "x.thaw")
    number = parsed.frames_of(b"f3")[1]
    data = bytearray((work / "x.thaw").read_bytes())
    data[parsed.frame(number).file + 50] ^= 1
    (work / "x.thaw").write_bytes(data)
    result = thaw("verify", work / "x.thaw", code=DAMAGED)
    text = result.err.decode()
    assert all(line.startswith(f"thaw: {work / 'x.thaw'}: ") for line in text.splitlines())
    assert "f3" in text and re.search(rf"frame {number}\b", text)
    assert not re.search(r"f[0124]\b", text)
    found = json.loads(thaw("verify", "--json", work / "x.thaw", code=DAMAGED).text)
    assert found["ok"] is False and found["bad_frames"] == 1
    # Others can be read, this one cannot, and says where.
    assert len(thaw("cat", work / "x.thaw", "f0").out) == 9000
    failed = thaw("cat", work / "x.thaw", "f3", code=None)
    assert failed.code in (DAMAGED, IO)
    assert b"f3" in failed.err and f"frame {number}".encode() in failed.err


def test_verify_notices_an_index_that_is_not_the_streams(image, work):
    """Digests are right, but the index says something else of the tar."""
    parsed = images.load(image)
    number = parsed.find(b"lib/a.py")
    parsed.set_inode(number, mtime=parsed.inode(number).mtime + 1)
    (work / "lie.thaw").write_bytes(parsed.build())
    thaw("info", work / "lie.thaw")
    assert thaw("verify", work / "lie.thaw", code=None).code == DAMAGED


def test_verify_notices_a_wrong_stream_digest(image, work):
    parsed = images.load(image)
    struct.pack_into("<32s", parsed.index, 16, b"\1" * 32)
    (work / "lie.thaw").write_bytes(parsed.build())
    assert thaw("verify", work / "lie.thaw", code=None).code == DAMAGED
