# SPDX-License-Identifier: Apache-2.0
"""The SparkPlugin: views that the node service holds, by a session's own settings."""
import json
import os
import shutil
import signal

import pytest

from support import command
from support.command import binary, run, start, thaw
from support.mounts import mount_at, wait_until
from support.spark import server
from support.warm import image

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
    assert len({jar.read_bytes() for jar in built}) == 1


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


def views(traces):
    env = {**os.environ, "THAW_RUNTIME_DIR": str(traces.runtime), "THAW_STATE_DIR": str(traces.state)}
    return json.loads(thaw("ps", "--json", env=env).out)["views"]


def test_views_by_session_setting(built, work):
    small = image("small", work)
    (work / "views").mkdir()
    with server("spark4", "local-cluster[1,1,512]", work, spark_plugins="io.thaw.spark.ThawPlugin",
                spark_executor_extraClassPath=built[0], spark_driver_extraClassPath=built[0],
                spark_thaw_command=binary(), spark_thaw_lease=30) as running:
        env = running.traces.environment(running.spark)
        service = start("serve", "--linger=0", env=env)
        try:
            wait_until(lambda: (running.traces.runtime / "socket").exists(), "the node service")
            told = running.client(SESSIONS, small, work / "views" / "alice")
            assert {place[0] for place in told["first"]} == {str(work / "views" / "alice")}
            # Sessions that ask for nothing have the server's Python.
            assert {place[0] for place in told["plain"]} == {str(running.spark.path)}
            assert "alice2/bin/python" in told["error"]
            assert [view["directory"] for view in views(running.traces)] == \
                [str(work / "views" / "alice")]
            # At the executor's end the view is closed, once nothing is in it.
            executor, = running.executors()
            os.kill(executor, signal.SIGTERM)
            wait_until(lambda: executor not in running.executors(), "the executor to end")
            wait_until(lambda: not mount_at(work / "views" / "alice"), "the view to end", 60)
        finally:
            service.terminate()
            service.wait(30)
