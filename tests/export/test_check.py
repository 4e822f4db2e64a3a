"""What a version of Lite and a device can run, by what speaks for it."""

import json
import re

import pytest
from kandinsky_mindir.export.ascend.operators import KNOWN
from kandinsky_mindir.export.check import DOCUMENTED, evidence, file_for, operators_in
from kandinsky_mindir.export.graphs.operators import OPERATORS
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.cli import main

STRUCTURE = {"Depend", "Load", "MakeTuple", "UpdateState"}


def rows(text):
    """(run, listed, unknown) of each graph that the command printed."""
    return [tuple(map(int, row)) for row in re.findall(r"\s(\d+)\s+(\d+)\s+(\d+)  \S+\.mindir$", text, re.MULTILINE)]


def test_the_tables_are_about_the_same_operators():
    assert set(DOCUMENTED) == {name for name, row in OPERATORS.items() if not row.refused} - STRUCTURE


def test_the_cpu_of_the_tried_version_runs_all(bundles, capsys):
    bundle = Bundle(bundles("narrow"))
    assert main(["check", str(bundle.path), "--lite", "2.0"]) == 0
    table = rows(capsys.readouterr().out)
    assert table == [(len(operators_in(bundle.mindir(graph.lite), graph.lite)), 0, 0) for graph in bundle.manifest.graphs]


def test_a_later_version_is_known_from_its_documentation(bundles, capsys):
    assert main(["check", str(bundles("narrow")), "--lite", "2.10"]) == 0
    assert all(run == unknown == 0 < listed for run, listed, unknown in rows(capsys.readouterr().out))


def test_what_a_device_lacks_is_named_with_the_graph(bundles, capsys):
    bundle = Bundle(bundles("narrow"))
    assert main(["check", str(bundle.path), "--lite", "2.10", "--device", "ascend"]) == 2
    lacking = [graph for graph in bundle.manifest.graphs
               if "BroadcastTo" in operators_in(bundle.mindir(graph.mindir), graph.mindir)]
    output = capsys.readouterr()
    assert sum(unknown == 1 for *_, unknown in rows(output.out)) == len(lacking) > 0
    assert f"{lacking[0].name} batch 1" in output.err
    assert "nothing speaks for BroadcastTo on Lite 2.10, ascend" in output.err


def test_nothing_is_claimed_that_was_neither_run_nor_read():
    assert evidence(["Conv2D"], "2.0", "ascend") == {"run": [], "listed": [], "unknown": ["Conv2D"]}
    assert evidence(["Sin", "Scan"], "2.0", "cpu")["unknown"] == ["Sin", "Scan"]


@pytest.mark.parametrize("version, form", [("2.0", "lite"), ("2.10", "mindir")])
def test_each_version_gets_the_form_that_it_reads(version, form, bundles):
    graph = Bundle(bundles("narrow")).manifest.graphs[0]
    assert file_for(graph, version) == json.loads((bundles("narrow") / "manifest.json").read_text())["graphs"][0][form]


def test_ascend_is_judged_by_the_converters_source(bundles, capsys):
    """All operators of the CPU's graphs are known there, too, and each row says where it was read."""
    assert main(["check", str(bundles("narrow")), "--lite", "2.7", "--device", "ascend"]) == 0
    assert all(run == unknown == 0 < listed for run, listed, unknown in rows(capsys.readouterr().out))
    assert main(["check", str(bundles("narrow")), "--lite", "2.7"]) == 2
    assert "nothing of its CPU: choose --device ascend" in capsys.readouterr().err
    assert evidence(["Conv2D", "Scan"], "2.7", "ascend") == {"run": [], "listed": ["Conv2D"], "unknown": ["Scan"]}
    assert all(re.search(r"mindspore-ai/\S+", where) and "/" in where for where in KNOWN.values())
