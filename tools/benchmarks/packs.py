# SPDX-License-Identifier: Apache-2.0
"""Every kind of pack at its alias path: first and later imports, and what relocation costs."""

import os
import tarfile
import time

from . import spawn
from .coldstart import Pex, Run
from .material import disk_bytes, fixtures
from .rows import Column, Row, Table, Target

HELP = "imports from a view of each kind of pack, and what relocation costs"
RECORDS, LAYER_FILES = 7000, 300


def add_options(parser):
    """None of its own."""


# -- imports --

class Native(Run):
    """The venv that the others are measured by: unpacked, warm, with its bytecode."""

    def __init__(self, bench, name, label):
        super().__init__(bench, name, label, image=None)

    def check(self):
        self.python = str(fixtures().get("venv", self.material.say).python)

    def cached(self):
        return []

    def command(self, python="python3"):
        return [self.python, "-I", "-c", self.bench.workload]

    def setup(self):
        spawn.run(self.command(), env=self.environment())

    def measure(self, meter):
        first = meter.time(self.command(), env=self.environment())
        values = meter.usage()
        values.update(first=first, total=first, prepare=0.0,
                      second=meter.time(self.command(), env=self.environment()))
        return values


class View(Run):
    """`thaw run` of an image of a pack, indexed with --compile, with a warm set."""

    def __init__(self, bench, name, label, source, warm):
        super().__init__(bench, name, label, self.build,
                         "--warm=all" if warm else "--warm=none")
        self.source, self.is_warm = source, warm

    def build(self):
        source = str(self.source())
        material = self.material
        stem = self.name.split("/")[1].split("-")[0]
        start = "pack-%s-%d-" % (stem, material.level)
        tag = material.thaw_tag()
        image = material.make("%s%s.thaw" % (start, tag), lambda out: spawn.run(
            [material.thaw, "pack", "--quiet", "--compile", "--level", material.level, "-o", out,
             source], timeout=1800))
        if not self.is_warm:
            return image
        return material.make("%swarm-%s.thaw" % (start, tag), lambda out: spawn.run(
            [material.thaw, "warm", image, "-o", out, "--", "python3", "-I", "-c",
             self.bench.workload], timeout=600))


class PexLater(Pex):
    """A start of a PEX that has unpacked itself before."""

    def __init__(self, bench, name, label, of, options=()):
        super().__init__(bench, name, label, options)
        self.file = of + ".pex"

    def setup(self):
        super().setup()
        spawn.run(self.command(self.bench.python), env=self.environment())


def wheels(bench):
    """A directory with the wheels of the environment's packages."""
    def build(out):
        row = Pex(bench, "wheels", "")
        spawn.run([spawn.find("python3"), "-m", "pip", "download", "--quiet", "--no-deps",
                   "--only-binary=:all:", "--dest", out] + row.requirements(), timeout=900)
    return bench.material.make("wheels", build)


def pex(bench):
    row = Pex(bench, "pex", "")
    row.check()
    return row.path


def import_table(bench):
    material = bench.material

    def venv():
        return fixtures().get("venv", material.say).archive
    rows = [Native(bench, "packs/native", "venv, unpacked and warm, with bytecode")]
    for warm, suffix, text in ((True, "", "warm set"), (False, "-on-demand", "on demand")):
        rows += [
            View(bench, "packs/venv" + suffix, "venv-pack in thaw, " + text, venv, warm),
            View(bench, "packs/prefix" + suffix, "prefix with its own Python in thaw, " + text,
                 lambda: material.tar_gz, warm),
            View(bench, "packs/wheels" + suffix, "wheels in thaw, " + text,
                 lambda: wheels(bench), warm),
            View(bench, "packs/pex" + suffix, "PEX in thaw, " + text, lambda: pex(bench), warm),
        ]
    rows += [
        Pex(bench, "pex", "PEX zipapp by itself, first run"),
        PexLater(bench, "pex-later", "PEX zipapp by itself, later run", "pex"),
        Pex(bench, "pex-venv", "PEX `--venv` by itself, first run", ["--venv"]),
        PexLater(bench, "pex-venv-later", "PEX `--venv` by itself, later run", "pex-venv",
                 ["--venv"]),
    ]
    columns = [
        Column("total", "open + first import", "s", ratio="× native"),
        Column("second", "next import", "s", ratio="× native"),
        Column("cpu", "CPU", "s"),
        Column("disk", "on disk", "MB"),
        Column("requests", "FUSE requests", "n"),
    ]
    targets = [Target("%s: next import against the native venv" % kind, "packs/" + kind, "second",
                      1.05, of="packs/native") for kind in ("venv", "prefix", "wheels", "pex")]
    targets += [
        Target("PEX in thaw against PEX, first run", "packs/pex", "total", 0.2, of="pex"),
        Target("PEX in thaw, next import against PEX, later run", "packs/pex", "second", 1.0,
               of="pex-later"),
        Target("PEX in thaw, next import against PEX --venv, later run", "packs/pex", "second",
               1.0, of="pex-venv-later"),
    ]
    return Table("packs", "Imports from a view of each kind of pack", columns, rows,
                 "packs/native", ["workload: `%s`" % bench.workload], targets=targets,
                 chart={"segments": ["total"], "total": "total"})


# -- relocation --

PREFIX = "/opt/conda-bld/place/" + "placehold_" * 20


def write_conda(path, files, records):
    """A conda-pack shaped tar: text files, of which each third holds the prefix."""
    import io  # pylint: disable=import-outside-toplevel

    def member(name, data, mode=0o644):
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), mode, 1700000000
        tar.addfile(info, io.BytesIO(data))
    with tarfile.open(path, "w") as tar:
        named = []
        for number in range(files):
            name = "share/data/file%05d.txt" % number
            text = "line %d\n" % number * 40
            if number % 3 == 0:
                text += "prefix = %s/share\n" % PREFIX
            member(name, text.encode())
            named.append((name, PREFIX, "text"))
        script = "#!/usr/bin/env python\n_prefix_records = %r\n" % (named if records else [])
        member("bin/conda-unpack", script.encode(), 0o755)
        member("conda-meta/history", b"")


class Records(Row):
    """Packing an archive whose conda-unpack lists so many files, or none."""

    def __init__(self, bench, name, label, records):
        super().__init__(name, label)
        self.material, self.records = bench.material, records

    def check(self):
        self.material.thaw_tag()
        self.path = self.material.make(
            "records-%d.tar" % (RECORDS if self.records else 0),
            lambda out: write_conda(out, RECORDS, self.records), folder=self.material.shared)

    def cached(self):
        return [self.path]

    def measure(self, meter):
        return {"seconds": meter.time([self.material.thaw, "pack", "--quiet", "-o",
                                       os.path.join(self.work, "image"), self.path])}


class Layer(Row):
    """A view at a prefix that is new, and at one that has its layer."""

    def __init__(self, bench, name, label):
        super().__init__(name, label)
        self.material = bench.material

    def check(self):
        tag = self.material.thaw_tag()

        def build(out):
            write_conda(out + ".tar", LAYER_FILES * 3, True)
            spawn.run([self.material.thaw, "pack", "--quiet", "-o", out, out + ".tar"])
        self.path = self.material.make("layer-%s.thaw" % tag, build, folder=self.material.shared)

    def cached(self):
        return [self.path]

    def measure(self, meter):
        env = dict(os.environ, THAW_STATE_DIR=os.path.join(self.work, "state"))
        os.mkdir(os.path.join(self.work, "state"))

        def run():
            return meter.time([self.material.thaw, "run", self.path + "#env", "--", "true"],
                              env=env, cwd=self.work)
        first = run()
        time.sleep(0.3)  # the first view ends
        again = run()
        return {"seconds": first, "again": again, "layer": first - again,
                "disk": disk_bytes(os.path.join(self.work, "state"))}


def relocation_table(bench):
    rows = [
        Records(bench, "relocation/plain", "pack %s files, no records" % RECORDS, False),
        Records(bench, "relocation/records", "pack %s files, as many records" % RECORDS, True),
        Layer(bench, "relocation/layer", "open a view: %d files to render" % LAYER_FILES),
    ]
    columns = [Column("seconds", "time", "ms"), Column("again", "once more", "ms"),
               Column("layer", "rendering", "ms"), Column("disk", "on disk", "MB")]
    return Table("relocation", "What relocation costs", columns, rows, "relocation/plain",
                 targets=[Target("packing with 7,000 records", "relocation/records", "seconds",
                                 1.0),
                          Target("rendering a layer of 300 files", "relocation/layer", "layer",
                                 0.1)])


def tables(bench):
    return [import_table(bench), relocation_table(bench)]
