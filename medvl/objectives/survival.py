"""Learning from outcomes: the image tower trained on time to an event, by Cox's partial likelihood or by discrete hazards."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from medvl.errors import ConfigError
from medvl.objectives.cox import Ties, cox_negative_log_likelihood
from medvl.objectives.hazards import discrete_hazard_loss
from medvl.objectives.registry import Objective, Options, Scene, Sizes


class SurvivalOptions(Options):
    """How outcomes are learnt.

    Args:
        form: `cox` ranks patients by one log hazard ratio; `hazards` gives a logit of dying in each interval of `cuts_days`.
        ties: of `cox`, what is done with patients who die on the same day.
        cuts_days: rising edges of the intervals from 0 on, needed by `hazards`; `medvl.objectives.hazards.quantile_cuts` finds
            them from the training patients' outcomes.
        hidden: width of a hidden layer of each head; 0 for a linear head.
    """

    form: Literal["cox", "hazards"] = "cox"
    ties: Ties = "efron"
    cuts_days: tuple[float, ...] | None = None
    hidden: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_intervals(self) -> SurvivalOptions:
        cuts = self.cuts_days
        if self.form == "cox" and cuts is not None:
            raise ValueError("cuts_days belong to form: hazards; drop them")
        if self.form == "hazards" and (
            cuts is None or len(cuts) < 2 or cuts[0] != 0 or not all(low < high < float("inf") for low, high in pairwise(cuts))
        ):
            raise ValueError(f"form: hazards needs cuts_days, finite rising edges such as [0, 365, 1095], not {cuts}")
        return self

    @property
    def layout(self) -> tuple[object, ...]:
        """What a head is made for; it cannot change between stages."""
        return self.form, self.cuts_days, self.hidden


def survival_head(width: int, options: SurvivalOptions) -> nn.Sequential:
    """Head from (B, width) features to (B, 1) log hazard ratios, or to (B, K) logits of K intervals.

    Cox's likelihood does not see a constant, so its head ends without a bias.
    """
    outputs = len(options.cuts_days) - 1 if options.cuts_days else 1
    last = nn.Linear(options.hidden or width, outputs, bias=options.form == "hazards")
    return nn.Sequential(nn.Linear(width, options.hidden), nn.GELU(), last) if options.hidden else nn.Sequential(last)


def patient_cox_loss(risk: Tensor, time: Tensor, event: Tensor, patients: Tensor, ties: Ties = "efron") -> Tensor:
    """() negative log partial likelihood over the number of patients with an event; a patient's samples weigh 1 together.

    Args:
        risk: (N,) log hazard ratios of samples.
        time: (N,) follow-up, NaN where unknown; the same for all samples of a patient.
        event: (N,) bool, likewise.
        patients: (N,) int, equal for samples of the same patient.
        ties: between patients.

    Each of a patient's n samples is at risk with weight 1/n: the patient adds the mean of exp(risk) to the risk sets and, with an
    event, the mean risk to the numerator. Breslow's case weights say the same; Efron's would take a patient's own samples for
    tied patients, so they are put together first.

    Returns:
        Zero with a gradient of zeros when there is no event.
    """
    known = ~torch.isnan(time)
    nothing = torch.where(known, risk, 0.0).sum() * 0.0
    risk, time, event, patients = risk[known], time[known], event[known], patients[known]
    if not bool(event.any()):
        return nothing
    mine = torch.unique(patients)[:, None] == patients
    first, count = mine.to(torch.uint8).argmax(1), mine.sum(1).to(risk.dtype)
    mean = torch.where(mine, risk, 0.0).sum(1) / count
    at_risk = torch.where(mine, risk, -torch.inf).logsumexp(1) - count.log()
    time, event = time[first], event[first]
    # the likelihood takes `at_risk` for the numerator too, where the mean risk belongs
    excess: Tensor = (at_risk - mean)[event].mean()
    return cox_negative_log_likelihood(at_risk, time, event, ties=ties) + excess + nothing


class Survival(Objective):
    """Time to an event from pooled features, by a head for each kind: `heads[kind]`, higher is worse.

    Samples of unknown outcome have no gradient. All samples of a patient in the batch share the patient's outcome and weigh 1
    together. With `form: cox` the risk sets are those of the batch and of the kind.

    Source: Cox 1972 with the ties of Efron 1977, on a network as in Katzman et al. 2018 (DeepSurv); `form: hazards`: Gensheimer
    and Narasimhan 2019. Departure: a patient's samples count as one patient.
    """

    options_type = SurvivalOptions
    needs = ("pooled",)
    options: SurvivalOptions

    def __init__(self, options: SurvivalOptions, sizes: Sizes) -> None:
        super().__init__(options, sizes)
        self.layout = options.layout
        self.heads = nn.ModuleDict({name: survival_head(sizes.pooled, options) for name in sizes.kinds})

    def forward(self, found: Mapping[str, Tensor], scene: Scene) -> Tensor:
        """() loss from pooled (B, P).

        Raises:
            ConfigError: no outcome of this kind is known, or form, cuts or width are not those that the heads were made for.
        """
        if scene.time_days is None or scene.event is None or scene.patients is None:
            raise ConfigError(
                f"objective survival: the cohort has no outcomes of {scene.kind}; give time_days and event or drop the objective"
            )
        if self.layout != self.options.layout:
            raise ConfigError(
                f"objective survival: heads for form, cuts_days, hidden {self.layout} cannot take {self.options.layout}; "
                "keep one in all stages, or name another objective with `type: survival`"
            )
        time, event = scene.time_days, scene.event & ~torch.isnan(scene.time_days)
        head = cast(nn.Sequential, self.heads[scene.kind])
        with torch.autocast(found["pooled"].device.type, enabled=False):
            out = head(found["pooled"].float())
            if self.options.cuts_days is None:
                return patient_cox_loss(out[:, 0], time, event, scene.patients, self.options.ties)
            number = (scene.patients[:, None] == scene.patients).sum(1)
            return discrete_hazard_loss(out, time, event, torch.tensor(self.options.cuts_days, device=out.device), 1.0 / number)
