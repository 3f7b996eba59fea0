"""What calls of the AscendC gemms get where nothing is tuned: always a config that the kernel runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tilewright import native
from tilewright.ascendc.ops.gemm import adapter as gemm
from tilewright.ascendc.ops.gemm import planning
from tilewright.ascendc.ops.gemm_w4 import adapter as gemm_w4
from tilewright.ascendc.ops.grouped_gemm import adapter as grouped_gemm
from tilewright.ascendc.ops.grouped_gemm import planning as grouped_planning
from tilewright.ascendc.ops.mask_gemm import adapter as mask_gemm
from tilewright.ascendc.ops.mask_gemm import planning as mask_planning
from tilewright.ascendc.soc import SOCS
from tilewright.cases import Case
from tilewright.registry import family
from tilewright.targets import target

ADAPTERS: dict[str, Any] = {
    "gemm": gemm,
    "mask_gemm": mask_gemm,
    "grouped_gemm": grouped_gemm,
    "gemm_w4": gemm_w4,
}
SIZE = st.one_of(st.integers(1, 300), st.integers(1, 3000), st.sampled_from((576, 1024, 1536)))


def runs(name: str, case: Case, soc: str = "910b1") -> bool:
    """The config is legal, and so are all instructions of the launch; False for cases without a kernel."""
    adapter, spec, where = ADAPTERS[name], family(name).spec, target(f"ascend:{soc}")
    if adapter.refuses(case, spec.default_config(where), where):
        return False
    config = spec.config_for(case, where)
    assert adapter.refuses(case, config, where) is None, f"{case} {config}"
    result = adapter.count(case, config, where, native.library("twin"))
    assert result.ok, f"{case} {config}: {result.findings[0]}"
    return True


@pytest.mark.parametrize("name", ADAPTERS)
def test_every_benchmark_runs(name: str) -> None:
    spec = family(name).spec
    ran = [runs(name, c) for precision in spec.precisions for c in spec.benchmark_cases(precision)]
    assert sum(ran) >= 10


@pytest.mark.parametrize("name", ADAPTERS)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(data=st.data())
def test_any_shape_runs(name: str, data: st.DataObject) -> None:
    spec = family(name).spec
    precision = data.draw(st.sampled_from(spec.precisions))
    flags = data.draw(st.sampled_from(spec.flag_combinations(precision, "ascendc")))
    sizes = {dim: data.draw(SIZE) for dim in spec.dim_names()}
    sizes |= {"W": 4} if "W" in sizes else {}
    sizes |= {"E": min(sizes["E"], 40)} if "E" in sizes else {}
    sizes |= {"G": -(-sizes["K"] // int(flags["group"]))} if "group" in flags else {}
    runs(name, spec.case(sizes, precision.name, flags), data.draw(st.sampled_from(sorted(SOCS))))


def test_mixed_kernels_have_less_of_l1() -> None:
    """512 KiB of tiles, which a kernel of cube cores alone takes."""
    config = planning.Config(128, 128, 256, 4, 4)
    assert planning.illegal("int8->int32", "NK", config) == []
    (why,) = planning.illegal("int8->bf16", "NK", config, row_scale=True)
    assert why == "l1: 2 x (A 128x1024 + B 1024x128) take 524288 bytes, 524032 are there"
    fields = dict(zip(grouped_planning.FIELDS, (128, 128, 128, 4, 4, 2, 2, 0), strict=True))
    kind = grouped_planning.Kind("fp16", bias=False, scaled=False)
    (why,) = grouped_planning.illegal(fields, kind, "910b1")
    assert "524288 bytes, 524032 are there" in why
    chosen = mask_planning.Config(128, 128, 256, 4, 4)
    (why,) = mask_planning.illegal(chosen, "910b1")
    assert "524288 bytes, 524032 are there" in why


@pytest.mark.parametrize("cores", [-1, 25])
def test_mask_gemm_has_as_many_cores_as_the_part(cores: int) -> None:
    (why,) = mask_planning.illegal(mask_planning.config_of({"cores": cores}), "910b1")
    assert why == f"cores is {cores}, allowed are 0..24, the cube cores of 910b1"
    assert mask_planning.illegal(mask_planning.config_of({"cores": 24}), "910b1") == []
