"""Tuned GEMM tables of ROCm/aiter: CSV files of winners, one kernel per shape with its time in us.

Only the fastest kernel of a shape is listed, so a table is a list of donors and of dispatch decisions, no
search space. Two forms are known: `a8w8` (column q_dtype_w) and the general one (dtype, outdtype, bias, ...).
"""

from __future__ import annotations

import csv
import io
import math

from tilewright.autotune.store.record import Record, Scalar, foreign_key
from tilewright.autotune.trials import Stage, State
from tilewright.errors import UsageError
from tilewright.evidence import Evidence

_NEEDED = {"gfx", "cu_num", "M", "N", "K", "us", "splitK", "kernelName"}
_DTYPES = {
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
    "torch.float32": "fp32",
    "torch.int8": "int8",
    "torch.float8_e4m3fn": "fp8_e4m3fn",
    "torch.float8_e4m3fnuz": "fp8_e4m3fnuz",
}
_FLAGS = ("bias", "scaleAB", "bpreshuffle")


def is_table(header: str) -> bool:
    """Whether the first line of a file is the header of such a table."""
    return set(header.strip().split(",")) >= _NEEDED


def parse(text: str, name: str) -> list[Record]:
    """One record a row; raises UsageError naming the line and what is wrong with it."""
    rows = csv.DictReader(io.StringIO(text))
    if not is_table(",".join(rows.fieldnames or ())):
        raise UsageError(
            f"{name} lacks columns of an aiter table; accepted: {', '.join(sorted(_NEEDED))}"
        )
    found: list[Record] = []
    for row in rows:
        try:
            found.append(_record(row, len(found), name))
        except (KeyError, ValueError, TypeError) as error:
            raise UsageError(f"line {rows.line_num} of {name} cannot be read: {error!r}") from None
    return found


def _record(row: dict[str, str], number: int, name: str) -> Record:
    value = float(row["us"])
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"us={row['us']}")
    config: dict[str, Scalar] = {"splitK": int(row["splitK"])}
    if "kernelId" in row:
        config = {"kernelId": int(row["kernelId"]), **config}
    else:
        config = {"libtype": row["libtype"], "solidx": int(row["solidx"]), **config}
    config["kernelName"] = row["kernelName"]
    shape = ",".join(f"{n}={int(row[n])}" for n in "MNK")
    key = foreign_key(
        family="gemm",
        backend="aiter",
        target=f"hip:{row['gfx']}",
        device=f"{row['gfx']}-{int(row['cu_num'])}cu",
        shape=shape,
        precision=_precision(row),
        flags=",".join(f"{f}={'yes' if row[f] == 'True' else 'no'}" for f in _FLAGS if f in row),
        unit="us",
        mode="aiter tuned",
        fields=config,
    )
    details = {k: float(row[k]) for k in ("tflops", "bw", "errRatio", "err_ratio") if row.get(k)}
    return Record(
        key,
        config,
        State.OK,
        Stage.TIME,
        Evidence.PUBLISHED,
        value,
        details=details,
        number=number,
        origin=name,
    )


def _precision(row: dict[str, str]) -> str:
    """Our names of dtypes, `operands->result` where the result is another one; others as aiter writes them."""
    operand = row.get("q_dtype_w") or row["dtype"]
    result = row.get("outdtype") or operand
    one, other = (_DTYPES.get(d, d.removeprefix("torch.")) for d in (operand, result))
    # The a8w8 tables do not say what an int8 or fp8 product is stored as.
    return one if one == other else f"{one}->{other}"
