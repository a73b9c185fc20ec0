"""The sentence on survival in reports that are sent."""

from __future__ import annotations

from medvl.delivery.drawing import survival_text

RISK = {"endpoint": "death of any cause", "survival": {"365": 0.912, "1096": 0.75}, "percentile": 80.0, "reasons": []}


def shown(risk: dict[str, object]) -> str:
    """The sentence with plain spaces."""
    return survival_text(risk).replace("\u00a0", " ")


def test_an_interval_stands_beside_its_estimate() -> None:
    plain = shown(RISK)
    assert "91 % at 1 year" in plain and "(" not in plain
    told = shown({**RISK, "interval": {"365": [0.87, 0.94], "1096": [0.61, 0.84]}})
    assert "91 % (87 % to 94 %) at 1 year" in told and "75 % (61 % to 84 %)" in told and "95 % interval" in told


def test_without_an_estimate_the_reason_is_given() -> None:
    risk = {"endpoint": "death", "survival": None, "percentile": None, "reasons": [{"code": "x", "message": "no region"}]}
    assert survival_text(risk) == "Death: no estimate (no region)."
    assert survival_text(None) == ""
