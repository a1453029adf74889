"""Previews as JSON: everything that `cai show` knows of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cai.authoring.previews.stages import Asked, Request
from cai.engines.base import ScoreRequest

if TYPE_CHECKING:
    from cai.authoring.previews.cases import Case
    from cai.authoring.previews.encoding import Preview
    from cai.cli.asking import ShownModel
    from constitution.schema import Principle


def turns_json(
    principle: Principle, case: Case, asked: Sequence[Asked], text_of: Callable[[Request], str]
) -> dict[str, object]:
    """The prompts of one principle without a tokenizer."""
    return {
        "principle": principle.id,
        "applies": case.draws(principle),
        "model": None,
        "form": None,
        "item": case_json(case),
        "prompts": [{**request_json(each), "text": text_of(each.request), "tokens": None} for each in asked],
    }


def preview_json(
    model: ShownModel, principle: Principle, case: Case, previews: Sequence[Preview], *, tokens: bool
) -> dict[str, object]:
    """Everything about the prompts of one principle."""
    prompts: list[dict[str, object]] = []
    for preview in previews:
        parts = model.previewer.parts(principle, case, preview)
        row: dict[str, object] = {
            **request_json(preview.asked),
            "text": preview.text,
            "parts": [{"kind": each.kind, "start": each.start, "end": each.end} for each in parts],
            **counts_json(model, preview),
        }
        if tokens:
            row |= {"token_ids": list(preview.ids), "token_texts": model.previewer.pieces(preview.ids)}
        prompts.append(row)
    return {
        "principle": principle.id,
        "applies": case.draws(principle),
        "model": model.name,
        "form": "plain" if model.plain else "chat",
        "item": case_json(case),
        "prompts": prompts,
    }


def case_json(case: Case) -> dict[str, object]:
    """What the prompts are shown on."""
    return {
        "uid": case.item.uid,
        "source": case.item.source,
        "origin": case.origin,
        "tags": list(case.item.tags),
        "stand_ins": list(case.stand_ins),
    }


def counts_json(model: ShownModel, preview: Preview) -> dict[str, object]:
    """Tokens of a prompt, what they share, and what becomes of it; shares are of its tokens."""
    total = len(preview.ids)

    def share(count: int | None) -> float | None:
        return None if count is None or not total else count / total

    earlier = preview.asked.earlier
    return {
        "tokens": total,
        "failure": None if preview.failure is None else {"cause": preview.failure.cause, "detail": preview.failure.detail},
        "scored_tokens": preview.scored_tokens,
        "earlier": None
        if earlier is None
        else {"stage": earlier.stage, "tokens": preview.earlier_tokens, "share": share(preview.earlier_tokens)},
        "every_principle": {
            "tokens": preview.common_tokens,
            "share": share(preview.common_tokens),
            "differing": list(preview.differing),
        },
        "growth_tokens": preview.growth_tokens,
        "control_texts": preview.control_texts,
        "contexts": [] if preview.failure else [_context_json(preview, context) for context in model.contexts],
    }


def _context_json(preview: Preview, context: int) -> dict[str, object]:
    now, grown = preview.outcomes(context)
    return {"context": context, "fate": now.fate, "spare": now.spare, "in_words": str(now), "fate_when_grown": grown.fate}


def request_json(asked: Asked) -> dict[str, object]:
    """The request itself."""
    request = asked.request
    return {
        "stage": asked.stage,
        "order": asked.order,
        "speaks_for": asked.speaks_for,
        "messages": [message.model_dump() for message in request.messages],
        "response_prefix": request.response_prefix,
        "scored": list(request.continuations) if isinstance(request, ScoreRequest) else [],
        "max_tokens": asked.max_tokens,
        "stop": [] if isinstance(request, ScoreRequest) else list(request.params.stop),
    }
