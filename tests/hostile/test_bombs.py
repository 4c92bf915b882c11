# SPDX-License-Identifier: Apache-2.0
"""Archives that are small, or claim little, and want to become large (cases 25-28)."""
import gzip
import lzma
import os
import signal
import struct
import subprocess
import threading
import zlib

import pytest

from support import images, tars
from support.command import LIMIT, one_error_line, peak_memory, sanitized, thaw, thaw_fails
from support.tars import END, header, member

MIB = 1 << 20
TERABYTE = 1 << 40
# What packing may take, with all compressors' buffers; sanitizers add shadow and quarantine.
MEMORY = (1500 if sanitized() else 400) * MIB


def zstd_zeros(size, window_log=17):
    """A zstd frame of RLE blocks: 128 KiB of zeros for each four bytes."""
    frame = struct.pack("<IBB", 0xFD2FB528, 0, (window_log - 10) << 3)
    block = struct.pack("<I", 1 << 1 | (128 << 10) << 3)[:3] + b"\0"
    last = struct.pack("<I", 1 | 1 << 1 | (128 << 10) << 3)[:3] + b"\0"
    return frame + block * (size // (128 << 10) - 1) + last


def terabyte_header():
    return header(b"zeros", size=tars.base256(TERABYTE, 12))


def refuse_bomb(work, source, word, *options, input_file=None):
    before = sorted(work.iterdir())
    result, peak = peak_memory("pack", source, "-o", work / "out.thaw", *options,
                               input_file=input_file, timeout=120)
    assert result.code == LIMIT, repr(result)
    one_error_line(result, word)
    assert peak < MEMORY, f"{peak >> 20} MiB"
    assert sorted(work.iterdir()) == before
    return result


def test_25_terabyte_behind_a_small_zstd(work):
    path = work / "bomb.tar.zst"
    path.write_bytes(tars.zstd(terabyte_header()) + zstd_zeros(TERABYTE))
    assert path.stat().st_size < 34 * MIB
    refuse_bomb(work, path, "bytes|ratio")
    # The header's claim is refused at once; with that allowed, it is the ratio.
    refuse_bomb(work, path, "ratio", "--max-bytes=2T")
    refuse_bomb(work, path, "ratio", "--max-bytes=2T", "--max-ratio=1000")


def test_25_zeros_are_limited_without_a_claim(work):
    """Zeros behind the end marker belong to the stream, and no header announces them."""
    path = work / "bomb.tar.zst"
    path.write_bytes(tars.zstd(member(b"f") + END) + zstd_zeros(TERABYTE))
    refuse_bomb(work, path, "ratio")
    refuse_bomb(work, path, "bytes", "--max-bytes=200M", "--max-ratio=1000000")


def test_25_terabyte_behind_gzip_on_standard_input(work):
    """Members of 64 MiB of zeros without end: thaw must stop reading by itself."""
    zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = zeros.compress(bytes(64 * MIB)) + zeros.flush()
    read_end, write_end = os.pipe()

    def feed():
        with open(write_end, "wb", buffering=0) as stream:
            try:
                stream.write(gzip.compress(terabyte_header()))
                for _ in range(TERABYTE // (64 * MIB)):
                    stream.write(zeros)
            except BrokenPipeError:
                pass

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with open(read_end, "rb", buffering=0) as stream:
            refuse_bomb(work, "-", "ratio", "--max-bytes=2T", input_file=stream)
    finally:
        feeder.join(60)
    assert not feeder.is_alive()


def test_25_within_the_ratio_is_accepted(work):
    """64 MiB of zeros are an ordinary file: the ratio counts only beyond that."""
    path = work / "zeros.tar.gz"
    path.write_bytes(gzip.compress(tars.tar(member(b"zeros", bytes(60 * MIB))), 6))
    thaw("pack", path, "--quiet")
    assert len(thaw("cat", work / "zeros.thaw", "zeros").out) == 60 * MIB


@pytest.mark.parametrize("window_log", [28, 31])
def test_26_zstd_window(work, window_log):
    path = work / "window.tar.zst"
    path.write_bytes(zstd_zeros(128 << 10, window_log))
    refuse_bomb(work, path, "window")


def test_26_zstd_window_of_128_MiB_is_accepted(work):
    data = tars.tar(member(b"f", b"data"))
    path = work / "window.tar.zst"
    # One raw block behind a header that asks for a window of 2^27.
    path.write_bytes(struct.pack("<IBB", 0xFD2FB528, 0, (27 - 10) << 3)
                     + struct.pack("<I", 1 | len(data) << 3)[:3] + data)
    thaw("pack", path, "--quiet")


def xz_with_dictionary(data, size_code):
    """An .xz file whose block header claims this dictionary (40: 4 GiB - 1)."""
    packed = bytearray(lzma.compress(data, filters=[{"id": lzma.FILTER_LZMA2, "preset": 1}]))
    # Stream header 12 bytes; block header: size, flags, filter id 0x21, 1, dictionary, pad, CRC.
    assert packed[14:16] == b"\x21\x01", packed[12:24].hex()
    packed[16] = size_code
    size = (packed[12] + 1) * 4
    packed[12 + size - 4:12 + size] = struct.pack("<I", zlib.crc32(packed[12:12 + size - 4]))
    return bytes(packed)


def test_26_xz_dictionary_of_4_GiB(work):
    path = work / "dictionary.tar.xz"
    path.write_bytes(xz_with_dictionary(tars.tar(member(b"f", b"data")), 40))
    refuse_bomb(work, path, "dictionary|memory|window")


def test_26_xz_dictionary_of_64_MiB_is_accepted(work):
    """What xz -9 writes."""
    path = work / "dictionary.tar.xz"
    path.write_bytes(xz_with_dictionary(tars.tar(member(b"f", b"data")), 28))
    thaw("pack", path, "--quiet")


def test_27_entries(work):
    path = work / "many.tar"
    path.write_bytes(tars.tar(*(header(b"f%d" % i) for i in range(1000))))
    thaw("pack", path, "--quiet", "--max-entries=1000")
    (work / "many.thaw").unlink()
    thaw_fails(LIMIT, "entries", "pack", path, "--max-entries=999")
    assert not (work / "many.thaw").exists()


def test_27_entries_count_duplicates(work):
    """Otherwise ten million members of one name would cost their time for nothing."""
    path = work / "same.tar"
    path.write_bytes(header(b"same") * 2000 + END)
    thaw_fails(LIMIT, "entries", "pack", path, "--max-entries=1000")


def test_27_ten_million_entries_by_default(work):
    block = header(b"same") * 2048
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        try:
            for _ in range(10_000_000 // 2048 + 1):
                process.stdin.write(block)
            process.stdin.close()
        except BrokenPipeError:
            pass

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        refuse_bomb(work, "-", "entries", "--level=1", input_file=process.stdout)
    finally:
        process.stdout.close()
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        feeder.join(10)


def test_28_many_names_in_one_directory(work):
    """Sorted once, not searched: twice the names must not cost four times as much."""
    count = 50_000 if sanitized() else 200_000
    path = work / "wide.tar"
    # In an order that is the worst for keeping a sorted list.
    path.write_bytes(b"".join(header(b"d/%08d" % (count - i)) for i in range(count)) + END)
    thaw("pack", path, "--quiet", "--level=1", timeout=60)
    names = thaw("ls", work / "wide.thaw", "d").lines
    assert names == [b"%08d" % i for i in range(1, count + 1)]


@pytest.mark.parametrize("claim", [0xFFFFFFFF, 0x7FFFFFFF])
def test_index_that_claims_to_be_large(work, claim):
    """The index's raw size comes from an untrusted file: no allocation before a check."""
    path = work / "x.tar"
    path.write_bytes(tars.tar(member(b"f", b"1")))
    thaw("pack", path, "--quiet")
    image = images.load(work / "x.thaw")

    def edit(table):
        for i, part in enumerate(image.parts):
            if part.type == images.INDEX:
                struct.pack_into("<Q", table, images.TABLE_HEADER + i * images.PART_ENTRY + 24,
                                 claim)

    (work / "x.thaw").write_bytes(image.build(edit))
    result, peak = peak_memory("info", work / "x.thaw")
    assert result.code in (4, LIMIT), repr(result)
    assert peak < MEMORY
