"""16-bit PNG: against Pillow where Pillow can, against itself for colour, and against every row filter."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ilora_core.png16 import _ADAM7, _file, decode_png16, encode_png, is_png16

LIMIT = 10**6


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_what_is_written_is_read(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (7, 5, channels), dtype=np.uint16)
    data = encode_png(pixels)
    assert is_png16(data[:32])
    np.testing.assert_array_equal(decode_png16(data, max_pixels=LIMIT), pixels)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_eight_bits_are_read_by_pillow(mode: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, len(mode)), dtype=np.uint8)
    with Image.open(io.BytesIO(encode_png(pixels))) as image:
        assert image.mode == mode
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


def test_grey_agrees_with_pillow() -> None:
    pixels = np.random.default_rng(2).integers(0, 65536, (8, 8), dtype=np.uint16)
    with Image.open(io.BytesIO(encode_png(pixels[..., None]))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    np.testing.assert_array_equal(decode_png16(file.getvalue(), max_pixels=LIMIT)[..., 0], pixels)


def _filtered(rows: np.ndarray, kind: int, step: int) -> np.ndarray:
    """The specification's five filters, byte by byte (W3C PNG, section 9.2)."""
    height, width = rows.shape
    out = np.zeros((height, width + 1), np.uint8)
    out[:, 0] = kind
    for y in range(height):
        for x in range(width):
            a = int(rows[y, x - step]) if x >= step else 0
            b = int(rows[y - 1, x]) if y else 0
            c = int(rows[y - 1, x - step]) if y and x >= step else 0
            p = a + b - c
            near = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            out[y, x + 1] = (int(rows[y, x]) - (0, a, b, (a + b) // 2, near)[kind]) % 256
    return out


@pytest.mark.parametrize("kind", range(5))
@pytest.mark.parametrize("interlaced", [0, 1])
def test_every_filter_and_interlacing(kind: int, interlaced: int) -> None:
    pixels = np.random.default_rng(kind).integers(0, 65536, (11, 6, 3), dtype=np.uint16)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in passes]
    stream = b"".join(
        _filtered(part.astype(">u2").view(np.uint8).reshape(part.shape[0], -1), kind, 6).tobytes()
        for part in parts
        if part.size
    )
    header = struct.pack(">IIBBBBB", 6, 11, 16, 2, 0, 0, interlaced)
    np.testing.assert_array_equal(decode_png16(_file(header, zlib.compress(stream)), max_pixels=LIMIT), pixels)


def test_damage_is_named() -> None:
    data = encode_png(np.full((20, 20, 3), 700, np.uint16))
    with pytest.raises(ValueError, match="truncated"):
        decode_png16(data[: len(data) // 2], max_pixels=LIMIT)
    with pytest.raises(ValueError, match="limit"):
        decode_png16(data, max_pixels=100)
    flipped = bytearray(data)
    flipped[50] ^= 255
    with pytest.raises(ValueError, match="checksum"):
        decode_png16(bytes(flipped), max_pixels=LIMIT)
    short = _file(struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0), zlib.compress(b"\0" * 50))
    with pytest.raises(ValueError, match="fewer pixels"):
        decode_png16(short, max_pixels=LIMIT)
