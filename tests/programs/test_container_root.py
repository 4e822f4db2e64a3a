"""What can be said of the Containerfile without building it; container_root.py runs its steps."""

import shlex

import container_root


def steps():
    return container_root.instructions(container_root.CONTAINERFILE.read_text())


def test_what_is_copied_is_there():
    sources = [name for word, rest in steps() if word == "COPY" and "--from" not in rest for name in shlex.split(rest)[:-1]]
    assert len(sources) >= 5
    for name in sources:
        assert name == "$BUNDLE" or (container_root.ROOT / name).exists(), name


def test_the_last_stage_has_no_compiler_and_a_user_without_a_name():
    words = steps()
    last = words[max(number for number, (word, _) in enumerate(words) if word == "FROM"):]
    assert not any("g++" in rest for word, rest in last if word == "RUN")
    (user,) = (rest for word, rest in last if word == "USER")
    assert [part.isdecimal() and int(part) > 0 for part in user.split(":")] == [True, True]


def test_what_an_instruction_says():
    stage = container_root.Stage(None)
    stage.arguments["BUNDLE"] = "here"
    assert stage.expanded("$BUNDLE/${BUNDLE}x") == "here/herex"
    assert container_root.instructions("# no\nRUN a \\\n && b\n\nUSER 1:1") == [("RUN", "a   && b"), ("USER", "1:1")]
