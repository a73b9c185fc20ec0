"""The drift record: every comparison of a results folder, one adjustment over all, and what stands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from medvl import __version__
from medvl.doctor.drift import LEAST, Shift, against_reference, between, categories, share, stability, too_many_strange
from medvl.doctor.drift_read import UNKNOWN, Reference, Results, Seen
from medvl.evaluation.comparisons import adjust
from medvl.records import RESEARCH_USE

SCHEMA = "medvl.drift/1"
ALARM = 0.05
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
ALL = "all studies"
Row = dict[str, Any]


def drift_record(results: Results, reference: Reference | None, by: Sequence[str]) -> Row:
    """Plain values for JSON.

    Args:
        results: of one bundle.
        reference: what that bundle holds of its validation patients; None compares groups with each other only.
        by: columns to group by.
    """
    studies = results.studies
    groups = {column: dict(sorted(Counter(s.groups[column] for s in studies).items())) for column in by}
    tests: list[Row] = []
    for column, value, own in _scopes(studies, groups):
        here: Row = {"by": column, "group": value}
        tests += [{**here, **row} for row in _against_reference(own, reference)]
        tests += [{**here, **row} for row in _strange(own, reference)]
        if column:
            rest = [s for s in studies if s.groups[column] != value]
            tests += [{**here, **row} for row in _against_rest(own, rest, column, by)]
    for row, p in zip(tests, adjust([row["p"] for row in tests]) if tests else (), strict=True):
        row["p_adjusted"] = float(p)
        row["alarm"] = bool(p < ALARM)
    return {
        "schema": SCHEMA,
        "software": f"medvl {__version__}",
        "use": RESEARCH_USE,
        "bundle": dict(results.bundle),
        "labels": dict(results.labels),
        "studies": {**results.statuses, "compared": len(studies), "other_bundles": results.other_bundles},
        "least": LEAST,
        "groups": groups,
        "too_small": [[column, value, n] for column, held in groups.items() for value, n in held.items() if n < LEAST],
        "tests": tests,
        "alarms": [row for row in tests if row["alarm"]],
        "scores": _scores(studies, reference),
        "verdicts": _verdicts(studies, reference),
        "familiarity": _spreads(studies, groups),
        "inputs": _input_spreads(studies, groups),
        "notes": _notes(results, reference, groups, len(tests)),
    }


def _scopes(studies: Sequence[Seen], groups: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str, list[Seen]]]:
    """All studies, then every group that is large enough and not all of them."""
    if len(studies) >= LEAST:
        yield "", ALL, list(studies)
    for column, held in groups.items():
        for value, n in held.items():
            if LEAST <= n < len(studies) and value != UNKNOWN:
                yield column, value, [s for s in studies if s.groups[column] == value]


def _questions(studies: Sequence[Seen]) -> list[tuple[str, str]]:
    return sorted({key for s in studies for key in s.answers})


def _chosen(studies: Sequence[Seen], reference: Reference | None) -> list[tuple[str, str]]:
    """Questions asked of every region that was read; those asked on a condition have no even percentiles."""
    given = reference.given if reference else frozenset()
    skipped = {
        (finding, region)
        for finding, region in _questions(studies)
        if any((finding, region) not in s.answers for s in studies if (r := s.regions.get(region)) and r.distance is not None)
    }
    return [key for key in _questions(studies) if key[0] not in given and key not in skipped]


def _against_reference(studies: Sequence[Seen], reference: Reference | None) -> Iterator[Row]:
    if reference is None:
        return
    for finding, region in _chosen(studies, reference):
        n = reference.rows.get(region, 0)
        found = [a.percentile for s in studies if (a := s.answers.get((finding, region))) and a.percentile is not None]
        if n >= LEAST and len(found) >= LEAST:
            index, limit, _ = stability(found, n)
            row = _row("score", finding, region, "the bundle's reference", against_reference(found, n))
            yield {**row, "psi": index, "psi_limit": limit}


def _strange(studies: Sequence[Seen], reference: Reference | None) -> Iterator[Row]:
    for region in sorted({name for s in studies for name in s.regions}):
        looked = [r for s in studies if (r := s.regions.get(region)) and r.distance is not None]
        if len(looked) < LEAST:
            continue
        k, looks = sum(r.strange for r in looked), reference.looks.get(region, 1) if reference else 2
        p = too_many_strange(k, len(looked), looks)
        shift = Shift(k / len(looked), p, None, len(looked), 0)
        yield _row("unfamiliar", "", region, f"at most {0.5 * looks:g} % in validation", shift)


def _against_rest(own: Sequence[Seen], rest: Sequence[Seen], column: str, by: Sequence[str]) -> Iterator[Row]:
    """One group beside all others: what came in, how familiar it was, what was answered."""
    if len(rest) < LEAST:
        return
    for name in sorted({k for s in own for k in s.inputs}):
        yield from _compared("input", name, "", [s.inputs.get(name) for s in own], [s.inputs.get(name) for s in rest])
    for other in by:
        mine, theirs = ([s.groups[other] for s in part if s.groups[other] != UNKNOWN] for part in (own, rest))
        if other not in (column, "week") and min(len(mine), len(theirs)) >= LEAST and len({*mine, *theirs}) > 1:
            yield _row("input", other, "", "the other groups", categories(mine, theirs))
    for region in sorted({name for s in own for name in s.regions}):
        far = [[r.distance for s in part if (r := s.regions.get(region))] for part in (own, rest)]
        yield from _compared("distance", "", region, *far)
    for finding, region in _chosen([*own, *rest], None):
        said = [[a.margin for s in part if (a := s.answers.get((finding, region)))] for part in (own, rest)]
        yield from _compared("score", finding, region, *said)


def _compared(what: str, name: str, region: str, mine: Sequence[float | None], theirs: Sequence[float | None]) -> Iterator[Row]:
    a, b = ([v for v in part if v is not None] for part in (mine, theirs))
    if min(len(a), len(b)) >= LEAST and len({*a, *b}) > 1:
        yield _row(what, name, region, "the other groups", between(a, b))


def _row(what: str, name: str, region: str, against: str, shift: Shift) -> Row:
    return {"what": what, "name": name, "region": region, "against": against, **asdict(shift)}


def _scores(studies: Sequence[Seen], reference: Reference | None) -> list[Row]:
    """Counts of percentiles by tenths of the reference, for every question that has one."""
    out = []
    for finding, region in _chosen(studies, reference):
        found = [a.percentile for s in studies if (a := s.answers.get((finding, region))) and a.percentile is not None]
        if reference and found and reference.rows.get(region):
            _, _, counts = stability(found, reference.rows[region])
            out.append({"finding": finding, "region": region, "n": len(found), "counts": counts})
    return out


def _verdicts(studies: Sequence[Seen], reference: Reference | None) -> list[Row]:
    """Shares of verdicts, beside the share of validation regions that were labelled present."""
    out = []
    for finding, region in _questions(studies):
        said = Counter(a.verdict for s in studies if (a := s.answers.get((finding, region))))
        decided = said["present"] + said["absent"]
        row: Row = {"finding": finding, "region": region, "present": share(said["present"], decided)}
        row["undecided"] = share(said["undecided"], decided + said["undecided"])
        known = reference.counts.get(finding) if reference else None
        row["validation"] = known[0] / sum(known) if known and sum(known) else None
        out.append(row)
    return out


def _spreads(studies: Sequence[Seen], groups: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Distance over its limit by region and group, as quantiles, with the share of regions that were unfamiliar."""
    out = []
    for region in sorted({name for s in studies for name in s.regions}):
        for column, value, own in _all_groups(studies, groups):
            looked = [r for s in own if (r := s.regions.get(region)) and r.distance is not None and r.limit]
            ratios = [r.distance / r.limit for r in looked if r.distance is not None and r.limit]
            strange = share(sum(r.strange for r in looked), len(looked))
            out.append({"region": region, "by": column, "group": value, "quantiles": _quantiles(ratios), "unfamiliar": strange})
    return out


def _input_spreads(studies: Sequence[Seen], groups: Mapping[str, Mapping[str, int]]) -> list[Row]:
    names = sorted({k for s in studies for k in s.inputs})
    return [
        {
            "name": name,
            "by": column,
            "group": value,
            "n": len(own),
            "quantiles": _quantiles([s.inputs[name] for s in own if name in s.inputs]),
        }
        for name in names
        for column, value, own in _all_groups(studies, groups)
    ]


def _all_groups(studies: Sequence[Seen], groups: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str, list[Seen]]]:
    yield "", ALL, list(studies)
    for column, held in groups.items():
        for value in held if len(held) > 1 else ():
            yield column, value, [s for s in studies if s.groups[column] == value]


def _quantiles(values: Sequence[float]) -> list[float] | None:
    return [round(float(q), 4) for q in np.quantile(values, QUANTILES)] if values else None


def _notes(results: Results, reference: Reference | None, groups: Mapping[str, Mapping[str, int]], n_tests: int) -> list[str]:
    n, out = len(results.studies), []
    if n < LEAST:
        out.append(f"Only {n} studies: too few to compare (at least {LEAST}); nothing is tested.")
    if reference is None:
        out.append("The bundle was not at hand, so groups are compared with each other only; name it with --against.")
    elif not reference.rows:
        out.append(f"The bundle {reference.name} holds no reference regions, so scores are compared between groups only.")
    if results.other_bundles:
        out.append(f"{results.other_bundles} studies were done by another bundle and are left out.")
    unknown = [c for c, held in groups.items() if set(held) == {UNKNOWN}]
    if unknown:
        out.append(f"The records do not say: {', '.join(unknown)}. Studies done by an older medvl lack it.")
    out.append(
        f"{n_tests} comparisons; p values are adjusted for all of them together (Holm), so without any drift an alarm comes up "
        f"in at most {100 * ALARM:.0f} % of reports. Studies count as independent: several of one patient make p too small."
    )
    return out
