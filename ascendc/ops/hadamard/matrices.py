"""Signs of the outer matrix: Paley's Hadamard matrices of the orders 12, 20, 28 and 36, times Sylvester's.

Standard library only. The definition, with its source, stands in the family's spec; tests hold the two
together.
"""

from __future__ import annotations

from functools import cache

PRIMES = {12: 11, 20: 19, 28: 13, 36: 17}
WORDS = 2  # of 32 signs each, for a row


def parts(d: int) -> tuple[int, int] | None:
    """(m, n) with d = m * 2**n and m 1 or an order of PRIMES; None where there is none."""
    for m in (1, *PRIMES):
        power, rest = divmod(d, m)
        if power > 0 and not rest and power.bit_count() == 1:
            return m, power.bit_length() - 1
    return None


@cache
def signs(m: int, power: int) -> tuple[int, ...]:
    """WORDS words a row of H_m kron H_power, `power` a power of two: bit j is set where column j holds -1."""
    order = m * power
    words = []
    for i in range(order):
        row = 0
        for j in range(order):
            sylvester = ((i % power) & (j % power)).bit_count() % 2 == 1
            row |= (_minus(m, i // power, j // power) != sylvester) << j
        words += [row >> 32 * word & 0xFFFFFFFF for word in range(WORDS)]
    return tuple(words)


def _minus(m: int, i: int, j: int) -> bool:
    """Whether H_m holds -1 at (i, j)."""
    if m == 1:
        return False
    q = PRIMES[m]
    if q % 4 == 3:
        return i != j and _skew(q, i, j, first=False)
    a, b = i // 2, j // 2
    if a == b:
        return i % 2 == 1 or j % 2 == 1
    return _skew(q, a, b, first=True) != (i % 2 == 1 and j % 2 == 1)


def _skew(q: int, i: int, j: int, first: bool) -> bool:
    """Whether the bordered matrix of squares holds -1 off its diagonal; `first`: its first column is 1."""
    if i == 0 or j == 0:
        return j == 0 and not first
    return pow(i - j, (q - 1) // 2, q) != 1
