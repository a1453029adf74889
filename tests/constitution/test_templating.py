"""Templates of principles: what they may do, what they are refused, and that other people's text is never one."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitution.errors import ConstitutionError
from constitution.loading import load_constitution
from constitution.templating import MAX_OUTPUT_CHARS, BadTemplateError, check_template, examine, render_prompt, render_text


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
        "{{ word * 300000000 }}",
        "{{ word | batch(1) }}",
        "{{ word | format(1) }}",
        "{{ word | list }}",
        "{{ word | map('upper') }}",
        "{{ word | wordwrap(1) }}",
        "{{ word | xmlattr }}",
        "{{ dict(a=1) }}",
        "{{ lipsum(1000) }}",
        "{{ joiner() }}",
        "{{ namespace() }}",
        "{% for a in word %}{% for b in word %}{{ b }}{% endfor %}{% endfor %}",
        "{% with a = word %}{% endwith %}",
        "{% autoescape true %}{% endautoescape %}",
        "{% trans %}{% endtrans %}",
        "{% do word.append(1) %}",
        "{{ word // 2 }}",
        "{{ word / 2 }}",
        "{{ 9 % 2 }}",
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
    assert (caught.value.line, caught.value.column, caught.value.offset) == (3, 4, 11)


EVERYTHING: dict[str, list[tuple[str, str]]] = {
    "{{ ^a^.b.c }} and {{ ^d }} and {{ w | ^e }}": [
        ("C122", "`a`"),
        ("C123", "`getattr`"),
        ("C122", "`d`"),
        ("C123", "unknown filter `e`"),
    ],
    "{{ w + ^}} {{ n | ^}} {{ ^f }}": [("C121", "unexpected"), ("C121", "expected token 'name'"), ("C122", "`f`")],
    "{% ^for x in y %}{{ x }}{{ ^z }}{{ loop }}{% endfor %}{{ ^g }}": [("C123", "`for`"), ("C122", "`z`"), ("C122", "`g`")],
    "{% ^for x in y %}{{ x }}{{ ( ^}}{{ loop }}{% endfor %}{{ ^g }}": [
        ("C123", "`for`"),
        ("C121", "expected"),
        ("C122", "`g`"),
    ],
    "^{{ w } and {{ ^g }} and ^{# open": [("C121", "`{{` is not closed"), ("C122", "`g`"), ("C121", "`{#` is not closed")],
    "{% ^if n %}{{ ^g }}": [("C121", "this `if` is not closed"), ("C122", "`g`")],
    "{% if n %}{% ^for x in w %}{% endif %}{{ ^g }}": [("C123", "`for`"), ("C122", "`g`")],
    "{% ^endif %} {% ^else %} {% ^elif n %}": [("C121", "closes nothing"), ("C121", "without `if`"), ("C121", "without `if`")],
    "{% if ^%}a{% elif ^%}b{% else ^x %}c{% ^elif n %}{% endif %}": [
        ("C121", "Expected an expression"),
        ("C121", "Expected an expression"),
        ("C121", "nothing may follow `else`"),
        ("C121", "`elif` after `else`"),
    ],
    "{% ^do w %}{{ ^g }}{% ^trans %}{{ w }}{% endtrans %}": [("C121", "tag `do`"), ("C122", "`g`"), ("C121", "tag `trans`")],
    "{{ ^w + 1 }}{{ ^w - 1 }}{{ n ~ w }}{{ n^.x }}": [("C125", "str"), ("C125", "str"), ("C123", "`getattr`")],
    "{% if ^w > 1 %}{{ w - 1 }}{% endif %}{{ ^w - 1 }}": [("C125", "'>'"), ("C125", "-")],
    "one\n  {{ w ^? n }}\n{{ ^g }}": [("C121", "unexpected char '?'"), ("C122", "`g`")],
    "{{ ^9 ** 9 ** 9 }}{{ ^[1] }}{{ w^() }}{{ w ^is string }}": [
        ("C123", "`pow`"),
        ("C123", "`list`"),
        ("C123", "`call`"),
        ("C123", "`test`"),
    ],
    "{% ^set x = 1 %}{{ x }}": [("C123", "`assign`")],
    "{% ^set x %}a{% endset %}{{ x }}{{ ( ^}}": [("C123", "`set`"), ("C121", "expected")],
    "^{% raw %}{{ g }}": [("C121", "this `raw` is not closed")],
    "{{ '}}' ~ ^g }}{{ ^h }}": [("C122", "`g`"), ("C122", "`h`")],
    "a {{- ^g -}}   {{ ^h }}": [("C122", "`g`"), ("C122", "`h`")],
}


@pytest.mark.parametrize("marked", EVERYTHING)
def test_everything_that_is_wrong_is_told_in_order_each_at_its_own_place(marked: str) -> None:
    """`^` marks the places; it is not written into the template."""
    places = [found.start() - number for number, found in enumerate(re.finditer(r"\^", marked))]
    found = examine(marked.replace("^", ""), frozenset({"w", "n"}), {"w": "tea", "n": 3}).faults
    assert [(fault.offset, fault.rule) for fault in found] == [
        (place, rule) for place, (rule, _) in zip(places, EVERYTHING[marked], strict=True)
    ]
    for fault, (_, words) in zip(found, EVERYTHING[marked], strict=True):
        assert words in fault.problem


PIECES = st.sampled_from(
    [
        *(
            "{{ ",
            " }}",
            "{% if w %}",
            "{% else %}",
            "{% endif %}",
            "{% elif n %}",
            "{% for x in w %}",
            "{% endfor %}",
            "{# ",
            " #}",
        ),
        *(
            "w",
            "n",
            "gone",
            " + ",
            " | upper",
            " | gone",
            ".x",
            "(",
            ")",
            "'",
            '"',
            "1",
            "\n",
            " ",
            "-",
            "{% raw %}",
            "{% endraw %}",
        ),
        *("{{ w }}", "{{ n.x }}", "{{ w - }}", "{% ", " %}", "?", "é", "\r\n", "[", "{", "}", "{%- if n -%} "),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_a_template_has_faults_exactly_where_it_cannot_be_used(text: str) -> None:
    values: dict[str, str | int | float] = {"w": "tea", "n": 3}
    found = examine(text, frozenset(values), values).faults
    try:
        render_text(text, values)
        usable = True
    except BadTemplateError:
        usable = False
    assert usable == (not found)
    assert [fault.offset for fault in found] == sorted(fault.offset for fault in found)
    assert all(0 <= fault.offset <= len(text) for fault in found)
    if found:
        with pytest.raises(BadTemplateError) as caught:
            render_text(text, values)
        assert caught.value.problem in {fault.problem for fault in found}


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


ATTACKS = {
    "attribute access": "{{ word.__class__.__mro__ }}",
    "an item": "{{ word['__class__'] }}",
    "an import": "{% import 'x' as y %}",
    "a from-import": "{% from 'x' import y %}",
    "an include": "{% include 'x' %}",
    "an extends": "{% extends 'x' %}",
    "a macro": "{% macro m() %}{{ m() }}{% endmacro %}",
    "a call": "{{ word() }}",
    "a large product": "{{ word * 300000000 }}",
    "a large power": "{{ 9 ** 9 ** 9 }}",
    "a repeat by a format": "{{ '%300000000d' % 1 }}",
    "nested loops": "{% for a in word %}{% for b in word %}x{% endfor %}{% endfor %}",
    "a filter that allocates": "{{ word | center(300000000) }}",
    "a chain of replacements": "{{ word" + " | replace('a', word)" * 12 + " }}",
    "a chain of sums": "{{ word" + " + word" * 38 + " }}",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("key", ["principle", "critique_request", "revision_request", "preference_question"])
@pytest.mark.parametrize("form", ["plain", "block", "quoted"])
def test_an_attack_is_refused_when_the_file_is_checked_with_its_place(tmp_path: Path, attack: str, key: str, form: str) -> None:
    """Whatever way it is written, and before anything of it has run: the parameter alone has 4,000 characters."""
    quoted = attack.replace("'", "''")
    written = {"plain": f"'{quoted}'", "block": f">-\n      A line,\n      then {attack}", "quoted": f"'then {quoted}'"}[form]
    rule = "" if key == "principle" else "    principle: Be kind.\n"
    path = tmp_path / "one.yaml"
    path.write_text(f"principles:\n  - id: a\n{rule}    {key}: {written}\n    parameters: {{word: {'a' * 4000}}}\n")
    started = time.process_time()
    with pytest.raises(ConstitutionError) as caught:
        load_constitution([path])
    assert time.process_time() - started < 1.0
    lines = path.read_text().splitlines()
    assert {error.rule for error in caught.value.errors} <= {"C123", "C124"}
    for error in caught.value.errors:
        assert key in error.problem
        assert "{" in lines[error.line - 1]
        assert error.column > lines[error.line - 1].index("{")


def test_a_parameter_s_value_is_bounded_like_every_text_that_reaches_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"principles:\n  - id: a\n    principle: x\n    parameters: {{word: {'a' * 4001}}}\n")
    with pytest.raises(ConstitutionError) as caught:
        load_constitution([path])
    assert [error.rule for error in caught.value.errors] == ["C112"]


@given(
    st.lists(
        st.sampled_from(["w", " | upper", " ~ w", " + w", " | replace('a', w)", " | join(w)", " | title", " | trim"]),
        max_size=60,
    )
)
def test_no_template_takes_long_or_writes_much(parts: list[str]) -> None:
    started = time.process_time()
    try:
        rendered = render_text("{{ w" + "".join(part for part in parts if part != "w") + " }}", {"w": "a " * 2000})
    except BadTemplateError:
        rendered = ""
    assert len(rendered) <= MAX_OUTPUT_CHARS
    assert time.process_time() - started < 1.0
