# SPDX-License-Identifier: Apache-2.0
"""What this machine does besides the work that is measured, and the state it is put into."""

import glob
import hashlib
import os
import platform
import re
import time

from . import spawn

TICK = os.sysconf("SC_CLK_TCK")
# Of one CPU, used by others while a run was measured. Kernel threads that work for a row (write
# back, loop devices) are counted among the others, so this cannot be near zero.
FOREIGN_LIMIT = 0.15
QUIET_LIMIT = 0.06
LOAD_LIMIT = 0.7
SPIN_LIMIT = 1.10


def busy_seconds():
    """CPU seconds that all processors together have not been idle since boot."""
    with open("/proc/stat", encoding="ascii") as stream:
        fields = [int(word) for word in stream.readline().split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / TICK


def page_cache_bytes(path="/proc/meminfo"):
    with open(path, encoding="ascii") as stream:
        info = dict(line.split(":", 1) for line in stream)
    # Shmem is counted as Cached, but is no file's page.
    return 1024 * sum(int(info[key].split()[0]) * sign for key, sign in
                      (("Cached", 1), ("Buffers", 1), ("Shmem", -1)))


def wait_until_quiet(limit):
    """Wait, at most limit seconds, for half a second in which the machine idles."""
    end = time.monotonic() + limit
    while True:
        busy, start = busy_seconds(), time.monotonic()
        time.sleep(0.5)
        if (busy_seconds() - busy) / (time.monotonic() - start) < QUIET_LIMIT:
            return True
        if time.monotonic() > end:
            return False


def spin():
    """Seconds that a fixed piece of work takes: it grows when others take the CPU or its clock."""
    data, digest = b"\0" * (1 << 20), hashlib.sha256()
    start = time.monotonic()
    for _ in range(24):
        digest.update(data)
    return time.monotonic() - start


def can_drop_caches():
    return os.access("/proc/sys/vm/drop_caches", os.W_OK)


def drop_caches():
    os.sync()
    if can_drop_caches():
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as stream:
            stream.write("3\n")


def takes_idle_pages():
    """Whether the kernel empties caches by itself (DAMON): what was read may be read again."""
    for path in glob.glob("/sys/kernel/mm/damon/admin/kdamonds/*/state") + \
            ["/sys/module/damon_reclaim/parameters/enabled"]:
        try:
            with open(path, encoding="ascii") as stream:
                if stream.read().strip() in ("on", "Y"):
                    return True
        except OSError:
            pass  # a kernel without it, or not for us to see
    return False


def read_into_cache(path):
    """Read a file, or every file below a directory, so that its pages and names are cached."""
    buffer = bytearray(1 << 20)

    def one(name):
        try:
            with open(name, "rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass
        except OSError:
            pass  # A hint: what cannot be read here fails loudly in the row that needs it.

    if os.path.isdir(path):
        for folder, _, names in os.walk(path):
            for name in names:
                if not os.path.islink(os.path.join(folder, name)):
                    one(os.path.join(folder, name))
    else:
        one(path)


def libraries(program):
    """The shared libraries that a program asks for, resolved."""
    try:
        text = spawn.output(["ldd", program])
    except spawn.Failed:
        return []  # a script, or a static executable
    return [os.path.realpath(path) for path in re.findall(r"(/\S+) \(0x", text)]


def foreign_files(python, code, below):
    """Files outside of a tree that a Python program maps: no row should pay for reading them."""
    probe = code + "\nfor line in open('/proc/self/maps'): print(line.split()[-1])"
    lines = set(spawn.output([python, "-I", "-c", probe]).splitlines())
    below = os.path.realpath(below) + os.sep
    return sorted(path for path in lines
                  if path.startswith("/") and not path.startswith(below) and os.path.isfile(path))


class Cgroup:
    """A cgroup around one run: the CPU time of all that it started, daemons included.

    Only the unified hierarchy's own accounting is used, which needs no controller. Where no
    cgroup can be made, everything that was busy on the machine is counted instead.
    """

    def __init__(self):
        self.path = self.home = None
        self.start_busy = 0.0
        root = self._root()
        if not root:
            return
        with open("/proc/self/cgroup", encoding="ascii") as stream:
            own = [line.rstrip("\n")[3:] for line in stream if line.startswith("0::")]
        home = root + (own[0] if own else "/")
        path = os.path.join(home, "thaw-bench-%d" % os.getpid())
        try:
            os.mkdir(path)
            with open(path + "/cpu.stat", encoding="ascii") as stream:
                if "usage_usec" not in stream.read():
                    raise OSError("no accounting")
            with open(path + "/cgroup.procs", "w", encoding="ascii") as stream:
                stream.write("0")
            with open(home + "/cgroup.procs", "w", encoding="ascii") as stream:
                stream.write("0")
        except OSError:
            if os.path.isdir(path):
                os.rmdir(path)
            return
        os.rmdir(path)
        self.path, self.home = path, home

    @staticmethod
    def _root():
        with open("/proc/self/mounts", encoding="utf-8") as stream:
            for line in stream:
                words = line.split()
                if words[2] == "cgroup2":
                    return words[1]
        return None

    def _move(self, where):
        with open(where + "/cgroup.procs", "w", encoding="ascii") as stream:
            stream.write("0")

    def enter(self):
        self.start_busy = busy_seconds()
        if self.path:
            os.makedirs(self.path, exist_ok=True)
            self._move(self.path)

    def leave(self):
        if self.path:
            self._move(self.home)

    def cpu_seconds(self, path=None):
        """Used so far; or what a copy of the group's cpu.stat at this path says."""
        if not self.path:
            return busy_seconds() - self.start_busy
        with open(path or self.path + "/cpu.stat", encoding="ascii") as stream:
            values = dict(line.split() for line in stream)
        return int(values["usage_usec"]) / 1e6

    def daemons(self):
        """Processes of the run other than this one."""
        if not self.path or not os.path.isdir(self.path):
            return []
        with open(self.path + "/cgroup.procs", encoding="ascii") as stream:
            return [int(line) for line in stream if int(line) != os.getpid()]

    def close(self, patience=5.0):
        """Remove the cgroup once its processes have ended. False when some would not."""
        if not self.path or not os.path.isdir(self.path):
            return True
        end = time.monotonic() + patience
        while self.daemons() and time.monotonic() < end:
            time.sleep(0.02)
        left = self.daemons()
        if left:
            with open(self.path + "/cgroup.kill", "w", encoding="ascii") as stream:
                stream.write("1")
            while self.daemons() and time.monotonic() < end + patience:
                time.sleep(0.02)
        try:
            os.rmdir(self.path)
        except OSError:
            return False
        return not left


def memory_of(pid):
    """Peak resident and present anonymous memory of a process in bytes, and its name."""
    with open("/proc/%d/status" % pid, encoding="utf-8") as stream:
        status = dict(line.split(":", 1) for line in stream)
    return {
        "name": status["Name"].strip(),
        "peak": 1024 * int(status["VmHWM"].split()[0]) if "VmHWM" in status else 0,
        "anonymous": 1024 * int(status["RssAnon"].split()[0]) if "RssAnon" in status else 0,
    }


def description():
    """What a reader needs to know about the machine; no names of it."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        memory = int(stream.readline().split()[1])
    return {
        "cpus": os.cpu_count(),
        "memory_gib": round(memory / (1 << 20)),
        "kernel": platform.release().split("-")[0],
        "machine": platform.machine(),
    }
