"""What decides a part's bytes is listed, and the list is held to what the module that makes parts imports."""

import ast
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
from kandinsky_mindir.export import origins
from kandinsky_mindir.export.graphs.graph_specs import GraphSpec
from kandinsky_mindir.export.origins import HOME, NOT_OF_PARTS, OF_EXAMPLES, OF_PARTS, part_origin, program
from kandinsky_mindir.runner.bundle.manifest import TensorInfo


def imported(module):
    """Files of the project that a file imports when it runs, wherever the statement stands."""
    tree = ast.parse(module.read_text())
    typing = {inner for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
              for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in typing:
            base = module.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for path in (base, *(base / alias.name for alias in node.names)):
                yield from (file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())


def closure(start):
    found, waiting = set(), [HOME / start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imported(path)
    return {path.relative_to(HOME).as_posix() for path in found}


def listed(name, patterns):
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)


def test_all_that_makes_a_part_is_listed():
    modules = closure("export/parts.py")
    assert {"export/graphs/lowering.py", "export/contents/ms_files.py", "runner/bundle/ms_file.py"} <= modules
    assert {name for name in modules if not listed(name, (*OF_PARTS, *NOT_OF_PARTS))} == set()


def test_nothing_is_listed_that_is_not_there():
    for pattern in (*OF_PARTS, *NOT_OF_PARTS, *OF_EXAMPLES):
        assert list(HOME.glob(pattern)), pattern


def test_sealed_examples_are_listed_too():
    modules = {name for name in closure("export/contents/seal_examples.py") if name.startswith("export/")}
    assert {name for name in modules if not listed(name, (*OF_EXAMPLES, *OF_PARTS))} == set()


@pytest.mark.parametrize("name", ["runner/cli.py", "runner/commands/generate.py", "runner/pipelines/base.py", "export/command.py",
                                  "export/demo.py", "export/bundle.py", "README.md"])
def test_what_cannot_change_a_part_is_not(name):
    assert not listed(name, OF_PARTS)


SPEC = GraphSpec("unet", "unet", object, (TensorInfo("sample", (1, 4, 8, 8), "float32"),), ("model_output",), 1, (64, 64))


@pytest.fixture
def origin(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"1234")

    def make(spec=SPEC, cell="cell", config="config", content=b"1234"):
        if content != weights.read_bytes():
            weights.write_bytes(content)
        return part_origin([spec], [cell], config, [weights])

    return make


@pytest.mark.parametrize("change", [
    dict(spec=GraphSpec("unet", "unet", object, SPEC.inputs, SPEC.outputs, 2, (64, 64))),
    dict(spec=GraphSpec("unet", "unet", object, SPEC.inputs, SPEC.outputs, 1, (64, 96))),
    dict(spec=GraphSpec("unet", "unet", object, (TensorInfo("sample", (1, 9, 8, 8), "float32"),), SPEC.outputs, 1, (64, 64))),
    dict(cell=SimpleNamespace()), dict(config="another"), dict(content=b"12345"),
])  # fmt: skip
def test_what_decides_a_part(origin, change):
    before = origin()
    assert origin() == before
    assert origin(**change) != before


def test_a_change_of_the_program(origin, monkeypatch, tmp_path):
    """Of what makes parts it is another origin; of anything else it is the same."""
    for name in ("export/graphs/lowering.py", "models/unet.py", "runner/engine/native/convert.cc", "runner/cli.py", "runner/commands/pack.py"):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    monkeypatch.setattr(origins, "HOME", tmp_path / "home")

    def now():
        program.cache_clear()
        return origin()

    before = now()
    for name in ("runner/cli.py", "runner/commands/pack.py"):
        (tmp_path / "home" / name).write_text("after")
        assert now() == before
    for name in ("export/graphs/lowering.py", "models/unet.py", "runner/engine/native/convert.cc"):
        (tmp_path / "home" / name).write_text("after")
        assert now() != before
        (tmp_path / "home" / name).write_text("before")
    assert now() == before
    program.cache_clear()
