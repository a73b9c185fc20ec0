"""A retrained bundle against its parent on fresh phantoms of the other hospital: patients that neither has seen, and the truth.

    python benchmarks/retrained.py runs/lakeside/retrain/bundle --out runs/lakeside/fresh

Crops lie around true centres; the policy is the gate's default. Writes what `medvl gate` writes, and both embedded cohorts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medvl.data.cohort import PhantomCohort, build_phantom
from medvl.inference.embed import embed_cohort
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl_pipelines.built_in import bundle_folder
from medvl_pipelines.gate import judge


def main() -> int:
    """Run from the command line."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("bundle", help="the retrained bundle")
    asked.add_argument("--parent", default="phantom-demo")
    asked.add_argument("--site", default="lakeside")
    asked.add_argument("--seed", type=int, default=77, help="of the fresh patients; not that of the training export")
    asked.add_argument("--n", type=int, default=300)
    asked.add_argument("--out", type=Path, required=True)
    args = asked.parse_args()
    folders = {"before": bundle_folder(args.parent), "after": bundle_folder(args.bundle)}
    which = PhantomCohort(args.seed, 0, args.n, 0.0, site=args.site)
    for side, folder in folders.items():
        predictor = Predictor(open_bundle(folder))
        cohort = build_phantom(args.out / "crops", which, predictor.contract, workers=2)
        source = {"cohort": f"phantom seed {args.seed} of {args.site}", "split": "test", "way": "crops"}
        embed_cohort(predictor, cohort, source).save(args.out / side)
    result = judge(folders["before"], folders["after"], args.out / "before", args.out / "after", "default", args.out / "gate")
    for check in result.checks:
        if check.part in ("primary", "finding", "retrieval", "survival") and check.gain is not None:
            told = f"{check.gain:+.3f} [{check.low:+.3f}, {check.high:+.3f}]"
            print(f"| {check.what} | {check.metric} | {check.before:.3f} | {check.after:.3f} | {told} | {check.verdict} |")
    print("passed" if result.passed else "not passed", args.out / "gate" / "gate.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
