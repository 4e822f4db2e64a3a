"""The trained checkpoint on Lite draws what it is asked for: the nearest training picture is the right one."""

import json

from emoji import DATA, training_pictures
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline

ASKED, RIGHT = 60, 57


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
