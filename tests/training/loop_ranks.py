"""Trains the toy as one of the ranks that torchrun starts, told by JSON: out, options, toy, stop, fresh."""

import json
import sys
from pathlib import Path
from typing import Any

from loop_toy import Stopped, Toy, no_progress, stop_at

from medvl.training.loop import Interrupted, LoopOptions, fit


def say_step(done: int, *_: Any) -> None:
    """Tell who watches."""
    sys.stdout.write(f"step {done}\n")
    sys.stdout.flush()


def main(told: dict[str, Any]) -> None:
    """Train, cut off after step `stop` where one is given."""
    options = LoopOptions(**told["options"])
    task = Toy(**told.get("toy", {}))
    progress = stop_at(told["stop"]) if "stop" in told else say_step if told.get("aloud") else no_progress
    try:
        receipt = fit(task, options, Path(told["out"]), progress)
    except Stopped:
        sys.exit(3)
    except Interrupted as error:
        sys.exit(error.exit_code)
    plain = all(type(parameter).__name__ == "Parameter" for parameter in task.parameters())
    sys.stdout.write(f"SHA {receipt.sha256} {receipt.world_size} {plain}\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
