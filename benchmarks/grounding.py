"""Do heat maps outline findings: IoU and Dice on test phantoms, at thresholds chosen on validation phantoms.

    python benchmarks/grounding.py --bundle configs/bundles/phantom-demo --n 100

Whole scans go through the localiser, as in `medvl infer`; maps of findings that are there are compared with their lesions.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from medvl.data.cohort import PhantomCohort, describe
from medvl.evaluation.grounding import Maps, Measure, grounding_table
from medvl.evaluation.phantom_truth import patient_of
from medvl.imaging.phantom.render import render
from medvl.inference.embed import lesions_in
from medvl.inference.predictor import Predictor
from medvl.models.bundle import open_bundle
from medvl_pipelines.embed import phantoms_of


def maps_of(predictor: Predictor, which: PhantomCohort) -> dict[str, Maps]:
    """Heat maps and masks by finding, of regions that were read."""
    heats, masks, whose = defaultdict(list), defaultdict(list), defaultdict(list)
    for number in range(which.start, which.start + which.n):
        patient = patient_of(describe(which.seed, number)["truth"])
        regions = predictor.predict(render(patient), explain=False).regions
        for region in regions.values():
            if region.embedding is None or region.reasons or region.geometry is None:
                continue
            for finding, mask in lesions_in(predictor, patient, region):
                heats[finding.label].append(predictor.heat(finding, region).astype(np.float32))
                masks[finding.label].append(mask)
                whose[finding.label].append(patient.patient_id)
    return {name: Maps(heats[name], masks[name], whose[name]) for name in heats}


def told(measure: Measure) -> str:
    """Value and interval."""
    ends = measure.interval
    return f"{measure.value:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("configs/bundles/phantom-demo"))
    parser.add_argument("--n", type=int, default=100, help="patients of each split")
    parser.add_argument("--draws", type=int, default=1000)
    options = parser.parse_args()
    predictor = Predictor(open_bundle(options.bundle))
    validation, test = (phantoms_of(predictor, split, options.n) for split in ("validation", "test"))
    table = grounding_table(maps_of(predictor, validation), maps_of(predictor, test), n_bootstrap=options.draws)
    print("| finding | lesions | threshold | IoU | marking everything | Dice |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, found in table.items():
        if found is None:
            print(f"| {name} | NA: one split shows none | | | | |")
            continue
        iou, dice = (told(measure) for measure in (found.iou, found.dice))
        print(f"| {name} | {found.n} | {found.threshold:.2f} | {iou} | {found.iou.chance:.3f} | {dice} |")


if __name__ == "__main__":
    main()
