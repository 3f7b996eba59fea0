"""Host side of the AscendC kv_write: arrays checked, a kernel launched on the twin. Empty cases never reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...twin import runner
from ...twin.runner import Buffer, TwinResult
from .._kv.arrays import Dense, as_array, page_strides, span, token_strides
from .._kv.checks import check_open_pages, check_slots
from .._kv.planning import PAGE
from .planning import Launch, Side, plan

# A quantising kernel's arguments behind k, v and slots, but for the caches.
_INPUTS = ("k_channel_scale", "v_channel_scale", "open_row")
_WRITTEN = (
    "k_token_scale",
    "v_token_scale",
    "v_token_zero",
    "k_page_scale",
    "k_page_zero",
    "k_open",
)


def launch(
    tensors: Mapping[str, Any],
    *,
    kv: str,
    nz: bool,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Write k [T,HKV,DK] and v [T,HKV,DV] into the caches by slots [T]; `kernels/kv_write/spec.py` has the rest.

    `precision` is that of k and v. Raises ValueError for slots and open rows that break the spec's
    rules, and arrays that do not fit together.
    """
    arrays = {name: as_array(tensors[name]) for name in ("k", "v", "slots", "k_cache", "v_cache")}
    slots = arrays["slots"]
    tokens, heads, _ = arrays["k"].shape
    pages = arrays["k_cache"].shape[0]
    if slots.shape != (tokens,) or arrays["v"].shape[:2] != (tokens, heads):
        raise ValueError(
            f"k {arrays['k'].shape}, v {arrays['v'].shape} and slots {slots.shape} do not fit together"
        )
    check_slots(slots, pages, unique=True)
    if kv == "kv4":
        check_open_pages(slots, as_array(tensors["open_row"]), as_array(tensors["k_open"]).shape[0])
    sides = (_side("k", arrays, kv, nz), _side("v", arrays, kv, nz))
    if kv == "c8d":
        for side, name in zip(sides, ("k_token_scale", "v_token_scale"), strict=True):
            if side.dim == 0:
                _scale_of_nothing(as_array(tensors[name]), slots)
    if heads == 0 or not (slots >= 0).any() or not any(side.dim for side in sides):
        return runner.empty_result(soc)
    ready = Launch(tokens, heads, kv, nz, arrays["k"].itemsize, sides)
    dense = Dense(tensors)

    def argument(name: str) -> Buffer:
        if name in ("k", "v", "k_cache", "v_cache"):
            return span(name, arrays[name])
        return dense.buffer(name, written=name in _WRITTEN)

    result = _run(argument, ready, precision, config, soc, lib_path, **options)
    dense.write_back()
    return result


def _scale_of_nothing(scales: np.ndarray, slots: np.ndarray) -> None:
    """c8d of heads without channels: 1, as of heads that are zero."""
    there = slots[slots >= 0]
    scales[there // PAGE, there % PAGE] = 1


def _side(prefix: str, arrays: Mapping[str, np.ndarray], kv: str, nz: bool) -> Side:
    x, cache = arrays[prefix], arrays[f"{prefix}_cache"]
    dim = x.shape[2]
    lanes = dim // 4 if kv == "kv4" else dim
    c0 = 32 // cache.itemsize
    nz_shape, nd_shape = (x.shape[1], -(-lanes // c0), PAGE, c0), (PAGE, x.shape[1], lanes)
    expected = nz_shape if nz else nd_shape
    if cache.shape[1:] != expected:
        raise ValueError(f"{prefix}_cache has pages of {cache.shape[1:]}, they must be {expected}")
    return Side(dim, *token_strides(prefix, x), *page_strides(f"{prefix}_cache", cache))


def count(
    ready: Launch,
    buffers: Callable[[str], Buffer],
    precision: str,
    *,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    """Issue the instructions of a launch without its data; `buffers` has slots and open_row."""
    return _run(buffers, ready, precision, config, soc, lib_path, skip_data=True, **options)


def _run(
    argument: Callable[[str], Buffer],
    ready: Launch,
    precision: str,
    config: Mapping[str, int],
    soc: str,
    lib_path: Any,
    **options: Any,
) -> TwinResult:
    names: tuple[str, ...] = ("k", "v", "slots", "k_cache", "v_cache")
    if ready.kv != "float":
        names = ("k", "v", "slots", *_INPUTS, "k_cache", "v_cache", *_WRITTEN)
    chosen = plan(ready, precision, config["tile_elements"], soc, config.get("cores", 0))
    arguments = [argument(name) for name in names]
    return runner.run(
        lib_path, chosen.kernel, chosen.block_dim, arguments, chosen.tiling, soc, **options
    )
