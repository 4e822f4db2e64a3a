"""The ranges of layers: those that an export for Ascend computes in float16 stay within it with other texts."""

import layer_ranges
import pytest
from kandinsky_mindir.export.ascend.precision import LARGEST, MARGIN


@pytest.mark.slow
def test_margin_of_narrow_layers_is_enough(bundles):
    found = layer_ranges.measure(bundles("micro"), ["tiger", "rocket"], each=2)
    assert {graph.info.part for graph in found} == {"text_encoder", "prior", "unet", "movq"}
    for graph in found:
        assert graph.narrow and set(graph.narrow) <= set(graph.most)
        # The texts are others than the example's, so the values are, too.
        assert any(graph.growth(layer) != 1 for layer in graph.narrow)
        assert all(graph.growth(layer) < MARGIN and graph.most[layer] < LARGEST for layer in graph.narrow)


@pytest.mark.parametrize("peak, narrow", [(LARGEST / MARGIN, True), (LARGEST / MARGIN * 1.01, False)])
def test_growth_is_of_the_example(peak, narrow):
    graph = layer_ranges.Graph(None, {"a": peak, "b": 0.0, "c": 0.0}, {"a": 3 * peak, "b": 0.0, "c": 2.0})
    assert ("a" in graph.narrow) == narrow
    assert [graph.growth(layer) for layer in "abc"] == [3, 0, 1]
