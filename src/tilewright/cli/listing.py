"""tilewright list: the matrix of families, backends and targets."""

from __future__ import annotations

from tilewright.cli import options
from tilewright.cli.output import emit, quiet, say, table

app = options.application()


@app.command()
def run(
    families: options.Families = None,
    backend: options.Backend = None,
    target: options.TargetNames = None,
    dtype: options.Dtype = None,
    json: options.Json = None,
) -> None:
    """Show what this machine can do with every cell of the matrix.

    run: really runs here. interpret: Triton's interpreter. twin: the host twin of the 910B. compile:
    compiles to a binary, which needs a device to run. absent: not possible, with the reason.
    """
    from tilewright.backends import backend as backend_named
    from tilewright.backends import cells
    from tilewright.registry import select
    from tilewright.targets import target as target_named

    backends = {backend_named(n).name for n in options.names(backend)}
    targets = {target_named(n).name for n in options.names(target)}
    chosen = select(families or [])
    dtypes = {p.name for f in chosen for p in f.spec.select_precisions(options.names(dtype))}
    rows = [
        c
        for c in cells(chosen)
        if (not backends or c.backend in backends)
        and (not targets or c.target in targets)
        and c.dtype in dtypes
    ]
    emit(json, "list", rows)
    if quiet(json):
        return
    grouped: dict[tuple[str, str, str], dict[tuple[str, str], list[str]]] = {}
    for c in rows:
        states = grouped.setdefault((c.family, c.backend, c.target), {})
        states.setdefault((str(c.state), c.reason), []).append(c.dtype)
    lines = [
        (*where, state, ", ".join(dtypes), reason)
        for where, states in grouped.items()
        for (state, reason), dtypes in states.items()
    ]
    table(("family", "backend", "target", "state", "dtypes", "reason"), lines)
    counts: dict[str, int] = {}
    for c in rows:
        counts[str(c.state)] = counts.get(str(c.state), 0) + 1
    say(", ".join(f"{n} {state}" for state, n in counts.items()))
