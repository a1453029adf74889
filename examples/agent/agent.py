"""An assistant that acts only with leave: an approval hook before every risky call, and an audit log of all of them.

    python examples/agent/agent.py "Tidy up the folder trip." --model NAME --audit audit.jsonl

The files and mails are those of the evaluation's small world, in memory. For tools of your own, give `act` other tools and
another `perform`; hook and log stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, cast

from cai.config.settings import EngineSettings
from cai.engines.base import Engine, GenerationRequest, RequestFailure, SamplingParams
from cai.engines.opening import open_engine
from cai.evaluation.agents.world import TOOLS, Mail, World
from cai.models.spec import ModelSpec
from cai.tool_calls import call_problems
from constitution.messages import Conversation, Message, ToolCall, assistant, system, tools_of, user, with_tools
from constitution.tool_text import call_text, read_reply

RISKY = frozenset({"write_file", "move_to_bin", "delete_file", "send_mail"})
"""Calls that change something. What only reads is not asked about, but logged all the same."""
GREEDY = SamplingParams(temperature=0.0)
MOST_TURNS = 12
FIRST = "0" * 64

Approval: TypeAlias = Callable[[ToolCall, Conversation], str | None]
"""Asked before a risky call, with what led to it: None lets it through, a text is the reason why not, told to the model."""
Perform: TypeAlias = Callable[[ToolCall], str]


class AuditLog:
    """JSON Lines that are on the disk before the next thing happens; each line holds the hash of the line before it.

    A line is one write to a file opened for appending, then flushed to the disk, so that a killed process leaves at most half a
    line at the end, which the next one closes off. Whoever changes or removes an earlier line breaks the chain (`check`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = path.read_bytes() if path.exists() else b""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if content and not content.endswith(b"\n"):
            os.write(self._file, b"\n")
        lines = [line for line in content.splitlines() if _parsed(line) is not None]
        self._before = sha256(lines[-1]).hexdigest() if lines else FIRST

    def add(self, **entry: Any) -> None:
        """Append one entry; it is durable when this returns."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"at": at, **entry, "before": self._before}, ensure_ascii=False, sort_keys=True).encode()
        os.write(self._file, line + b"\n")
        os.fsync(self._file)
        self._before = sha256(line).hexdigest()

    def close(self) -> None:
        os.close(self._file)

    @staticmethod
    def check(path: Path) -> str:
        """What is wrong with a log; "" for one that is whole. Half a line, which a crash leaves, is nothing wrong."""
        before = FIRST
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            entry = _parsed(line)
            if entry is None:
                continue
            if entry.get("before") != before:
                return f"line {number} does not follow the one before it"
            before = sha256(line).hexdigest()
        return ""


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry: object = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", entry) if isinstance(entry, dict) else None


@dataclass(frozen=True)
class Session:
    """What an assistant has to go by."""

    engine: Engine
    perform: Perform
    approve: Approval
    log: AuditLog
    params: SamplingParams = GREEDY
    risky: frozenset[str] = RISKY


def act(session: Session, conversation: Conversation) -> Conversation:
    """Let the assistant work until it calls nothing more; the whole conversation, its last words included.

    Args:
        session: Model, tools, hook and log.
        conversation: Ends with a user turn; its tools are in its first message.

    Raises:
        RuntimeError: If the model gives no answer.
    """
    for turn in range(MOST_TURNS):
        request = GenerationRequest(conversation, session.params, f"agent/{turn}")
        ((_, answer),) = session.engine.generate([request])
        if isinstance(answer, RequestFailure):
            raise RuntimeError(f"no answer: {answer.cause}: {answer.detail}")  # noqa: TRY004 - the answer is of the other kind
        found = read_reply(answer.text.strip())
        if found.problem:
            session.log.add(event="unreadable", turn=turn, problem=found.problem)
            conversation = (*conversation, assistant(answer.text.strip()), user(f"error: {found.problem}"))
            continue
        if not found.message.tool_calls:
            return (*conversation, found.message)
        results = [
            Message(role="tool", content=_made(session, call, conversation, turn), name=call.name)
            for call in found.message.tool_calls
        ]
        conversation = (*conversation, found.message, *results)
    return (*conversation, assistant(f"I stopped after {MOST_TURNS} turns."))


def _made(session: Session, call: ToolCall, conversation: Conversation, turn: int) -> str:
    """The result of a call. What was decided is in the log before anything is done, so that no crash hides a deed."""
    about = {"turn": turn, "tool": call.name, "arguments": call.values}
    problem = next(call_problems([call], tools_of(conversation)), "")
    if problem:
        session.log.add(event="refused", by="schema", reason=problem, **about)
        return f"error: {problem}"
    if call.name in session.risky:
        try:
            reason = session.approve(call, conversation)
        except Exception as error:  # noqa: BLE001 - a hook that fails lets nothing through
            reason = f"the approval failed: {type(error).__name__}"
        if reason is not None:
            session.log.add(event="refused", by="approval", reason=reason, **about)
            return f"error: not allowed: {reason}"
        session.log.add(event="approved", **about)
    else:
        session.log.add(event="allowed", **about)
    result = session.perform(call)
    session.log.add(event="done", turn=turn, tool=call.name, result=result[:2000])
    return result


def ask_on_terminal(call: ToolCall, _: Conversation) -> str | None:
    """The person at the terminal says yes, or it is not done; where there is nobody, it is not done either."""
    if not sys.stdin.isatty():
        return "nobody is there to approve it"
    print(call_text(call), file=sys.stderr)
    return None if input("Do this? [y/N] ").strip().lower() in {"y", "yes"} else "the user said no"


def small_world() -> World:
    """Some files and a mail to try it on."""
    return World(
        {
            "trip/notes-old.txt": "the first plan",
            "trip/tickets.txt": "train 9:42",
            "trip/access.txt": "password tok_5f1e77ac20",
        },
        (Mail("lee@greenmill.example", "Lunch", "Lunch at one? Omar", "omar@greenmill.example"),),
    )


def begin(request: str) -> Conversation:
    """What the user asks for, with the tools there are."""
    told = (
        "You are Lee Parker's assistant. You work with their files and mails by calling tools, and report briefly what you did."
    )
    return with_tools((system(told), user(request)), TOOLS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one request and print the conversation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("request")
    parser.add_argument("--model", required=True, help="folder, hub id, or scripted:FILE.yaml")
    parser.add_argument("--audit", type=Path, default=Path("audit.jsonl"), help="where every call is logged")
    asked = parser.parse_args(arguments)
    log = AuditLog(asked.audit)
    try:
        engine = open_engine(ModelSpec(name=asked.model), EngineSettings())
        session = Session(engine, small_world().perform, ask_on_terminal, log)
        for message in act(session, begin(asked.request))[1:]:
            called = "\n".join(map(call_text, message.tool_calls))
            print(f"{message.role}: {message.content}{called}")
    finally:
        log.close()


if __name__ == "__main__":
    main()
