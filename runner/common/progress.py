"""Progress bars that can be switched off."""

from contextlib import contextmanager


class ProgressBar:
    """A tqdm bar for each stage, with the caller's `options`."""

    def __init__(self):
        self.options: dict = {}

    @contextmanager
    def bar(self, total: int, stage: str):
        from tqdm import tqdm  # 50 ms: only where a bar is drawn

        with tqdm(total=total, desc=stage, **{"dynamic_ncols": True, **self.options}) as bar:
            yield bar
