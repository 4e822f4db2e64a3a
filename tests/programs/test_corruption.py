"""A sample of what corruption.py does a thousand times, and files that change after they were checked."""

import os
import shutil

import corruption
import pytest
from kandinsky_mindir.runner.bundle.manifest import FILE_NAME
from kandinsky_mindir.runner.bundle.opened import Bundle
from kandinsky_mindir.runner.common.errors import UserError
from kandinsky_mindir.runner.loading.models import Models


def test_damage_at_random_places(bundles):
    bundle = bundles("narrow")
    files = [path for path in bundle.rglob("*") if path.is_file()]
    found = corruption.run(bundle, 2 * len(files), seed=1, commands=2)
    assert len(found) == len(files) == len(Bundle(bundle).manifest.files) + 1  # each, and the manifest itself
    assert all(counts.total() == 2 and not counts[corruption.MISSED] for counts in found.values())
    assert found[FILE_NAME][corruption.OPENED] == 2


@pytest.fixture
def copy(bundles, tmp_path):
    shutil.copytree(bundles("narrow"), tmp_path / "bundle", copy_function=os.link)
    return tmp_path / "bundle"


def replace(path, data):
    """At once: a check that goes on meanwhile finds the file as it was or as it is then."""
    beside = path.with_name("new")
    beside.write_bytes(data)
    beside.replace(path)


def test_a_file_is_checked_again_when_it_was_changed(copy):
    bundle, path = Bundle(copy), copy / "unet" / "weights.bin"
    data = path.read_bytes()
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    bundle.file("unet/weights.bin")
    replace(path, bytes([data[0] ^ 1]) + data[1:])
    os.utime(path, ns=times)  # as a copy that keeps times leaves it
    with pytest.raises(UserError, match="unet/weights.bin does not match its sha256"):
        bundle.file("unet/weights.bin")
    replace(path, data)
    assert bundle.file("unet/weights.bin") == path


@pytest.mark.parametrize("takes_model_files", [True, False])
def test_a_file_that_changes_while_it_is_loaded(copy, takes_model_files):
    class Engine:
        precision, kernels, reads = "float32", "lite", "lite"

        def load(self, *_, **__):
            replace(copy / "prior" / "weights.bin", bytes(size))

    engine = Engine()
    engine.takes_model_files = takes_model_files
    size = (copy / "prior" / "weights.bin").stat().st_size
    models = Models(Bundle(copy), engine, keep_loaded=True)
    with pytest.raises(UserError, match="prior/weights.bin does not match its sha256"), models.lease("prior_context"):
        raise AssertionError("it was loaded")
