"""Tables of cosines and sines for rope: the plain one, and the ways models stretch it to longer contexts.

Frequencies and angles are computed in fp64 and rounded once, to fp32. (Computed in fp32, as model code
usually does, the angle of position p is off by up to p * 2**-24 radians: 0.008 at 131072.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tilewright.errors import UsageError, unknown


class Scaling(Protocol):
    """How a model's table differs from the plain one."""

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        """Radians a position, fp64 [rot/2], for contexts of `length` positions."""
        ...

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by."""
        ...


def plain(rot: int, base: float) -> Tensor:
    """base ** (-2i / rot) for i in [0, rot/2), fp64 (Su et al., RoFormer, 2021)."""
    return base ** (-torch.arange(0, rot, 2, dtype=torch.float64) / rot)


@dataclass(frozen=True, slots=True)
class Default:
    """No scaling."""

    magnitude: float = 1.0

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        return plain(rot, base)


@dataclass(frozen=True, slots=True)
class Linear:
    """Positions divided by `factor` (Chen et al., Extending context window by positional interpolation, 2023)."""

    factor: float
    magnitude: float = 1.0

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        return plain(rot, base) / self.factor


@dataclass(frozen=True, slots=True)
class DynamicNTK:
    """A base that grows with the context beyond `original` positions, so that the slowest pair is stretched by
    `factor * length / original - (factor - 1)` and the fastest not at all."""

    factor: float
    original: int
    magnitude: float = 1.0

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        if rot <= 2:
            return plain(rot, base)
        longest = max(length, self.original)
        stretch = self.factor * longest / self.original - (self.factor - 1.0)
        return plain(rot, base * stretch ** (rot / (rot - 2)))


@dataclass(frozen=True, slots=True)
class Yarn:
    """YaRN (Peng et al., 2023; Qwen, DeepSeek): pairs that turn more than `beta_fast` times in `original`
    positions stay, those that turn less than `beta_slow` times are slowed by `factor`, between them a ramp.

    Cosines and sines grow by 0.1 ln(factor) + 1, or by `attention`, or, with `mscale` and `mscale_all`, by
    the quotient (0.1 mscale ln(factor) + 1) / (0.1 mscale_all ln(factor) + 1). Without `truncate` the
    ends of the ramp are not rounded to whole pairs.
    """

    factor: float
    original: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention: float | None = None
    mscale: float | None = None
    mscale_all: float | None = None
    truncate: bool = True

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        fast = plain(rot, base)
        low, high = (self._pair(turns, rot, base) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rot - 1)
        place = torch.arange(rot // 2, dtype=torch.float64)
        ramp = ((place - low) / max(high - low, 1e-3)).clamp(0, 1)
        return fast / self.factor * ramp + fast * (1 - ramp)

    def _pair(self, turns: float, rot: int, base: float) -> float:
        """The pair, as a fraction, that turns `turns` times in the original context."""
        return rot * math.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(base))

    @property
    def magnitude(self) -> float:
        if self.attention is not None:
            return self.attention
        if self.mscale and self.mscale_all:
            return self._growth(self.mscale) / self._growth(self.mscale_all)
        return self._growth(1.0)

    def _growth(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0


@dataclass(frozen=True, slots=True)
class Llama3:
    """Llama 3.1: pairs with a wavelength below original / `high` positions stay, those above original / `low` are
    slowed by `factor`, between them a ramp in original / wavelength."""

    factor: float
    low: float
    high: float
    original: int
    magnitude: float = 1.0

    def frequencies(self, rot: int, base: float, length: int) -> Tensor:
        fast = plain(rot, base)
        turns = self.original * fast / (2 * math.pi)
        keep = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return fast / self.factor * (1 - keep) + fast * keep


# One of each kind, with the numbers of models that use it: checks draw from these.
EXAMPLES: tuple[Scaling, ...] = (
    Default(),
    Linear(4.0),
    DynamicNTK(2.0, 2048),
    Yarn(4.0, 32768),
    Yarn(40.0, 4096, mscale=1.0, mscale_all=1.0),
    Llama3(8.0, 1.0, 4.0, 8192),
)


def cos_sin(
    rot: int, positions: int, base: float = 10000.0, scaling: Scaling | None = None
) -> Tensor:
    """The table for `rope`: fp32 [positions, rot], cosines in the first half, sines in the second.

    A context of `positions` is what dynamic scaling stretches to. Raises UsageError for an odd `rot`,
    or a base of 1 or less.
    """
    if rot % 2 or rot < 0 or positions < 0:
        raise UsageError(
            f"a table of {positions} positions by {rot} channels; an even number is needed"
        )
    if not 1.0 < base < math.inf:
        raise UsageError(f"rope base {base}; accepted: above 1, such as 10000")
    scaling = scaling or Default()
    if rot == 0:
        return torch.zeros((positions, 0))
    frequencies = scaling.frequencies(rot, base, positions)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    both = torch.cat((angles.cos(), angles.sin()), dim=1) * scaling.magnitude
    return both.to(torch.float32)


def scaling_of(config: Mapping[str, Any]) -> Scaling:
    """The scaling of a model's config, its dict `rope_scaling` (or `rope_parameters`) as Hugging Face writes it.

    `original_max_position_embeddings`, where the dict lacks it, is the model's `max_position_embeddings`,
    which the caller puts in. Raises UsageError for a kind that is not known, or a number that is missing.
    """
    kind = str(config.get("rope_type", config.get("type", "default")))

    def need(name: str) -> float:
        if config.get(name) is None:
            raise UsageError(f"rope scaling '{kind}' needs '{name}'; given: {', '.join(config)}")
        return float(config[name])

    def original() -> int:
        name = "original_max_position_embeddings"
        return int(need(name if config.get(name) else "max_position_embeddings"))

    if kind == "default":
        return Default()
    if kind == "linear":
        return Linear(need("factor"))
    if kind == "dynamic":
        return DynamicNTK(need("factor"), original())
    if kind == "llama3":
        return Llama3(need("factor"), need("low_freq_factor"), need("high_freq_factor"), original())
    if kind == "yarn":
        return Yarn(
            need("factor"),
            original(),
            beta_fast=float(config.get("beta_fast") or 32.0),
            beta_slow=float(config.get("beta_slow") or 1.0),
            attention=config.get("attention_factor"),
            mscale=config.get("mscale"),
            mscale_all=config.get("mscale_all_dim"),
            truncate=bool(config.get("truncate", True)),
        )
    raise unknown("rope scaling", kind, ["default", "linear", "dynamic", "yarn", "llama3"])
