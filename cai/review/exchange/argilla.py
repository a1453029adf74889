"""Argilla 2: records as `Dataset.records.to_json` writes and `from_json` reads them (`rg.Record.to_dict`).

Fields `conversation`, `answer_a`, `answer_b`; questions `verdict` (labels) and `note` (text). A user is a UUID there, and a
response of nobody that it knows is refused with all its records: verdicts that are here already go along in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from cai.review.desk import storable
from cai.review.exchange.rows import (
    JUDGEMENTS,
    Asked,
    Form,
    Heard,
    Senseless,
    brought_back,
    carried,
    conversation_text,
    judgement_of,
    list_in,
    object_in,
    text_in,
)

VERDICT, NOTE, CARRIED = "verdict", "note", "verdicts"


def _write(asked: Iterator[Asked]) -> Iterator[str]:
    opening = "[\n"
    for each in asked:
        yield opening + json.dumps(_record(each), ensure_ascii=False)
        opening = ",\n"
    yield ("[" if opening == "[\n" else "\n") + "]\n"


def _record(asked: Asked) -> dict[str, Any]:
    answers, verdicts = asked.answers, asked.verdicts
    fields = {"conversation": conversation_text(answers)}
    fields |= {name: storable(text) for name, text in zip(("answer_a", "answer_b"), answers.texts, strict=False)}
    metadata: dict[str, Any] = {"uid": answers.uid, "replica": answers.replica, "number": answers.number}
    if verdicts:
        metadata[CARRIED] = [json.dumps(carried(each), ensure_ascii=False) for each in verdicts]
    return {
        "id": answers.key,
        "fields": fields,
        "metadata": metadata,
        "suggestions": {},
        "responses": {},
        "vectors": {},
        "_server_id": None,
    }


def _read(values: dict[str, Any]) -> list[Heard]:
    if "fields" not in values:
        raise Senseless("no record of Argilla: it has no `fields`")
    metadata, responses = object_in(values, "metadata"), object_in(values, "responses")
    said = [_response(each) for each in list_in(responses, VERDICT)]
    before = list_in(metadata, CARRIED)
    if not said and not before:
        return []
    notes = dict(_response(each) for each in list_in(responses, NOTE))
    uid, pair = text_in(metadata, "uid"), text_in(values, "id")
    return [
        *(brought_back(_object(each), uid, pair) for each in before),
        *(
            Heard(
                uid=uid,
                pair=pair,
                reviewer=by,
                judgement=judgement_of(value),
                note=str(notes.get(by, "")),
                shown="first_second",
            )
            for by, value in said
        ),
    ]


def _object(text: object) -> object:
    try:
        return json.loads(cast("Any", text))
    except (TypeError, ValueError) as error:
        raise Senseless("a verdict that was carried along cannot be read") from error


def _response(value: object) -> tuple[str, object]:
    if not isinstance(value, dict):
        raise Senseless("a response is no object")
    response = cast("dict[str, Any]", value)
    return text_in(response, "user_id"), response.get("value")


ARGILLA = Form(
    "argilla",
    ".json",
    _write,
    _read,
    "Load it with `dataset.records.from_json`, into a dataset with text fields conversation, answer_a and answer_b (the last "
    f"not required), a label question `{VERDICT}` ({', '.join(JUDGEMENTS)}) and a text question `{NOTE}`, which takes metadata "
    "that it does not know (as it does by default); bring verdicts back with `dataset.records(with_responses=True).to_json`.",
)
