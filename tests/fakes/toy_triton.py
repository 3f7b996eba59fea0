"""A small Triton kernel with every kind of parameter, compiled for a target without a GPU."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def tw_toy(x, bias, y, M, N, stride_x, alpha, shift, TILE_N: tl.constexpr):
    """y[M,N] = x[M,N] * alpha + shift (+ bias[N])."""
    row = tl.program_id(0)
    cols = tl.program_id(1) * TILE_N + tl.arange(0, TILE_N)
    ok = cols < N
    value = tl.load(x + row.to(tl.int64) * stride_x + cols, mask=ok, other=0.0) * alpha + shift
    value += tl.load(bias + cols, mask=ok & (bias.to(tl.int64) != 0), other=0.0)
    tl.store(y + row * N + cols, value, mask=ok & (row < M))


def compile_toy(target: str) -> tuple[bytes, int, str]:
    """The binary for `cuda:sm_90` and the like, its dynamic shared bytes, the kernel's symbol."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    api, _, arch = target.partition(":")
    signature = {
        "x": "*fp32",
        "bias": "*fp32",
        "y": "*fp32",
        "M": "i32",
        "N": "i32",
        "stride_x": "i64",
        "alpha": "fp32",
        "shift": "i64",
        "TILE_N": "constexpr",
    }
    source = ASTSource(tw_toy, signature, {(8,): 128}, {(0,): [["tt.divisibility", 16]]})
    gpu = GPUTarget(
        api, int(arch.removeprefix("sm_")) if api == "cuda" else arch, 32 if api == "cuda" else 64
    )
    kernel = triton.compile(source, target=gpu, options={"num_warps": 4, "enable_fp_fusion": True})
    return (
        kernel.asm["cubin" if api == "cuda" else "hsaco"],
        kernel.metadata.shared,
        kernel.metadata.name,
    )


def toy_row(target: str, binary: bytes, shared: int, symbol: str, digest: str) -> dict[str, object]:
    """Its dispatch entry."""
    return {
        "family": "toy",
        "precision": "fp32",
        "target": target,
        "symbol": symbol,
        "binary": f"gpu/toy-{target.replace(':', '-')}.bin",
        "sha256": digest,
        "num_warps": 4,
        "shared_bytes": shared,
        "config": {"tile_n": 128},
        "flags": {"mode": 1},
        "tensors": [
            {"name": "x", "dtype": "fp32", "dims": ["M", "N"], "unit_stride": -1},
            {
                "name": "bias",
                "dtype": "fp32",
                "dims": ["N"],
                "presence": "optional",
                "unit_stride": 0,
            },
            {"name": "y", "dtype": "fp32", "dims": ["M", "N"], "unit_stride": 1},
        ],
        "args": [
            {"kind": "tensor", "name": "x", "divisible": 16},
            {"kind": "tensor", "name": "bias"},
            {"kind": "tensor", "name": "y"},
            {"kind": "dim", "name": "M", "ctype": "i32"},
            {"kind": "dim", "name": "N", "ctype": "i32"},
            {"kind": "stride", "tensor": "x", "dim": 0, "ctype": "i64", "divisible": 4},
            {"kind": "attr", "name": "alpha", "ctype": "fp32"},
            {"kind": "const", "value": -7, "ctype": "i64"},
            {"kind": "scratch"},
        ],
        "grid": ["M", "cdiv(N, tile_n)", "1"],
    }
