"""Whether an ascend-ir environment works: it lowers a kernel of three lines."""

from __future__ import annotations

from tilewright.aot.ascend import failure
from tilewright.aot.ascend.hivm import read_plan
from tilewright.aot.ascend.session import Session, worker_command
from tilewright.errors import Unavailable
from tilewright.toolchains import Installed

_COPY = """import triton
import triton.language as tl


@triton.jit
def copy(x, y, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.load(x + at))
"""
_ELEMENTS = 64


def probe(found: Installed) -> None:
    """Raises Unavailable, with what the compiler said, if the environment lowers nothing."""
    request = {
        "text": _COPY,
        "entry": "copy",
        "arch": "Ascend910B1",
        "signature": {"x": "*fp32", "y": "*fp32"},
        "constexprs": {"N": _ELEMENTS},
        "divisible": [],
        "options": [],
    }
    with Session(worker_command(found)) as session:
        answer = session.ask(request)
    if not answer["ok"]:
        said = failure.sentence(answer["stage"], answer["log"], answer["status"])
        raise Unavailable(f"the {found.toolchain.name} toolchain does not work here: {said}")
    if read_plan(answer["ir"]).peaks.get("ub") != _ELEMENTS * 4:
        raise Unavailable(f"the {found.toolchain.name} toolchain plans a copy unexpectedly")
