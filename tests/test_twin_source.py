"""Sources before g++ sees them: launches become C++ and stay on their lines, functions are found."""

from __future__ import annotations

import re

import pytest

from tilewright.ascendc.twin.cpp_source import functions, rewrite_launches


def rewritten(text: str) -> str:
    """The launches of `text`, with what the rewriting adds made short."""
    result, _ = rewrite_launches(text, {})
    result = re.sub(
        r'::tilewright::twin::OnGrid\("([^"]*)", .*?\[&\]\(auto&\.\.\. tw_given\) \{ ',
        r"[\1|",
        result,
    )
    return result.replace("(tw_given...); }).Grid(", "].Grid(")


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("k<<<8, nullptr, s>>>(x, y);", "[k|k].Grid(8, nullptr, s)(x, y);"),
        ("ns::k<<<8, nullptr, s>>>();", "[ns::k|ns::k].Grid(8, nullptr, s)();"),
        ("::ns::k<<<8>>>(x);", "[::ns::k|::ns::k].Grid(8)(x);"),
        ("k<half><<<b, l2, s>>>(x);", "[k<half>|k<half>].Grid(b, l2, s)(x);"),
        ("k<A<B<C>>><<<b>>>(x);", "[k<A<B<C>>>|k<A<B<C>>>].Grid(b)(x);"),
        ("k<(1 > 0), 4><<<b>>>(x);", "[k<(1 > 0), 4>|k<(1 > 0), 4>].Grid(b)(x);"),
        ("k<<<(n + 1) >> 2, f(a, b), s>>>(x);", "[k|k].Grid((n + 1) >> 2, f(a, b), s)(x);"),
        ("k<<<Up<A<B<int>>>(n), l, s>>>(x);", "[k|k].Grid(Up<A<B<int>>>(n), l, s)(x);"),
        ("a<<<1>>>(x), b<<<2>>>(y);", "[a|a].Grid(1)(x), [b|b].Grid(2)(y);"),
        (
            "if (c) k<<<1>>>(x); else k<<<2>>>(y);",
            "if (c) [k|k].Grid(1)(x); else [k|k].Grid(2)(y);",
        ),
        ("return k<<<1>>>(x);", "return [k|k].Grid(1)(x);"),
        ("k<<<\n  8,\n  s>>>(\n  x);", "[k|k].Grid(\n  8,\n  s)(\n  x);"),
        ("k <<< 8, s >>> (x);", "[k|k ].Grid( 8, s ) (x);"),
        ("#define GO(k, x) k<<<1, 0, s>>>(x)\n", "#define GO(k, x) [k|k].Grid(1, 0, s)(x)\n"),
        ("k<<</* >>>(no) */8, s>>>(x);", "[k|k].Grid(/* >>>(no) */8, s)(x);"),
    ],
)
def test_launches_are_rewritten(source: str, wanted: str) -> None:
    assert rewritten(source) == wanted
    assert rewrite_launches(source, {})[0].count("\n") == source.count("\n")


@pytest.mark.parametrize(
    "source",
    [
        "// k<<<8, s>>>(x);\n",
        "/* k<<<8,\n s>>>(x); */",
        'puts("k<<<8, s>>>(x)");',
        'auto s = R"d(k<<<8, s>>>(x))d";',
        "std::cout << x << y >> z;",
        "using T = A<B<C<int>>>;",
        "auto n = 1'000'000 << 3;",
        "bool operator<<<int>(A, B);",
        "char c = '\"'; // k<<<1>>>(x)",
    ],
)
def test_everything_else_is_left_alone(source: str) -> None:
    assert rewrite_launches(source, {}) == (source, 0)


def test_the_cores_a_kernel_asks_for_go_with_its_launch() -> None:
    text, count = rewrite_launches("n::k<4><<<8>>>(x);", {"k": (1, 2), "n": (0, 1)})
    assert count == 1 and "MixOf(1, 2)" in text


def test_the_aicore_attribute_is_dropped() -> None:
    assert rewrite_launches("inline [aicore] void f(int a[aicore_count]);", {})[0] == (
        "inline  void f(int a[aicore_count]);"
    )


PREPROCESSED = """# 1 "k.cpp"
# 1 "/usr/include/x.h" 1 3
void hidden() {}
# 2 "k.cpp" 2
using F = void (*)(int);
struct S { void method() { if (1) {} } int a = 3; };
enum class E { A, B };
int table[] = {1, 2};
extern "C" __tw_global__ void add([[maybe_unused]] uint8_t* x, const float (*y)[4], uint32_t n = 3) { { } }
namespace a { namespace b {
template <typename T, int N = (1 > 0)>
__tw_mix__(1, 2) __tw_global__ inline void mixed(T* x, Tiling<int, 4> t) { for (;;) {} }
} void S::outside() {} }
namespace { static int helper(void) { return 0; } }
extern "C" { void declared(int); int host(void* stream, int n) noexcept { return n; } }
template <> struct X<int> { X() {} };
template <class T, int N> inline void Y<T, N>::Method(T* x) { }
template <class T, int N> bool Y<T, N>::Const() const { return true; }
__tw_mix__(0, 1) __tw_global__ void vec(__gm__ half* x) {}
S operator+(S a, S b) { return a; }
"""


def test_functions_are_found_with_their_parameters_and_cores() -> None:
    found = {f.name: f for f in functions(PREPROCESSED)}
    assert list(found) == ["add", "a::b::mixed", "helper", "host", "vec"]
    assert [f.name for f in found.values() if f.kernel] == ["add", "a::b::mixed", "vec"]
    assert [p.name for p in found["add"].parameters][::2] == ["x", "n"]
    assert str(found["a::b::mixed"]) == (
        "a::b::mixed<typename T, int N = (1 > 0)>(T* x, Tiling<int, 4> t)"
    )
    assert found["a::b::mixed"].mix == (1, 2) and found["vec"].mix == (0, 1)
    assert found["helper"].parameters == () and found["vec"].base == "vec"
    assert {f.file for f in found.values()} == {"k.cpp"}
    assert functions(PREPROCESSED, ["k."]) == ()
