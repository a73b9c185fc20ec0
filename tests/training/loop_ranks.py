"""Trains the toy as one of the ranks that torchrun starts, told by JSON: out, options, toy, stop, fresh."""

import json
import sys
from pathlib import Path
from typing import Any

from loop_toy import Stopped, Toy, no_progress, stop_at

from medvl.training.loop import LoopOptions, fit


def main(told: dict[str, Any]) -> None:
    """Train, cut off after step `stop` where one is given."""
    options = LoopOptions(**told["options"])
    task = Toy(**told.get("toy", {}))
    try:
        receipt = fit(task, options, Path(told["out"]), stop_at(told["stop"]) if "stop" in told else no_progress)
    except Stopped:
        sys.exit(3)
    plain = all(type(parameter).__name__ == "Parameter" for parameter in task.parameters())
    print(f"SHA {receipt.sha256} {receipt.world_size} {plain}", flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
