# SPDX-License-Identifier: Apache-2.0
"""What a mount does and refuses, call by call."""
import ctypes
import errno
import os
import socket
import stat

import pytest

from support.command import run, thaw
from support.mounts import mount_at, mounted
from support.tars import directory, hardlink, member, symlink, tar

pytestmark = pytest.mark.fuse

DATA = b"some data\n" * 1000


@pytest.fixture
def mount(work):
    (work / "x.tar").write_bytes(tar(
        directory(b"dir", mtime=1000), directory(b"dir/sub"), member(b"dir/file", DATA, mtime=99),
        member(b"dir/program", b"#!/bin/sh\necho ran\n", mode=0o755),
        hardlink(b"dir/sub/again", b"dir/file"), symlink(b"link", b"dir/file"),
        symlink(b"loop", b"loop"), symlink(b"a", b"b"), symlink(b"b", b"a"),
        symlink(b"dangling", b"nowhere"), *(member(b"many/%03d" % i) for i in range(600))))
    thaw("pack", work / "x.tar", "--quiet")
    with mounted(work / "x.thaw", work / "mnt") as mount:
        yield mount


def refusal(call, *args, **options):
    with pytest.raises(OSError) as caught:
        call(*args, **options)
    return errno.errorcode[caught.value.errno]


def test_links(mount):
    path = mount.path
    assert os.readlink(path / "link") == "dir/file"
    assert (path / "link").read_bytes() == DATA
    assert os.lstat(path / "link").st_size == len("dir/file")
    assert refusal(os.stat, path / "loop") == "ELOOP"
    assert refusal(os.open, path / "a", os.O_RDONLY) == "ELOOP"
    assert refusal(os.stat, path / "dangling") == "ENOENT"
    one, two = os.stat(path / "dir/file"), os.stat(path / "dir/sub/again")
    assert one.st_ino == two.st_ino and one.st_nlink == two.st_nlink == 2


def test_attributes(mount):
    status = os.stat(mount.path / "dir/file")
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
    assert status.st_mtime_ns == 99 * 10**9
    assert status.st_size == len(DATA)
    assert 0 < status.st_blocks * 512 < len(DATA) + 8192
    root = os.stat(mount.path)
    assert stat.S_ISDIR(root.st_mode) and root.st_ino == 1
    assert os.stat(mount.path / "dir").st_nlink in (1, 3)


def test_every_inode_number_is_its_own_and_that_of_readdir(mount):
    seen = {}
    for base, directories, files in os.walk(mount.path):
        for entry in os.scandir(base):
            status = entry.stat(follow_symlinks=False)
            assert entry.inode() == status.st_ino, entry.path
            seen.setdefault(status.st_ino, []).append(entry.path)
    shared = [names for names in seen.values() if len(names) > 1]
    assert len(shared) == 1 and len(shared[0]) == 2


def test_programs_run(mount):
    assert run(mount.path / "dir/program").out == b"ran\n"


def test_missing_names_stay_missing(mount):
    for _ in range(3):
        for name in ("nothing", "dir/nothing", "many/600", "dir/file/below"):
            want = "ENOTDIR" if name.endswith("below") else "ENOENT"
            assert refusal(os.stat, mount.path / name) == want
    assert (mount.path / "dir/file").exists()


def test_every_write_is_refused(mount):
    path = mount.path
    file, folder, new = path / "dir/file", path / "dir", path / "dir/new"

    def opened(target, flags):
        return lambda: os.close(os.open(target, flags, 0o644))

    writes = {
        "write": opened(file, os.O_WRONLY), "read and write": opened(file, os.O_RDWR),
        "append": opened(file, os.O_WRONLY | os.O_APPEND),
        "open and truncate": opened(file, os.O_WRONLY | os.O_TRUNC),
        "create": opened(new, os.O_WRONLY | os.O_CREAT),
        "create exclusively": opened(new, os.O_RDWR | os.O_CREAT | os.O_EXCL),
        "unnamed file": opened(folder, os.O_RDWR | os.O_TMPFILE),
        "truncate": lambda: os.truncate(file, 0), "mkdir": lambda: os.mkdir(new),
        "rmdir": lambda: os.rmdir(path / "dir/sub"), "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, new), "link": lambda: os.link(file, new),
        "symlink": lambda: os.symlink("x", new), "mkfifo": lambda: os.mkfifo(new),
        "chmod": lambda: os.chmod(file, 0o600),
        "chown": lambda: os.chown(file, os.geteuid(), os.getegid()),
        "utime": lambda: os.utime(file), "utime of a directory": lambda: os.utime(folder, (1, 1)),
        "setxattr": lambda: os.setxattr(file, "user.x", b"1"),
        "removexattr": lambda: os.removexattr(file, "user.x"),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(new)),
    }
    failures = {name: refusal(call) for name, call in writes.items()}
    assert set(failures.values()) == {"EROFS"}, failures
    assert os.access(file, os.W_OK) is False
    # Opening what exists with O_CREAT for reading is no write.
    os.close(os.open(file, os.O_RDONLY | os.O_CREAT))
    assert file.read_bytes() == DATA


def test_no_extended_attributes(mount):
    file = mount.path / "dir/file"
    for _ in range(2):
        assert refusal(os.getxattr, file, "user.x") == "ENOTSUP"
        assert refusal(os.getxattr, file, "security.capability") == "ENOTSUP"
    try:
        assert os.listxattr(file) == []
    except OSError as error:
        assert error.errno == errno.EOPNOTSUPP


def test_statfs_is_sensible(mount):
    status = os.statvfs(mount.path)
    size = sum(f.stat().st_size for f in (mount.path / "dir").iterdir() if f.is_file())
    total = status.f_blocks * status.f_frsize
    assert size <= total < size + (1 << 20)
    assert status.f_bfree == status.f_bavail == status.f_ffree == status.f_favail == 0
    assert 600 < status.f_files < 700
    assert status.f_namemax == 255
    assert status.f_flag & os.ST_RDONLY and status.f_flag & os.ST_NOSUID
    # df prints it and exits 0.
    assert b"100%" in run("df", mount.path).out


def test_source_shows_the_identity(mount):
    info = thaw("info", mount.image).text
    entry = mount_at(mount.path)
    assert entry.type == "fuse.thaw"
    prefix, _, identity = entry.source.rpartition(":")
    assert prefix == "thaw:sha256" and len(identity) == 64 and identity in info
    assert {"ro", "nosuid", "nodev"} <= set(entry.options)
    found = run("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", mount.path).text
    source, kind, options = found.split()
    assert (source, kind) == (entry.source, "fuse.thaw")
    assert {"ro", "nosuid", "nodev"} <= set(options.split(","))


class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("reclen", ctypes.c_ushort),
                ("type", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.restype = ctypes.POINTER(Dirent)
for name in ("readdir", "closedir", "telldir", "rewinddir"):
    getattr(LIBC, name).argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


def entries(stream):
    """(where to seek to, name, type, inode) of each entry, "." and ".." included."""
    result = []
    while True:
        where = LIBC.telldir(stream)
        entry = LIBC.readdir(stream)
        if not entry:
            return result
        found = entry.contents
        result.append((where, found.name, found.type, found.ino))


def test_readdir_is_stable_and_can_seek(mount):
    stream = LIBC.opendir(os.fsencode(mount.path / "many"))
    assert stream
    try:
        first = entries(stream)
        LIBC.rewinddir(stream)
        assert entries(stream) == first
        names = [name for _, name, _, _ in first]
        assert len(names) == len(set(names)) == 602
        assert sorted(names)[:2] == [b".", b".."]
        for position in (601, 0, 300, 1, 2, 599, 17):
            LIBC.seekdir(stream, first[position][0])
            assert entries(stream)[0][1] == first[position][1]
    finally:
        LIBC.closedir(stream)
    assert [e.name for e in os.scandir(mount.path / "many")] == [
        e.name for e in os.scandir(mount.path / "many")]


def test_dot_and_dotdot(mount):
    stream = LIBC.opendir(os.fsencode(mount.path / "dir/sub"))
    try:
        found = {name: (kind, ino) for _, name, kind, ino in entries(stream)}
    finally:
        LIBC.closedir(stream)
    own, parent = os.stat(mount.path / "dir/sub").st_ino, os.stat(mount.path / "dir").st_ino
    directory_type, file_type = 4, 8
    assert found[b"."] == (directory_type, own)
    assert found[b".."] == (directory_type, parent)
    assert found[b"again"][0] == file_type
    assert os.stat(mount.path / "dir/sub/..").st_ino == parent
    assert (mount.path / "dir/sub/../file").read_bytes() == DATA


def test_directories_cannot_be_read_as_files(mount):
    descriptor = os.open(mount.path / "dir", os.O_RDONLY)
    try:
        assert refusal(os.read, descriptor, 10) == "EISDIR"
    finally:
        os.close(descriptor)
    assert refusal(os.listdir, mount.path / "dir/file") == "ENOTDIR"
