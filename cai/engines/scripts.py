"""Script files: a whole run on answers from a table, `policy: {name: scripted:FILE.yaml}`. For dry runs: no model, no torch.

```yaml
answers:                      # the first key that stands in the last message answers; "" stands in every one
  "Write only the new reply": "I cannot help with that, but this may serve you: …"
  "Check your last reply": ["Nothing to change.", "Fault: it is not kind."]     # of several, one is drawn by the noise key
  "": "Here is what you asked for."
scores: {}                    # text → log-probability in nats; without any, they are drawn by a hash of the request
context_tokens: 4096          # the longest prompt plus answer, in words
```
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cai.engines.base import GenerationRequest, RequestFailure, ScoreRequest
from cai.engines.scripted import ScriptedEngine
from cai.errors import CaiError, ModelError, ProblemList
from constitution.documents import WHOLE, read_document

PREFIX = "scripted:"
LONGEST_FILE_BYTES = 10_000_000
LOWEST_DRAWN_NATS = -10.0


class Script(BaseModel):
    """What a script file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answers: Annotated[dict[str, str | Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)]
    scores: dict[str, Annotated[float, Field(le=0.0)]] = Field(default_factory=dict[str, float])
    context_tokens: Annotated[int, Field(ge=1)] = 4096

    def engine(self, *, keep_asked: bool = False) -> ScriptedEngine:
        """An engine that answers by this script. Equal scripts have equal fingerprints."""
        choices = [(part, (texts,) if isinstance(texts, str) else texts) for part, texts in self.answers.items()]

        def answer(request: GenerationRequest) -> str | RequestFailure:
            asked = request.messages[-1].content
            for part, texts in choices:
                if part in asked:
                    return texts[0] if len(texts) == 1 else texts[_number(request.noise_key) % len(texts)]
            return RequestFailure("not_scripted", f"the script has no answer to {asked[:60]!r}")

        name = sha256(self.model_dump_json().encode()).hexdigest()
        return ScriptedEngine(
            answer, self.scores or _drawn, context_tokens=self.context_tokens, name=name, keep_asked=keep_asked
        )


def is_script(name: str) -> bool:
    """Whether a model's name is that of a script."""
    return name.startswith(PREFIX)


def check_script(name: str) -> list[CaiError]:
    """Everything that is wrong with the script `scripted:FILE.yaml`."""
    try:
        read_script(name)
    except ProblemList as error:
        return list(error.problems)
    return []


def read_script(name: str) -> Script:
    """The script `scripted:FILE.yaml`.

    Raises:
        ProblemList: With every problem of the file, each with its place.
    """
    path = Path(name.removeprefix(PREFIX)).expanduser()
    try:
        if path.stat().st_size > LONGEST_FILE_BYTES:
            raise _refused(path, [ModelError(f"{path}: more than {LONGEST_FILE_BYTES:,} bytes.", "A script is a short file.")])
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(
            path, [ModelError(f"{path}: cannot be read ({error}).", "Name a YAML file: scripted:FILE.yaml.")]
        ) from None
    document = read_document(text)
    problems: list[CaiError] = [ModelError(f"{path}:{p.line}:{p.column}: {p.problem}", p.hint) for p in document.problems]
    if not problems:
        try:
            return Script.model_validate(document.value)
        except ValidationError as error:
            for each in error.errors():
                places = (document.places.get(each["loc"][:length]) for length in range(len(each["loc"]), 0, -1))
                place = next((found for found in places if found is not None), WHOLE)
                problems.append(
                    ModelError(
                        f"{path}:{place.line}:{place.column}: {'.'.join(map(str, each['loc']))}: {each['msg']}",
                        "A script has `answers` (text → answer or answers), `scores` and `context_tokens`.",
                    )
                )
    raise _refused(path, problems)


def _refused(path: Path, problems: Sequence[CaiError]) -> ProblemList:
    return ProblemList(f"{path}: not a script that can be used:", problems)


def _drawn(request: ScoreRequest) -> list[float]:
    asked = "\0".join([*(message.content for message in request.messages), request.response_prefix])
    return [LOWEST_DRAWN_NATS * (_number(f"{asked}\0{each}") % 10_000) / 10_000 for each in request.continuations]


def _number(text: str) -> int:
    return int.from_bytes(sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")
