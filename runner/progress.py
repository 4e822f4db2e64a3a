"""Progress bars that can be switched off."""

from contextlib import contextmanager

from tqdm import tqdm


class ProgressBar:
    """A tqdm bar for each stage, with the caller's `options`."""

    def __init__(self):
        self.options: dict = {}

    @contextmanager
    def bar(self, total: int, stage: str):
        with tqdm(total=total, desc=stage, **{"dynamic_ncols": True, **self.options}) as bar:
            yield bar
