"""How many words a draft shares with a report: BLEU and ROUGE-L. They reward style; `factuality` says whether it is so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medvl.errors import ConfigError
from medvl.evaluation.factuality import Interval, resamples

_EXTRA = "BLEU and ROUGE need the extra `reports`: pip install 'medvl[reports]'"


def overlap(
    drafts: Sequence[str], references: Sequence[str], patients: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Corpus BLEU-4 and mean ROUGE-L F1 without regard to case, with 95 % intervals that resample patients.

    BLEU is sacreBLEU's from 0 to 100 with `13a` tokens and exponential smoothing; ROUGE-L, 0 to 1, does no stemming.

    Raises:
        ConfigError: the extra is not installed, nothing to compare, or lengths that differ.
    """
    if not drafts or not len(drafts) == len(references) == len(patients):
        raise ConfigError(f"{len(drafts)} drafts, {len(references)} reports and {len(patients)} patients; give one of each")
    names, row = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    counts, rouge = bleu_counts(drafts, references), rouge_l(drafts, references)
    bleus = np.zeros((len(names), counts.shape[1]))
    np.add.at(bleus, row, counts)
    picks = np.concatenate([np.arange(len(names))[None], resamples(len(names), draws, seed)])
    n_of, sum_of = np.bincount(row), np.bincount(row, weights=rouge)
    values = {
        "BLEU-4": np.array([_bleu(bleus[pick].sum(0)) for pick in picks]),
        "ROUGE-L": np.array([sum_of[pick].sum() / n_of[pick].sum() for pick in picks]),
    }
    return {
        name: (float(v[0]), *(float(q) for q in np.quantile(v[1:], [0.025, 0.975])))  # type: ignore[misc]
        for name, v in values.items()
    }


def bleu_counts(drafts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """(N, 10) matching and possible n-grams for n of 1 to 4, and lengths of draft and reference, whose sums give corpus BLEU."""
    metric = _sacrebleu().BLEU(lowercase=True, effective_order=True)
    scores = [metric.sentence_score(draft, [reference]) for draft, reference in zip(drafts, references, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.float64)


def _bleu(sums: NDArray[np.float64]) -> float:
    metric = _sacrebleu().BLEU
    whole = [int(v) for v in sums]
    return float(metric.compute_bleu(whole[:4], whole[4:8], whole[8], whole[9], smooth_method="exp").score)


def rouge_l(drafts: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """(N,) F1 of the longest common subsequence of words."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(references, drafts, strict=True)
    return np.array([scorer.score(reference, draft)["rougeL"].fmeasure for reference, draft in pairs], dtype=np.float64)


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError as error:
        raise ConfigError(_EXTRA) from error
    return metrics
