"""The demo, as the README's first command runs it after installing."""

import pytest
from kandinsky_mindir.runner import cli
from kandinsky_mindir.runner.bundle.opened import Bundle
from PIL import Image


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--tasks"]], ids=["demo", "tasks"])
def test_demo(options, tmp_path, capsys):
    output = tmp_path / "demo"
    assert cli.main(["demo", *options, "--output", str(output)]) == 0, capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["bundle", "interpolations.png", "prompts.png", "tasks.png"]
    Bundle(output / "bundle").verify_files()
    for name in ("prompts.png", "interpolations.png", "tasks.png"):
        with Image.open(output / name) as sheet:
            assert len(set(sheet.convert("RGB").resize((64, 64)).getdata())) > 500, f"{name} shows nothing"
