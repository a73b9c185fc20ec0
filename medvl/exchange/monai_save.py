"""What an exported MONAI bundle leaves behind: a table by file name, and a results folder that `medvl view` opens."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from medvl.dicom.scan import short_hash
from medvl.exchange.monai_parts import Item, RegionNetwork
from medvl.files import whole
from medvl.inference.results import ResultsFolder

COLUMNS = ("image", "region", "finding", "label", "score", "verdict", "threshold", "margin", "reasons", "case_id")


class SaveFindings:
    """Writes `findings.csv`, and for each scan `studies/ID/findings.json` and `embeddings.safetensors`, as `medvl infer` does.

    Args:
        output_dir: made when missing.
        network: whose bundle is told in every record.
    """

    def __init__(self, output_dir: str, network: RegionNetwork) -> None:
        self.out, self.bundle = Path(output_dir), network.bundle
        self.rows: list[dict[str, Any]] = []

    def __call__(self, data: Item) -> Item:
        """The item, with the record of the scan under `record`."""
        folder = ResultsFolder(self.out)
        source = Path(data["source"])
        case_id = folder.case_id(short_hash(source.name))
        record = folder.record(case_id, self.bundle, "done", (), None, data["result"])
        folder.write(case_id, record, data["result"])
        folder.tables()
        self.rows += [_row(source.name, case_id, found) for found in record["findings"]]
        with whole(self.out / "findings.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)
        return data | {"record": record}


def _row(image: str, case_id: str, found: dict[str, Any]) -> dict[str, Any]:
    reasons = ";".join(reason["code"] for reason in found["reasons"])
    plain = {key: found[key] for key in ("region", "finding", "label", "score", "verdict", "threshold", "margin")}
    return {"image": image, "case_id": case_id, "reasons": reasons, **plain}
