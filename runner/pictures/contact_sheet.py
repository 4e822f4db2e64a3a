"""Pictures with captions on one white sheet."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ..common.errors import UserError

INK, FAINT = "#1f2328", "#d8dee4"
LINES = 2  # of a caption; what does not fit ends in "..."


def labelled_sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], *, title: str | None = None,
                   cell: int = 160) -> Image.Image:
    """A sheet of (picture, caption) rows, each picture within `cell` x `cell` pixels and its caption below it.

    Rows may differ in length. Captions are broken between words and cut where two lines are not enough. Pillow's
    own font is used, which has Latin letters only.
    """
    if not rows or not all(rows) or cell < 16:
        raise UserError("a sheet needs rows with at least one picture, and cells of at least 16 pixels")
    font, title_font = _font(max(11, cell // 11)), _font(max(15, cell // 7))
    line = _line_height(font)
    margin, gap = cell // 5, cell // 10
    captions = [[_wrap(label, font, cell + gap // 2) for _, label in row] for row in rows]
    heights = [cell + line // 2 + line * max(map(len, row)) + gap for row in captions]
    width = 2 * margin + max(map(len, rows)) * (cell + gap) - gap
    top = margin + (round(1.8 * _line_height(title_font)) if title else 0)
    sheet = Image.new("RGB", (width, top + sum(heights) - gap + margin), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), _cut(title, title_font, width - 2 * margin), INK, title_font)
    for row, lines_of_row, height in zip(rows, captions, heights):
        for column, ((image, _), lines) in enumerate(zip(row, lines_of_row)):
            left = margin + column * (cell + gap)
            _place(sheet, draw, image, left, top, cell)
            for i, text in enumerate(lines):
                y = top + cell + line // 2 + i * line
                draw.text((left + cell / 2, y), text, INK, font, anchor="ma")
        top += height
    return sheet


def _place(sheet: Image.Image, draw: ImageDraw.ImageDraw, image: Image.Image, left: int, top: int, cell: int) -> None:
    """The picture in the middle of its cell, as large as fits, in a hairline that keeps white ones apart."""
    scale = cell / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    left, top = left + (cell - width) // 2, top + (cell - height) // 2
    sheet.paste(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS), (left, top))
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FAINT)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """At most LINES lines, filled word by word; the last one holds the rest, cut to the width."""
    words = text.split()
    lines: list[str] = []
    while words and len(lines) < LINES - 1:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        lines.append(_cut(" ".join(words[:count]), font, width))
        words = words[count:]
    return lines + ([_cut(" ".join(words), font, width)] if words else [])


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    kept = text
    while kept and font.getlength(text) > width:
        kept = kept[:-1].rstrip()
        text = kept + "..."
    return text


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]  # of a size: never the font of one size


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    return sum(font.getmetrics())
