# SPDX-License-Identifier: Apache-2.0
"""Rows of a table, measured interleaved.

Every round measures each row once; the next round begins with the next row. So a slow minute of
the machine, or what one row leaves behind, does not always meet the same row. Before each row
the caches are dropped, and what the row may count on (its image, the tools it runs, libraries
of the system) is read back.
"""

import fnmatch
import os
import shutil
import statistics
import sys
import time

from . import machine, spawn, stats


class Skip(Exception):
    """This row cannot run here; the text says why."""


class Column:
    """One value of a row: seconds `s`, milliseconds `ms`, bytes `MB`, a ratio `x`, a count `n`.

    With ratio, a further column shows the value against the base row's in the same round.
    """

    def __init__(self, key, title, unit, ratio=None):
        self.key, self.title, self.unit, self.ratio = key, title, unit, ratio


class Target:
    """What a row should reach: at most `limit`, absolute, or as a ratio to another row's value."""

    def __init__(self, text, row, key, limit, of=None):
        self.text, self.row, self.key, self.limit, self.of = text, row, key, limit, of

    def judge(self, found):
        """The median reached, and whether it is enough; None where it was not measured."""
        def rounds(name):
            return {n: values.get(self.key) for n, values in found.get(name, {}).items()}
        if self.of:
            values = stats.ratios(rounds(self.row), rounds(self.of))
        else:
            values = [value for value in rounds(self.row).values() if value is not None]
        if not values:
            return None
        reached = statistics.median(values)
        return {"text": self.text, "limit": self.limit, "reached": reached,
                "met": reached <= self.limit, "key": self.key, "ratio": bool(self.of)}


class Row:
    """What is measured. A subclass overrides what it needs; paths are below self.work."""

    timeout = 300.0
    root_only = False

    def __init__(self, name, label):
        self.name, self.label = name, label
        self.work = None

    def check(self):
        """Raise Skip when the row cannot run on this machine. Makes what is made only once."""

    def cached(self):
        """Files and directories to be in the page cache when the row starts."""
        return []

    def setup(self):
        """Not timed, right before the measurement: what is to be warm."""

    def measure(self, meter):
        """Timed. Returns the values by column key."""
        raise NotImplementedError

    def teardown(self):
        """Not timed; also runs when measure failed half-way."""


class Table:
    """Rows with the same columns. chart names the columns of a bar's segments and of its total."""

    def __init__(self, name, title, columns, rows, base, notes=(), chart=None,
                 targets=()):
        self.name, self.title, self.chart, self.targets = name, title, chart, targets
        self.columns, self.rows, self.base, self.notes = columns, rows, base, list(notes)


class Meter:
    """What one run used so far. Its figures include every daemon that the row started."""

    def __init__(self, group, timeout):
        self.group, self.timeout = group, timeout
        self.page_cache = machine.page_cache_bytes()

    def time(self, argv, **options):
        return spawn.run(argv, timeout=self.timeout, **options)

    def usage(self):
        return {
            "cpu": self.group.cpu_seconds(),
            "page_cache": max(0, machine.page_cache_bytes() - self.page_cache),
        }

    def sources(self):
        """The files that usage() reads, for a row which has to copy them at some moment."""
        return [self.group.path + "/cpu.stat" if self.group.path else os.devnull, "/proc/meminfo"]

    def usage_of_copies(self, cpu_stat, meminfo):
        values = {"page_cache": max(0, machine.page_cache_bytes(meminfo) - self.page_cache)}
        if self.group.path:
            values["cpu"] = self.group.cpu_seconds(cpu_stat)
        return values

    def daemons(self):
        return [machine.memory_of(pid) for pid in self.group.daemons()]


def select(rows, patterns, base):
    """Rows named by comma-separated patterns, in the table's order; the base row always."""
    if not patterns:
        return rows
    words = [word.strip() for word in patterns.split(",")]
    chosen = [row for row in rows if any(fnmatch.fnmatchcase(row.name, word) for word in words)]
    if chosen and base and base not in {row.name for row in chosen}:
        chosen = [row for row in rows if row in chosen or row.name == base]
    return chosen


class Runner:
    """Measures tables. One object for a whole run, since noise is judged over all of it."""

    def __init__(self, bench):
        self.bench = bench
        self.spins = []
        self.loads = [os.getloadavg()[0]]
        self.repeated = 0
        self.noisy_runs = 0
        self.runs = 0

    def say(self, text):
        if not self.bench.quiet:
            print("bench: " + text, file=sys.stderr, flush=True)

    def _once(self, row):
        """One run of a row: its values and the share of a CPU that others used meanwhile."""
        row.work = os.path.join(self.bench.scratch, row.name.replace("/", "-"))
        shutil.rmtree(row.work, ignore_errors=True)
        os.makedirs(row.work)
        machine.drop_caches()
        for path in self.bench.system_files() + row.cached():
            machine.read_into_cache(path)
        group = self.bench.cgroup
        entered = False
        try:
            row.setup()
            if self.bench.wait:
                machine.wait_until_quiet(self.bench.wait)
            self.spins.append(machine.spin())
            meter = Meter(group, row.timeout)
            group.enter()
            entered = True
            start, busy = time.monotonic(), machine.busy_seconds()
            values = row.measure(meter)
            elapsed = time.monotonic() - start
            others = machine.busy_seconds() - busy - group.cpu_seconds()
            foreign = max(0.0, others / elapsed) if group.path and elapsed > 0.1 else 0.0
        finally:
            row.teardown()
            if entered:
                group.leave()
            if not group.close():
                self.say("%s: a process outlived its row and was killed" % row.name)
            shutil.rmtree(row.work, ignore_errors=True)
        return values, foreign

    def _run(self, row):
        """A run, taken again when others used the machine meanwhile; the quietest one counts."""
        best = None
        for attempt in range(1 + self.bench.retries):
            if attempt:
                self.repeated += 1
            values, foreign = self._once(row)
            if best is None or foreign < best[1]:
                best = (values, foreign)
            if foreign <= machine.FOREIGN_LIMIT:
                break
        self.runs += 1
        if best[1] > machine.FOREIGN_LIMIT:
            self.noisy_runs += 1
        return best

    def measure(self, table):
        """All runs of a table: values by row, column and round, with medians and ratios."""
        rows = select(table.rows, self.bench.rows, table.base)
        found = {row.name: {} for row in rows}
        skipped, ready = {}, []
        for row in rows:
            try:
                if row.root_only and os.geteuid() != 0:
                    raise Skip("needs root")
                self.say("preparing %s" % row.name)
                row.check()
                ready.append(row)
            except (Skip, spawn.Failed) as reason:
                skipped[row.name] = str(reason)
        for round_ in range(self.bench.runs if ready else 0):
            shift = round_ % len(ready)
            for row in ready[shift:] + ready[:shift]:
                if row.name in skipped:
                    continue
                try:
                    values, foreign = self._run(row)
                except (spawn.Failed, OSError) as reason:
                    # Once is enough: a row that fails or runs out of time would only do it again.
                    skipped[row.name] = str(reason)
                    self.say("round %d: %s: %s" % (round_ + 1, row.name, reason))
                    continue
                found[row.name][round_] = dict(values, foreign=foreign)
                shown = ", ".join("%s %.3g" % (column.title, values[column.key])
                                  for column in table.columns[:4]
                                  if values.get(column.key) is not None and column.unit in "ms")
                self.say("round %d: %s: %s" % (round_ + 1, row.name, shown or "done"))
        self.loads.append(os.getloadavg()[0])
        return self._result(table, rows, found, skipped)

    def _result(self, table, rows, found, skipped):
        out = []
        for row in rows:
            rounds = found[row.name] if row.name not in skipped else {}
            entry = {"name": row.name, "label": row.label, "base": row.name == table.base}
            if row.name in skipped:
                entry["skipped"] = skipped[row.name]
            entry["values"], entry["ratios"], entry["runs"] = {}, {}, {}
            for column in table.columns + [Column("foreign", "", "x")]:
                values = {n: v[column.key] for n, v in rounds.items()
                          if v.get(column.key) is not None}
                if values:
                    entry["values"][column.key] = stats.summary(list(values.values()))
                    entry["runs"][column.key] = [values[n] for n in sorted(values)]
                if column.ratio and table.base not in skipped:
                    base = {n: v.get(column.key) for n, v in found.get(table.base, {}).items()}
                    pairs = stats.ratios(values, base)
                    if pairs:
                        entry["ratios"][column.key] = stats.summary(pairs)
            out.append(entry)
        judged = [target.judge({name: rounds for name, rounds in found.items()
                                if name not in skipped}) for target in table.targets]
        return {
            "targets": [judgement for judgement in judged if judgement],
            "name": table.name, "title": table.title, "base": table.base,
            "chart": table.chart, "columns": [vars(column) for column in table.columns],
            "rows": out, "notes": table.notes,
        }

    def noise(self):
        """What was noticed about the machine during the run, and whether it was quiet."""
        reasons = []
        if self.spins:
            spread = statistics.quantiles(self.spins, n=10, method="inclusive")[8] \
                / min(self.spins) if len(self.spins) > 1 else 1.0
            if spread > machine.SPIN_LIMIT:
                reasons.append("a fixed piece of work took up to %.2f times as long" % spread)
        if self.loads[0] > machine.LOAD_LIMIT:
            reasons.append("load average %.1f at the start" % self.loads[0])
        if self.noisy_runs:
            reasons.append("others used more than %d%% of a CPU during %d of %d runs"
                           % (machine.FOREIGN_LIMIT * 100, self.noisy_runs, self.runs))
        return {
            "noisy": bool(reasons), "reasons": reasons,
            # Ratios too are chance when most runs were disturbed.
            "unusable": 2 * self.noisy_runs > self.runs, "load": self.loads,
            "spin": stats.summary(self.spins), "repeated_runs": self.repeated,
        }
