"""Pictures that the C++ library reads are Pillow's, pixel for pixel, and so are the image encoder's pixel values."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.inputs.preprocessing import ImageProcessor
from kandinsky_mindir.runner.pictures.images import pixels_sha256, read_picture
from picture_files import bomb, encoded, picture
from PIL import Image

CLIP = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": 224}


def noise(mode, width=61, height=47):
    """A picture of the mode with all values."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, channels), np.uint8)
    if mode == "I;16":
        return Image.fromarray(np.random.default_rng(2).integers(0, 65536, (height, width)).astype(np.uint16))
    if mode in ("1", "P"):
        return Image.fromarray(pixels[..., 0]).convert(mode)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width, height, depth, color, rows, *chunks):
    """A PNG whose rows of samples are given as bytes, for forms that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def random_rows(width, height, depth, channels):
    random = np.random.default_rng(depth * 10 + channels)
    return [random.bytes((width * channels * depth + 7) // 8) for _ in range(height)]


def raw_pngs():
    for depth, color, channels in ((1, 0, 1), (2, 0, 1), (4, 0, 1), (8, 0, 1), (16, 0, 1), (8, 2, 3), (16, 2, 3), (8, 4, 2), (16, 4, 2),
                                   (8, 6, 4), (16, 6, 4)):  # fmt: skip
        rows = random_rows(37, 21, depth, channels)
        yield f"depth {depth} color {color}", raw_png(37, 21, depth, color, rows)
        if color in (0, 2):
            yield f"depth {depth} color {color} with tRNS", raw_png(37, 21, depth, color, rows, chunk(b"tRNS", b"\0\1" * channels))
    for depth in (1, 2, 4, 8):
        palette = np.random.default_rng(depth).bytes(3 << depth)
        rows = random_rows(37, 21, depth, 1)
        yield f"palette of depth {depth}", raw_png(37, 21, depth, 3, rows, chunk(b"PLTE", palette))
        yield f"palette of depth {depth} with tRNS", raw_png(37, 21, depth, 3, rows, chunk(b"PLTE", palette), chunk(b"tRNS", b"\0\x80"))


def good_files():
    yield from raw_pngs()
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"png {mode}", encoded(image=noise(mode))
    for mode in ("L", "RGB", "CMYK"):
        for quality, subsampling, progressive in ((30, 0, False), (75, 1, True), (95, 2, False)):
            options = dict(quality=quality, progressive=progressive, **({} if mode == "L" else {"subsampling": subsampling}))
            yield f"jpeg {mode} {options}", encoded("JPEG", noise(mode), **options)
            yield f"jpeg {mode} {options} smooth", encoded("JPEG", picture(67, 45).convert(mode), **options)
    yield "jpeg of one pixel", encoded("JPEG", noise("RGB", 1, 1))
    yield "png of one row", encoded(image=noise("RGB", 300, 1))
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"jpeg turned {orientation}", encoded("JPEG", picture(), exif=exif)
        yield f"png turned {orientation}", encoded(image=picture(), exif=exif)
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    yield "jpeg turned by XMP", encoded("JPEG", picture(), xmp=xmp)
    big_endian = b"Exif\0\0MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, 8, 0) + b"\0\0\0\0"
    yield "jpeg with big-endian EXIF", encoded("JPEG", picture(), exif=big_endian)
    plain = encoded()
    itxt = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation>5<")
    yield "png turned by XMP", plain[:33] + itxt + plain[33:]
    yield "png with EXIF behind its pixels", plain[:-12] + chunk(b"eXIf", big_endian[6:]) + plain[-12:]
    raw = f"\nexif\n{len(big_endian):8}\n{big_endian.hex()}\n".encode()
    yield "png with a raw profile", plain[:33] + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)) + plain[33:]
    yield "png without IEND", plain[:-12]


FILES = dict(good_files())


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_pillows(leaves, name):
    expected = read_picture(FILES[name], name)
    width, height, rgb, sha256 = leaves.call("decode", FILES[name], name)
    assert (int(width), int(height)) == expected.size
    np.testing.assert_array_equal(np.frombuffer(rgb, np.uint8), np.asarray(expected).reshape(-1))
    assert sha256.decode() == pixels_sha256(expected)


def test_an_interlaced_png(leaves):
    """Pillow writes none: seven passes (PNG specification, 8.2) put together here."""
    pixels = np.asarray(noise("RGB", 19, 13))
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx]]
    header = struct.pack(">IIBBBBB", 19, 13, 8, 2, 0, 0, 1)
    data = (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b""))
    assert leaves.call("decode", data, "x")[2] == pixels.tobytes() == read_picture(data, "x").tobytes()


def cut_files():
    for name in ("png RGB", "jpeg turned 0", "palette of depth 4"):
        for share in (0.2, 0.5, 0.9):
            yield f"{name} cut at {share}", FILES[name][: int(share * len(FILES[name]))]


BAD = {
    **dict(cut_files()),
    "empty": b"",
    "text": b"not a picture",
    "only a signature": FILES["png RGB"][:8],
    "a bomb": bomb(100_000, 100_000),
    "no size": raw_png(0, 0, 8, 2, []),
    "a depth that is none": raw_png(4, 4, 3, 2, []),
    "a header that is damaged": FILES["png RGB"][:20] + b"\x55" + FILES["png RGB"][21:],
    "pixels that are damaged": FILES["png RGB"][:200] + b"\x55\x55\x55\x55" + FILES["png RGB"][204:],
    "a jpeg without tables": b"\xff\xd8\xff\xc0\x00\x11\x08\x00\x10\x00\x10\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01\xff\xda",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(leaves, name):
    with pytest.raises(UserError):
        read_picture(BAD[name], name)
    with pytest.raises(UserError) as caught:
        leaves.call("decode", BAD[name], name)
    assert str(caught.value).startswith(f"{name} cannot be used: ") and len(str(caught.value)) < 300


def test_a_palette_that_is_missing(leaves):
    """Pillow makes one up; here it is an error."""
    with pytest.raises(UserError, match="x cannot be used: .*palette|PLTE"):
        leaves.call("decode", raw_png(4, 4, 8, 3, random_rows(4, 4, 8, 1)), "x")


def test_what_is_no_file(leaves, tmp_path):
    for path in (tmp_path / "none.png", tmp_path, "/dev/zero"):
        with pytest.raises(UserError, match=f"^{path} cannot be read: it is not (there|a file); give a picture's path"):
            leaves.call("read", path)
    (path := tmp_path / "x.webp").write_bytes(encoded("WEBP"))
    with pytest.raises(UserError, match="x.webp cannot be used: it is neither a PNG nor a JPEG: convert it"):
        leaves.call("read", path)


@pytest.mark.parametrize("size, to", [((61, 47), (224, 224)), ((700, 333), (64, 48)), ((50, 50), (50, 20)), ((50, 50), (20, 50)),
                                      ((1, 9), (7, 3)), ((1001, 3), (2, 300)), ((640, 640), (639, 641)),
                                      ((41, 70), (96, 64)), ((60, 81), (30, 20)), ((60, 80), (30, 20)), ((20, 90), (24, 16))])  # fmt: skip
@pytest.mark.parametrize("number", range(1, 6))
def test_resampling_is_pillows(leaves, size, to, number):
    image = noise("RGB", *size)
    ours = leaves.call("resize", *size, image.tobytes(), *to, number)[2]
    assert ours == image.resize(to, number).tobytes()


CONFIGS = [
    CLIP, {}, {**CLIP, "crop_size": {"height": 30, "width": 301}, "size": 20}, {**CLIP, "do_resize": False},
    {**CLIP, "do_center_crop": False, "size": {"height": 33, "width": 18}}, {**CLIP, "do_rescale": False, "image_mean": 100, "image_std": 3},
    {**CLIP, "do_normalize": False}, {**CLIP, "resample": 2, "rescale_factor": 0.005}, {**CLIP, "do_resize": False, "do_center_crop": False},
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
@pytest.mark.parametrize("size", [(61, 47), (47, 61), (224, 224), (500, 3), (225, 333)])
def test_pixel_values_are_pythons(leaves, config, size):
    image = noise("RGB", *size)
    expected = ImageProcessor(config)(image)
    height, width, values = leaves.call("pixels", json.dumps(config), *size, image.tobytes())
    assert (1, 3, int(height), int(width)) == expected.shape
    np.testing.assert_array_equal(np.frombuffer(values, np.uint32), expected.reshape(-1).view(np.uint32))


@pytest.mark.parametrize("config", [
    {"image_processor_type": "ViT"}, {"do_resize": 1}, {"do_pad": True}, {"resample": 9}, {"rescale_factor": 0}, {"image_std": 0},
    {"image_mean": [1, 2]}, {"size": {"shortest_edge": 0}}, {"size": {"longest_edge": 5}}, {"crop_size": {"shortest_edge": 4}},
    {"size": 5000}, {"size": 2.5}, {"image_mean": "x"}, {"rescale_factor": True},
], ids=str)  # fmt: skip
def test_bad_configurations_are_refused(leaves, config):
    key, = config
    for call in (lambda: ImageProcessor(config), lambda: leaves.call("pixels", json.dumps(config), 4, 4, bytes(48))):
        with pytest.raises(UserError, match=f"^the image processor's {key} is "):
            call()


def test_a_picture_that_would_be_blown_up_is_refused(leaves):
    with pytest.raises(UserError, match="a picture of 402x2 pixels cannot be used") as ours:
        leaves.call("pixels", json.dumps(CLIP), 402, 2, bytes(402 * 2 * 3))
    with pytest.raises(UserError) as theirs:
        ImageProcessor(CLIP)(Image.new("RGB", (402, 2)))
    assert str(ours.value) == str(theirs.value)


def test_files_with_all_their_forms_are_told_apart():
    """The table above would be empty if Pillow wrote all the same."""
    modes = {Image.open(io.BytesIO(data)).mode for data in FILES.values()}
    assert modes == {"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"}
