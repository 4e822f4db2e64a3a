"""The order of jobs, tries and records, with a crew whose painters fail and die as the test says; the folder of the output."""

import io
import json
from collections import deque
from pathlib import Path

import pytest
from kandinsky_mindir.runner import Request, UserError
from kandinsky_mindir.runner.batch import drive, output
from kandinsky_mindir.runner.batch.crew import Outcome
from kandinsky_mindir.runner.batch.painter import Answer
from kandinsky_mindir.runner.batch.rows import Job
from kandinsky_mindir.runner.pictures.provenance import Provenance, versions_of
from kandinsky_mindir.runner.pictures.saving import encode
from PIL import Image

SHA256 = "0" * 64


def job(number, **fields):
    request = Request(task="text2image", prompt=f"picture {number}", seed=number, height=16, width=16, **fields)
    return Job(number, f"p{number}", f"p{number}.png", request)


JOBS = [job(number) for number in range(6)]


def png(job, sha256=SHA256, precision="float32"):
    versions = versions_of("bridge", "2.0.0", precision)
    text = Provenance(request=job.request, bundle="bundle", bundle_sha256=sha256, versions=versions).text()
    return encode(Image.new("RGB", (16, 16), (job.line, 0, 0)), job.file, text=text)


class Crew:
    """One painter. fates: of a job's tries, by its file: "fails", "dies"; what is not said is made."""

    ships = False

    def __init__(self, fates):
        self.fates, self.given, self.order, self.closed = {file: deque(tries) for file, tries in fates.items()}, [], [], False

    @property
    def idle(self):
        return 1 - len(self.given)

    busy = property(lambda self: len(self.given))

    def give(self, job, order):
        self.given.append(job)
        self.order.append(job.file)
        assert order.beside["bundle"] and Request.from_json(order.request) == job.request

    def wait(self, seconds):
        job = self.given.pop()
        fate = self.fates[job.file].popleft() if self.fates.get(job.file) else "made"
        answers = {"made": Answer(png(job), None, 1.0, ("it is late",) if job.line == 5 else ()),
                   "fails": Answer(None, "no paint", 1.0, ()), "dies": None}
        return [Outcome(job, answers[fate], "1")]

    def close(self):
        self.closed = True


def run(folder, fates=(), jobs=JOBS, tries=3):
    crew, ticks = Crew(dict(fates)), []
    with output.opened(folder, jobs) as place:
        missing = place.missing(jobs, SHA256)
        outcomes = list(drive.drive(missing, crew, place, Path("bundle"), tries, ticks.append))
    assert crew.closed and sum(ticks) == len(outcomes) == len(missing)
    return crew.order, outcomes


def records(folder):
    return [json.loads(line) for line in (folder / output.RESULTS).read_text().splitlines()]


@pytest.mark.filterwarnings("ignore:p5.png. it is late")
def test_tries_and_records(tmp_path):
    """What fails is tried after all others, what a painter died over before them; each so often, then recorded."""
    fates = {"p1.png": ["fails"], "p2.png": ["dies"], "p3.png": ["fails", "dies", "fails"], "p4.png": ["dies"] * 3}
    order, _ = run(tmp_path / "out", fates)
    assert order == [f"p{n}.png" for n in (0, 1, 2, 2, 3, 4, 4, 4, 5, 1, 3, 3)]
    found = {record["file"]: record for record in records(tmp_path / "out")}
    assert {name: record["tries"] for name, record in found.items()} == {
        "p0.png": 1, "p1.png": 2, "p2.png": 2, "p3.png": 3, "p4.png": 3, "p5.png": 1}
    assert (found["p3.png"]["error"], found["p4.png"]["error"]) == ("no paint", drive.DIED)
    assert found["p5.png"]["warnings"] == ["it is late"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {f"p{n}.png" for n in (0, 1, 2, 5)}
    assert run(tmp_path / "out")[0] == ["p3.png", "p4.png"]  # the next run tries them again
    assert run(tmp_path / "out")[0] == []


def test_a_warning_names_its_picture(tmp_path):
    with pytest.warns(UserWarning, match=r"^p5\.png: it is late$"):
        run(tmp_path / "out")


@pytest.mark.filterwarnings("ignore:p5.png. it is late")
def test_what_a_kill_leaves_of_the_results(tmp_path):
    folder = tmp_path / "out"
    run(folder)
    whole = (folder / output.RESULTS).read_bytes()
    (folder / output.RESULTS).write_bytes(whole[:-7])
    (folder / ".kandinsky-mindir-0.part").write_bytes(b"half")
    (folder / "p2.png").unlink()
    assert run(folder)[0] == ["p2.png"]
    lines = (folder / output.RESULTS).read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines[:5]] == [f"p{n}.png" for n in range(5)]
    assert lines[5] + "\n" != whole.splitlines(keepends=True)[5].decode()  # the one that was cut stays cut
    assert [json.loads(line)["file"] for line in lines[6:]] == ["p5.png", "p2.png"] and json.loads(lines[6])["found"]
    assert not list(folder.glob(".*"))


@pytest.mark.filterwarnings("ignore:p5.png. it is late")
@pytest.mark.parametrize("change, words", [
    (lambda path: path.write_bytes(png(job(7))), "line 3: .*p3.png is there, and it is a picture of another request: move it"),
    (lambda path: path.write_bytes(png(JOBS[3], "1" * 64)), "line 3: .* it is a picture of another bundle: move it"),
    (lambda path: path.write_bytes(png(JOBS[3], precision="bfloat16")), "line 3: .* a picture of another --precision: move it"),
    (lambda path: Image.new("RGB", (16, 16)).save(path), "line 3: .*p3.png carries no recipe.*: move it away"),
    (lambda path: path.write_text("notes"), "line 3: .*p3.png carries no recipe"),
    (lambda path: (path.unlink(), path.mkdir()), "p3.png cannot be read: it is not a file: move it away"),
])
def test_something_else_has_the_name(change, words, tmp_path):
    """It stays as it is, and nothing is made."""
    folder = tmp_path / "out"
    run(folder)
    (folder / "p1.png").unlink()
    change(folder / "p3.png")
    with pytest.raises(UserError, match=words):
        run(folder)
    assert (folder / "p3.png").exists() and not (folder / "p1.png").exists()


@pytest.mark.filterwarnings("ignore:p5.png. it is late")
def test_a_damaged_picture_is_made_again(tmp_path):
    folder = tmp_path / "out"
    run(folder)
    right = (folder / "p3.png").read_bytes()
    for damaged in (right[:-20], right[:-30] + bytes([right[-30] ^ 1]) + right[-29:], right[:-4]):
        (folder / "p3.png").write_bytes(damaged)
        with pytest.warns(UserWarning, match="p3.png is damaged: it is made again"):
            assert run(folder)[0] == ["p3.png"]
        assert (folder / "p3.png").read_bytes() == right


def test_one_batch_at_a_time_in_a_folder(tmp_path):
    with output.opened(tmp_path / "out", JOBS):
        with pytest.raises(UserError, match="another batch is writing into"), output.opened(tmp_path / "out", JOBS):
            pass


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "no/out", "file/out"):
        with pytest.raises(UserError, match="choose another --output"), output.opened(tmp_path / place, JOBS):
            pass


def test_pictures_are_known_by_their_pixels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("red.png")

    class Judge:
        def judge(self, requests):
            return map(Request.from_json, requests)

    def mix(line, image, **more):
        items = ({"image": image, "weight": 1.0, **more}, {"text": "a", "weight": 1.0})
        request = Request.from_dict({"task": "interpolate", "items": items, "seed": 1})
        return Job(line, str(line), f"{line}.png", request)

    path = tmp_path / "rows.jsonl"
    (found,) = drive.judged(path, [mix(1, "red.png")], Judge())
    sha256 = found.request.items[0].sha256
    order = drive._order(found, tmp_path / "out", tmp_path / "bundle", ships=True)
    assert len(sha256) == 64 and Image.open(io.BytesIO(order.pictures["red.png"])).size == (8, 8)
    assert order.beside["red.png"] == "../red.png"
    with pytest.raises(UserError, match=r"rows.jsonl, line 4: gone.png cannot be read.*\(and 1 more of its lines\)"):
        drive.judged(path, [mix(1, "red.png"), mix(4, "gone.png"), mix(9, "red.png", sha256="0" * 64)], Judge())
