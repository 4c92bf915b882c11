# SPDX-License-Identifier: Apache-2.0
"""The SparkPlugin: views that the node service holds, by a session's own settings."""
import os
import shutil
import signal
import zipfile

import pytest

from support import command
from support.command import binary, run
from support.mounts import mount_at, wait_until
from support.service import service
from support.spark import log, server, sparks

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.heavy]

# What the cluster of its users runs, and Spark 3.5 with the other Scala.
AGAINST = [("4.0.0", "2.13"), ("3.5.1", "2.12")]


@pytest.fixture(scope="session")
def built(session_directory):
    if not shutil.which("mvn"):
        pytest.skip("no Maven")
    jars = []
    for spark, scala in AGAINST:
        copy = session_directory / f"plugin-{spark}"
        shutil.copytree(command.PROJECT / "tools" / "spark-plugin", copy,
                        ignore=shutil.ignore_patterns("target"))
        run("mvn", "-q", "-B", "package", f"-Dspark.version={spark}", f"-Dscala.version={scala}",
            cwd=copy, timeout=170)
        jars.append(copy / "target" / "thaw-spark-plugin.jar")
    return jars


def test_one_jar_for_all(built):
    """Whatever it is compiled against: so it runs with either."""
    contents = []
    for jar in built:
        with zipfile.ZipFile(jar) as archive:
            contents.append({name: archive.read(name) for name in archive.namelist()
                             if name.endswith(".class")})
    assert contents[0] == contents[1] and "io/thaw/spark/ThawPlugin.class" in contents[0]


SESSIONS = """
spark = connect()
spark.conf.set("spark.thaw.image", sys.argv[3])
spark.conf.set("spark.thaw.directory", sys.argv[4])
spark.conf.set("spark.sql.execution.pyspark.python", sys.argv[4] + "/bin/python")
tell(first=places(spark))
other = connect()
tell(plain=places(other))
other.conf.set("spark.thaw.image", sys.argv[3] + ".missing")
other.conf.set("spark.thaw.directory", sys.argv[4] + "2")
other.conf.set("spark.sql.execution.pyspark.python", sys.argv[4] + "2/bin/python")
try:
    places(other)
except Exception as error:
    tell(error=str(error))
"""


@pytest.mark.parametrize("kind", ["spark4", "spark3"])
def test_views_by_session_setting(built, scientific, work, kind):
    more = {"spark_jars": sparks.connect_jar(log)} if kind == "spark3" else {}
    view = work / "views" / "alice"
    view.parent.mkdir()
    with service(work, "--linger=0") as node, \
            server(kind, "local-cluster[1,1,512]", work, spark_plugins="io.thaw.spark.ThawPlugin",
                   spark_executor_extraClassPath=built[0], spark_driver_extraClassPath=built[0],
                   spark_thaw_command=binary(), spark_thaw_lease=30, **more) as running:
        told = running.client(SESSIONS, scientific, view)
        assert {place[0] for place in told["first"]} == {str(view)}
        # Sessions that ask for nothing have the server's Python.
        assert {place[0] for place in told["plain"]} == {str(running.spark.path)}
        assert "alice2/bin/python" in told["error"]
        assert [found["directory"] for found in node.views()] == [str(view)]
        assert node.views()[0]["lease"]["kind"] == "ttl"
        # An executor's end is told to nobody: the view's time runs out.
        executor, = running.executors()
        os.kill(executor, signal.SIGKILL)
        wait_until(lambda: not mount_at(view), "the view to end", 60)
