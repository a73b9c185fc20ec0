"""Stages and bundles as runs of MLflow, where that is asked for: values, curves and hashes; never images, reports or paths.

A folder is MLflow's file store, kept on this machine. Something leaves it only where a server's address is given. MLflow's own
reports of how it is used are switched off either way.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medvl import __version__
from medvl.errors import ConfigError
from medvl.files import replace_text
from medvl.models.bundle import Bundle

EXPERIMENT = "medvl"
_AT_ONCE = 1000  # MLflow takes no more values in one call
_RUN_FILE = "mlflow.json"


class Tracked:
    """The MLflow run of one stage. What it is told is sent when the stage's checkpoint is on disk, so that no step counts twice.

    Args:
        folder: of the stage; keeps the number of its run, so that a stage that goes on goes on there too.
        where: folder, or address of a tracking server.
        params: what the stage was told.

    Raises:
        ConfigError: MLflow is not installed, or cannot write there.
    """

    def __init__(self, folder: Path, where: str, params: Mapping[str, Any]) -> None:
        self._client, uri = _client(where)
        self._waiting: list[tuple[str, float, int]] = []
        path = folder / _RUN_FILE
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if kept.get("uri") == uri:
            self.run_id = str(kept["run_id"])
            self._client.set_terminated(self.run_id, "RUNNING")
            return
        self.run_id = _new_run(self._client, folder.name, {"medvl.stage": folder.name, "medvl.version": __version__})
        for name, value in params.items():
            self._client.log_param(self.run_id, name, value)
        replace_text(path, json.dumps({"uri": uri, "run_id": self.run_id}) + "\n")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Values after `step` steps; those that are not finite are left out."""
        self._waiting += [(name, float(value), step) for name, value in values.items() if math.isfinite(value)]

    def settle(self) -> None:
        """Send what was added."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        sent = [Metric(name, value, now, step) for name, value, step in self._waiting]
        for start in range(0, len(sent), _AT_ONCE):
            self._client.log_batch(self.run_id, metrics=sent[start : start + _AT_ONCE])
        self._waiting = []

    def close(self) -> None:
        """Send the rest and end the run."""
        self.settle()
        self._client.set_terminated(self.run_id)


def track_bundle(where: str, bundle: Bundle) -> str:
    """Note a finished bundle as a run of its own: name, hashes and validation AUROC; gives the run's number.

    Raises:
        ConfigError: MLflow is not installed, or cannot write there.
    """
    client, _ = _client(where)
    tags = {"medvl.bundle": bundle.name, "medvl.bundle_sha256": bundle.sha256, "medvl.contract": bundle.contract.hash}
    run_id = _new_run(client, bundle.name, {**tags, "medvl.version": str(bundle.manifest["software"])})
    scores = bundle.values("metrics.json").get("validation_auroc", {}) if "metrics.json" in bundle else {}
    for name, value in scores.items():
        if value is not None and math.isfinite(value):
            client.log_metric(run_id, f"validation_auroc.{name}", float(value))
    client.set_terminated(run_id)
    return run_id


def _client(where: str) -> tuple[Any, str]:
    if find_spec("mlflow") is None:
        raise ConfigError("MLflow is asked for and not installed: pip install 'medvl[mlflow]', or leave the option off")
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_ALLOW_FILE_STORE"):
        os.environ.setdefault(name, "true")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = where if "://" in where else Path(where).resolve().as_uri()
    try:
        client = MlflowClient(tracking_uri=uri)
        client.get_experiment_by_name(EXPERIMENT)
    except (MlflowException, OSError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(f"MLflow cannot write to {where} ({first}); give a folder, or check the address") from error
    return client, uri


def _new_run(client: Any, name: str, tags: Mapping[str, str]) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    experiment = client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
    return str(client.create_run(experiment, run_name=name, tags=dict(tags)).info.run_id)
