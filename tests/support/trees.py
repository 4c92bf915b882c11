# SPDX-License-Identifier: Apache-2.0
"""
Trees as oracles: a seeded random tree on disk, what it must look like when
served, and what really stands under a directory. Names are bytes throughout.

Also a program, for readers in processes of their own:
python3 trees.py DIR prints one digest over all names and contents.
"""
import dataclasses
import hashlib
import os
import random
import stat
import sys

MTIME_MAX = 2**32 - 1


@dataclasses.dataclass
class Entry:
    """What can be seen of one name. links: every name of the same file, for hard links."""
    kind: str
    mode: int
    mtime: int
    size: int = 0
    digest: str = ""
    target: bytes = b""
    nlink: int = 1
    links: tuple = ()


def served_mode(kind, mode):
    """The normalised attributes that an image serves (doc/format.md)."""
    if kind == "directory":
        return 0o755
    if kind == "symlink":
        return 0o777
    return 0o444 | (mode & 0o200) | (0o111 if mode & 0o100 else 0)


def served(tree):
    """What a snapshot of the source must look like through an image."""
    result = {}
    for path, entry in tree.items():
        result[path] = dataclasses.replace(
            entry, mode=served_mode(entry.kind, entry.mode),
            mtime=min(max(entry.mtime, 0), MTIME_MAX))
    return result


def read_all(path):
    with open(path, "rb", buffering=0) as stream:
        return stream.readall()


def snapshot(root, contents=True):
    """{path: Entry} of everything below root, b"." for root itself."""
    root = os.fsencode(root)
    result, inodes = {}, {}

    def look(path, shown):
        status = os.lstat(path)
        # Whole seconds, rounded down, also before 1970.
        entry = Entry("", stat.S_IMODE(status.st_mode), status.st_mtime_ns // 10**9)
        if stat.S_ISDIR(status.st_mode):
            entry.kind = "directory"
        elif stat.S_ISLNK(status.st_mode):
            entry.kind, entry.target = "symlink", os.readlink(path)
            entry.size = status.st_size
        elif stat.S_ISREG(status.st_mode):
            entry.kind, entry.size, entry.nlink = "file", status.st_size, status.st_nlink
            inodes.setdefault(status.st_ino, []).append(shown)
            if contents:
                data = read_all(path)
                assert len(data) == status.st_size, (path, len(data), status.st_size)
                entry.digest = hashlib.sha256(data).hexdigest()
        else:
            entry.kind = f"other {stat.S_IFMT(status.st_mode):o}"
        result[shown] = entry
        if entry.kind == "directory":
            for name in os.listdir(path):
                look(path + b"/" + name, name if shown == b"." else shown + b"/" + name)

    look(root, b".")
    for names in inodes.values():
        if len(names) > 1:
            for name in names:
                result[name].links = tuple(sorted(names))
    return result


def differences(expected, actual, ignore=(), limit=20):
    """Lines about what differs; empty when the same."""
    lines = []
    for path in sorted(expected.keys() | actual.keys()):
        if path not in actual:
            lines.append(f"missing: {path!r}")
        elif path not in expected:
            lines.append(f"unexpected: {path!r}")
        else:
            for field in dataclasses.fields(Entry):
                want, got = (getattr(t[path], field.name) for t in (expected, actual))
                if field.name not in ignore and want != got:
                    lines.append(f"{path!r}: {field.name} {got!r} instead of {want!r}")
    return lines[:limit] + ([f"... {len(lines)} differences"] if len(lines) > limit else [])


def assert_same(expected, actual, ignore=()):
    lines = differences(expected, actual, ignore)
    assert not lines, "\n".join(lines)


def content(generator, size):
    """Bytes that are compressible in part, and different at every offset."""
    data = bytearray()
    while len(data) < size:
        run = min(size - len(data), generator.choice((37, 700, 4096, 70000)))
        if generator.random() < 0.5:
            data += generator.randbytes(run)
        else:
            word = generator.randbytes(generator.randint(1, 9))
            data += (word * (run // len(word) + 1))[:run]
    return bytes(data)


# Around the sizes where blocks, pages and frames begin.
SIZES = (0, 0, 1, 2, 100, 511, 512, 513, 1023, 1024, 4095, 4096, 4097, 30000, 65535, 65536, 65537,
         131072, 262143, 262144, 262145, 300001, 700000)
MODES = (0o644, 0o755, 0o600, 0o700, 0o444, 0o555, 0o400, 0o4755, 0o2755, 0o640, 0o666, 0o777,
         0o000, 0o100)
ALPHABETS = (b"abcdefghijklmnopqrstuvwxyz_", b"ABCxyz0123456789-+.~ ",
             bytes(set(range(1, 256)) - {ord("/")}), b" \t\n'\"\\%$*?")


def random_name(generator, taken):
    while True:
        length = generator.choice((1, 3, 8, 12, 20, 60, 100, 101, 155, 255))
        alphabet = generator.choice(ALPHABETS)
        name = bytes(generator.choice(alphabet) for _ in range(length))
        if name not in (b".", b"..") and name not in taken:
            return name


def random_tree(root, seed, entries=150):
    """Build a tree below root, which is made. The seed decides everything but hole sizes."""
    generator = random.Random(seed)
    root = os.fsencode(root)
    os.mkdir(root)
    directories, files, links, taken = [root], [], [], set()
    stamps = []
    for _ in range(entries):
        parent = generator.choice(directories)
        name = random_name(generator, taken)
        path = parent + b"/" + name
        if len(path) - len(root) > 2000:
            continue
        taken.add(name)
        what = generator.random()
        if what < 0.2:
            os.mkdir(path)
            directories.append(path)
        elif what < 0.3:
            target = generator.choice((b"nowhere", b"../up", b"/absolute/path", b"loop",
                                       generator.choice(taken_list(taken)), b"t" * 300))
            os.symlink(target, path)
            links.append(path)
        elif what < 0.4 and files:
            os.link(generator.choice(files), path)
        else:
            with open(path, "wb") as stream:
                stream.write(content(generator, generator.choice(SIZES)))
            # Only root can read what its owner may not.
            os.chmod(path, generator.choice(MODES) | (0o400 if os.geteuid() else 0))
            files.append(path)
        stamps.append((path, random_time(generator)))
    # Parents after children, since a new entry touches its directory.
    for path, when in reversed(stamps):
        os.utime(path, ns=(when, when), follow_symlinks=False)
    when = random_time(generator)
    os.utime(root, ns=(when, when))


def taken_list(taken):
    return sorted(taken)


def random_time(generator):
    seconds = generator.choice((0, 1, 315532800, 1700000000, 2**31 - 1, 2**31, 2**32 - 1,
                                generator.randrange(2**32)))
    return seconds * 10**9 + generator.choice((0, 1, 500_000_000, 999_999_999))


def digest(root):
    """One digest over names, kinds and contents."""
    total = hashlib.sha256()
    for path, entry in sorted(snapshot(root).items()):
        total.update(repr((path, entry.kind, entry.size, entry.digest, entry.target)).encode())
    return total.hexdigest()


if __name__ == "__main__":
    print(digest(sys.argv[1]))
