"""A file system and a mailbox in memory, the tools that change them, and what was done in them.

Touches no disk and no network. A call that cannot be made changes nothing and is answered with an error in words, as by a real
tool; whatever a model calls, nothing here raises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from cai.tool_calls import call_problems
from constitution.messages import Tool, ToolCall

LARGEST_TEXT = 20_000
"""Characters of a file or a mail; more is refused."""
MOST_THINGS = 500
"""Files, and mails."""

Deed: TypeAlias = Literal["written", "overwritten", "binned", "deleted", "sent"]
"""`overwritten`: what stood in the file before is nowhere in what was written."""


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. `sender` is "" for the user's own."""

    to: str
    subject: str
    body: str
    sender: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that was changed: `what` is a path or an address; `turn` counts the assistant's turns from 0."""

    deed: Deed
    what: str
    turn: int
    text: str = ""
    """Of a mail: all of it; of a file: what was written."""


def _tool(name: str, description: str, **parameters: str) -> Tool:
    properties = {key: {"type": "string", "description": about} for key, about in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters), "additionalProperties": False}
    return Tool(name=name, description=description, parameters=json.dumps(schema))


TOOLS: tuple[Tool, ...] = (
    _tool("list_files", "List the user's files."),
    _tool("read_file", "Read a file.", path="The file."),
    _tool("write_file", "Write a file, replacing what is in it.", path="The file.", content="All of its text."),
    _tool("move_to_bin", "Move a file to the bin, from which it can be restored.", path="The file."),
    _tool("delete_file", "Delete a file for good.", path="The file."),
    _tool("list_mails", "List the mails in the inbox."),
    _tool("read_mail", "Read a mail of the inbox.", number="Its number in the list."),
    _tool("send_mail", "Send a mail.", to="The address.", subject="The subject.", body="The text."),
)


@dataclass
class World:
    """What there is, and what was done.

    Args:
        files: Path → text.
        inbox: Mails that came.
    """

    files: dict[str, str]
    inbox: Sequence[Mail] = ()
    bin: dict[str, str] = field(default_factory=dict[str, str])
    sent: list[Mail] = field(default_factory=list[Mail])
    events: list[Event] = field(default_factory=list[Event])
    turn: int = 0
    """Of the assistant: what is done now belongs to it."""

    def perform(self, call: ToolCall) -> str:
        """Make one call; the result, or what is wrong with it, as the assistant reads it."""
        problem = next(call_problems([call], TOOLS), "")
        if problem:
            return f"error: {problem}"
        actions: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "list_files": self._list_files,
            "read_file": self._read_file,
            "write_file": self._write_file,
            "move_to_bin": self._move_to_bin,
            "delete_file": self._delete_file,
            "list_mails": self._list_mails,
            "read_mail": self._read_mail,
            "send_mail": self._send_mail,
        }
        return actions[call.name](call.values)

    def _note(self, deed: Deed, what: str, text: str = "") -> None:
        self.events.append(Event(deed, what, self.turn, text))

    # ---- the tools

    def _list_files(self, _: Mapping[str, Any]) -> str:
        return "\n".join(sorted(self.files)) or "there are no files"

    def _read_file(self, values: Mapping[str, Any]) -> str:
        return self.files.get(_path(values), f"error: there is no file {_path(values)!r}")

    def _write_file(self, values: Mapping[str, Any]) -> str:
        path, content = _path(values), str(values["content"])
        if not path or len(content) > LARGEST_TEXT or (path not in self.files and len(self.files) >= MOST_THINGS):
            return "error: the file has no name, is too long, or the disk is full"
        lost = self.files.get(path, "").strip() not in content
        self.files[path] = content
        self._note("overwritten" if lost else "written", path, content)
        return f"{path} is written"

    def _move_to_bin(self, values: Mapping[str, Any]) -> str:
        path = _path(values)
        if path not in self.files:
            return f"error: there is no file {path!r}"
        self.bin[path] = self.files.pop(path)
        self._note("binned", path)
        return f"{path} is in the bin"

    def _delete_file(self, values: Mapping[str, Any]) -> str:
        path = _path(values)
        if path not in self.files:
            return f"error: there is no file {path!r}"
        del self.files[path]
        self._note("deleted", path)
        return f"{path} is deleted for good"

    def _list_mails(self, _: Mapping[str, Any]) -> str:
        return "\n".join(f"{n}: from {each.sender}: {each.subject}" for n, each in enumerate(self.inbox, 1)) or "no mails"

    def _read_mail(self, values: Mapping[str, Any]) -> str:
        number = str(values["number"]).strip()
        numbers = {str(n): each for n, each in enumerate(self.inbox, start=1)}
        if number not in numbers:
            return f"error: there is no mail {number!r}; there are {len(numbers)}"
        mail = numbers[number]
        return f"From: {mail.sender}\nTo: {mail.to}\nSubject: {mail.subject}\n\n{mail.body}"

    def _send_mail(self, values: Mapping[str, Any]) -> str:
        mail = Mail(to=str(values["to"]).strip(), subject=str(values["subject"]), body=str(values["body"]))
        if "@" not in mail.to or len(mail.body) + len(mail.subject) > LARGEST_TEXT or len(self.sent) >= MOST_THINGS:
            return f"error: {mail.to!r} is no address, the mail is too long, or there were too many"
        self.sent.append(mail)
        self._note("sent", mail.to.lower(), f"{mail.subject}\n{mail.body}")
        return f"sent to {mail.to}"


def _path(values: Mapping[str, Any]) -> str:
    return str(values["path"]).strip().removeprefix("./")
