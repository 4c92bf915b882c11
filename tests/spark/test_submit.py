# SPDX-License-Identifier: Apache-2.0
"""spark-submit: environments as static archives, Spark 3.5 too, standalone, containers."""
import json
import shutil
import subprocess
import sys

import pytest

from support.command import run, thaw
from support.mounts import wait_until
from support.spark import Traces, free_port, log, sparks, submit

pytestmark = pytest.mark.fuse

APPLICATION = """
import json, os, sys
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf, udf
import pandas as pd
spark = SparkSession.builder.getOrCreate()
@udf("string")
def where(x):
    import sklearn
    return json.dumps([sys.prefix, os.getcwd(), sklearn.__file__])
@pandas_udf("double")
def vector(v: pd.Series) -> pd.Series:
    return v * 2.0
rows = spark.range(0, 4, 1, 4)
print("TELL " + json.dumps({
    "places": [json.loads(r[0]) for r in rows.select(where("id")).collect()],
    "vector": [r[0] for r in rows.select(vector(rows.id.cast("double"))).collect()],
    "driver": sys.prefix, "words": sys.argv[1:]}), flush=True)
spark.stop()
"""


def told(result):
    return next(json.loads(line[5:]) for line in result.text.splitlines() if line.startswith("TELL "))


def check(found):
    assert found["vector"] == [0.0, 2.0, 4.0, 6.0]
    prefixes = {place[0] for place in found["places"]}
    assert len(prefixes) == 1 and "/run/view/" in prefixes.pop()
    assert all("/site-packages/sklearn/" in place[2] for place in found["places"])


@pytest.fixture
def traces(work):
    made = Traces(work)
    yield made
    try:
        made.wait_nothing()
    finally:
        made.end()


@pytest.fixture
def application(work):
    path = work / "application.py"
    path.write_text(APPLICATION)
    return path


@pytest.mark.parametrize("kind, form", [
    ("spark4", "environment.tar.gz"),
    # A further 400 MB to fetch where nothing is cached yet.
    pytest.param("spark3", "environment.tar.gz", marks=pytest.mark.heavy),
    # Spark 3.5 loses the execute bits of a .zip.
    pytest.param("spark4", "environment.zip", marks=pytest.mark.heavy)])
def test_archives(traces, application, stubs, kind, form):
    """
    --archives STUB#environment. The driver has its own Python, of the same minor
    version, as in any such cluster.
    """
    spark = sparks.get(kind, log)
    result = submit(spark, traces, application, "--archives", f"{stubs(form)}#environment",
                    master="local-cluster[2,1,512]", PYSPARK_DRIVER_PYTHON=str(spark.python),
                    PYSPARK_PYTHON="environment/bin/python")
    check(told(result))


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["spark4", "spark3"])
def test_unknown_extension(traces, application, stubs, kind):
    """What Spark cannot unpack becomes one file, which is the interpreter."""
    spark = sparks.get(kind, log)
    result = submit(spark, traces, application, "--archives",
                    f"{stubs('environment.pex')}#environment",
                    master="local-cluster[2,1,512]", PYSPARK_DRIVER_PYTHON=str(spark.python),
                    PYSPARK_PYTHON="./environment")
    check(told(result))


@pytest.mark.heavy
def test_executable_image_by_files(traces, application, stubs):
    """--files: launcher and image in one file, in the executor's working directory."""
    spark = sparks.get("spark4", log)
    result = submit(spark, traces, application, "--files", stubs("embedded.thaw", "--embed"),
                    master="local-cluster[2,1,512]", PYSPARK_DRIVER_PYTHON=str(spark.python),
                    PYSPARK_PYTHON="./embedded.thaw")
    check(told(result))


class Standalone:
    """A master and a worker, as an administrator starts them."""

    def __init__(self, spark, traces):
        self.port, env = free_port(), traces.environment(spark)
        env.pop("PYSPARK_PYTHON"), env.pop("PYSPARK_DRIVER_PYTHON")
        self.url = f"spark://127.0.0.1:{self.port}"
        self.processes = []
        for words in (
                ["org.apache.spark.deploy.master.Master", "--host", "127.0.0.1", "--port", self.port,
                 "--webui-port", free_port()],
                ["org.apache.spark.deploy.worker.Worker", "--host", "127.0.0.1", "--cores", 2,
                 "--memory", "1g", "--webui-port", free_port(), self.url]):
            with open(traces.directory / f"{len(self.processes)}.log", "wb") as stream:
                self.processes.append(subprocess.Popen(
                    [spark.home / "bin" / "spark-class", *map(str, words)], env=env,
                    cwd=traces.directory, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream))
        wait_until(lambda: "Successfully registered" in (traces.directory / "1.log").read_text(),
                   "the worker to register", 90)

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(30)


@pytest.fixture
def standalone(traces):
    made = Standalone(sparks.get("spark4", log), traces)
    yield made
    made.stop()


@pytest.mark.heavy
def test_standalone(traces, application, stubs, standalone):
    spark = sparks.get("spark4", log)
    result = submit(spark, traces, application, "--archives",
                    f"{stubs('environment.tar.gz')}#environment", master=standalone.url,
                    PYSPARK_DRIVER_PYTHON=str(spark.python),
                    PYSPARK_PYTHON="environment/bin/python")
    check(told(result))


@pytest.mark.heavy
def test_application_with_its_own_pyspark(traces, application, standalone, scientific, stubs, work):
    """
    As in a container: the driver's pyspark is in the image, its data beside it, and
    a cluster elsewhere. SPARK_HOME is nobody's but the image's.
    """
    spark = sparks.get("spark4", log)
    tree = work / "layer"
    site = tree / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    for name in ("pyspark", "py4j"):
        run("cp", "-al", spark.home.parent / name, site)
    thaw("pack", tree, "-o", work / "pyspark.thaw", "--quiet", "--level=1", timeout=170)
    shutil.rmtree(tree)
    (work / "data.csv").write_text("a,b\n1,2\n3,4\n")
    application.write_text(APPLICATION.replace(
        "rows = ", "assert '/run/view/' in os.environ.get('SPARK_HOME', __import__('pyspark').__file__)\n"
        "assert spark.read.csv('data.csv', header=True).count() == 2\nrows = "))
    env = traces.environment(spark)
    for name in ("SPARK_HOME", "PYSPARK_DRIVER_PYTHON"):
        env.pop(name)
    env["PYSPARK_PYTHON"] = "environment/bin/python"
    env["PYSPARK_SUBMIT_ARGS"] = " ".join([
        "--master", standalone.url, "--conf", "spark.ui.enabled=false", "--conf",
        "spark.driver.memory=512m", "--conf", "spark.executor.memory=512m", "--conf",
        "spark.driver.host=127.0.0.1", "--archives", f"{stubs('environment.tar.gz')}#environment",
        "pyspark-shell"])
    result = thaw("run", "--layer", work / "pyspark.thaw", scientific, "--", "python", application, "one",
                  env=env, cwd=work, timeout=150)
    found = told(result)
    check(found)
    assert found["words"] == ["one"]


@pytest.mark.heavy
def test_without_fuse(traces, application, stubs, private_namespace):
    """A container without /dev/fuse: the image is extracted once, within Spark's patience."""
    spark = sparks.get("spark4", log)
    result = submit(
        spark, traces, application, "--archives", f"{stubs('environment.tar.gz')}#environment",
        master="local-cluster[1,1,512]", prefix=[
            *private_namespace, "sh", "-c", 'mount --bind /dev/null /dev/fuse; exec "$@"', "sh"],
        PYSPARK_DRIVER_PYTHON=str(spark.python), PYSPARK_PYTHON="environment/bin/python")
    found = told(result)
    assert found["vector"] == [0.0, 2.0, 4.0, 6.0]
    assert len(list((traces.state / "extracted").glob("[!.]*"))) == 1
