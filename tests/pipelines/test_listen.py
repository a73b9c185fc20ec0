"""`medvl listen --retry-refused`: what a PACS refused before is owed again, though nobody sends those studies anew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from medvl_pipelines import listen as verb
from medvl_pipelines.cli import app
from medvl_pipelines.station import Station

TARGET, OTHER = "dicom://PACS@pacs:104", "dicom://REST@pacs:105"


class Owed:
    """Deliveries that remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], tuple[str, ...], bool]] = []

    def rows(self) -> list[dict[str, Any]]:
        told = (("c", TARGET, "refused"), ("a", TARGET, "refused"), ("b", TARGET, "sent"), ("d", OTHER, "refused"))
        return [{"case_id": case, "target": target, "state": state} for case, target, state in told]

    def owe(self, case_ids: list[str], targets: tuple[str, ...], *, refused: bool = False) -> None:
        self.asked.append((case_ids, targets, refused))


@pytest.mark.parametrize("again", [True, False])
def test_refused_deliveries_to_our_targets_are_owed_again(again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owed = Owed()
    opened = SimpleNamespace(dues=owed, finder=SimpleNamespace(put=None, through=list), folder=SimpleNamespace(out=tmp_path))
    monkeypatch.setattr(verb, "open_run", lambda _station: opened)
    ended = SimpleNamespace(statuses={}, cases=[], stopped="interrupted")
    monkeypatch.setattr(verb, "work", lambda _run, until: ended)
    station = Station("phantom-demo", tmp_path / "out", send=(TARGET,), retry_refused=again)
    assert verb.run(verb.Door(watch=tmp_path), station) == 0
    assert owed.asked == ([(["a", "c"], (TARGET,), True)] if again else [])


def test_options_of_a_run_are_those_of_infer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Station] = []
    monkeypatch.setattr(verb, "run", lambda _door, station, as_json: seen.append(station) or 0)
    words = ["listen", "--watch", str(tmp_path), "-b", "phantom-demo", "-o", str(tmp_path / "out"), "--bf16", "--batch", "7"]
    words += ["--ledger", "postgresql://night@server/medvl", "--retry-refused", "--retry-quarantined"]
    assert CliRunner().invoke(app, words).exit_code == 0
    (station,) = seen
    assert (station.bf16, station.batch, station.ledger) == (True, 7, "postgresql://night@server/medvl")
    assert station.retry_refused and station.retry_quarantined
