"""A file of requests is read whole, and the first line that is wrong is named."""

import json

import pytest
from kandinsky_mindir.runner import UserError
from kandinsky_mindir.runner.batch import rows


def write(folder, text, name="rows.jsonl"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_json_lines(tmp_path):
    first, second, mix = rows.read(write(tmp_path, "\n".join([
        '{"id": "cat", "prompt": "a cat", "seed": 7, "num_inference_steps": 3}', "", '{"id": 12, "prompt": ["a", "b"]}',
        '{"items": [{"text": "a", "weight": 1}, {"text": "b", "weight": 2}]}'])))
    assert (first.line, first.id, first.request.prompt, first.request.seed) == (1, "cat", ("a cat",), 7)
    assert (second.line, second.id, second.request.count, second.request.task) == (3, "12", 2, "text2image")
    assert mix.request.task == "interpolate" and len(mix.id) == rows.DIGEST


def test_csv_says_the_same_as_json(tmp_path):
    table = write(tmp_path, '\ufeffid,prompt,seed,guidance_scale,guidance_interval,rng,negative_prompt\r\n'
                            'a,"7, ""seven""",7,4,"[0.2, 0.8]",torch,\r\n"b","two\nlines",,,,,"[1]"\r\n', "rows.csv")
    lines = write(tmp_path, json.dumps({"id": "a", "prompt": '7, "seven"', "seed": 7, "guidance_scale": 4.0, "rng": "torch",
                                        "guidance_interval": [0.2, 0.8]}) + "\n" +
                  json.dumps({"id": "b", "prompt": "two\nlines", "negative_prompt": "[1]"}))
    found, same = rows.read(table), rows.read(lines)
    assert [(row.id, row.request) for row in found] == [(row.id, row.request) for row in same]
    assert [row.line for row in found] == [2, 3]


def test_a_row_without_seed_has_one_of_its_own_that_stays(tmp_path):
    text = '{"id": "a", "prompt": "cat"}\n{"id": "b", "prompt": "cat"}\n{"prompt": "cat"}\n'
    path = write(tmp_path, text)
    found = rows.read(path)
    assert len({row.request.seed for row in found}) == 3 and len({row.id for row in found}) == 3
    reversed_rows = rows.read(write(tmp_path, "\n".join(reversed(text.splitlines())), "other.jsonl"))
    assert {row.id: row.request for row in reversed_rows} == {row.id: row.request for row in found}


def test_a_row_of_several_pictures_is_a_job_for_each(tmp_path):
    path = write(tmp_path, '{"id": "a", "prompt": ["cat", "dog"], "num_images_per_prompt": 2, "seed": 1}\n{"id": "b", "prompt": "c"}')
    read = rows.read(path)
    jobs = rows.jobs_of(path, read)
    assert [job.file for job in jobs] == ["a-1.png", "a-2.png", "a-3.png", "a-4.png", "b.png"]
    assert [job.request for job in jobs[:4]] == [read[0].request.alone(row) for row in range(4)]


GOOD = '{"prompt": "a cat"}\n'


@pytest.mark.parametrize("text, words", [
    ("", "holds no request"),
    ("\n \n", "holds no request"),
    (GOOD + "{", "line 2: it is not JSON"),
    (GOOD + "[1]", "line 2: it must be an object"),
    (GOOD + "[" * 100000, "line 2: it is not JSON"),
    (GOOD + '{"prompt": "a", "seed": NaN}', "line 2: it is not JSON"),
    (GOOD + '{"prompt": "a", "steps": 3}', "line 2: the object contains unknown field `steps`"),
    (GOOD + '{"prompt": "a", "num_inference_steps": "3"}', "line 2: num_inference_steps: expected `int | null`, got `str`"),
    (GOOD + '{"prompt": "a", "num_inference_steps": 0}', "line 2: num_inference_steps is 0"),
    (GOOD + '{"prompt": "a", "seed": -1}', "line 2: seed -1 does not suit"),
    (GOOD + '{"prompt": "a", "scheduler": "magic"}', "line 2: scheduler 'magic' is not known"),
    (GOOD + "{}", "line 2: prompt"),
    (GOOD + '{"prompt": "a", "id": "../a"}', "line 2: id is '../a'"),
    (GOOD + '{"prompt": "a", "id": ""}', "line 2: id is ''"),
    (GOOD + '{"prompt": "a", "id": ".a"}', "line 2: id is '.a'"),
    (GOOD + '{"prompt": "a", "id": "a/b"}', "line 2: id is 'a/b'"),
    (GOOD + '{"prompt": "a", "id": true}', "line 2: id is 'True'|id is True"),
    (GOOD + '{"prompt": "a", "id": "%s"}' % ("a" * 129), "line 2: id is"),
    (GOOD + GOOD, "line 2: its id is"),
    ('{"id": "a", "prompt": "x"}\n\n{"id": "a", "prompt": "y"}', "line 3: its id is a, as that of line 1"),
    ('{"id": "a-1", "prompt": "x"}\n{"id": "a", "prompt": "y", "num_images_per_prompt": 2}', "line 2: it would write a-1.png, as line 1"),
    ('{"prompt": 1}\n' + GOOD + "{\n[", "line 1: prompt: .* \\(and 2 more of its lines\\)"),
    (GOOD.encode() + b'{"prompt": "\xff"}', "line 2: it is not UTF-8"),
])
def test_a_wrong_line_is_named(text, words, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=words) as caught:
        rows.jobs_of(path, rows.read(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, words", [
    ("", "holds no request"),
    ("prompt\n", "holds no request"),
    ("prompt,prompt\na,b\n", "line 1: it must name the columns, each once"),
    ("prompt,\na,b\n", "line 1: it must name the columns"),
    ("prompt,seed\na\n", "line 2: it has 1 cells and the first line names 2 columns"),
    ("prompt,steps\na,3\n", "line 2: the object contains unknown field `steps`"),
    ("prompt,seed\n\"a\nb\",1\nc,x\n", "line 4: seed: expected `int | null`, got `str`"),
    ('prompt\n"a\n', "it is not CSV: unexpected end of data"),
])
def test_a_wrong_line_of_csv_is_named(text, words, tmp_path):
    path = write(tmp_path, text, "rows.csv")
    with pytest.raises(UserError, match=words.replace("|", r"\|")):
        rows.read(path)


@pytest.mark.parametrize("name, words", [("rows.txt", "ends in no known format of requests: use one of .jsonl, .ndjson, .csv"),
                                         ("missing.jsonl", "cannot be read: No such file"), (".", "no known format")])
def test_what_is_no_file_of_requests(name, words, tmp_path):
    with pytest.raises(UserError, match=words):
        rows.read(tmp_path / name)
