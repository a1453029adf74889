"""The picture of estimates with intervals: marks where their values are, texts harmless."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from cai.report.forest import LEFT, RIGHT, WIDTH, ForestRow, Whisker, forest

SVG = "{http://www.w3.org/2000/svg}"


def test_marks_stand_at_their_values_on_a_scale_that_holds_zero() -> None:
    rows = [ForestRow("one", (Whisker(-30.0, -40.0, -20.0), Whisker(10.0, 0.0, 20.0)))]
    picture = ElementTree.fromstring(forest("a title", "points", ("faults", "controls"), rows, (-40.0, 20.0)))
    first, second = (group for group in picture.iter(f"{SVG}g"))
    labels = {float(text.attrib["x"]): text.text for text in picture.iter(f"{SVG}text") if text.get("text-anchor") == "middle"}
    at = {text: x for x, text in labels.items()}
    assert at["−40"] == LEFT
    assert at["20"] == WIDTH - RIGHT
    circle, line = first.find(f"{SVG}circle"), first.find(f"{SVG}line")
    assert circle is not None
    assert line is not None
    assert float(circle.attrib["cx"]) == pytest.approx((at["−40"] + at["−20"]) / 2, abs=0.2)
    assert (float(line.attrib["x1"]), float(line.attrib["x2"])) == (at["−40"], at["−20"])
    square = second.find(f"{SVG}rect")
    assert square is not None
    assert float(square.attrib["x"]) + 4.5 == pytest.approx((at["0"] + at["20"]) / 2, abs=0.2)


def test_a_row_without_a_mark_says_so() -> None:
    rows = [ForestRow("done", (Whisker(1, 0, 2),)), ForestRow("not done", (None,))]
    picture = forest("t", "points", ("faults",), rows, (0.0, 2.0))
    assert picture.count("not measured") == 1


def test_hostile_texts_are_inert() -> None:
    bad = '</title><script>alert("x")</script>\x1b[31m'
    picture = forest(bad, bad, (bad,), [ForestRow(bad, (Whisker(0, 0, 0),))], (0.0, 0.0))
    tree = ElementTree.fromstring(picture)
    assert not list(tree.iter(f"{SVG}script"))
    assert "\x1b" not in picture


@pytest.mark.parametrize("rows", [[], [ForestRow("one", (Whisker(0, 0, 0),))]])
def test_a_picture_of_nothing_or_of_rows_that_do_not_fit_is_refused(rows: list[ForestRow]) -> None:
    with pytest.raises(ValueError, match="forest"):
        forest("t", "points", ("a", "b"), rows, (0.0, 1.0))
