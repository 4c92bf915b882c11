# SPDX-License-Identifier: Apache-2.0
"""Sessions that differ, and sessions that change: on one server, which goes on running."""
import json
import os
import pathlib
import re
import signal
import sys

import pytest

from support import command
from support.command import thaw
from support.mounts import mount_at, wait_until
from support.service import service
from support.spark import CLIENT_TIMEOUT, others

pytestmark = pytest.mark.fuse

TEXT = (command.PROJECT / "doc" / "spark.md").read_text()

# versions(spark): what Python and pandas tasks of a session have, whose executor they are
# of, and their daemon.
VERSIONS = """
import time
def versions(spark, rows=4):
    @udf("string")
    def which(x):
        import json, os, sys, time
        import pandas
        time.sleep(0.5)  # so that every executor gets some
        executor = open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1]
        return json.dumps([".".join(map(str, sys.version_info[:2])), pandas.__version__,
                           int(executor), os.getppid(), sys.prefix])
    return [json.loads(r[0]) for r in spark.range(0, rows, 1, rows).select(which("id")).collect()]
def say(name, what):
    with open(name + ".part", "w") as stream:
        json.dump(what, stream)
    os.rename(name + ".part", name)
"""

AT_ONCE = VERSIONS + """
spark = connect()
stub, meeting, name = sys.argv[3:]
use(spark, stub)
before = versions(spark)
say(os.path.join(meeting, name), before)
while not os.path.exists(os.path.join(meeting, "go")):
    time.sleep(0.05)
tell(before=before, after=versions(spark))
spark.stop()
"""


def base_python():
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def test_two_pythons_and_two_pandas_at_once(cluster, stubs, other, work):
    """Two sessions, each with a client of its own Python, on the same executors."""
    second = others.other_python()
    if second is None:
        pytest.skip("this machine has no second Python that Spark runs with")
    thaw("stub", other(*second), "-o", work / "environment.tar.gz", "--quiet")
    clients = {
        others.OWN: cluster.start_client(
            AT_ONCE, stubs("environment.tar.gz"), work, others.OWN),
        second[0]: cluster.start_client(
            AT_ONCE, work / "environment.tar.gz", work, second[0], other=second)}
    try:
        wait_until(lambda: all((work / name).exists() or client.process.poll() is not None
                               for name, client in clients.items()),
                   "both sessions to have run", CLIENT_TIMEOUT)
        alive = set(cluster.traces.daemons())
    finally:
        (work / "go").touch()
    told = {name: client.finish() for name, client in clients.items()}
    pandas = {others.OWN: "2.3.3", second[0]: "2.2.3"}
    executors, daemons = {}, {}
    for name, found in told.items():
        for rows in (found["before"], found["after"]):
            assert {(row[0], row[1]) for row in rows} == {(name, pandas[name])}
        executors[name] = {row[2] for row in found["before"]}
        daemons[name] = {row[3] for row in found["before"]}
        # The same interpreters, which were alive while the other session's were.
        assert {row[3] for row in found["after"]} <= daemons[name] <= alive
    shared = executors[others.OWN] & executors[second[0]]
    assert shared and shared <= set(cluster.executors()), "no executor had both"
    assert not daemons[others.OWN] & daemons[second[0]]


def section(heading, language):
    text = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


HEADING = "Another environment in a live session"

LIVE = VERSIONS + """
os.chdir(sys.argv[3])
spark = connect()
use(spark, "environment.tar.gz")
results = [versions(spark, 1)]
@udf("string")
def more(x):
    import pandas, further, sklearn
    return f"{further.VALUE} {pandas.__version__}"
for block in sys.argv[4:]:
    exec(block)
    results.append(versions(spark, 1))
tell(more=spark.range(1).select(more("id")).first()[0])
spark.conf.set("spark.sql.execution.pyspark.python", "environment/bin/python")
results.append(versions(spark, 1))
try:
    spark.range(1).select(more("id")).first()
except Exception as error:
    tell(error=str(error))
tell(results=results)
spark.stop()
"""


def test_live_session_changes(cluster, scientific, stubs, other, work):
    """
    The commands of doc/spark.md: a session takes another environment, then one with more
    packages, and goes back. One server, one session, the same function.
    """
    (work / "environment.thaw").symlink_to(scientific)
    (work / "environment.tar.gz").symlink_to(stubs("environment.tar.gz"))
    (work / "other.thaw").symlink_to(other(others.OWN, base_python()))
    site = work / "more" / "lib" / f"python{others.OWN}" / "site-packages"
    site.mkdir(parents=True)
    (site / "further.py").write_text("VALUE = 'further'\n")
    commands = [line for block in section(HEADING, "sh") for line in block.splitlines()]
    installing, *rest = [line for line in commands if not line.startswith("#")]
    assert "pip install --prefix more " in installing  # which the lines above stand for
    env = command.environment(
        PATH=f"{pathlib.Path(command.binary()).parent}:{os.environ['PATH']}")
    for line in rest:
        command.run("sh", "-euc", line, cwd=work, env=env)
    blocks = section(HEADING, "python")
    assert len(blocks) == 2
    server_before = cluster.process.pid, set(cluster.executors())
    told = cluster.client(LIVE, work, *blocks)
    (first,), (switched,), (layered,), (back,) = told["results"]
    assert [row[:2] for row in (first, switched, layered, back)] == [
        [others.OWN, "2.3.3"], [others.OWN, "2.2.3"], [others.OWN, "2.3.3"], [others.OWN, "2.3.3"]]
    # A layered view stands where the environment's own does, for its processes alone.
    assert switched[4] != first[4] and layered[4] == first[4]
    assert len({row[3] for row in (first, switched, layered)}) == 3
    assert told["more"] == "further 2.3.3"
    # It goes back to what it had: nothing of the others is there.
    assert back[4] == first[4] and "No module named 'further'" in told["error"]
    assert server_before == (cluster.process.pid, set(cluster.executors()))


@pytest.mark.root
def test_links_into_a_view_of_the_node(cluster, scientific, work):
    """thaw stub --link: a session uses a view that the node service holds."""
    view = work / "views" / "alice"
    view.parent.mkdir()
    with service(work, "--linger=0") as node:
        node.thaw("open", "alice", scientific, view)
        thaw("stub", "--link", view, "-o", work / "environment.tar.gz", "--quiet")
        assert (work / "environment.tar.gz").stat().st_size < 4096
        told = cluster.client(VERSIONS + """
spark = connect()
use(spark, sys.argv[3])
rows = versions(spark)
@udf("string")
def where(x):
    import pandas
    return os.path.realpath(pandas.__file__)
tell(rows=rows, places=places(spark), where=spark.range(1).select(where("id")).first()[0])
spark.stop()
""", work / "environment.tar.gz")
        assert {(row[0], row[1]) for row in told["rows"]} == {(others.OWN, "2.3.3")}
        assert told["where"].startswith(f"{view}/lib/")
        # The prefix is the link's, in the session's directory; the view is elsewhere.
        assert {place[0] for place in told["places"]} == {
            f"{place[2]}/environment" for place in told["places"]}
        # Daemons outlive sessions: until then the view is theirs.
        daemons = {row[3] for row in told["rows"]} | {place[4] for place in told["places"]}
        for pid in daemons:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not daemons & set(cluster.traces.daemons()), "the daemons to end")
        # The daemons' workers end a little later than they.
        wait_until(lambda: node.thaw("close", "alice", code=None).code == 0, "the view to be free")
        wait_until(lambda: not mount_at(view), "the view to end")


EXECUTABLE = """
spark = connect()
use(spark, sys.argv[3], "./" + os.path.basename(sys.argv[3]), None)
@pandas_udf("long")
def counted(v: pd.Series) -> pd.Series:
    return v + len(pd.__version__)
tell(places=places(spark), counted=[r[0] for r in spark.range(3).select(counted("id")).collect()])
spark.stop()
"""


def test_executable_image(cluster, other):
    """thaw pack --executable: one file, shipped by addArtifact(file=True), as with PEX."""
    image = other(others.OWN, base_python())
    told = cluster.client(EXECUTABLE, image)
    identity = json.loads(thaw("info", "--json", image).out)["identity"]
    assert {pathlib.Path(place[0]).name for place in told["places"]} == {identity[:16]}
    assert told["counted"] == [5, 6, 7]
