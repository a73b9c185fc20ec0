"""Identifiers of objects: equal answers give equal ones, whenever and wherever they were worked out."""

from __future__ import annotations

from medvl.delivery.uids import content_hash, uid_of

RECORD = {
    "case_id": "a",
    "made_at": "2026-01-01T00:00:00+00:00",
    "timings_s": {"read": 1.0},
    "series": {"key": "a", "patient": "x", "n_files": 3},
    "findings": [{"finding": "renal_mass", "score": 0.42}],
}


def test_a_second_run_tomorrow_in_another_folder_says_the_same() -> None:
    series = {"key": "b", "patient": "y", "n_files": 3}  # hashes under the key of each folder
    other = {"case_id": "b", "made_at": "2026-01-02T00:00:00+00:00", "timings_s": {}, "series": series}
    assert content_hash({**RECORD, **other}) == content_hash(RECORD)
    for change in ({"series": {"key": "a", "n_files": 4}}, {"findings": []}, {"software": "medvl 9"}):
        assert content_hash({**RECORD, **change}) != content_hash(RECORD)


def test_a_uid_is_one() -> None:
    assert uid_of("sr", "1.2") == uid_of("sr", "1.2") != uid_of("sr1.2")
    assert len(uid_of("sr")) <= 64 and int(uid_of("sr").removeprefix("2.25.")) < 1 << 128
