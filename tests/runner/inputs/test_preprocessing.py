"""Pixel values equal transformers' CLIPImageProcessor (its Pillow backend), bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.inputs.preprocessing import ImageProcessor
from PIL import Image
from transformers import CLIPImageProcessorPil

SMALL = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
CONFIGS = {
    "transformers 5": SMALL | {"image_processor_type": "CLIPImageProcessor", "rescale_factor": 0.00392156862745098},
    "transformers 4": SMALL | {"image_processor_type": "CLIPImageProcessorFast", "do_convert_rgb": True, "resample": 3,
                               "data_format": "channels_first", "device": None, "do_pad": None, "pad_size": None},
    "feature extractor": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 20, "resample": 2},
    "crop larger than size": {"size": 16, "crop_size": {"height": 25, "width": 30}},
    "both sides": {"size": {"height": 30, "width": 20}, "crop_size": {"height": 24, "width": 24}, "resample": 1},
    "square": {"size": 24, "default_to_square": True, "crop_size": 24},
    "crop only": SMALL | {"do_resize": False, "image_mean": 0.5, "image_std": 0.25},
    "0 to 255": SMALL | {"do_rescale": False},
    "0 to 1": SMALL | {"do_normalize": False, "resample": 0},
    "bytes": SMALL | {"do_normalize": False, "do_rescale": False, "resample": 5},
    "no crop": {"size": {"shortest_edge": 24}, "do_center_crop": False, "resample": 4},
}
MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr", "HSV")


def picture(width, height, mode="RGB", seed=0):
    """Noise over a slope: edges, overshoot of the bicubic filter, and smooth parts."""
    channels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    channels[:, :, 1] = np.linspace(0, 255, width)
    if mode in ("L", "1", "P"):
        return Image.fromarray(channels[:, :, 0]).convert(mode)
    if mode in ("RGBA", "LA", "PA"):
        return Image.fromarray(channels).convert("LA").convert(mode) if mode != "RGBA" else Image.fromarray(channels)
    return Image.fromarray(channels[:, :, :3]).convert(mode)


def assert_equal(config, image):
    expected = CLIPImageProcessorPil(**config)(image, return_tensors="np").pixel_values.astype(np.float32)
    found = ImageProcessor(config)(image)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(24, 24), (64, 48), (31, 97), (7, 5), (300, 9), (1, 40)], ids=str)
def test_equal_for_every_option_and_shape(config, size):
    assert_equal(config, picture(*size))


@pytest.mark.parametrize("mode", MODES)
def test_equal_for_every_mode(mode):
    assert_equal(SMALL, picture(40, 30, mode))


def test_equal_for_a_palette_with_transparency():
    image = picture(40, 30, "P")
    image.info["transparency"] = 7
    assert_equal(SMALL, image)


@settings(max_examples=150, deadline=None)
@given(width=st.integers(1, 130), height=st.integers(1, 130), size=st.integers(1, 40), crop=st.integers(1, 40),
       resample=st.sampled_from(range(6)), seed=st.integers(0, 99))
def test_equal_for_any_size(width, height, size, crop, resample, seed):
    config = {"size": {"shortest_edge": size}, "crop_size": crop, "resample": resample}
    assert_equal(config, picture(width, height, seed=seed))


def test_clips_real_configuration():
    assert_equal({}, picture(500, 333))


def test_16_bit_gray_is_scaled():
    """transformers makes everything above 255 of 65535 white."""
    gray = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    assert wide.mode == "I;16"
    np.testing.assert_array_equal(ImageProcessor(SMALL)(wide), ImageProcessor(SMALL)(Image.fromarray(gray)))


@pytest.mark.parametrize("config, said", [
    ({"image_processor_type": "ViTImageProcessor"}, "image_processor_type is 'ViTImageProcessor'"),
    ({"feature_extractor_type": "DPTFeatureExtractor"}, "feature_extractor_type is 'DPTFeatureExtractor'"),
    ({"do_pad": True}, "do_pad is True"),
    ({"do_resize": "yes"}, "do_resize is 'yes'"),
    ({"sharpen": 2}, "sharpen is 2"),
    ({"size": {"longest_edge": 24}}, "size is {'longest_edge': 24}"),
    ({"size": {"shortest_edge": 24, "longest_edge": 48}}, "size is"),
    ({"size": 0}, "size is 0"),
    ({"size": 10**9}, "size is 1000000000"),
    ({"size": "224"}, "size is '224'"),
    ({"crop_size": {"shortest_edge": 24}}, "crop_size is"),
    ({"crop_size": {"height": 24}}, "crop_size is"),
    ({"crop_size": [24, 2.5]}, "crop_size is"),
    ({"resample": 7}, "resample is 7"),
    ({"resample": [3]}, r"resample is \[3\]"),
    ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
    ({"rescale_factor": float("nan")}, "rescale_factor is nan"),
    ({"image_mean": [0.5, 0.5]}, "image_mean is"),
    ({"image_mean": "gray"}, "image_mean is 'gray'"),
    ({"image_std": [0.5, 0, 0.5]}, "image_std is"),
    ({"image_std": [0.5, None, 0.5]}, "image_std is"),
])
def test_unknown_options_are_refused_by_name(config, said):
    with pytest.raises(UserError, match=said):
        ImageProcessor(SMALL | config)


@pytest.mark.parametrize("image, said", [
    (Image.new("RGB", (1, 5000)), "1x5000"),  # resized to 24x120000 only to be cropped
    (Image.new("RGB", (0, 5)), "0x5"),
    (Image.new("F", (5, 5)), "mode F"),
    (Image.fromarray(np.full((5, 5), 70000, np.int32)), "mode I"),
])
def test_pictures_that_cannot_be_used_are_refused(image, said):
    with pytest.raises(UserError, match=said):
        ImageProcessor(SMALL)(image)


def test_without_conversion_only_rgb_is_taken():
    assert_equal(SMALL | {"do_convert_rgb": False}, picture(30, 30))
    with pytest.raises(UserError, match="the picture is L"):
        ImageProcessor(SMALL | {"do_convert_rgb": False})(picture(30, 30, "L"))
