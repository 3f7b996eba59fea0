"""Configs and tunable spaces: what may vary, which combinations are legal, and why others are not."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.errors import UsageError, unknown

if TYPE_CHECKING:
    from tilewright.cases import Case
    from tilewright.spec import KernelSpec
    from tilewright.targets import Target


# Names the family's default config of a target, where a config is asked for.
BASELINE = "baseline"


class Config(Mapping[str, int]):
    """One point of a family's tunable space: field name to integer, immutable and hashable."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, int] | None = None, **fields: int) -> None:
        self._values = MappingProxyType(
            {k: int(v) for k, v in {**(values or {}), **fields}.items()}
        )

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values.items())))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and dict(self._values) == dict(other)

    def __repr__(self) -> str:
        return self.json()

    def __reduce__(self) -> tuple[type[Config], tuple[dict[str, int]]]:
        return Config, (dict(self._values),)

    def json(self) -> str:
        """Compact JSON with the fields in their order: the text form used everywhere."""
        return json.dumps(dict(self._values), separators=(",", ":"))


Predicate = Callable[["KernelSpec", "Case", Config, "Target"], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named validity rule: returns the reason a config is illegal, or None."""

    name: str
    check: Predicate


class Space:
    """The values each field may take, with the rules that make a combination legal."""

    def __init__(self, rules: tuple[Rule, ...] = (), /, **fields: tuple[int, ...]) -> None:
        self.fields: Mapping[str, tuple[int, ...]] = MappingProxyType(dict(fields))
        self.rules = rules

    def where(self, *rules: Rule) -> Space:
        """The same fields under further rules."""
        return Space(self.rules + rules, **self.fields)

    @property
    def size(self) -> int:
        """Number of combinations, legal or not."""
        total = 1
        for values in self.fields.values():
            total *= len(values)
        return total

    def points(self) -> Iterator[Config]:
        """Every combination in lexicographic order of the declared fields."""
        names = list(self.fields)
        for values in itertools.product(*self.fields.values()):
            yield Config(dict(zip(names, values, strict=True)))

    def illegal(self, spec: KernelSpec, case: Case, config: Config, target: Target) -> str | None:
        """Why this config cannot run this case on this target; None if it can."""
        for rule in self.rules:
            reason = rule.check(spec, case, config, target)
            if reason:
                return reason
        return None

    def pool(self, spec: KernelSpec, case: Case, target: Target) -> list[Config]:
        """The legal configs, in the order of `points`."""
        return [c for c in self.points() if self.illegal(spec, case, c, target) is None]

    def complete(self, given: Mapping[str, int], default: Config) -> Config:
        """The default with some fields replaced; raises UsageError for a field or a value that does not exist."""
        for name, value in given.items():
            if name not in self.fields:
                raise unknown("config field", name, list(self.fields))
            if value not in self.fields[name]:
                raise unknown(f"value of {name}", value, list(self.fields[name]))
        return Config(
            {
                name: given.get(name, default.get(name, values[0]))
                for name, values in self.fields.items()
            }
        )


def parse_config(text: str) -> dict[str, int]:
    """`--config` to a dict: JSON, or `baseline` for no change of it; raises UsageError saying what is wrong."""
    if text == BASELINE:
        return {}
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"--config is not JSON ({error.msg} at column {error.colno}): {text}"
        ) from None
    if not isinstance(values, dict) or not all(
        isinstance(v, int) and not isinstance(v, bool) for v in values.values()
    ):
        raise UsageError(
            f'--config must be {BASELINE} or an object of integers such as {{"tile_m":64}}, not {text}'
        )
    return values
