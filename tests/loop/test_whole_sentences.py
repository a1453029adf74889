"""What is left of a text that was cut in the middle of a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.loop.whole_sentences import whole_sentences


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("Ask a friend. Then go and", "Ask a friend."),
        ("Really? Yes! I would", "Really? Yes!"),
        ('He said "Go." Then he', 'He said "Go."'),
        ("Ask Dr. Smith. He is the", "Ask Dr. Smith."),
        ("It costs 3.50 at the shop. And 4.5", "It costs 3.50 at the shop."),
        ("Do this:\n\n1. Read the plan.\n\n2. Choose", "Do this:\n\n1. Read the plan."),
        ("Steps:\n\n- Buy flour\n- Mi", ""),
        ("Steps:\n\n- Buy flour\n\n- Mi", "Steps:\n\n- Buy flour"),
        ("**Bold words.** And then", "**Bold words.**"),
        ("先读计划。然后选", "先读计划。"),
        ("Run it. For example:\n\n```\nls. now", "Run it."),
        ("```\nls\n```\n\nThat lists them. It al", "```\nls\n```\n\nThat lists them."),
        ("no end in sight", ""),
        ("Ask Dr. Smith about", ""),
        ("1. Read", ""),
        ("Only one.", ""),
        ("", ""),
    ],
)
def test_a_cut_text_ends_with_its_last_whole_sentence(cut: str, whole: str) -> None:
    assert whole_sentences(cut) == whole


@given(st.text(alphabet="ab .!?。\n`12", max_size=60))
def test_it_is_a_beginning_of_the_text_and_has_no_open_code(text: str) -> None:
    whole = whole_sentences(text)
    assert text.startswith(whole)
    assert whole.count("```") % 2 == 0
    assert whole == whole.rstrip()
