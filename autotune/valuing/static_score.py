"""Configs valued without a device: a static score of the compiled binary. A model, labelled so.

The score is the modelled time over that of a machine whose every multiprocessor works at full rate:
1 is ideal, 2 twice as long. It ranks binaries by what the compiler wrote; it is no time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tilewright.autotune.trials import Outcome, Stage
from tilewright.autotune.valuing.checked import Checker, SmallChecks, Staged
from tilewright.autotune.valuing.gate import Facts, Gate
from tilewright.autotune.valuing.objective import Enter, NoObjective
from tilewright.autotune.valuing.several import BYTES, MEMORY, SIZE
from tilewright.backends.base import Launch
from tilewright.errors import CRASHES, Unavailable
from tilewright.evidence import Evidence
from tilewright.inputs import Inputs, make_outputs

if TYPE_CHECKING:
    from tilewright.aot import CompiledKernel
    from tilewright.backends.base import Backend
    from tilewright.cases import Case
    from tilewright.registry import Family
    from tilewright.space import Config
    from tilewright.targets import Target

# The interpreter takes about a second per 10 million operations; a check is given a fraction of it.
_CHECK_FLOPS = 1.0e6
# Resident warps that hide the latency of one another, less where copies run ahead on their own.
_WARPS_SYNC, _WARPS_ASYNC = 16.0, 8.0
# Elements of a tile's edge at which loading the operands takes as long as multiplying them.
_BALANCE = 32.0
_WITHOUT_MATRIX_UNITS = 12.0
_SPILLED_WORD = 0.02


class StaticScore(Staged):
    """Compile for the target, check on a small case in Triton's interpreter, score the binary."""

    evidence = Evidence.MODELLED
    unit = "score"

    def __init__(
        self, family: Family, case: Case, target: Target, backend: Backend, seed: int = 0
    ) -> None:
        self.family, self.case, self.target, self.backend = family, case, target, backend
        # Multiprocessors, or compute units, of the named product; a cut-down one has fewer.
        self.multiprocessors = target.limit("sms")
        self.mode = f"static score of the binary on {self.multiprocessors} multiprocessors"
        self.module = family.module("triton")
        self.gate = Gate(
            target, family.spec.default_config(target), family.spec.config_for(case, target)
        )
        self.small = SmallChecks(
            family,
            case,
            _CHECK_FLOPS,
            lambda small: _Interpreted(family, small, target, backend, seed),
            backend,
            target,
        )

    def _evaluate(self, config: Config, enter: Enter) -> Outcome:
        stage = Stage.GATE
        try:
            with enter(stage):
                reason = self.backend.refuses(self.family, self.case, config, self.target)
                compiled = None if reason else self._compile(config)
            if compiled is None:
                return Outcome.failed(stage, reason or "")
            facts = Facts.of_binary(compiled)
            if reason := self.gate.judge(config, facts):
                return Outcome.failed(stage, reason, **facts.details())
            stage = Stage.CHECK
            with enter(stage):
                _, failure = self.small.run(config)
            if failure:
                return failure
            stage = Stage.TIME
            with enter(stage):
                return Outcome.ok(
                    self._score(config, compiled), **facts.details(), **self._facts(compiled)
                )
        except Unavailable as error:
            raise NoObjective(
                f"{self.family.name} cannot be tuned on {self.target.name} here: {error}"
            ) from None
        except CRASHES as error:
            return Outcome.failed(stage, f"{type(error).__name__}: {error}")

    def _compile(self, config: Config) -> CompiledKernel:
        from tilewright.aot import compile_config

        return compile_config(
            *(self.module, self.case.precision, self.case.flags, config, self.target.name),
            sizes=self.case.sizes,
        )

    def _programs(self, config: Config) -> int:
        from tilewright.aot.source import source_of

        source = source_of(
            *(self.module, self.case.precision, self.case.flags, config, self.target.name),
            sizes=self.case.sizes,
        )
        programs: int = math.prod(source.grid.evaluate(self.case.sizes))
        return max(1, programs)

    def _score(self, config: Config, compiled: CompiledKernel) -> float:
        programs = self._programs(config)
        edges = [config[name] for name in ("tile_m", "tile_n") if name in config]
        out = self.family.spec.outputs[0]
        elements = max(1, math.prod(self.family.spec.shape(out, self.case)))
        padding = max(1.0, programs * math.prod(edges) / elements) if edges else 1.0
        per_multiprocessor = math.ceil(programs / self.multiprocessors)
        warps = compiled.threads / self.target.limit("warp_size")
        resident = warps * min(max(1, compiled.blocks_per_sm), per_multiprocessor)
        rate = min(1.0, resident / (_WARPS_ASYNC if compiled.async_copies else _WARPS_SYNC))
        loads = 1.0 + sum(_BALANCE / edge for edge in edges) / 2
        spills = 1.0 + _SPILLED_WORD * compiled.spill_bytes / 4
        units = 1.0 if compiled.matrix_instructions else _WITHOUT_MATRIX_UNITS
        busy = per_multiprocessor * self.multiprocessors / programs
        return padding * busy * loads * spills * units / rate

    @staticmethod
    def _facts(compiled: CompiledKernel) -> dict[str, Any]:
        return {
            "blocks_per_sm": compiled.blocks_per_sm,
            "matrix_instructions": dict(compiled.matrix_instructions),
            "async_copies": dict(compiled.async_copies),
            "binary_sha256": compiled.binary_sha256,
            BYTES[SIZE]: len(compiled.binary),
            # What a block takes on chip, and what its threads spill to memory.
            BYTES[MEMORY]: compiled.shared_bytes + compiled.spill_bytes * compiled.threads,
        }

    def sizes(self, wanted: Sequence[str]) -> Mapping[str, Evidence | str]:
        return {MEMORY: Evidence.COMPILED, SIZE: Evidence.COMPILED}

    def versions(self) -> Mapping[str, Any]:
        from tilewright.aot.compile import toolchain

        return {"compiler": toolchain(), "checked_on": f"interpreter, {self.small.cases[0]}"}


class _Interpreted(Checker):
    """Launches through the interpreter, which has no architecture and so no limits of one."""

    def prepare(self, config: Config, inputs: Inputs) -> Launch:
        outputs = make_outputs(self.family, self.case, inputs)
        tensors = {**inputs.physical, **outputs}
        launch = self.family.module("triton").launch
        return Launch(lambda: launch(tensors, self.case.flags, config, interpret=True), outputs)
