"""Which fields of a config decide: importance from the trials of a study, whoever made them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

# Below this many trials with a value, shares would be noise.
FEWEST = 10
# Failed trials rank behind everything: this many times the slowest value.
_FAILED = 10.0


def shares(
    configs: Sequence[Mapping[str, Any]], values: Sequence[float | None]
) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al., IJCAI 2023, as Optuna has it) over the fields; the shares add up to 1.

    It compares how each field is distributed among the best trials with all of them, so that a field
    that is the same in good and bad ones counts nothing. A value of None is a failure and ranks last.
    Empty where there are too few trials, or nothing varies.
    """
    good = [v for v in values if v is not None]
    names = [n for n in _common(configs) if len({_word(c[n]) for c in configs}) > 1]
    if len(good) < FEWEST or not names or min(good) == max(good):
        return {}
    import optuna
    from optuna.distributions import CategoricalDistribution
    from optuna.importance import PedAnovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    last = _FAILED * max(abs(v) for v in good)
    known = {n: CategoricalDistribution(sorted({_word(c[n]) for c in configs})) for n in names}
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={n: _word(c[n]) for n in names},
                distributions=dict(known),
                value=last if v is None else v,
            )
            for c, v in zip(configs, values, strict=True)
        ]
    )
    # Of few trials a tenth would be a handful.
    quantile = min(0.5, max(0.1, FEWEST / len(values)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        found = evaluator.evaluate(study)
    total = sum(v for v in found.values() if math.isfinite(v))
    return {n: v / total for n, v in found.items() if math.isfinite(v)} if total > 0 else {}


def _common(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that every config has, in the order of the first."""
    return [n for n in configs[0] if all(n in c for c in configs)] if configs else []


def _word(value: Any) -> str:
    return str(value)
