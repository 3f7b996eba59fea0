"""attention in Triton: prefill with every flag of the spec, any strides, sequences of any length.

Each program makes one `TILE_M` rows tall tile of one head's output, walking the keys in steps of `TILE_N`;
the compiler keeps `num_stages` of those steps in flight. With lengths=ragged the tiles of all sequences are
numbered through, so that no program pads one sequence to another's length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tilewright import interpret as interpreter
from tilewright.aot.grid import Grid
from tilewright.aot.source import AotSource, KernelArg, Requirement, argument
from tilewright.errors import Refused, unknown
from tilewright.kernels._triton.flash import settled, split
from tilewright.kernels.attention.triton_kernel import kernel

if TYPE_CHECKING:
    import torch

PRECISIONS = ("fp32", "bf16", "fp16")
# Dims that a binary fixes: those that bundles carry, the usual one first. Any others compile as well.
FIXED_SIZES: tuple[Mapping[str, int], ...] = (
    MappingProxyType({"DK": 128, "DV": 128}),
    MappingProxyType({"DK": 64, "DV": 64}),
)
_GRID = MappingProxyType(
    {
        "equal": "cdiv(SQ, {tile_m}) * HQ * B",
        "ragged": "(SQ // {tile_m} + NS1 - 1) * HQ",
    }
)
# Under batch_invariant, whatever the config says.
_INVARIANT = MappingProxyType({"tile_m": 64, "tile_n": 32, "num_warps": 4})
_MASKS = ("causal", "full")
_NUMBERS = ("scale", "softcap", "window")
# Flags that a binary takes as arguments or as null tensors.
_FREE = ("mask", "scale", "window", "lse")


def launch(
    tensors: Mapping[str, torch.Tensor | None],
    flags: Mapping[str, str],
    config: Mapping[str, int],
    *,
    interpret: bool,
) -> None:
    """Compute `o`, and `lse` where it is given, in place; any strides are taken.

    Raises Refused for compute=int8, for a tile that is no power of two, and for tensors on the CPU whose
    `cu_q` or `cu_k` does not lie within them.
    """
    config = settled(config, flags, _INVARIANT)
    q, k, v, o = (_tensor(tensors, name) for name in ("q", "k", "v", "o"))
    alibi, lse = tensors.get("alibi"), tensors.get("lse")
    lengths = _lengths(flags)
    (b, sq, hq, dk), (sk, hkv, dv) = q.shape, v.shape[1:]
    cu_q = cu_k = None
    if lengths == "ragged":
        cu_q, cu_k = (_starts(tensors, name, n) for name, n in (("cu_q", sq), ("cu_k", sk)))
    starts = 0 if cu_q is None else cu_q.shape[0]
    if not sk:
        # There may be no memory behind no keys; an interpreter does not mask an address that is none.
        k, v = (x.new_zeros(1, 1, *x.shape[2:]).expand(b, *x.shape[1:]) for x in (k, v))
    interpreter.launch(
        kernel,
        Grid(_GRID[lengths].format(**config)).evaluate({"SQ": sq, "HQ": hq, "B": b, "NS1": starts}),
        (
            *(q, k, v, cu_q, cu_k, alibi, o, lse),
            *(_number(flags, "scale"), _number(flags, "softcap")),
            math.ceil(_number(flags, "window")),
            _MASKS.index(flags.get("mask", "causal")),
            *(sq, sk, hq, hkv, starts),
            *(*q.stride(), *k.stride(), *v.stride()),
            alibi.stride(0) if alibi is not None else 0,
            *o.stride(),
            *(lse.stride() if lse is not None else (0, 0, 0)),
        ),
        _constexprs(config, flags, dk, dv)
        | {"WIDEN": interpret and str(q.dtype) == "torch.bfloat16"},
        {name: config[name] for name in ("num_warps", "num_stages")},
        interpret=interpret,
    )


def aot(
    precision: str,
    flags: Mapping[str, str],
    config: Mapping[str, int],
    target: str,
    *,
    aligned: bool = True,
    sizes: Mapping[str, int] = FIXED_SIZES[0],
) -> AotSource:
    """What to compile for a target: channels contiguous, `lse` nullable, widths of heads as in `sizes`.

    A binary takes any mask, scale and window, and either one cap and slopes or the lack of both.
    `aligned` fixes addresses and strides to multiples of 16 bytes, which asynchronous copies need.
    """
    if precision not in PRECISIONS:
        raise unknown("precision of triton attention", precision, PRECISIONS)
    asked, config = config, settled(config, flags, _INVARIANT)
    lengths, extras = _lengths(flags), _extras(flags)
    address, step = (16, 16 // (4 if precision == "fp32" else 2)) if aligned else (1, 1)
    on_ascend = target.startswith("ascend:")

    def tensor(name: str, kind: str = precision, nullable: bool = False) -> KernelArg:
        of_floats = kind == precision
        return argument(name, f"*{kind}", f"data:{name}", address if of_floats else 1, nullable)

    def strides(name: str, axes: str) -> tuple[KernelArg, ...]:
        letters = enumerate(axes)
        return tuple(
            argument(f"stride_{name}{letter}", "int64", f"stride:{name}:{axis}", step)
            for axis, letter in letters
            if letter != "b" or lengths == "equal"
        )

    starts = (
        tuple(tensor(name, "int32") for name in ("cu_q", "cu_k")) if lengths == "ragged" else ()
    )
    args = (
        *(tensor("q"), tensor("k"), tensor("v")),
        *starts,
        *((tensor("alibi", "fp32", True),) if extras else ()),
        tensor("o"),
        tensor("lse", "fp32", True),
        argument("scale", "fp32", "number:scale"),
        argument("softcap", "fp32", "number:softcap"),
        argument("window", "int32", "number:window"),
        argument("full", "int32", "flag:mask"),
        argument("SQ", "int32", "size:q:1"),
        argument("SK", "int32", "size:k:1"),
        argument("HQ", "int32", "size:q:2"),
        argument("HKV", "int32", "size:k:2"),
        *((argument("NS1", "int32", "size:cu_q:0"),) if starts else ()),
        *strides("q", "bsh"),
        *strides("k", "bsh"),
        *strides("v", "bsh"),
        *strides("o", "bsh"),
        *(
            argument(f"stride_lse_{letter}", "int64", f"stride:lse:{axis}")
            for axis, letter in enumerate("bsh")
        ),
    )
    constexprs = _constexprs(config, flags, sizes["DK"], sizes["DV"]) | {"WIDEN": False}
    if target.startswith("cuda:"):
        constexprs["PRECISION"] = "tf32x3"
    constexprs |= dict.fromkeys(
        ("stride_qd", "stride_kd", "stride_vd", "stride_od", "stride_alibi"), 1
    )
    if not extras:
        constexprs["alibi"] = None
    if not starts:
        constexprs |= {"cu_q": None, "cu_k": None, "NS1": 0}
    else:
        constexprs |= dict.fromkeys(("stride_qb", "stride_kb", "stride_vb", "stride_ob"), 0)
    contiguous = ("q:3", "k:3", "v:3", "o:3", *(("alibi:0",) if extras else ()))
    contiguous += ("cu_q:0", "cu_k:0") if starts else ()
    return AotSource(
        family="attention",
        fn=kernel,
        precision=precision,
        flags=dict(flags),
        config=dict(asked),
        target=target,
        args=args,
        constexprs=constexprs,
        options={} if on_ascend else {name: config[name] for name in ("num_warps", "num_stages")},
        grid=Grid(_GRID[lengths].format(**config)),
        requirements=tuple(Requirement(f"stride:{axis}", "equals", 1) for axis in contiguous),
        sizes=dict(sizes),
        free=(*_FREE, *_free_with_extras(config) * extras),
    )


def _constexprs(
    config: Mapping[str, int], flags: Mapping[str, str], dk: int, dv: int
) -> dict[str, Any]:
    for name in ("tile_m", "tile_n"):
        if config[name] < 16 or config[name] & (config[name] - 1):
            raise Refused(
                f"triton attention takes powers of two from 16 for {name}, not {config[name]}"
            )
    if flags.get("compute", "float") != "float":
        raise Refused(f"triton attention computes in float; compute is {flags['compute']}")
    (k_head, k_tail), (v_head, v_tail) = split(dk), split(dv)
    return {
        "DK": dk,
        "DV": dv,
        "TILE_M": config["tile_m"],
        "TILE_N": config["tile_n"],
        "K_HEAD": k_head,
        "K_TAIL": k_tail,
        "V_HEAD": v_head,
        "V_TAIL": v_tail,
        "RAGGED": _lengths(flags) == "ragged",
        "EXTRAS": _extras(flags),
        # Caps cost more than masks: one binary of them serves both.
        "INVARIANT": flags.get("batch_invariant") == "yes" or _extras(flags),
        "PRECISION": "ieee",
    }


def _lengths(flags: Mapping[str, str]) -> str:
    lengths = flags.get("lengths", "equal")
    if lengths not in _GRID:
        raise unknown("lengths", lengths, list(_GRID))
    return lengths


def _free_with_extras(config: Mapping[str, int]) -> tuple[str, ...]:
    """Flags that a binary with caps takes any value of; batch_invariant where the config is that one anyway."""
    same = config == settled(config, {"batch_invariant": "yes"}, _INVARIANT)
    return ("softcap", "alibi", *(("batch_invariant",) * same))


def _number(flags: Mapping[str, str], name: str) -> float:
    return float(flags.get(name, "0"))


def _extras(flags: Mapping[str, str]) -> bool:
    return _number(flags, "softcap") > 0 or flags.get("alibi") == "yes"


def _starts(tensors: Mapping[str, torch.Tensor | None], name: str, tokens: int) -> torch.Tensor:
    """Where each sequence starts, dense; on the CPU also looked at, since a kernel trusts it."""
    starts = _tensor(tensors, name)
    if not starts.is_cuda:
        values = starts.tolist()
        if values[0] != 0 or values[-1] != tokens or values != sorted(values):
            raise Refused(f"{name} is {values[:8]}; accepted: from 0 to {tokens}, never falling")
    return starts.contiguous()


def _tensor(tensors: Mapping[str, torch.Tensor | None], name: str) -> torch.Tensor:
    tensor = tensors.get(name)
    if tensor is None:
        raise Refused(f"triton attention needs tensor '{name}'; given: {', '.join(tensors)}")
    return tensor
