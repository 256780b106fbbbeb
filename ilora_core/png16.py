"""16-bit PNG files with every colour type, which Pillow would cut to 8 bits.

Reading uses a property of the format: PNG filters work on single bytes that are one pixel apart, so the high bytes and
the low bytes of a 16-bit file are two valid filtered 8-bit streams. Both are handed to Pillow's decoder, which makes
this as fast as reading two 8-bit files. Format: W3C PNG specification, third edition, sections 5, 7 and 9.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["decode_png16", "encode_png", "is_png16"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # PNG colour type -> channels: grey, RGB, grey + alpha, RGBA
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def is_png16(head: bytes) -> bool:
    """Whether a file that starts with these bytes (26 are enough) is a PNG of 16 bits a channel."""
    return head[:8] == _SIGNATURE and len(head) > 24 and head[24] == 16


def decode_png16(data: bytes, *, max_pixels: int) -> np.ndarray:
    """The pixels of a 16-bit PNG as uint16 (H,W,C), C in 1 to 4. Raises ValueError that says what is wrong with it."""
    chunks = list(_chunks(data))
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels are more than the limit of {max_pixels}")
    if depth != 16 or colour not in _CHANNELS:
        raise ValueError(f"not a 16-bit PNG (bit depth {depth}, colour type {colour})")
    passes = _ADAM7 if interlaced else _WHOLE
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in passes]
    sizes = [(h, w) for h, w in sizes if h > 0 and w > 0]
    stream = _inflate(b"".join(body for kind, body in chunks if kind == b"IDAT"), sizes, _CHANNELS[colour])
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)
    high, low = (_decode8(header, half) for half in _halves(stream, sizes, _CHANNELS[colour]))
    return (high.astype(np.uint16) << 8) | low


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG file of uint8 or uint16 pixels (H,W,C), C in 1 to 4."""
    height, width, channels = pixels.shape
    depth = 8 * pixels.dtype.itemsize
    colour = {count: kind for kind, count in _CHANNELS.items()}[channels]
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    filtered = rows.copy()
    filtered[1:] -= rows[:-1]  # filter type 2, "Up": modulo 256
    stream = np.concatenate([np.full((height, 1), 2, np.uint8), filtered], 1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return _file(header, zlib.compress(stream, 6))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(_SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise ValueError("the file is truncated")
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        body = data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if len(checksum) < 4:
            raise ValueError("the file is truncated")
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack(">I", checksum)[0]:
            raise ValueError(f"the checksum of chunk {kind.decode('latin-1')} is wrong: the file is damaged")
        yield kind, body
        if kind == b"IEND":
            return
        position += 12 + length


def _inflate(packed: bytes, sizes: list[tuple[int, int]], channels: int) -> np.ndarray:
    """The filtered bytes. Never unpacks more than the header announces."""
    expected = sum(h * (1 + 2 * channels * w) for h, w in sizes)
    try:
        stream = zlib.decompressobj().decompress(packed, expected)
    except zlib.error as error:
        raise ValueError(f"its compressed data is damaged ({error})") from error
    if len(stream) != expected:
        raise ValueError("the file holds fewer pixels than its header says")
    return np.frombuffer(stream, np.uint8)


def _halves(stream: np.ndarray, sizes: list[tuple[int, int]], channels: int) -> tuple[bytes, bytes]:
    halves: tuple[list[bytes], list[bytes]] = ([], [])
    start = 0
    for height, width in sizes:
        stop = start + height * (1 + 2 * channels * width)
        rows = stream[start:stop].reshape(height, -1)
        for byte, parts in enumerate(halves):
            parts.append(np.concatenate([rows[:, :1], rows[:, 1 + byte :: 2]], 1).tobytes())
        start = stop
    return b"".join(halves[0]), b"".join(halves[1])


def _decode8(header: bytes, stream: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(_file(header, zlib.compress(stream, 0)))) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _file(header: bytes, packed: bytes) -> bytes:
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
