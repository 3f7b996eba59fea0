"""mask_gemm in plain torch and fp64: both products whole, and each row from the one its selection names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tilewright.kernels.mask_gemm import layout
from tilewright.kernels.mask_gemm import selection as packed
from tilewright.kernels.mask_gemm.spec import (
    BY_CHANCE,
    FIRST,
    NOTHING,
    WHOLE,
    layer_of,
    rows_of_first,
    scene_of,
)

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec


def mask_gemm(
    a8: Tensor,
    row_scale: Tensor,
    b8: Tensor,
    col_scale: Tensor,
    selection: Tensor,
    owner: Tensor,
    a: Tensor | None = None,
    b16: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    case: Case,
) -> tuple[Tensor, Tensor]:
    """c [M,N] in fp64 and counts [3] int32: rows in bf16, rows in int8, rows selected but kept in int8."""
    selected = packed.rows_in_bf16(selection, layer_of(case), owner)
    c = a8.double() @ b8.double().t() * row_scale.double()[:, None] * col_scale.double()
    chosen = int(selected.sum())
    if a is not None and b16 is not None:
        c[selected] = a.double()[selected] @ b16.double().t()
        counts = (chosen, len(selected) - chosen, 0)
    else:
        counts = (0, len(selected), chosen)
    if bias is not None:
        c = c + bias.double()
    return c, torch.tensor(counts, dtype=torch.int32)


def panels_of_4(b: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """int8 [N,K] to [ceil(N/16), ceil(K/4), 16, 4], zero padded."""
    return _panels(b, 4)


def panels_of_2(b: Tensor, sizes: Mapping[str, float]) -> Tensor:
    """bf16 [N,K] to [ceil(N/16), ceil(K/2), 16, 2], zero padded."""
    return _panels(b, 2)


def _panels(b: Tensor, lane: int) -> Tensor:
    """panel16 of gemm, from [N,K]; a bundle carries this source, so it stands by itself."""
    n, k = b.shape
    panels, groups = -(-n // 16), -(-k // lane)
    room = torch.zeros((panels * 16, groups * lane), dtype=b.dtype)
    room[:n, :k] = b
    return room.view(panels, 16, groups, lane).permute(0, 2, 1, 3).contiguous()


def make_inputs(spec: KernelSpec, case: Case, generator: torch.Generator) -> dict[str, Tensor]:
    """Operands of both paths that have nothing in common, so that a row of the wrong path shows.

    The layer of a case says what is selected, by layer % 4: 0 the first eighth of the rows, those of one request;
    1 the layer; 2 nothing; 3 groups and requests by chance. Where a selected row would be an error, nothing.
    """
    m, n, k = (case.sizes[name] for name in ("M", "N", "K"))

    def whole(*shape: int) -> Tensor:
        return torch.randint(-128, 128, shape, generator=generator).to(torch.int8)

    def scale(size: int) -> Tensor:
        return 0.01 * torch.exp(0.5 * torch.randn(size, generator=generator))

    words, owner = draw_selection(case, generator)
    found = {"a8": whole(m, k), "row_scale": scale(m), "b8": whole(n, k), "col_scale": scale(n)}
    found |= {"selection": words, "owner": owner}
    if case.flags["resident"] == "yes":
        found["a"] = torch.randn((m, k), generator=generator).to(torch.bfloat16)
        found["b16"] = torch.randn((n, k), generator=generator).to(torch.bfloat16)
    if case.flags["bias"] == "yes":
        found["bias"] = torch.randn(n, generator=generator)
    return found


def draw_selection(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Words [W] int64 and owner [M] int32 as `make_inputs` says; bits that no row asks for are drawn."""
    m, layers, layer = case.sizes["M"], layout.layer_bits(case.sizes["W"]), layer_of(case)

    def some(count: int) -> set[int]:
        return set(torch.randint(2, (count,), generator=generator).nonzero().flatten().tolist())

    scene = scene_of(case)
    groups, requests = some(layout.BITS), some(layout.REQUESTS)
    owner = torch.randint(-1, layout.REQUESTS, (m,), generator=generator, dtype=torch.int32)
    if scene == FIRST:
        owner[:] = layout.NO_REQUEST
        owner[: rows_of_first(m)] = 7
        requests.add(7)
    if scene == NOTHING:
        requests -= set(owner.tolist())
    if scene != BY_CHANCE:
        groups -= set(range(-(-m // layout.GROUP_ROWS)))
    selected = some(layers) - {layer} | ({layer} if scene == WHOLE else set())
    return packed.pack(layers, sorted(selected), sorted(groups), sorted(requests)), owner
