"""Label Studio: tasks with annotations, as its JSON import and export have them, and the labelling configuration they fit.

Verdicts come back as a `Choices` result named `verdict`, notes as a `TextArea` result named `note`, both of the dialogue; a
task that was skipped as a cancelled annotation. `completed_by` is who judged: an e-mail address, a number or a name. An
annotation of nobody that it knows is refused with the whole file: verdicts that are here already go along in their tasks' data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from cai.records import Judgement
from cai.review.desk import storable
from cai.review.exchange.rows import (
    JUDGEMENTS,
    Asked,
    Form,
    Heard,
    Senseless,
    brought_back,
    carried,
    judgement_of,
    list_in,
    moment_of,
    object_in,
    seconds_of,
    text_in,
)
from constitution.tool_text import as_text

DIALOGUE, VERDICT, NOTE, CARRIED = "dialogue", "verdict", "note", "verdicts"
_CHOICES = "\n".join(f'    <Choice value="{each}"/>' for each in JUDGEMENTS if each != Judgement.SKIP)
CONFIGURATION = f"""<View>
  <Paragraphs name="{DIALOGUE}" value="$dialogue" layout="dialogue" nameKey="author" textKey="text"/>
  <View style="display: flex; gap: 2em">
    <View style="flex: 1"><Header value="A"/><Text name="answer_a" value="$answer_a"/></View>
    <View style="flex: 1"><Header value="B"/><Text name="answer_b" value="$answer_b"/></View>
  </View>
  <Choices name="{VERDICT}" toName="{DIALOGUE}" choice="single-radio" required="true">
{_CHOICES}
  </Choices>
  <TextArea name="{NOTE}" toName="{DIALOGUE}" placeholder="Note"/>
</View>
"""


def _write(asked: Iterator[Asked]) -> Iterator[str]:
    opening = "[\n"
    for each in asked:
        yield opening + json.dumps(_task(each), ensure_ascii=False)
        opening = ",\n"
    yield ("[" if opening == "[\n" else "\n") + "]\n"


def _task(asked: Asked) -> dict[str, Any]:
    answers = asked.answers
    texts = [*map(storable, answers.texts), ""][:2]
    data = {
        "uid": answers.uid,
        "replica": answers.replica,
        "number": answers.number,
        "pair": answers.key,
        "dialogue": [{"author": each.role, "text": storable(each.content)} for each in as_text(answers.prompt)],
        "answer_a": texts[0],
        "answer_b": texts[1],
    }
    if asked.verdicts:
        data[CARRIED] = [carried(each) for each in asked.verdicts]
    return {"data": data, "annotations": [], "predictions": []}


def _read(values: dict[str, Any]) -> list[Heard]:
    if "data" not in values:
        raise Senseless("no task of Label Studio: it has no `data`; export as JSON, not as another of its forms")
    data = object_in(values, "data")
    before = list_in(data, CARRIED)
    found = [brought_back(each, text_in(data, "uid"), text_in(data, "pair")) for each in before]
    for annotation in map(_object, list_in(values, "annotations")):
        results = {str(each.get("from_name")): object_in(each, "value") for each in map(_object, list_in(annotation, "result"))}
        cancelled = bool(annotation.get("was_cancelled"))
        if VERDICT not in results and not cancelled:
            raise Senseless(f"an annotation without a result named {VERDICT!r}")
        said = list_in(results.get(VERDICT, {}), "choices")
        if not cancelled and len(said) != 1:
            raise Senseless(f"an annotation with {len(said)} choices; a verdict is one")
        found.append(
            Heard(
                uid=text_in(data, "uid"),
                pair=text_in(data, "pair"),
                reviewer=_reviewer(annotation.get("completed_by")),
                judgement=Judgement.SKIP if cancelled else judgement_of(said[0]),
                note="\n".join(map(str, list_in(results.get(NOTE, {}), "text"))),
                at=moment_of(annotation.get("updated_at") or annotation.get("created_at")),
                seconds=seconds_of(annotation.get("lead_time")),
            )
        )
    return found


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Senseless("an annotation or a result is no object")
    return cast("dict[str, Any]", value)


def _reviewer(value: object) -> str:
    if isinstance(value, dict):
        user = cast("dict[str, Any]", value)
        value = user.get("email") or user.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise Senseless("completed_by names nobody")
    return value if isinstance(value, str) else f"user {value}"


LABEL_STUDIO = Form(
    "label-studio",
    ".json",
    _write,
    _read,
    "Import it into a project with the labelling configuration beside it; bring verdicts back by its JSON export.",
    beside=(".xml", CONFIGURATION),
)
