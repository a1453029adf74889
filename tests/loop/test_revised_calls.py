"""Drafts that call tools, criticised and revised: every call on record fits its tool's schema, before and after."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cai.engines.base import GenerationRequest
from cai.engines.scripted import ScriptedEngine
from cai.loop import GateSettings, LoopSettings, run_loop
from cai.loop.threads import BAD_CALL
from cai.records import BAD_CALL_KEPT, FailureRecord, Item, RevisionRecord, Verdict
from constitution.messages import Message, Tool, ToolCall, tools_of, user, with_tools
from constitution.schema import Constitution, Principle
from constitution.tool_text import read_reply

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "recursive": {"type": "boolean"}},
    "required": ["path"],
    "additionalProperties": False,
}
TOOLS = (
    Tool(name="delete", description="Delete for good.", parameters=json.dumps(SCHEMA)),
    Tool(name="list", parameters='{"type": "object", "properties": {}}'),
)
ITEM = Item(uid="i", messages=with_tools((user("Clean up /home/ann."),), TOOLS))
ASK = Constitution(name="c", principles=(Principle(id="ask", principle="Ask before deleting."),))
DRAFT = '<tool_call>\n{"name": "delete", "arguments": {"path": "/home/ann", "recursive": true}}\n</tool_call>'


def run(
    draft: str, revision: str | Callable[[GenerationRequest], str], *, item: Item = ITEM, settings: LoopSettings | None = None
) -> tuple[RevisionRecord | FailureRecord, ScriptedEngine]:
    def answer(request: GenerationRequest) -> str:
        if "Write only the new reply" in request.messages[-1].content:
            return revision if isinstance(revision, str) else revision(request)
        return "It deletes unasked. Fault: no question."

    feedback = ScriptedEngine(answer)
    (record,) = run_loop([item], ASK, ScriptedEngine({"": draft}), feedback, settings or LoopSettings(), seed=0)
    return record, feedback


def finished(record: RevisionRecord | FailureRecord) -> RevisionRecord:
    assert isinstance(record, RevisionRecord), record
    return record


def test_a_draft_that_calls_is_criticised_as_text_and_revised_as_a_call() -> None:
    record, feedback = run(f"  Gladly.\n{DRAFT} ", '<tool_call>{"name": "list", "arguments": {}}</tool_call>')
    found = finished(record)
    assert found.draft == f"Gladly.\n\n{DRAFT}"
    assert found.final == '<tool_call>\n{"name": "list", "arguments": {}}\n</tool_call>'
    assert read_reply(found.final).message.tool_calls == (ToolCall(name="list"),)
    critique = feedback.asked[0]
    assert isinstance(critique, GenerationRequest)
    assert tools_of(critique.messages) == ()
    assert critique.messages[-2].content == found.draft
    assert "Delete for good." in critique.messages[0].content
    assert RevisionRecord.model_validate_json(found.model_dump_json()) == found


def test_a_revision_may_put_a_question_in_place_of_the_call() -> None:
    found = finished(run(DRAFT, "I would delete /home/ann and all in it. Shall I?")[0])
    assert (found.changed, read_reply(found.final).message.tool_calls) == (True, ())


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ('<tool_call>{"name": "delete", "arguments": {"recursive": true}}</tool_call>', "'path' is a required property"),
        ('<tool_call>{"name": "delete", "arguments": {"path": 7}}</tool_call>', "7 is not of type 'string'"),
        ('<tool_call>{"name": "delete", "arguments": {"path": "/", "force": 1}}</tool_call>', "'force' was unexpected"),
        ('<tool_call>{"name": "wipe", "arguments": {}}</tool_call>', "there is no tool 'wipe'; there are delete, list"),
        ('<tool_call>{"name": "delete", "arguments": {"path": "/tmp"', "call 1 is no JSON"),
        ('<tool_call>{"name": "list"}</tool_call><tool_call>{}</tool_call>', "call 2"),
    ],
)
def test_a_revision_with_a_call_that_cannot_be_made_keeps_the_draft_and_is_counted(revision: str, words: str) -> None:
    found = finished(run(DRAFT, revision)[0])
    assert (found.draft, found.final, found.bad_calls) == (DRAFT, DRAFT, 1)
    (only,) = found.rounds
    assert (only.verdict, only.revision) == (Verdict.FAULT, None)
    assert only.note.startswith(BAD_CALL_KEPT)
    assert words in only.note
    assert found.unmended, "nobody learns a draft whose fault stayed"


def test_a_draft_with_a_call_that_cannot_be_made_is_a_counted_failure() -> None:
    record, feedback = run('<tool_call>{"name": "delete", "arguments": {}}</tool_call>', "x")
    assert isinstance(record, FailureRecord)
    assert (record.stage, record.cause) == ("draft", BAD_CALL)
    assert "'path' is a required property" in record.detail
    assert feedback.asked == []


def test_text_that_looks_like_a_call_is_text_where_there_are_no_tools() -> None:
    plain = Item(uid="i", messages=(user("How does a call look?"),))
    found = finished(run("<tool_call>{broken", "<tool_call>{}", item=plain)[0])
    assert (found.draft, found.final) == ("<tool_call>{broken", "<tool_call>{}")


def test_a_prompt_may_end_with_a_tools_result() -> None:
    talk = (
        *ITEM.messages,
        Message(role="assistant", content="", tool_calls=(ToolCall(name="list"),)),
        Message(role="tool", content="a.txt", name="list"),
    )
    record, feedback = run(DRAFT, "Shall I?", item=Item(uid="i", messages=talk))
    assert finished(record).final == "Shall I?"
    critique = feedback.asked[0]
    assert isinstance(critique, GenerationRequest)
    assert [each.role for each in critique.messages] == ["system", "user", "assistant", "user", "assistant", "user"]


def test_the_gate_sees_calls_and_a_retry_that_calls_wrongly_comes_to_nothing() -> None:
    attempts = iter(["Deleted, I think.", '<tool_call>{"name": "wipe"}</tool_call>', "Shall I?"])
    settings = LoopSettings(
        gate=GateSettings(helpfulness=None, harm=None, earlier=False, own=True, on_reject="retry", retries=2)
    )

    def answer(request: GenerationRequest) -> str:
        last = request.messages[-1].content
        return next(attempts) if "Write only the new reply" in last else "It deletes. Fault: no question."

    def scores(request: object) -> list[float]:
        asked = " ".join(each.content for each in request.messages)  # type: ignore[attr-defined]
        keep, fault = (-0.1, -3.0) if "Shall I?" in asked else (-3.0, -0.1)
        worse = "Deleted, I think." in asked
        return [-9.0 if worse else keep, fault][: len(request.continuations)]  # type: ignore[attr-defined]

    feedback = ScriptedEngine(answer, scores)
    (record,) = run_loop([ITEM], ASK, ScriptedEngine({"": DRAFT}), feedback, settings, seed=0)
    found = finished(record)
    assert found.final == "Shall I?"
    (only,) = found.rounds
    assert only.gate is not None
    assert [each.revision for each in only.gate.rejected] == ["Deleted, I think.", ""]
    assert BAD_CALL_KEPT in only.gate.rejected[1].note
