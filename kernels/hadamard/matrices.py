"""Hadamard matrices of the orders that are no powers of two, as Paley built them from squares modulo a prime.

R. E. A. C. Paley, On orthogonal matrices, J. Math. and Physics 12 (1933). chi(a) is 0 for 0, 1 for a square,
-1 otherwise; Q[i][j] = chi(i - j) modulo the prime q.

- I, q = 3 mod 4, order q + 1: I + S, where S has a first row of 1s, a first column of -1s, 0 at their corner
  and Q for the rest.
- II, q = 1 mod 4, order 2 (q + 1): each 0 of S becomes [[1, -1], [-1, -1]], each s of the others
  [[s, s], [s, -s]], where S has a first row and a first column of 1s, 0 at their corner and Q for the rest.
"""

from __future__ import annotations

from functools import cache

# Order to prime; 1 stands for no matrix at all.
PRIMES = {12: 11, 20: 19, 28: 13, 36: 17}
ORDERS = (1, *PRIMES)
LARGEST = 32768


def parts(d: int) -> tuple[int, int] | None:
    """(m, n) with d = m * 2**n and m one of ORDERS; None where there is none or d is too large."""
    if not 0 < d <= LARGEST:
        return None
    for m in ORDERS:
        power, rest = divmod(d, m)
        if not rest and power.bit_count() == 1:
            return m, power.bit_length() - 1
    return None


def squares(q: int) -> int:
    """Bit a is set where a is a nonzero square modulo q."""
    return sum(1 << a for a in {i * i % q for i in range(1, q)})


@cache
def matrix(order: int) -> tuple[tuple[int, ...], ...]:
    """The rows of H_m, of 1 and -1; order is one of ORDERS."""
    if order == 1:
        return ((1,),)
    q = PRIMES[order]
    second = q % 4 == 1
    is_square = squares(q)

    def s(i: int, j: int) -> int:
        if i == j:
            return 0
        if i == 0 or j == 0:
            return 1 if i == 0 or second else -1
        return 1 if is_square >> (i - j) % q & 1 else -1

    if not second:
        return tuple(tuple(s(i, j) or 1 for j in range(order)) for i in range(order))
    block = {0: ((1, -1), (-1, -1)), 1: ((1, 1), (1, -1)), -1: ((-1, -1), (-1, 1))}
    return tuple(
        tuple(block[s(i // 2, j // 2)][i % 2][j % 2] for j in range(order)) for i in range(order)
    )
