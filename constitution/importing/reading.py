"""One file of another format → a constitution and what it could not carry over."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from constitution.errors import ConstitutionError, PrincipleFileError
from constitution.importing.exporting import FORMAT
from constitution.importing.findings import Imported, Loss
from constitution.importing.formats import BY_NAME, Format, find_format
from constitution.importing.gathering import Gathering
from constitution.importing.layouts import find_layout
from constitution.importing.sources import Kind, Source, read_source
from constitution.loading import MAX_FILE_BYTES, load_constitution
from constitution.schema import Constitution
from constitution.writing import principle_file

LAYOUT = "layout"
FILE = "file"
_SHOWN = 20


def import_file(
    path: Path, format_name: str | None = None, taken: dict[str, int] | None = None
) -> tuple[Format, Source, Imported]:
    """Read one file.

    Args:
        path: The file.
        format_name: One of the names of `FORMATS`; by default it is found by the file's content.
        taken: Ids in use already (see `constitution.ids.unused`); those of this file are added.

    Returns:
        Its format, the file as it was read, and what it gave.

    Raises:
        ConstitutionError: If the file cannot be read, fits no format, or gives no principle at all.
    """
    source = read_source(path)
    chosen = BY_NAME[format_name] if format_name else find_format(source)
    if format_name and not chosen.recognise(source):
        raise _refused(source, f"not {chosen.title}", f"they look like {chosen.shape}")
    gathering = Gathering(source, {} if taken is None else taken)
    chosen.read(gathering)
    if not gathering.principles:
        raise _nothing(source, chosen, gathering.losses)
    original = source.data if gathering.original is None else gathering.original
    about = {FORMAT: chosen.name, FILE: path.name, **gathering.about}
    layout = (
        find_layout(source.text, original, lines=source.kind is Kind.LINES) if source.kind in {Kind.JSON, Kind.LINES} else None
    )
    if layout is not None:
        about[LAYOUT] = str(layout)
    origin = f"Imported from {path.name}: {chosen.title}. Licence: {chosen.licence}."
    constitution = Constitution(
        name=(gathering.name or path.stem).strip() or "imported",
        description=f"{gathering.description}\n\n{origin}".strip(),
        source=about,
        principles=tuple(gathering.principles),
    )
    losses = sorted(gathering.losses, key=lambda loss: (loss.line, loss.column))
    return chosen, source, Imported(constitution, gathering.entries, losses, gathering.remarks, original, gathering.returns)


def principle_file_of(imported: Imported, path: Path) -> str:
    """The text of the principle file at `path`, read once more to be sure that it says the same.

    Raises:
        ConstitutionError: If it would be too large, or does not say the same.
    """
    large = len(imported.constitution.model_dump_json(exclude_defaults=True)) > MAX_FILE_BYTES
    text = "" if large else principle_file(imported.constitution)
    if large or len(text.encode()) > MAX_FILE_BYTES:
        problem = f"it would have more than the {MAX_FILE_BYTES} bytes a principle file may have"
        raise ConstitutionError([PrincipleFileError(str(path), 0, 0, problem, "split the source, and import the parts")])
    with TemporaryDirectory() as folder:
        again = Path(folder) / "imported.yaml"
        again.write_text(text, encoding="utf-8", newline="")
        if load_constitution([again]) != imported.constitution:
            problem = "its texts cannot be written as YAML without a change"
            raise ConstitutionError([PrincipleFileError(str(path), 0, 0, problem, "are there control characters in them?")])
    return text


def _nothing(source: Source, chosen: Format, losses: list[Loss]) -> ConstitutionError:
    problem = f"read as {chosen.title}, it gives no principle"
    errors = [PrincipleFileError(str(source.path), 0, 0, problem, "another format? name it with --from")]
    for loss in sorted(losses, key=lambda loss: (loss.line, loss.column))[:_SHOWN]:
        what = f"{loss.where}: {loss.what}" if loss.where else loss.what
        errors.append(PrincipleFileError(loss.file, loss.line, loss.column, what))
    if len(losses) > _SHOWN:
        errors.append(PrincipleFileError(str(source.path), 0, 0, f"and {len(losses) - _SHOWN} more like these"))
    return ConstitutionError(errors)


def _refused(source: Source, problem: str, hint: str) -> ConstitutionError:
    return ConstitutionError([PrincipleFileError(str(source.path), 0, 0, problem, hint)])
