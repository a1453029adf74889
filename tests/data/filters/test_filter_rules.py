"""Rules that look at one row: each with replies it must find, and look-alikes that must pass."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cai.data.filters.findings import Finding, Reply
from cai.data.filters.personal_data import is_card, is_iban, personal_data
from cai.data.filters.sentences import normal, sentences
from cai.data.filters.settings import FilterRules
from cai.data.filters.sieve import RULE_IDS, RULES, Sieve, is_on
from constitution.messages import assistant, system, user

EVERY = FilterRules.model_validate(dict.fromkeys(RULE_IDS, "flag") | {"evaluation_sets": ["held-out"], "min_share_kept": 0.01})


def found(
    rule: str, text: str, *, prompt: str = "What is this?", before: str | None = None, cut: bool = False
) -> Finding | None:
    findings = Sieve(EVERY).sift(Reply((user(prompt),), text, before, cut=cut)).findings
    return next((each for each in findings if each.rule == rule), None)


def marked(rule: str, text: str) -> str:
    """What the rule says that triggered it."""
    finding = found(rule, text)
    assert finding is not None
    assert finding.span is not None
    return text[slice(*finding.span)]


# ---- out of role


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("It is a tree.\n\nHuman: And that?\n\nAssistant: A bush.", "Human:"),
        ("Sure.\nUser: thanks!", "User:"),
        ("**Human:** hello", "**Human:"),
        ("Assistant: It is a tree.", "Assistant:"),
        ("A tree.<|im_end|>\n<|im_start|>user", "<|im_end|>"),
        ("### Response: a tree", "### Response"),
        ("A tree. [INST] more [/INST]", "[INST]"),
    ],
)
def test_marks_and_turns_of_others_are_role_confusion(text: str, span: str) -> None:
    assert marked("role_confusion", text) == span


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        ("User: hi\nAssistant: hello", "Write a dialogue between a user and a chatbot."),
        ("Human: I am human.", "Continue this.\nHuman: who are you?"),
        ("Use [INST] before each request.", "What does [INST] mean?"),
        ("A human: that is all I am.", "Who are you?"),
        ("The user: is a noun.", "What is that?"),
        ("Keep the users: they pay.", "What now?"),
    ],
)
def test_dialogues_that_were_asked_for_pass(text: str, prompt: str) -> None:
    assert found("role_confusion", text, prompt=prompt) is None


@pytest.mark.parametrize(
    "text",
    [
        "Thank you for your feedback. It is a bush.",
        "You're right, my previous answer was wrong. It is a bush.",
        "I apologize for my earlier reply. It is a bush.",
        "I'll address the critique: it is a bush.",
    ],
)
def test_an_answer_to_the_critic_is_role_confusion_unless_the_user_heard_something_before(text: str) -> None:
    assert found("role_confusion", text, before="It is a tree.") is not None
    assert found("role_confusion", text) is None, "a draft may answer the user"
    talk = (user("What is it?"), assistant("A tree."), user("No."))
    assert Sieve(FilterRules()).sift(Reply(talk, text, "It is a tree.")).dropped_by is None


# ---- endings


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("There are many reasons for this, and I would like to name the", "the"),
        ("The tree in the garden is old, tall and full of leaves,", "leaves,"),
        ("Here is a program.\n\n```python\nprint(1)", "```python\nprint(1)"),
        ("First wash it well.\n\n1. Take the soap\n2.", "2."),
        ("One should always look at what there is to see in the coun-", "coun-"),
        ("He said many things that I do not remember at all (", "all ("),
    ],
)
def test_replies_that_stop_in_the_middle_are_truncated(text: str, span: str) -> None:
    assert marked("truncated", text) == span


@pytest.mark.parametrize(
    "text",
    [
        "Yes",
        "The answer is A",
        "I do not know what you are waiting for",
        "This is what it takes to be there. Vitamin A",
        "```python\nprint(1)\n```",
        "Dear Ann,\nthank you for all that you did for me last week.\n\nYours,",
        "Roses are red,\nviolets are blue,\nsugar is sweet,",
        "That is a very sad thing to hear, my friend :(",
        "The best film of that year was surely Pulp And",
        "这是一个很长的句子没有任何标点符号也没有空格但是它还是一个完整的回答",
    ],
)
def test_replies_that_end_as_people_end_pass(text: str) -> None:
    assert found("truncated", text) is None


def test_a_known_cut_is_cut_short_and_not_truncated() -> None:
    text = "There are many reasons for this, and I would like to name the"
    assert found("truncated", text, cut=True) is None
    assert found("cut_short", text, cut=True) is not None


# ---- round and round


@pytest.mark.parametrize(
    "text",
    [
        "I see. " + "You should ask her first. " * 4,
        "Go there now, please.\nCome back soon, please.\n" * 4,
        "- one\n" * 12,
    ],
)
def test_sentences_that_follow_themselves_are_a_loop(text: str) -> None:
    assert found("loops", text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "No. No. No. Never.",
        "You should ask her first. " * 3 + "Then go.",
        "| a |\n| a |\n| a |\n| b |",
        "Ask her. Wait a day or two. Ask him. Wait a day or two. Ask them. Wait a day or two.",
    ],
)
def test_refrains_are_no_loop(text: str) -> None:
    assert found("loops", text) is None


def test_a_run_of_emoji_is_found_unless_they_were_asked_for() -> None:
    text = "Great 😀😃😄😁😆😅 news"
    finding = found("emoji_runs", text)
    assert finding is not None
    assert (finding.score, finding.limit) == (6, 5)
    assert found("emoji_runs", text, prompt="Answer in emoji.") is None
    assert found("emoji_runs", "👩‍👩‍👧‍👦👍🏽 five people, two signs") is None
    assert found("emoji_runs", "✓ ✓ done, 😀 😃") is None


# ---- languages

ENGLISH = "Please tell me what happened in the town where the two rivers meet, and why so many people left it."
GERMAN = (
    "Das weiß ich leider nicht genau, aber vermutlich sind die meisten Leute wegen der vielen Überschwemmungen fortgezogen."
)
FRENCH = (
    "Je ne sais pas exactement ce qui s'est passé, mais beaucoup de gens sont partis à cause des inondations de la rivière."
)
RUSSIAN = "Я точно не знаю, что там случилось, но многие люди уехали оттуда из-за постоянных наводнений и плохой дороги."
CHINESE = "我不太清楚那里发生了什么事情，不过很多人因为经常发生洪水而离开了那个小镇，搬到别的地方去住了。"


@pytest.mark.parametrize("reply", [GERMAN, FRENCH, RUSSIAN, CHINESE])
def test_a_long_reply_in_another_language_is_found_both_ways(reply: str) -> None:
    assert found("wrong_language", reply, prompt=ENGLISH) is not None
    assert found("wrong_language", ENGLISH, prompt=reply) is not None
    assert found("wrong_language", reply, prompt=reply) is None


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        (f"{ENGLISH} Answer in German.", GERMAN),
        (f"Translate this: {ENGLISH}", FRENCH),
        ("Why?", GERMAN),
        (ENGLISH, "Das weiß ich nicht."),
        (ENGLISH, f'They say there: "{GERMAN}" That is all I know about it, and about the people who left the town.'),
        (ENGLISH, "```\n" + "für die Straße über den größten Flüssen\n" * 4 + "```"),
    ],
)
def test_translations_short_texts_quotations_and_code_pass(prompt: str, reply: str) -> None:
    assert found("wrong_language", reply, prompt=prompt) is None


# ---- refusals


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "As an AI language model, I cannot do that.",
        "I cannot assist with this request.",
        "Sorry, I am unable to provide that.",
        "Unfortunately, I can't answer that question.",
        "It is against my guidelines to do so.",
    ],
)
def test_stock_refusals_are_canned(text: str) -> None:
    assert found("canned_refusal", text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "I can't help with that because it would hurt your neighbour.",
        "I'm sorry, but I can't help with that. You could talk to a lawyer instead.",
        "I'm sorry to hear that. How long has it hurt?",
        "I cannot recommend this book enough.",
        "No, that would be theft.",
        "I don't know.",
    ],
)
def test_refusals_with_a_reason_or_another_way_and_look_alikes_pass(text: str) -> None:
    assert found("canned_refusal", text) is None


# ---- personal data


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("Write to ann.lee+x@mail.firm.co.uk today.", "ann.lee+x@mail.firm.co.uk"),
        ("Pay to DE89 3704 0044 0532 0130 00 soon.", "DE89 3704 0044 0532 0130 00"),
        ("The card is 4111 1111 1111 1111.", "4111 1111 1111 1111"),
        ("It runs on 93.184.216.34 now.", "93.184.216.34"),
        ("It runs on 2606:2800:220:1:248:1893:25c8:1946.", "2606:2800:220:1:248:1893:25c8:1946"),
        ("Call +44 20 7946 0018 at noon.", "+44 20 7946 0018"),
        ("Call (212) 736-5000.", "(212) 736-5000"),
        ("His number is 078-05-1120.", "078-05-1120"),
        ("DNI 12345678Z", "12345678Z"),
        ("NIR 2 55 08 14 168 025 38", "2 55 08 14 168 025 38"),
        ("NINO AB 12 34 56 C", "AB 12 34 56 C"),
    ],
)
def test_personal_data_are_found_by_form_and_checksum(text: str, span: str) -> None:
    assert marked("pii", text) == span
    assert found("pii", text, prompt=f"Repeat: {span}") is None, "what the prompt holds is not new"
    spaceless = span.replace(" ", "")
    assert found("pii", text, prompt=f"Repeat: {spaceless}") is None


@pytest.mark.parametrize(
    "text",
    [
        "Write to somebody@example.com or me@localhost.",
        "Version 1.2.3.4 of 192.168.0.1 and 10.20.30.40",
        "The card is 4111 1111 1111 1112.",
        "Pay to DE89 3704 0044 0532 0130 01.",
        "Order 1234567890123456, lot 0000000000000.",
        "Call 555-0123 or (212) 555-0147.",
        "Between 1914-1918 and 1939-1945 lie 21 years.",
        "In 12345678A the letter is wrong.",
        "pi is 3.14159265358979323846",
        "The time is 12:34:56:78 or 10::20.",
        "@handle and a@b",
    ],
)
def test_numbers_that_only_look_like_it_pass(text: str) -> None:
    assert list(personal_data(text)) == []


@given(st.lists(st.integers(0, 9), min_size=14, max_size=14))
def test_exactly_one_last_digit_makes_a_card_number(digits: list[int]) -> None:
    """Luhn's sum: of ten numbers that differ in their last digit, one is valid."""
    body = "4" + "".join(map(str, digits))
    valid = [last for last in range(10) if is_card(f"{body}{last}")]
    assert len(valid) == 1 or len(set(body)) == 1


@given(st.integers(0, 10**18 - 1))
def test_the_check_digits_of_an_iban_are_98_less_the_rest(account: int) -> None:
    """ISO 7064: the check digits are 98 − (number with 00) mod 97; any others but 97 more or less are wrong."""
    body = f"{account:018}"
    check = 98 - int(f"{body}131400") % 97  # D is 13, E is 14
    assert is_iban(f"DE{check:02}{body}")
    assert not is_iban(f"DE{(check + 1) % 97 + 2:02}{body}") or (check + 1) % 97 + 2 == check


# ---- all of them


def test_every_rule_has_a_switch_a_sentence_and_its_limits_in_the_settings() -> None:
    fields = FilterRules.model_fields
    switches = set(fields) - {limit for rule in RULES for limit in rule.limits}
    assert switches == set(RULE_IDS)
    for rule in RULES:
        assert rule.description.endswith(".")
        assert all(limit in fields for limit in rule.limits)


@pytest.mark.parametrize("rule", RULE_IDS)
@pytest.mark.parametrize("value", [True, False, "drop", "flag", "off"])
def test_a_switch_is_a_boolean_or_a_word(rule: str, value: bool | str) -> None:
    rules = FilterRules.model_validate({rule: value, "evaluation_sets": ["lab"], "min_share_kept": 0.1})
    expected = ("drop" if value else "off") if isinstance(value, bool) else value
    assert rules.action(rule) == expected
    assert is_on(rules, next(each for each in RULES if each.id == rule)) == (value not in (False, "off"))


def test_a_flag_keeps_the_row_and_the_first_rule_that_drops_names_it() -> None:
    text = "Human: no\nHuman: no\n\nI'm sorry, I cannot"
    sifted = Sieve(FilterRules(role_confusion="flag", truncated="off")).sift(Reply((user("?"),), text))
    assert [each.rule for each in sifted.findings] == ["role_confusion"]
    assert sifted.dropped_by is None
    assert Sieve(FilterRules()).sift(Reply((user("?"),), "…", cut=True)).dropped_by == "empty"


@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=100), st.none() | st.text(max_size=100))
@example("\ud800" * 20, "\udfff", "\ud83d")
@example("\x00\x1b[31m" * 50, "\x85\u2028", None)
@example("", "", "")
def test_no_text_breaks_a_rule_and_every_span_lies_in_its_text(text: str, prompt: str, before: str | None) -> None:
    reply = Reply((system(prompt), user(prompt)), text, before)
    for each in Sieve(EVERY).sift(reply).findings:
        of = text if each.place == "reply" else prompt
        assert each.span is None or 0 <= each.span[0] <= each.span[1] <= len(of)


@given(st.text(alphabet=st.sampled_from("ab .!?\n…。"), max_size=60))
def test_sentences_hold_all_that_is_no_space(text: str) -> None:
    places = list(sentences(text))
    assert all(a < b <= c < d for (a, b), (c, d) in itertools.pairwise(places))
    kept = "".join(text[start:end] for start, end in places)
    assert "".join(kept.split()) == "".join(text.split())
    assert all(normal(text[start:end]) == normal(text[start:end].strip()) for start, end in places)


HOSTILE = (
    "a",
    "a ",
    "\n",
    " ",
    "\x00",
    "\ud800",
    "1 ",
    "1-",
    "1.",
    "a@",
    "a.a@a.",
    "A1",
    "AB12 ",
    "::",
    "f:",
    "`",
    "```\n",
    '"',
    "😀",
    "😀\u200d",
    "the new reply ",
    "the new reply principle ",
    "here is the ",
    "Human:\n",
    "* # ",
    "I'm sorry, ",
    "no. ",
    ".",
    "+1 (",
    "(((",
    "ＡＢ１２",
)


@pytest.mark.parametrize("unit", HOSTILE)
def test_the_work_grows_with_the_text_and_not_with_its_square(unit: str) -> None:
    """Eight times the text costs about eight times the time; a quadratic rule would cost sixty-four."""
    sizes = (8_000, 64_000)
    seconds: list[float] = []
    for size in sizes:
        text = (unit * (size // len(unit) + 1))[:size]
        reply = Reply((user(text),), text, text[: size // 2])
        took: list[float] = []
        for _ in range(2):
            sieve = Sieve(EVERY.model_copy(update={"near_duplicate": "off", "wrong_language": "off"}))
            began = time.process_time()
            sieve.sift(reply)
            took.append(time.process_time() - began)
        seconds.append(min(took))
    assert seconds[1] < 24 * seconds[0] + 0.02, seconds


def test_a_megabyte_of_anything_is_judged() -> None:
    text = "\ud800\x00A man, a plan; 12 34 \u202e" * 40_000
    sieve = Sieve(EVERY)
    sieve.sift(Reply((user(text[:1000]),), text, "short"))
