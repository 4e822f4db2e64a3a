"""The demo, as the README's first command runs it after installing."""

import shutil

import pytest
from checkpoints import MICRO
from kandinsky_mindir.export import bundle as exporting
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.bundle.opened import Bundle
from PIL import Image


def draw(output, capsys, *options):
    """Run it and look at what it has written."""
    assert cli.main(["demo", *options, "--output", str(output)]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["bundle", "interpolations.png", "prompts.png", "tasks.png"]
    Bundle(output / "bundle").verify_files()
    for name in ("prompts.png", "interpolations.png", "tasks.png"):
        with Image.open(output / name) as sheet:
            assert len(set(sheet.convert("RGB").resize((64, 64)).getdata())) > 500, f"{name} shows nothing"


@pytest.mark.slow
def test_demo(tmp_path, capsys):
    draw(tmp_path / "demo", capsys)


@pytest.mark.slow
def test_tasks(bundles, tmp_path, capsys, monkeypatch):
    """It asks for what the fixture has exported: three decoders with shallow graphs, at their own size."""
    asked = []

    def export_bundle(prior, decoders, output, **options):
        asked.append((prior, decoders, options))
        return shutil.copytree(bundles("micro-family"), output)

    monkeypatch.setattr(exporting, "export_bundle", export_bundle)
    draw(tmp_path / "demo", capsys, "--tasks")
    decoders = [MICRO / name for name in ("decoder", "decoder-inpaint", "decoder-depth")]
    assert asked == [(MICRO / "prior", decoders, {"shallow": True, "overwrite": True})]
