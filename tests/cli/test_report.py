# SPDX-License-Identifier: Apache-2.0
"""thaw report: the page is well-formed, holds what is true, and whatever names there are."""
import html.parser
import json
import os
import pty
import shutil
import struct
import subprocess
import zlib

import pytest

from support.command import DAMAGED, IO, REFUSED, USAGE, environment, thaw, thaw_fails
from support.mounts import mounted
from support.tars import directory, hardlink, member, tar
from support.warm import require_views

VOID = {"meta", "path", "rect", "br", "link", "img", "input", "hr"}
SITE = b"lib/python3.11/site-packages/"
SCRIPT = b"<script>alert(1)<"  # a name cannot hold a slash
QUOTES = b"\"'><img src=x onerror=alert(1)>&amp;"
LATIN = b"caf\xe9"
ALPHA = b"1.0+" + b"local.version" * 4  # as wide as a table may be
MODULE = bytes(range(256)) * 256


def package(name, version, files):
    """Members of a distribution: files {path below site-packages: content}, claimed by RECORD."""
    info = SITE + name + b"-" + version + b".dist-info/"
    lines = b"".join(b'"%s",sha256=x,1\n' % path.replace(b'"', b'""') for path in files)
    return [directory(info), member(info + b"METADATA", b"Name: %s\nVersion: %s\n\n"
                                    % (name, version)), member(info + b"RECORD", lines)]


def members():
    first = {b"alpha/a.py": MODULE, b"single.py": b"s" * 5000, b"../../../bin/alpha": b"#!" * 600}
    second = {QUOTES + b"/q.py": MODULE, b"beta/b,c.py": MODULE}
    return tar(
        directory(b"bin"), directory(b"lib"), directory(b"lib/python3.11"), directory(SITE),
        directory(SITE + b"alpha"), member(SITE + b"alpha/a.py", MODULE),
        member(SITE + b"single.py", b"s" * 5000), member(b"bin/alpha", b"#!" * 600),
        # Claimed by nobody: goes with its directory.
        directory(SITE + b"alpha/__pycache__"),
        member(SITE + b"alpha/__pycache__/a.pyc", b"p" * 3000),
        directory(SITE + QUOTES), member(SITE + QUOTES + b"/q.py", MODULE),
        directory(SITE + b"beta"), member(SITE + b"beta/b,c.py", MODULE),
        member(SITE + b"beta/__pycache__/b,c.pyc", b"p" * 2000),
        # Of no distribution: a package by its directory's name.
        directory(SITE + SCRIPT), member(SITE + SCRIPT + b"/x.py", MODULE),
        directory(SITE + LATIN), member(SITE + LATIN + b"/y.py", MODULE),
        member(b"lib/python3.11/os.py", b"o" * 70000), member(b"bin/tool", b"t" * 9000),
        hardlink(b"bin/again", b"bin/tool"), member(b"lib/libx.so", b"l" * 40000),
        member(b"readme", b"r" * 100), member(b"empty"),
        *package(b"alpha", ALPHA, first), *package(b"<i>beta", b"2<3", second))


@pytest.fixture
def image(work):
    (work / "x.tar").write_bytes(members())
    thaw("pack", work / "x.tar", "--quiet")
    return work / "x.thaw"


class Page(html.parser.HTMLParser):
    """Parses strictly: every element is closed, by its own name, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.stack, self.tags, self.attributes, self.numbers, self.pieces = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.stack == []
        self.text = " ".join("".join(self.pieces).split())

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len({name for name, _ in attrs}), (tag, attrs)
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "data":
            self.numbers.append(int(dict(attrs)["value"]))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop() == tag, (tag, self.getpos())

    def handle_data(self, data):
        if "style" not in self.stack:
            self.pieces.append(data)


def page(*args, **options):
    result = thaw("report", *args, **options)
    return check_page(result.out)


def check_page(raw):
    text = raw.decode()  # UTF-8, whatever the names are
    assert text.startswith("<!DOCTYPE html>\n")
    parsed = Page(text)
    for forbidden in ("http:", "https:", "//", "url(", "@import", "javascript:"):
        assert forbidden not in text, forbidden
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3",
               "div", "span", "dl", "dt", "dd", "data", "code", "main", "section", "p", "b",
               "table", "thead", "tbody", "tfoot", "tr", "th", "td", "details", "summary",
               "footer", "ul", "li", "small", "strong", "svg", "rect", "path"}
    assert set(parsed.tags) <= allowed
    assert not [a for a in parsed.attributes if a[1].startswith("on") or a[1] in ("src", "href")]
    # Pictures are described, header cells say of what.
    images = sum(a[1:] == ("role", "img") for a in parsed.attributes)
    assert images == sum(a[1] == "aria-label" for a in parsed.attributes) > 0
    assert parsed.tags.count("th") == sum(a[:2] == ("th", "scope") for a in parsed.attributes)
    assert ("html", "lang", "en") in parsed.attributes
    return parsed


def figures(*args, **options):
    return json.loads(thaw("report", "--json", *args, **options).out)


def test_figures_are_those_of_info(image):
    info, report, parsed = json.loads(thaw("info", "--json", image).out), figures(image), page(image)
    for key in ("identity", "image_size", "stream_size", "content_size", "files"):
        assert report[key] == info[key]
    assert report["packages"] == len(info["packages"]) == 2
    assert f"sha256:{info['identity']}" in parsed.text
    for key in ("image_size", "stream_size", "content_size", "files", "frames", "directories"):
        assert info[key] in parsed.numbers, key
    for group in report["groups"]:
        assert group["bytes"] in parsed.numbers and group["files"] in parsed.numbers
    # Every file belongs to one group, also those with several names.
    assert sum(group["bytes"] for group in report["groups"]) == info["content_size"]
    assert sum(group["files"] for group in report["groups"]) == info["files"]


def test_files_go_to_their_packages(image):
    groups = {group["name"]: group for group in figures(image)["groups"]}
    metadata = {name: sum(int(json.loads(thaw("ls", "--json", image, f"{SITE.decode()}{name}"
                              f".dist-info/{file}").out)[0]["size"])
                          for file in ("METADATA", "RECORD")) for name in ("alpha-" + ALPHA.decode(),)}
    alpha = groups["alpha"]
    assert (alpha["kind"], alpha["version"], alpha["files"]) == (
        "package", ALPHA.decode(), 6)
    assert alpha["bytes"] == 65536 + 5000 + 1200 + 3000 + sum(metadata.values())
    assert groups["<i>beta"]["version"] == "2<3" and groups["<i>beta"]["files"] == 5
    assert "beta" not in groups
    assert groups["<script>alert(1)<"]["bytes"] == 65536
    assert groups["caf\ufffd"]["name_hex"] == LATIN.hex()
    assert (groups["standard library"]["kind"], groups["standard library"]["bytes"]) == (
        "stdlib", 70000)
    assert (groups["programs (bin)"]["files"], groups["programs (bin)"]["bytes"]) == (1, 9000)
    assert groups["libraries (lib)"]["bytes"] == 40000
    assert (groups["other files"]["files"], groups["other files"]["bytes"]) == (2, 100)


def test_names_are_text(image, work):
    hostile = work / "<b onclick='x'>\xff\".thaw"
    shutil.copyfile(image, hostile)
    parsed = page(hostile)
    for name in ("<script>alert(1)<", "caf\\xe9", "<i>beta", "2<3", hostile.name):
        assert name in parsed.text, name
    assert "b" in parsed.tags and "i" not in parsed.tags and "script" not in parsed.tags
    titles = [value for _, name, value in parsed.attributes if name == "title"]
    assert any(title.startswith("<script>alert(1)<:") for title in titles)


def test_empty(work):
    (work / "x.tar").write_bytes(tar())
    thaw("pack", work / "x.tar", "--quiet")
    text = thaw("report", work / "x.thaw").text
    Page(text)
    assert "No file has any content" in text


def test_output(image, work):
    thaw("report", "-o", work / "page.html", image)
    check_page((work / "page.html").read_bytes())
    (work / "page.html").write_bytes(b"mine")
    thaw_fails(REFUSED, "page.html: exists", "report", image, "-o", work / "page.html")
    assert (work / "page.html").read_bytes() == b"mine"
    thaw("report", image, "--force", "-o", work / "page.html")
    assert check_page((work / "page.html").read_bytes())
    thaw_fails(IO, "no such file", "report", image, "-o", work / "none" / "page.html")
    thaw_fails(DAMAGED, "no image|not", "report", work / "x.tar", "-o", work / "other.html")
    assert sorted(os.listdir(work)) == ["page.html", "x.tar", "x.thaw"]


def test_usage(image, work):
    thaw_fails(USAGE, "image", "report")
    thaw_fails(USAGE, "-- in front", "report", image, "true")
    thaw_fails(REFUSED, "mount", "report", work)
    assert max(map(len, thaw("report", "--help").text.splitlines())) <= 80
    control, terminal = pty.openpty()
    try:
        thaw_fails(USAGE, "-o", "report", image, stdout=terminal)
    finally:
        os.close(control)
        os.close(terminal)


def bench_table(title, rows):
    return {"title": title, "columns": [{"key": "both", "title": "both", "unit": "s",
                                         "ratio": "× warm"}],
            "chart": {"segments": ["both"], "total": "both"}, "rows": rows}


def bench_row(label, seconds, **more):
    summary = {"median": seconds, "min": seconds, "max": seconds}
    return {"name": "thaw-x", "label": label, "values": {"both": summary},
            "ratios": {"both": summary}, **more}


def test_bench(image, work):
    bench = {"about": {"runs": 7}, "machine": {"kernel": "<6>"}, "noise": {"noisy": True},
             "tables": [bench_table("Cold <start>", [
                 bench_row("`tar` & <co>", 1.5), bench_row("slow", 13.25),
                 {"name": "n", "label": "left out", "values": {}, "skipped": "no <module>"},
                 bench_row("not a figure", "12"), bench_row("below nothing", -1.0)]),
                 {"title": "no chart", "rows": []}, 7, {
                     "title": "parts", "chart": {"segments": ["prepare", 3, "first"],
                                                 "total": "both"},
                     "columns": [{"key": "prepare", "title": "<prepare>"}, 5],
                     "rows": [{"label": "in two", "values": {
                         "prepare": {"median": 0.5}, "first": {"median": 1.5},
                         "both": {"median": 2, "max": 4}}}, 6]}]}
    (work / "bench.json").write_text(json.dumps(bench))
    parsed = page(image, f"--bench={work}/bench.json")
    for text in ("Cold <start>", "`tar` & <co>", "13.25 s", "× warm", "no <module>", "noisy",
                 "Medians of 7"):
        assert text in parsed.text, text
    assert 1500000 in parsed.numbers and 13250000 in parsed.numbers
    # A bar of parts: half of the axis is the sum of an eighth and three eighths.
    assert "in two" in parsed.text and "<prepare>" in parsed.text
    styles = [value for _, name, value in parsed.attributes if name == "style"]
    assert styles[-2:] == ["width:12.50%", "width:37.50%"]
    assert "not a figure" not in parsed.text and "below nothing" not in parsed.text
    for content in ("", "[]", "{}", '{"tables": 1}', "{" * 5000):
        (work / "bench.json").write_text(content)
        thaw_fails(DAMAGED, "tools/bench", "report", image, "--bench", work / "bench.json")
    thaw_fails(IO, "no such file", "report", image, "--bench", work / "none.json")


# -- with a command

PAGES = 100


@pytest.fixture
def paged(work):
    """A file of 100 pages, of which the warm set "part" holds 40 to 69."""
    require_views()
    (work / "x.tar").write_bytes(tar(member(b"file", os.urandom(PAGES * 4096 - 100)),
                                     member(b"other", b"o" * 20000)))
    thaw("pack", work / "x.tar", "--quiet")
    thaw("warm", work / "x.thaw", "--name=part", "-c", read_pages(40, 30))
    return work / "x.thaw"


def read_pages(first, count):
    return f'dd if="$THAW_ENV/file" bs=4096 skip={first} count={count} of=/dev/null 2>/dev/null'


@pytest.mark.fuse
@pytest.mark.parametrize("first, count, used", [
    (40, 30, 30), (0, 100, 30), (0, 50, 10), (90, 10, 0), (69, 1, 1)])
def test_coverage_and_waste(paged, first, count, used):
    report = figures(paged, "--", "sh", "-c", read_pages(first, count))
    part, = report["warm_sets"]
    run_ = report["run"]
    assert (part["name"], part["pages"], part["used"]) == ("part", 30, used)
    assert (run_["pages_touched"], run_["pages_covered"]) == (count, used)
    assert part["pushed"] <= 30 and part["overtaken"] <= 30 and part["read_anyway"] <= 5
    group, = (g for g in report["groups"] if g["name"] == "other files")
    last = first + count == PAGES
    assert group["touched_bytes"] == count * 4096 - 100 * last
    assert group["warm_bytes"] == {"part": 30 * 4096}
    assert run_["dropped_events"] == 0


def fills(parsed):
    """{class: (left, width, height)} of what is hatched; there is one cell."""
    found = {}
    for at, (tag, name, value) in enumerate(parsed.attributes):
        if tag == "div" and name == "class" and value.startswith("fill"):
            style = dict(part.split(":") for part in parsed.attributes[at + 1][2].split(";"))
            found[value] = tuple(float(style[key].rstrip("%")) for key in ("left", "width", "height"))
    return found


@pytest.mark.fuse
def test_sets_side_by_side(paged):
    """Each has a part of the cell, and a pattern; four of them have one together."""
    size = PAGES * 4096 - 100 + 20000
    share = lambda pages: round(100 * pages * 4096 / size, 2)  # noqa: E731
    parsed = page(paged)
    assert fills(parsed) == {"fill set0": (0, 100, share(30))}
    for name, first, count in (("more", 50, 40), ("idle", 0, 0), ("last", 0, 10)):
        thaw("warm", paged, f"--name={name}", "-c", read_pages(first, count) if count else "true")
        if name == "idle":
            parsed = page(paged)
            assert fills(parsed) == {"fill set0": (0, 33.33, share(30)),
                                     "fill set1": (33.33, 33.33, share(40))}
            for text in ("held by warm set part", "held by warm set more", "held by warm set idle"):
                assert text in parsed.text
            assert "idle 0" not in parsed.text
    parsed = page(paged)
    assert fills(parsed) == {"fill set0": (0, 100, share(60))}
    assert "share held by warm sets" in parsed.text


@pytest.mark.fuse
def test_timeline(paged):
    report = figures(paged, "--", "sh", "-c", f"{read_pages(0, 100)}; sleep 0.3")
    run_ = report["run"]
    assert run_["command"][:2] == ["sh", "-c"]
    assert run_["first_us"] >= 300000 and run_["second_us"] >= 300000
    assert 0 < run_["opening_us"] < 5000000
    # 70 pages are in no set: somebody had to ask for them, and they took time to decompress.
    assert run_["requests"]["read"] >= 1 and run_["bytes_asked_for"] >= 70 * 4096
    assert run_["bytes_decompressed"] > 0 and run_["bytes_pushed"] == 30 * 4096
    assert run_["bytes_decompressed_by_warmer"] == 30 * 4096
    assert run_["waited_us"]["cold_reads"] + run_["waited_us"]["overtaken_reads"] > 0
    assert sum(run_["waited_us"].values()) < run_["first_us"] - 290000
    assert sum(run_["requests"].values()) == run_["requests_total"]
    assert sum(run_["latency_us_log2"]) == run_["requests_total"]
    assert 0 < run_["warm_end_us"] < run_["opening_us"] + run_["first_us"]
    # The second run finds all of it in memory.
    assert run_["second_requests_total"] <= 3


@pytest.mark.fuse
def test_page_of_a_run(paged):
    result = thaw("report", paged, "--", "sh", "-c", "echo '<u>'; " + read_pages(0, 60))
    assert b"<u>\n<u>\n<u>\n" in result.err, "three runs, their output beside the page"
    parsed = check_page(result.out)
    for text in ("The first run", "Where the time went", "Warm set part", "How long requests took",
                 "needed and held: 20", "held, not needed: 10", "needed, not held: 40", "<u>"):
        assert text in parsed.text, text
    assert "u" not in parsed.tags


@pytest.mark.fuse
def test_without_warm_set(image):
    require_views()
    report = figures(image, "--", "sh", "-c", 'cat "$THAW_ENV/bin/tool" >/dev/null')
    assert report["warm_sets"] == [] and report["run"]["pages_covered"] == 0
    assert report["run"]["pages_touched"] == 3 and report["run"]["bytes_pushed"] == 0
    assert "no warm set" in page(image, "--", "true").text


@pytest.mark.fuse
@pytest.mark.parametrize("command, word", [
    (["false"], "exit code 1"), (["sh", "-c", "kill -9 $$"], "signal 9"),
    (["no-such-command"], "cannot be run")])
def test_commands_that_fail(paged, work, command, word):
    result = thaw("report", paged, "-o", work / "page.html", "--", *command, code=None)
    assert result.code in (REFUSED, IO) and result.out == b""
    assert word in result.err.decode() and result.err.count(b"\n") == 1
    assert not (work / "page.html").exists()


@pytest.mark.fuse
def test_mount(image, work):
    with mounted(image, work / "mnt"):
        (work / "mnt" / "bin" / "tool").read_bytes()
        os.listdir(work / "mnt")
        before = json.loads(thaw("stat", "--json", work / "mnt").out)
        report = figures(work / "mnt")
        parsed = page(work / "mnt")
        assert report["identity"] == before["identity"]
        assert report["live"]["requests"]["read"] == before["requests"]["read"] >= 1
        assert report["live"]["bytes_read"] == before["bytes_read"]
        assert before["bytes_read"] in parsed.numbers
        assert "What its worker has done" in parsed.text
        # By the worker's descriptor: the file itself may be gone.
        expected = figures(image)["groups"]
        image.unlink()
        assert figures(work / "mnt")["groups"] == expected


# -- in a browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def browse(work, path, *options, light=True):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        pytest.skip("no chromium")
    profile = work / "profile"
    profile.mkdir(exist_ok=True)
    process = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--no-first-run", "--hide-scrollbars", "--enable-logging=stderr",
         f"--blink-settings=preferredColorScheme={int(light)}", f"--user-data-dir={profile}",
         *options, f"file://{path}"],
        env=environment(HOME=str(work)), stdin=subprocess.DEVNULL, capture_output=True,
        timeout=120, check=True)
    return process.stdout.decode(), [line for line in process.stderr.decode().splitlines()
                                     if "CONSOLE" in line]


def pixels(path):
    """Rows of (red, green, blue) of a PNG as Chromium writes it: 8 bits, not interlaced."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    size = {2: 3, 6: 4}[kind]
    assert depth == 8 and not interlaced
    packed, at = b"", 8
    while at < len(data):
        length, = struct.unpack(">I", data[at:at + 4])
        if data[at + 4:at + 8] == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += length + 12
    raw, stride, above = zlib.decompress(packed), width * size, bytearray(width * size)
    rows = []
    for y in range(height):
        line = bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        method = raw[y * (stride + 1)]
        for i in range(stride if method else 0):
            left = line[i - size] if i >= size else 0
            corner = above[i - size] if i >= size else 0
            if method == 4:
                guess = left + above[i] - corner
                near = min((abs(guess - left), 0, left), (abs(guess - above[i]), 1, above[i]),
                           (abs(guess - corner), 2, corner))[2]
            else:
                near = (0, left, above[i], (left + above[i]) // 2)[method]
            line[i] = (line[i] + near) & 255
        rows.append([tuple(line[i:i + 3]) for i in range(0, stride, size)])
        above = line
    return rows


def test_browser_sees_errors(work):
    """Otherwise the next test could not fail."""
    (work / "bad.html").write_text("<script>missing()</script>")
    _, console = browse(work, work / "bad.html", "--dump-dom")
    assert console


def test_browser(image, work):
    bench = {"tables": [bench_table("Cold <start>", [bench_row("<script>", 1.5)])]}
    (work / "bench.json").write_text(json.dumps(bench))
    path = work / "page.html"
    thaw("report", image, "--bench", work / "bench.json", "-o", path)
    dom, console = browse(work, path, "--dump-dom")
    assert console == []
    shown = Page(dom).text
    expected = check_page(path.read_bytes()).text
    assert shown == expected and "What is in it" in shown
    brightness = {}
    for light in (True, False):
        target = work / "shot.png"
        _, console = browse(work, path, "--window-size=600,2000", f"--screenshot={target}",
                            light=light)
        assert console == []
        rows = pixels(target)
        ground = rows[0][0]
        brightness[light] = sum(ground)
        drawn = sum(pixel != ground for row in rows for pixel in row)
        assert drawn > 0.02 * len(rows) * len(rows[0]), "blank"
        assert len({pixel for row in rows for pixel in row}) > 20
        # Nothing touches the edge: what is too wide scrolls in its own box.
        assert all(row[-1] == ground for row in rows)
    assert brightness[True] > 600 and brightness[False] < 150
