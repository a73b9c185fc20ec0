"""Which labels a case is given, by whom, and what could not be settled: a human's word above the table's above the report's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medvl.data.identity import folder_key
from medvl.dataset.columns import finding_regions
from medvl.errors import ConfigError
from medvl.text.labels import extract
from medvl.text.report import parse_report
from medvl.text.scope import ABSENT, PRESENT

CSV, REVIEW = "csv", "review"
Place = tuple[str, str]


@dataclass(frozen=True)
class Given:
    """Labels of one case: (finding, region) to value and to source; `open` lists findings that are present nobody knows where."""

    labels: Mapping[Place, int] = field(default_factory=dict)
    sources: Mapping[Place, str] = field(default_factory=dict)
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reviews:
    """What humans decided in one results folder.

    Args:
        key: of the folder, from which its case ids are made.
        labels: case id to (finding, region) to 1 or 0.
        left: how many labels are of findings that no report rule and no list knows.
    """

    key: bytes = field(repr=False)
    labels: Mapping[str, Mapping[Place, int]] = field(repr=False)
    left: int = 0

    @property
    def n(self) -> int:
        """How many labels."""
        return sum(map(len, self.labels.values()))


def open_reviews(folder: Path, aliases: Mapping[str, str], *, unsigned: bool = False) -> Reviews:
    """The corrections of a results folder.

    Args:
        folder: that `medvl infer` wrote and somebody reviewed.
        aliases: keys of findings lists to attributes.
        unsigned: also decisions that are not signed.

    Raises:
        ConfigError: nobody reviewed anything in it, or its key is gone.
    """
    from medvl.review.corrections import corrections

    if not (folder / "key").is_file():
        raise ConfigError(f"{folder.name} has no key, so its cases cannot be matched; give the results folder itself, not a copy")
    labels: dict[str, dict[Place, int]] = {}
    left = 0
    for row in corrections(folder, unsigned=unsigned).to_dict("records"):
        name = str(row["finding"])
        name = name if name in finding_regions() else aliases.get(name, name)
        if str(row["region"]) not in finding_regions().get(name, ()):
            left += 1
            continue
        value = PRESENT if row["label"] == "present" else ABSENT
        labels.setdefault(str(row["case_id"]), {})[name, str(row["region"])] = value
    return Reviews(folder_key(folder / "key"), labels, left)


def settled(told: Mapping[Place, int], report: str, reviewed: Iterable[Mapping[Place, int]] = ()) -> Given:
    """The labels of a case.

    A label without a region, of a finding that several may have: absent and uncertain hold for all of them; present goes where
    the report says so, else to the only region that is not told absent; where neither settles it, it stays open and is not used.

    Args:
        told: (finding, region or empty) to 1, 0 or 2, from the table.
        report: its text.
        reviewed: what humans decided of the case, the last word last.
    """
    labels = {place: value for place, value in told.items() if place[1]}
    unplaced = [(name, value) for (name, region), value in told.items() if not region]
    read = extract(parse_report(report)) if any(value == PRESENT for _, value in unplaced) else {}
    left = []
    for name, value in unplaced:
        regions: Sequence[str] = finding_regions()[name]
        if value == PRESENT:
            regions = _where(name, labels, read)
            left += [] if regions else [name]
        labels |= {(name, region): value for region in regions if (name, region) not in labels}
    sources = dict.fromkeys(labels, CSV)
    for one in reviewed:
        labels |= one
        sources |= dict.fromkeys(one, REVIEW)
    return Given(dict(sorted(labels.items())), dict(sorted(sources.items())), tuple(left))


def _where(name: str, labels: Mapping[Place, int], read: Mapping[str, Mapping[str, object]]) -> Sequence[str]:
    """The regions of a finding that is present somewhere; none where that cannot be told."""
    regions = finding_regions()[name]
    given = [r for r in regions if labels.get((name, r)) == PRESENT]
    stated = [r for r in regions if read.get(r, {}).get(name) == PRESENT and labels.get((name, r)) != ABSENT]
    possible = [r for r in regions if labels.get((name, r), read.get(r, {}).get(name)) != ABSENT]
    return given or stated or (possible if len(possible) == 1 else [])


def open_counts(given: Iterable[Given]) -> dict[str, int]:
    """In how many cases each finding stayed open."""
    return dict(sorted(Counter(name for one in given for name in one.open).items()))
