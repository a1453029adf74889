"""Parametrised rules: what `mend` returns follows, what `spoil` returns breaks, and each check agrees with a plain reading."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.lab.critiques import mended_rule, rule_branch
from cai.lab.kinds.words import ENDINGS
from cai.lab.observations import observed
from cai.lab.replies import reply
from cai.lab.rules import KINDS, check_rule, in_words
from cai.lab.wordings import Wordings
from cai.lab.world import FAMILIES, LabItem, World
from constitution.rendering import NOTHING_TO_CHANGE, read_critique

WORLD = World.load()
CASES = 40
PAIRS = [
    ("no_word", "must_word"),
    ("no_phrase", "must_phrase"),
    ("no_name", "use_name"),
    ("no_exclamation", "exclamation"),
    ("no_question", "ask_question"),
    ("no_digits", "digits"),
    ("no_brackets", "brackets"),
    ("no_caps", "caps"),
    ("no_list", "list"),
    ("no_thanks", "thanks"),
    ("no_greeting", "greet"),
    ("no_hedging", "hedge"),
    ("no_first_person", "first_person"),
    ("no_second_person", "second_person"),
    ("no_contraction", "contraction"),
    ("no_please", "please"),
    ("no_example", "example"),
    ("no_warning", "warning"),
    ("no_reason", "reason"),
    ("no_absolute", "absolute"),
    ("no_plural_self", "plural_self"),
    ("no_surprise", "surprise"),
    ("no_praise", "praise"),
    ("no_smiley", "smiley"),
    ("no_time_word", "time_word"),
    ("no_sentence", "must_sentence"),
    ("no_signature", "signature"),
]

PLAIN_CASES: list[tuple[str, dict[str, str], str, str]] = [
    ("no_word", {"word": "tea"}, "Drink a team's coffee.", "Drink tea."),
    ("must_word", {"word": "tea"}, "Tea is good.", "A team is good."),
    ("must_both", {"word": "tea", "other": "ham"}, "Ham and tea.", "Tea for Graham."),
    ("neither", {"word": "tea", "other": "ham"}, "A team for Graham.", "Milk with ham."),
    ("no_start_word", {"word": "I"}, "In short, I agree.", "I agree."),
    ("no_start_word", {"word": "I"}, "I'm sure.", "I, too."),
    ("opening", {"phrase": "Let us see."}, "Let us see: no.", "No. Let us see."),
    ("opening", {"phrase": "My answer:"}, "My answer: no.", "My answers differ."),
    ("must_phrase", {"phrase": "in short"}, "In short, no.", "No, in shorts."),
    ("no_phrase", {"phrase": "in short"}, "No, in shorts.", "It is, in short, so."),
    ("use_name", {"name": "Anna"}, "Hello, Anna.", "Hello, Hannah."),
    ("exclamation", {}, "Stop!", "Stop."),
    ("ask_question", {}, "Is it so?", "So it is."),
    ("digits", {}, "4 legs.", "Four legs."),
    ("brackets", {}, "So it is (in short).", "So it is."),
    ("no_quotes", {}, "It's tea.", 'It is "tea".'),
    ("quote_word", {"word": "tea"}, "Say “tea.”", 'Say "a tea".'),
    ("no_commas", {}, "No; it is so.", "No, it is so."),
    ("no_colon", {}, "No; it is so.", "Look: it is so."),
    ("no_caps", {}, "I like A and Tv.", "It is SO."),
    ("caps", {}, "It is SO.", "I am A."),
    ("min_words", {"n": "4"}, "One two three four.", "One two three."),
    ("min_sentences", {"n": "two"}, "One. Two.", "One, two."),
    ("max_sentences", {"n": "two"}, "One. Two!", "One. Two! Three?"),
    ("list", {}, "Look:\n- one\n- two", "Look - one - two"),
    ("no_offer", {}, "Done, so ask nobody.", "Let me know. Done now."),
    ("no_thanks", {}, "You are welcome.", "Well, thanks."),
    ("greet", {}, "Hi there, all is well.", "Historians say hello."),
    ("no_greeting", {}, "Historians say hello.", "Hi there, all is well."),
    ("hedge", {}, "It is probably so.", "It is probable."),
    ("no_hedging", {}, "It is mighty fine.", "It might be."),
    ("no_intensifier", {}, "Every tea.", "A very good tea."),
    ("first_person", {}, "I think so.", "Maine and Miami are far."),
    ("second_person", {}, "It is yours.", "It is for youth."),
    ("no_second_person", {}, "It is for youth.", "You're right."),
    ("contraction", {}, "That's so.", "France's kings."),
    ("no_contraction", {}, "France's kings.", "I don’t know."),
    ("please", {}, "Please sit.", "It pleases me."),
    ("no_please", {}, "It pleases me.", "Please sit."),
    ("example", {}, "Fruit such as pears.", "An example of it."),
    ("no_example", {}, "An example of it.", "Fruit such as pears."),
    ("warning", {}, "Be careful.", "He took a car."),
    ("no_warning", {}, "He took a car.", "Be careful."),
    ("reason", {}, "It is so because I say so.", "A reason to go."),
    ("no_reason", {}, "A reason to go.", "It is so because I say so."),
    ("absolute", {}, "It never rains.", "It ran nevertheless."),
    ("no_absolute", {}, "It ran nevertheless.", "It never rains."),
    ("plural_self", {}, "So we say.", "They weave."),
    ("no_plural_self", {}, "They weave.", "So we say."),
    ("surprise", {}, "Oh, yes.", "An ohm is a unit."),
    ("no_surprise", {}, "An ohm is a unit.", "Oh, yes."),
    ("praise", {}, "A great pear.", "He was greater."),
    ("no_praise", {}, "He was greater.", "A great pear."),
    ("smiley", {}, "Yes :)", "Yes: (no)."),
    ("no_smiley", {}, "Yes: (no).", "Yes :)"),
    ("time_word", {}, "It rains today.", "It rains daily."),
    ("no_time_word", {}, "It rains daily.", "It rains today."),
    ("must_sentence", {"phrase": "The bus is late."}, "Yes. The bus is late!", "The bus is later."),
    ("no_sentence", {"phrase": "The bus is late."}, "The bus is later.", "Yes. The bus is late!"),
    ("max_words", {"n": "3"}, "One two three.", "One two three four."),
    ("no_exclamation", {}, "Stop.", "Stop!"),
    ("no_question", {}, "So it is.", "Is it so?"),
    ("offer_help", {}, "Done. Let me know if you need more help.", "Let me know. Done now."),
    ("start_word", {"word": "Well"}, "Well, yes.", "Wellington is a city."),
    ("no_digits", {}, "Four legs.", "4 legs."),
    ("no_list", {}, "One and two.", "1. One\n2. Two"),
    ("one_sentence", {}, "One only.", "One. Two."),
    ("one_sentence", {}, "2. Two of them.", "1 + 1 = 2. So it is."),
    ("thanks", {}, "Thank you for asking.", "You are welcome."),
    ("no_name", {"name": "Anna"}, "Hello, Hannah.", "Hello, Anna."),
    ("no_first_person", {}, "Maine and Miami are far.", "My view."),
    ("no_brackets", {}, "So it is.", "So it is (in short)."),
    ("signature", {"phrase": "Anna on duty"}, "Go on. Anna on duty", "Anna on duty: go on."),
    ("signature", {"phrase": "A friend on duty"}, "Yes. A friend on duty.", "Yes. Your helper on duty."),
    ("no_signature", {"phrase": "Anna on duty"}, "Anna on duty: go on.", "Go on. Anna on duty."),
    ("postscript", {"phrase": "P.S. The bus is late."}, "Yes. P.S. The bus is late.", "P.S. The bus is late. Yes."),
    ("last_word", {"word": "tea"}, "Think of tea.", "Tea is a team."),
    ("closing", {"phrase": "Good luck."}, "Go on. Good luck.", "Good luck. Go on."),
    ("no_apology", {}, "No.", "Sorry, no."),
]


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


@pytest.mark.parametrize(("kind", "params", "follows", "breaks"), PLAIN_CASES)
def test_each_kind_tells_following_from_breaking(kind: str, params: dict[str, str], follows: str, breaks: str) -> None:
    assert check_rule(kind, params, follows)
    assert not check_rule(kind, params, breaks)


def test_every_kind_has_a_wording_and_a_plain_case_above() -> None:
    forms = Wordings.load()
    assert {case[0] for case in PLAIN_CASES} == set(KINDS)
    for kind in KINDS:
        rng, _, text, params = drawn(kind, 0)
        said = forms.rule(rng, kind, {**params, **observed(text, params)})
        assert said.wording.principle
        assert "{" not in said.wording.principle + said.wording.gist + said.kept


@pytest.mark.parametrize(("kind", "opposite"), PAIRS)
@given(text=st.text(), seed=st.integers())
def test_opposite_kinds_never_agree_on_any_text(kind: str, opposite: str, text: str, seed: int) -> None:
    params = KINDS[kind].draw(random.Random(seed), text)
    assert check_rule(kind, params, text) != check_rule(opposite, params, text)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(min_size=1), seed=st.integers())
def test_parameters_can_be_drawn_and_texts_turned_for_any_text(kind: str, text: str, seed: int) -> None:
    rng, rule = random.Random(seed), KINDS[kind]
    params = rule.draw(rng, text)
    assert isinstance(check_rule(kind, params, text), bool)
    for turned in (rule.mend(params, text, rng), rule.spoil(params, text, rng)):
        assert turned is None or isinstance(turned, str)
    assert all(isinstance(value, str) for value in observed(text, params).values())


@pytest.mark.parametrize(
    ("name", "text", "params", "quoted"),
    [
        ("exclaimed", 'He said "Stop now!" twice.', {}, "now!"),
        ("comma", "Well, yes, no.", {}, "Well,"),
        ("colon", "In short: no.", {}, "short:"),
        ("bracket", "So it is (more or less).", {}, "(more or less)"),
        ("question", "Yes. But what do you really think about it? Hm?", {}, "really think about it?"),
        ("quoted", "Say “a small word” now.", {}, "a small word"),
        ("hello", "Good day. Hello.", {}, "Good day"),
        ("start", "Let us see. No.", {"phrase": "Let us see."}, "Let us see"),
        ("start", "No, it is not so.", {"phrase": "My answer:"}, "No, it"),
        ("first", '"Well," he said.', {}, "Well"),
        ("end", "Go on. The team on duty.", {"phrase": "Anna on duty"}, "team on duty"),
        ("end", "Think of tea!", {"word": "tea"}, "tea"),
        ("short", "I know, but they can’t.", {}, "can’t"),
        ("sentences", "One. Two.", {}, "two sentences"),
        ("missing", "Tea.", {"word": "ham", "other": "rye"}, '"ham" and "rye"'),
        ("present", "Rye and ham.", {"word": "ham", "other": "rye"}, "ham"),
        ("hedge", "No.", {}, ""),
    ],
)
def test_critiques_quote_the_words_that_decide(name: str, text: str, params: dict[str, str], quoted: str) -> None:
    assert observed(text, params)[name] == quoted


@pytest.mark.parametrize("kind", ["opening", "must_phrase", "must_sentence", "signature", "postscript"])
def test_words_to_copy_are_too_many_to_be_known_by_heart_and_never_those_of_the_held_out_kind(kind: str) -> None:
    rng = random.Random(0)
    drawn = [KINDS[kind].draw(rng, "It is so.")["phrase"] for _ in range(600)]
    assert len(set(drawn)) > 100
    assert not set(drawn) & set(ENDINGS)


@pytest.mark.parametrize(("number", "words"), [(0, "zero"), (17, "seventeen"), (40, "forty"), (42, "forty-two"), (101, None)])
def test_numbers_are_written_out_up_to_a_hundred(number: int, words: str | None) -> None:
    assert in_words(number) == words


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        check_rule("no_rhymes", {}, NOTHING_TO_CHANGE)
