"""A bundle's towers and localiser as graphs: ONNX files, or archives of `torch.export`. Each is checked before it is kept."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from medvl import __version__
from medvl.errors import ConfigError
from medvl.exchange.layout import growing
from medvl.exchange.parity import TOLERANCE, Difference, ParityError, check, difference
from medvl.exchange.sides import Side, sides_of
from medvl.files import write_json
from medvl.models.bundle import Bundle, sha256_of
from medvl.records import RESEARCH_USE, Volume

OPSET = 20
EXTERNAL_BYTES = 1 << 30  # a protobuf file ends at 2 GiB
KEPT = ("contract.json", "tokenizer.json", "findings.yaml", "bank.safetensors", "calibration.json", "model.json")
Kind = Literal["onnx", "torch-export"]
Run = Callable[[dict[str, Tensor]], list[NDArray[np.float32]]]


def write_graphs(bundle: Bundle, out: Path, kind: Kind, scans: Sequence[Volume] = ()) -> dict[str, Any]:
    """Write graphs of a bundle to `out`, with what their inputs and outputs need, and `export.json` that tells the differences.

    Args:
        bundle: opened.
        out: not there, or empty.
        kind: onnx or torch-export.
        scans: to check with; phantoms by default.

    Returns:
        The content of `export.json`.

    Raises:
        ConfigError: a package is missing, `out` is not empty, or nothing can be checked with.
        ParityError: a graph gives other numbers; nothing is written then.
    """
    if kind == "onnx":
        _needs("onnx", "onnxruntime", "onnxscript")
    with growing(out) as part:
        graphs = {side.name: _write(side, part, kind) for side in sides_of(bundle, scans)}
        for name in KEPT:
            shutil.copyfile(bundle.path(name), part / name)
        told = {
            "schema": "medvl.graphs/1",
            "research_use": RESEARCH_USE,
            "software": f"medvl {__version__}",
            "kind": kind,
            "bundle": {"name": bundle.name, "sha256": bundle.sha256, "contract": bundle.contract.hash},
            "opset": OPSET if kind == "onnx" else None,
            "versions": {name: version(name) for name in ("torch", "onnx", "onnxruntime") if find_spec(name)},
            "tolerance": TOLERANCE,
            "checked_with": f"{len(scans)} scans" if scans else "phantoms",
            "graphs": graphs,
        }
        write_json(part / "export.json", told)
    return told


def trace(side: Side) -> ExportedProgram:
    """The part as a graph with free axes."""
    with _quiet(), torch.no_grad():
        return torch.export.export(side.module, tuple(side.inputs.values()), dynamic_shapes=side.dynamic, strict=False)


def to_onnx(side: Side, path: Path) -> Run:
    """Write `path` and return what runs it in onnxruntime on the processor."""
    import onnxruntime

    size = sum(p.numel() * p.element_size() for p in side.module.parameters())
    with _quiet(), torch.no_grad():
        made = torch.onnx.export(
            trace(side),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(side.inputs),
            output_names=list(side.outputs),
            external_data=False,
            verbose=False,
        )
        if made is None:
            raise ConfigError(f"{side.name} cannot be written as ONNX by this torch")
        made.save(str(path), external_data=size > EXTERNAL_BYTES)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    takes = [each.name for each in session.get_inputs()]
    return lambda given: session.run(None, {name: given[name].numpy() for name in takes})


def to_archive(side: Side, path: Path) -> Run:
    """Write `path` and return what runs it, loaded again.

    Raises:
        ParityError: torch wrote a pickle into it.
    """
    program = trace(side)
    program.example_inputs = None
    torch.export.save(program, path)
    if pickled := pickles_in(path):
        raise ParityError(f"{side.name}: torch wrote a pickle into the archive ({pickled[0]}); use --to onnx")
    module = torch.export.load(path).module()

    def run(given: dict[str, Tensor]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            found = module(*given.values())
        return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]

    return run


def pickles_in(path: Path) -> list[str]:
    """Members of a `.pt2` archive that are pickles: a torch file in the archive, or a protocol mark at the start."""
    with zipfile.ZipFile(path) as archive:
        starts = {name: archive.open(name).read(2) for name in archive.namelist() if not Path(name).name.startswith("weight_")}
        settings = [json.loads(archive.read(name)) for name in archive.namelist() if name.endswith("_config.json")]
    flagged = [name for each in settings for name, held in each["config"].items() if held.get("use_pickle")]
    return [name for name, start in starts.items() if start[:1] == b"\x80" or start == b"PK"] + flagged


def measure(side: Side, run: Run) -> list[Difference]:
    """The differences of every output, on the inputs that the graph was traced by and on those of other sizes."""
    found: list[Difference] = []
    for given in (side.inputs, side.other):
        with torch.no_grad():
            expected = side.module(*given.values())
        wanted = expected if isinstance(expected, tuple) else (expected,)
        found += [difference(a.numpy(), b) for a, b in zip(wanted, run(given), strict=True)]
    return found


def _write(side: Side, folder: Path, kind: Kind) -> dict[str, Any]:
    path = folder / f"{side.name}.{'onnx' if kind == 'onnx' else 'pt2'}"
    differences = measure(side, to_onnx(side, path) if kind == "onnx" else to_archive(side, path))
    check(side.name, differences)
    worst = Difference(
        max(d.max_abs for d in differences), max(d.max_rel for d in differences), min(d.cosine for d in differences)
    )
    shapes = {
        name: [getattr(side.dynamic[name].get(axis), "__name__", size) for axis, size in enumerate(v.shape)]
        for name, v in side.inputs.items()
    }
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "inputs": {name: {"shape": shapes[name], "dtype": str(v.dtype)[6:]} for name, v in side.inputs.items()},
        "outputs": list(side.outputs),
        "rows_checked": len(next(iter(side.inputs.values()))),
        "difference": worst.as_dict(),
    }


def _needs(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {', '.join(missing)}, which are not installed: pip install 'medvl[onnx]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of packages that nobody asked for and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
