"""The survival estimate: its curve beside groups of reference patients, what it is made of, and what another age would change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from medvl.errors import MedvlError

from .charts import predicted
from .embeddings import Vectors, other_bundle, read_vectors
from .extras import extras
from .station import station
from .study import RiskRecord, Study
from .wording import plain, reason_lines, spoken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from medvl.survival.model import SurvivalModel

THIS, OTHER = "this patient", "at another age"
BAND = (
    "The band is a 95 % interval of the prediction for patients like the training ones (the ridge read as a prior); "
    "it does not know of a model that is wrong."
)
NO_BAND = "The bundle of this result was made before intervals were kept, so there is none for this patient."
_AGREE = 0.01  # log hazard; recorded risks are rounded to 0.0001


def show_prognosis(study: Study) -> None:
    """Draw the pane, or say why there is no estimate."""
    risk = study.risk
    if risk is None:
        st.info("The bundle of this result was trained for no survival endpoint, so it gives no prognosis.")
        return
    st.markdown(f"**{plain(risk.endpoint.capitalize() or 'Risk')}**")
    for line in summary(risk):
        st.text(line)
    for line in reason_lines(risk.reasons):
        st.text(f"• {line}")
    if risk.value is None:
        return
    model, why_not = _model(study)
    found = None if model is None else _vectors(study)
    vectors = found if isinstance(found, Vectors) else None
    why_not = found if isinstance(found, str) else why_not
    curves = {THIS: recorded(risk)} if risk.survival else {}
    ages: dict[str, float] = {}
    wide: dict[str, dict[float, tuple[float, float]]] = {}
    if model is not None:
        if vectors is not None and (age := _other_age(study, model)) is not None:
            ages[OTHER] = age
            curves[OTHER] = _at_age(model, vectors.usable(study), age)
            wide[OTHER] = _limits_at_age(model, vectors.usable(study), age)
        curves |= strata_curves(model)
    _chart(curves, {THIS: recorded_limits(risk)} | wide)
    if model is not None and vectors is not None:
        _changed(study, model, vectors, ages.get(OTHER))
    elif why_not:
        st.caption(plain(why_not))


def summary(risk: RiskRecord) -> list[str]:
    """The estimate in sentences."""
    out = []
    if risk.percentile is not None:
        out.append(f"Higher predicted risk than {risk.percentile:.0f} % of the reference patients.")
    elif risk.value is not None:
        out.append(f"Relative risk {risk.value:.2f}; higher is worse.")
    limits = recorded_limits(risk)
    for days, share in recorded(risk).items():
        years = days / 365
        wide = f" ({100 * limits[days][0]:.0f} to {100 * limits[days][1]:.0f} %)" if days in limits else ""
        out.append(f"{100 * share:.0f} %{wide} predicted at {years:.0f} {'year' if round(years) == 1 else 'years'}")
    told = ["; ".join(out[1:]) + "."] if len(out) > 1 else []
    return [*out[:1], *told]


def recorded(risk: RiskRecord) -> dict[float, float]:
    """Survival by days, in order; a day that is no number is left out."""
    found = {float(days): share for days, share in (risk.survival or {}).items() if days.replace(".", "", 1).isdigit()}
    return dict(sorted(found.items()))


def recorded_limits(risk: RiskRecord) -> dict[float, tuple[float, float]]:
    """95 % limits of survival by days; empty where the bundle keeps no uncertainty."""
    return {float(days): ends for days, ends in (risk.interval or {}).items() if days.replace(".", "", 1).isdigit()}


def strata_curves(model: SurvivalModel) -> dict[str, dict[float, float]]:
    """Predicted survival at the median risk of each third of the reference patients; else of the training average alone."""
    from medvl.survival.model import HORIZONS_DAYS
    from medvl.survival.strata import strata_of, survival_at

    groups = {f"{s.name} risk, n = {s.n}": s.survival for s in strata_of(model)}
    groups = groups or {"training average": survival_at(model, 0.0)}
    return {name: dict(zip(HORIZONS_DAYS, map(float, values), strict=True)) for name, values in groups.items()}


def _model(study: Study) -> tuple[SurvivalModel | None, str]:
    """The survival model of the viewer's bundle, or why it cannot be used."""
    from medvl.survival.model import SurvivalModel

    try:
        bundle = extras().opened_bundle
    except MedvlError as error:
        return None, f"The bundle cannot be opened: {error}"
    if bundle is None:
        return None, "Start the viewer with --bundle NAME to see reference groups and what another age would change."
    if bundle.sha256 != study.bundle.sha256:
        return None, "The viewer was started with another bundle than the one of this result; give that one to compare."
    if "survival.json" not in bundle:
        return None, "This bundle was trained for no survival endpoint."
    return SurvivalModel.from_json(bundle.values("survival.json")), ""


def _vectors(study: Study) -> Vectors | str:
    try:
        vectors = read_vectors(station().root, study.case_id)
    except MedvlError as error:
        return str(error)
    bundle = extras().opened_bundle
    return (other_bundle(study, vectors, bundle) if bundle else None) or vectors


def _other_age(study: Study, model: SurvivalModel) -> float | None:
    """What the reader entered; None when nothing was."""
    told = st.number_input(
        "What if the age were",
        min_value=0.0,
        max_value=120.0,
        value=None,
        step=1.0,
        format="%.0f",
        key=f"age_{study.case_id}",
        placeholder=f"years; training average {model.center[-1]:.0f}",
        help="Age is the one covariate this model takes. Nothing is saved.",
    )
    return None if told is None else float(told)


def _at_age(model: SurvivalModel, vectors: Mapping[str, ArrayLike], age: float) -> dict[float, float]:
    from medvl.survival.model import HORIZONS_DAYS
    from medvl.survival.strata import survival_at

    values = survival_at(model, model.risk(vectors, age))
    return dict(zip(HORIZONS_DAYS, map(float, values), strict=True))


def _limits_at_age(model: SurvivalModel, vectors: Mapping[str, ArrayLike], age: float) -> dict[float, tuple[float, float]]:
    from medvl.survival.model import HORIZONS_DAYS

    limits = model.interval(vectors, age)
    return {} if limits is None else {t: (float(a), float(b)) for t, a, b in zip(HORIZONS_DAYS, *limits, strict=True)}


def _chart(curves: dict[str, dict[float, float]], limits: Mapping[str, Mapping[float, tuple[float, float]]]) -> None:
    if not curves:
        st.caption("No survival by time was recorded.")
        return
    st.altair_chart(predicted(curves, [name for name in (THIS, OTHER) if name in curves], limits), width="stretch")
    st.caption(
        f"Predicted at the marked times; lines only join them. {BAND if limits.get(THIS) else NO_BAND} "
        "Groups are the model's prediction at their median risk, not what was observed."
    )


def _changed(study: Study, model: SurvivalModel, vectors: Vectors, age: float | None) -> None:
    from medvl.survival.strata import contributions

    usable, risk = vectors.usable(study), study.risk
    if risk is None or risk.value is None:
        return
    known = {r.code for r in risk.reasons}
    parts = contributions(model, usable, None)
    image = sum(parts.values())
    if "age_missing" in known and abs(image - risk.value) > _AGREE:
        st.warning("The stored embeddings do not give the recorded risk; another age is not worked out from them.")
        return
    if age is not None:
        changed = model.estimate(usable, age)  # type: ignore[arg-type]
        st.text(
            f"At {age:.0f} years: higher risk than {changed['percentile']:.0f} % (recorded: {risk.percentile or 0:.0f} %); "
            f"log hazard {changed['value']:+.2f} (recorded: {risk.value:+.2f})."
        )
    st.caption("What the risk is made of (log hazard; above 0 raises it)")
    told = {spoken(name): value for name, value in parts.items() if name in usable}
    told["age"] = risk.value - image if "age_missing" not in known else 0.0
    for name, value in sorted(told.items(), key=lambda item: -abs(item[1])):
        note = " (not known: the average)" if name == "age" and "age_missing" in known else ""
        st.text(f"{value:+.2f}  {name}{note}")
