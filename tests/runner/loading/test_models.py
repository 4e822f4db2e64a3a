"""Pipelines and the models of the process: shared, within one budget, freed with the last pipeline, hashed once."""

import gc
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, KandinskyV22Pipeline, UserError
from kandinsky_mindir.runner.bundle import check_record, checked_files, packed
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.common.control_groups import thread_count
from kandinsky_mindir.runner.loading import owner
from kandinsky_mindir.runner.loading.memory_plan import Demand, MemoryPlan, plan_memory, text_to_picture
from kandinsky_mindir.runner.loading.owner import OWNER
from kandinsky_mindir.runner.request import Request

SMALL = {"height": 16, "width": 16, "prior_num_inference_steps": 1, "num_inference_steps": 2}
OPTIONS = {**SMALL, "generator": 0, "output_type": "np"}
MB = 10**6


@pytest.fixture
def bundle(bundles):
    return bundles("narrow")


@pytest.fixture
def opened(bundle, monkeypatch, no_leftovers):
    """A function that opens a pipeline, in a process that is not as large as this one, which has loaded the exporter.

    Models go when their last pipeline does, not when the garbage collector comes.
    """
    monkeypatch.setattr(owner, "private", lambda: 0)

    def open_pipeline(kind=KandinskyV22CombinedPipeline, **options):
        pipeline = kind.from_pretrained(bundle, **options)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    gc.disable()
    yield open_pipeline
    gc.enable()


def children():
    """The processes that this one has started."""
    return {int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


def test_two_pipelines_on_one_bundle_share_their_models(opened):
    before = children()
    first = opened()
    expected = first("a cat", **OPTIONS).images
    loaded = children() - before
    second = opened()
    assert np.array_equal(second("a cat", **OPTIONS).images, expected)
    assert children() - before == loaded and len(loaded) == len(first.models.in_memory)
    del first
    assert np.array_equal(second("a cat", **OPTIONS).images, expected)
    assert children() - before == loaded
    del second
    assert children() == before


def test_kept_exceptions_hold_no_models(opened):
    """Of a call that was refused, of one that a callback ended, of pictures one by one; with another exception as cause."""
    before, kept = children(), []

    def callback(pipeline, *_):
        try:
            raise TimeoutError
        except TimeoutError as error:
            raise ValueError from error

    pipeline = opened()
    for options in ({"generator": "x"}, {"callback_on_step_end": callback}, {"height": 7}):
        with pytest.raises((UserError, ValueError)) as caught:
            pipeline("a cat", **{**OPTIONS, **options})
        kept.append(caught.value)
    assert children() - before
    for options in ({"prior_callback_on_step_end": callback}, {"callback_on_step_end": callback}):
        pictures = pipeline.make(Request(task="text2image", prompt="a cat", seed=1, height=16, width=16), **options)
        with pytest.raises(ValueError) as caught:
            next(pictures)
        kept.append(caught.value)
    del pipeline, caught, pictures
    assert children() == before and len(kept) == 5


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])
def test_an_exception_that_passed_any_function_holds_no_models(opened, every):
    """Kept ones, each raised in another function at the time of its last call: most models are in memory then."""
    def make(trace):
        pipeline, before = opened(), sys.gettrace()
        pictures = pipeline.make(Request(task="text2image", prompt="a cat", seed=1, **SMALL))
        del pipeline
        sys.settrace(trace)
        try:
            next(pictures)
        finally:
            sys.settrace(before)
            del pictures  # the exception holds this frame

    def count(frame, event, _):
        if ours(frame):
            calls[frame.f_code] += 1

    def strike(frame, event, _):
        if frame.f_code is code and ours(frame):
            left[0] -= 1
            return None if left[0] else raises
        return None

    def raises(frame, event, _):
        del frame  # this function's own is kept, too
        if event == "line":
            raise TimeoutError
        return raises

    def ours(frame):
        return frame.f_globals["__name__"].startswith(("kandinsky_mindir.runner.pipelines", "kandinsky_mindir.runner.loading"))

    calls, kept, before = Counter(), [], children()
    make(count)
    assert len(calls) > 60 and children() == before
    finalizers = {"give_back"}  # Python runs one once: what it left undone stays so
    for code, number in [item for item in calls.items() if item[0].co_name not in finalizers][::every]:
        left = [number]
        try:
            make(strike)
        except TimeoutError as error:
            kept.append(error)
        assert children() == before, code
    assert len(kept) > 0.9 * len(calls) / every  # else it was a finalizer's call, out of which no exception comes


def test_an_amount_of_memory_counts_as_long_as_its_pipeline_lives(opened):
    large, small = opened(memory="5GB"), opened(memory="4GB")
    other = opened()
    assert other.models.budget == large.models.budget == 4 * 10**9
    del small
    assert other.models.budget == 5 * 10**9
    del large
    assert other.models.budget != 5 * 10**9


def test_what_others_keep_counts_and_goes_if_there_is_no_room(opened, bundle):
    """Two pipelines that do not share models, since one of them wants its files hashed."""
    first = opened()
    expected = first("a cat", **OPTIONS).images
    kept, graphs = first.models.in_memory, text_to_picture(first.bundle.manifest, (16, 16))
    alone = plan_memory(first.bundle, graphs, True).peak
    second = opened(check="always", memory=4 * 10**9)
    assert second.memory_plan(graphs).others > 0 and second.memory_plan(graphs).peak > alone
    assert "models of other requests" in str(second.memory_plan(graphs))
    second.models.memory = alone + MB  # as much as its own take, and what the request makes
    assert np.array_equal(second("a cat", **OPTIONS).images, expected)
    assert second.models.in_memory == kept and not first.models.in_memory
    assert np.array_equal(first("a cat", **OPTIONS).images, expected)


def test_what_a_request_makes_is_planned(opened):
    pipeline = opened()
    graphs = text_to_picture(pipeline.bundle.manifest, (16, 16))
    plan, more = pipeline.memory_plan(graphs), pipeline.memory_plan(graphs, 70 * MB)
    assert more.peak - plan.peak == 70 * MB
    assert "latents, embeddings, pictures" in str(more) and "latents" not in str(plan)
    pipeline.models.memory = plan.peak + 60 * MB
    pipeline.models.keep_loaded, pipeline.models.may_free = True, False
    pipeline.require_memory(graphs, 50 * MB)
    with pytest.raises(UserError, match=r"\(70.0 MB for what the request makes included\) .* there: (one at|ask for fewer)"):
        pipeline.require_memory(graphs, 70 * MB)


def test_what_a_request_holds_counts_for_others_until_it_is_let_go(opened):
    pipeline, before = opened(), OWNER.program()
    reservation = pipeline.require_memory([], 70 * MB)
    assert OWNER.program() == before + 70 * MB
    with reservation:
        pass
    assert OWNER.program() == before
    reservation = pipeline.require_memory([], 70 * MB)
    del reservation
    assert OWNER.program() == before


def refused(pipeline):
    pipeline.models.memory = 100 * MB
    with pytest.raises(UserError, match="100.0 MB is there"):
        pipeline("a cat", **OPTIONS)


def broken_off(pipeline):
    def callback(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline("a cat", **OPTIONS, callback_on_step_end=callback)


def left_after_one_picture(pipeline):
    steps = {"prior_num_inference_steps": 1, "num_inference_steps": 1}
    request = Request(task="text2image", prompt=("a cat", "a dog"), seed=0, height=16, width=16, **steps)
    next(pipeline.make(pipeline.complete(request)))


@pytest.mark.parametrize("use", [refused, broken_off, left_after_one_picture])
def test_nothing_of_a_call_that_did_not_end_outlives_its_pipeline(opened, use):
    def there():
        return OWNER.program(), OWNER.others(set()), children(), OWNER.budget() == 5 * 10**9

    before = there()
    pipeline = opened(memory=5 * 10**9)
    assert there() == (*before[:3], True) != before
    use(pipeline)
    del pipeline
    assert there() == before


def test_batches_of_a_graph_wait_for_each_other_if_there_is_room(opened):
    manifest = opened().bundle.manifest
    both = [manifest.find("unet", batch, (16, 16)) for batch in (1, 2)]
    bundle = opened().bundle
    one, two = plan_memory(bundle, both, budget=10**9).demands
    assert two.waiting == one.kept and one.waiting == 0
    assert plan_memory(bundle, both, budget=plan_memory(bundle, both, budget=10**9).peak - 1).demands[1].waiting == 0
    assert MemoryPlan([Demand(None, 30, 20), Demand(None, 50, 40, waiting=20)], False, program=0).peak == 70


def test_both_batches_stay_while_a_call_changes_between_them(opened):
    pipeline = opened(KandinskyV22Pipeline, keep_loaded=False)
    embeds = np.ones((1, pipeline.bundle.constants["clip_mean"].shape[-1]), np.float32)
    started, batches = set(), []

    def callback(_, index, *__):
        started.update(children())
        batches.append(sorted(graph.batch for graph in pipeline.models.in_memory if graph.name == "unet"))
        return {}

    before = children()
    pipeline(embeds, height=16, width=16, num_inference_steps=4, generator=0, output_type="latent",
             guidance_interval=(0.25, 0.75), callback_on_step_end=callback)
    assert batches == [[1], [1, 2], [1, 2], [1, 2]]
    assert len(started - before) == 2 and children() == before


def test_a_start_on_a_checked_bundle_hashes_nothing(bundle, opened, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(check_record, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(check_record, "SETTLED", -check_record.SETTLED)  # however young the bundle is
    hashed, sha256_of = [], checked_files.sha256_of
    monkeypatch.setattr(checked_files, "sha256_of", lambda path: (hashed.append(path.name), sha256_of(path))[1])
    expected = opened()("a cat", **OPTIONS).images
    assert "weights.bin" in hashed
    for check, some in (("once", False), ("never", False), ("always", True)):
        hashed.clear()
        assert np.array_equal(opened(check=check)("a cat", **OPTIONS).images, expected)
        assert bool(hashed) is some
    hashed.clear()
    assert main(["inspect", str(bundle), "--files"]) == 0
    assert len(hashed) >= len(opened().bundle.manifest.files)
    with pytest.raises(UserError, match="^check is 'sometimes': it must be once, always or never$"):
        opened(check="sometimes")
    capsys.readouterr()
    assert main(["generate", str(bundle), "a cat", "--check", "sometimes"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_packed_for_others_is_said_once(bundle, opened, tmp_path, recwarn):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in bundle.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / packed.FOLDER).mkdir()
    here = packed.here(folder, None, kernels="own")

    def made_for(**changes):
        import msgspec

        values = {**here, **changes}
        (folder / packed.FOLDER / FILE_NAME).write_bytes(msgspec.json.encode({"made_for": values}))
        return packed.why_not(folder, None)

    threads = thread_count(None)
    assert made_for() == ""
    said = made_for(threads=threads + 1)
    assert f"is for {threads + 1} threads, not {threads}: models load as exported" in said
    assert f"choose --threads {threads + 1}, or run kandinsky-mindir pack on the bundle again" in said
    said = made_for(threads=threads + 1, processor="m68k", lite="1.0", bundle="0" * 64)
    assert "another export of it and MindSpore Lite 1.0 and another processor" in said and "--threads" not in said
    made_for()
    assert f"is for other kernels (own {packed.ORDER}): models load" in packed.why_not(folder, None, kernels="lite")
    assert packed.why_not(bundle, None) == ""  # nothing is packed there
    (folder / packed.FOLDER / FILE_NAME).write_bytes(b"{")
    assert packed.why_not(folder, None) == ""  # opening says what is wrong


def test_a_forked_process_makes_the_same_picture(opened):
    pipeline = opened()
    expected = pipeline("a cat", **OPTIONS).images
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = b"0"
        try:
            empty = not pipeline.models.in_memory
            said = b"1" if empty and np.array_equal(pipeline("a cat", **OPTIONS).images, expected) else b"0"
            pipeline.unload()
        finally:
            os.write(writing, said)
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 1) == b"1"
    os.waitpid(child, 0)
    os.close(reading)
    assert np.array_equal(pipeline("a cat", **OPTIONS).images, expected)
