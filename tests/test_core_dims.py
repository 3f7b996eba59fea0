"""Symbolic sizes: the Python value and the generated C++ agree for any expression."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dims import Expr, cdiv, dims, evaluate
from tilewright.errors import UsageError

M, N, K = dims("M N K")


def test_a_formula_reads_like_one() -> None:
    flops = 2 * M * N * K
    assert flops.evaluate({"M": 3, "N": 5, "K": 7}) == 210
    assert flops.names() == {"M", "N", "K"}
    assert M.name == "M"
    assert flops.name is None


def test_a_missing_size_is_named() -> None:
    with pytest.raises(UsageError, match="no size given for K; given: M, N"):
        (M + N + K).evaluate({"M": 1, "N": 2})


def expressions() -> st.SearchStrategy[Expr]:
    leaves = st.sampled_from([M, N, K])
    small = st.integers(1, 9)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(lambda a, b: a + b, inner, inner),
            st.builds(lambda a, b: a * b, inner, small),
            st.builds(lambda a, b: a - b, inner, small),
            st.builds(cdiv, inner, small),
            st.builds(lambda a, b: Expr("max", (a, b)), inner, inner),
        ),
        max_leaves=6,
    )


@settings(max_examples=4, deadline=None)
@given(
    st.lists(
        st.tuples(expressions(), st.tuples(*[st.integers(20, 10_000)] * 3)), min_size=8, max_size=16
    )
)
def test_generated_cpp_computes_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list
) -> None:
    lines, expected = [], []
    for expression, (m, n, k) in rows:
        value = evaluate(expression, {"M": m, "N": n, "K": k})
        if not 0 <= value < 2**40:
            continue
        expected.append(str(int(value)))
        lines.append(
            f"{{ int64_t M={m}, N={n}, K={k}; (void)M; (void)N; (void)K; "
            f'std::printf("%lld\\n", (long long)({expression.cpp()})); }}'
        )
    source = (
        "#include <algorithm>\n#include <cstdint>\n#include <cstdio>\n"
        "static int64_t cdiv(int64_t a, int64_t b) { int64_t q = a / b; return q + (a % b != 0 && (a > 0) == (b > 0)); }\n"
        "int main() {\n" + "\n".join(lines) + "\n(void)cdiv; }\n"
    )
    folder: Path = tmp_path_factory.mktemp("cpp")
    (folder / "x.cpp").write_text(source)
    subprocess.run(["g++", "-std=c++20", "-O0", "x.cpp", "-o", "x"], cwd=folder, check=True)
    printed = subprocess.run(
        [folder / "x"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert printed == expected
