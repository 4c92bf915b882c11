# SPDX-License-Identifier: Apache-2.0
"""Results as Markdown and as JSON."""

import json

# What noise does not change: sizes, memory and counts.
COUNTED = ("size", "share", "requests", "reads", "beyond", "peak", "kernel")


def value(number, unit):
    """A figure with as many digits as mean something."""
    if number is None:
        return "–"
    if unit == "ms":
        number, unit = number * 1000, "s"
    if unit == "MB":
        return "%.0f" % (number / 1e6) if number >= 1e7 else "%.1f" % (number / 1e6)
    if unit == "n":
        return "{:,.0f}".format(number)
    if unit == "x":
        return "%.3f" % number if number < 10 else "%.1f" % number
    if number >= 100:
        return "%.0f" % number
    return "%.1f" % number if number >= 10 else "%.3f" % number if number < 1 else "%.2f" % number


def cell(summary, unit):
    """Median, and the least and greatest value where they differ in what is shown."""
    if summary is None:
        return "–"
    middle = value(summary["median"], unit)
    low, high = value(summary["min"], unit), value(summary["max"], unit)
    return middle if low == high else "%s (%s…%s)" % (middle, low, high)


def heading(column):
    unit = {"s": " (s)", "ms": " (ms)", "MB": " (MB)"}.get(column["unit"], "")
    return column["title"] + unit


def markdown_table(result, unusable=False):
    columns = [column for column in result["columns"]
               if any(column["key"] in row["values"] for row in result["rows"])]
    head = ["row"]
    for column in columns:
        head.append(heading(column))
        if column["ratio"]:
            head.append(column["ratio"])
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in result["rows"]:
        if "skipped" in row:
            continue
        cells = [row["label"]]
        for column in columns:
            cells.append(cell(row["values"].get(column["key"]), column["unit"]))
            if column["ratio"]:
                cells.append(cell(row["ratios"].get(column["key"]), "x"))
        lines.append("| " + " | ".join(cells) + " |")
    left_out = ["- not measured: %s: %s" % (row["label"], row["skipped"])
                for row in result["rows"] if "skipped" in row]
    notes = ["- " + note for note in result["notes"]]
    return "\n".join(["### " + result["title"], ""] + lines + [""] + target_lines(result, unusable) + notes
                     + left_out)


def target_lines(result, unusable):
    units = {column["key"]: column["unit"] for column in result["columns"]}
    lines = []
    for target in result["targets"]:
        unit = "x" if target["ratio"] else units[target["key"]]
        name = {"x": "", "n": ""}.get(unit, " " + unit)
        verdict = "not judged" if unusable and target["key"] not in COUNTED else \
            "met" if target["met"] else "**missed**"
        lines.append("- %s: %s: %s%s, at most %s%s"
                     % (verdict, target["text"],
                        value(target["reached"], unit), name, value(target["limit"], unit), name))
    return lines


def markdown(report):
    about, machine = report["about"], report["machine"]
    lines = ["%d runs a row, interleaved, medians (least…greatest); %d CPUs, %d GiB, Linux %s."
             % (about["runs"], machine["cpus"], machine["memory_gib"], machine["kernel"])]
    lines += about["notes"]
    noise = report["noise"]
    if noise["noisy"]:
        lines.append("**The machine was noisy: %s.** %s"
                     % ("; ".join(noise["reasons"]),
                        "Run it again on a quiet one: only sizes and counts mean something."
                        if noise["unusable"] else "Trust ratios, not seconds."))
    parts = [" ".join(lines)]
    parts += [markdown_table(table, noise["unusable"]) for table in report["tables"]]
    return "\n\n".join(parts) + "\n"


def write_json(report, path):
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(report, stream, indent=1, ensure_ascii=False)
        stream.write("\n")
