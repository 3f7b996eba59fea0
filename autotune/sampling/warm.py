"""The donors of a study: chosen when it is made and kept with it, so that a resumed study goes on with the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.autotune.store.catalogue import related
from tilewright.autotune.store.donors import Donor, donors

if TYPE_CHECKING:
    from optuna.study import Study

    from tilewright.autotune.provenance import StudyKey
    from tilewright.autotune.sampling.pool import Pool
    from tilewright.autotune.sharing.storage import Place

_KEPT = "donors"
# Of the closest donors so many, of each so many configs: a quarter of 32 trials is all that is ever borrowed.
_MOST_DONORS, _MOST_CONFIGS = 4, 64


def choose(study: Study, place: Place, key: StudyKey, pool: Pool, wanted: bool) -> None:
    """Find the donors of a study that has no trial yet and write them to it, once; none where none are wanted."""
    if _KEPT in study.user_attrs or study.get_trials(deepcopy=False):
        return
    found = donors(related(place, key), key, pool)[:_MOST_DONORS] if wanted else ()
    kept = [
        {
            "name": one.name,
            "configs": list(one.configs[:_MOST_CONFIGS]),
            "values": list(one.values[:_MOST_CONFIGS]),
        }
        for one in found
    ]
    study.set_user_attr(_KEPT, kept)


def chosen(study: Study) -> tuple[Donor, ...]:
    """The donors written to a study."""
    return tuple(
        Donor(one["name"], tuple(one["configs"]), tuple(one["values"]))
        for one in study.user_attrs.get(_KEPT, ())
    )
