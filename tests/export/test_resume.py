"""An interrupted export goes on from the parts that are done, and ends as one that was not interrupted."""

import pytest
from checkpoints import SIZES
from kandinsky_mindir.export import parts
from kandinsky_mindir.export.bundle import export_bundle
from kandinsky_mindir.export.isolation import Killed
from kandinsky_mindir.export.staging import NOTES, parts_done, staged_folder

DONE = ["text_encoder", "image_encoder", "prior"]


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_an_export_goes_on(bundles, tmp_path, monkeypatch, capsys):
    whole, write, written = bundles("narrow"), parts._write_part, []

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


class Stop(Exception):
    pass


GOES_ON = "part done; the same command goes on from there"


@pytest.mark.parametrize("source, error, said, kept", [
    ("a", KeyboardInterrupt(), f"^{GOES_ON}", True), ("b", KeyboardInterrupt(), f"^{GOES_ON}", False),
    ("a", Killed("killed"), f"^killed; {GOES_ON}", True), ("a", Stop("stop"), "^stop$", False),
])  # fmt: skip
def test_what_is_gone_on_from(tmp_path, source, error, said, kept):
    """What was made of the same source, by a run that was interrupted; a run that failed leaves nothing."""
    with pytest.raises(type(error), match=said), staged_folder(tmp_path / "out", source="a") as folder:
        (folder / "part").mkdir()
        (folder / NOTES / "part.json").write_text("[]")
        raise error
    assert any(tmp_path.iterdir()) == (GOES_ON in said)
    with staged_folder(tmp_path / "out", source=source) as folder:
        assert parts_done(folder) == (["part"] if kept else [])
        assert (folder / "part").exists() == kept
    assert [path.name for path in tmp_path.rglob("*")] == ["out"] + ["part"] * kept


def test_nothing_is_left_of_a_run_that_was_interrupted_early(tmp_path):
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path / "out") as folder:
        (folder / "part").mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
