# SPDX-License-Identifier: Apache-2.0
"""Spark Connect with two executors: from addArtifact to the first result of a function."""

import json
import os
import socket
import subprocess
import sys
import time

from . import spawn
from .material import HERE, SOURCE, disk_bytes
from .rows import Column, Row, Skip, Table, Target

HELP = "Spark Connect: the first function of a session, several sessions at once, disk per session"
READY = 120.0
CONFIGURATION = {
    "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1", "spark.connect.grpc.binding.address": "127.0.0.1",
    "spark.executor.memory": "1g", "spark.executorEnv.PEX_INHERIT_PATH": "fallback",
}


def add_options(parser):
    parser.add_argument("--sessions", type=int, default=4, metavar="N",
                        help="sessions at once (%(default)s)")


def installed_spark(say):
    folder = os.path.join(SOURCE, "tests", "fixtures")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import sparks  # pylint: disable=import-outside-toplevel
    return sparks.get("spark4", say)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """A Connect server with two executors of one core each; everything of it lies below work."""

    def __init__(self, spark, work, python):
        self.local, self.port = os.path.join(work, "local"), free_port()
        # Executors of a local cluster write into SPARK_HOME: one of the run's own.
        home = os.path.join(work, "spark")
        os.mkdir(home)
        for name in set(os.listdir(spark.home)) - {"work"}:
            os.symlink(spark.home / name, os.path.join(home, name))
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "LANG")}
        self.environment = dict(
            kept, SPARK_HOME=home, SPARK_LOCAL_IP="127.0.0.1", SPARK_LOCAL_DIRS=self.local,
            PYSPARK_PYTHON=python, PYSPARK_DRIVER_PYTHON=str(spark.python),
            PYTHONDONTWRITEBYTECODE="1", PEX_ROOT=os.path.join(work, "pex"),
            THAW_RUNTIME_DIR=os.path.join(work, "run"), THAW_STATE_DIR=os.path.join(work, "state"))
        for name in ("local", "run", "state"):
            os.mkdir(os.path.join(work, name), 0o755)
        settings = dict(CONFIGURATION, **{"spark.connect.grpc.binding.port": self.port})
        argv = [str(spark.home / "bin" / "spark-submit"), "--master", "local-cluster[2,1,1024]"]
        for name, value in settings.items():
            argv += ["--conf", "%s=%s" % (name, value)]
        self.log = open(os.path.join(work, "server.log"), "wb")
        self.process = subprocess.Popen(
            argv + ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer",
                    "spark-internal"], env=self.environment, cwd=work,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _wait_until_ready(self):
        end = time.monotonic() + READY
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise spawn.Failed("Spark did not start: see its log") from None
                time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class SparkRow(Row):
    """how: "archive", "file" or "none"; python: what the session is told to run."""

    root_only = False
    timeout = 900.0

    def __init__(self, bench, name, label, how, python, make):
        super().__init__(name, label)
        self.bench, self.material = bench, bench.material
        self.how, self.python, self.make = how, python, make
        self.artifact, self.cluster, self.spark = None, None, None

    def check(self):
        self.material.tool("java")
        self.spark = installed_spark(self.bench.say)
        self.artifact = self.make(self.material) if self.make else ""

    def cached(self):
        """What a node that has served such a session before has in its page cache."""
        return [path for path in [self.artifact or self.material.tree, self.image()] if path]

    def image(self):
        return None

    def setup(self):
        self.cluster = Cluster(self.spark, self.work, self.material.tree + "/bin/python3")

    def client(self, meter, sessions):
        """Also read back by the row, so that starting Spark's own Python is nobody's."""
        result = os.path.join(self.work, "result")
        python = self.python or os.path.join(self.material.tree, "bin", "python3")
        meter.time([str(self.spark.python), os.path.join(HERE, "spark_client.py"),
                    "sc://127.0.0.1:%d" % self.cluster.port, self.bench.workload, self.how,
                    self.artifact, python, sessions], env=self.cluster.environment, stdout=result)
        with open(result, encoding="utf-8") as stream:
            return json.load(stream)

    def disk(self):
        return disk_bytes(*[path for name in ("local", "spark", "pex", "state")
                            for path in [os.path.join(self.work, name)] if os.path.exists(path)])

    def measure(self, meter):
        count = self.bench.options.sessions
        before = self.disk()
        values = {"first": self.client(meter, "0")["first"]}
        after = self.disk()
        if count:
            values["slowest"] = max(self.client(meter, str(count))["sessions"])
            values["further"] = max(0, self.disk() - after) / count
        values["one"] = max(0, after - before)
        return values

    def teardown(self):
        if self.cluster:
            self.cluster.stop()
            self.cluster = None


class StubRow(SparkRow):
    """A stub of the image with a warm set for what the function imports."""

    def check(self):
        self.material.thaw_tag()
        super().check()

    def image(self):
        return self.material.warm_image(self.bench.workload)


def stub(*options):
    def make(material, workload):
        image = material.warm_image(workload)
        name = "environment%s-%s.tar.gz" % ("".join(options), os.path.basename(image)[:-5])
        return material.make(name, lambda out: spawn.run(
            [material.thaw, "stub", image, "-o", out, *options]))
    return make


def pex(material):
    """Of the same requirements, as in the table of cold starts."""
    tool = material.tool("pex")
    requirements = os.path.join(SOURCE, "tests", "fixtures", "requirements", "scientific.txt")
    return material.make("spark.pex", lambda out: spawn.run(
        [tool, "-r", requirements, "-o", out, "--python", material.tree + "/bin/python3"],
        timeout=1800))


def tables(bench):
    workload = bench.workload
    rows = [
        SparkRow(bench, "installed", "installed beforehand", "none", None, None),
        SparkRow(bench, "archive", "`archive=True`, `.tar.gz`", "archive", "environment/bin/python3",
                 lambda material: material.tar_gz),
        SparkRow(bench, "pex", "PEX, `file=True`", "file", "./spark.pex", pex),
        StubRow(bench, "stub", "thaw stub", "archive", "environment/bin/python3",
                lambda material: stub()(material, workload)),
        StubRow(bench, "stub-embedded", "thaw stub --embed", "archive", "environment/bin/python3",
                lambda material: stub("--embed")(material, workload)),
    ]
    count = bench.options.sessions
    columns = [
        Column("first", "first result", "s", ratio="× installed"),
        Column("slowest", "slowest of %d sessions at once" % count, "s", ratio="× installed"),
        Column("one", "disk, first session", "MB"),
        Column("further", "disk, each further session", "MB"),
    ]
    return [Table(
        "spark", "Spark Connect, two executors", columns, rows, "installed",
        ["from addArtifact until a function with the imports has returned from both executors; "
         "disk is that of driver and executors together; installed, artifact and image are in the "
         "page cache"],
        chart={"segments": ["first"], "total": "first"},
        targets=[
            Target("first result of a stub", "stub", "first", 1.25, of="installed"),
            Target("%d sessions with stubs against archives" % count, "stub", "slowest", 0.2,
                   of="archive"),
            Target("disk of a further session's launchers, on driver and two executors", "stub",
                   "further", 3 * 8e6)])]
