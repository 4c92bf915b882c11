# SPDX-License-Identifier: Apache-2.0
"""thaw stub: what is in a stub, in every form, and what cannot become one."""
import gzip
import json
import os
import platform
import shutil
import struct
import tarfile
import zipfile

import pytest

from support.command import DAMAGED, IO, REFUSED, USAGE, binary, thaw, thaw_fails
from support.tars import directory, member, symlink, tar

PROGRAMS = ["bin/python", "bin/pip", "bin/python3", "bin/tool"]


def packed(work, name, *members):
    archive = work / f"{name}.tar"
    archive.write_bytes(tar(*members))
    thaw("pack", archive, "-o", work / f"{name}.thaw", "--quiet")
    return work / f"{name}.thaw"


@pytest.fixture
def image(work):
    return packed(
        work, "env", directory(b"bin/"), symlink(b"bin/python", b"python3"),
        member(b"bin/python3", b"#!/bin/sh\n", mode=0o755), member(b"bin/tool", b"x", mode=0o755),
        member(b"bin/activate", b"no program", mode=0o644), symlink(b"bin/pip", b"tool"),
        member(b"lib/data", bytes(100)))


def identity(image):
    return json.loads(thaw("info", "--json", image).out)["identity"]


def launcher(work):
    """An executable that is quickly compressed: as much of one as is looked at."""
    path = work / "launcher"
    header = bytearray(open(binary(), "rb").read(64))
    header[56:58] = bytes(2)  # no program headers, hence static
    path.write_bytes(header + bytes(1000))
    return path


def stub(image, name, *options):
    path = image.parent / name
    if "--launcher" not in options:
        options = [*options, "--launcher", launcher(image.parent)]
    thaw("stub", image, "-o", path, "--quiet", *options)
    return path


def contents(path):
    """{name: (mode, bytes)} of an archive; bytes None of a directory."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return {e.filename.rstrip("/"): (e.external_attr >> 16 & 0o777,
                                             None if e.is_dir() else archive.read(e))
                    for e in archive.infolist()}
    with tarfile.open(path) as archive:
        return {e.name.rstrip("/"): (e.mode, None if e.isdir() else archive.extractfile(e).read())
                for e in archive}


@pytest.mark.parametrize("name", ["e.tar.gz", "e.tgz", "e.zip"])
@pytest.mark.parametrize("embed", [False, True])
def test_archive(work, image, name, embed):
    path = stub(image, name, *["--embed"] * embed)
    found = contents(path)
    image_name = f"thaw/{identity(image)}.thaw"
    expected = {"bin", "thaw", "thaw/launcher", "thaw/stub.json", *PROGRAMS}
    assert set(found) == expected | ({image_name} if embed else set())
    assert {found[p][0] for p in [*PROGRAMS, "thaw/launcher", "bin"]} == {0o755}
    assert len({found[p][1] for p in PROGRAMS}) == 1
    assert found["thaw/launcher"][1] == launcher(work).read_bytes()
    text = json.loads(found["thaw/stub.json"][1])
    assert text == {
        "thaw-stub": 1, "machine": platform.machine(), "search": [], "images": [
            {"identity": identity(image), "name": "env.thaw", "embedded": embed,
             **({} if embed else {"path": str(image)})}]}
    if embed:
        assert found[image_name][1] == image.read_bytes()


def test_programs_of_a_tar_are_one_file(work, image):
    """Blocks on the disk of each executor count."""
    with tarfile.open(stub(image, "e.tar.gz")) as archive:
        links = {e.name: e.linkname for e in archive if e.islnk()}
    assert links == {p: "bin/python" for p in PROGRAMS[1:]}


@pytest.mark.parametrize("name", ["e.tar.gz", "e.zip", "e.pex", "e.thaw"])
@pytest.mark.parametrize("embed", [False, True])
def test_reproducible(work, image, name, embed):
    """Wherever it is made, and whenever; Spark refuses the same name with other bytes."""
    options = ["--embed"] if embed else ["--image-path", "/shared/env.thaw"]
    first = stub(image, name, *options)
    other = work / "other"
    other.mkdir()
    shutil.copy(image, other / "env.thaw")
    os.utime(other / "env.thaw", (1, 1))
    second = stub(other / "env.thaw", name, *options)
    assert first.read_bytes() == second.read_bytes()
    changed = stub(image, "changed" + first.name[1:], *options, "--search", "/elsewhere")
    assert changed.read_bytes() != first.read_bytes()


def test_gzip_header_tells_nothing(work, image):
    header = stub(image, "e.tar.gz").read_bytes()[:10]
    assert header[:4] == b"\x1f\x8b\x08\0" and header[4:8] == bytes(4)


def test_embedded_image_is_not_compressed_again(work):
    noise = packed(work, "noise", directory(b"bin/"), member(b"bin/python", os.urandom(3 << 20), mode=0o755))
    small, large = stub(noise, "a.tar.gz"), stub(noise, "b.tar.gz", "--embed")
    assert large.stat().st_size - small.stat().st_size < 1.001 * noise.stat().st_size + 4096
    assert gzip.decompress(large.read_bytes())


def test_executable(work, image):
    path = stub(image, "e.pex")
    assert os.access(path, os.X_OK)
    data, program = path.read_bytes(), launcher(work).read_bytes()
    assert data.startswith(program)
    magic, size, zero = struct.unpack("<8sQQ", data[-24:])
    assert (magic, zero) == (b"THAWSTUB", 0)
    text = json.loads(data[-24 - size:-24])
    assert len(data) == len(program) + size + 24
    assert text["images"][0]["path"] == str(image)


def test_executable_image_is_an_image(work, image):
    path = stub(image, "e.thaw", "--embed")
    data = path.read_bytes()
    assert data.endswith(image.read_bytes()) and os.access(path, os.X_OK)
    assert thaw("ls", path).out == thaw("ls", image).out
    assert identity(path) == identity(image)
    thaw("verify", "--quiet", path)
    # A stub of it has the image alone.
    again = contents(stub(path, "again.tar.gz", "--embed"))
    assert again[f"thaw/{identity(image)}.thaw"][1] == image.read_bytes()


def test_packed_as_executable(work, image):
    """thaw pack --executable makes at once what thaw stub --embed makes of an image."""
    (work / "at-once").mkdir()
    path = work / "at-once" / "env.thaw"
    report = json.loads(thaw("pack", "--executable", "--json", work / "env.tar", "-o", path).out)
    thaw("stub", "--embed", image, "-o", work / "e.thaw", "--quiet")
    assert path.read_bytes() == (work / "e.thaw").read_bytes() and os.access(path, os.X_OK)
    assert report["identity"] == identity(path) == identity(image)
    assert report["launcher_size"] + report["image_size"] == path.stat().st_size
    shown = json.loads(thaw("info", "--json", path).out)
    assert shown["executable"] and shown["image_start"] == report["launcher_size"]
    assert "no plain .tar.zst" in thaw("info", path).text
    assert not json.loads(thaw("info", "--json", image).out)["executable"]
    # Any name will do, and an image that is there is not replaced unasked.
    thaw_fails(REFUSED, "exists already", "pack", "--executable", work / "env.tar", "-o", path)
    named = work / "at-once" / "environment"
    text = thaw("pack", "--executable", work / "env.tar", "-o", named).text
    assert "launcher" in text and thaw("ls", named).out == thaw("ls", image).out
    assert sorted(os.listdir(path.parent)) == ["env.thaw", "environment"]


def test_nothing_to_execute(work):
    (work / "plain.tar").write_bytes(tar(directory(b"lib/"), member(b"lib/x", b"x")))
    thaw_fails(REFUSED, "plain.thaw: has no bin/python", "pack", "--executable", work / "plain.tar",
               "-o", work / "plain.thaw")
    assert os.listdir(work) == ["plain.tar"]


def test_stub_is_no_launcher_for_another(work, image):
    """What follows a launcher in a stub is not carried on."""
    path = stub(image, "e.pex", "--embed")
    again = contents(stub(image, "again.tar.gz", "--launcher", path))
    assert again["thaw/launcher"][1] == launcher(work).read_bytes()


def test_layers(work, image):
    extra = packed(work, "extra", directory(b"bin/"), member(b"bin/more", b"x", mode=0o755),
                   member(b"bin/tool", b"y", mode=0o755))
    found = contents(stub(image, "e.tar.gz", "--layer", extra))
    assert {name for name in found if name.startswith("bin/")} == {*PROGRAMS, "bin/more"}
    images = json.loads(found["thaw/stub.json"][1])["images"]
    assert [i["name"] for i in images] == ["env.thaw", "extra.thaw"]
    thaw_fails(REFUSED, "one image", "stub", image, "--layer", extra, "--embed", "-o", work / "e.pex")


def test_report(work, image):
    """And without options, the launcher is this very thaw."""
    result = thaw("stub", image, "-o", work / "e.tar.gz", "--json")
    report = json.loads(result.out)
    with open(binary(), "rb") as stream:
        own = stream.read()
    assert contents(work / "e.tar.gz")["thaw/launcher"][1] == own
    assert report["launcher_size"] == len(own)
    assert report["identity"] == identity(image) and report["programs"] == len(PROGRAMS)
    assert report["size"] == (work / "e.tar.gz").stat().st_size
    assert report["form"] == "tar.gz" and report["machine"] == platform.machine()
    text = thaw("stub", image, "-o", work / "e.zip", "--launcher", launcher(work)).text
    assert identity(image) in text and "4 programs" in text


def test_links(work):
    view = work / "view"
    for name in ("bin", "lib"):
        (view / name).mkdir(parents=True)
    (view / "pyvenv.cfg").touch()
    path = work / "l.tar.gz"
    thaw("stub", "--link", view, "-o", path, "--quiet")
    with tarfile.open(path) as archive:
        assert {e.name: e.linkname for e in archive} == {
            name: f"{view}/{name}" for name in ("bin", "lib", "pyvenv.cfg")}
    thaw_fails(REFUSED, "links need a .tar.gz", "stub", "--link", view, "-o", work / "l.zip")
    (work / "none").mkdir()
    thaw_fails(REFUSED, "empty", "stub", "--link", work / "none", "-o", work / "n.tar.gz")
    thaw_fails(IO, "nowhere", "stub", "--link", work / "nowhere", "-o", work / "n.tar.gz")


def test_existing_stub_stays(work, image):
    path = work / "e.tar.gz"
    path.write_text("mine")
    thaw_fails(REFUSED, "exists already", "stub", image, "-o", path)
    assert path.read_text() == "mine"
    stub(image, "e.tar.gz", "--force")
    assert contents(path)


def test_what_is_no_environment(work, image):
    plain = packed(work, "plain", directory(b"lib/"), member(b"lib/x", b"x"))
    for name in ("e.tar.gz", "e.pex"):
        thaw_fails(REFUSED, "plain.thaw: has no bin/python", "stub", plain, "-o", work / name)
    for name in ("e.tar", "e.jar", "e"):
        thaw_fails(REFUSED, "a stub is called", "stub", image, "-o", work / name)
    (work / "bad.thaw").write_bytes(image.read_bytes()[:-1])
    thaw_fails(DAMAGED, "bad.thaw: ", "stub", work / "bad.thaw", "-o", work / "e.zip")
    thaw_fails(REFUSED, "env.tar: is no executable", "stub", image, "--launcher", work / "env.tar",
               "-o", work / "e.zip")
    assert not list(work.glob("e.*z*")) and not (work / "e.pex").exists()


def test_launcher_for_another_machine(work, image):
    """Said in the stub, which then says it where it is started."""
    other = bytearray(launcher(work).read_bytes())
    other[18:20] = struct.pack("<H", 243)
    (work / "riscv").write_bytes(other)
    found = contents(stub(image, "e.zip", "--launcher", work / "riscv"))
    assert json.loads(found["thaw/stub.json"][1])["machine"] == "riscv64"
    assert b"riscv64" in found["bin/python"][1]


def test_usage(work, image):
    for options, word in [
            ([image], "-o is needed"), (["-o", work / "e.zip"], "one image"),
            ([image, image, "-o", work / "e.zip"], "one image"),
            ([image, "--search", "here", "-o", work / "e.zip"], "absolute"),
            ([image, "--image-path", "here", "-o", work / "e.zip"], "absolute"),
            ([image, "--link", "/", "-o", work / "e.tar.gz"], "no image")]:
        thaw_fails(USAGE, word, "stub", *options)
    thaw("launch", code=125)
