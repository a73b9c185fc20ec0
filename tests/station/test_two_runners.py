"""Two processes at once on one folder of studies, with a ledger on a server: each study is done by one of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from night import ENVIRONMENT, medvl
from postgres import postgres

from medvl.batch.ledger import Ledger


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a PostgreSQL server."""
    with postgres() as address:
        yield address


@pytest.mark.slow
def test_two_share_the_studies_without_overlap_or_loss(server: str, patients: Sequence[Path], tmp_path: Path) -> None:
    out = tmp_path / "R"
    words = ["infer", patients[0].parent, "-b", "phantom-demo", "-o", out, "--ledger", server, "--batch", 1, "--no-explain"]
    words += ["--readers", 1, "--json"]
    started = [
        subprocess.Popen(medvl(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600) for process in started]
    told = [json.loads(output) for output, _ in said]
    # who ends first leaves to the other what that has in hand, and says so
    assert [process.returncode for process in started] == [3 if t["waiting"] else 0 for t in told], said
    assert min(t["waiting"] for t in told) == 0, said
    done = [line for _, err in said for line in err.splitlines() if line.endswith(": done")]
    assert len(done) == len(patients), said
    assert [(t["studies"], t["failed"] + t["skipped"]) for t in told] == [(len(patients), 0)] * 2
    cases = {case["case_id"] for case in told[0]["cases"]}
    assert {case["case_id"] for case in told[1]["cases"]} == cases == {p.name for p in (out / "studies").iterdir()}
    with Ledger(server) as ledger:
        assert sorted(event["case_id"] for event in ledger.events() if event["what"] == "done") == sorted(cases)
        assert {row["attempts"] for row in ledger.studies()} == {1}
