"""Memory: amounts as people write them, what is really used, and plans that say it before anything is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline, KandinskyV22Pipeline, KandinskyV22PriorPipeline, UserError
from kandinsky_mindir.runner.bundle.manifest import GraphInfo
from kandinsky_mindir.runner.bundle.ms_file import MemoryFile
from kandinsky_mindir.runner.bundle.ms_layout import ModelSource
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main
from kandinsky_mindir.runner.common.memory import PeakMemory, as_bytes, in_use
from kandinsky_mindir.runner.loading import footprint, owner
from kandinsky_mindir.runner.loading.footprint import PROGRAM
from kandinsky_mindir.runner.loading.memory_plan import Demand, MemoryPlan, plan_memory, text_to_picture
from PIL import Image

MEGABYTES_100 = 100_000_000
BESIDE = 1_000_000  # more than the latents and pictures of the calls here take, about 0.2 MB; the smallest model takes 90 MB


@pytest.mark.parametrize("text, size", [("12GB", 12e9), ("12G", 12e9), ("1.5 GiB", 1.5 * 2**30), ("800mb", 8e8), (1000, 1e3)])
def test_amounts(text, size):
    assert as_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "12 pounds", "-1GB", "0GB", 0, -5, True, float("nan"), float("inf"), None, [1]])
def test_what_is_no_amount(text):
    with pytest.raises(UserError, match="must be an amount of memory, for example 12GB"):
        as_bytes(text)


def test_private_memory_and_files_in_memory_count_once():
    before = in_use()
    array = np.ones(MEGABYTES_100, np.uint8)
    assert MEGABYTES_100 <= in_use() - before < 1.2 * MEGABYTES_100
    del array
    before, file = in_use(), MemoryFile()
    os.truncate(file.path, MEGABYTES_100)
    first, second = (np.memmap(file.path, np.uint8, "r+") for _ in range(2))  # as the model's file is mapped twice
    first[:] = 1
    assert second.all()
    assert MEGABYTES_100 <= in_use() - before < 1.2 * MEGABYTES_100
    file.close()


def test_the_peak_holds_what_a_child_used_meanwhile():
    with PeakMemory() as memory:
        before = memory.peak
        subprocess.run([sys.executable, "-c", f"import time; x = b'1' * {MEGABYTES_100}; time.sleep(1)"], check=True)
    assert memory.peak - before >= MEGABYTES_100
    assert in_use() - before < MEGABYTES_100


def test_forked_processes_share_what_their_parent_has():
    """Workers that are forked, and any process on its way to another program, would each count all of it again."""
    array, before = np.ones(MEGABYTES_100, np.uint8), in_use()
    own = f"x = b'1' * {MEGABYTES_100}"
    children = [ForkedProcess("pass"), ForkedProcess("pass")]
    assert in_use() - before < 0.2 * MEGABYTES_100
    children.append(ForkedProcess(own))
    assert 0.9 * MEGABYTES_100 <= in_use() - before < 1.2 * MEGABYTES_100  # of its parent's, it may lack a little
    for child in children:
        child.end()
    assert array.all() and in_use() - before < 0.2 * MEGABYTES_100


class ForkedProcess:
    """A copy of this process that runs `code` and then waits for its end."""

    def __init__(self, code):
        ready, self.gate = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            namespace = {}
            exec(code, namespace)
            os.write(ready[1], b"1")
            os.close(self.gate[1])
            os.read(self.gate[0], 1)
            os._exit(0)
        os.close(ready[1])
        assert os.read(ready[0], 1)
        os.close(ready[0])

    def end(self):
        os.write(self.gate[1], b"1")
        os.waitpid(self.pid, 0)
        for end in self.gate:
            os.close(end)


DEMANDS = [Demand(None, 30, 20), Demand(None, 50, 40), Demand(None, 45, 10)]


def test_a_plan_adds_what_is_kept_and_takes_the_largest_of_what_is_not():
    assert MemoryPlan(DEMANDS, keep_loaded=False).peak == PROGRAM + 50
    assert MemoryPlan(DEMANDS, keep_loaded=True).peak == PROGRAM + 20 + 40 + 45


@pytest.fixture
def bundle(bundles, monkeypatch, no_leftovers):
    """In a process that is not as large as this one, which has loaded the exporter."""
    monkeypatch.setattr(owner, "private", lambda: 0)
    return bundles("narrow")


def test_a_request_that_cannot_fit_is_refused_before_anything_is_loaded(bundle):
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, memory="100MB", keep_loaded=False)
    with pytest.raises(UserError, match=r"^\w+ batch \d.* needs about [\d.]+ [MG]B of memory "
                                        r"\([\d.]+ MB for what the request makes included\) and 100.0 MB is there: choose"):
        pipeline("a cat", generator=0)
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, memory="100MB", keep_loaded=True)
    with pytest.raises(UserError, match="^keeping all models loaded needs about"):
        pipeline("a cat", generator=0)


def test_memory_chooses_whether_models_stay_loaded(bundle):
    opened = Bundle(bundle)
    graphs = text_to_picture(opened.manifest, opened.manifest.sizes[-1])
    all_of_them, largest = (plan_memory(opened, graphs, keep_loaded).peak for keep_loaded in (True, False))
    for memory, expected in ((2 * all_of_them, True), (largest + 1, False)):
        pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, memory=memory)
        assert pipeline.memory_plan(graphs).keep_loaded is expected


def test_models_that_are_to_stay_loaded_fit_together_or_are_refused(bundle):
    """Prior and decoder each fit, together they do not: refused before either is loaded, and one after the other they run."""
    opened = Bundle(bundle)
    graphs = text_to_picture(opened.manifest, opened.manifest.sizes[0])
    half = max(plan_memory(opened, part, True, beside=BESIDE).peak for part in (graphs[:3], graphs[3:]))
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle, memory=half, keep_loaded=True)
    height, width = opened.manifest.sizes[0]
    with pytest.raises(UserError, match="^keeping all models loaded needs about .* without --keep-loaded, they need"):
        pipeline("a cat", generator=0, height=height, width=width)
    assert not pipeline.models.in_memory
    embeds = pipeline.prior_pipe("a cat", num_inference_steps=1, generator=0)
    pipeline.decoder_pipe(*embeds, num_inference_steps=1, generator=0, height=height, width=width)
    assert {graph.name for graph in pipeline.models.in_memory} >= {"unet_context", "unet", "movq_decoder"}


def test_nobody_who_did_not_ask_to_keep_models_is_refused_for_it(bundle):
    opened = Bundle(bundle)
    height, width = opened.manifest.sizes[0]
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(bundle)
    options = {"height": height, "width": width, "prior_num_inference_steps": 1, "num_inference_steps": 2, "generator": 0,
               "output_type": "np"}
    expected = pipeline("a cat", **options).images
    assert pipeline.models.keep_loaded
    graphs = text_to_picture(opened.manifest, (height, width))
    pipeline.models.memory = plan_memory(opened, graphs, beside=BESIDE).peak
    assert not pipeline.memory_plan(graphs).keep_loaded
    assert np.array_equal(pipeline("a cat", **options).images, expected)
    assert not pipeline.models.in_memory
    pipeline.models.memory = None  # and what was short once is not so for ever
    assert np.array_equal(pipeline("a cat", **options).images, expected)
    assert pipeline.models.in_memory == set(graphs)


def test_the_image_encoder_is_planned_for_pictures(bundle, monkeypatch):
    pipeline, planned = KandinskyV22PriorPipeline.from_pretrained(bundle), []
    require = pipeline.models.require
    monkeypatch.setattr(pipeline.models, "require", lambda graphs, *beside: (planned.append(graphs), require(graphs, *beside))[1])
    for mix in (["a cat"], ["a cat", Image.new("RGB", (9, 9))]):
        pipeline.interpolate(mix, [1.0] * len(mix), num_inference_steps=1, generator=0)
    texts, pictures = ({graph.name for graph in graphs} for graphs in planned)
    assert pictures - texts == {"image_encoder"} and texts < pictures


@pytest.mark.parametrize("options, batches", [
    ({}, [2]), ({"guidance_scale": 1.0}, [1]), ({"guidance_interval": (0.2, 0.8)}, [1, 2]),
    ({"guidance_interval": (0.0, 0.99)}, [2]),  # of four steps
])  # fmt: skip
def test_only_what_will_run_is_planned(bundle, options, batches):
    plan = KandinskyV22Pipeline.from_pretrained(bundle).check(num_inference_steps=4, **options).plan
    assert [demand.graph.batch for demand in plan.demands if demand.graph.name == "unet"] == batches


def test_plans_on_the_command_line(bundle, capsys):
    assert main(["inspect", str(bundle)]) == 0
    assert "peak, one at a time" in capsys.readouterr().out
    assert main(["generate", str(bundle), "a cat", "--plan", "--memory", "64GB"]) == 0
    said = capsys.readouterr().out
    for row in ("text_encoder", "movq_decoder", "this program", "latents, embeddings, pictures", "peak, all kept loaded"):
        assert f"  {row}" in said
    assert main(["generate", str(bundle), "a cat", "--plan", "--memory", "64GB", "--guidance-interval", "0.2", "0.8"]) == 0
    said = capsys.readouterr().out
    assert "unet batch 1" in said and "unet batch 2" in said  # and not only the second, which is what guidance takes
    assert main(["generate", str(bundle), "a cat", "--plan", "--memory", "1MB"]) == 2
    said = capsys.readouterr()
    assert "peak, one at a time" in said.out and "0.0" not in said.err and "1.0 MB is there" in said.err


def test_processes_may_end_while_they_are_looked_at(monkeypatch):
    def gone(*_):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "glob", gone)
    assert in_use() > 0


MEASURE = """
import sys
from kandinsky_mindir.runner import KandinskyV22CombinedPipeline
from kandinsky_mindir.runner.common.memory import PeakMemory
with PeakMemory() as memory:
    before = memory.peak
    pipeline = KandinskyV22CombinedPipeline.from_pretrained(sys.argv[1], keep_loaded=False)
    pipeline("a cat", generator=0, height=16, width=16)
print(memory.peak - before)
"""


def test_estimates_bound_what_is_used(bundle):
    """Small models are mostly the runtime: its share, and that of the program, must not be estimated too low.

    In a process of its own: this one's memory moves with what other tests have left.
    """
    opened = Bundle(bundle)
    measured = subprocess.run([sys.executable, "-c", MEASURE, bundle], check=True, capture_output=True, text=True).stdout
    assert 0 < int(measured) <= plan_memory(opened, text_to_picture(opened.manifest, (16, 16))).peak


GB = 10**9


@pytest.fixture
def in_pieces(monkeypatch):
    """A graph in five pieces of 1 GB that take nothing else."""
    monkeypatch.setattr(footprint, "_weight_bytes", lambda source: GB)
    monkeypatch.setattr(footprint, "activations", lambda graph: 0)
    for name, value in (("PACKED", 1.0), ("RUNTIME", 0)):
        monkeypatch.setattr(footprint, name, value)
    return GraphInfo("unet", "unet", 2, (8, 8), "unet/a.mindir", "unet/a.lite.mindir", tuple("abcde"), (), ())


class Exported:
    """A bundle of which nothing is packed."""

    def model(self, path):
        return ModelSource(self, path)


@pytest.mark.parametrize("budget, resident, peak", [(5, 5, 5), (4.9, 3, 4), (3, 2, 3), (2.9, 1, 2), (1.9, 0, 1), (0.5, 0, 1)])
def test_pieces_that_do_not_fit_are_loaded_when_their_turn_comes(in_pieces, budget, resident, peak):
    """Four that stay and one that is loaded take as much as five."""
    found = footprint.choose(Exported(), in_pieces, budget * GB)
    assert found == resident
    assert footprint.footprint(Exported(), in_pieces, found).loading == peak * GB
    (demand,) = plan_memory(Exported(), [in_pieces], budget=budget * GB + PROGRAM).demands
    assert demand.reloaded == 5 - resident and (f"{demand.reloaded} of its 5 pieces" in demand.remark) == (resident < 5)
