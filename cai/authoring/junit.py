"""Results of principle tests as JUnit XML, which CI servers show: a `testsuite` for each principle.

The shape is that of the schema `junit-10` of the Jenkins xUnit plugin. Texts of prompts and models are data: they are escaped,
and characters that XML 1.0 cannot hold are left out.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET  # writes only: nothing is parsed

from cai.authoring.metamorphic import Check, Kept
from cai.authoring.principle_tests import CaseReport, ConstitutionReport, Result
from cai.authoring.wording import explained, explained_check, margin_text

_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """The text without what XML 1.0 forbids or advises against: control characters, lone surrogates, U+FFFE and U+FFFF."""
    return _NOT_XML.sub("", text)


def junit_xml(report: ConstitutionReport, *, name: str, seconds: float, allow_undecided: bool, strict: bool) -> bytes:
    """The report as one XML document.

    A test that did not pass is a `failure` whose type is its result, a failed request an `error`. What is let pass (an
    undecided test with `allow_undecided`, a broken relation without `strict`) is `skipped` with its reason, as is a principle
    without tests.

    Args:
        report: The results.
        name: Of the whole, such as the constitution's.
        seconds: The time it took.
        allow_undecided: Undecided tests are no failures.
        strict: Broken relations are failures.
    """
    root = ET.Element("testsuites", name=xml_text(name), time=f"{seconds:.3f}")
    suites: dict[str, ET.Element] = {}
    for each in report.tested:
        suite = suites.setdefault(each.case.principle.id, ET.Element("testsuite", name=each.case.principle.id))
        _add_test(suite, each, allow_undecided=allow_undecided)
        for check in each.checks:
            _add_check(suite, each, check, strict=strict)
    for principle_id in report.untested:
        suite = suites.setdefault(principle_id, ET.Element("testsuite", name=principle_id))
        case = ET.SubElement(suite, "testcase", name="tests", classname=principle_id)
        ET.SubElement(case, "skipped", message="this principle has no tests")
    for suite in suites.values():
        for key, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(key, str(sum(1 for _ in suite.iter(tag))))
        root.append(suite)
    for key in ("tests", "failures", "errors"):
        root.set(key, str(sum(int(suite.attrib[key]) for suite in suites.values())))
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _add_test(suite: ET.Element, report: CaseReport, *, allow_undecided: bool) -> None:
    case = ET.SubElement(
        suite, "testcase", name=f"test {report.case.number} ({report.method})", classname=report.case.principle.id
    )
    message = f"{report.result.value}, margin {margin_text(report.answer)} nats"
    details = "\n".join(explained(report))
    if report.result is Result.PASSED:
        _add(case, "system-out", f"{message}\n{details}")
    elif report.result is Result.ERROR:
        _add(case, "error", details, message="the labelling model did not answer", type=report.result.value)
    elif report.result is Result.UNDECIDED and allow_undecided:
        _add(case, "skipped", details, message=message)
    else:
        _add(case, "failure", details, message=message, type=report.result.value)


def _add_check(suite: ET.Element, report: CaseReport, check: Check, *, strict: bool) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        name=f"test {report.case.number} ({report.method}), {check.relation.name}",
        classname=f"{report.case.principle.id}.metamorphic",
    )
    told = explained_check(check, report.answer)
    details = f"{check.relation.statement} ({check.relation.source})\n{told}"
    if check.outcome is Kept.HOLDS:
        _add(case, "system-out", details)
    elif check.outcome is Kept.ERROR:
        _add(case, "error", details, message="the labelling model did not answer", type=check.outcome.value)
    elif check.outcome is Kept.BROKEN and strict:
        _add(case, "failure", details, message=f"broken: {told}", type="metamorphic")
    else:
        _add(case, "skipped", details, message=f"{check.outcome.value}: {told}")


def _add(case: ET.Element, tag: str, text: str, **attributes: str) -> None:
    element = ET.SubElement(case, tag, {key: xml_text(value) for key, value in attributes.items()})
    element.text = xml_text(text)
