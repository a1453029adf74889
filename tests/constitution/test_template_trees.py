"""Templates are evaluated as jinja2 evaluates them: its own compiler is the oracle."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jinja2 import TemplateError

from constitution.templating import MAX_OUTPUT_CHARS, BadTemplateError, check_template, environment, render_text

VALUES: dict[str, str | int | float] = {"w": "tea time", "n": 3, "x": 2.5, "e": "", "z": 0, "true": "no", "s": "ß{{ w }}"}
NAMES = frozenset(VALUES)

atoms = st.sampled_from(["w", "n", "x", "e", "z", "s", "1", "2.5", "'a'", '"b c"', "''", "true", "false", "none", "0"])


def _combined(below: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    filters = st.sampled_from(
        [
            *("upper", "lower", "title", "trim", "capitalize", "length", "default('d')", "default('d', true)", "join('-')"),
            *("replace('t', 'ss')", "replace(w, n)", "join", "trim('t')", "join(*w)", "trim(*e)", "default(**w)"),
        ]
    )
    operators = st.sampled_from(["+", "-", "~", "and", "or", "==", "!=", "<", "<=", ">", ">=", "in", "not in"])
    return st.one_of(
        st.builds("({} {} {})".format, below, operators, below),
        st.builds("{} | {}".format, below, filters),
        st.builds("({} | {})".format, below, filters),
        st.builds("(not {})".format, below),
        st.builds("(-{})".format, below),
        st.builds("({} if {} else {})".format, below, below, below),
        st.builds("({} if {})".format, below, below),
        st.builds("({} < {} <= {})".format, below, below, below),
    )


expressions = st.recursive(atoms, _combined, max_leaves=6)
texts = st.sampled_from(["", " ", "a", "\n", "a\n", "}", "}}", "%", "# ", "\r\n", "x\r", "é", "-"])
outputs = st.builds("{{{{{} {} {}}}}}".format, st.sampled_from(["", "-", "+"]), expressions, st.sampled_from(["", "-"]))
conditions = st.builds(
    "{{% if {} %}}{}{{% elif {} %}}{}{{% else %}}{}{{% endif %}}".format, expressions, texts, expressions, outputs, texts
)
templates = st.lists(
    st.one_of(texts, outputs, conditions, st.just("{# note #}"), st.just("{% raw %}{{ w }}{% endraw %}")), max_size=5
)


@given(templates.map("".join))
def test_every_allowed_template_renders_as_jinja2_renders_it(template: str) -> None:
    try:
        check_template(template, NAMES)
    except BadTemplateError:
        return
    try:
        expected = environment().from_string(template).render(VALUES) if "{" in template else template
    except (TemplateError, TypeError, ValueError, ArithmeticError):
        with pytest.raises(BadTemplateError):
            render_text(template, VALUES)
        return
    assert render_text(template, VALUES) == expected


@given(
    st.lists(
        st.sampled_from(
            ["{{ w }}", "{{w}}", "{{ n }}", "{{  w }}", "{", "}", "{{{ w }}}", "}}", "{{ true }}", " ", "a\n", "\r"]
        ),
        max_size=8,
    )
)
def test_the_short_way_for_plain_names_gives_what_the_long_way_gives(parts: list[str]) -> None:
    template = "".join(parts)
    try:
        check_template(template, NAMES)
    except BadTemplateError:
        return
    try:
        expected = environment().from_string(template).render(VALUES) if "{" in template else template
    except TemplateError:
        assume(False)
        return
    assert render_text(template, VALUES) == expected


def test_what_is_made_on_the_way_is_bounded_too() -> None:
    """Only the length of a huge text would have been written."""
    long = "a" * 4000
    with pytest.raises(BadTemplateError, match="characters, more than"):
        render_text("{{ (" + " ~ ".join(["w"] * 30) + ") | length }}", {"w": long})
    assert render_text("{{ (" + " ~ ".join(["w"] * 10) + ") | length }}", {"w": long}) == "40000"
    assert MAX_OUTPUT_CHARS < 30 * 4000


def test_nothing_of_a_template_is_compiled_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a template was compiled")

    monkeypatch.setattr(type(environment()), "compile", refuse)
    monkeypatch.setattr(type(environment()), "from_string", refuse)
    monkeypatch.setattr(builtins, "exec", refuse)
    assert render_text("{% if n > 2 %}{{ w | upper }}{% endif %}", VALUES) == "TEA TIME"
