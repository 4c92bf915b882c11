# SPDX-License-Identifier: Apache-2.0
"""thaw doctor: what it says, wherever it runs."""
import json
import os
import re

import pytest

from support.command import IO, OK, USAGE, environment, thaw, thaw_fails
from support.mounts import ordinary_user

WAYS = ["shared", "private", "extracted"]
# Whether mounting works here is for tests/mount to say.
ANY = None


@pytest.fixture
def places(work):
    """Run-time and state directories of the test's own."""
    for name in ("run", "state"):
        (work / name).mkdir(mode=0o700)
    return {"THAW_RUNTIME_DIR": str(work / "run"), "THAW_STATE_DIR": str(work / "state")}


def doctor(env, code=ANY, **options):
    result = thaw("doctor", "--json", env=environment(**env), code=code, **options)
    assert result.err == b""
    report = json.loads(result.out)
    assert set(report) == {"way", "ways", "findings"}
    assert list(report["ways"]) == WAYS
    # The first that works is chosen, and the exit code says whether there is one.
    working = [way for way in WAYS if report["ways"][way]["works"]]
    assert report["way"] == (working + ["none"])[0]
    assert result.code == (OK if working else IO)
    for way in report["ways"].values():
        assert way["works"] == ("why" not in way)
    for finding in report["findings"]:
        assert finding["state"] in ("ok", "warn", "missing")
        assert finding["what"] and finding["why"]
        # What is not in order has a remedy, and only that.
        assert bool(finding.get("remedy")) == (finding["state"] != "ok"), finding
    return report


def finding(report, what):
    found = [f for f in report["findings"] if f["what"] == what]
    assert len(found) == 1, (what, report)
    return found[0]


def test_json_and_text_say_the_same(places):
    report = doctor(places)
    text = thaw("doctor", env=environment(**places), code=ANY).text.splitlines()
    assert text[0] == f"auto chooses: {report['way']}"
    assert [line.split()[0] for line in text[1:4]] == WAYS
    assert text[4] == ""
    assert len(text) == 5 + len(report["findings"])
    for line, expected in zip(text[5:], report["findings"]):
        match = re.fullmatch(r"(ok|warn|missing) +(.{19}) ?(.*?)(?: → (.*))?", line)
        assert match, line
        assert match[1] == expected["state"] and match[2].rstrip() == expected["what"]
        assert match[4] == expected.get("remedy")
    assert {"kernel", "device", "fuse", "fusermount3", "fuse.conf", "user namespaces", "cgroup",
            "run-time directory", "state directory", "node service",
            "executable"} <= {f["what"] for f in report["findings"]}


def test_places(places, work):
    report = doctor(places, code=OK)
    assert finding(report, "run-time directory")["why"] == f"{work}/run ($THAW_RUNTIME_DIR)"
    assert finding(report, "state directory")["why"] == f"{work}/state ($THAW_STATE_DIR)"
    # What was tried is gone.
    assert os.listdir(work / "state") == os.listdir(work / "run") == []


def test_places_that_cannot_be_used(places, work):
    (work / "state").chmod(0o777)
    report = doctor(places)
    assert not report["ways"]["extracted"]["works"]
    assert "not a directory of our own" in report["ways"]["extracted"]["why"]
    assert finding(report, "state directory")["state"] == "missing"
    places["THAW_RUNTIME_DIR"] = str(work / "missing" / "run")
    report = doctor(places)
    assert finding(report, "run-time directory")["state"] == "missing"
    assert "No such file" in finding(report, "run-time directory")["why"]


def test_state_without_a_home(places, work):
    """On a read-only root the state lies in the run-time directory, and that is said."""
    user = ordinary_user() if os.geteuid() == 0 else None
    if user:
        os.chown(work / "run", user.pw_uid, user.pw_gid)
    elif os.geteuid() == 0:
        pytest.skip("no ordinary user")
    del places["THAW_STATE_DIR"]
    places.update(HOME="/proc", XDG_STATE_HOME="")
    state = finding(doctor(places, code=OK, user=user), "state directory")
    assert state["state"] == "warn"
    assert state["why"].startswith(f"{work}/run/state, which ends with the boot (\"/proc/.local")


def test_no_service(places, work):
    service = finding(doctor(places), "node service")
    assert service["state"] == "warn" and f"{work}/run/socket" in service["why"]


def test_usage():
    thaw_fails(USAGE, "no argument", "doctor", "x")
    assert thaw("doctor", "--help").text.startswith("Usage: thaw doctor ")
