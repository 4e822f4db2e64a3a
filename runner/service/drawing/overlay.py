"""What is painted anew laid over the picture that it was painted for, with a soft edge, as AUTOMATIC1111's server does it.

After modules/processing.py (StableDiffusionProcessingImg2Img.init, apply_overlay) and modules/masking.py of
stable-diffusion-webui 1.10, but that the model is shown the mask without its soft edge.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image, ImageFilter

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


class Overlay(NamedTuple):
    """picture: what lies below. mask: of its size, L, white where it is new, with the soft edge. box: where what is drawn goes;
    None: all over, and the picture takes its size."""

    picture: Image.Image
    mask: Image.Image
    box: Box | None = None

    def over(self, drawn: Image.Image) -> Image.Image:
        if self.box is None:
            below = self.picture.resize(drawn.size, Image.Resampling.BICUBIC, reducing_gap=1)
            return Image.composite(drawn, below, _doubled(self.mask.resize(drawn.size, Image.Resampling.LANCZOS)))
        left, top, right, bottom = self.box
        above = self.picture.copy()
        above.paste(drawn.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        return Image.composite(above, self.picture, self.mask)


def whole(picture: Image.Image, mask: Image.Image, blur: int) -> Overlay:
    """For a picture that is drawn whole. mask: white is new. blur: standard deviation of the soft edge, in pixels of the mask.

    The edge lies outside of what is white.
    """
    return Overlay(picture, _soft(mask, blur))


def around(picture: Image.Image, mask: Image.Image, blur: int, size: tuple[int, int], padding: int) -> Overlay:
    """For a picture of whose mask the surroundings alone are drawn, in the proportions of `size` (width, height).

    mask: of the picture's size. padding: pixels of the picture that are shown on each side of what is new. The edge is half
    inside, half outside.
    """
    soft = _soft(mask, blur)
    return Overlay(picture, soft, _surroundings(soft.getbbox() or (0, 0, *picture.size), padding, size, picture.size))


def _soft(mask: Image.Image, blur: int) -> Image.Image:
    return mask.convert("L").filter(ImageFilter.GaussianBlur(blur))


def _doubled(mask: Image.Image) -> Image.Image:
    """All is new that was white before the edge was made."""
    return mask.point(lambda value: min(2 * value, 255))


def _surroundings(box: Box, padding: int, size: tuple[int, int], picture: tuple[int, int]) -> Box:
    """A box with `padding` around it, and longer on one axis, so that its sides are as those of `size`, where the picture has
    the room."""
    starts, ends = list(box[:2]), list(box[2:])
    for axis in range(2):
        starts[axis], ends[axis] = max(starts[axis] - padding, 0), min(ends[axis] + padding, picture[axis])
    lengths = [end - start for start, end in zip(starts, ends)]
    axis = 1 if lengths[0] * size[1] > lengths[1] * size[0] else 0  # the one that is too short
    length = min(lengths[1 - axis] * size[axis] // size[1 - axis], picture[axis])
    if length > lengths[axis]:
        start = starts[axis] - (length - lengths[axis]) // 2
        starts[axis] = min(max(start, 0), picture[axis] - length)
        ends[axis] = starts[axis] + length
    return starts[0], starts[1], ends[0], ends[1]
