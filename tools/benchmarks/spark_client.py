# SPDX-License-Identifier: Apache-2.0
"""
The client of a Spark Connect server, as tools/bench spark runs it: with Spark's own
Python. Prints one line of JSON: seconds from addArtifact to the first result, and
those of each of several sessions at once.

    spark_client.py REMOTE WORKLOAD HOW ARTIFACT PYTHON SESSIONS
"""

import json
import os
import sys
import threading
import time
import warnings

warnings.simplefilter("ignore")

from pyspark.sql import SparkSession  # noqa: E402
from pyspark.sql.functions import udf  # noqa: E402

remote, workload, how, artifact, python, sessions = sys.argv[1:]


def connect():
    return SparkSession.builder.remote(remote).create()


def use(session):
    if how == "archive":
        session.addArtifact(artifact + "#environment", archive=True)
    elif how == "file":
        session.addArtifact(artifact, file=True)
    session.conf.set("spark.sql.execution.pyspark.python", python)


def function(code):
    @udf("string")
    def run(x):
        import sys
        exec(code, {})
        return sys.prefix
    return run


def one(session, code, rows):
    """A task on each executor: their cores are one each."""
    data = session.range(0, rows, 1, rows).select(function(code)("id"))
    return [row[0] for row in data.collect()]


def first(session):
    start = time.monotonic()
    use(session)
    one(session, workload, 2)
    return time.monotonic() - start


def at_once(count):
    seconds, threads = [], []
    for session in [connect() for _ in range(count)]:
        threads.append(threading.Thread(target=lambda s=session: seconds.append(first(s))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) != count:
        sys.exit("a session failed")
    return seconds


# What the server does for the first time is no row's: a function by its own Python.
warmed = connect()
one(warmed, "pass", 2)
if sessions == "0":
    print(json.dumps({"first": first(connect())}))
else:
    print(json.dumps({"sessions": at_once(int(sessions))}))
# Not by exit(): PySpark's sessions may hang when the interpreter collects them.
sys.stdout.flush()
os._exit(0)
