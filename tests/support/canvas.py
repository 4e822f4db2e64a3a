"""A canvas in pixels of the finished picture: drawn larger, then reduced, so that lines and letters come out smooth."""

from PIL import Image, ImageDraw, ImageFont

SCALE = 3
GRAY, BLUE, ORANGE, INK, FAINT = "#6e7781", "#0550ae", "#d4570a", "#1f2328", "#e6eaef"


class Canvas:
    def __init__(self, size):
        self.size = size
        self._image = Image.new("RGB", [side * SCALE for side in size], "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(self, x, y, text, size=14, ink=INK, anchor="la"):
        self._draw.text((x * SCALE, y * SCALE), text, ink, ImageFont.load_default(size * SCALE), anchor=anchor)

    def line(self, points, ink, width=2.0, dots=False):
        points = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(points, ink, round(width * SCALE), joint="curve")
        for x, y in points if dots else ():
            self._draw.circle((x, y), 2.6 * SCALE, ink)

    def box(self, x, y, width, height, ink):
        self._draw.rectangle([x * SCALE, y * SCALE, (x + width) * SCALE, (y + height) * SCALE], ink)

    def save(self, path):
        self._image.resize(self.size, Image.Resampling.LANCZOS).quantize(64).save(path, optimize=True)
