"""Templates of principles: what they may do, what they are refused, and that other people's text is never one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.templating import MAX_OUTPUT_CHARS, BadTemplateError, check_template, render_prompt, render_text


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ word.__class__.__mro__ }}",
        "{{ word['__class__'] }}",
        "{{ word | attr('__class__') }}",
        "{{ word.format(word) }}",
        "{{ range(10) }}",
        "{{ cycler }}",
        "{{ self }}",
        "{% for x in word %}{{ x }}{% endfor %}",
        "{% set x = word %}",
        "{% macro m() %}{% endmacro %}",
        "{% include 'critique.j2' %}",
        "{% import 'critique.j2' as c %}",
        "{% from 'critique.j2' import x %}",
        "{% extends 'critique.j2' %}",
        "{% block b %}{% endblock %}",
        "{% call word() %}{% endcall %}",
        "{% filter upper %}{% endfilter %}",
        "{{ 'a' * 300000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%300000000d' % 1 }}",
        "{{ [1, 2] }}",
        "{{ {'a': 1} }}",
        "{{ word[0:1] }}",
        "{{ word is string }}",
        "{{ word ~ unknown }}",
        "{{ word | random }}",
        "{{ word | center(300000000) }}",
        "{{ word | indent(300000000) }}",
        "{{ ",
        "{% if %}",
        "{# open",
    ],
)
def test_what_a_prompt_does_not_need_is_refused_before_it_runs(template: str) -> None:
    with pytest.raises(BadTemplateError):
        check_template(template, frozenset({"word"}))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Do not mention {{ word }}.", "Do not mention tea."),
        ("{{ word | upper }} and {{ word | title }}", "TEA and Tea"),
        ("{% if n > 20 %}long{% elif n %}short{% else %}none{% endif %}", "short"),
        ("{{ 'few' if n < 10 else 'many' }}", "few"),
        ("{{ n + 1 }} {{ n - 1 }} {{ word ~ n }}", "4 2 tea3"),
        ("{{ word | replace('t', 's') }}, {{ word | length }}, {{ word | join('-') }}", "sea, 3, t-e-a"),
        ("{# for people #}{{ word | default('x') | trim }}", "tea"),
        ("{% raw %}{{ as it is }}{% endraw %}", "{{ as it is }}"),
        ("a {curly} bracket }} and 100 %", "a {curly} bracket }} and 100 %"),
    ],
)
def test_what_a_prompt_needs_works(template: str, expected: str) -> None:
    assert render_text(template, {"word": "tea", "n": 3}) == expected


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ w" + "| replace('a', w)" * 12 + " }}",
        "{{ w | replace('', w) | join(w) }}",
        "{{ w ~ w" + " ~ w" * 150 + " }}",
    ],
)
def test_a_filter_that_would_blow_a_text_up_stops_before_it_does(bomb: str) -> None:
    """A chain of `replace` once wrote 324 million characters before its length was looked at."""
    started = time.process_time()
    with pytest.raises(BadTemplateError, match=r"characters, more than|parts, more than|too deeply"):
        render_text(bomb, {"w": "a" * 500})
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize(
    "deep",
    [
        "{{ " + "(" * 1900 + "1" + ")" * 1900 + " }}",
        "{{ " + "not " * 900 + "1 }}",
        "{{ " + "-" * 1900 + "1 }}",
        "{{ 1" + " + 1" * 300 + " }}",
        "{% if 1 %}" * 150 + "x" + "{% endif %}" * 150,
        "{{ w" + " | trim" * 300 + " }}",
    ],
)
def test_deep_nesting_is_a_problem_and_no_crash(deep: str) -> None:
    with pytest.raises(BadTemplateError, match=r"deep|parts"):
        render_text(deep, {"w": "a"})


def test_a_failure_while_rendering_is_a_problem_with_the_template() -> None:
    with pytest.raises(BadTemplateError, match="cannot be rendered"):
        render_text("{{ word + 1 }}", {"word": "tea"})


def test_a_problem_says_on_which_line_of_the_template_it_is() -> None:
    with pytest.raises(BadTemplateError) as caught:
        check_template("one\ntwo\n{{ three }}", frozenset())
    assert (caught.value.line, caught.value.word) == (3, "three")


@given(st.text(), st.text(), st.text())
def test_text_that_is_filled_in_comes_through_as_it_is(principle: str, request: str, marker: str) -> None:
    """Replies and prompts may hold `{{ }}`, `{% %}`, `<script>`: they are data."""
    for hostile in (marker, f"{{{{ {marker} }}}}", f"{{% {marker} %}}", f"<script>{marker}</script>"):
        filled = render_prompt("critique", {"principle": f"{principle}{hostile}|", "critique_request": f"|{request}|"})
        assert f"Principle: {principle}{hostile}|\n|{request}|" in filled


@given(st.text(max_size=300))
def test_a_parameter_s_value_is_never_read_as_a_template(value: str) -> None:
    assert render_text("<{{ word }}>", {"word": value}) == f"<{value}>"


@given(st.text(alphabet="{}%#'\"| \n~+-()abword123", max_size=80))
def test_any_template_renders_within_bounds_or_is_refused(template: str) -> None:
    try:
        rendered = render_text(template, {"word": "tea", "a": 1})
    except BadTemplateError:
        return
    assert len(rendered) <= MAX_OUTPUT_CHARS
