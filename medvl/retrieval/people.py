"""Who in an index is a given person, by the links of `medvl.data.person`, and of whom the index cannot tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from medvl.data.person import Likeness, compared
from medvl.retrieval.entry import Entry
from medvl.retrieval.view import View

PERSON = "person"
UNTOLD = (Likeness.no_link, Likeness.other_key, Likeness.no_number)
_ORDER = (Likeness.same, *UNTOLD, Likeness.other)  # of a patient whose cases carry different links the first of these holds
_LINKS = (
    "SELECT patient, coalesce(json_extract(extra, '$.person'), '') AS links, count(*) FROM entries GROUP BY patient, links "
    "ORDER BY patient, links"
)


@dataclass(frozen=True)
class People:
    """What an index tells of one person.

    Args:
        same: patients of the index who are this person.
        n: how many patients the index holds; cases of no named patient count as one each.
        untold: how many of them may be this person for all that is known, by why it cannot be told.
    """

    same: tuple[str, ...] = ()
    n: int = 0
    untold: Mapping[Likeness, int] = field(default_factory=dict)


def person_in(entry: Entry) -> str:
    """The links of an entry's patient; empty where it carries none."""
    return str(entry.extra.get(PERSON, ""))


def people_of(view: View, person: str) -> People:
    """Compare a person with every patient of the index."""
    best: dict[str, Likeness] = {}
    counts: Counter[Likeness] = Counter()
    for patient, links, n in view.base.execute(_LINKS):
        found = compared(person, links)
        if patient is None:
            counts[found] += n
        else:
            best[patient] = min(best.get(patient, found), found, key=_ORDER.index)
    counts.update(best.values())
    same = tuple(patient for patient, found in best.items() if found is Likeness.same)
    return People(same, counts.total(), {why: counts[why] for why in UNTOLD if counts[why]})
