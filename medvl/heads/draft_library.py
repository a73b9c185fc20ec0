"""Training reports to take sentences from: those nearest to an image, and what of their sentences may be said again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medvl.errors import ConfigError
from medvl.evaluation.embedded import Embedded
from medvl.heads.draft_statements import Stated, ontology_for, statements_of
from medvl.heads.drafts import Verdict
from medvl.text.labels import measures
from medvl.text.report import side_of, topics_of
from medvl.text.scope import PRESENT
from medvl.text.visible import visible_sentences

SIZE_MARK = "[size to be measured]"
_UNVERIFIED = (
    re.compile(  # counts, sizes in words, comparisons, interpretations, advice: nothing that a verdict of present bears out
        r"\d|\b(?:two|three|four|five|several|multiple|few|numerous|pair|small|large|tiny|huge|bulky|giant|sub-?centimet\w+"
        r"|new|newly|unchanged|stable|again|known|increas\w+|decreas\w+|enlarging|grow\w*|previous\w*|prior|former\w*"
        r"|suspicious|malignan\w+|benign|likely|probabl\w+|(?:consistent|compatible|in keeping) with|suggest\w*|carcinoma\w*"
        r"|follow-?\s?up|recommend\w*|advi[sc]\w*|need\w*|require\w*|correlat\w*|biops\w*|consider\w*)\b",
        re.IGNORECASE,
    )
)


@dataclass(frozen=True)
class Taken:
    """A sentence that may be said again, and where it came from."""

    stated: Stated
    neighbour: str
    likeness: float


@dataclass(frozen=True, eq=False)
class ReportLibrary:
    """Texts of training regions with their embeddings.

    Args:
        embedding: (N, E) float32 unit embeddings of the texts.
        patient_ids, regions, texts: of each row.
    """

    embedding: NDArray[np.float32]
    patient_ids: tuple[str, ...]
    regions: tuple[str, ...]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        """Rows must fit one another and hold no NaN."""
        lengths = {len(self.embedding), len(self.patient_ids), len(self.regions), len(self.texts)}
        if len(lengths) > 1 or not np.isfinite(self.embedding).all():
            raise ConfigError("a report library needs one finite embedding, patient, region and text a row")

    @classmethod
    def from_embedded(cls, cohort: Embedded) -> ReportLibrary:
        """The regions of an embedded cohort that have a report."""
        told = np.asarray(cohort.rows["report"] != "") & np.isfinite(cohort.report_embedding).all(1)
        rows = cohort.rows[told]
        names = (tuple(map(str, rows[name])) for name in ("patient_id", "region", "report"))
        return cls(np.ascontiguousarray(cohort.report_embedding[told]), *names)

    def nearest(
        self, embedding: ArrayLike, region: str, k: int, *, exclude: Sequence[str] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the same region and their cosine with an image's unit embedding (E,), the most alike first, ties by row."""
        allowed = np.array([r == region and p not in exclude for r, p in zip(self.regions, self.patient_ids, strict=True)])
        rows = np.flatnonzero(allowed)
        likeness = self.embedding[rows] @ np.asarray(embedding, dtype=np.float32)
        order = np.argsort(-likeness, kind="stable")[:k]
        return rows[order], likeness[order]

    def sentences(self, rows: NDArray[np.int64], likeness: NDArray[np.float32]) -> Iterator[Taken]:
        """Sentences of rows, in order, that may be said again of another patient."""
        for row, score in zip(rows, likeness, strict=True):
            region = self.regions[row]
            for stated in statements_of(self.texts[row], ontology_for(region)):
                if not stated.refers:
                    for again in reusable(stated.text, region):
                        yield Taken(again, self.patient_ids[row], float(score))


class Lookup:
    """Sentences that are read only as far as somebody asks, and only once however often they are gone through."""

    def __init__(self, source: Iterable[Taken] = ()) -> None:
        self._source, self._read = iter(source), list[Taken]()

    def __iter__(self) -> Iterator[Taken]:
        for k in count():
            if k == len(self._read):
                following = next(self._source, None)
                if following is None:
                    return
                self._read.append(following)
            yield self._read[k]


@lru_cache(maxsize=1 << 15)
def reusable(sentence: str, region: str) -> tuple[Stated, ...]:
    """The sentence as it may be said of another patient, or nothing.

    Comparisons and advice go, lengths become `SIZE_MARK`. Sentences that still give a number, a count, a grade or a place, name
    the other side or another organ, or do not stand alone, are not used: nothing that the model has said bears them out.
    """
    kept: list[Stated] = []
    for text in map(unmeasured, visible_sentences([sentence]).kept):
        topic, _, side = region.partition("_")
        if _UNVERIFIED.search(text.replace(SIZE_MARK, "")) or side_of(text) not in {None, side or None}:
            continue
        if topics_of(text) - {topic}:
            continue
        found = statements_of(text, ontology_for(region))
        if len(found) == 1 and found[0].status and not found[0].extra and not found[0].refers:
            kept.append(found[0])
    return tuple(kept)


def unmeasured(text: str) -> str:
    """The text with every length replaced by `SIZE_MARK`."""
    for start, end, _ in reversed(list(measures(text))):
        text = text[:start] + SIZE_MARK + text[end:]
    return text


def states_exactly(stated: Stated, attribute: str, verdicts: Mapping[str, Verdict], traits: Mapping[str, str]) -> bool:
    """Whether a sentence says that a finding is present, and beside it only traits of it that the verdicts bear out.

    Args:
        stated: the sentence.
        attribute: the finding.
        verdicts: of its region, by attribute.
        traits: attribute to the finding whose trait it is.
    """
    if stated.status.get(attribute) != PRESENT:
        return False
    others = {key: value for key, value in stated.status.items() if key != attribute}
    return all(
        traits.get(key) == attribute
        and key in verdicts
        and verdicts[key].verdict == ("present" if value == PRESENT else "absent")
        for key, value in others.items()
    )
