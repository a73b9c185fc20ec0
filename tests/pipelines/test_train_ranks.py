"""`medvl train` under torchrun: two processes learn what one learns, and only the first writes and prints.

Full precision, no dropout, no batch normalisation: what is left is the order in which numbers are added. Losses, norms of
gradients and measures of every step agree to 1e-3 of their size (found: 1e-6), and every step is made with the weights of
those before. The weights themselves say less: AdamW divides a gradient by its own size, so where it is nought but for rounding,
as that of the biases of keys is, or where rounding switches a rectifier, a weight may go either way by the rate in every step.
None is further off than that, and most agree to 1e-5 (found: 99.8 % here, 92 % once on another machine).
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shrunk import command, curves, run, stages

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("recipe", ["cardiac-clip-small", "medslip-small"])
def test_two_processes_learn_what_one_learns(recipe: str, tmp_path: Path) -> None:
    two = run(command(recipe, tmp_path / "two", processes=2))
    assert two.returncode == 0, two.stderr[-3000:]
    one = run(command(recipe, tmp_path / "one"))
    assert one.returncode == 0, one.stderr[-3000:]
    assert one.stdout.count("Trained: ") + one.stdout.count("Bundle: ") == 1
    assert two.stdout.count("Trained: ") + two.stdout.count("Bundle: ") == 1

    folders = [stages(tmp_path / name) for name in ("one", "two")]
    assert [folder.name for folder in folders[0].values()] == [folder.name for folder in folders[1].values()]
    for name, folder in folders[0].items():
        alone, shared = ([[v for k, v in sorted(line.items())] for line in curves(f[name])] for f in folders)
        torch.testing.assert_close(torch.tensor(shared), torch.tensor(alone), rtol=1e-3, atol=1e-5)
        weights = [load_file(f[name] / "weights.safetensors") for f in folders]
        assert weights[0].keys() == weights[1].keys()
        apart = torch.cat([(weights[0][key].double() - weights[1][key].double()).abs().flatten() for key in weights[0]])
        furthest = 2 * sum(line["rate"] for line in curves(folder))
        assert apart.max() <= furthest
        assert (apart < 1e-5).double().mean() > 0.5


def test_an_error_of_the_first_process_is_told_once(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("patient_id,study\nA,missing\n")
    failed = run(command("medslip-small", tmp_path / "out", "--table", str(table), processes=2))
    assert failed.returncode != 0
    assert failed.stderr.count("medvl: ") == 1
    assert "report" in failed.stderr
