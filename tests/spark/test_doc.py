# SPDX-License-Identifier: Apache-2.0
"""The first example of doc/spark.md, command by command; and what else it claims."""
import os
import pathlib
import re

import pytest

from support import command
from support.command import binary, run
from support.spark import Traces, log, sparks
from support.warm import fixtures

pytestmark = pytest.mark.fuse

TEXT = (command.PROJECT / "doc" / "spark.md").read_text()


def blocks(heading, language="sh"):
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def test_from_nothing(work):
    """
    All commands of the section, as they are. Only what the first block installs is
    taken from the fixtures: the same packages, the same packer.
    """
    install, once, program = blocks("From nothing to a function that runs")
    spark, packed = sparks.get("spark4", log), fixtures.get("venv")
    assert "venv-pack --prefix packed --output packed.tar.gz" in install
    pinned = dict(line.split(";")[0].strip().split("==") for line in (
        command.PROJECT / "tests/fixtures/requirements/spark4.txt").read_text().splitlines()
        if "==" in line)
    for name, version in re.findall(r"(\S+)==(\S+)", install):
        assert pinned[name] == version, f"{name}: not what is tested"
    (work / "spark").symlink_to(spark.path)
    (work / "packed.tar.gz").symlink_to(packed.archive)
    traces = Traces(work)
    env = traces.environment(spark)
    # As a newcomer has it: none of Spark's variables.
    for name in ("SPARK_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON", "SPARK_LOCAL_DIRS"):
        env.pop(name)
    env["SPARK_TESTING"] = "1"  # a free port instead of 15002
    env["PATH"] = f"{pathlib.Path(binary()).parent}:{os.environ['PATH']}"
    run("sh", "-euc", once, cwd=work, env=env, timeout=120)
    try:
        result = run("sh", "-euc", program, cwd=work, env=env, timeout=150)
        place = re.search(r"scikit-learn [\d.]+ in ([^\s|]+)", result.text)
        assert place and re.fullmatch(r".*/view/[0-9a-f]{16}", place[1])
        traces.wait_nothing()
    finally:
        traces.end()


def test_every_option_is_one():
    """What the page has behind `thaw stub` and so on is known to these commands."""
    commands = re.findall(r"`?thaw ([a-z]+)((?: [^`\n|<]*)?)", TEXT)
    for name, words in commands:
        help_text = run(binary(), name, "--help", code=None)
        assert help_text.code == 0, name
        for option in re.findall(r"--[a-z-]+", words.partition(" -- ")[0]):
            assert option in help_text.text, f"thaw {name} has no {option}"


def test_links_lead_somewhere():
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
             for heading in re.findall(r"^## (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= slugs
