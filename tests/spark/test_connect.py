# SPDX-License-Identifier: Apache-2.0
"""Spark Connect: environments that come as stubs, on a cluster of two executors."""
import os
import pathlib
import shutil
import signal

import pytest

from support import command
from support.mounts import wait_until
from support.spark import log, server, sparks

pytestmark = pytest.mark.fuse

# All that Python runs on executors, by an environment that brings pandas and pyarrow.
EVERYTHING = """
spark = connect()
use(spark, sys.argv[3], sys.argv[4], sys.argv[5] or None)
import pandas as pd
told = places(spark)
@udf("long")
def plain(x):
    return x + 1
@udf("long", useArrow=True)
def arrow(x):
    return x + 2
@pandas_udf("double")
def vector(v: pd.Series) -> pd.Series:
    import numpy, sklearn
    return v * 2.0
@udtf(returnType="a: bigint, b: string")
class Words:
    def eval(self, x: int):
        for i in range(x):
            yield i, sys.prefix
def whole(batches):
    import pyarrow
    for batch in batches:
        yield batch.assign(id=batch.id * 10)
three = spark.range(3)
tell(places=told,
     plain=[r[0] for r in three.select(plain("id")).collect()],
     arrow=[r[0] for r in three.select(arrow("id")).collect()],
     vector=[r[0] for r in three.select(vector(col("id").cast("double"))).collect()],
     words=[list(r) for r in Words(lit(2)).collect()],
     whole=sorted(r[0] for r in three.mapInPandas(whole, "id long").collect()))
spark.stop()
"""


def check_everything(told, identity):
    assert told["plain"] == [1, 2, 3]
    assert told["arrow"] == [2, 3, 4]
    assert told["vector"] == [0.0, 2.0, 4.0]
    assert told["whole"] == [0, 10, 20]
    prefixes = {place[0] for place in told["places"]}
    # One short place for all sessions of the image, on both executors.
    assert [pathlib.Path(p).name for p in prefixes] == [identity[:16]]
    assert {place[1] for place in told["places"]} <= {
        f"{p}/bin/{name}" for p in prefixes for name in ("python", "python3")}
    assert told["words"] == [[0, *prefixes], [1, *prefixes]]
    return prefixes.pop()


def identity_of(image):
    return image.read_bytes()[-40:-8].hex()


@pytest.mark.parametrize("name, python, alias", [
    ("environment.tar.gz", "environment/bin/python", "environment"),
    ("environment.zip", "environment/bin/python3", "environment"),
    ("environment.pex", "./environment.pex", ""),
])
def test_every_kind_of_function(cluster, scientific, stubs, name, python, alias):
    told = cluster.client(EVERYTHING, stubs(name), python, alias)
    prefix = check_everything(told, identity_of(scientific))
    assert not os.path.exists(os.path.join(prefix, "bin"))  # nobody else sees it


@pytest.fixture
def away(cluster, scientific):
    """The image is on no node. What nodes take over meanwhile is removed again."""
    moved = scientific.with_suffix(".away")
    scientific.rename(moved)
    yield cluster.traces.state / "images"
    moved.rename(scientific)
    shutil.rmtree(cluster.traces.state / "images", ignore_errors=True)


@pytest.mark.parametrize("name, python, alias", [
    ("embedded.tar.gz", "environment/bin/python", "environment"),
    ("embedded.thaw", "./embedded.thaw", ""),
])
def test_embedded(cluster, scientific, stubs, name, python, alias, request):
    """Nodes without the image: the first session's copy becomes the node's."""
    stub, identity = stubs(name, "--embed"), identity_of(scientific)
    images = request.getfixturevalue("away")
    check_everything(cluster.client(EVERYTHING, stub, python, alias), identity)
    assert [path.name for path in images.iterdir()] == [f"{identity}.thaw"]


@pytest.mark.heavy
def test_spark_3(scientific, stubs, work):
    """Connect of Spark 3.5, whose server comes from Maven."""
    if not shutil.which("mvn"):
        pytest.skip("no Maven")
    with server("spark3", "local-cluster[2,1,512]", work, spark_jars=sparks.connect_jar(log)) as running:
        for name, python, alias in [("environment.tar.gz", "environment/bin/python", "environment"),
                                    ("environment.pex", "./environment.pex", "")]:
            told = running.client(EVERYTHING, stubs(name), python, alias)
            check_everything(told, identity_of(scientific))


CELL_TWICE = """
spark = connect()
for i in range(2):
    use(spark, sys.argv[3])
    first = places(spark)
tell(places=first)
other = connect()
use(other, sys.argv[3])
tell(other=places(other))
use(spark, sys.argv[3])
tell(again=places(spark))
"""


def test_cell_twice(cluster, stubs):
    told = cluster.client(CELL_TWICE, stubs("environment.tar.gz"))
    assert len({p[0] for name in ("places", "other", "again") for p in told[name]}) == 1
    # Working directories are the sessions' own.
    assert not {p[2] for p in told["places"]} & {p[2] for p in told["other"]}


CHANGED = """
spark = connect()
use(spark, sys.argv[3])
try:
    use(spark, sys.argv[4])
    tell(refused=False)
except Exception as error:
    tell(refused="ARTIFACT_ALREADY_EXISTS" in str(error))
"""


def test_same_bytes_are_what_makes_a_cell_repeatable(cluster, stubs, work):
    """Spark refuses other bytes under a name: why stubs are reproducible."""
    other = work / "environment.tar.gz"
    shutil.copyfile(stubs("searched.tar.gz", "--search", "/nowhere"), other)
    told = cluster.client(CHANGED, stubs("environment.tar.gz"), other)
    assert told["refused"]


MISSING = """
spark = connect()
use(spark, sys.argv[3])
try:
    places(spark)
except Exception as error:
    tell(error=str(error))
"""


def test_missing_image_is_one_clear_line(cluster, scientific, stubs):
    stub = stubs("elsewhere.tar.gz", "--image-path", "/nowhere/elsewhere.thaw")
    error = cluster.client(MISSING, stub)["error"]
    line = next(line for line in error.splitlines() if "thaw: " in line)
    assert "is not on this node" in line and "/nowhere/elsewhere.thaw" in line
    assert "Error from python worker" in error and "bad data" not in error.lower()


def disk_use(directory):
    """Bytes on the disk; several names of one file are one."""
    sizes = {}
    for path in pathlib.Path(directory).rglob("*"):
        status = path.lstat()
        sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


FOUR = """
import threading
def one(number):
    spark = connect()
    use(spark, sys.argv[3])
    for i in range(3):
        results[number] = places(spark)
    spark.stop()
results = {}
threads = [threading.Thread(target=one, args=(i,)) for i in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
tell(results=[results[i] for i in sorted(results)])
"""


def test_four_sessions_at_once(cluster, stubs):
    results = cluster.client(FOUR, stubs("environment.tar.gz"), timeout=170)["results"]
    assert len(results) == 4
    assert len({place[0] for result in results for place in result}) == 1
    directories = {place[2] for result in results for place in result}
    assert len({path.rpartition("/")[2] for path in directories}) == 4
    # What a further session costs: the launcher, packed and unpacked, and nothing else.
    launcher = os.path.getsize(command.binary())
    for path in directories:
        assert disk_use(path) < 2 * launcher + (1 << 16), os.listdir(path)


EVICTED = """
import time
spark = connect()
use(spark, sys.argv[3])
first, = places(spark, 1)
end = time.monotonic() + 60
while os.path.exists(first[2] + "/environment") and time.monotonic() < end:
    other = connect()
    use(other, sys.argv[3])
    tell(other=places(other, 1)[0][0])
tell(first=first, evicted=not os.path.exists(first[2] + "/environment"))
@udf("string")
def late(x):
    # The worker may stand in a directory that is gone, as with any archive.
    import json, os, sys
    loaded = "sklearn" in sys.modules
    import sklearn.linear_model, scipy.stats
    return json.dumps([sys.prefix, os.getppid(), loaded, sklearn.__file__])
tell(late=json.loads(spark.range(1).select(late("id")).first()[0]))
"""


def test_eviction_harms_neither_the_view_nor_the_next_session(stubs, work):
    """
    The executor keeps one session at a time, and removes the others' directories. A
    session that comes back finds its interpreter, and all that it has not yet
    imported.
    """
    with server("spark4", "local-cluster[1,1,512]", work,
                spark_executor_isolatedSessionCache_size=1) as running:
        told = running.client(EVICTED, stubs("environment.tar.gz"))
    assert told["evicted"], "the session was not evicted: this test shows nothing"
    prefix, daemon, loaded, module = told["late"]
    assert (prefix, daemon) == (told["first"][0], told["first"][4]), "another interpreter"
    assert not loaded and module.startswith(f"{prefix}/lib/")
    assert told["other"] == prefix


def test_killed_executor(cluster, stubs):
    before = cluster.executors()
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    # With the executors go their daemons, and with these the views.
    wait_until(lambda: not set(before) & set(cluster.executors()), "the executors to end")
    wait_until(lambda: len(cluster.executors()) == 2, "new executors", 60)
    told = cluster.client("spark = connect(); use(spark, sys.argv[3]); tell(places=places(spark))",
                          stubs("environment.tar.gz"))
    assert told["places"]


def test_killed_jvm_leaves_nothing(stubs, work):
    """kill -9 of a server with live views: no mount, no process."""
    with server("spark4", "local[2]", work) as running:
        told = running.client("spark = connect(); use(spark, sys.argv[3]); "
                              "tell(places=places(spark))", stubs("environment.tar.gz"))
        pids = {pid for place in told["places"] for pid in place[3:5]}
        assert pids & set(running.traces.live("pyspark.daemon"))
        assert running.traces.keepers()
        jvm, = [pid for pid, line in running.traces.live("SparkConnectServer").items()
                if "java" in line.split()[0]]
        os.kill(jvm, signal.SIGKILL)
        running.traces.wait_nothing()
        assert not running.traces.files()
