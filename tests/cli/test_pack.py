# SPDX-License-Identifier: Apache-2.0
"""thaw pack: every kind of source, the same bytes each time, a report."""
import importlib.util
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile

import pytest

from support import images, tars, trees
from support.command import IO, REFUSED, environment, run, start, thaw, thaw_fails
from support.tars import directory, hardlink, member, pax, symlink, tar

SUFFIXES = ["tar", "tar.gz", "tar.zst", "tar.xz", "tar.bz2"]


def sample(seed=1):
    generator = random.Random(seed)
    return tar(directory(b"env"), member(b"env/bin/tool", b"#!/bin/sh\n", mode=0o755, mtime=9),
               *(member(b"env/lib/%03d.py" % i, trees.content(generator, i * 997), mtime=i)
                 for i in range(60)),
               symlink(b"env/link", b"bin/tool"), hardlink(b"env/again", b"env/bin/tool"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_compression(work, suffix):
    source = work / f"env.{suffix}"
    source.write_bytes(tars.COMPRESSORS[suffix](sample()))
    thaw("pack", source, "--quiet")
    assert (work / "env.thaw").is_file(), "beside the source, suffix replaced"
    assert sorted(p.name for p in work.iterdir()) == sorted([source.name, "env.thaw"])
    run("zstd", "-q", "-t", work / "env.thaw")
    (work / "plain").write_bytes(sample())
    compared = run("sh", "-c", 'zstd -dc "$1" | cmp - "$2"', "sh", work / "env.thaw",
                   work / "plain")
    assert (compared.out, compared.err) == (b"", b"")
    thaw("verify", work / "env.thaw")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_compression_is_recognised_by_content(work, suffix):
    (work / "download").write_bytes(tars.COMPRESSORS[suffix](sample()))
    thaw("pack", work / "download", "-o", work / "x.thaw", "--quiet")
    (work / "wrong.tar.bz2").write_bytes(tars.COMPRESSORS[suffix](sample()))
    thaw("pack", work / "wrong.tar.bz2", "--quiet")
    assert (work / "x.thaw").read_bytes() == (work / "wrong.thaw").read_bytes()


def test_kind_of_source_does_not_change_the_stream(work):
    """However it was compressed, the same frames and records; only the note of it differs."""
    results = set()
    for suffix in SUFFIXES:
        source = work / f"x.{suffix}"
        source.write_bytes(tars.COMPRESSORS[suffix](sample()))
        thaw("pack", source, "-o", work / f"{suffix}.thaw", "--quiet")
        image = images.load(work / f"{suffix}.thaw")
        records = image.sections[images.INODES]
        results.add((image.data[:image.index_part.offset - 8],
                     bytes(image.index[records.offset:records.offset + records.size])))
    assert len(results) == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_standard_input(work, suffix):
    data = tars.COMPRESSORS[suffix](sample())
    thaw("pack", "-", "-o", work / "a.thaw", "--quiet", input=data)
    (work / "b.tar").write_bytes(data)
    thaw("pack", work / "b.tar", "--quiet")
    assert (work / "a.thaw").read_bytes() == (work / "b.thaw").read_bytes()
    thaw_fails(2, "-o", "pack", "-", input=data)


def test_reproducible_whatever_the_threads(work):
    (work / "x.tar").write_bytes(sample())
    made = []
    for number, options in enumerate([[], [], ["--threads=1"], ["--threads=4"], ["--threads=7"]]):
        thaw("pack", work / "x.tar", "-o", work / f"{number}.thaw", "--quiet", "--frame-size=16K",
             *options)
        made.append((work / f"{number}.thaw").read_bytes())
    assert all(data == made[0] for data in made)
    assert images.Image(made[0]).frame_count() > 60


@pytest.mark.parametrize("options", [["--level=1"], ["--level=19"], ["--frame-size=4K"],
                                     ["--frame-size=16M"], ["--frame-size=100000"]])
def test_options_change_the_bytes_and_not_the_tree(work, options):
    (work / "x.tar").write_bytes(sample())
    thaw("pack", work / "x.tar", "--quiet")
    thaw("pack", work / "x.tar", "-o", work / "y.thaw", "--quiet", *options)
    thaw("verify", work / "y.thaw")
    assert (work / "x.thaw").read_bytes() != (work / "y.thaw").read_bytes()
    thaw("diff", work / "x.thaw", work / "y.thaw")
    assert tars.unzstd((work / "y.thaw").read_bytes()) == sample()


def test_frames_are_not_larger_than_asked_for(work):
    (work / "x.tar").write_bytes(sample())
    thaw("pack", work / "x.tar", "--quiet", "--frame-size=64K")
    image = images.load(work / "x.thaw")
    sizes = [image.frame(n).size for n in range(image.frame_count())]
    assert max(sizes) <= 64 << 10 and sum(sizes) == len(sample())


def copy_in_another_order(source, target):
    """The same tree, its names made in another order, with another readdir order."""
    names = sorted((n for n in trees.snapshot(source, contents=False) if n != b"."),
                   key=lambda n: (n.count(b"/"), n[::-1]))
    os.mkdir(target)
    filler = [target + b"/filler%d" % i for i in range(50)]
    for path in filler:
        open(path, "wb").close()
    for name in names:
        if os.path.isdir(source + b"/" + name) and not os.path.islink(source + b"/" + name):
            os.mkdir(target + b"/" + name)
        else:
            shutil.copy2(source + b"/" + name, target + b"/" + name, follow_symlinks=False)
    for path in filler:
        os.unlink(path)
    for name in [*reversed(names), b"."]:
        shutil.copystat(source + b"/" + name, target + b"/" + name, follow_symlinks=False)


def test_directory_is_reproducible(work):
    base = os.fsencode(work)
    trees.random_tree(work / "a", seed=7, entries=60)
    for path, entry in trees.snapshot(work / "a", contents=False).items():
        if entry.nlink > 1:  # a copy would not keep hard links
            os.unlink(base + b"/a/" + path)
    for parent, _, _ in os.walk(base + b"/a", topdown=False):
        os.utime(parent, (5, 5))
    copy_in_another_order(base + b"/a", base + b"/b")
    for name in ("a", "a", "b"):
        thaw("pack", work / name, "--quiet", "--force")
        thaw("verify", work / f"{name}.thaw")
    assert (work / "a.thaw").read_bytes() == (work / "b.thaw").read_bytes()


def test_directory_becomes_a_canonical_tar(work):
    source = work / "env"
    source.mkdir()
    for name in ("b", "a", "c"):
        (source / name).write_text(name)
        os.utime(source / name, ns=(0, 1_500_000_000))
    os.link(source / "c", source / "d")
    (source / "s").symlink_to("a")
    os.utime(source, (7, 7))
    thaw("pack", source, "--quiet")
    (work / "out.tar").write_bytes(tars.unzstd((work / "env.thaw").read_bytes()))
    with tarfile.open(work / "out.tar") as archive:
        found = archive.getmembers()
        names = [m.name.removeprefix("./") for m in found if m.name not in (".", "")]
        assert names == sorted(names) == ["a", "b", "c", "d", "s"]
        assert {(m.uid, m.gid) for m in found} == {(0, 0)}
        assert archive.getmember(found[-2].name).islnk()
    # Standard tools agree.
    assert run("tar", "-tf", work / "out.tar").lines == [m.name.encode() + b"/" * m.isdir()
                                                        for m in found]


def test_directory_refuses_what_an_image_cannot_hold(work):
    (work / "env").mkdir()
    os.mkfifo(work / "env" / "pipe")
    thaw_fails(REFUSED, '"pipe"', "pack", work / "env")
    assert sorted(p.name for p in work.iterdir()) == ["env"]


def test_directory_with_trailing_slash(work):
    (work / "env").mkdir()
    (work / "env" / "f").write_text("1")
    thaw("pack", f"{work}/env/", "--quiet")
    assert (work / "env.thaw").is_file()


def test_output_inside_the_source_directory(work):
    """The image must not pack itself."""
    (work / "env").mkdir()
    (work / "env" / "f").write_text("1")
    result = thaw("pack", work / "env", "-o", work / "env" / "x.thaw", "--quiet", code=None)
    if result.code == 0:
        assert thaw("ls", work / "env" / "x.thaw").lines == [b"f"]
        thaw("verify", work / "env" / "x.thaw")


def test_existing_image_is_refused_without_force(work):
    (work / "x.tar").write_bytes(sample(1))
    (work / "x.thaw").write_bytes(b"precious")
    result = thaw_fails(REFUSED, "exist", "pack", work / "x.tar")
    assert "x.thaw" in result.err.decode()
    assert (work / "x.thaw").read_bytes() == b"precious"
    thaw("pack", work / "x.tar", "--force", "--quiet")
    thaw("verify", work / "x.thaw")


def test_force_keeps_the_old_image_until_the_new_one_is_whole(work):
    (work / "x.tar").write_bytes(sample(1))
    thaw("pack", work / "x.tar", "--quiet")
    before = (work / "x.thaw").read_bytes()
    (work / "x.tar").write_bytes(sample(2)[:-2000])
    thaw_fails(4, "", "pack", work / "x.tar", "--force")
    assert (work / "x.thaw").read_bytes() == before
    assert sorted(p.name for p in work.iterdir()) == ["x.tar", "x.thaw"]


def test_source_that_cannot_be_read(work):
    thaw_fails(IO, "no such", "pack", work / "missing.tar")
    (work / "x.tar").write_bytes(sample())
    thaw_fails(IO, "no such", "pack", work / "x.tar", "-o", work / "missing" / "x.thaw")
    assert sorted(p.name for p in work.iterdir()) == ["x.tar"]


def python_environment():
    """A little environment with an interpreter, valid, stale and missing bytecode."""
    version = "%d.%d" % sys.version_info[:2]
    magic = importlib.util.MAGIC_NUMBER
    tag = "cpython-" + version.replace(".", "")
    code = b"x = 1\n"

    def module(name, source_time, compiled_time):
        lib = f"lib/python{version}"
        yield member(f"{lib}/{name}.py".encode(), code, mtime=source_time)
        if compiled_time is not None:
            header = magic + struct.pack("<III", 0, compiled_time, len(code))
            yield member(f"{lib}/__pycache__/{name}.{tag}.pyc".encode(), header + b"marshal",
                         mtime=compiled_time)

    return version, tar(
        member(f"bin/python{version}".encode(), b"\x7fELF", mode=0o755),
        symlink(b"bin/python3", f"python{version}".encode()),
        member(b"pyvenv.cfg", b"home = /usr/bin\nversion = " + version.encode() + b".4\n"),
        directory(f"lib/python{version}/site-packages".encode()),
        *module("valid", 100, 100), *module("stale", 200, 100), *module("missing", 5, None))


def test_report(work):
    version, data = python_environment()
    (work / "env.tar").write_bytes(data)
    report = json.loads(thaw("pack", work / "env.tar", "--json").text)
    info = json.loads(thaw("info", "--json", work / "env.thaw").text)
    assert report["python"] == version
    assert report["image"] == str(work / "env.thaw")
    assert report["source_kind"] == "tar"
    for key in ("identity", "stream_digest", "index_digest", "image_size", "stream_size",
                "content_size", "frames", "files", "directories", "symlinks", "hardlinks"):
        assert report[key] == info[key], key
    assert report["stream_size"] == len(data)
    shown = thaw("pack", work / "env.tar", "--force").text
    assert version in shown and len(shown.splitlines()) < 20
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert thaw("pack", work / "env.tar", "--force", "--quiet").out == b""


def test_report_counts_bytecode(work):
    _, data = python_environment()
    (work / "env.tar").write_bytes(data)
    report = json.loads(thaw("pack", work / "env.tar", "--json").text)
    assert (report["pyc"]["valid"], report["pyc"]["stale"], report["pyc"]["missing"]) == (1, 1, 1)


def test_report_says_what_was_dropped(work):
    (work / "x.tar").write_bytes(tar(
        pax(SCHILY__xattr__user__x=b"1"), member(b"a"), member(b"b", mode=0o4755),
        member(b"c"), member(b"c")))
    report = json.loads(thaw("pack", work / "x.tar", "--json").text)
    assert report["dropped"] == {"xattrs": 1, "setid": 1}
    assert report["duplicates"] == 1


def test_no_progress_when_not_on_a_terminal(work):
    (work / "x.tar").write_bytes(sample())
    assert thaw("pack", work / "x.tar").err == b""


def test_locale_changes_nothing(work):
    """libarchive would take names for text of the locale, and normalise them."""
    data = tar(member("caf\u00e9".encode()), member(b"caf\xe9"), member("cafe\u0301".encode()))
    (work / "x.tar").write_bytes(data)
    for number, locale in enumerate(("C", "C.UTF-8", "en_US.UTF-8")):
        thaw("pack", work / "x.tar", "-o", work / f"{number}.thaw", "--quiet",
             env=environment(LC_ALL=locale, TZ=("UTC", "Asia/Tokyo", "America/Lima")[number]))
    assert len({(work / f"{n}.thaw").read_bytes() for n in range(3)}) == 1


def test_slow_pipe(work):
    """A source that arrives in small pieces."""
    data = sample()
    process = start("pack", "-", "-o", work / "x.thaw", "--quiet", stdin=subprocess.PIPE)
    try:
        for at in range(0, len(data), 99_991):
            process.stdin.write(data[at:at + 99_991])
            process.stdin.flush()
        process.stdin.close()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    assert tars.unzstd((work / "x.thaw").read_bytes()) == data
