"""The ten tasks on embedded cohorts that no bundle made: of a training run, or of painted kidneys.

For a bundle there is `medvl evaluate BUNDLE --protocol ten-tasks`; this asks the same of folders whose encoder is only a run.

    python benchmarks/ten_tasks.py --train EMB --validation EMB --test EMB --labels CSV --out runs/ten-tasks
    python benchmarks/ten_tasks.py --train EMB --validation EMB --test EMB --phantom      labels from the phantoms' truth
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from medvl.evaluation.embedded import Embedded
from medvl.evaluation.report.html import write_html
from medvl.evaluation.report.markdown import write_markdown
from medvl.evaluation.report.tasks import tasks_document
from medvl.evaluation.results import write_results
from medvl.heads.phantom_lesions import phantom_labels
from medvl.heads.task_list import load_ten_tasks
from medvl.heads.task_record import Encoder, evaluate_tasks
from medvl.heads.ten_tasks import SPLITS

TASKS = Path(__file__).parents[1] / "configs" / "protocols" / "ten-tasks.yaml"


def main() -> None:
    """Learn, measure, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for split in SPLITS:
        parser.add_argument(f"--{split}", type=Path, nargs="+", required=True, help="embedded cohort, or one for each scan")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument("--labels", type=Path, help="CSV with patient_id, region and label columns")
    labels.add_argument("--phantom", action="store_true", help="derive what the phantoms' truth tells")
    parser.add_argument("--phantom-seed", type=int, default=11, help="of phantoms whose cohort does not tell its seed")
    parser.add_argument("--protocol", type=Path, default=TASKS)
    parser.add_argument("--out", type=Path, default=Path("runs/ten-tasks"))
    options = parser.parse_args()
    cohorts = {split: [Embedded.load(path) for path in getattr(options, split)] for split in SPLITS}
    if options.phantom:
        table = phantom_labels([part[0] for part in cohorts.values()], options.phantom_seed)
    else:
        table = pd.read_csv(options.labels, dtype={"patient_id": str})
    about = cohorts["test"][0].source
    encoder = Encoder(about["model"], about["model_sha256"], cohorts)
    told = evaluate_tasks(load_ten_tasks(options.protocol), encoder, table)
    report = tasks_document(told)
    write_results(told, options.out / "results.json")
    write_html(report, options.out / "report.html")
    print(write_markdown(report, options.out).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
