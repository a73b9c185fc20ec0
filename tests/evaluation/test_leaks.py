"""Leaks that were put in are found, those that were not are not, and normal reports of one wording are none."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pretend import cohort

from medvl.evaluation.leaks import leaks, near_reports, normalised, shingles
from medvl.evaluation.protocol import LeakLimits

LIMITS = LeakLimits()


def test_other_patients_are_no_leak() -> None:
    found = leaks(cohort(60), {"train": cohort(80, seed=3, offset=500)}, LIMITS)
    assert not found["found"]
    assert found["splits"]["train"]["images"]["compared"] > 90
    assert "na" not in found


def test_without_another_split_that_is_said() -> None:
    assert leaks(cohort(20), {}, LIMITS)["na"].startswith("no other split was given")


def test_each_kind_of_leak_is_found() -> None:
    test, train = cohort(60), cohort(80, seed=3, offset=500)
    rng = np.random.default_rng(0)
    pooled = train.pooled.copy()
    at = int(np.flatnonzero(test.usable & train.usable[: len(test)])[4])
    pooled[at] = test.pooled[at] + rng.normal(scale=1e-3, size=12)
    rows = train.rows.copy()
    rows.loc[10:11, "report"] = [t.upper().replace(" ", ",  ") for t in test.rows["report"][20:22]]
    found = leaks(test, {"train": replace(train, pooled=pooled, rows=rows)}, LIMITS)
    part = found["splits"]["train"]
    assert found["found"]
    assert part["images"]["n"] == 1
    assert part["images"]["examples"][0]["patient"] == test.rows["patient_id"][at]
    assert [(e["patient"], e["other"], e["overlap"]) for e in part["reports"]["examples"]] == [("P0010", "P0505", 1.0)]
    assert part["patients"]["n"] == 0
    same = leaks(test, {"train": cohort(80, seed=4, offset=55)}, LIMITS)
    assert same["splits"]["train"]["patients"] == {"n": 5, "examples": [f"P00{i}" for i in range(55, 60)]}


def test_images_of_another_model_are_not_compared() -> None:
    found = leaks(cohort(20), {"train": cohort(20, offset=500, model_sha256="x")}, LIMITS)
    assert "another model" in found["splits"]["train"]["images"]["na"]


def test_identical_normal_reports_are_boilerplate() -> None:
    normal = "The kidneys are of normal size and shape. There is no mass, no stone and no hydronephrosis on either side."
    odd = "A spiculated 3.7 cm lesion abuts the left psoas muscle, with two satellite nodules of 4 and 6 mm caudally."
    mine = {f"a{i}": normal for i in range(20)} | {"leaked": f"{normal} {odd}"}
    theirs = {f"b{i}": normal for i in range(20)} | {"source": f"{odd.replace('abuts', 'touches')} {normal}"}
    found = near_reports(mine, theirs, LeakLimits(text_overlap=0.5))
    assert (found["n"], found["judged"], found["boilerplate"], found["identical_boilerplate"]) == (1, 1, 20, 20)
    assert found["examples"][0]["other"] == "source"


def test_overlap_is_the_share_of_five_word_phrases() -> None:
    one, two = "a b c d e f g h i j k l m n", "x a b c d e f g h i j k l y"
    found = near_reports({"p": one}, {"q": two}, LeakLimits(text_overlap=0.5, text_phrases=3))
    words = [w.split() for w in (one, two)]
    grams = [{tuple(w[i : i + 5]) for i in range(len(w) - 4)} for w in words]
    assert found["examples"][0]["overlap"] == pytest.approx(len(grams[0] & grams[1]) / len(grams[0]), abs=1e-3)


def test_words_lose_case_and_punctuation_but_numbers_keep_decimals() -> None:
    assert normalised("A 3.5-cm MASS; left.") == ["a", "3.5", "cm", "mass", "left"]
    assert shingles("one two") == {"one two"}
    assert shingles("") == set()


def test_twins_within_the_cohort_are_told_apart_from_leaks() -> None:
    table = cohort(40)
    usable = np.flatnonzero(table.usable & (table.rows["region"] == "kidney_left").to_numpy())
    pooled = table.pooled.copy()
    pooled[usable[3]] = pooled[usable[8]]
    found = leaks(replace(table, pooled=pooled), {}, LIMITS)
    assert found["within"]["images"]["n"] == found["within"]["images"]["same"] == 2
    assert not found["found"]
    assert all(a["cosine"] >= b["cosine"] for a, b in pairwise(found["within"]["images"]["examples"]))
