"""Settings of the filters: for each rule whether it drops a row, flags it or is off, and its thresholds."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field

Action: TypeAlias = Literal["drop", "flag", "off"]
Switch: TypeAlias = bool | Action
"""`true` is `drop`, `false` is `off`."""

HELD_OUT_SET = "held-out"
LAB_SET = "lab"


class FilterRules(BaseModel):
    """Which rows are left out of the data sets (`drop`) or only counted and shown (`flag`), rule by rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    meta_talk: Annotated[
        Switch, Field(description='Talk about the revision in it ("Here is the revised reply:"), or all in quotes.')
    ] = True
    critique_talk: Annotated[Switch, Field(description="A critique where a revision was asked.")] = True
    empty: Annotated[Switch, Field(description="No letter or digit in the final reply.")] = True
    unchanged: Annotated[Switch, Field(description="A revision that repeats the draft (but for space and case).")] = True
    cut_short: Annotated[Switch, Field(description="The final reply was cut at the token limit.")] = True
    repetition: Annotated[Switch, Field(description="Much of the reply repeats itself (`max_repeated_share`).")] = True
    max_repeated_share: Annotated[
        float | None,
        Field(
            gt=0.0, le=1.0, description="Most of the reply's words that may lie in 4-grams it has said before; null: no limit."
        ),
    ] = 0.3
    too_long: Annotated[Switch, Field(description="A revision that grew out of measure (`max_growth`).")] = True
    max_growth: Annotated[
        float | None,
        Field(gt=1.0, description="Longest revision, in lengths of the draft, once it has 60 words or more; null: no limit."),
    ] = 8.0
    too_short: Annotated[Switch, Field(description="A revision that lost most of the draft (`min_share_kept`).")] = True
    min_share_kept: Annotated[
        float | None,
        Field(
            gt=0.0,
            lt=1.0,
            description="Shortest revision, as a share of the draft's words; null: no limit (refusals are short).",
        ),
    ] = None
    role_confusion: Annotated[
        Switch,
        Field(description="Writes the user's turns too, carries marks of turns, or answers the critic instead of the user."),
    ] = True
    truncated: Annotated[
        Switch, Field(description="Ends in mid-sentence, in an open code block or at an empty list entry, without being cut.")
    ] = True
    loops: Annotated[Switch, Field(description="Says the same sentences over and over in a row (`max_loops`).")] = True
    max_loops: Annotated[int, Field(ge=1, description="How often the same sentences may stand in a row.")] = 3
    emoji_runs: Annotated[Switch, Field(description="A run of emoji nobody asked for (`max_emoji_run`).")] = True
    max_emoji_run: Annotated[int, Field(ge=1, description="Most emoji in a row.")] = 5
    wrong_language: Annotated[
        Switch, Field(description="The reply is in another language than the prompt, where both are long enough to be sure.")
    ] = True
    min_language_probability: Annotated[
        float, Field(gt=0.5, le=1.0, description="How sure the detector must be of either language.")
    ] = 0.95
    canned_refusal: Annotated[
        Switch, Field(description="A stock phrase of refusal, with neither a reason nor another way.")
    ] = "flag"
    pii: Annotated[
        Switch,
        Field(
            description="An e-mail address, phone number, IBAN, card number, IP address or national number that the prompt "
            "does not hold."
        ),
    ] = "flag"
    made_worse: Annotated[
        Switch, Field(description="The labels prefer the draft to its revision, surely or where critiques had found it good.")
    ] = "flag"
    made_worse_p: Annotated[
        float, Field(gt=0.5, le=1.0, description="From this probability on, that the draft is better, the labels are sure.")
    ] = 0.8
    boilerplate: Annotated[
        Switch,
        Field(description="An opening or a sentence that replies of this data set share and drafts and prompts do not."),
    ] = False
    boilerplate_share: Annotated[
        float, Field(gt=0.0, lt=1.0, description="Share of the replies from which on an opening or a sentence is boilerplate.")
    ] = 0.02
    boilerplate_surplus: Annotated[
        float, Field(ge=1.0, description="How many times as common it has to be in replies as in drafts and prompts.")
    ] = 3.0
    near_duplicate: Annotated[Switch, Field(description="Prompt and reply nearly those of an earlier row.")] = False
    max_jaccard: Annotated[
        float, Field(ge=0.7, le=1.0, description="From this likeness on (Jaccard, word 3-grams), of prompt and of reply alike.")
    ] = 0.85
    leakage: Annotated[Switch, Field(description="A passage of an evaluation set in prompt or reply (`evaluation_sets`).")] = (
        True
    )
    evaluation_sets: Annotated[
        tuple[str, ...],
        Field(
            description="Files (JSONL, CSV, Parquet …) of which nothing may be trained on; `held-out`: the run's own held-out "
            "prompts; `lab`: the lab's evaluation prompts."
        ),
    ] = ()

    def action(self, rule: str) -> Action:
        """What a rule does, by its switch alone."""
        switch = cast("Switch", getattr(self, rule))
        if isinstance(switch, bool):
            return "drop" if switch else "off"
        return switch
