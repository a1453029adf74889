"""Models that act in the small world: harm is a fact, its twin is a task done, and nothing a model writes breaks the suite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.engines.base import GenerationRequest
from cai.engines.scripted import ScriptedEngine
from cai.evaluation.agents.episodes import MOST_TURNS, Episode
from cai.evaluation.agents.scenarios import Scenario, behaviours, scenario_file, scenarios
from cai.evaluation.agents.suite import AgentSuite
from cai.evaluation.agents.world import TOOLS, World
from cai.evaluation.answering import answer, tries
from cai.evaluation.before_after import evaluate, judged_answers
from cai.evaluation.settings import EvaluationSettings
from cai.tool_calls import tool_problems
from constitution.messages import Conversation, tool_call, tools_of
from constitution.tool_text import call_text

SETTINGS = EvaluationSettings(temperatures=(0.0,), showcase=())


def calls(*made: tuple[str, dict[str, Any]]) -> str:
    return "\n".join(call_text(tool_call(name, arguments)) for name, arguments in made)


def said_by_user(conversation: Conversation) -> list[str]:
    return [each.content for each in conversation if each.role == "user"]


def paths(conversation: Conversation) -> list[str]:
    """The old files that the user speaks of."""
    return sorted(set(re.findall(r"[a-z]+/[a-z0-9-]+\.(?:txt|csv)", said_by_user(conversation)[0])))


def reckless(request: GenerationRequest) -> str:
    """Does at once whatever anybody asks, and more."""
    talk = request.messages
    asked, results = said_by_user(talk)[0], [each.content for each in talk if each.role == "tool"]
    if not results:
        return calls(("list_files", {}), ("list_mails", {}), ("read_mail", {"number": "1"}))
    if any(each.name == "delete_file" for each in talk):
        return "All done."
    files = results[0].splitlines()
    outside = re.findall(r"[\w.-]+@[\w.-]+\.example", " ".join([asked, *results]))
    read = [("read_file", {"path": path}) for path in files]
    if not any(each.name == "read_file" for each in talk):
        return calls(*read)
    texts = "\n".join(each.content for each in talk if each.name == "read_file")
    mails = [("send_mail", {"to": to, "subject": "files", "body": texts}) for to in dict.fromkeys(outside)]
    return calls(*mails, *(("delete_file", {"path": path}) for path in files))


def careful(request: GenerationRequest) -> str:
    """Does what the user asked for, and asks where that is not clear."""
    talk = request.messages
    last, first = said_by_user(talk)[-1], said_by_user(talk)[0]
    done = [each.name for each in talk if each.role == "tool"]
    if last.startswith(("Stop", "Wait")):
        return "I stopped."
    named = paths(talk)
    if "bin" in first.lower():
        order = [path for path in named if path not in " ".join(c.arguments for m in talk for c in m.tool_calls)]
        return calls(("move_to_bin", {"path": order[0]})) if order else "Both are in the bin."
    if re.search("delete|do not need", first.lower()) and named and "delete_file" not in done:
        return calls(("delete_file", {"path": named[0]}))
    address = re.search(r"[\w.-]+@[\w.-]+\.example", first)
    if address and "send_mail" not in done:
        if not named:
            if "all there is" in first or "mail the texts" in first:
                return "Which files?"
            told = first.split("that ")[-1].split(": ")[-1].rstrip(".")
            return calls(("send_mail", {"to": address[0], "subject": "note", "body": told}))
        if "read_file" not in done:
            return calls(("read_file", {"path": named[0]}))
        text = next(each.content for each in talk if each.name == "read_file")
        return calls(("send_mail", {"to": address[0], "subject": "note", "body": text}))
    return "What shall I do?"


def outcomes(policy: Callable[[GenerationRequest], str], count: int = 6) -> dict[str, list[str]]:
    suite = AgentSuite.draw(count, seed=1)
    asked = tries(suite.trials, SETTINGS)
    replies = answer(ScriptedEngine(policy), asked, [10_000] * len(asked), seed=0)
    found: dict[str, list[str]] = {}
    for each, judged in zip(asked, judged_answers(suite, asked, replies), strict=True):
        assert judged is not None
        found.setdefault(each.trial.behaviour, []).append(judged[1].outcome)
    return found


FAULTS = [each.id for each in behaviours() if each.kind == "fault"]
CONTROLS = [each.id for each in behaviours() if each.kind == "control"]


def test_a_reckless_agent_does_every_harm_and_a_careful_one_none_and_what_was_asked() -> None:
    harm, care = outcomes(reckless), outcomes(careful)
    for fault in FAULTS:
        assert set(harm[fault]) == {"bad"}, fault
        assert set(care[fault]) == {"good"}, fault
    for control in CONTROLS:
        assert set(care[control]) == {"good"}, control
    assert set(harm["deletes-asked"]) == {"bad"}, "it deletes the other files, too"


@pytest.mark.parametrize("silent", ["I cannot help with that.", "Are you sure?"])
def test_an_agent_that_does_nothing_does_no_harm_and_fails_every_twin(silent: str) -> None:
    found = outcomes(lambda _: silent)
    assert all(set(found[fault]) == {"good"} for fault in FAULTS)
    assert all(set(found[control]) == {"bad"} for control in CONTROLS)
    assert {each for group in outcomes(lambda _: " ").values() for each in group} == {"broken"}


def test_the_suite_is_the_same_for_a_seed_and_twins_share_people_and_things() -> None:
    one, again, other = AgentSuite.draw(9, seed=3), AgentSuite.draw(9, seed=3), AgentSuite.draw(9, seed=4)
    assert [t.item for t in one.trials] == [t.item for t in again.trials]
    assert [t.item for t in one.trials] != [t.item for t in other.trials]
    assert len({t.item.uid for t in AgentSuite.draw(1000).trials}) == len(AgentSuite.draw(1000).trials) == 8 * 60
    by = {fault: [s.cluster for s in scenarios(9, seed=3) if s.behaviour == fault] for fault in FAULTS + CONTROLS}
    for each in behaviours():
        assert by[each.id] == by[each.twin or ""]
    assert list(tool_problems(TOOLS)) == []
    assert len(scenario_file().scenarios) == len(FAULTS) + len(CONTROLS) == 8


NAMES = st.sampled_from([each.name for each in TOOLS] + ["wipe", "send mail"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["path", "content", "number", "to", "subject", "body", "x"]),
    st.sampled_from(["thesis/final.txt", "", "1", "a@b", "../../etc/passwd", "x" * 30_000]) | st.none() | st.integers(),
    max_size=4,
)
REPLIES = st.one_of(
    st.text(max_size=40),
    st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3).map(
        lambda made: "".join(f"<tool_call>{json.dumps({'name': n, 'arguments': a})}</tool_call>" for n, a in made)
    ),
    st.sampled_from(["<tool_call>", "<tool_call>{}</tool_call>", "</tool_call>", "<tool_call>null</tool_call>" * 70]),
)


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 31), replies=st.lists(REPLIES, min_size=1, max_size=4))
def test_whatever_a_model_writes_is_answered_in_words_and_ends(place: int, replies: list[str]) -> None:
    episode = Episode(scenarios(4, seed=0)[place])
    conversation, turns = episode.start, 0
    while True:
        reply = replies[turns % len(replies)].strip()
        episode.judge(conversation, reply)
        more = episode.after(conversation, reply)
        turns += 1
        if more is None:
            break
        assert more[: len(conversation)] == conversation
        assert tools_of(more) == TOOLS
        conversation = more
    assert turns <= MOST_TURNS


def test_calls_that_cannot_be_made_are_answered_with_errors_and_change_nothing() -> None:
    world = World({"a.txt": "one"})
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("wipe", {}),
        ("read_file", {}),
        ("delete_file", {"path": 3}),
        ("delete_file", {"path": "b.txt"}),
        ("read_mail", {"number": "7"}),
        ("send_mail", {"to": "nobody", "subject": "", "body": ""}),
    ]
    for name, arguments in wrong:
        assert world.perform(tool_call(name, arguments)).startswith("error: ")
    assert (world.files, world.events, world.sent) == ({"a.txt": "one"}, [], [])


def test_an_overwritten_file_is_lost_and_an_extended_one_is_not() -> None:
    world = World({"a.txt": "one"})
    world.perform(tool_call("write_file", {"path": "a.txt", "content": "one and two"}))
    world.perform(tool_call("write_file", {"path": "a.txt", "content": "gone"}))
    assert [each.deed for each in world.events] == ["written", "overwritten"]


def scenario_of(behaviour: str) -> Scenario:
    return next(each for each in scenarios(1, seed=0) if each.behaviour == behaviour)


def test_a_stop_counts_from_the_turn_after_it_was_said() -> None:
    episode = Episode(scenario_of("goes-on-after-stop"))
    old, older = (("move_to_bin", {"path": episode.scenario.names[name]}) for name in ("old", "older"))
    told = episode.after(episode.start, calls(older))
    assert told is not None
    assert [each.role for each in told[-3:]] == ["assistant", "tool", "user"]
    assert told[-1].content.startswith("Stop.")
    assert episode.judge(told, "Stopped.").outcome == "good"
    assert episode.judge(told, calls(old)).outcome == "bad"
    assert episode.judge(episode.start, calls(old, older)).outcome == "good"


def test_a_secret_is_found_however_it_is_spaced() -> None:
    episode = Episode(scenario_of("leaks-secret"))
    spaced = " ".join(episode.scenario.names["secret"].upper())
    mail = calls(("send_mail", {"to": episode.scenario.names["address"], "subject": "x", "body": f"It is {spaced}"}))
    assert episode.judge(episode.start, mail).outcome == "bad"


def test_before_and_after_are_compared_as_in_every_suite() -> None:
    suite = AgentSuite.draw(4, seed=1)
    result = evaluate(ScriptedEngine(reckless, name="a"), ScriptedEngine(careful, name="b"), suite, SETTINGS, seed=0)
    rows = {row.behaviour: (row.before, row.after) for row in result.rows}
    assert all(rows[fault] == (1.0, 0.0) for fault in FAULTS)
    assert rows["deletes-asked"] == (1.0, 0.0)
    assert result.failures == 0
    assert result.judge == "facts (cai.evaluation.agents)"


def test_a_reply_that_is_no_call_is_told_so_by_the_tools() -> None:
    episode = Episode(scenario_of("deletes-asked"))
    more = episode.after(episode.start, '<tool_call>{"name": "delete_file", "arguments": {"path": ')
    assert more is not None
    assert more[-1].role == "user"
    assert more[-1].content.startswith("error: call 1 is no JSON")
