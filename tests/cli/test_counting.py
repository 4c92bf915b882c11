# SPDX-License-Identifier: Apache-2.0
"""tools/test counts: no failure may pass for something else."""
import json
import os
import sys

import pytest

from support import command

sys.path.insert(0, str(command.PROJECT / "tools" / "scripts"))

import run_tests  # noqa: E402

FAILED = '<failure message="x"/>'
ERROR = '<error message="teardown"/>'
SKIPPED = '<skipped message="{}"/>'


def case(body="", classname="cli.test_x", name="test"):
    return f'<testcase classname="{classname}" name="{name}">{body}</testcase>'


def counted(work, *cases, excuses=()):
    report = work / "report.xml"
    report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    part = run_tests.Part("part")
    part.count(report, excuses)
    return part.passed, len(part.failed), len(part.skipped)


@pytest.mark.parametrize("cases, expected", [
    ([case()], (1, 0, 0)),
    ([case(), case(FAILED)], (1, 1, 0)),
    ([case(ERROR)], (0, 1, 0)),
    ([case(FAILED + ERROR)], (0, 1, 0)),
    ([case(SKIPPED.format("slow"))], (0, 0, 1)),
    ([case(SKIPPED.format("no fuse"), "mount.test_x")], (0, 1, 0)),
    ([case(SKIPPED.format("no fuse"), "mount.test_x.TestClass")], (0, 1, 0)),
])
def test_cases(work, cases, expected):
    assert counted(work, *cases) == expected


def test_program_that_ends_badly_after_its_last_case(work):
    """meson's JUnit report has the cases of such a program as good ones."""
    log = work / "log.json"
    log.write_text("".join(json.dumps(program) + "\n" for program in (
        {"name": "unit / a", "result": "OK", "returncode": 0},
        {"name": "unit / b", "result": "ERROR", "returncode": 1},
        {"name": "unit / c", "result": "FAIL", "returncode": 1},
        {"name": "unit / d", "result": "SKIP", "returncode": 77},
        {"name": "unit / e", "result": "TIMEOUT", "returncode": -15},
    )))
    part = run_tests.Part("part")
    part.failed = ["thaw.unit / c::case"]
    part.count_programs(log)
    assert part.failed == ["thaw.unit / c::case", "unit / b: ERROR, exit status 1",
                           "unit / e: TIMEOUT, exit status -15"]


@pytest.mark.parametrize("text", [None, "{"])
def test_log_that_is_not_there_is_a_failure(work, text):
    log = work / "log.json"
    if text is not None:
        log.write_text(text)
    part = run_tests.Part("part")
    part.count_programs(log)
    assert len(part.failed) == 1


def test_mounts_may_be_skipped_where_nothing_can_be_mounted(work):
    assert counted(work, case(SKIPPED.format("no fuse"), "mount.test_x"),
                   excuses=None) == (0, 0, 1)


def test_skipped_mounts_need_an_excuse(work):
    skipped = case(SKIPPED.format("needs root&#10;and more"), "mount.test_x")
    assert counted(work, skipped, excuses=["root"]) == (0, 0, 1)
    assert counted(work, skipped, excuses=["namespace"]) == (0, 1, 0)
    assert counted(work, skipped, excuses=[]) == (0, 1, 0)


@pytest.mark.parametrize("fuse, user, capable, namespaces, expected", [
    (False, 0, True, True, None),
    (True, 0, False, True, None),
    (True, 0, True, True, []),
    (True, 0, True, False, ["private mount namespace"]),
    (True, 1000, False, True, ["root"]),
])
def test_excuses(monkeypatch, fuse, user, capable, namespaces, expected):
    def open_device(path, _flags):
        assert path == "/dev/fuse"
        if not fuse:
            raise PermissionError
        return os.dup(0)

    class Result:
        returncode = 0 if namespaces else 1

    status = f"Name:\tpython3\nCapEff:\t{(1 << 21) * capable:016x}\n"
    monkeypatch.setattr(os, "open", open_device)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(run_tests.Path, "read_text", lambda *_, **__: status)
    monkeypatch.setattr(run_tests.shutil, "which", lambda _: "/usr/bin/fusermount3")
    monkeypatch.setattr(run_tests.subprocess, "run", lambda *_, **__: Result)
    excuses = run_tests.find_excuses()
    monkeypatch.undo()
    if expected is not None:
        expected = [*run_tests.BESIDE_MOUNTS, *expected]
    assert excuses == expected


@pytest.mark.parametrize("text", [None, "", "<testsuite><testcase"])
def test_report_that_is_not_there_is_a_failure(work, text):
    report = work / "report.xml"
    if text is not None:
        report.write_text(text)
    part = run_tests.Part("part")
    part.count(report, ())
    assert (part.passed, len(part.failed)) == (0, 1)


@pytest.mark.parametrize("code, passed, failed, expected", [
    (0, 3, [], 0),
    (1, 3, ["one"], 1),
    (1, 3, [], 1),
    (-11, 3, [], 1),
    (0, 0, [], 1),
])
def test_exit_status_that_the_counts_do_not_explain(code, passed, failed, expected):
    part = run_tests.Part("part")
    part.passed, part.failed = passed, list(failed)
    run_tests._distrust(part, code)
    assert len(part.failed) == expected


@pytest.mark.parametrize("passed, failed, skipped, line, code", [
    (3, 0, 0, "3 passed, 0 failed", 0),
    (3, 1, 0, "3 passed, 1 failed", 1),
    (3, 0, 2, "3 passed, 0 failed", 0),
    (0, 0, 2, "0 passed, 0 failed", 1),
])
def test_last_line(capsys, passed, failed, skipped, line, code):
    part = run_tests.Part("part")
    part.passed, part.failed, part.skipped = passed, ["f"] * failed, ["s"] * skipped
    assert run_tests.summary([part]) == code
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == line
    assert (f"{skipped} skipped" in out) == bool(skipped)


def test_lanes(work, capfd):
    """Each list in order; what the others print comes whole, after the first."""
    def job(name):
        def run(output):
            part = run_tests.Part(name, output)
            run_tests._run(part, [sys.executable, "-c", f"print('said by {name}')"])
            return part
        return run

    parts = run_tests.run_lanes([[job("a"), job("b")], [job("c"), job("d")], []], work)
    assert [part.name for part in parts] == ["a", "b", "c", "d"]
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("said")]
    assert said == [f"said by {name}" for name in "abcd"]


def test_a_lane_that_breaks_is_no_success(work, monkeypatch):
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with pytest.raises(RuntimeError, match="list 1"):
        run_tests.run_lanes([[], [lambda output: 1 / 0]], work)
