# SPDX-License-Identifier: Apache-2.0
"""Archives cut short (case 18): malformed at every length, never a partial image."""
import random

import pytest

from support import tars
from support.command import DAMAGED, one_error_line, sanitized, thaw
from support.tars import directory, hardlink, member, pax, symlink, tar

DATA = tar(directory(b"d"), member(b"d/f", bytes(range(256)) * 8), pax(mtime=b"1.5"),
           member(b"g", b"x" * 700), symlink(b"l", b"g"), hardlink(b"h", b"g"),
           tars.gnu_long(b"L", b"n" * 150), member(b"cut"))


def cut_short(work, data, length):
    source = work / "cut.tar"
    source.write_bytes(data[:length])
    result = thaw("pack", source, "-o", work / "out.thaw", "--quiet", code=None)
    assert result.code == DAMAGED, f"cut at {length} of {len(data)}: {result!r}"
    one_error_line(result)
    assert sorted(p.name for p in work.iterdir()) == ["cut.tar"], f"left behind at {length}"


def test_at_every_block_and_around(work):
    step = 1024 if sanitized() else 512
    # One block of the two at the end missing is malformed as well.
    for length in range(0, len(DATA), step):
        cut_short(work, DATA, length)
    for length in (1, 257, 511, 513, 1100, len(DATA) - 1):
        cut_short(work, DATA, length)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst", "tar.xz", "tar.bz2"])
def test_inside_the_compressed_stream(work, kind):
    data = tars.COMPRESSORS[kind](DATA)
    generator = random.Random(18)
    lengths = {1, 3, len(data) // 2, len(data) - 1, len(data) - 2, len(data) - 5, len(data) - 9}
    lengths |= {generator.randrange(1, len(data)) for _ in range(6)}
    for length in sorted(lengths):
        cut_short(work, data, length)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.zst", "tar.xz", "tar.bz2"])
def test_flipped_bits_in_the_compressed_stream(work, kind):
    """Either a checksum notices, or the bytes were not the data's: never another tree."""
    options = ["--check"] if kind == "tar.zst" else []
    data = tars.zstd(DATA, *options) if options else tars.COMPRESSORS[kind](DATA)
    generator = random.Random(kind)
    source, image = work / "bad.tar", work / "out.thaw"
    for _ in range(12):
        damaged = bytearray(data)
        damaged[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        source.write_bytes(damaged)
        result = thaw("pack", source, "-o", image, "--quiet", code=None)
        if result.code == 0:
            assert tars.unzstd(image.read_bytes()) == DATA
            image.unlink()
        else:
            assert result.code in (3, 4, 5), repr(result)
            one_error_line(result)
        assert not image.exists()
