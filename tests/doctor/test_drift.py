"""The drift report: statistics against scipy and by simulation, groups, and what a person sees."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_results import N_REFERENCE, REFERENCE, SHA, record, write
from scipy import stats

from medvl.doctor.drift import against_reference, between, categories, exact_p, share, stability, too_many_strange
from medvl.doctor.drift_read import Results, _seen, columns_of, groups_of, read_results, reference_of
from medvl.doctor.drift_record import drift_record
from medvl.doctor.drift_report import document
from medvl.errors import ConfigError
from medvl.models.bundle import open_bundle
from medvl_pipelines import drift
from medvl_pipelines.built_in import bundle_folder


def percentiles_of(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """As medvl.inference.asking counts them, rounded as results hold them."""
    return np.round([100 * ((reference < v).sum() + (reference == v).sum() / 2) / len(reference) for v in values], 1)


@pytest.mark.parametrize(("n", "m", "digits"), [(256, 40, 9), (200, 31, 9), (37, 100, 9), (256, 300, 9), (60, 50, 1)])
def test_percentiles_give_the_two_sample_test_of_the_scores_themselves(n: int, m: int, digits: int) -> None:
    rng = np.random.default_rng(n + m)
    reference, values = np.round(rng.normal(size=n), digits), np.round(rng.normal(0.2, 1.1, size=m), digits)
    if digits == 1:
        reference = np.sort(rng.choice(np.linspace(-3, 3, 601), n, replace=False))  # ties between the sides, none inside
        values = rng.choice(reference, m)
    found = against_reference(percentiles_of(values, reference), n)
    told = stats.ks_2samp(values, reference, method="exact")
    assert found.statistic == pytest.approx(told.statistic, abs=1e-12)
    assert found.p == pytest.approx(told.pvalue, rel=1e-9)
    u = stats.mannwhitneyu(values, reference).statistic
    assert found.higher == pytest.approx(u / n / m, abs=1e-12)
    assert between(values, reference) == found


@pytest.mark.parametrize(("n", "m"), [(20, 20), (25, 40), (64, 27)])
def test_the_exact_p_value_is_scipys_down_to_small_ones(n: int, m: int) -> None:
    for offset in (0.0, 0.1, 0.3, 0.5, 0.8, 1.0):
        a, b = (np.arange(n) + 0.5) / n + offset, (np.arange(m) + 0.5) / m
        told = stats.ks_2samp(a, b, method="exact")
        assert exact_p(told.statistic, n, m) == pytest.approx(told.pvalue, rel=1e-6)


def test_an_even_distribution_would_raise_false_alarms_where_ours_does_not() -> None:
    """The reference is a sample too: with as many studies as reference regions a one-sample test is wrong far too often."""
    rng, ours, even = np.random.default_rng(1), 0, 0
    for _ in range(300):
        p = percentiles_of(rng.normal(size=100), rng.normal(size=100))
        ours += against_reference(p, 100).p < 0.05
        even += stats.kstest(p / 100, "uniform").pvalue < 0.05
    assert ours <= 300 * 0.08
    assert even > 300 * 0.15


def test_stability_stays_below_its_limit_in_19_of_20_samples() -> None:
    rng = np.random.default_rng(2)
    below = []
    for _ in range(400):
        index, limit, counts = stability(percentiles_of(rng.normal(size=150), rng.normal(size=256)), 256)
        assert sum(counts) == 150
        below.append(index < limit)
    assert 0.92 < np.mean(below) < 0.99
    index, limit, counts = stability([5.0] * 100, 256)
    assert counts == [100] + [0] * 9 and index > 10 * limit


def test_stability_is_the_sum_that_its_definition_says() -> None:
    rng = np.random.default_rng(3)
    values = rng.uniform(0, 100, 80) ** 1.1 / 100**0.1
    index, _, counts = stability(values, 100)
    p = (np.histogram(values, np.linspace(0, 100, 11))[0] + 0.5) / 85
    assert index == pytest.approx(stats.entropy(p, np.full(10, 0.1)) + stats.entropy(np.full(10, 0.1), p))
    assert counts == np.histogram(values, np.linspace(0, 100, 11))[0].tolist()


def test_categories_against_fishers_exact_test_and_chi_squared() -> None:
    a, b = ["soft"] * 14 + ["sharp"] * 8, ["soft"] * 30 + ["sharp"] * 3
    found = categories(a, b)
    table = [[14, 8], [30, 3]]
    assert found.statistic == pytest.approx(stats.chi2_contingency(table, correction=False).statistic)
    weights = stats.hypergeom(55, 44, 22)
    cells = np.arange(11, 23)
    far = np.abs(cells - 22 * 44 / 55) >= abs(14 - 22 * 44 / 55) - 1e-9
    assert found.p == pytest.approx(weights.pmf(cells[far]).sum(), rel=0.05)
    assert categories(["x"] * 20 + ["y"] * 20, ["x"] * 20 + ["y"] * 20).p == pytest.approx(1.0, abs=1e-3)


def test_share_of_unfamiliar_regions_and_wilson() -> None:
    assert too_many_strange(3, 60, 2) == pytest.approx(stats.binomtest(3, 60, 0.01, alternative="greater").pvalue)
    told, known = share(7, 40), stats.binomtest(7, 40).proportion_ci(method="wilson")
    assert told["ci"] == pytest.approx([known.low, known.high])
    assert share(0, 0)["value"] is None


@pytest.mark.parametrize("sides", [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_comparisons_refuse_nothing_and_nan(sides: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="numbers on both sides"):
        between(*sides)


def results(records: list[dict]) -> Results:
    return Results({"name": "made", "sha256": SHA}, tuple(_seen(r) for r in records), {"done": len(records)}, 0, {})


def two_scanners(rng: np.random.Generator, n: int, **shift: float) -> list[dict]:
    """Two scanners and two weeks; the shift is on the second scanner only."""
    out = []
    for k in range(n):
        old = k % 2 == 0
        facts = {"manufacturer": "A" if old else "B", "model": "One", "kernel": "B30f", "slice_thickness_mm": 2.0}
        week = f"2026-11-{16 if k < n / 2 else 23:02d}T20:00:00+00:00"
        out.append(record(rng, k, facts=facts, made_at=week, **({} if old else shift)))
    return out


def test_no_shift_gives_no_alarm_in_nine_of_ten_runs() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(40):
        # a new reference each time: the one of `record` is fixed, so scores are drawn by exchange with it
        told = drift_record(results(two_scanners(rng, 80)), None, ("scanner", "week"))
        alarms += bool(told["alarms"])
    assert alarms <= 4


def test_no_shift_against_references_that_are_samples_themselves() -> None:
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(40):
        records, reference = two_scanners(rng, 60), rng.normal(size=(3, N_REFERENCE))
        for values in records:
            for row, answer in zip(reference, values["findings"], strict=True):
                answer["percentile"] = float(percentiles_of(np.array([answer["margin"]]), row)[0])
        alarms += bool(drift_record(results(records), REFERENCE, ("scanner",))["alarms"])
    assert alarms <= 4


def test_a_shift_of_one_scanner_is_found_and_named() -> None:
    told = drift_record(results(two_scanners(np.random.default_rng(6), 120, score=1.2)), REFERENCE, ("scanner", "week"))
    beside = {(row["by"], row["group"]) for row in told["alarms"] if row["against"] == "the other groups"}
    assert beside == {("scanner", "A One"), ("scanner", "B One")}
    assert not [row for row in told["alarms"] if row["group"] == "A One" and row["against"] != "the other groups"]
    shifted = [row for row in told["alarms"] if row["group"] == "B One"]
    assert {row["name"] for row in shifted} == {"cyst", "mass", "effusion"}
    assert all(row["higher"] > 0.6 for row in shifted)
    assert {row["against"] for row in shifted} == {"the bundle's reference", "the other groups"}


def test_unfamiliar_regions_are_an_alarm() -> None:
    told = drift_record(results(two_scanners(np.random.default_rng(7), 80, far=0.6)), REFERENCE, ("scanner",))
    alarms = [row for row in told["alarms"] if row["what"] == "unfamiliar" and row["group"] == "B One"]
    assert {row["region"] for row in alarms} == {"kidney_left", "chest"}
    assert all(row["statistic"] == 1.0 for row in alarms)


def test_another_kernel_on_one_scanner_is_an_input_that_changed() -> None:
    records = two_scanners(np.random.default_rng(8), 80)
    for values in records[1::2]:
        values["series"]["facts"]["kernel"] = "Br64"
    told = drift_record(results(records), REFERENCE, ("scanner", "kernel"))
    assert ("kernel", "scanner B One") in {(r["name"], f"{r['by']} {r['group']}") for r in told["alarms"]}


def test_small_groups_are_named_and_never_tested() -> None:
    records = two_scanners(np.random.default_rng(9), 50)
    for values in records[:7]:
        values["series"]["facts"]["kernel"] = "rare"
    told = drift_record(results(records), REFERENCE, ("kernel",))
    assert ["kernel", "rare", 7] in told["too_small"]
    assert {row["group"] for row in told["tests"]} == {"all studies", "B30f"} - ({"B30f"} if not told["tests"] else set())
    tiny = drift_record(results(records[:5]), REFERENCE, ("kernel",))
    assert tiny["tests"] == [] and any("too few" in note for note in tiny["notes"])


def test_questions_asked_on_a_condition_are_left_out() -> None:
    records = two_scanners(np.random.default_rng(10), 60)
    for values in records[::3]:
        values["findings"] = [f for f in values["findings"] if f["finding"] != "mass"]
    told = drift_record(results(records), REFERENCE, ("scanner",))
    assert "mass" not in {row["name"] for row in told["tests"]}
    assert "mass" in {row["finding"] for row in told["verdicts"]}


def test_groups_from_facts_and_time() -> None:
    facts = {
        "manufacturer": "ACME",
        "model": "CT 9",
        "kernel": "B30f",
        "slice_thickness_mm": 1.25,
        "kvp": 120.0,
        "contrast": True,
    }
    told = groups_of(facts, "2027-01-02T03:04:05+00:00")
    assert told == {
        "scanner": "ACME CT 9",
        "kernel": "B30f",
        "thickness": "1.25 mm",
        "week": "2026-W53",
        "kvp": "120 kV",
        "contrast": "with contrast",
    }
    assert set(groups_of({}, None).values()) == {"unknown"}
    assert columns_of(["week", "week", "kvp"]) == ("week", "kvp")
    with pytest.raises(ConfigError, match="did you mean kernel"):
        columns_of(["kernle"])


def test_empty_and_unfit_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no studies"):
        read_results(tmp_path)
    rng = np.random.default_rng(11)
    write(tmp_path / "skipped", [{**record(rng, 1), "status": "skipped"}])
    with pytest.raises(ConfigError, match="none of the 1 studies is done"):
        read_results(tmp_path / "skipped")
    write(tmp_path / "other", [record(rng, 2)])
    with pytest.raises(ConfigError, match="made abababababab"):
        read_results(tmp_path / "other", "0" * 64)


def test_the_bundle_that_did_most_is_compared_and_others_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(12)
    records = [record(rng, k) for k in range(5)]
    records[0]["bundle"] = {"name": "older", "sha256": "11" * 32, "contract": "x"}
    found = read_results(write(tmp_path, records))
    assert (found.bundle["name"], len(found.studies), found.other_bundles) == ("made", 4, 1)


def test_what_a_bundle_knows_of_its_validation() -> None:
    known = reference_of(open_bundle(bundle_folder("phantom-demo")))
    assert known.counts["renal_mass"] == (204, 603)
    assert known.rows == {"kidney_left": 256, "kidney_right": 256, "chest": 256}
    assert "mass_cystic" in known.given and "renal_mass" not in known.given
    assert set(known.looks) == {"kidney_left", "kidney_right", "chest"}


def test_the_command_writes_a_report_and_exits_by_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "results", two_scanners(np.random.default_rng(13), 60, score=1.5, far=0.6))
    assert drift.run(folder, by="scanner, week", out=tmp_path / "out") == 5
    shown = capsys.readouterr().out
    assert "DRIFT" in shown and "scanner B One" in shown and "--against" in shown
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What stands out" in page and "Research software" in page
    assert {p.name for p in (tmp_path / "out" / "figures").iterdir()} == {"shifts.png", "familiarity.png", "inputs.png"}
    assert json.loads((tmp_path / "out" / "drift.json").read_text())["schema"] == "medvl.drift/1"
    assert drift.run(write(tmp_path / "few", [record(np.random.default_rng(0), 1)]), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["tests"] == []


def test_a_report_with_a_reference_shows_percentiles() -> None:
    told = drift_record(results(two_scanners(np.random.default_rng(14), 60)), REFERENCE, ("scanner",))
    pictures = [b for s in document(told).sections for b in s.blocks if hasattr(b, "figure")]
    assert {p.name for p in pictures} == {"shifts", "inputs", "familiarity", "percentiles"}
