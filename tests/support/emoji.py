"""The training pictures of the shipped checkpoint."""

from pathlib import Path

import numpy as np
from PIL import Image

DATA = Path(__file__).parents[1] / "data"
SIDE, COLUMNS = 64, 16  # data/emoji.png is a sheet of all training pictures, in the order of the prompts in emoji.json


def training_pictures(count):
    sheet = np.asarray(Image.open(DATA / "emoji.png").convert("RGB"), np.float32) / 255
    rows = sheet.reshape(-1, SIDE, COLUMNS, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return rows[:count]
