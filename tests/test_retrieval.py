"""The trained checkpoint on Lite draws what it is asked for: the nearest training picture is the right one."""

import json
from pathlib import Path

import numpy as np
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from PIL import Image

DATA = Path(__file__).parent / "data"
SIDE, COLUMNS = 64, 16  # data/emoji.png is a sheet of all training pictures, in the order of the prompts in emoji.json
ASKED, RIGHT = 60, 57


def training_pictures(count):
    sheet = np.asarray(Image.open(DATA / "emoji.png").convert("RGB"), np.float32) / 255
    rows = sheet.reshape(-1, SIDE, COLUMNS, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return rows[:count]


def test_sixty_emoji_by_name(bundles):
    prompts = json.loads((DATA / "emoji.json").read_text())
    known = training_pictures(len(prompts))
    asked = [i * len(prompts) // ASKED for i in range(ASKED)]
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundles("micro"))
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline([prompts[i] for i in asked], generator=0, output_type="np").images
    distances = ((pictures[:, None] - known[None]) ** 2).mean((2, 3, 4))
    nearest = distances.argmin(axis=1)
    wrong = [f"{prompts[i]!r} looks like {prompts[j]!r}" for i, j in zip(asked, nearest) if i != j]
    print(f"{ASKED - len(wrong)} of {ASKED} right; {wrong}")
    assert ASKED - len(wrong) >= RIGHT, wrong
