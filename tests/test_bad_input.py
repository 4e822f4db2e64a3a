"""Bad input of any kind gets one line that says what is wrong, status 2 on the command line, and leaves nothing."""

import pytest
from bad_inputs import Place, all_cases

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_gets_one_line(case, bundles, tmp_path):
    error = case.act(Place(bundles("narrow"), tmp_path / "place"))
    rest = error
    for words in case.words.split(" ... "):
        before, found, rest = rest.partition(words)
        assert found, f"{words!r} is not in: {error}"


def test_there_are_enough_cases_and_no_two_are_the_same():
    assert len({case.name for case in CASES}) == len(CASES) >= 300
