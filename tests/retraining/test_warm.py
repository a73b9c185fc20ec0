"""Where a retraining begins and how far from there it ends."""

import pytest
import torch
from tiny import Tiny

from medvl.errors import ConfigError
from medvl.models.bundle import load_system, open_bundle
from medvl.retraining.warm import begin_from, blend, parent_weights


def test_the_parents_weights_are_put_into_a_fresh_system(tiny_run: Tiny) -> None:
    bundle = open_bundle(tiny_run.bundle)
    weights, system = parent_weights(bundle), load_system(bundle)
    assert not any(key.startswith("localiser.") for key in weights)
    with torch.no_grad():
        for parameter in system.parameters():
            parameter.zero_()
    begin_from(weights, system)
    assert all(torch.equal(value, weights[key]) for key, value in system.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_are_refused(tiny_run: Tiny, fault: str) -> None:
    bundle = open_bundle(tiny_run.bundle)
    weights, system = parent_weights(bundle), load_system(bundle)
    name = next(key for key, value in weights.items() if value.ndim and value.shape[-1] > 1)
    if fault == "missing":
        del weights[name]
    elif fault == "unknown":
        weights["clip.other"] = torch.zeros(1)
    else:
        weights[name] = weights[name][..., :1]
    with pytest.raises(ConfigError, match="do not fit"):
        begin_from(weights, system)


def test_a_share_of_the_way() -> None:
    parent = {"w": torch.tensor([0.0, 2.0]), "n": torch.tensor(3)}
    trained = {"w": torch.tensor([4.0, 2.0]), "n": torch.tensor(9), "new": torch.tensor([1.0])}
    found = blend(parent, trained, 0.25)
    assert found["w"].tolist() == [1.0, 2.0]
    assert (int(found["n"]), found["new"].tolist()) == (9, [1.0])
    assert blend(parent, trained, 1.0)["w"].tolist() == [4.0, 2.0]
