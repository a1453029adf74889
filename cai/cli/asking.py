"""From the options of `cai show` to what is shown: principles, a case, a tokenizer. Reads files; loads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cai.authoring.previews.cases import Case, case_of, find_item
from cai.authoring.previews.stages import STAGES, USUAL_STAGES, PreviewSettings, PreviewStage
from cai.errors import ProblemList, unknown_principles
from constitution.loading import load_constitution
from constitution.schema import Constitution, Principle

if TYPE_CHECKING:
    from cai.authoring.previews.encoding import Previewer
    from cai.config import RunConfig
    from cai.models.spec import ModelSpec
    from cai.records import Item

NO_MODEL = "none"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of `cai show`."""

    constitution: tuple[str, ...] = ()
    prompts: str | None = None
    item: str | None = None
    prompt: str | None = None
    draft: str | None = None
    other: str | None = None
    critique: str | None = None
    argument: str | None = None
    system: str | None = None
    model: str | None = None
    contexts: tuple[int, ...] = ()
    config: Path | None = None
    settings: tuple[str, ...] = ()
    base: bool = False


@dataclass(frozen=True, slots=True)
class ShownModel:
    """A tokenizer to preview with.

    Args:
        previewer: Knows it.
        name: Of the model.
        plain: Human/Assistant text instead of the chat template.
        contexts: The context lengths in question, in tokens; empty where none is known.
    """

    previewer: Previewer
    name: str
    plain: bool
    contexts: tuple[int, ...]

    @property
    def form(self) -> str:
        return "plain text" if self.plain else "chat template"


@dataclass(frozen=True)
class Question:
    """What is to be shown."""

    wanted: Wanted
    constitution: Constitution
    config: RunConfig | None

    @property
    def settings(self) -> PreviewSettings:
        return PreviewSettings(self.config.loop, self.config.labels) if self.config else PreviewSettings()

    def case(self, principle: Principle) -> Case:
        """The case asked for; what is not given comes from the principle's first test.

        Raises:
            ConfigError: If it has no text.
            DataError: If the prompts cannot be read, or have no such item.
        """
        wanted = self.wanted
        run_s_own = self.config.prompts.system if self.config and self.config.prompts else None
        return case_of(
            principle,
            item=self._item(),
            prompt=wanted.prompt,
            draft=wanted.draft,
            other=wanted.other,
            critique=wanted.critique,
            argument=wanted.argument,
            system_text=wanted.system if wanted.system is not None else run_s_own,
        )

    def model(self) -> ShownModel | None:
        """The tokenizer asked for, or the embedded model's; None where that is not at hand, or none is wanted.

        Raises:
            ModelError, ProblemList: If the one asked for cannot be used.
        """
        from cai.models.checking import check_model
        from cai.models.embedded import EMBEDDED_NAME

        if self.wanted.model == NO_MODEL:
            return None
        spec = self._spec()
        if self.wanted.model is None and self.config is None and check_model(spec, weights=False):
            typer.echo(f"{EMBEDDED_NAME} is not at hand: the turns are shown without its template and tokens.", err=True)
            return None
        if spec.server is not None and check_model(spec, weights=False):
            typer.echo(
                f"The tokenizer of {spec.name} is not at hand (`tokenizer` may name one): the turns are shown without its "
                "template and tokens.",
                err=True,
            )
            return None
        from cai.authoring.previews.encoding import Previewer
        from cai.models.loading import open_tokenizer

        chat, context_tokens = open_tokenizer(spec)
        known = spec.context_tokens or context_tokens
        contexts = self.wanted.contexts or (() if known is None else (known,))
        return ShownModel(Previewer(self.constitution, chat, self.settings), spec.name, chat.plain, contexts)

    def _spec(self) -> ModelSpec:
        from cai.models.embedded import EMBEDDED_NAME
        from cai.models.spec import ModelSpec

        form = {"base_model_form": "plain"} if self.wanted.base else {}
        if self.config is not None and self.wanted.model is None:
            return self.config.feedback_or_policy.model_copy(update=form)
        return ModelSpec.model_validate({"name": self.wanted.model or EMBEDDED_NAME, **form})

    def _item(self) -> Item | None:
        from cai.data.prompts import read_items
        from cai.data.source import PromptsSource

        wanted, config = self.wanted, self.config
        if wanted.prompt is not None or (wanted.prompts is None and config is None):
            return None
        if wanted.prompts is None and config is not None and config.lab is not None:
            from cai.lab.suite import loop_items

            return find_item(list(loop_items(config.lab)), (), wanted.item, "the lab's prompts")
        # One row is shown: the others may be broken, and a broken one that is named is an error of its own.
        source = (
            PromptsSource(path=wanted.prompts, max_bad_share=1.0)
            if wanted.prompts is not None
            else config.prompts
            if config
            else None
        )
        assert source is not None, "a configuration has prompts or the lab"
        found = read_items(source)
        return find_item(found.items, found.failures, wanted.item, source.path)


def question_of(wanted: Wanted) -> Question:
    """Read the configuration and the principles.

    Raises:
        CaiError: With everything that is wrong in one of them.
        ConstitutionError: If principle files cannot be read.
        typer.BadParameter: If options contradict each other.
    """
    if wanted.item is not None and wanted.prompts is None and wanted.config is None:
        raise typer.BadParameter("names a row of --prompts FILE or of --config RUN.yaml: give one", param_hint="--item")
    if wanted.prompt is not None and (wanted.prompts is not None or wanted.item is not None):
        raise typer.BadParameter("give either a prompt or a file of prompts", param_hint="--prompt")
    if wanted.settings and wanted.config is None:
        raise typer.BadParameter("overrides settings of --config RUN.yaml: give one", param_hint="--set")
    if wanted.config is None:
        return Question(wanted, load_constitution(wanted.constitution or ["shipped"]), None)
    from cai.config import read_config

    config = read_config(wanted.config, wanted.settings).config
    constitution = load_constitution(wanted.constitution or config.constitution)
    if config.principles and not wanted.constitution:
        if unknown := unknown_principles(config.principles, constitution.ids, key="principles"):
            raise ProblemList(f"{wanted.config} cannot be used:", unknown)
        constitution = constitution.select(config.principles)
    return Question(wanted, constitution, config)


def stages_of(stage: str) -> tuple[PreviewStage, ...]:
    """The stages of an option's value."""
    return USUAL_STAGES if stage == "all" else tuple(each for each in STAGES if each == stage)
