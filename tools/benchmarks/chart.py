# SPDX-License-Identifier: Apache-2.0
"""Horizontal bars, one panel a table, as SVG and as PNG.

Readable without colour: segments differ in pattern, thaw's rows in weight and outline, and every
bar carries its figures. Dark where the reader's settings say so.
"""

import os
from xml.sax.saxutils import escape

from . import output, spawn

WIDTH, LABEL, RIGHT = 1020, 335, 155
BAR, STEP, HEAD, AXIS, GAP = 16, 25, 58, 30, 18

STYLE = """
  text { font: 13px system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .figure { paint-order: stroke; stroke: #ffffff; stroke-width: 4px; }
  .ground { fill: #ffffff; }
  .title { font-size: 16px; font-weight: 600; }
  .soft { fill: #57606a; font-size: 12px; }
  .strong { font-weight: 700; }
  .end { text-anchor: end; }
  .middle { text-anchor: middle; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .base { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 5 3; }
  .spread { stroke: #1f2328; stroke-width: 1.5; }
  .solid { fill: #8c959f; }
  .solid.own { fill: #0969da; stroke: #1f2328; stroke-width: 1; }
  .stripe { fill: #8c959f; fill-opacity: 0.25; }
  .stripe.own { fill: #0969da; fill-opacity: 0.25; stroke: #1f2328; stroke-width: 1; }
  .hatch { stroke: #57606a; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .figure { stroke: #0d1117; }
    .ground { fill: #0d1117; }
    .soft { fill: #9da7b3; }
    .grid { stroke: #30363d; }
    .base { stroke: #9da7b3; }
    .spread { stroke: #e6edf3; }
    .solid { fill: #6e7681; }
    .solid.own { fill: #4493f8; stroke: #e6edf3; }
    .stripe { fill: #6e7681; }
    .stripe.own { fill: #4493f8; stroke: #e6edf3; }
    .hatch { stroke: #9da7b3; }
  }
"""


def plain(text):
    """A label without the marks of Markdown."""
    return escape(text.replace("`", ""))


def step_of(limit):
    """A round distance between grid lines, so that there are four to eight of them."""
    unit = 1e-6
    while True:
        for factor in (1, 2, 5):
            if limit / (unit * factor) <= 8:
                return unit * factor
        unit *= 10


class Panel:
    """One table: rows that have all segments, in the table's order."""

    def __init__(self, table):
        spec = table["chart"]
        self.table, self.segments, self.ratio = table, spec["segments"], spec["total"]
        self.columns = {column["key"]: column for column in table["columns"]}
        self.rows = [row for row in table["rows"] if self.ratio in row["values"]]
        self.limit = max((row["values"][self.ratio]["max"] for row in self.rows), default=0)
        self.unit = self.columns[self.ratio]["unit"]

    @property
    def height(self):
        return HEAD + STEP * len(self.rows) + AXIS + GAP

    def x(self, value):
        return LABEL + (WIDTH - LABEL - RIGHT) * value / self.limit

    def _legend(self, top):
        names = [self.columns[key]["title"] for key in self.segments]
        if len(names) == 1:
            return []
        parts, x = [], LABEL
        for number, name in enumerate(names):
            kind = "solid" if number == len(names) - 1 else "stripe"
            parts.append(self._bar(x, top - 10, 22, 12, kind, False))
            parts.append('<text class="soft" x="%d" y="%d">%s</text>' % (x + 28, top, plain(name)))
            x += 50 + 8 * len(name)
        parts.append('<text class="soft" x="%d" y="%d">line: least…greatest</text>' % (x, top))
        return parts

    @staticmethod
    def _bar(x, y, width, height, kind, own):
        place = 'x="%.1f" y="%.1f" width="%.1f" height="%d"' % (x, y, max(width, 0), height)
        parts = ['<rect class="%s%s" %s/>' % (kind, " own" if own else "", place)]
        if kind == "stripe":
            parts.append('<rect fill="url(#hatch)" %s/>' % place)
        return "".join(parts)

    def _grid(self, top, bottom):
        parts, step = [], step_of(self.limit)
        count = int(self.limit / step + 1e-9)
        for number in range(count + 1):
            x, value = self.x(number * step), number * step
            parts.append('<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>'
                         % (x, x, top, bottom))
            parts.append('<text class="soft middle" x="%.1f" y="%d">%g</text>'
                         % (x, bottom + 15, round(value * (1000 if self.unit == "ms" else 1), 6)))
        parts.append('<text class="soft" x="%d" y="%d">%s</text>'
                     % (WIDTH - RIGHT + 14, bottom + 15,
                        "milliseconds" if self.unit == "ms" else "seconds"))
        for row in self.rows:
            if row["base"]:
                x = self.x(row["values"][self.ratio]["median"])
                parts.append('<line class="base" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>'
                             % (x, x, top, bottom))
        return parts

    def _row(self, row, y):
        own = row["label"].startswith("thaw") or "in thaw" in row["label"]
        parts = ['<text class="end%s" x="%d" y="%.1f">%s</text>'
                 % (" strong" if own else "", LABEL - 10, y + BAR - 3, plain(row["label"]))]
        start = 0.0
        for number, key in enumerate(self.segments):
            if key not in row["values"]:
                continue
            value = row["values"][key]["median"]
            kind = "solid" if number == len(self.segments) - 1 else "stripe"
            parts.append(self._bar(self.x(start), y, self.x(start + value) - self.x(start),
                                   BAR, kind, own))
            start += value
        total = row["values"][self.ratio]
        middle = y + BAR / 2
        parts.append('<line class="spread" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>'
                     % (self.x(total["min"]), self.x(total["max"]), middle, middle))
        figure = "%s %s" % (output.value(total["median"], self.unit), self.unit)
        if self.ratio in row["ratios"]:
            ratio = row["ratios"][self.ratio]["median"]
            figure += "  (%s×)" % ("%.2f" % ratio if ratio < 10 else "%.0f" % ratio)
        parts.append('<text class="figure%s" x="%.1f" y="%.1f">%s</text>'
                     % (" strong" if own else "", self.x(max(total["max"], start)) + 8,
                        y + BAR - 3, figure))
        return parts

    def draw(self, top):
        first = top + HEAD
        bottom = first + STEP * len(self.rows) - (STEP - BAR) + 4
        parts = ['<text class="title" x="%d" y="%d">%s</text>'
                 % (20, top + 22, plain(self.table["title"]))]
        parts += self._legend(top + 44)
        parts += self._grid(first - 4, bottom)
        for number, row in enumerate(self.rows):
            parts += self._row(row, first + STEP * number)
        return parts


def svg(report):
    panels = [Panel(table) for table in report["tables"] if table.get("chart")]
    panels = [panel for panel in panels if panel.rows and panel.limit > 0]
    height = sum(panel.height for panel in panels) + 40
    about, machine = report["about"], report["machine"]
    foot = ("medians of %d interleaved runs; %d CPUs, Linux %s%s"
            % (about["runs"], machine["cpus"], machine["kernel"],
               "; the machine was noisy" if report["noise"]["noisy"] else ""))
    title = "; ".join(panel.table["title"] for panel in panels)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" '
        'role="img">' % (WIDTH, height, WIDTH, height),
        "<title>%s</title>" % plain(title),
        "<style>%s</style>" % STYLE,
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="hatch" x1="0" y1="0" x2="0" y2="6"/>'
        "</pattern></defs>",
        '<rect class="ground" width="%d" height="%d"/>' % (WIDTH, height),
    ]
    top = 8
    for panel in panels:
        parts += panel.draw(top)
        top += panel.height
    parts.append('<text class="soft" x="20" y="%d">%s</text>' % (height - 14, plain(foot)))
    return "\n".join(parts + ["</svg>"]) + "\n"


def _renderers(source, target):
    return [
        ["rsvg-convert", "--zoom", "2", "-o", target, source],
        ["magick", "-density", "192", source, target],
        ["convert", "-density", "192", source, target],
        ["inkscape", "--export-filename", target, source],
    ]


def write(report, path, say):
    """The SVG, and beside it a PNG where something can draw one. Written whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as stream:
        stream.write(svg(report))
    os.rename(path + ".new", path)
    target = os.path.splitext(path)[0] + ".png"
    for argv in _renderers(path, target):
        if spawn.find(argv[0]):
            try:
                spawn.run(argv, timeout=60)
                return
            except spawn.Failed as error:
                say(str(error))
    say("no PNG: none of rsvg-convert, ImageMagick and Inkscape could draw it")
