"""Pictures from outside: every kind that can be read is read right, everything else is one line within its limits."""

import io
import os
import time

import numpy as np
import pytest
from diffusers.utils import load_image as diffusers_load_image
from diffusers.utils import make_image_grid as diffusers_make_image_grid
from diffusers.utils.pil_utils import numpy_to_pil
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.pictures.images import READ_FORMATS, load_image, make_image_grid, to_pil
from kandinsky_mindir.runner.pictures.saving import save_image
from picture_files import assert_refused, assert_same, bomb, encoded, picture
from PIL import Image
from row_names import row_name

# Files


@pytest.mark.parametrize("format", READ_FORMATS)
def test_formats_are_told_by_content_not_by_name(tmp_path, format):
    path = tmp_path / "picture.txt"
    path.write_bytes(encoded(format))
    assert_same(load_image(path), diffusers_load_image(str(path)))
    assert_same(load_image(str(path)), load_image(path))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_modes_of_pil_pictures(mode):
    image = picture(mode="RGBA").convert("LA").convert("PA") if mode == "PA" else picture(mode=mode)
    assert_same(load_image(image), diffusers_load_image(image))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_modes_of_files(tmp_path, mode):
    path = tmp_path / "picture"
    path.write_bytes(encoded("TIFF" if mode == "CMYK" else "PNG", picture(mode=mode)))
    assert_same(load_image(path), diffusers_load_image(str(path)))


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded("JPEG", picture(mode="CMYK")))
    assert_same(load_image(path), diffusers_load_image(str(path)))


def test_16_bit_gray_is_scaled_not_clipped(tmp_path):
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for pixels in (gray * 257, (gray * 257).astype(np.int32)):
        assert_same(load_image(Image.fromarray(pixels)), Image.fromarray(gray.astype(np.uint8)).convert("RGB"))
    path = tmp_path / "picture.png"
    Image.fromarray(gray * 257).save(path)
    assert_same(load_image(path), Image.fromarray(gray.astype(np.uint8)).convert("RGB"))


@pytest.mark.parametrize("pixels", [np.full((3, 3), 0.5, np.float32), np.full((3, 3), 65536, np.int32),
                                    np.full((3, 3), -1, np.int32)])
def test_pixels_without_a_white_are_refused(pixels):
    assert_refused("have no white", Image.fromarray(pixels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture.jpg"
    picture().save(path, exif=exif)
    loaded = load_image(path)
    assert loaded.size == ((30, 40) if orientation > 4 else (40, 30))
    assert_same(loaded, diffusers_load_image(str(path)))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(tmp_path, format):
    path = tmp_path / "picture"
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    path.write_bytes(encoded(format, frames[0], save_all=True, append_images=frames[1:], **options))
    assert_same(load_image(path), frames[0])


def test_the_callers_picture_is_left_alone():
    image = picture(mode="RGBA")
    before = image.tobytes()
    load_image(image)
    assert (image.mode, image.tobytes()) == ("RGBA", before)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of some damage before it gives up
@pytest.mark.parametrize("format", READ_FORMATS)
def test_cut_files_are_refused(tmp_path, format):
    """Cut anywhere, a file is refused; a cut that only loses what is not needed (a trailer) gives the whole picture."""
    data = encoded(format)
    whole = load_image(Image.open(io.BytesIO(data)))
    path = tmp_path / "picture"
    refused = 0
    for length in sorted({*range(40), *range(0, len(data), max(1, len(data) // 40))}):
        path.write_bytes(data[:length])
        try:
            assert_same(load_image(path), whole)
        except UserError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 20


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(format=st.sampled_from(READ_FORMATS), seed=st.integers(0, 2**32 - 1))
def test_damaged_files_are_read_or_refused(tmp_path_factory, format, seed):
    """Nothing but UserError, whatever bytes change."""
    rng = np.random.default_rng(seed)
    data = np.frombuffer(encoded(format), np.uint8).copy()
    data[rng.integers(0, min(len(data), rng.choice([60, 10**6])), 3)] = rng.integers(0, 256, 3)
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data.tobytes())
    try:
        assert load_image(path, max_pixels=10**6).mode == "RGB"
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"<!DOCTYPE html><html></html>", b"\x89PNG\r\n\x1a\n",
                                  b"\0" * 1000,
                                  b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
                                  b"<svg xmlns='http://www.w3.org/2000/svg'/>"],
                         ids=["empty", "text", "html", "signature", "zeros", "postscript", "svg"])
def test_what_is_no_picture_is_refused(tmp_path, data):
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    assert str(path) in assert_refused("is not a picture", path)


@pytest.mark.parametrize("width, height", [(8193, 8192), (60000, 60000), (2**31 - 1, 2**31 - 1)])
@pytest.mark.filterwarnings("error")
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb(width, height))
    start = time.monotonic()
    assert_refused("limit", path)  # ours, or Pillow's own where that is passed too
    assert time.monotonic() - start < 5  # decoding would take more, and gigabytes


def test_limits_can_be_set(tmp_path):
    path = tmp_path / "picture.png"
    picture().save(path)
    size = path.stat().st_size
    assert load_image(path, max_pixels=1200, max_bytes=size).size == (40, 30)
    assert_refused("40x30 pixels; the limit is 1199", path, max_pixels=1199)
    assert_refused(f"larger than {size - 1} bytes", path, max_bytes=size - 1)
    assert_refused("40x30 pixels; the limit is 1199", picture(), max_pixels=1199)


@pytest.mark.parametrize("source, said", [
    ("nowhere.png", "nowhere.png cannot be read: it is not there"), ("", "is not a file"), (".", "is not a file"),
    ("a\0b", r"'a\x00b'"), ("x" * 5000, "cannot be read"), ("a\nb", "is not there"),
    ("ftp://a/cat.png", "is not there"),
    (b"cat.png", "not bytes"), (None, "not NoneType"), (np.zeros((4, 4, 3)), "not ndarray"),
    (Image.new("RGB", (0, 4)), "0x4 pixels"),
], ids=row_name)
def test_what_is_no_source_is_refused(tmp_path, monkeypatch, source, said):
    monkeypatch.chdir(tmp_path)
    assert_refused(said, source)


def test_devices_and_pipes_are_refused(tmp_path):
    """Reading them may never end."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        assert_refused("is not a file", path)


# Out


def test_to_pil_rounds_as_diffusers():
    images = np.random.default_rng(0).random((2, 9, 7, 3), dtype=np.float32)
    images[0, 0, :, 0] = (np.arange(7) + 0.5) / 255  # ties
    images[0, 1, :2] = [[0], [1]]
    for ours, theirs in zip(to_pil(images), numpy_to_pil(images), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("images, said", [
    (np.full((1, 2, 2, 3), np.nan), "not numbers"), (np.full((1, 2, 2, 3), 1.01), "between 0 and 1"),
    (np.full((1, 2, 2, 3), -0.01), "between 0 and 1"), (np.zeros((2, 2, 3)), r"\(2, 2, 3\)"),
    (np.zeros((1, 3, 2, 2)), r"\(1, 3, 2, 2\)"),
])
def test_to_pil_refuses_what_is_no_picture(images, said):
    with pytest.raises(UserError, match=said):
        to_pil(images)


@pytest.mark.parametrize("rows, cols, resize", [(2, 3, None), (3, 2, 16), (1, 6, None)])
def test_grid_equals_diffusers(rows, cols, resize):
    images = [picture(20 + i, 10, mode) for i, mode in enumerate(["RGB", "L", "RGB", "1", "RGB", "RGB"])]
    assert_same(make_image_grid(images, rows, cols, resize), diffusers_make_image_grid(images, rows, cols, resize))


@pytest.mark.parametrize("count, rows, cols", [(3, 2, 2), (0, 0, 0), (2, -1, -2)])
def test_grids_that_do_not_come_out_are_refused(count, rows, cols):
    with pytest.raises(UserError, match=f"a grid of {rows} rows"):
        make_image_grid([picture()] * count, rows, cols)


@pytest.mark.parametrize("ending, exact", [("png", True), ("PNG", True), ("bmp", True), ("tiff", True), ("webp", True),
                                           ("jpg", False)])
def test_saved_pictures_come_back(tmp_path, ending, exact):
    path = tmp_path / f"cat.{ending}"
    save_image(picture(), path)
    save_image(picture(), str(path))  # over the first
    error = np.abs(np.asarray(load_image(path), int) - np.asarray(picture(), int))
    assert error.max() == 0 if exact else error.mean() < 3  # JPEG at quality 95: a rounding of a few levels
    assert os.listdir(tmp_path) == [path.name]


def test_text_travels_in_a_png(tmp_path):
    text = {"prompt": "a café 🐱\nat night", "seed": "7"}
    save_image(picture(), tmp_path / "cat.png", text=text)
    assert Image.open(tmp_path / "cat.png").text == text
    with pytest.raises(UserError, match="cat.jpg cannot hold text"):
        save_image(picture(), tmp_path / "cat.jpg", text=text)


@pytest.mark.parametrize("name", ["cat", "cat.gif", "cat.pdf", ".png", "cat.png.txt"])
def test_unknown_endings_are_refused(tmp_path, name):
    with pytest.raises(UserError, match="ends in no known picture format"):
        save_image(picture(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    save_image(picture(), tmp_path / "old.png")
    (tmp_path / "folder.png").mkdir()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="cannot be written: Is a directory"):
        save_image(picture(), tmp_path / "folder.png")
    with pytest.raises(UserError, match="cannot be written: No such file"):
        save_image(picture(), tmp_path / "nowhere" / "cat.png")
    with pytest.raises(UserError, match="old.jpg cannot be written"):
        save_image(picture(mode="RGBA"), tmp_path / "old.jpg")
    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(UserError, match="cannot be written: No space left"):
        save_image(Image.new("RGB", (1, 1)), tmp_path / "old.png")
    assert sorted(os.listdir(tmp_path)) == ["folder.png", "old.png"]
    assert_same(load_image(tmp_path / "old.png"), picture())
