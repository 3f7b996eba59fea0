"""The legal configs of a case on a target, enumerated once and numbered.

Search happens over these numbers. Optuna sees one integer parameter per field, so that its views
(importance, parallel coordinates) mean something, but only ever points of the pool.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tilewright.errors import UsageError
from tilewright.machine import cache_folder
from tilewright.space import Config, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from tilewright.cases import Case
    from tilewright.spec import KernelSpec
    from tilewright.targets import Target

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# A field whose largest value is this many times its smallest is searched on a logarithmic axis.
_LOG_AXIS = 8
# Combinations from which on enumerating takes long enough to be kept.
LARGE = 50_000


class Pool:
    """The legal configs in the order of `Space.points`, and the default config, legal or not.

    An illegal default stays in the pool so that it can be trial 0 and fail with its reason. A space that
    others recorded has none. `categories` are fields whose values are names and have no order. `suggested` is
    what a call gets where nothing is tuned, if that is not the default.
    """

    def __init__(
        self,
        fields: Mapping[str, tuple[int, ...]],
        ordinals: Indices,
        default: Config | None,
        categories: Collection[str] = (),
        suggested: Config | None = None,
    ) -> None:
        self.names = tuple(fields)
        self.values = tuple(tuple(v) for v in fields.values())
        self.categories = frozenset(categories)
        self._radix = _radix(self.values)
        order = np.argsort(ordinals @ self._radix, kind="stable")
        self.ordinals: Indices = ordinals[order]
        self._ranks: Indices = self.ordinals @ self._radix
        self._default = None if default is None else self.index(default)
        if default is not None and self._default is None:
            raise UsageError(
                f"the default config {default} is not a point of the space {dict(fields)}"
            )
        self._suggested = None if suggested is None else self.index(suggested)
        if suggested is not None and self._suggested is None:
            raise UsageError(
                f"the config {suggested} of the tiling is not a point of the space {dict(fields)}"
            )

    @property
    def default(self) -> int:
        """The number of the default config; raises UsageError for a pool without one."""
        if self._default is None:
            raise UsageError("a recorded space has no default config")
        return self._default

    @property
    def first(self) -> tuple[int, ...]:
        """What comes before anything is searched: the default, then what untuned calls get; where there are such."""
        return tuple(dict.fromkeys(i for i in (self._default, self._suggested) if i is not None))

    @property
    def suggested(self) -> Config | None:
        """What a call gets where nothing is tuned, by the family's tiling; None where that is the default."""
        return None if self._suggested in (None, self._default) else self.config(self._suggested)

    @staticmethod
    def of(spec: KernelSpec, case: Case, target: Target, rules: str | None = None) -> Pool:
        """Enumerate; raises UsageError where the family declares nothing to tune.

        `rules` identifies the sources of the validity rules; with it, what was found in a large space is
        kept on disk.
        """
        space = spec.space_for(target)
        if space is None or space.size <= 1:
            raise UsageError(f"{spec.name} declares nothing to tune on {target.name}")
        default = spec.default_config(target)
        kept = None
        if rules is not None and space.size >= LARGE:
            content = [rules, spec.name, dict(space.fields), case.as_dict(), target.name]
            digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]
            kept = cache_folder("pools", f"{spec.name}-{digest}.npy")
        ordinals = _load(kept, len(space.fields))
        if ordinals is None:
            ordinals = _enumerate(spec, case, target, space)
            _save(kept, ordinals)
        return Pool(
            space.fields,
            _with(ordinals, space, default),
            default,
            suggested=spec.config_for(case, target),
        )

    @staticmethod
    def from_configs(space: Space, configs: set[Config], default: Config) -> Pool:
        """A pool of exactly these configs."""
        rows = np.array([_ordinals(space, c) for c in configs | {default}], dtype=np.int64)
        return Pool(space.fields, rows, default)

    def __len__(self) -> int:
        return len(self._ranks)

    def config(self, index: int) -> Config:
        ordinals = self.ordinals[index]
        return Config({n: v[o] for n, v, o in zip(self.names, self.values, ordinals, strict=True)})

    def index(self, config: Mapping[str, int]) -> int | None:
        """The number of a config; None if it is not in the pool."""
        rank = 0
        for name, values, radix in zip(self.names, self.values, self._radix, strict=True):
            if config.get(name) not in values:
                return None
            rank += values.index(config[name]) * int(radix)
        place = int(np.searchsorted(self._ranks, rank))
        return place if place < len(self._ranks) and self._ranks[place] == rank else None

    @cached_property
    def coordinates(self) -> tuple[Floats | None, ...]:
        """Per field its values on a logarithmic axis from 0 to 1; None for categories and for switches."""
        return tuple(
            None if name in self.categories or len(values) < 3 else _log_axis(values)
            for name, values in zip(self.names, self.values, strict=True)
        )

    @cached_property
    def features(self) -> Floats:
        """Ordinals scaled to [0, 1] per field, shape [len(self), fields]."""
        spans = np.array([max(1, len(v) - 1) for v in self.values], dtype=np.float64)
        return self.ordinals / spans

    def neighbours(self, index: int) -> Indices:
        """Configs that differ in exactly one field, in any of its values."""
        own = self._ranks[index]
        steps = [
            own + (np.arange(len(values)) - self.ordinals[index, f]) * self._radix[f]
            for f, values in enumerate(self.values)
        ]
        ranks = np.unique(np.concatenate(steps))
        places = np.minimum(np.searchsorted(self._ranks, ranks), len(self._ranks) - 1)
        found = places[self._ranks[places] == ranks]
        return np.asarray(found[found != index], dtype=np.int64)

    def nearest(self, params: Mapping[str, float], free: npt.NDArray[np.bool_]) -> int:
        """The free config closest to a point between the values, in scaled ordinals."""
        point = np.array(
            [
                np.interp(params[name], values, np.arange(len(values))) / max(1, len(values) - 1)
                for name, values in zip(self.names, self._sorted_values, strict=True)
            ]
        )
        distance = np.abs(self.features - point).sum(axis=1)
        distance[~free] = np.inf
        return int(np.argmin(distance))

    @cached_property
    def _sorted_values(self) -> tuple[tuple[int, ...], ...]:
        for name, values in zip(self.names, self.values, strict=True):
            if list(values) != sorted(set(values)):
                raise UsageError(f"the values of {name} are not in increasing order: {values}")
        return self.values

    def distributions(self) -> dict[str, BaseDistribution]:
        """One integer parameter per field, covering its values."""
        from optuna.distributions import IntDistribution

        return {
            name: IntDistribution(
                values[0], values[-1], log=values[0] > 0 and values[-1] >= _LOG_AXIS * values[0]
            )
            for name, values in zip(self.names, self._sorted_values, strict=True)
        }

    @cached_property
    def hash(self) -> str:
        """Identifies fields, values and which points are legal."""
        digest = hashlib.sha256(json.dumps([self.names, self.values]).encode())
        digest.update(self._ranks.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def _enumerate(spec: KernelSpec, case: Case, target: Target, space: Space) -> Indices:
    """Ordinals of the legal points, in the order of the space."""
    names, values = list(space.fields), list(space.fields.values())
    rows = []
    for ordinals in itertools.product(*(range(len(v)) for v in values)):
        config = Config({n: v[o] for n, v, o in zip(names, values, ordinals, strict=True)})
        if space.illegal(spec, case, config, target) is None:
            rows.append(ordinals)
    return np.array(rows, dtype=np.int64).reshape(len(rows), len(names))


def _ordinals(space: Space, config: Mapping[str, int]) -> list[int]:
    try:
        return [values.index(config[name]) for name, values in space.fields.items()]
    except (KeyError, ValueError):
        raise UsageError(
            f"config {config} is not a point of the space {dict(space.fields)}"
        ) from None


def _with(ordinals: Indices, space: Space, default: Config) -> Indices:
    own = np.array([_ordinals(space, default)], dtype=np.int64)
    return ordinals if (ordinals == own).all(axis=1).any() else np.concatenate([ordinals, own])


def _load(path: Path | None, fields: int) -> Indices | None:
    """The points kept in a file; None if there are none or the file is damaged."""
    if path is None or not path.exists():
        return None
    try:
        found = np.load(path).astype(np.int64)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.ndim == 2 and found.shape[1] == fields else None


def _save(path: Path | None, ordinals: Indices) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{os.getpid()}-{path.name}")
    np.save(fresh, ordinals.astype(np.int16))
    fresh.replace(path)


def _log_axis(values: tuple[int, ...]) -> Floats:
    lowest = min(values)
    axis = np.log2(np.array(values, dtype=np.float64) + (1 - lowest if lowest <= 0 else 0))
    return np.asarray((axis - axis.min()) / np.ptp(axis), dtype=np.float64)


def _radix(values: tuple[tuple[int, ...], ...]) -> Indices:
    radix, product = [], 1
    for choices in reversed(values):
        radix.append(product)
        product *= len(choices)
    return np.array(radix[::-1], dtype=np.int64)
