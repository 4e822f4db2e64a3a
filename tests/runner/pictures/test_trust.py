"""What a stranger's recipe names is not opened without a word."""

import os

import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.bundle.checked_files import sha256_of
from kandinsky_mindir.runner.pictures import trust
from kandinsky_mindir.runner.pictures.images import load_image, pixels_sha256
from kandinsky_mindir.runner.pictures.provenance import Provenance, as_text
from kandinsky_mindir.runner.pictures.saving import save_image
from kandinsky_mindir.runner.request import Item, Request
from PIL import Image

REQUEST = Request(task="text2image", prompt="a cat")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A working folder beside one with a picture, a bundle and another bundle."""
    for name in ("work", "pictures/bundle", "pictures/other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("bundle", "other"):
        (tmp_path / "pictures" / name / "manifest.json").write_text(name)
    save_image(Image.new("RGB", (4, 4), "red"), tmp_path / "pictures" / "red.png")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: pytest.fail("an address was opened"))
    return tmp_path


def made_with(home, bundle, beside=None):
    sha256 = sha256_of(home / "pictures" / "bundle" / "manifest.json")
    return Provenance(request=REQUEST, bundle=bundle, bundle_sha256=sha256, beside={bundle: beside} if beside else {})


@pytest.mark.parametrize("name, beside", [
    ("../pictures/bundle", None),  # as it was given
    ("bundle", None),  # moved together
    ("elsewhere/bundle", "bundle"),  # from another working folder
    ("elsewhere/bundle", "../pictures/bundle"),
    ("{home}/pictures/bundle", None),
])
def test_the_bundle_that_a_picture_was_made_with_is_found(home, name, beside):
    found = trust.bundle(made_with(home, name.format(home=home), beside), home / "pictures" / "cat.png")
    assert found.doubt is None and os.path.samefile(found.place, home / "pictures" / "bundle")


@pytest.mark.parametrize("name, doubt", [
    ("other", "other is another bundle than the picture was made with"),
    ("//server/share/bundle", "may lie on another machine"),
    ("\\\\server\\share\\bundle", "may lie on another machine"),
    ("https://example.org/bundle", "may lie on another machine"),
    ("file:///pictures/bundle", "may lie on another machine"),
])
def test_another_bundle_is_doubted(home, name, doubt):
    assert doubt in trust.bundle(made_with(home, name), home / "pictures" / "cat.png").doubt


@pytest.mark.parametrize("name", ["nowhere", "", "a\0b", "x" * 5000, "/dev/zero", "red.png"])
def test_a_bundle_that_is_not_here_is_said_to_come_from_the_recipe(home, name):
    with pytest.raises(UserError, match=r"the bundle that the recipe in .*cat.png names, is not here: give the BUNDLE"):
        trust.bundle(made_with(home, name), home / "pictures" / "cat.png")


def mixed(home, image, sha256="right", beside=None):
    if sha256 == "right":
        sha256 = pixels_sha256(load_image(home / "pictures" / "red.png"))
    item = Item(weight=1, image=image, sha256=sha256)
    provenance = Provenance(request=Request(task="interpolate", items=(item,)), bundle="bundle", bundle_sha256="",
                            beside={image: beside} if beside else {})
    return trust.used_picture(item, provenance, home / "pictures" / "cat.png", "--image")


def test_pictures_that_are_here_and_unchanged_are_found(home):
    for name, beside in (("../pictures/red.png", None), ("red.png", None), ("elsewhere/red.png", "red.png")):
        found = mixed(home, name, beside=beside)
        assert found.doubt is None and os.path.samefile(found.place, home / "pictures" / "red.png")


def test_a_picture_whose_name_is_not_utf_8(home):
    name = os.fsdecode(b"\xea.png")
    os.link(home / "pictures" / "red.png", home / "pictures" / name)
    assert mixed(home, as_text(name)).place.name == name


@pytest.mark.parametrize("name", ["http://127.0.0.1/red.png", "HTTPS://example.org/", "//server/red.png", "ftp://a/red.png"])
def test_addresses_are_doubted(home, name):
    assert "lies on another machine" in mixed(home, name).doubt


def test_a_picture_without_a_sha256_is_doubted(home):
    assert "does not say what the picture red.png must be" in mixed(home, "red.png", sha256=None).doubt.replace(
        str(home / "pictures") + "/", "")


def test_a_picture_that_changed_or_is_not_here_is_refused(home):
    with pytest.raises(UserError, match=r"red.png is not the picture that was used: give it with"):
        mixed(home, "red.png", sha256="0" * 64)
    for name in ("nowhere.png", "/dev/zero", "."):
        with pytest.raises(UserError, match=r"a picture that the recipe in .*cat.png names, is not here"):
            mixed(home, name)
