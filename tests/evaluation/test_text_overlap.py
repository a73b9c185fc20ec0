"""BLEU and ROUGE-L against the libraries' own totals and a plain longest common subsequence; missing libraries are named."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from medvl.data.cohort import describe
from medvl.errors import ConfigError
from medvl.evaluation.text_overlap import overlap, rouge_l

sacrebleu = pytest.importorskip("sacrebleu")
pytest.importorskip("rouge_score")
CASES = [describe(11, 60_000 + k) for k in range(12)]
REPORTS = [" ".join(case["region_texts"].values()) for case in CASES]
DRAFTS = REPORTS[1:] + REPORTS[:1]
WHO = [case["patient_id"] for case in CASES]


def bootstrap(statistic: Callable[[np.ndarray], float], who: Sequence[str], n: int, seed: int) -> tuple[float, float]:
    """Percentile interval, patients drawn one by one."""
    names = sorted(set(who))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = rng.integers(len(names), size=len(names))
        values.append(statistic(np.concatenate([[k for k, w in enumerate(who) if w == names[d]] for d in drawn])))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def lcs_f1(a: str, b: str) -> float:
    x, y = (re.findall(r"[a-z0-9]+", t.lower()) for t in (a, b))
    table = np.zeros((len(x) + 1, len(y) + 1))
    for i, one in enumerate(x):
        for j, two in enumerate(y):
            table[i + 1, j + 1] = table[i, j] + 1 if one == two else max(table[i, j + 1], table[i + 1, j])
    n = table[-1, -1]
    return float(2 * n / (len(x) + len(y)))


def test_rouge_is_the_longest_common_subsequence() -> None:
    np.testing.assert_allclose(rouge_l(DRAFTS, REPORTS), [lcs_f1(a, b) for a, b in zip(DRAFTS, REPORTS, strict=True)], atol=1e-12)


def test_bleu_is_the_corpus_score_and_both_intervals_resample_patients() -> None:
    who = [f"P{k // 2}" for k in range(12)]
    found = overlap(DRAFTS, REPORTS, who, draws=40, seed=2)

    def bleu(rows: np.ndarray) -> float:
        own = [DRAFTS[r] for r in rows], [[REPORTS[r] for r in rows]]
        return float(sacrebleu.corpus_bleu(*own, lowercase=True).score)

    rouge = rouge_l(DRAFTS, REPORTS)
    assert found["BLEU-4"][0] == pytest.approx(bleu(np.arange(12)), abs=1e-9)
    assert found["ROUGE-L"][0] == pytest.approx(rouge.mean())
    assert found["BLEU-4"][1:] == pytest.approx(bootstrap(bleu, who, n=40, seed=2), abs=1e-9)
    assert found["ROUGE-L"][1:] == pytest.approx(bootstrap(lambda rows: float(rouge[rows].mean()), who, n=40, seed=2))


def test_a_report_against_itself() -> None:
    assert overlap(REPORTS, REPORTS, WHO, draws=5) == {
        "BLEU-4": pytest.approx((100, 100, 100)),
        "ROUGE-L": pytest.approx((1, 1, 1)),
    }


@pytest.mark.parametrize(("module", "draft"), [("sacrebleu", "a b"), ("rouge_score.rouge_scorer", "a b")])
def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch, module: str, draft: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"medvl\[reports\]"):
        overlap([draft], [draft], ["P"], draws=2)
    with pytest.raises(ConfigError, match="give one of each"):
        overlap([draft], [], ["P"])
