# SPDX-License-Identifier: Apache-2.0
"""What the node service costs: opening views, memory of many, and workers that are killed."""

import math
import os
import signal
import subprocess
import sys
import threading
import time

from . import machine, spawn
from .coldstart import ImportRow
from .material import SOURCE
from .rows import Column, Skip, Table, Target

HELP = "opening views of the node service, a hundred sessions, workers killed during an import"
READY = 10.0
KILL_EVERY = 0.05


def add_options(parser):
    parser.add_argument("--sessions", type=int, default=100, metavar="N",
                        help="sessions of one environment (%(default)s)")
    parser.add_argument("--opens", type=int, default=200, metavar="N",
                        help="further views opened, one after the other (%(default)s)")
    parser.add_argument("--firsts", type=int, default=10, metavar="N",
                        help="first views opened (%(default)s)")


def client_module():
    path = os.path.join(SOURCE, "tools", "python")
    if path not in sys.path:
        sys.path.insert(0, path)
    import thaw_client
    return thaw_client


def percentile(values, share):
    """The least value that so large a share of all is at most."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


# For what goes on after an answer: the kernel clears away what was mounted, a warm set is pushed.
SETTLE = 0.25


class Service:
    """thaw serve, with directories of its own below work."""

    def __init__(self, thaw, work):
        self.runtime = os.path.join(work, "run")
        self.socket = os.path.join(self.runtime, "socket")
        state = os.path.join(work, "state")
        for path in (self.runtime, state):
            os.mkdir(path, 0o755)
        # In memory, as /run is wherever something else has not been arranged.
        spawn.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", self.runtime])
        self.environment = dict(os.environ, THAW_RUNTIME_DIR=self.runtime, THAW_STATE_DIR=state)
        self.environment.pop("THAW_SOCKET", None)
        self.log = open(os.path.join(work, "log"), "w+b")
        # An image stays mounted no longer than its views: so that first views can be measured.
        self.process = subprocess.Popen([thaw, "serve", "--linger=0"], env=self.environment,
                                        stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        self.client = None
        end = time.monotonic() + READY
        while not self.client:
            try:
                self.client = client_module().Client(self.socket, timeout=60)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    raise spawn.Failed("thaw serve: " + self.complaint()) from None
                time.sleep(0.01)

    def complaint(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").splitlines()
        return lines[-1] if lines else "it does not answer"

    def call(self, function, *arguments, **options):
        try:
            return function(*arguments, **options)
        except (client_module().NodeError, OSError) as error:
            raise spawn.Failed("thaw serve: %s" % error) from None

    def open(self, session, image, directory, **options):
        options.setdefault("lease", {"kind": "ttl"})
        self.call(self.client.open, session, image, directory, **options)

    def close_view(self, session):
        self.call(self.client.close_view, session, force=True)

    def resident(self):
        """Bytes of the service, its keepers and workers not counted."""
        with open("/proc/%d/status" % self.process.pid, encoding="ascii") as stream:
            for line in stream:
                if line.startswith("VmRSS:"):
                    return 1024 * int(line.split()[1])
        raise spawn.Failed("thaw serve has ended: " + self.complaint())

    def cpu_seconds(self):
        """Of the service and of the helpers that it has waited for."""
        with open("/proc/%d/stat" % self.process.pid, encoding="ascii") as stream:
            fields = stream.read().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / machine.TICK

    def keepers(self):
        return [image["keeper"] for image in self.call(self.client.images) if image.get("keeper")]

    def until_unmounted(self):
        """Until no image is mounted any more."""
        end = time.monotonic() + READY
        while self.call(self.client.images):
            if time.monotonic() > end:
                raise spawn.Failed("an image stays mounted without a view")
            time.sleep(0.002)

    def stop(self):
        """With all of its views; nothing may stay mounted, whatever went wrong."""
        try:
            if self.client:
                for session in {view["session"] for view in self.client.list()}:
                    self.client.close_view(session, force=True)
                self.until_unmounted()
        except (spawn.Failed, client_module().NodeError, OSError):
            pass
        finally:
            if self.client:
                self.client.close()
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.log.close()
            spawn.run(["umount", "--lazy", self.runtime])


class ServiceRow(ImportRow):
    """A row with a service, and an image of it."""

    root_only = True  # as an ordinary user's, the service has no views over a shared mount
    timeout = 1800.0

    def __init__(self, bench, name, label, warm=False):
        super().__init__(bench, name, label)
        self.warm, self.path, self.service = warm, None, None

    def check(self):
        self.material.thaw_tag()
        try:
            spawn.run([self.material.thaw, "serve", "--help"])
        except spawn.Failed:
            raise Skip("this thaw has no command `serve`") from None
        self.path = self.material.warm_image(self.bench.workload) if self.warm \
            else self.material.image()

    def cached(self):
        return [self.path]

    def setup(self):
        self.service = Service(self.material.thaw, self.work)

    def teardown(self):
        if self.service:
            self.service.stop()
            self.service = None

    def directory(self, number):
        return os.path.join(self.work, "view-%d" % number)

    def open(self, number):
        """Returns the seconds until the answer."""
        start = time.monotonic()
        self.service.open("session-%d" % number, self.path, self.directory(number),
                          warm="all" if self.warm else "none")
        return time.monotonic() - start

    def close(self, number):
        start = time.monotonic()
        self.service.close_view("session-%d" % number)
        return time.monotonic() - start

    def import_in(self, meter, number):
        python = os.path.join(self.directory(number), "bin", "python3")
        return meter.time(self.command(python), env=self.environment())


# -- opening --

class Opening(ServiceRow):
    """First views, each of an image that nobody has mounted; then further ones."""

    def measure(self, meter):
        options, firsts = self.bench.options, []
        self.open(0)  # of the service's own first time nothing is said
        self.close(0)
        self.service.until_unmounted()
        for number in range(options.firsts):
            time.sleep(SETTLE)
            firsts.append(self.open(number))
            self.close(number)
            self.service.until_unmounted()
        self.open(0)
        time.sleep(4 * SETTLE)
        used = self.service.cpu_seconds()
        further = [self.open(number) for number in range(1, options.opens + 1)]
        used = self.service.cpu_seconds() - used
        closing = [self.close(number) for number in range(1, options.opens + 1)]
        return {
            "first": percentile(firsts, 0.5), "first_worst": max(firsts),
            "p50": percentile(further, 0.5), "p99": percentile(further, 0.99),
            "close50": percentile(closing, 0.5), "close99": percentile(closing, 0.99),
            "cpu": used / max(1, options.opens), "command": self.by_command(meter),
        }

    def by_command(self, meter):
        """A further view by `thaw open`, the program's start included."""
        times = []
        for number in range(10):
            directory = self.directory(100000 + number)
            times.append(meter.time([self.material.thaw, "open", "command-%d" % number, self.path,
                                     directory], env=self.service.environment))
        return percentile(times, 0.5)


def open_table(bench):
    rows = [Opening(bench, "open/on-demand", "on demand"),
            Opening(bench, "open/warm", "warm set", warm=True)]
    columns = [
        Column("first", "first view", "ms"), Column("first_worst", "the slowest", "ms"),
        Column("p50", "further, median", "ms"), Column("p99", "99 %", "ms"),
        Column("cpu", "CPU a view", "ms"), Column("command", "`thaw open`", "ms"),
        Column("close50", "close, median", "ms"), Column("close99", "99 %", "ms"),
    ]
    targets = [target for row in rows for target in (
        Target("first view, " + row.label, row.name, "first", 0.020),
        Target("further views, 99 %, " + row.label, row.name, "p99", 0.005))]
    return Table("open", "Opening views", columns, rows, "open/on-demand", [
        "from the client's call to the answer, over a connection that stands; %d first views "
        "and %d further ones a run" % (bench.options.firsts, bench.options.opens)],
        targets=targets)


# -- many sessions --

def slab_bytes():
    with open("/proc/meminfo", encoding="ascii") as stream:
        info = dict(line.split(":", 1) for line in stream)
    return 1024 * sum(int(info[key].split()[0])
                      for key in ("Slab", "KernelStack", "PageTables"))


class Many(ServiceRow):
    """Sessions of one environment, all open at once; each has imported."""

    def measure(self, meter):
        count = self.bench.options.sessions
        before = machine.page_cache_bytes()
        self.open(0)
        first = self.import_in(meter, 0)
        one, kernel, resident = machine.page_cache_bytes(), slab_bytes(), self.service.resident()
        later = []
        for number in range(1, count):
            self.open(number)
            later.append(self.import_in(meter, number))
        more = max(1, count - 1)
        now = self.service.resident()
        return {
            "first": first, "later": percentile(later, 0.5) if later else None,
            "cache_one": max(1, one - before),
            "share": (machine.page_cache_bytes() - before) / max(1, one - before),
            "kernel": max(0, slab_bytes() - kernel) / more,
            "peak": now, "beyond": max(0, now - resident) / more,
        }


def many_table(bench):
    rows = [Many(bench, "many/on-demand", "on demand"),
            Many(bench, "many/warm", "warm set", warm=True)]
    count = bench.options.sessions
    columns = [
        Column("first", "first import", "s"), Column("later", "later ones", "s"),
        Column("cache_one", "page cache of one session", "MB"),
        Column("share", "of %d ÷ of one" % count, "x"),
        Column("kernel", "kernel memory a view", "MB"),
        Column("peak", "service", "MB"), Column("beyond", "of it a view (bytes)", "n"),
    ]
    targets = [target for row in rows for target in (
        Target("page cache of %d sessions against one, %s" % (count, row.label), row.name,
               "share", 1.2),
        Target("kernel memory a view, " + row.label, row.name, "kernel", 4e6),
        Target("resident memory of the service, " + row.label, row.name, "peak", 16 << 20),
        Target("bytes of it a view, " + row.label, row.name, "beyond", 32 << 10))]
    return Table("many", "%d sessions of one environment" % count, columns, rows,
                 "many/on-demand",
                 ["each opened, and imported in, one after the other; all stay open; kernel "
                  "memory is slabs, stacks and page tables, the machine's figures"],
                 targets=targets)


# -- workers that are killed --

def children(pid):
    try:
        with open("/proc/%d/task/%d/children" % (pid, pid), encoding="ascii") as stream:
            return [int(word) for word in stream.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Killer(threading.Thread):
    """kill -9 of each child of a keeper, again and again."""

    def __init__(self, keepers):
        super().__init__(daemon=True)
        self.keepers, self.kills, self.ended = keepers, 0, threading.Event()

    def run(self):
        while not self.ended.wait(KILL_EVERY):
            for keeper in self.keepers:
                for pid in children(keeper):
                    try:
                        os.kill(pid, signal.SIGKILL)
                        self.kills += 1
                    except ProcessLookupError:
                        pass

    def stop(self):
        self.ended.set()
        self.join()


class Import(ServiceRow):
    """One cold import, with or without a killer."""

    def __init__(self, bench, name, label, kill):
        super().__init__(bench, name, label)
        self.kill = kill

    def measure(self, meter):
        self.open(0)
        killer = Killer(self.service.keepers())
        if self.kill:
            killer.start()
        try:
            seconds = self.import_in(meter, 0)  # an error of the import is the row's failure
        finally:
            if self.kill:
                killer.stop()
        return {"first": seconds, "kills": killer.kills}


def killed_table(bench):
    rows = [Import(bench, "killed/never", "undisturbed", kill=False),
            Import(bench, "killed/often", "worker killed every 50 ms", kill=True)]
    columns = [Column("first", "first import", "s", ratio="× undisturbed"),
               Column("kills", "kills", "n")]
    return Table("killed", "Workers killed during an import", columns, rows, "killed/never",
                 ["on demand; the import must succeed, and its caches are cold"],
                 targets=[Target("worker killed every 50 ms", "killed/often", "first", 2.5,
                                 of="killed/never")])


def tables(bench):
    return [open_table(bench), many_table(bench), killed_table(bench)]
