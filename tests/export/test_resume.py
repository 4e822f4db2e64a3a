"""An interrupted export goes on from the parts that are done, and ends as one that was not interrupted."""

import pytest
from checkpoints import SIZES
from kandinsky_mindir.export import parts
from kandinsky_mindir.export.bundle import export_bundle
from kandinsky_mindir.runner.engine.bridge import BridgeEngine

DONE = ["text_encoder", "image_encoder", "prior"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_an_export_goes_on(bundles, tmp_path, monkeypatch, capsys):
    whole, write, written = bundles("narrow"), parts._write_part, []
    # The same bytes come of Lite's converter, too, in another run of it.
    monkeypatch.setattr(BridgeEngine, "convert", BridgeEngine.convert.__wrapped__)

    def write_part(folder, name, *rest):
        written.append(name)
        return half(folder, name) if name == "unet" and written.count("unet") == 1 else write(folder, name, *rest)

    def half(folder, name):
        (folder / name).mkdir()
        (folder / name / "weights.bin").write_text("half")
        yield "unet weights"
        raise KeyboardInterrupt

    def export():
        return export_bundle(whole.parent / "prior", whole.parent / "decoder", tmp_path / "out", SIZES["narrow"])

    monkeypatch.setattr(parts, "_write_part", write_part)
    with pytest.raises(KeyboardInterrupt, match="^text_encoder, image_encoder, prior done; the same command goes on from there"):
        export()
    assert not (tmp_path / "out").exists()
    assert contents(export()) == contents(whole)
    assert written == [*DONE, "unet", "unet", "movq"]
    assert "going on from text_encoder, image_encoder, prior" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
