"""Principle files: every problem of every file at once, each at its place."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.loading import load_constitution, load_files, shipped_folder
from constitution.reading import MAX_PROBLEMS
from constitution.schema import Constitution

GOOD = "name: small\nprinciples:\n  - id: kind\n    principle: Be kind.\n"


def _write(folder: Path, text: str | bytes, name: str = "file.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def _problems(*paths: Path) -> list[PrincipleFileError]:
    with pytest.raises(ConstitutionError) as caught:
        load_constitution(paths)
    return list(caught.value.errors)


def _places(*paths: Path) -> list[tuple[int, int]]:
    return [(error.line, error.column) for error in _problems(*paths)]


def test_every_problem_of_every_file_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    first = _write(
        tmp_path,
        "name: first\n"
        "principles:\n"
        "  - id: Not A Slug\n"  # 3:5
        "    principle: Be kind.\n"
        "    weigth: 2\n"  # 5:5
        "  - id: good\n"
        "    principle: Fine.\n"
        "    tests:\n"
        "      - prompt: Hello\n"  # 9:9, `worse` is missing
        "        better: Hi\n"
        "  - id: good\n"  # 11:5
        "    critique_request: >-\n"
        "      First line,\n"
        "      then {{ nobody }}.\n",  # 14:15, and `principle` is missing at 11:5
        "a.yaml",
    )
    second = _write(tmp_path, "principles: 3\nextra: 1\n", "b.yml")
    third = _write(tmp_path, "# Title\n\n- Be brief.\n-\n", "c.md")
    found = [(Path(e.path).name, e.line, e.column, e.problem) for e in _problems(first, second, third)]
    assert found == [
        ("a.yaml", 3, 5, "`id`: 'Not A Slug' is not a proper name here"),
        ("a.yaml", 5, 5, "unknown key `weigth`"),
        ("a.yaml", 9, 9, "`worse` is missing"),
        ("a.yaml", 11, 5, "`principle` is missing"),
        ("a.yaml", 11, 5, f"the id `good` is used already at {first}:6"),
        ("a.yaml", 14, 15, "`critique_request`: unknown name `nobody`"),
        ("b.yml", 1, 1, "`principles` has to be a list"),
        ("b.yml", 2, 1, "unknown key `extra`"),
        ("c.md", 4, 1, "an empty bullet"),
    ]


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    (error,) = _problems(_write(tmp_path, GOOD + "    critique_requst: What?\n"))
    assert error.hint == "did you mean `critique_request`?"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        *((key, "principle") for key in ("text", "rule", "Rule", "principel")),
        *((key, "applies_to") for key in ("tags", "tag", "applies-to")),
        *((key, "revision_request") for key in ("rivision", "revise", "revision", "revision_requst")),
        *((key, "critique_request") for key in ("critique", "critic", "Critique Request", "critiqe")),
        *((key, "preference_question") for key in ("question", "preference")),
        *((key, "demonstrations") for key in ("examples", "example", "few_shot", "few-shots")),
        *((key, "parameters") for key in ("params", "parameter")),
        ("why", "rationale"),
        ("wieght", "weight"),
        ("test", "tests"),
    ],
)
def test_an_unknown_key_that_people_use_for_a_field_names_the_field(tmp_path: Path, key: str, meant: str) -> None:
    rule = "" if meant == "principle" else "    principle: Be kind.\n"
    errors = _problems(_write(tmp_path, f"principles:\n  - id: kind\n{rule}    {key}: Be kind.\n"))
    (error,) = [error for error in errors if error.rule == "C109"]
    assert error.hint == f"did you mean `{meant}`?"


@pytest.mark.parametrize(
    ("entry", "meant"),
    [
        ("tests: [{prompt: a, good: b, worse: c}]", "better"),
        ("tests: [{prompt: a, better: b, rejected: c}]", "worse"),
        ("demonstrations: [{prompt: a, answer: b, critique: c}]", "draft"),
        ("demonstrations: [{question: a, draft: b, critique: c}]", "prompt"),
    ],
)
def test_the_keys_of_tests_and_demonstrations_are_known_by_other_names_too(tmp_path: Path, entry: str, meant: str) -> None:
    errors = _problems(_write(tmp_path, f"{GOOD}    {entry}\n"))
    assert [error.hint for error in errors if error.rule == "C109"] == [f"did you mean `{meant}`?"]


@pytest.mark.parametrize("key", ["rule", "text", "principel", "zzz"])
def test_a_field_that_is_given_already_is_not_what_an_unknown_key_means(tmp_path: Path, key: str) -> None:
    (error,) = _problems(_write(tmp_path, GOOD + f"    {key}: Be calm.\n"))
    assert error.hint.startswith("keys here: id, principle, ")


def test_a_duplicate_key_is_an_error_and_does_not_win_silently(tmp_path: Path) -> None:
    (error,) = _problems(_write(tmp_path, GOOD + "    principle: Be cruel.\n"))
    assert (error.line, error.column) == (5, 5)
    assert "given twice (first on line 4)" in error.problem


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("principle: 'It''s {{ one }} and {{ two }}'", [(3, 26), (3, 40)]),
        ('principle: "\\x41 {{ one }}\\n{{ two }}"', [(3, 25), (3, 36)]),
        ("principle: >-\n      A {{ one }}\n\n      and {{ two }}.", [(4, 12), (6, 14)]),
        ("principle: A {{ one }}\n      and {{ two }}.", [(3, 21), (4, 14)]),
        ("critique_request: Is {{ one }} so?\n    principle: And {{ two }}.", [(3, 29), (4, 23)]),
    ],
)
def test_every_fault_of_every_template_is_told_at_its_own_line_and_column(
    tmp_path: Path, text: str, places: list[tuple[int, int]]
) -> None:
    """Once only the first of a text was told, and in quotes only where its key stands."""
    errors = _problems(_write(tmp_path, f"principles:\n  - id: kind\n    {text}\n"))
    assert [(error.line, error.column) for error in errors] == places
    assert [error.problem.partition(": ")[2] for error in errors] == ["unknown name `one`", "unknown name `two`"]


@pytest.mark.parametrize("word", ["no", "yes", "on", "off", "true", "False"])
@pytest.mark.parametrize("field", ["critique_request", "weight", "rationale"])
def test_yes_and_no_are_refused_where_yaml_reads_them_as_booleans(tmp_path: Path, word: str, field: str) -> None:
    """`weight: yes` once became the weight 1."""
    (error,) = _problems(_write(tmp_path, f"{GOOD}    {field}: {word}\n"))
    assert (error.line, error.column) == (5, 5)
    assert "is read as" in error.problem
    assert "quotes" in error.hint


def test_one_broken_principle_is_no_second_problem_of_the_list_that_holds_it(tmp_path: Path) -> None:
    """pydantic also complains that the list is too short once its only entry is refused."""
    assert _places(_write(tmp_path, GOOD + "    weight: 0\n")) == [(5, 5)]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("principles:\n\t- id: kind\n", (2, 1), "a tab"),
        ("principles: [\n", (2, 1), "not valid YAML"),
        (GOOD + "---\nname: two\n", (5, 1), "a second document"),
        ("- Be kind.\n", (1, 1), "`key: value` lines"),
        ("Be kind.\n", (1, 1), "`key: value` lines"),
        ("principles: []\n", (1, 1), "`principles` is empty"),
        ("name: x\n", (1, 1), "`principles` is missing"),
        ("principles:\n  - Be kind.\n", (2, 5), "a principle has to be `key: value` lines"),
        ("principles: &all\n  - *all\n", (1, 13), "an alias that contains itself"),
        (GOOD + "    rationale: 2024-13-01\n", (5, 16), "cannot be read"),
        (GOOD + "    rationale: !!python/name:os.system x\n", (5, 16), "cannot be read"),
        (GOOD + "    rationale: 12\n", (5, 5), "is read as a number"),
        (GOOD + "    tests:\n", (5, 5), "`tests` is empty"),
        (GOOD + "    weight: .nan\n", (5, 5), "finite"),
        (GOOD + "    parameters: {word: [a]}\n", (5, 18), "has to be a text"),
        (GOOD + "    parameters: {Word: a}\n", (5, 18), "not a proper name"),
        (GOOD + "    revision_request: '{% for x in y %}{% endfor %}'\n", (5, 27), "`for` is not allowed"),
    ],
)
def test_a_broken_file_is_explained_by_one_problem(tmp_path: Path, text: str, place: tuple[int, int], words: str) -> None:
    (error,) = _problems(_write(tmp_path, text))
    assert (error.line, error.column) == place
    assert words in error.problem


def test_text_that_is_not_utf_8_and_control_characters_are_found_at_their_place(tmp_path: Path) -> None:
    latin = _write(tmp_path, GOOD.replace("kind.", "café.").encode("latin-1"), "a.yaml")
    bell = _write(tmp_path, GOOD.replace("kind.", "\x07."), "b.yaml")
    assert _places(latin, bell) == [(4, 22), (4, 19)]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    windows = _write(tmp_path, b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_constitution([windows]) == load_constitution([_write(tmp_path, GOOD, "plain.yaml")])


@pytest.mark.parametrize(
    "style",
    [
        "critique_request: >-\n      One,\n\n      two,\n      {{ missing }}\n",
        "critique_request: |\n      One,\n\n      two,\n      {{ missing }}\n",
        "critique_request:\n      One,\n\n      two,\n      {{ missing | upper }} and on\n",
    ],
)
def test_a_template_s_problem_is_found_on_its_line_in_every_way_to_write_a_text(tmp_path: Path, style: str) -> None:
    """Folded texts lose their lines before the template is parsed, so jinja's own line is not the file's."""
    (error,) = _problems(_write(tmp_path, f"{GOOD}    {style}    weight: 1\n"))
    lines = f"{GOOD}    {style}".splitlines()
    assert "{{ missing" in lines[error.line - 1]
    assert lines[error.line - 1][error.column - 1 :].startswith("missing")


def test_ids_are_unique_over_all_files_even_when_one_of_them_is_broken(tmp_path: Path) -> None:
    one = _write(tmp_path, GOOD + "    weight: 0\n", "one.yaml")
    two = _write(tmp_path, GOOD, "two.yaml")
    problems = _problems(one, two)
    assert [(Path(e.path).name, e.line, e.column) for e in problems] == [("one.yaml", 5, 5), ("two.yaml", 3, 5)]


def test_the_same_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = _write(tmp_path, GOOD)
    assert load_constitution([file, tmp_path]) == load_constitution([file])


def test_a_folder_gives_its_principle_files_by_name_and_nothing_else(tmp_path: Path) -> None:
    _write(tmp_path, "- Be brief.\n", "b.md")
    _write(tmp_path, GOOD, "a.YAML")
    _write(tmp_path, "not principles", "README.md")
    _write(tmp_path, ": broken", ".hidden.yaml")
    _write(tmp_path, "{}", "c.json")
    (tmp_path / "folder.yaml").mkdir()
    assert [file.path.name for file in load_files([tmp_path])] == ["a.YAML", "b.md"]


def test_missing_files_empty_folders_and_unknown_shipped_names_are_told_together(tmp_path: Path) -> None:
    _write(tmp_path, GOOD, "honesty.yaml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConstitutionError) as caught:
        load_constitution([tmp_path / "honest.yaml", tmp_path / "empty", "shipped:honour"])
    hints = {Path(error.path).name: error.hint for error in caught.value.errors}
    assert "honesty.yaml" in hints["honest.yaml"]
    assert "honesty" in hints["shipped:honour"]
    assert "empty" in hints


@pytest.mark.parametrize("content", ["", "\n \n", "# a comment\n"])
def test_a_file_without_content_is_refused(tmp_path: Path, content: str) -> None:
    (error,) = _problems(_write(tmp_path, content))
    assert (error.line, error.column) == (0, 0)


def test_a_thousand_principles_load_in_seconds(tmp_path: Path) -> None:
    entry = (
        "  - id: rule-{0}\n    principle: 'Do not mention {{{{ word }}}}.'\n    parameters: {{word: w{0}}}\n"
        "    tests:\n      - {{prompt: a, better: b, worse: c}}\n"
    )
    file = _write(tmp_path, "principles:\n" + "".join(entry.format(number) for number in range(1000)))
    started = time.process_time()
    assert len(load_constitution([file]).principles) == 1000
    assert time.process_time() - started < 4.0


def test_aliases_that_stand_for_a_million_values_are_refused_quickly(tmp_path: Path) -> None:
    names = "abcdefgh"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in itertools.pairwise(names)]
    started = time.process_time()
    (error,) = _problems(_write(tmp_path, "\n".join(lines)))
    assert "aliases" in error.problem
    assert time.process_time() - started < 4.0


def test_brackets_nested_thousands_deep_are_a_problem_and_no_crash(tmp_path: Path) -> None:
    (error,) = _problems(_write(tmp_path, "principles: " + "[" * 3000 + "]" * 3000))
    assert "nested too deeply" in error.problem


@given(st.text(max_size=200))
def test_any_text_is_a_constitution_or_a_list_of_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    raw = text.encode(errors="surrogatepass")
    for name in ("any.yaml", "any.md"):
        problems: tuple[PrincipleFileError, ...] = ()
        loaded: Constitution | None = None
        try:
            loaded = load_constitution([_write(folder, raw, name)])
        except ConstitutionError as error:
            problems = error.errors
        assert (loaded is None) == bool(problems)


def test_what_a_constitution_writes_as_yaml_is_read_back_the_same(tmp_path: Path) -> None:
    import yaml

    shipped = load_constitution(["shipped"])
    file = _write(tmp_path, yaml.safe_dump(shipped.model_dump(mode="json", exclude_defaults=True), allow_unicode=True))
    assert load_constitution([file]) == shipped


def test_the_shipped_files_are_found_from_a_checkout() -> None:
    assert (shipped_folder() / "honesty.yaml").is_file()
    assert load_constitution(["shipped:honesty"]).name == "honesty"


class TestMarkdown:
    def test_a_bullet_is_a_principle_and_the_first_heading_the_name(self, tmp_path: Path) -> None:
        file = _write(
            tmp_path,
            "# House rules\n\nWhat we want.\n\n- Be kind.\n* Be brief,\n  also when asked for more.\n"
            "+ Stay calm\nwhen shouted at.\n\n## More\n\n1. Say what is true.\n",
            "rules.md",
        )
        read = load_constitution([file])
        assert (read.name, read.description) == ("House rules", "What we want.")
        assert [principle.principle for principle in read.principles] == [
            "Be kind.",
            "Be brief, also when asked for more.",
            "Stay calm when shouted at.",
            "Say what is true.",
        ]
        assert [principle.id for principle in read.principles][:2] == ["be-kind", "be-brief-also-when-asked-for"]

    def test_bullets_in_code_and_ruled_lines_are_no_principles(self, tmp_path: Path) -> None:
        file = _write(tmp_path, "- Be kind.\n\n* * *\n---\n\n```\n- code\n```\n- Be brief.\n", "rules.md")
        assert [p.principle for p in load_constitution([file]).principles] == ["Be kind.", "Be brief."]

    def test_a_list_indented_as_a_whole_is_a_list(self, tmp_path: Path) -> None:
        assert len(load_constitution([_write(tmp_path, "  - Be kind.\n  - Be brief.\n", "rules.md")]).principles) == 2

    def test_a_bullet_inside_a_bullet_is_refused_rather_than_guessed(self, tmp_path: Path) -> None:
        assert _places(_write(tmp_path, "- Be kind:\n  - to dogs\n  - to cats\n", "rules.md")) == [(2, 3), (3, 3)]

    def test_equal_openings_get_different_ids(self, tmp_path: Path) -> None:
        file = _write(tmp_path, "- Be kind.\n- Be kind!\n- 善良\n- 诚实\n", "rules.md")
        assert [p.id for p in load_constitution([file]).principles] == ["be-kind", "be-kind-2", "principle", "principle-2"]

    def test_braces_that_would_need_parameters_are_refused_where_they_stand(self, tmp_path: Path) -> None:
        first, second, third = _problems(
            _write(tmp_path, "- Fine.\n- Do not <!-- {{ x }} --> mention {{ word }}\n  or {{ other }}\n- {{ ( }}\n", "rules.md")
        )
        assert (first.line, first.column, first.hint) == (2, 38, "parameters need the YAML form")
        assert (second.line, second.column, second.problem) == (3, 9, "unknown name `other`")
        assert (third.line, third.column, third.hint) == (4, 8, "write {{ name }} for a parameter")

    def test_more_prose_or_a_longer_title_than_fits_is_a_problem_and_no_crash(self, tmp_path: Path) -> None:
        assert _problems(_write(tmp_path, "word " * 10_000 + "\n\n- Be kind.\n", "rules.md"))
        assert _problems(_write(tmp_path, "# " + "word " * 1_000 + "\n\n- Be kind.\n", "title.md"))

    def test_descriptions_of_many_files_are_joined_within_the_limit(self, tmp_path: Path) -> None:
        for number in range(3):
            _write(tmp_path, "word " * 7_000 + f"\n\n- Rule {number}.\n", f"rules-{number}.md")
        assert 39_990 < len(load_constitution([tmp_path]).description) <= 40_000


@pytest.mark.parametrize(
    ("line", "problems_of_each"),
    [
        ("    k{}: 1\n", 1),
        ("    parameters{}: yes\n", 2),
        ("  - {{id: a{}, principle: [x], weight: heavy, tests: 3}}\n", 3),
        ("  - {{id: a{}, principle: yes}}\n", 1),
        ("  - \n", 1),
    ],
)
@pytest.mark.parametrize("count", [1000, 1001, 2700])
def test_every_problem_is_told_or_counted(tmp_path: Path, line: str, problems_of_each: int, count: int) -> None:
    """Problems beyond the first thousand were dropped without a word."""
    lines = "".join(line.format(number) for number in range(count))
    found = _problems(_write(tmp_path, f"principles:\n  - id: kind\n    principle: Be kind.\n{lines}"))
    rest = count * problems_of_each - MAX_PROBLEMS
    assert len(found) == min(count * problems_of_each, MAX_PROBLEMS + 1)
    if rest:
        assert found[-1].problem.startswith("and ")
        assert f" {rest} more problem{'s' * (rest != 1)} in this file" in found[-1].problem


def test_where_templates_are_left_unread_the_count_is_said_to_be_a_lower_bound(tmp_path: Path) -> None:
    lines = "".join(f"  - {{id: a{number}, principle: '{{{{ w{number} '}}\n" for number in range(3000))
    found = _problems(_write(tmp_path, f"principles:\n{lines}"))
    assert found[-1].problem == "and at least 1 more problem in this file"
