"""Rows of whatever people have: text files, Parquet, `datasets` folders, hub data sets.

Knows files and rows; knows nothing of prompts. Streams. A row that cannot be read is a `BadRow`; a source that cannot is a
`DataError` at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cai.data.text_files import BadRow, RawRow, csv_rows, jsonl_rows, txt_rows
from cai.errors import DataError

Container: TypeAlias = Literal["jsonl", "csv", "parquet", "txt", "datasets", "hub"]

SUFFIXES: dict[str, Container] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "txt",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def container_of(path: str, *, wanted: Container | None = None) -> Container:
    """What kind of source `path` is.

    Raises:
        DataError: If there is no such file, or its name does not tell.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return _folder_container(place, wanted)
    if wanted == "hub" or (not place.exists() and _is_hub_id(place, path)):
        return "hub"
    if not place.exists():
        raise _missing(place)
    if wanted is not None:
        return wanted
    suffix = Path(place.stem).suffix if place.suffix == ".gz" else place.suffix
    if suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: the name does not tell the format.", f"Set `format`, or name it {', '.join(SUFFIXES)}.")
    return SUFFIXES[suffix.lower()]


def raw_rows(path: str, container: Container, *, split: str | None = None) -> Iterator[RawRow | BadRow]:
    """The rows of `path`, in order.

    Raises:
        DataError: If the file as a whole cannot be read.
    """
    if container == "hub":
        return _hub_rows(path, split)
    place = Path(path).expanduser()
    if container == "datasets":
        return _folder_rows(place, split)
    readers = {"jsonl": jsonl_rows, "csv": csv_rows, "parquet": _parquet_rows, "txt": txt_rows}
    return readers[container](place)


def nearest(name: str, names: Sequence[str]) -> str:
    """` Did you mean 'x'?`, or nothing when nothing is near."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


# ---- tables


def _parquet_rows(path: Path) -> Iterator[RawRow | BadRow]:
    # Imported by name: these libraries are slow to load, and without types.
    pa: Any = import_module("pyarrow")
    pq: Any = import_module("pyarrow.parquet")
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in _batch_values(batch):
                    number += 1
                    place = f"{path.name}:{number}"
                    bad = isinstance(values, UnicodeDecodeError)
                    yield BadRow(place, "not_utf8", f"a text is not UTF-8: {values.reason}") if bad else RawRow(place, values)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).", "Check the file, or set `format`.") from error


def _batch_values(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """The rows of a record batch; the error of a row whose text is not UTF-8, which Parquet files may hold all the same."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for row in range(batch.num_rows):
            try:
                (values,) = batch.slice(row, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield error
            else:
                yield values


def _folder_rows(path: Path, split: str | None) -> Iterator[RawRow | BadRow]:
    datasets: Any = import_module("datasets")
    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DataError(
            f"{path}: not a readable `datasets` folder ({error}).", "Save it with `Dataset.save_to_disk`."
        ) from error
    if isinstance(data, datasets.DatasetDict):
        names = [str(name) for name in data]
        data = data[_chosen_split(str(path), split, names)]
    yield from _dataset_rows(path.name, data)


def _hub_rows(path: str, split: str | None) -> Iterator[RawRow | BadRow]:
    datasets: Any = import_module("datasets")
    name, _, revision = path.partition("@")
    try:
        chosen = split or _chosen_split(name, None, datasets.get_dataset_split_names(name, revision=revision or None))
        data = datasets.load_dataset(name, split=chosen, revision=revision or None)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{path}: no such file here, and the hub does not give it: {_one_line(error)}",
            "Check the name; offline (HF_HUB_OFFLINE=1, no network), download it elsewhere and give the file or folder.",
        ) from error
    yield from _dataset_rows(name, data)


def _dataset_rows(name: str, data: Any) -> Iterator[RawRow | BadRow]:
    for number, values in enumerate(data.with_format(None), start=1):
        yield RawRow(f"{name}:{number}", values)


def _chosen_split(path: str, split: str | None, names: list[str]) -> str:
    if split is None and len(names) == 1:
        return names[0]
    wanted = split or "train"
    if wanted not in names:
        raise DataError(f"{path}: no split {wanted!r}.{nearest(wanted, names)}", f"Set `split` to one of: {', '.join(names)}.")
    return wanted


# ---- finding the source


def _is_hub_id(place: Path, path: str) -> bool:
    return _HUB_ID.fullmatch(path) is not None and place.suffix.lower() not in {*SUFFIXES, ".gz"} and not place.parent.is_dir()


def _folder_container(place: Path, wanted: Container | None) -> Container:
    if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
        return "datasets"
    if wanted not in {None, "datasets"}:
        raise DataError(f"{place}: a folder, not a file.", "Name the file in it.")
    files = sorted(p.name for p in place.iterdir() if p.suffix in {*SUFFIXES, ".gz"})
    hint = (
        f"Name one of its files: {', '.join(files[:5])}." if files else "Save one with `Dataset.save_to_disk`, or name a file."
    )
    raise DataError(f"{place}: not a `datasets` folder (no state.json, no dataset_dict.json).", hint)


def _missing(place: Path) -> DataError:
    if not place.parent.is_dir():
        return DataError(f"{place}: no such file; the folder {place.parent} is not there either.", "Check the path.")
    names = [p.name for p in place.parent.iterdir()]
    return DataError(f"{place}: no such file.{nearest(place.name, names)}", "Check the path.")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
