"""Which file is what: records out of any format that can be imported, and into any that can be exported."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tilewright.autotune.store import aiter, kernel_tuner, measurements, t4
from tilewright.autotune.store.record import Record
from tilewright.document import write_text
from tilewright.errors import UsageError, unknown

ACCEPTED = (
    "T4 results 1.0.0, a Kernel Tuner cache, KTT results, an aiter table (.csv) or exported records (.jsonl), "
    "any of them gzip'd"
)
MOST_BYTES = 1 << 30


def _jsonl(records: Sequence[Record]) -> str:
    return "".join(map(measurements.line, records))


EXPORTS: Mapping[str, Callable[[Sequence[Record]], str]] = MappingProxyType(
    {
        "t4": lambda records: json.dumps(t4.export(records), indent=1) + "\n",
        "kernel-tuner": lambda records: kernel_tuner.text(kernel_tuner.export(records)),
        "jsonl": _jsonl,
    }
)


def write(path: Path, form: str, records: Sequence[Record]) -> None:
    """Export records to a file, replaced in one step; raises UsageError for what the format cannot hold."""
    if form not in EXPORTS:
        raise unknown("export format", form, list(EXPORTS))
    if not records:
        raise UsageError(
            "there are no finished configs to export; `tilewright store list` shows what there is"
        )
    write_text(path, EXPORTS[form](records))


def load(path: Path, **known: str) -> list[Record]:
    """The records of a file, told apart by its content; raises UsageError naming what would be accepted.

    `known` fills fields of the study (family, device, target, shape, precision) that the file leaves empty.
    """
    content = _content(path)
    first = content.lstrip()[:1]
    if first == "{" and (whole := _json(content)) is not None:
        found = _document(path.name, whole)
    elif first == "{":
        found = _lines(path.name, content)
    elif aiter.is_table(content.partition("\n")[0]):
        found = aiter.parse(content, path.name)
    else:
        raise UsageError(f"{path} is none of: {ACCEPTED}")
    return [_filled(r, known) for r in found]


def _content(path: Path) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as file:
                raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise UsageError(f"{path} has more than {MOST_BYTES >> 20} MiB; give it in parts")
        return raw.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None


def _json(content: str) -> dict[str, Any] | None:
    """The one JSON object of a text; None if it holds something else, such as one object a line."""
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "schema" not in found else None


def _document(name: str, content: Mapping[str, Any]) -> list[Record]:
    if "schema_version" in content and isinstance(content.get("results"), list):
        return t4.parse(content, name)
    if isinstance(content.get("cache"), dict) or isinstance(content.get("Results"), list):
        return kernel_tuner.parse(content, name)
    raise UsageError(f"{name} is none of: {ACCEPTED}")


def _lines(name: str, content: str) -> list[Record]:
    found: list[Record] = []
    for number, text in enumerate(content.strip("\n").split("\n"), start=1):
        try:
            found.append(measurements.parse_line(text))
        except UsageError as error:
            raise UsageError(f"line {number} of {name}: {error}") from None
    return found


def _filled(record: Record, known: Mapping[str, str]) -> Record:
    fields: dict[str, Any] = {k: v for k, v in known.items() if v and not getattr(record.key, k)}
    return replace(record, key=replace(record.key, **fields)) if fields else record
