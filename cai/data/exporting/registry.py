"""All formats, by name."""

from __future__ import annotations

from cai.data.exporting.alignment_handbook import ALIGNMENT_HANDBOOK
from cai.data.exporting.axolotl import AXOLOTL
from cai.data.exporting.formats import ExportFormat
from cai.data.exporting.hh_rlhf import HH_RLHF
from cai.data.exporting.inverse_cai import INVERSE_CAI
from cai.data.exporting.llama_factory import LLAMA_FACTORY
from cai.data.exporting.plain import DATASETS, JSONL, PARQUET
from cai.data.exporting.trl import TRL, TRL_STANDARD
from cai.errors import ConfigError
from constitution.nearest import nearest

FORMATS: dict[str, ExportFormat] = {
    each.name: each
    for each in (
        TRL,
        TRL_STANDARD,
        AXOLOTL,
        LLAMA_FACTORY,
        ALIGNMENT_HANDBOOK,
        INVERSE_CAI,
        HH_RLHF,
        JSONL,
        PARQUET,
        DATASETS,
    )
}


def format_named(name: str) -> ExportFormat:
    """The format of that name.

    Raises:
        ConfigError: If there is none, with the nearest name.
    """
    if name in FORMATS:
        return FORMATS[name]
    near = nearest(name.lower(), FORMATS)
    told = f"did you mean `{near}`?" if near else f"there are {', '.join(FORMATS)}"
    raise ConfigError(f"--to: there is no format `{name}`", told)
