"""--precision: what a picture was made in is in its recipe, and --like makes it again in that."""

import numpy as np
import pytest
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.engine import precision
from kandinsky_mindir.runner.pictures.provenance import Provenance
from PIL import Image

OPTIONS = ["--steps", "2", "--prior-steps", "1", "--size", "16x16", "--seed", "4"]


@pytest.mark.skipif(bool(precision.lacking()), reason=precision.lacking())
def test_a_recipe_says_it_and_like_takes_it(bundles, tmp_path):
    def make(name, *arguments):
        assert cli.main(["generate", *map(str, arguments), "--quiet", "--output", str(tmp_path / name)]) == 0
        with Image.open(tmp_path / name) as image:
            return np.asarray(image), Provenance.read(tmp_path / name).versions.get("precision")

    bundle = bundles("narrow")
    half, said = make("half.png", bundle, "a cat", *OPTIONS, "--precision", "bfloat16")
    assert said == "bfloat16"
    again, said = make("again.png", "--like", tmp_path / "half.png")
    assert said == "bfloat16" and np.array_equal(again, half)
    whole, said = make("whole.png", "--like", tmp_path / "half.png", "--precision", "float32")
    assert said is None and not np.array_equal(whole, half)
    again, said = make("again.png", "--like", tmp_path / "whole.png")
    assert said is None and np.array_equal(again, whole)


def test_like_says_what_the_processor_lacks(bundles, tmp_path, monkeypatch, capsys):
    bundle, path = bundles("narrow"), tmp_path / "picture.png"
    assert cli.main(["generate", str(bundle), "a cat", *OPTIONS, "--quiet", "--output", str(path)]) == 0
    half = Provenance.read(path)
    half.versions["precision"] = "bfloat16"
    with Image.open(path) as image:
        save(image, path, half)
    monkeypatch.setattr(precision, "processor", lambda: "x86_64 avx2")
    capsys.readouterr()
    assert cli.main(["generate", "--like", str(path), "--quiet", "--output", str(tmp_path / "again.png")]) == 0
    assert "this processor lacks its instructions (AVX512_BF16): float32 is used instead" in capsys.readouterr().err


def save(image, path, provenance):
    from kandinsky_mindir.runner.pictures.saving import save_image

    save_image(image, path, text=provenance.text())
