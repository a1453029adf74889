"""Parametrised rules: what `mend` returns follows, what `spoil` returns breaks, and each check agrees with a plain reading."""

from __future__ import annotations

import random
import re

import pytest

from cai.lab.critiques import mended_rule, rule_branch
from cai.lab.replies import reply
from cai.lab.rules import KINDS, check_rule, in_words
from cai.lab.wordings import Wordings
from cai.lab.world import FAMILIES, LabItem, World
from constitution.rendering import NOTHING_TO_CHANGE, read_critique

WORLD = World.load()
CASES = 40


def drawn(kind: str, seed: int) -> tuple[random.Random, LabItem, str, dict[str, str]]:
    rng = random.Random(f"{kind}/{seed}")
    item = WORLD.item(rng, rng.choice(FAMILIES), "train")
    text = reply(WORLD, rng, item, rng.choice(["good", "bad"])) + ("" if seed % 3 else " That is all there is to say.")
    return rng, item, text, KINDS[kind].draw(rng, text)


@pytest.mark.parametrize("kind", KINDS)
def test_mended_text_follows_and_spoiled_text_breaks_the_rule(kind: str) -> None:
    changed = 0
    for seed in range(CASES):
        rng, _, text, params = drawn(kind, seed)
        rule = KINDS[kind]
        follows = rule.follows(params, text)
        if follows and kind == "one_sentence" and re.search(r"\d\W*$", text):
            continue  # "= 7. It is" is read as a list's number, so the sentence does not end there
        other = (rule.spoil if follows else rule.mend)(params, text, rng)
        if other is not None:
            changed += 1
            assert rule.follows(params, other) != follows
    assert changed


@pytest.mark.parametrize("kind", KINDS)
def test_critique_of_a_rule_follows_its_check_and_the_revision_keeps_rule_and_truth(kind: str) -> None:
    verdicts: set[bool] = set()
    for seed in range(CASES):
        rng, item, text, params = drawn(kind, seed)
        if seed % 2:
            turn = KINDS[kind].spoil if check_rule(kind, params, text) else KINDS[kind].mend
            text = turn(params, text, rng) or text
        branch = rule_branch(WORLD, Wordings.load(), rng, item, text, kind, params)
        if branch is None:
            assert not check_rule(kind, params, text)
            continue
        follows = check_rule(kind, params, text)
        verdicts.add(follows)
        assert read_critique(branch.critique).nothing_to_change == follows
        assert (branch.revision is None) == follows
        if branch.revision is not None:
            assert check_rule(kind, params, branch.revision)
            assert branch.revision != text
    assert verdicts == {True, False}


def test_no_revision_is_invented_where_rule_and_truth_cannot_both_be_kept() -> None:
    item = WORLD.item(random.Random(0), "fact", "train")
    assert mended_rule(WORLD, random.Random(0), item, f"It is {item.value}.", "no_word", {"word": item.value}) is None


@pytest.mark.parametrize(
    ("kind", "params", "follows", "breaks"),
    [
        ("no_word", {"word": "tea"}, "Drink a team's coffee.", "Drink tea."),
        ("must_word", {"word": "tea"}, "Tea is good.", "A team is good."),
        ("max_words", {"n": "3"}, "One two three.", "One two three four."),
        ("no_exclamation", {}, "Stop.", "Stop!"),
        ("no_question", {}, "So it is.", "Is it so?"),
        ("offer_help", {}, "Done. Let me know if you need more help.", "Let me know. Done now."),
        ("start_word", {"word": "Well"}, "Well, yes.", "Wellington is a city."),
        ("no_digits", {}, "Four legs.", "4 legs."),
        ("no_list", {}, "One and two.", "1. One\n2. Two"),
        ("one_sentence", {}, "One only.", "One. Two."),
        ("thanks", {}, "Thank you for asking.", "You are welcome."),
        ("no_name", {"name": "Anna"}, "Hello, Hannah.", "Hello, Anna."),
        ("no_first_person", {}, "Maine and Miami are far.", "I think so."),
        ("no_brackets", {}, "So it is.", "So it is (in short)."),
        ("closing", {"phrase": "Good luck."}, "Go on. Good luck.", "Good luck. Go on."),
        ("no_apology", {}, "No.", "Sorry, no."),
    ],
)
def test_each_kind_tells_following_from_breaking(kind: str, params: dict[str, str], follows: str, breaks: str) -> None:
    assert check_rule(kind, params, follows)
    assert not check_rule(kind, params, breaks)


def test_every_kind_has_a_wording_and_a_plain_case_above() -> None:
    forms = Wordings.load()
    for kind in KINDS:
        rng, _, _, params = drawn(kind, 0)
        said = forms.rule(rng, kind, params)
        assert said.wording.principle
        assert "{" not in said.wording.principle + said.wording.gist + said.kept


@pytest.mark.parametrize(("number", "words"), [(0, "zero"), (17, "seventeen"), (40, "forty"), (42, "forty-two"), (101, None)])
def test_numbers_are_written_out_up_to_a_hundred(number: int, words: str | None) -> None:
    assert in_words(number) == words


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        check_rule("no_rhymes", {}, NOTHING_TO_CHANGE)
