"""Inputs of a case: random lengths, page tables and caches, poisoned where nobody may look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tilewright.kernels._kv.formats import PAGE
from tilewright.kernels._kv.pages import (
    Table,
    draw_cache,
    draw_lengths,
    draw_starts,
    open_keys,
    table,
)
from tilewright.kernels._kv.reference import Stored

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec

_PARTS = tuple(f for f in Stored.__dataclass_fields__ if f != "codes")


def make_inputs(
    spec: KernelSpec, case: Case, generator: torch.Generator
) -> dict[str, torch.Tensor | None]:
    """Every logical input by name, None where the case has none."""
    s = case.sizes
    longest = s["MP"] * PAGE if s["P"] else 0
    lengths = draw_lengths(s["NS"], min(longest, s["P"] * PAGE), generator)
    where = table(lengths, s["P"], s["MP"], generator)
    return with_table(spec, case, where, draw_starts(s["NS"], s["TQ"], generator), generator)


def with_table(
    spec: KernelSpec, case: Case, where: Table, cu_q: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor | None]:
    """The inputs of a case whose lengths, pages and queries are given."""
    s = case.sizes
    compute = spec.precision(case.precision).dtypes["q"].torch()
    found: dict[str, torch.Tensor | None] = {
        "q": torch.randn((s["TQ"], s["HQ"], s["DK"]), generator=generator).to(compute),
        "cu_q": cu_q,
        "seq_lens": where.seq_lens,
        "block_table": where.block_table,
        "k_open": open_keys(where, s["HKV"], s["DK"], compute, generator),
        # The slopes of Press et al. (ALiBi, ICLR 2022): a geometric sequence from 2**(-8/HQ).
        "alibi": torch.exp2(-8.0 / max(s["HQ"], 1) * torch.arange(1, s["HQ"] + 1)).float(),
    }
    for prefix, d in (("k_", s["DK"]), ("v_", s["DV"])):
        stored = draw_cache(
            (s["P"], s["HKV"], d),
            where,
            compute,
            case.flags["kv"],
            case.flags["residual"],
            prefix == "k_",
            (s["R"], s["F"]),
            generator,
        )
        found[f"{prefix}cache"] = stored.codes
        found |= {prefix + part: getattr(stored, part) for part in _PARTS}
    return {t.name: found[t.name] if t.present(case) else None for t in spec.inputs}
