"""Masks as small pictures that lie over an image: translucent fills, a crisp contour of the truth, hatched pixels.

The picture of a case is stored once and masks are transparent PNGs of few colours, so that a page with hundreds of them
stays small. Colours are fixed, not those of the theme, because they lie over images. Beyond eight structures they come
again with stripes, so that no two structures are told apart by similar colours.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixlab.studies.report.arrays import IGNORED

Bits = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

#: Colours of structures: the Okabe-Ito palette in its bright shades, without grey.
COLOURS = ("#e69f00", "#56b4e9", "#d55e00", "#009e73", "#f0e442", "#cc79a7", "#0072b2", "#ffffff")
#: How fills past the first eight structures are cut: direction of the stripes.
PATTERNS = ("plain", "falling", "rising", "level", "upright")
#: Opacity of a fill, and of what lies over ignored pixels.
FILL, VEIL = 0.35, 0.6
#: Overlays are drawn this wide or high at least, so that contours are thin beside the pixels of small images.
DRAWN = 320
#: Width of contours and of their dark casing, and period of stripes, as shares of the drawn size.
LINE, CASING, PERIOD = 0.007, 0.003, 0.045
#: Number of colours of a palette.
PALETTE = 256


def colour_of(structure: int) -> str:
    """The colour of a structure."""
    return COLOURS[structure % len(COLOURS)]


def pattern_of(structure: int) -> str:
    """How the fill of a structure is cut."""
    return PATTERNS[structure // len(COLOURS) % len(PATTERNS)]


def planes(mask: Bytes, structures: int, background: int | None) -> Bits:
    """A mask as one plane a structure, ``(K, H, W)``.

    Args:
        mask: Class numbers ``(H, W)``, 255 ignored; of structures that overlap ``(K, H, W)`` of 0 and 1.
        structures: K.
        background: The class that is no structure, or None.
    """
    if mask.ndim == 3:
        return mask == 1
    classes = [number for number in range(structures + (background is not None)) if number != background]
    return mask == np.array(classes, dtype=np.uint8)[:, None, None]


def ignored(mask: Bytes) -> Bits:
    """The pixels of a mask that count for nothing, ``(H, W)``."""
    return mask == IGNORED if mask.ndim == 2 else (mask == IGNORED).any(axis=0)


def overlay(fill: Bits, contour: Bits, veil: Bits) -> str:
    """A ``data:`` URI of a PNG to lie over an image.

    Args:
        fill: Structures to fill, ``(K, H, W)``.
        contour: Structures whose border is drawn, ``(K, H, W)``.
        veil: Pixels that count for nothing, ``(H, W)``: dimmed and hatched.
    """
    height, width = veil.shape
    times = max(1, -(-DRAWN // max(height, width)))
    size = times * max(height, width)
    painted = _filled(fill, times, size)
    if veil.any():
        _draw_veil(painted, _larger(veil, times), size)
    _draw_contours(painted, contour, times, size)
    return _uri(_indexed(painted))


def image_uri(image: Bytes) -> str:
    """An image ``(H, W)`` or ``(H, W, 3)`` as a ``data:`` URI: a PNG of grey levels, or of 256 colours."""
    from PIL import Image

    picture = Image.fromarray(image)
    if picture.mode == "RGB":
        picture = picture.quantize(PALETTE, dither=Image.Dither.NONE)
    return _uri(picture)


def _uri(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _larger(pixels: NDArray[Any], times: int) -> NDArray[Any]:
    return pixels.repeat(times, axis=-2).repeat(times, axis=-1)


def _filled(fill: Bits, times: int, size: int) -> Bytes:
    """The fills, ``(H, W, 4)``. Colours are mixed for the few combinations of structures that occur, not for pixels."""
    combinations, which = _combinations(fill)
    cut = PATTERNS[1 : 1 + (len(fill) - 1) // len(COLOURS)]
    # Bit b of a pixel's phase says whether fills of the b-th cut pattern are seen there.
    phase = np.zeros([times * side for side in fill.shape[1:]], dtype=np.int64)
    for bit, pattern in enumerate(cut):
        phase |= _stripes(pattern, phase.shape, size).astype(np.int64) << bit
    phases = 1 << len(cut)
    colours = np.zeros((len(combinations) * phases, 4), dtype=np.uint8)
    for number, combination in enumerate(combinations):
        bits = [(k, PATTERNS.index(pattern_of(k)) - 1) for k in combination]
        for p in range(phases):
            colours[number * phases + p] = _mixed([k for k, bit in bits if bit < 0 or p >> bit & 1])
    return colours[_larger(which, times) * phases + phase]


def _combinations(fill: Bits) -> tuple[list[list[int]], NDArray[np.int64]]:
    """Which structures lie on one another anywhere, and for each pixel which of these combinations it has."""
    code = np.zeros(fill.shape[1:], dtype=np.int64)
    for start in range(0, len(fill), 32):  # 32 bits at a time: any number of structures fits into an integer
        some = fill[start : start + 32]
        bits = np.tensordot(1 << np.arange(len(some)), some.astype(np.int64), axes=1)
        code = np.unique(code << 32 | bits, return_inverse=True)[1].reshape(code.shape)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    columns = fill.reshape(len(fill), -1)[:, first].T
    return [np.flatnonzero(column).tolist() for column in columns], which.reshape(code.shape)


def _stripes(pattern: str, shape: tuple[int, ...], size: int) -> Bits:
    """The part of each pixel's fill that stays, ``(H, W)``; about half of all pixels."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    along = {"falling": x - y, "rising": x + y, "level": y + 0 * x, "upright": x + 0 * y}
    period = max(4, round(PERIOD * size))
    return np.asarray(along[pattern] % period < period // 2 + 1)


def _mixed(structures: list[int]) -> tuple[int, int, int, int]:
    """The colour of structures that lie on one another: their mean, more opaque with each."""
    if not structures:
        return 0, 0, 0, 0
    red, green, blue = (
        round(sum(shades) / len(shades)) for shades in zip(*(_rgb(colour_of(k)) for k in structures), strict=True)
    )
    return red, green, blue, round(255 * (1 - (1 - FILL) ** min(len(structures), 3)))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _draw_veil(painted: Bytes, veil: Bits, size: int) -> None:
    """Dim pixels that count for nothing, and hatch them both ways."""
    lines = np.zeros(veil.shape, dtype=bool)
    y, x = np.ogrid[: veil.shape[0], : veil.shape[1]]
    period, width = max(6, round(2 * PERIOD * size)), max(1, round(LINE * size))
    for along in (x + y, x - y):
        lines |= along % period < width
    under = veil & ~lines
    painted[under, :3] = painted[under, :3] // 3  # what was predicted there stays visible, darkly
    painted[under, 3] = np.maximum(painted[under, 3], round(255 * VEIL))
    painted[veil & lines] = (190, 190, 190, 190)


def _draw_contours(painted: Bytes, contour: Bits, times: int, size: int) -> None:
    """A line inside the border of each structure and dark ones on its sides, all dark ones first."""
    line, casing = max(1, round(LINE * size)), max(1, round(CASING * size))
    there = [(k, _larger(plane, times)) for k, plane in enumerate(contour) if plane.any()]
    for _, plane in there:
        painted[_grown(plane, casing) & ~_shrunk(plane, line + casing)] = (0, 0, 0, 120)
    for k, plane in there:
        painted[plane & ~_shrunk(plane, line)] = (*_rgb(colour_of(k)), 255)


def _shrunk(plane: Bits, by: int) -> Bits:
    """The pixels farther than ``by`` from the outside; beyond the image is outside, so that contours are closed."""
    for _ in range(by):
        wide = np.pad(plane, 1)
        plane = plane & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return plane


def _grown(plane: Bits, by: int) -> Bits:
    for _ in range(by):
        wide = np.pad(plane, 1)
        plane = plane | wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
    return plane


def _indexed(painted: Bytes) -> Any:
    """RGBA pixels as a picture with a palette, where its colours fit into one."""
    from PIL import Image

    codes = np.ascontiguousarray(painted).view(np.uint32)[..., 0]
    colours, which = np.unique(codes, return_inverse=True)
    if len(colours) > PALETTE:
        return Image.fromarray(painted).quantize(PALETTE, method=Image.Quantize.FASTOCTREE)
    table = colours.view(np.uint8).reshape(-1, 4)
    picture = Image.fromarray(which.reshape(codes.shape).astype(np.uint8))
    picture.putpalette(table[:, :3].tobytes())
    picture.info["transparency"] = table[:, 3].tobytes()
    return picture
