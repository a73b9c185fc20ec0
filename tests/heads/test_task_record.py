"""The record and report of downstream tasks: complete, tied to a model and a table of labels, plain JSON."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pretend_lesions import LABELS, cohorts

from medvl.errors import ConfigError
from medvl.evaluation.report.document import Picture, Table, Text, span
from medvl.evaluation.report.html import write_html
from medvl.evaluation.report.markdown import write_markdown
from medvl.evaluation.report.tasks import tasks_document
from medvl.evaluation.results import write_results
from medvl.heads.phantom_lesions import phantom_labels
from medvl.heads.task_list import TenTasks, fits_heads, load_ten_tasks
from medvl.heads.task_record import Encoder, by_split, evaluate_tasks
from medvl.imaging.phantom.sample import sample_patient

PROTOCOLS = Path(__file__).parents[2] / "configs" / "protocols"
SMALL = {"draws": 100, "fractions": (0.1, 1.0), "seeds": (0, 1), "leaks": {"image_cosine": 1.0}}


def protocol(**changes: Any) -> TenTasks:
    return load_ten_tasks(PROTOCOLS / "ten-tasks.yaml", SMALL | changes)


def encoder(name: str = "m", **given: Any) -> Encoder:
    return Encoder(name, name, cohorts(model_sha256=name, cohort="made up", **given))


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return evaluate_tasks(protocol(), encoder(), LABELS, encoder("b", noise=6.0))


def test_only_protocols_of_heads_say_so(tmp_path: Path) -> None:
    assert [path.stem for path in sorted(PROTOCOLS.glob("*.yaml")) if fits_heads(path)] == ["ten-tasks"]
    assert not fits_heads(tmp_path / "none.yaml")


def test_every_task_is_told_with_a_number_or_a_reason(told: dict[str, Any], tmp_path: Path) -> None:
    assert list(told["tasks"]) == ["R", "E", "N", "A", "L", "malignancy", "aggressiveness", "OS", "DSS", "RFS"]
    refused = [name for name, task in told["tasks"].items() if "na" in task]
    assert refused == ["E", "N", "A", "aggressiveness", "DSS", "RFS"]
    assert all(any(line.startswith(f"{name}: not measured") for line in told["warnings"]) for name in refused)
    assert told["leaks"]["found"] is False
    write_results(told, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["second"] == {"name": "b", "sha256": "b"}


def test_hashes_follow_what_was_asked_of_whom(told: dict[str, Any]) -> None:
    quick = protocol(fractions=())
    again = evaluate_tasks(quick, encoder(), LABELS.sample(frac=1, random_state=0).assign(note="x"))
    assert again["hashes"]["labels"] == told["hashes"]["labels"]
    assert again["hashes"]["protocol"] != told["hashes"]["protocol"] == protocol(name="x", summary="y").hash
    assert "curve" not in again["tasks"]["R"]
    other = evaluate_tasks(quick, encoder(), LABELS.assign(os_event=1 - LABELS["os_event"]))
    assert other["hashes"]["labels"] != told["hashes"]["labels"]


def test_the_report_holds_every_number_and_every_reason(told: dict[str, Any], tmp_path: Path) -> None:
    report = tasks_document(told)
    blocks = [block for section in report.sections for block in section.blocks]
    cells = {cell for block in blocks if isinstance(block, Table) for row in block.rows for cell in row}
    lines = " ".join(line for block in blocks if isinstance(block, Text) for line in block.lines)
    for task in told["tasks"].values():
        if "na" in task:
            assert task["na"] in lines
            continue
        found = [task["image"], *task["beside"].values()]
        assert {span(one[task["main"]]) for one in found} <= cells
        assert {span(point) for point in task["curve"] if not point["refused"]} <= cells
    assert any(isinstance(block, Picture) for block in blocks)
    assert {"label is made of it", "second encoder"} <= cells
    text = write_markdown(report, tmp_path).read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert write_html(report, tmp_path / "report.html").stat().st_size > 10_000


def test_nothing_measured_is_a_report_too() -> None:
    bare = LABELS[["patient_id", "region"]]
    found = evaluate_tasks(protocol(), encoder(), bare)
    assert all("the labels have no column" in task["na"] for task in found["tasks"].values())
    assert "no task was measured" in str(tasks_document(found))


def test_what_is_shared_between_splits_is_a_leak() -> None:
    mine = encoder()
    test = mine.cohorts["test"][0]
    rows = np.flatnonzero(test.rows["patient_id"] == "P2000")
    seen = test.take(rows)
    train = mine.cohorts["train"][0]
    arrays = {
        name: np.concatenate([getattr(train, name), getattr(seen, name)]) for name in ("embedding", "pooled", "report_embedding")
    }
    arrays |= {name: np.concatenate([getattr(train, name), getattr(seen, name)]) for name in ("margins", "said", "truth")}
    both = replace(
        train,
        rows=pd.concat([train.rows, seen.rows], ignore_index=True),
        patients=pd.concat([train.patients, seen.patients]),
        **arrays,
    )
    unlabelled = LABELS[LABELS["patient_id"] != "P2000"]
    found = evaluate_tasks(protocol(fractions=()), Encoder("m", "m", {**mine.cohorts, "train": [both]}), unlabelled)
    assert found["leaks"]["found"] is True
    assert any(line.startswith("LEAK: 1 patients") for line in found["warnings"])


def test_cohorts_of_another_model_or_split_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the train cohort was embedded by None \(m\), not by b"):
        evaluate_tasks(protocol(), Encoder("b", "b", cohorts()), LABELS)
    tables = [table for split in cohorts("arterial", "delayed").values() for table in split]
    assert {split: len(found) for split, found in by_split(tables).items()} == {"train": 2, "validation": 2, "test": 2}
    with pytest.raises(ConfigError, match="is of split holdout"):
        by_split([replace(tables[0], source={"split": "holdout"})])


def test_phantoms_tell_their_labels() -> None:
    table = cohorts()["test"][0]
    who = [f"PH{i:06d}" for i in range(40)]
    people = pd.DataFrame({"sex": "F"}, index=who)
    made = replace(table.take(np.zeros(0, np.int64)), patients=people, source={"cohort": "phantom seed 11"})
    found = phantom_labels([made, made])
    masses = [
        (name, f"kidney_{kidney.side}", kidney.mass.size_mm)
        for name in who
        for kidney in (sample_patient(11, int(name[2:])).kidney_left, sample_patient(11, int(name[2:])).kidney_right)
        if kidney.mass is not None
    ]
    assert list(found[["patient_id", "region", "size_mm"]].itertuples(index=False, name=None)) == masses
    with pytest.raises(ConfigError, match="--labels CSV"):
        phantom_labels([table])
