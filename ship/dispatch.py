"""`dispatch.json`: which config a call gets on each target, which binary, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tilewright.tables import Entry, load
from tilewright.targets import Target

if TYPE_CHECKING:
    from tilewright.registry import Family
    from tilewright.ship.gpu import GpuPart

SCHEMA = "tilewright/dispatch/1"
DEFAULT_REASON = (
    "the family's default: nothing is tuned for the call's bucket, precision and layout"
)
HOW = (
    "An entry is for first sizes above `over` up to the first number of `bucket` (without `over`: a bucket of powers "
    "of two, from half of it) and for the other sizes of `bucket`. Among the entries of the CPU level in use, those of "
    "the same precision (then those of the same operands) and layouts are tried by their distance in octaves from the "
    "call, 0 inside; of equals the earlier. One that the kernel refuses gives way to the next, the last to "
    "what the family's tiling says at the nearest size of its benchmarks, where it has one, and that to the default. "
    "On GPUs the launcher takes the first entry that fits a call: those with `when` are the same choice as ranges, for "
    "the other sizes that are tuned; every other call gets the default."
)


def choices(family: Family, target: Target) -> dict[str, Any]:
    """The default config and the tuned ones of a family on a target, each with its reason."""
    entries = [
        {
            **entry.as_dict(),
            "level": entry.level or None,
            "reason": _reason(entry),
        }
        for entry in load(family, target, every_level=True).entries
    ]
    return {
        "default": {"config": dict(family.spec.default_config(target)), "reason": DEFAULT_REASON},
        "buckets": entries,
    }


def _reason(entry: Entry) -> str:
    """Why this config: its bucket, and for a swept one what it loses there."""
    text = f"tuned for bucket {list(entry.bucket)} on {entry.device}"
    swept = entry.provenance.get("sweep")
    if not swept:
        return text
    found = swept["regret"]
    if found.get("mean") is None:
        return f"{text}; nothing is known of its regret"
    return (
        f"{text}, sizes {entry.span}; regret against a config for each size alone: mean {found['mean']:.1%}, "
        f"worst {found['worst']:.1%} at {found['worst_at']} ({entry.provenance.get('evidence')})"
    )


def document(
    families: Sequence[Family], targets: Sequence[Target], gpu: GpuPart, ascendc: Sequence[str]
) -> dict[str, Any]:
    """The whole of dispatch.json; `entries` are the launcher's rows, in the order it tries them."""
    table: dict[str, Any] = {}
    for target in targets:
        per_family: dict[str, Any] = {}
        for family in families:
            row = choices(family, target)
            if target.is_gpu:
                row["entries"] = [
                    e["id"]
                    for e in gpu.entries
                    if (e["family"], e["target"]) == (family.name, target.name)
                ]
                row["form"] = "binaries in binaries/, started by the launcher in the library"
            elif target.kind == "ascend":
                given = family.name in ascendc
                row["form"] = (
                    "AscendC source in ascendc/, built with CANN where it runs; not run on hardware"
                    if given
                    else "none: the family has no AscendC source"
                )
            else:
                row["form"] = "compiled into the library"
            per_family[family.name] = row
        table[target.name] = per_family
    return {
        "schema": SCHEMA,
        "how": HOW,
        "targets": table,
        "entries": gpu.entries,
        "refused": gpu.refused,
        "toolchain": gpu.toolchain,
        "evidence": "compiled",
    }
