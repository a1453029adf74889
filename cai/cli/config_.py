"""`cai config`: which settings there are, and where each value of a run comes from."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(help="Settings: what there is, and where each value comes from.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="The run; without it, environment and --set alone.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set dpo.beta=0.2. May be repeated."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@app.command("show")
def show(config: ConfigFile = None, settings: Settings = None, *, json: AsJson = False) -> None:
    """Every value of a run with its origin: default < file < environment < flag."""
    from cai.config import read_config

    read = read_config(config, settings or [])
    rows = [
        (".".join(path), value, read.origins.get(path, "default"))
        for path, value in _leaves(read.config.model_dump(mode="json"), ())
    ]
    if json:
        values = {name: {"value": value, "origin": origin} for name, value, origin in rows}
        typer.echo(json_.dumps(values, indent=1, ensure_ascii=False))
        return
    texts = [(name, _shown(value), origin) for name, value, origin in rows]
    name_width = max(len(name) for name, _, _ in texts)
    value_width = min(32, max(len(value) for _, value, _ in texts))
    for name, value, origin in texts:
        typer.echo(f"{name:<{name_width}}  {value:<{value_width}}  {_shown_text(origin)}")


@app.command("keys")
def keys(
    prefix: Annotated[str, typer.Argument(help="Only settings that begin so, e.g. `dpo`.")] = "", *, json: AsJson = False
) -> None:
    """Every setting there is, with its default and its meaning."""
    from cai.config import RunConfig

    found = [row for row in _fields(RunConfig, "") if row["key"].startswith(prefix)]
    if json:
        typer.echo(json_.dumps(found, indent=1, ensure_ascii=False))
        return
    for row in found:
        typer.echo(f"{row['key']}: {_shown(row['default']) if not row['required'] else '(to be given)'}")
        typer.echo(f"    {row['description']}")


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict) and value:
        for key, below in cast("dict[str, object]", value).items():
            yield from _leaves(below, (*path, key))
    else:
        yield path, value


def _fields(model: type[BaseModel], prefix: str, defaults: BaseModel | None = None) -> Iterator[dict[str, Any]]:
    """Every setting below a section; `defaults` is the section as it stands in its parent, where that differs."""
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python

    for name, field in model.model_fields.items():
        required = field.is_required() and defaults is None
        default = getattr(defaults, name) if defaults else None if required else field.get_default(call_default_factory=True)
        section = _section(field.annotation)
        if not isinstance(default, BaseModel):
            description = field.description or (section.__doc__ if section else None) or ""
            yield {
                "key": prefix + name,
                "required": required,
                "default": to_jsonable_python(default),
                "description": description,
            }
        if section is not None:
            yield from _fields(section, f"{prefix}{name}.", default if isinstance(default, BaseModel) else None)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The settings model in an annotation such as `DPOSettings` or `DPOSettings | None`."""
    from pydantic import BaseModel

    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _shown(value: object) -> str:
    return _shown_text(json_.dumps(value, ensure_ascii=False) if not isinstance(value, str) or not value else value)


def _shown_text(text: str) -> str:
    from cai.cli.terminal import visible

    return visible(text).replace("\n", "\\n")
