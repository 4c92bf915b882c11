# SPDX-License-Identifier: Apache-2.0
"""Real Spark in tests: servers on the loopback that end, and clients in a process of their own."""
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import uuid

import pytest

from . import command
from .mounts import mount_table, processes, wait_until

sys.path.insert(0, str(command.PROJECT / "tests" / "fixtures"))

import others  # noqa: E402
import sparks  # noqa: E402

START_TIMEOUT = 90
CLIENT_TIMEOUT = 120

# What every client begins with: a session, and helpers that print for the test.
PRELUDE = """
import faulthandler, json, os, sys, warnings
warnings.simplefilter("ignore")
faulthandler.dump_traceback_later(%d)
from pyspark.sql import SparkSession
from pyspark.sql.functions import col, lit, pandas_udf, udf, udtf
import pandas as pd
from pyspark.errors import PySparkException
REMOTE, WORK = sys.argv[1:3]
def connect():
    return SparkSession.builder.remote(REMOTE).create()
def use(spark, path, python="environment/bin/python", alias="environment"):
    spark.addArtifact(f"{path}#{alias}" if alias else str(path), archive=bool(alias), file=not alias)
    spark.conf.set("spark.sql.execution.pyspark.python", python)
def tell(**what):
    print("TELL " + json.dumps(what), flush=True)
def places(spark, rows=2):
    # Prefix, executable, directory, pid and daemon's pid, of a task each.
    @udf("string")
    def where(x):
        import json, os, sys
        return json.dumps([sys.prefix, sys.executable, os.getcwd(), os.getpid(), os.getppid()])
    return [json.loads(r[0]) for r in spark.range(0, rows, 1, rows).select(where("id")).collect()]
""" % (CLIENT_TIMEOUT - 10)


def require_java():
    if not shutil.which("java"):
        pytest.skip("no java")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def log(text):
    print(text, file=sys.stderr)


class Traces:
    """What Spark and its views leave: found by a variable that all their processes have."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.marker = uuid.uuid4().hex
        # Apart from other tests and users of this machine, and short: sockets lie in it.
        self.runtime = self.directory / "run"
        self.state = self.directory / "state"
        self.spark_local = self.directory / "local"
        for path in (self.runtime, self.state, self.spark_local):
            path.mkdir(exist_ok=True, mode=0o755)

    def home(self, spark):
        """SPARK_HOME: executors of a local cluster write into it, so it is the test's own."""
        home = self.directory / "spark"
        if not home.exists():
            home.mkdir()
            for entry in spark.home.iterdir():
                if entry.name != "work":
                    (home / entry.name).symlink_to(entry)
        return home

    def environment(self, spark):
        env = command.environment()
        for name in list(env):
            if name.startswith(("SPARK_", "PYSPARK_")) or name == "PYTHONPATH":
                del env[name]
        env.update({
            command.MARKER: self.marker, "THAW_RUNTIME_DIR": str(self.runtime),
            "THAW_STATE_DIR": str(self.state), "SPARK_HOME": str(self.home(spark)),
            "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_LOCAL_DIRS": str(self.spark_local),
            "SPARK_WORKER_DIR": str(self.directory / "worker"),
            "PYSPARK_PYTHON": str(spark.python), "PYSPARK_DRIVER_PYTHON": str(spark.python),
            "PYTHONDONTWRITEBYTECODE": "1",
        })
        return env

    def live(self, word=""):
        return {pid: line for pid, line in processes(self.marker).items() if word in line}

    def keepers(self):
        """Whatever of thaw's own is alive."""
        return {pid: line for pid, line in self.live().items() if re.search(r"launch |thaw", line)
                and "java" not in line.split()[0]}

    def daemons(self):
        return self.live("-m pyspark.daemon")

    def end(self):
        for pid in self.live():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_nothing(self):
        wait_until(lambda: not self.live(), "every process of Spark and thaw to end")
        assert self.mounts() == []

    def files(self):
        """What views keep while they are there. Locks stay: removing one would make two."""
        return [path for path in self.runtime.rglob("*")
                if not path.is_dir() and path.name != "lock"]

    def mounts(self):
        return [m.path for m in mount_table() if m.path.startswith(os.fsencode(self.directory))]


CONFIGURATION = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.memory": "700m",
    "spark.sql.shuffle.partitions": "2",
    "spark.executor.memory": "512m",
}


def options(configuration):
    return [word for name, value in configuration.items() for word in ("--conf", f"{name}={value}")]


class Server:
    """A Spark Connect server. Its client runs in a process of its own for each script."""

    def __init__(self, spark, master, directory, prefix=(), **configuration):
        self.spark, self.traces = spark, Traces(directory)
        self.directory = pathlib.Path(directory)
        self.log_path = self.directory / "server.log"
        self.port = free_port()
        self.clients = 0
        settings = {
            **CONFIGURATION, "spark.connect.grpc.binding.address": "127.0.0.1",
            "spark.connect.grpc.binding.port": self.port,
            **{name.replace("_", "."): value for name, value in configuration.items()}}
        with open(self.log_path, "wb") as stream:
            self.process = subprocess.Popen(
                [*prefix, spark.home / "bin" / "spark-submit", "--master", master,
                 *options(settings), "--class",
                 "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"],
                env=self.traces.environment(spark), cwd=self.directory,
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
        try:
            wait_until(self._answers, "Spark Connect to start", START_TIMEOUT)
        except BaseException:
            self.stop()
            raise

    def _answers(self):
        assert self.process.poll() is None, f"Spark ended: {self.log[-3000:]}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def client(self, script, *arguments, code=0, timeout=CLIENT_TIMEOUT):
        """Run a client; what it tells, as one dictionary. The rest is in `output`."""
        return self.start_client(script, *arguments).finish(code, timeout)

    def start_client(self, script, *arguments, other=None):
        """other: (version, path) of another Python for it, as of others.other_python()."""
        self.clients += 1
        path = self.directory / f"client{self.clients}.py"
        # Not by exit(): PySpark's sessions may hang when the interpreter collects them.
        path.write_text(f"{PRELUDE}{script}\nsys.stdout.flush()\nos._exit(0)\n")
        return Client(self, path, arguments, other)

    def executors(self):
        return self.traces.live("CoarseGrainedExecutorBackend")

    def stop(self):
        """As an administrator would; then nothing may be left."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
        left = []
        try:
            self.traces.wait_nothing()
        except AssertionError:
            left = list(self.traces.live().values())
        self.traces.end()
        self.process.wait(10)
        assert not left, f"left when Spark had ended: {left}"


class Client:
    def __init__(self, server, path, arguments, other):
        self.path = path
        env, python = server.traces.environment(server.spark), server.spark.python
        if other:
            version, python = other
            env["PYTHONPATH"] = others.client_path(version, server.spark, log)
        self.process = subprocess.Popen(
            [python, "-B", path, f"sc://127.0.0.1:{server.port}", server.directory,
             *map(str, arguments)],
            env=env, cwd=server.directory,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(self, code=0, timeout=CLIENT_TIMEOUT):
        try:
            out, err = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            out, err = self.process.communicate()
            raise AssertionError(f"not done after {timeout} s: {out}{err}") from None
        told = {"output": out + err}
        for line in out.splitlines():
            if line.startswith("TELL "):
                told.update(json.loads(line[5:]))
        assert code is None or self.process.returncode == code, told["output"][-6000:]
        return told


@contextlib.contextmanager
def server(kind, master, directory, prefix=(), **configuration):
    running = Server(sparks.get(kind, log), master, directory, prefix, **configuration)
    try:
        yield running
    except BaseException:
        print(f"--- {running.log_path}\n{running.log[-8000:]}")
        raise
    finally:
        running.stop()


def submit(spark, traces, application, *words, master, prefix=(), code=0, timeout=CLIENT_TIMEOUT,
           **variables):
    """spark-submit an application; returns what it printed."""
    env = traces.environment(spark)
    for name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
        env.pop(name)
    env.update(variables)
    result = command.run(
        *prefix, spark.home / "bin" / "spark-submit", "--master", master,
        *options(CONFIGURATION), *words, application, code=None, timeout=timeout,
        cwd=traces.directory, env=env)
    assert code is None or result.code == code, repr(result)[-6000:]
    return result
