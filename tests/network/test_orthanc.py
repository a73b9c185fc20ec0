"""The tests of `orthanc_inner.py`, in a network namespace of their own, for Orthanc listens on every interface."""

from __future__ import annotations

from pathlib import Path

import pytest
from orthanc import in_namespace


@pytest.mark.slow
def test_against_a_real_orthanc(tmp_path: Path) -> None:
    inner = Path(__file__).with_name("orthanc_inner.py")
    said = in_namespace(inner, tmp_path, "-olog_cli=true", "--log-cli-level=DEBUG", programs=("dcmcrle", "dcmsend")).lower()
    assert "planted" not in said
    assert "2.25." not in said, "a UID in a log"
