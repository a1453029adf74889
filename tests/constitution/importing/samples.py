"""Files in the shapes of other systems, in our own words; and what every test of an import asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from constitution.importing import Format, Imported, Return, import_file, principle_file_of, way_back
from constitution.loading import load_constitution
from constitution.schema import Constitution

CRITIQUES: dict[str, Any] = {
    "rude0": {
        "prompt": ["\n\nCritiqueRequest: Say where the last answer is rude to a guest.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Write the answer anew, without a rude word.\n\nRevision:",
    },
    "Long Answers": {
        "prompt": ["\n\nCritiqueRequest: Which sentences say nothing new?\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Strike every sentence that says nothing new.\n\nRevision:",
    },
}
PREFERENCES = [
    "\nPick the answer a patient librarian would give. Options:",
    "\nWhich one wastes less of the reader's time? Options:",
]


def few_shot(
    prompt: str, draft: str, request: str = "Is it rude?", revise: str = "Make it kind.", end: str = "\n\nHuman:"
) -> str:
    return (
        f"\n\nHuman: {prompt}\n\nAssistant: {draft}\n\nCritiqueRequest: {request}\n\nCritique: It says more than was asked."
        f"\n\nRevisionRequest: {revise}\n\nRevision: The lamp is in the hall.{end}"
    )


FEW_SHOTS = [
    few_shot("Where is the lamp?", "Look for it yourself. It is in the hall."),
    few_shot("Is tea ready?", "Of course, as always.", request="Is it vain?"),
    few_shot("Hello.\n\nAssistant: Hello.\n\nHuman: And the lamp?", "In the hall, I told you.", end=""),
]


def comparison(prompt: str, first: str, second: str, correct: str, rule: str = "Take the kinder answer.") -> dict[str, Any]:
    better, worse = (first, second) if correct == "A" else (second, first)
    return {
        "prompt": f"\n\nRead these turns:\n\nHuman: {prompt}\n\n\n{rule} Options:\n (A) [[[{first}]]]\n (B) [[[{second}]]]"
        "\n\nThe answer is:",
        "corrects": [f" ({correct})"],
        "incorrects": [" (B)" if correct == "A" else " (A)"],
        "text_correct": f"\n\nHuman: {prompt}\n\nAssistant: {better}",
        "text_incorrect": f"\n\nHuman: {prompt}\n\nAssistant: {worse}",
    }


COMPARISONS = [
    comparison("Is it late?", "It is ten.", "Buy a clock.", "A"),
    comparison("Hi.\n\nAssistant: Hi.\n\nHuman: Is the bread fresh?", "Ask the baker.", "It was baked today.", "B"),
    comparison("Which way is north?", "Left.", "Up.", "A", rule="Take the answer one can act on."),
    comparison("May I sit?", "No.", "Please do.", "B"),
]


def chat(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]


LLM_SWARM: dict[str, Any] = {
    "constitutions": [
        {"critic": "Say where the answer boasts.", "revision": "Rewrite it without boasting."},
        {"critic": "Find a claim without a ground.", "revision": "Give a ground or leave the claim out."},
    ],
    "system_chat": [
        chat(
            "Can bees count?",
            "Yes.",
            "Find a claim without a ground.",
            "The yes.",
            "Give a ground or leave the claim out.",
            "Up to four.",
        ),
        chat("Sing.", "I sing best.", "Say where the answer boasts.", "Best.", "Rewrite it without boasting.", "La."),
        chat("Count.", "One.", "Is it long?", "No.", "Shorten it.", "1"),
    ],
}
LANGCHAIN = [
    {"name": "plain", "critique_request": "Name the jargon.", "revision_request": "Say it in plain words."},
    {"name": "Plain!", "critique_request": "Name the sums that are wrong.", "revision_request": "Mend the sums."},
    {"critique_request": "Who is blamed?", "revision_request": "Blame nobody."},
]
PYTHON = """
from langchain.chains.constitutional_ai.models import ConstitutionalPrinciple

raise SystemExit("this file is read, and never run")
MINE = {
    "plain": ConstitutionalPrinciple(
        name="plain",
        critique_request="Name the jargon "
        "in it.",
        revision_request="Say it in plain words.",
    ),
    "made": ConstitutionalPrinciple(name="made", critique_request=f"{1}", revision_request="x"),
}
"""
SALMON = [
    {"dimension": "To the Point", "definition": "The answer should begin with what was asked.", "weight": 3},
    {
        "dimension": "Warm",
        "definition": "The answer should sound like a friend.",
        "negative_definition": "It should sound cold.",
    },
]
RULES = ["Choose the reply that names its source.", "Choose the reply a child can follow."]
MARKDOWN = """# House rules

What we ask of every answer.

- Begin with the answer.
  People read the first line only.
- Name your source.

## For guests

1. Say welcome first.
"""
PROSE = """# A guide for Hal

Hal is a helper in a library. The library opened in 1901.

## What matters most

These come in this order of priority:

1. **Keep people safe**: no harm before all else.
2. **Stay honest**
3. **Be useful**: help with the question.

## Keeping people safe

A library has ladders. Hal should warn readers about what can hurt them. Ladders fall.

### Fire

Hal must never:

* call a fire drill a joke;
* block a door.

Doors save lives.

## Staying honest

Readers come back to those they trust. We want Hal to say so when it does not know a book.

## Useful help

- Answer the question first.
- Offer the shelf number.
  It saves a walk.

## Our history

The first librarian kept bees.
"""


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    elif name.endswith(".jsonl") and isinstance(content, list):
        path.write_text("".join(f"{json.dumps(row)}\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def imported(folder: Path, name: str, content: object) -> tuple[Format, Imported, Constitution, Return | None]:
    """The content written, imported, written as a principle file, and read again by the loader."""
    path = written(folder, name, content)
    chosen, source, result = import_file(path)
    target = folder / "out" / "principles.yaml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(principle_file_of(result, target), encoding="utf-8", newline="")
    again = load_constitution([target])
    assert again == result.constitution
    return chosen, result, again, way_back(again, chosen, source, result)
