"""The one thread that owns the pipeline and its models: it takes jobs from the line and draws."""

from __future__ import annotations

import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from ...bundle.checked_files import sha256_of
from ...bundle.manifest import FILE_NAME
from ...common.errors import UserError, one_line
from ...pictures.provenance import Provenance, versions_of
from ...pipelines import KandinskyV22CombinedPipeline
from ...request import Request
from ...upkeep.replay import require_right, verify
from .errors import ApiError, public
from .images import as_base64, encode
from .jobs import Drawing, Drawn, Job, Line, Pace
from .metrics import Metrics
from .preview import Preview
from .remembered import RememberingPrior, key_of

WARM_STEPS = 3  # of the picture that loads the models: two intervals measure a step


class Cancelled(Exception):
    """The caller has gone, or said that it does not want the picture any more."""


class Worker(threading.Thread):
    """Draws job after job until the line is closed.

    state: preparing, ready or failed. log: takes a line about a fault of this program. on_end: called at the end.
    """

    def __init__(self, pipeline: KandinskyV22CombinedPipeline, line: Line, pace: Pace, metrics: Metrics, *,
                 replay: bool, log: Callable[[dict[str, Any]], None]):  # fmt: skip
        super().__init__(name="pictures", daemon=True)
        self.pipeline, self._line, self._pace, self._metrics, self._replay, self._log = pipeline, line, pace, metrics, replay, log
        self.prior = RememberingPrior(pipeline.models)
        pipeline.prior_pipe = self.prior
        pipeline.set_progress_bar_config(disable=True)
        self.preview = Preview()
        self.state, self.reason = "preparing", ""
        self.on_end: Callable[[], None] = lambda: None
        self.bundle_sha256 = sha256_of(pipeline.bundle.path / FILE_NAME)
        engine = pipeline.models.engine
        self._versions = versions_of(engine.name, engine.version, pipeline.models.precision)

    def run(self) -> None:
        try:
            self._prepare()
            self.state = "ready"
            while (job := self._line.take()) is not None:
                self._work(job)
        except Exception as error:
            self.state, self.reason = "failed", one_line(error) or type(error).__name__
            self._line.close()
        finally:
            self.on_end()

    def left(self, job: Job) -> float:
        """Seconds until the job in hand is done, by measure of what pictures took."""
        return self._pace.left(job)

    def _prepare(self) -> None:
        """Every file is held to its sha256, and a first picture loads the models."""
        self.pipeline.bundle.verify_files()
        if self._replay:
            require_right(verify(self.pipeline.models, files=False))
        request = Request(task="text2image", prompt="a picture", seed=0, num_inference_steps=WARM_STEPS,
                          prior_num_inference_steps=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a picture that nobody sees
            self._draw(None, Drawing(self.pipeline.complete(request)))

    def _work(self, job: Job) -> None:
        job.state, job.began = "generating", time.monotonic()
        self._metrics.waited.observe(job.began - job.queued)
        state, error = "completed", None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                for drawing in job.drawings:
                    if job.interrupted:
                        break
                    job.skipped = False
                    job.drawn.append(self._draw_surely(job, drawing))
                    job.warnings += [text for one in caught if (text := one_line(one.message)) not in job.warnings]
                    self._metrics.pictures.inc()
                    self._metrics.painted.observe(job.drawn[-1].seconds)
            except Cancelled:
                state = "cancelled"
            except UserError as fault:
                state, error = "failed", ApiError(500, public(fault, self.pipeline.bundle.path), "picture_failed")
            except MemoryError:
                state, error = "failed", ApiError(503, "not enough memory: ask for a smaller picture", "out_of_memory")
            except Exception as fault:
                state, error = "failed", ApiError(500, "a fault of this program: the server's log says more", "fault")
                self._log({"event": "fault", "job": job.id, "error": f"{type(fault).__name__}: {one_line(fault)}",
                           "traceback": traceback.format_exc()})
        self._metrics.jobs.labels(state).inc()
        job.end(state, error)

    def _draw_surely(self, job: Job, drawing: Drawing) -> Drawn:
        """As `_draw`; where it fails, once more with models that are loaded anew: the process of one may have been killed."""
        try:
            return self._draw(job, drawing)
        except UserError as error:
            self._log({"event": "again", "job": job.id, "error": str(error)})
            self.pipeline.unload()
        try:
            return self._draw(job, drawing)
        except UserError:
            self.pipeline.unload()
            raise

    def _draw(self, job: Job | None, drawing: Drawing) -> Drawn:
        """The picture of a drawing. Cancelled between two steps once its job is."""
        began, clock = time.monotonic(), _Clock()
        final: list[Any] = []
        if job is not None:
            job.step, job.steps, job.latents = 0, drawing.request.num_inference_steps or 1, None

        def on_prior_step(*_: Any) -> dict:
            if job is not None and job.cancelled:
                raise Cancelled
            return {}

        def on_step(call: Any, index: int, timestep: Any, values: dict) -> dict:
            final[:] = [values["latents"]]
            clock.tick()
            self._metrics.steps.inc()
            if job is not None:
                self._follow(job, call, index, values["latents"])
            return {}

        self.prior.key = key_of(drawing.request)
        made = self.pipeline.make(drawing.request, pictures=drawing.pictures, brought=drawing.brought,
                                  prior_callback_on_step_end=on_prior_step,
                                  callback_on_step_end=on_step, callback_on_step_end_tensor_inputs=["latents"])
        (picture,) = made
        self.preview.learn(final[0], picture.image)
        seconds = time.monotonic() - began
        self._pace.measured(drawing.request, clock.intervals, clock.seconds, seconds)
        if job is None:
            return Drawn("", drawing.request, seconds)
        request = picture.request or drawing.request
        if drawing.overlay:  # no request alone makes that
            image = drawing.overlay.over(picture.image)
            return Drawn(as_base64(encode(image, job.form)), request, seconds)
        provenance = Provenance(request=request, bundle=self.pipeline.bundle.path.name,
                                bundle_sha256=self.bundle_sha256, versions=self._versions)
        return Drawn(as_base64(encode(picture.image, job.form, provenance)), request, seconds)

    def _follow(self, job: Job, call: Any, index: int, latents: Any) -> None:
        if job.cancelled:
            raise Cancelled
        if job.interrupted or job.skipped:
            call._interrupt = True
        job.step, job.steps, job.latents = index + 1, call.num_timesteps, latents.copy()
        points = [round(job.steps * number / (job.previews + 1)) for number in range(1, job.previews + 1)]
        if not job.drawn and index + 1 in points:
            job.partials.append(latents.copy())
        job.notify()


class _Clock:
    """The time between the first and the last step, and how many intervals that were."""

    def __init__(self) -> None:
        self._first, self._last, self._ticks = 0.0, 0.0, 0

    def tick(self) -> None:
        self._last = time.monotonic()
        self._first = self._first if self._ticks else self._last
        self._ticks += 1

    @property
    def intervals(self) -> int:
        return max(self._ticks - 1, 0)

    @property
    def seconds(self) -> float:
        return self._last - self._first
