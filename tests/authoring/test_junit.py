"""JUnit XML: well-formed whatever the texts hold, of the usual shape, and true to the results."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai.authoring.judgements import Answer, Judgement
from cai.authoring.junit import junit_xml, xml_text
from cai.authoring.metamorphic import RELATIONS, Check, Kept
from cai.authoring.principle_tests import Case, CaseReport, ConstitutionReport, Result
from cai.engines.base import RequestFailure
from constitution.schema import Principle, PrincipleTest

# Tags → attributes that are required, those that are allowed, and tags allowed inside: after the schema `junit-10`.
SHAPE: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests"},
        {"failures", "errors", "time", "disabled", "skipped", "timestamp", "hostname", "id", "package"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"assertions", "time", "classname", "status"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def shaped(content: bytes) -> ET.Element:
    """The document, parsed and checked: tags, attributes, and counts that are those of what is there."""
    root = ET.fromstring(content)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, allowed, inside = SHAPE[element.tag]
        assert required <= set(element.attrib) <= required | allowed, element.tag
        assert {child.tag for child in element} <= inside
    for suite in root:
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.attrib[key]) == len(list(suite.iter(tag))), key
    for key in ("tests", "failures", "errors"):
        assert int(root.attrib[key]) == sum(int(suite.attrib[key]) for suite in root)
    return root


def report_of(*reports: CaseReport, untested: tuple[str, ...] = ()) -> ConstitutionReport:
    return ConstitutionReport(reports, untested, computed=len(reports), remembered=0)


def case(name: str = "kind", prompt: str = "Hello?", better: str = "good", worse: str = "bad") -> Case:
    test = PrincipleTest(prompt=prompt, better=better, worse=worse)
    return Case(Principle(id=name, principle="Be kind.", tests=(test,)), 1)


def judged(result: Result, *checks: Check, name: str = "kind") -> CaseReport:
    if result is Result.ERROR:
        return CaseReport(case(name), "letters", result, Answer(RequestFailure("lost", "nobody there"), remembered=False))
    return CaseReport(case(name), "letters", result, Answer(Judgement(0.5, (2.0, -1.0)), remembered=False), checks)


def test_each_result_has_its_element() -> None:
    reports = [judged(result, name=f"p-{number}") for number, result in enumerate(Result)]
    report = report_of(*reports, untested=("bare",))
    root = shaped(junit_xml(report, name="all", seconds=1.5, allow_undecided=False, strict=False))
    assert root.attrib == {"name": "all", "time": "1.500", "tests": "6", "failures": "3", "errors": "1"}
    found = {suite.attrib["name"]: suite[0][0] for suite in root}
    assert {name: element.tag for name, element in found.items()} == {
        "p-0": "system-out",
        "p-1": "failure",
        "p-2": "failure",
        "p-3": "failure",
        "p-4": "error",
        "bare": "skipped",
    }
    assert found["p-2"].attrib == {"type": "position-biased", "message": "position-biased, margin +0.50 nats"}
    assert "names A in both orders" in (found["p-2"].text or "")
    assert "lost: nobody there" in (found["p-4"].text or "")
    assert found["bare"].attrib["message"] == "this principle has no tests"


def test_an_undecided_test_may_be_let_pass() -> None:
    report = report_of(judged(Result.UNDECIDED))
    root = shaped(junit_xml(report, name="all", seconds=0.0, allow_undecided=True, strict=False))
    assert [element.tag for element in root[0][0]] == ["skipped"]


@pytest.mark.parametrize(
    ("outcome", "strict", "tag"),
    [
        (Kept.HOLDS, False, "system-out"),
        (Kept.BROKEN, False, "skipped"),
        (Kept.BROKEN, True, "failure"),
        (Kept.UNDECIDED, True, "skipped"),
        (Kept.NOT_APPLICABLE, True, "skipped"),
        (Kept.ERROR, True, "error"),
    ],
)
def test_each_outcome_of_a_relation_has_its_element(outcome: Kept, *, strict: bool, tag: str) -> None:
    relation = RELATIONS[-1]
    check = Check(relation, outcome, Answer(Judgement(-1.0, (-1.0, -1.0)), remembered=False))
    report = report_of(judged(Result.PASSED, check))
    root = shaped(junit_xml(report, name="all", seconds=0.0, allow_undecided=False, strict=strict))
    test, generated = root[0]
    assert (test.attrib["classname"], generated.attrib["classname"]) == ("kind", "kind.metamorphic")
    assert generated.attrib["name"] == "test 1 (letters), padded worse"
    assert [element.tag for element in generated] == [tag]
    assert relation.statement in (generated[0].text or "")
    assert relation.source in (generated[0].text or "")
    assert "margin +0.50 → -1.00" in (generated[0].text or "")


def legal(character: str) -> bool:
    """The production Char of XML 1.0, without the control characters that it advises against."""
    code = ord(character)
    if code in {0x9, 0xA, 0xD, 0x85}:
        return True
    return 0x20 <= code <= 0x7E or 0xA0 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


anything = st.text(st.characters(), max_size=60) | st.just("\x00\x1b[31m]]><!--&amp;\ud800\ufffe\r\n\x9b<![CDATA[")


@given(text=st.text(st.characters(categories=None), max_size=60))
def test_exactly_what_xml_cannot_hold_is_left_out(text: str) -> None:
    assert xml_text(text) == "".join(filter(legal, text))


@given(prompt=anything, better=anything, worse=anything, ground=anything, name=anything)
def test_any_text_makes_a_document_that_a_parser_reads_back(
    prompt: str, better: str, worse: str, ground: str, name: str
) -> None:
    test = PrincipleTest.model_construct(prompt=prompt, better=better, worse=worse)
    entry = Case(Principle.model_construct(id="kind", principle="Be kind.", tests=(test,)), 1)
    answer = Answer(Judgement(-1.0, (1.0, 2.0), (ground, ground)), remembered=False)
    report = report_of(CaseReport(entry, "pointwise", Result.FAILED, answer))
    root = shaped(junit_xml(report, name=name, seconds=0.0, allow_undecided=False, strict=False))

    def as_read(text: str) -> str:
        return "".join(filter(legal, text)).replace("\r\n", "\n").replace("\r", "\n")

    told = root[0][0][0].text or ""
    for text in (prompt, better, worse, ground):
        assert as_read(text) in told
