"""What the rules about wording take for unwise, and what they let be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from constitution.linting import Finding, lint
from constitution.linting.wording import MAX_QUESTION_CHARS


def _findings(tmp_path: Path, **keys: object) -> list[Finding]:
    tests = [{"prompt": "Where is the key?", "better": "On the hook.", "worse": "Find it yourself."}]
    entry = {"id": "example", "principle": "Be kind.", "tests": tests, **keys}
    path = tmp_path / "one.yaml"
    path.write_text(json.dumps({"principles": [entry]}, ensure_ascii=False) + "\n")
    return list(lint([path]).findings)


def _rules(tmp_path: Path, **keys: object) -> list[str]:
    return [finding.rule for finding in _findings(tmp_path, **keys)]


@pytest.mark.parametrize(
    "request_",
    [
        "Identify specific ways in which the assistant's last response is harmful, unethical or racist.",
        "Explain how the reply misleads the user.",
        "Point out everything that is wrong with the reply.",
        "What is wrong with this reply?",
        "Why is the reply rude?",
        "List the errors of the reply.",
        "In what way is the reply offensive?",
        "Please name the faults of the reply.",
        "The reply is harmful. List its faults.",
        "The reply is harmful.",
        "This response contains an error. Quote it.",
        "The assistant's last reply misleads the user: say where.",
        "Read the reply twice. List its faults.",
        "Explain how this harmful reply came about.",
        "Explain how this harmful reply could hurt a reader.",
        "Quote this rude and needlessly long answer.",
        "Does this harmful reply spare anyone?",
    ],
)
def test_a_critique_that_has_to_find_a_fault_presupposes_one(tmp_path: Path, request_: str) -> None:
    assert _rules(tmp_path, critique_request=request_) == ["C203"]


@pytest.mark.parametrize(
    "request_",
    [
        "Does the reply help to do something harmful or illegal?",
        "Is the reply rude, or does it flatter?",
        "Say whether the reply accepts a false claim.",
        "Name the faults of the reply, if there are any.",
        "List the errors of the reply, or write that nothing is to change.",
        "Check the facts in the reply.",
        "Explain which tone the reply has.",
        "How sure is the reply?",
        "The reply is not harmful. Say what it does well.",
        "Is the reply harmful? Quote the words.",
        "Does the reply mislead? Explain what is wrong.",
        "Read the reply. Is there an error in it?",
        "The reply has to be free of errors. Check its sums.",
        "Does the wrong answer to a riddle stand in the reply?",
    ],
)
def test_a_critique_that_can_end_well_does_not(tmp_path: Path, request_: str) -> None:
    assert _rules(tmp_path, critique_request=request_) == []


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("critique_request", "Doesn't the reply shout?"),
        ("critique_request", "Is the reply clearly wrong?"),
        ("critique_request", "The reply is rude, isn't it?"),
        ("critique_request", "Surely the reply could be friendlier?"),
        ("critique_request", "Isn't the reply rude?"),
        ("critique_request", "Isn’t the reply too long?"),
        ("critique_request", "Isn't the reply's tone a little cold?"),
        ("critique_request", "Read it again. Aren't there errors?"),
        ("critique_request", "But isn't it rude?"),
        ("critique_request", "Is the response not rude?"),
        ("critique_request", "Is not the reply rude?"),
        ("critique_request", "Is the reply obviously too long?"),
        ("critique_request", "The reply shouts, does it not?"),
        ("preference_question", "Which reply is obviously kinder?"),
        ("preference_question", "Obviously, which reply is kinder?"),
        ("preference_question", "Isn't the first reply kinder?"),
        ("preference_question", "Is Reply A the kinder one?"),
        ("preference_question", "Which is kinder, (A) or (B)?"),
        ("preference_question", "Which reply is of course the kinder one?"),
    ],
)
def test_a_question_that_suggests_its_answer_is_leading(tmp_path: Path, key: str, text: str) -> None:
    assert "C204" in _rules(tmp_path, **{key: text})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("critique_request", "Is the reply polite and correct?"),
        ("critique_request", "Does the reply greet the user and answer the question?"),
        ("critique_request", "Is the reply kind? Is it true?"),
        ("critique_request", "Is the reply polite, and does it also answer the question?"),
        ("critique_request", "Does the reply greet the user, and does it also name a source?"),
        ("critique_request", "Is the reply brief, and is the tone of it warm?"),
        ("critique_request", "Say whether the reply is polite, and whether it is true."),
        ("critique_request", "Is the reply kind, and also honest about what it leaves out?"),
        ("preference_question", "Which reply is kinder, and does it also name a source?"),
        ("preference_question", "Which reply is kinder, and which one is true?"),
        ("preference_question", "Which reply is more honest and more helpful?"),
        ("preference_question", "Which reply is the safer and more useful one?"),
        ("preference_question", "Which reply is brief, kind and true?"),
        ("preference_question", "Which reply is kinder and calmer?"),
        ("principle", "Be kind as well as brief."),
        ("principle", "Name prices and/or dates."),
    ],
)
def test_two_things_in_one_are_double_barrelled(tmp_path: Path, key: str, text: str) -> None:
    assert _rules(tmp_path, **{key: text}) == ["C205"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("critique_request", "Does the reply take or ask for more access than the task needs?"),
        ("preference_question", "Which reply is the more honest about risk and cost?"),
        ("preference_question", "Which reply is open about what an AI system can and cannot do?"),
        ("principle", "Correct a false claim kindly and give the right fact; agree with a claim that is true."),
        ("principle", "Clearly mark what is a guess."),
        ("critique_request", "Does the reply clearly say what it does not know?"),
        ("critique_request", "Does the reply say that it is no doctor, or does it diagnose?"),
        ("critique_request", "Say whether the reply names what it can do and what it cannot."),
        ("critique_request", "Discuss the reply and whether it is in any way rude."),
        ("preference_question", "Which reply isn't rude?"),
    ],
)
def test_one_thing_with_an_and_in_it_is_not(tmp_path: Path, key: str, text: str) -> None:
    assert _rules(tmp_path, **{key: text}) == []


@pytest.mark.parametrize("word", ["always", "Never", "under no circumstances", "100 %", "completely", "in every case"])
@pytest.mark.parametrize("key", ["principle", "critique_request", "revision_request", "preference_question"])
def test_words_without_exception_are_found_in_every_text_that_reaches_a_prompt(tmp_path: Path, key: str, word: str) -> None:
    assert _rules(tmp_path, **{key: f"What the reply says {word} counts."}) == ["C206"]


def test_a_rationale_may_be_as_absolute_and_long_as_its_author(tmp_path: Path) -> None:
    assert _rules(tmp_path, rationale="Never, ever, under no circumstances. " * 100) == []


def test_other_languages_find_nothing(tmp_path: Path) -> None:
    assert (
        _rules(tmp_path, principle="Sei freundlich und hilfsbereit.", critique_request="Ist die Antwort 友好的 и добрая?") == []
    )


@pytest.mark.parametrize(
    "lines",
    [
        "principle: Name a source, ^always.",
        "principle: >-\n      Name a source,\n      if you can,\n      ^always.",
        "principle: |\n      Name a source,\n      ^always.",
        "principle: Name a source,\n      ^always.",
        'principle: "Name a source, \\u0061lways, and ^always a date."',
        "principle: >-\n      Name a source, ^under\n      no circumstances a wrong one.",
        "'principle': 'Don''t ^always name a source.'",
    ],
)
def test_a_word_is_found_where_it_stands_however_the_text_is_written(tmp_path: Path, lines: str) -> None:
    """`^` marks the place; it is not written into the file."""
    path = tmp_path / "one.yaml"
    tests = "    tests:\n      - {prompt: Hi, better: Hello., worse: Go.}\n"
    marked = f"principles:\n  - id: example\n    {lines}\n{tests}"
    path.write_text(marked.replace("^", ""))
    before = marked[: marked.index("^")]
    (finding,) = lint([path]).findings
    place = before.count("\n") + 1, len(before) - before.rfind("\n")
    assert (finding.rule, finding.line, finding.column) == ("C206", *place)


def test_each_word_is_told_once_a_text(tmp_path: Path) -> None:
    found = _findings(tmp_path, principle="Always name a source, always a date, and never a price.")
    assert [finding.problem for finding in found] == [
        "`principle`: “Always” allows no exception",
        "`principle`: “never” allows no exception",
    ]


def test_questions_are_looked_at_up_to_a_bound_and_the_rest_is_told(tmp_path: Path) -> None:
    entry = {"principle": "Be kind.", "tests": [{"prompt": "Where?", "better": "Here.", "worse": "Go."}]}
    asked = "Isn't the reply rude? " + "It is long. " * 300
    count = MAX_QUESTION_CHARS // len(asked) + 3
    principles = [{"id": f"a{n}", "critique_request": asked.strip(), **entry} for n in range(count)]
    (tmp_path / "one.yaml").write_text(json.dumps({"principles": principles}) + "\n")
    found = [finding.rule for finding in lint([tmp_path]).findings if finding.rule in {"C204", "C218"}]
    assert found.count("C218") == 1
    assert count - 4 <= found.count("C204") < count
