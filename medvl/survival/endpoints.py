"""What is predicted: an endpoint's own columns, and whether it has events enough. Nothing is shared between endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from medvl.errors import ConfigError

MIN_EVENTS = 10
EVENTS_PER_VARIABLE = 10.0
DAYS = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
Value = bool | int | float | str


class Endpoint(BaseModel):
    """One endpoint of a table.

    Args:
        name: such as OS, DSS or RFS.
        time: column of the follow-up to the event or to censoring; unit: of that column.
        event: column that says what happened.
        happened: its values that mean the event; censored: those that mean it was not seen. Any other value is an error, unless
            it is in `unknown`: then the endpoint of that patient is left out and counted, like an empty one.
        competing: values that mean another event, after which this one cannot happen (a death of another cause, for DSS).
            They count as censored in hazards and concordance, and as competing in the cumulative incidence.
        min_events: below it, nothing is fitted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    time: str
    event: str
    happened: tuple[Value, ...] = (1,)
    censored: tuple[Value, ...] = (0,)
    competing: tuple[Value, ...] = ()
    unknown: tuple[Value, ...] = ()
    unit: Literal["days", "weeks", "months", "years"] = "days"
    min_events: int = Field(MIN_EVENTS, ge=1)

    def read(self, table: pd.DataFrame) -> Outcome:
        """Times and events of a table's rows.

        Raises:
            ConfigError: a column is missing, a value of the event is not among those listed, or a time is negative.
        """
        lost = [c for c in (self.time, self.event) if c not in table]
        if lost:
            raise ConfigError(f"endpoint {self.name}: no column {lost}; the table has {sorted(map(str, table.columns))}")
        time = pd.to_numeric(table[self.time], errors="coerce").to_numpy(dtype=np.float64) * DAYS[self.unit]
        status = table[self.event]
        masks = [status.isin(list(v)).to_numpy() for v in (self.happened, self.censored, self.competing, self.unknown)]
        stray = ~(np.any(masks, axis=0) | status.isna().to_numpy())
        if stray.any():
            raise ConfigError(
                f"endpoint {self.name}: {self.event} has values {sorted(map(str, status[stray].unique()))[:5]}, none of "
                f"happened {self.happened}, censored {self.censored}, competing {self.competing}, unknown {self.unknown}"
            )
        if (np.sum(masks, axis=0) > 1).any():
            raise ConfigError(
                f"endpoint {self.name}: one value means two things: {self.happened}, {self.censored}, {self.unknown}"
            )
        if (time < 0).any():
            raise ConfigError(
                f"endpoint {self.name}: {self.time} has {int((time < 0).sum())} times below 0, such as {np.nanmin(time):g} days"
            )
        known = np.any(masks[:3], axis=0) & np.isfinite(time)
        return Outcome(self.name, np.where(known, time, np.nan), masks[0] & known, masks[2] & known, known, self.min_events)


@dataclass(frozen=True, eq=False)
class Outcome:
    """An endpoint of N patients.

    Args:
        name: of the endpoint.
        time_days: (N,) NaN where not known; event: (N,) bool; competing: (N,) bool of another event that ends the follow-up.
        known: (N,) bool; others are left out of everything.
        min_events: below it, nothing is fitted.
    """

    name: str
    time_days: NDArray[np.float64]
    event: NDArray[np.bool_]
    competing: NDArray[np.bool_]
    known: NDArray[np.bool_]
    min_events: int = MIN_EVENTS

    def describe(self) -> str:
        """One sentence: patients, events, left out, zero follow-up."""
        zero = int((self.time_days[self.known] == 0).sum())
        other = f", {self.competing.sum()} ended by another event" if self.competing.any() else ""
        return (
            f"{self.name}: {self.known.sum()} patients, {self.event.sum()} events{other}; {(~self.known).sum()} left out "
            f"because time or event is not known; {zero} with no follow-up at all"
        )

    def refusal(self) -> str | None:
        """Why no model may be fitted, or None."""
        n = int(self.event.sum())
        if n < self.min_events:
            return f"{self.name}: {n} events among {self.known.sum()} patients, {self.min_events} are needed; no model is fitted"
        return None

    def caution(self, n_variables: int) -> str | None:
        """What to say where events are few for the variables, or None; a ridge penalty or fewer variables would help."""
        per = self.event.sum() / max(n_variables, 1)
        if per >= EVENTS_PER_VARIABLE:
            return None
        return (
            f"{self.name}: {per:.1f} events per variable ({self.event.sum()} for {n_variables}), below {EVENTS_PER_VARIABLE:g}: "
            "coefficients will be too large unless they are penalised"
        )

    def require(self) -> None:
        """Raise where `refusal` has a reason.

        Raises:
            ConfigError: too few events.
        """
        reason = self.refusal()
        if reason:
            raise ConfigError(reason)
