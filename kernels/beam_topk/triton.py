"""beam_topk in Triton: a program a row, which keeps its best as 64-bit keys; a beam step merges them in a second kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, KernelArg, Requirement, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._triton.kv import FLAT
from tilewright.kernels.beam_topk.spec import MOST, WINDOW
from tilewright.kernels.beam_topk.triton_kernel import kernel, merge

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
_MERGE_OPTIONS = {"num_warps": 1, "num_stages": 1}
_FREE = ("temperature", "eos", "batch_invariant")
_OPTIONAL = {
    "row_max": ("stride_max",),
    "scores": ("stride_score_g", "stride_score_w"),
    "finished": ("stride_end_g", "stride_end_w"),
    "ids": ("stride_id_row", "stride_id_col"),
    "probs": ("stride_prob_row", "stride_prob_col"),
}


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `ids` and `probs`, or with `scores` `next_beam`, `next_id` and `next_score`; any strides.

    Raises Refused for more results than there are logits, and for a block that cannot hold them.
    """
    import torch

    logits = _tensor(tensors, "logits")
    rows, vocabulary = logits.shape
    step = tensors.get("scores") is not None
    results = int(_tensor(tensors, "next_id" if step else "ids").shape[1])
    beams = int(_tensor(tensors, "scores").shape[1]) if step else 1
    if rows and not 0 <= results <= min(MOST, vocabulary * beams):
        raise Refused(
            f"triton beam_topk: {results} results; accepted: up to {min(MOST, vocabulary * beams)}"
        )
    codes = logits.dtype == torch.int8
    constexprs = _constexprs(flags, config, codes, step, results)
    if not rows or not results:
        return
    given = {name: tensors.get(name) for name in _OPTIONAL}
    partial = None
    if step:
        size = rows * 2 * constexprs["KEEP"]
        partial = torch.empty(size, dtype=torch.float32, device=logits.device)
    strides = [
        stride for name, names in _OPTIONAL.items() for stride in _strides(given[name], len(names))
    ]
    interpreter.launch(
        kernel,
        (rows, 1, 1),
        (
            *(logits, *given.values(), partial, vocabulary, results, beams),
            *(int(float(flags.get("eos", "0"))), float(flags.get("temperature", "1"))),
            *(*logits.stride(), *strides),
        ),
        constexprs,
        {name: config[name] for name in ("num_warps", "num_stages")} | dict(FLAT),
        interpret=interpret,
    )
    if not step:
        return
    outputs = [_tensor(tensors, name) for name in ("next_beam", "next_id", "next_score")]
    interpreter.launch(
        merge,
        (rows // beams, 1, 1),
        (
            *(partial, *outputs, vocabulary, results, beams),
            *(stride for output in outputs for stride in output.stride()),
        ),
        {"KEEP": constexprs["KEEP"]},
        _MERGE_OPTIONS,
        interpret=interpret,
    )


def aot(
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
) -> AotSource:
    """What to compile for a target: up to 64 results, logits and results of a row contiguous.

    `aligned` fixes addresses and rows of logits to multiples of 16 bytes.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton beam_topk", precision, list(PRECISIONS))
    step = flags.get("step") == "yes"
    constexprs = _constexprs(flags, config, precision == "int8", step, MOST)
    on_ascend = target.startswith("ascend:")
    common: dict[str, Any] = {
        "family": "beam_topk",
        "precision": precision,
        "flags": dict(flags),
        "config": dict(config),
        "target": target,
        "free": _FREE,
    }
    args = _arguments(precision, step, aligned)
    names = {a.name for a in args}
    absent = [name for name in (*_OPTIONAL, "partial") if name not in names]
    unused = [name for group in _OPTIONAL.values() for name in group if name not in names]
    unused += [] if step else ["W", "eos"]
    contiguous = ["logits:1", *(() if step else ("ids:1", "probs:1"))]
    fixed = {"stride_col": 1, **dict.fromkeys(unused, 0)}
    if not step:
        fixed |= {"stride_id_col": 1, "stride_prob_col": 1}
    then = (_merge_source(constexprs["KEEP"], common, on_ascend),) if step else ()
    return AotSource(
        fn=kernel,
        args=args,
        constexprs=constexprs | dict.fromkeys(absent) | fixed,
        options={}
        if on_ascend
        else {n: config[n] for n in ("num_warps", "num_stages")} | dict(FLAT),
        grid=Grid("G * W" if step else "B"),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
        then=then,
        workspace=Grid(f"G * W * {2 * constexprs['KEEP'] * 4}") if step else None,
        **common,
    )


def _arguments(precision: str, step: bool, aligned: bool) -> tuple[KernelArg, ...]:
    address = 16 if aligned else 1
    row = 16 // {"fp32": 4, "int8": 1}.get(precision, 2) if aligned else 1
    found = [argument("logits", f"*{precision}", "data:logits", address)]
    strides = [argument("stride_row", "int64", "stride:logits:0", row)]
    if precision == "int8":
        found.append(argument("row_max", "*fp32", "data:row_max", 4))
        strides.append(argument("stride_max", "int64", "stride:row_max:0"))
    if step:
        found.append(argument("scores", "*fp32", "data:scores", 4))
        found.append(argument("finished", "*int8", "data:finished"))
        found.append(argument("partial", "*fp32", "workspace", 16))
        for short, name in (("score", "scores"), ("end", "finished")):
            for i, axis in enumerate("gw"):
                strides.append(argument(f"stride_{short}_{axis}", "int64", f"stride:{name}:{i}"))
    else:
        found.append(argument("ids", "*int32", "data:ids", 4))
        found.append(argument("probs", "*fp32", "data:probs", 4))
        strides.append(argument("stride_id_row", "int64", "stride:ids:0"))
        strides.append(argument("stride_prob_row", "int64", "stride:probs:0"))
    numbers = [
        argument("V", "int32", "size:logits:1"),
        argument("K", "int32", "size:next_id:1" if step else "size:ids:1"),
        *([argument("W", "int32", "size:scores:1")] if step else []),
        *([argument("eos", "int32", "number:eos")] if step else []),
        argument("temperature", "fp32", "number:temperature"),
    ]
    return (*found, *numbers, *strides)


def _merge_source(keep: int, common: Mapping[str, Any], on_ascend: bool) -> AotSource:
    outputs = ("next_beam", "next_id", "next_score")
    short = {"next_beam": "beam", "next_id": "id", "next_score": "score"}
    return AotSource(
        fn=merge,
        args=(
            argument("partial", "*fp32", "workspace", 16),
            argument("next_beam", "*int32", "data:next_beam", 4),
            argument("next_id", "*int32", "data:next_id", 4),
            argument("next_score", "*fp32", "data:next_score", 4),
            argument("V", "int32", "size:logits:1"),
            argument("K", "int32", "size:next_id:1"),
            argument("W", "int32", "size:scores:1"),
            *(
                argument(f"stride_{short[name]}_{axis}", "int64", f"stride:{name}:{i}")
                for name in outputs
                for i, axis in enumerate("gk")
            ),
        ),
        constexprs={"KEEP": keep},
        options={} if on_ascend else dict(_MERGE_OPTIONS),
        grid=Grid("G"),
        **common,
    )


def _constexprs(
    flags: Mapping[str, str], config: Mapping[str, int], codes: bool, step: bool, results: int
) -> dict[str, Any]:
    coarse = not codes and flags.get("int8") == "yes"
    keep = max(16, 1 << max(0, results * (2 if coarse else 1) - 1).bit_length())
    # Configs of the Ascend road have the AscendC kernel's tiles only.
    block = config.get("block", config.get("tile_v", 0))
    if block & (block - 1) or block < keep:
        raise Refused(f"triton beam_topk takes powers of two from {keep} for block, not {block}")
    return {
        "UNIT": WINDOW / 255.0 if codes else 1.0,
        "WHOLE_ROW": flags.get("softmax", "row") == "row",
        "COARSE": coarse,
        "CODES": codes,
        "STEP": step,
        "KEEP": keep,
        "BLOCK": block,
    }


def _strides(tensor: torch.Tensor | None, dims: int) -> tuple[int, ...]:
    return (0,) * dims if tensor is None else tuple(tensor.stride())


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton beam_topk needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
