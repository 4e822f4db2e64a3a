"""Emoji moved about, what of a picture is not white, and depth hints made of that."""

import numpy as np
from PIL import Image, ImageDraw

WHITE = 230  # gray levels: a pixel is white if none of its channels is darker
RIM = 0.3  # height of a silhouette's edge; its innermost point has 1, all around it is 0


def silhouette(picture: Image.Image) -> np.ndarray:
    """What of a picture is not white, holes filled: bool (height, width)."""
    canvas = Image.fromarray(np.pad(_dark(picture), 1).astype(np.uint8)).copy()  # one that can be written to
    ImageDraw.floodfill(canvas, (0, 0), 2)
    return np.asarray(canvas)[1:-1, 1:-1] != 2


def _dark(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).min(axis=2) < WHITE


def moved(picture: Image.Image, size: float, down: float, right: float, mirrored: bool) -> Image.Image:
    """What is not white, `size` times as large, mirrored or not, on white.

    down, right: where in the room that it leaves, from 0 (at the top, at the left) to 1.
    """
    rows, columns = (np.flatnonzero(_dark(picture).any(axis=axis)) for axis in (1, 0))
    part = picture.convert("RGB").crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    part = part.resize([max(1, round(side * size)) for side in part.size], Image.Resampling.LANCZOS)
    if mirrored:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sheet = Image.new("RGB", picture.size, "white")
    sheet.paste(part, (round(right * (sheet.width - part.width)), round(down * (sheet.height - part.height))))
    return sheet


def height_map(inside: np.ndarray) -> Image.Image:
    """A depth hint (mode L) of a silhouette, bool (height, width): the root of the distance to its edge, from RIM on."""
    outside = np.argwhere(~np.pad(inside, 1)) - 1
    points = np.argwhere(inside)
    distance = np.sqrt(np.square(points[:, None] - outside[None]).sum(axis=2).min(axis=1))
    heights = np.zeros(inside.shape)
    heights[inside] = RIM + (1 - RIM) * np.sqrt(distance / distance.max())
    return Image.fromarray(np.round(255 * heights).astype(np.uint8))


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Of two silhouettes: their common area, of the area of both together."""
    return float((first & second).sum() / (first | second).sum())
