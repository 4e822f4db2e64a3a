"""What the tests keep is taken where nothing differs but places, and made anew where anything else does."""

from types import SimpleNamespace

from kept import kept_conversions


def test_conversions(tmp_path):
    """By the graph, its weights and the program; only those of an export, each in a folder of its own."""
    programs = [tmp_path / "first", tmp_path / "second"]
    for program in programs:
        program.write_text(program.name)
    made = []

    def convert(engine, mindir, ms):
        made.append(engine.runtime.convert.name)
        ms.write_bytes(mindir.read_bytes() + mindir.with_name("weights.bin").read_bytes())

    kept = kept_conversions(convert, tmp_path / "kept")
    assert kept.__wrapped__ is convert

    def found(folder, graph=b"graph", weights=b"weights", program=programs[0]):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mindir").write_bytes(graph)
        (tmp_path / folder / "weights.bin").write_bytes(weights)
        kept(SimpleNamespace(runtime=SimpleNamespace(convert=program)), tmp_path / folder / "a.mindir", tmp_path / f"{folder}.ms")
        assert (tmp_path / f"{folder}.ms").read_bytes() == graph + weights
        return len(made)

    assert [found(".convert-1"), found(".convert-2"), found(".convert-3", graph=b"another"), found(".convert-4", weights=b"others"),
            found(".convert-5", program=programs[1]), found("by hand"), found(".convert-6")] == [1, 1, 2, 3, 4, 5, 5]
