"""The samples of one kind of region in a cohort, with all that objectives may ask of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.data.cohort import Cohort
from medvl.data.phases import available, pick_phase
from medvl.data.statements import RegionTexts, Statements, ontology_of, region_texts
from medvl.data.targets import KindTargets
from medvl.imaging.preprocess import MIN_COVERED
from medvl.recipe import Recipe, ReportText
from medvl.text import faithful
from medvl.text.relations import Concepts, relation_matrix, relations
from medvl.text.report import split_sentences
from medvl.text.templates import template_text
from medvl.text.visible import visible_sentences


@dataclass(frozen=True, eq=False)
class KindData:
    """One kind's share of a cohort, ready to draw batches from.

    Args:
        index: number of the kind; kind: its regions and attributes; texts: rows that have a report.
        cohort: where the crops are.
        windows_hu: of its regions.
        marks: bits of where findings lie, by patient and region, or None.
    """

    index: int
    kind: KindTargets
    texts: RegionTexts
    cohort: Cohort
    windows_hu: tuple[tuple[float, float], ...]
    marks: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def crop(self, row: int, rng: np.random.Generator | None = None) -> NDArray[np.int16]:
        """(D, H, W) int16 HU of one row: of its patient's main scan, or with `rng` of any that covers the region.

        Generators in the same state pick the same scan for all of a patient's regions of this kind, among the scans that hold
        all that the patient has of them; only where no scan does, each region's is picked for itself.
        """
        place, column = int(self.texts.rows[row]), int(self.texts.columns[row])
        if rng is None or self.cohort.phase_hu is None:
            return np.asarray(self.cohort.hu[place, column])
        mine = self.there[place][:, [self.cohort.regions.index(name) for name in self.kind.regions]]
        whole = mine[:, mine.any(axis=0)].all(axis=1)
        there = whole if whole.any() else self.there[place, :, column]
        return np.asarray(self.cohort.phase_hu[place, int(pick_phase(rng, there[None])[0]), column])

    def one_scan(self, scan: int) -> tuple[KindData, NDArray[np.int64]]:
        """The rows whose patient's scan of that number holds the region, as if there were no other scan, and their numbers."""
        if self.cohort.phase_hu is None or self.cohort.phase_covered is None:
            raise ValueError("these patients have single scans")
        rows = np.flatnonzero(self.there[self.texts.rows, scan, self.texts.columns])
        hu, covered = self.cohort.phase_hu[:, scan], self.cohort.phase_covered[:, scan]
        cohort = replace(self.cohort, hu=hu, covered=covered, phase_hu=None, phase_covered=None, phases=())
        said = self.texts
        texts = RegionTexts(said.rows[rows], said.columns[rows], [said.sentences[int(r)] for r in rows], said.targets[rows])
        return replace(self, texts=texts, cohort=cohort), rows

    @cached_property
    def there(self) -> NDArray[np.bool_]:
        """(N, P, R) which scans each patient has."""
        return available(self.cohort, MIN_COVERED)

    def crops(self, rows: NDArray[np.int64]) -> NDArray[np.int16]:
        """(B, D, H, W) int16 HU of rows."""
        return np.stack([self.crop(int(row)) for row in rows])

    def marked(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B, d, h, w) bits of rows; asked only of samples that have them."""
        if self.marks is None:
            raise ValueError("these samples have no marks")
        return np.stack([self.marks[r, c] for r, c in zip(self.texts.rows[rows], self.texts.columns[rows], strict=True)])

    @cached_property
    def templates(self) -> list[list[str]]:
        """Each row's labels as sentences of one grammar; its report where that states nothing of what is labelled."""
        ontology, columns = ontology_of(self.kind), self.cohort.regions
        stated = [
            template_text(self.cohort.cases[int(row)]["labels"].get(columns[int(column)], {}), ontology)
            for row, column in zip(self.texts.rows, self.texts.columns, strict=True)
        ]
        return [made or said for made, said in zip(stated, self.texts.sentences, strict=True)]

    def duplicates(self, report_text: ReportText = "free") -> NDArray[np.int64]:
        """(N,) numbers, equal where two rows have the same text."""
        return np.unique([" ".join(parts) for parts in self._said(report_text)], return_inverse=True)[1]

    def _said(self, report_text: ReportText) -> list[list[str]]:
        return self.templates if report_text == "templates" else self.texts.sentences

    @cached_property
    def outcomes(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]] | None:
        """(N,) follow-up in days, NaN where unknown, and (N,) event of each row's patient; None where no row has any."""
        _, time, event = ages_and_outcomes(self.cohort.cases)
        days = time[self.texts.rows].astype(np.float32)
        known = np.isfinite(days)
        return (days, event[self.texts.rows] & known) if known.any() else None

    def sentences(self, *, visible_only: bool, strip_numbers: bool, report_text: ReportText = "free") -> list[list[str]]:
        """Each row's report in sentences.

        Args:
            visible_only: only those that an image can show, or all of a row's when none would be left.
            strip_numbers: cleaned before that as the RenalCLIP release does, and split anew.
            report_text: the reports as they are written, or as `templates` states them, before either.
        """
        said = self._said(report_text)
        if strip_numbers:
            said = [split_sentences(faithful.strip_numbers(" ".join(parts))) or parts for parts in said]
        return [list(visible_sentences(parts).kept) or parts for parts in said] if visible_only else said

    def relations(self, concepts: Concepts) -> NDArray[np.int8]:
        """(N, A, F) relations that each row's text states."""
        ontology = ontology_of(self.kind)
        graphs = [relations(" ".join(parts), ontology) for parts in self.texts.sentences]
        return np.stack([relation_matrix(graph, concepts) for graph in graphs])


def kind_data(recipe: Recipe, cohort: Cohort, marks: NDArray[np.uint8] | None = None) -> dict[str, KindData]:
    """Per kind: its usable regions with texts and labels."""
    contract = recipe.input_contract
    usable = cohort.covered >= MIN_COVERED
    return {
        name: KindData(
            index,
            kind,
            region_texts(cohort.cases, kind, cohort.regions, usable),
            cohort,
            contract[kind.regions[0]].windows_hu,
            marks,
        )
        for index, (name, kind) in enumerate(recipe.kinds.items())
    }


def arranged(parts: Sequence[str], rng: np.random.Generator, drop: float = 0.0) -> str:
    """The sentences in a random order, each left out with probability `drop`, never all of them."""
    order = rng.permutation(len(parts))
    kept = [parts[i] for i in order if rng.random() >= drop] or [parts[int(order[0])]]
    return " ".join(kept)


class StatementDraw:
    """Draws statements so that every value of every attribute comes equally often, whatever its prevalence."""

    def __init__(self, pool: Statements) -> None:
        targets = pool.targets
        groups = [np.flatnonzero(targets.binary[:, k] == value) for k in range(targets.binary.shape[1]) for value in (0, 1)]
        for c in range(targets.classes.shape[1]):
            groups += [
                np.flatnonzero(targets.classes[:, c] == value) for value in range(int(targets.classes[:, c].max(initial=-1)) + 1)
            ]
        groups += [np.flatnonzero(np.isfinite(targets.numbers[:, m])) for m in range(targets.numbers.shape[1])]
        self._groups = [g for g in groups if len(g)]

    def __call__(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(n,) statement numbers, with repeats across groups possible."""
        picks = rng.integers(len(self._groups), size=n)
        return np.array([rng.choice(self._groups[g]) for g in picks], dtype=np.int64)


def ages_and_outcomes(cases: Sequence[Mapping[str, Any]]) -> tuple[list[float | None], NDArray[np.float64], NDArray[np.bool_]]:
    """Age in years (or None), follow-up in days and event of every case.

    An outcome is known where both its parts are: a follow-up without word of the event is not censoring, so its time is NaN too.
    """
    truths = [case.get("truth") or {} for case in cases]
    known = [_is_known(t.get("time_days")) and _is_known(t.get("event")) for t in truths]
    time = np.array([t["time_days"] if k else np.nan for t, k in zip(truths, known, strict=True)], dtype=np.float64)
    event = np.array([k and bool(t["event"]) for t, k in zip(truths, known, strict=True)], dtype=bool)
    return [t.get("age_years") for t in truths], time, event


def half_known(cases: Sequence[Mapping[str, Any]]) -> int:
    """Cases of which only the follow-up or only the event is known; no model learns from them and no number counts them."""
    truths = [case.get("truth") or {} for case in cases]
    return sum(_is_known(t.get("time_days")) != _is_known(t.get("event")) for t in truths)


def _is_known(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))
