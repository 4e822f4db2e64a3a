"""Sizes of one bundle share its weights."""

import checkpoints
from kandinsky_mindir.export.bundle import export_bundle


def disk(bundle):
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())


def test_two_sizes_cost_little_more_than_one(tmp_path, bundles, record_property):
    """Graphs are some hundred kilobytes each, whatever the weights: against the 19.5 MB checkpoint they show at all."""
    prior, decoder = checkpoints.save("micro", tmp_path)
    two = export_bundle(prior, decoder, tmp_path / "two", [(64, 64), (96, 64)], progress=False)
    ratio = disk(two) / disk(bundles("micro"))
    record_property("ratio", ratio)
    print(f"two sizes take {ratio:.4f} times the disk of one")
    assert ratio <= 1.02
