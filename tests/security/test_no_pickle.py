"""Nothing that runs code on loading: no pickles in code or files, no eval, no shell."""

from __future__ import annotations

import ast
import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ("medvl", "pipelines", "ui", "configs")
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "pickle5",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "jsonpickle",
    "pandas.io.pickle",
}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn"}
METHODS = {"read_pickle", "to_pickle", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}
PROTOCOLS = {bytes([0x80, n]) for n in range(2, 6)}


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """``numpy.load`` for ``np.load``: the full name of what is called, imports resolved; empty where it is no name."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, names)
        return f"{owner}.{node.attr}" if owner else f"?.{node.attr}"
    return ""


def imported(tree: ast.Module) -> dict[str, str]:
    """Local name to full name of every import of a file, wherever it stands."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = alias.name if alias.asname else alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == name), None)


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def why_not(call: ast.Call, names: dict[str, str]) -> str:
    """Why a call may run code that lies in data; empty when it may not."""
    name = dotted(call.func, names)
    last = name.rpartition(".")[2]
    if name in CALLS or name.removeprefix("builtins.") in CALLS:
        return name
    if last in METHODS:
        return last
    exported = name == "torch.export.load"  # medvl.exchange.graphs reads what it wrote itself and searched for pickles
    if name.startswith("torch.") and last == "load" and not exported and not is_constant(keyword(call, "weights_only"), True):
        return "torch.load without weights_only=True"
    if name == "torch.save":
        return name
    allow = keyword(call, "allow_pickle")
    if allow is not None and not is_constant(allow, False):
        return "allow_pickle"
    if name in ("yaml.load", "yaml.load_all"):
        loader = keyword(call, "Loader") or (call.args[1] if len(call.args) > 1 else None)
        if loader is None or dotted(loader, names).rpartition(".")[2] not in SAFE_LOADERS:
            return "yaml.load without SafeLoader"
    shell = keyword(call, "shell")
    if shell is not None and not is_constant(shell, False):
        return "shell"
    if name.startswith("subprocess.get"):
        return name
    return ""


def dangers(source: str) -> list[str]:
    """What in a Python source may run code from data, with its line."""
    tree = ast.parse(source)
    names = imported(tree)
    found = [f"{line}: import {name}" for line, name in modules(tree) if name in MODULES or name.partition(".")[0] in MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (why := why_not(node, names)):
            found.append(f"{node.lineno}: {why}")
        elif isinstance(node, ast.Attribute) and dotted(node, names) in {f"builtins.{name}" for name in CALLS}:
            found.append(f"{node.lineno}: {node.attr}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import dumps",
        "def f():\n import joblib.memory",
        "import torch as t\nt.load(p)",
        "from torch import load\nload(p, weights_only=False)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "import yaml\nyaml.load(text)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "import pandas as pd\npd.read_pickle(p)",
        "frame.to_pickle(p)",
        "eval(text)",
        "import builtins\nbuiltins.exec(text)",
        "import subprocess as s\ns.run(x, shell=True)",
        "import os\nos.system(x)",
        "from subprocess import getoutput\ngetoutput(x)",
    ],
)
def test_the_walk_finds_what_it_looks_for(source: str) -> None:
    assert dangers(source)


@pytest.mark.parametrize(
    "source",
    [
        "import yaml\nyaml.safe_load(text)\nyaml.load(text, Loader=yaml.CSafeLoader)",
        "import torch\ntorch.load(p, weights_only=True)",
        "import re\nre.compile(x)\nmodel.eval()\ntorch.compile(model)",
        "import numpy as np\nnp.load(p)\nnp.load(p, allow_pickle=False)",
        "import subprocess\nsubprocess.run([x], shell=False)",
    ],
)
def test_the_walk_lets_honest_code_be(source: str) -> None:
    assert dangers(source) == []


def test_no_code_from_data() -> None:
    found = {}
    for folder in SHIPPED:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if lines := dangers(path.read_text(encoding="utf-8")):
                found[str(path.relative_to(ROOT))] = lines
    assert found == {}


def is_pickle(data: bytes) -> bool:
    """True for a pickle of any protocol: the head of the newer ones, or opcodes that run to a STOP."""
    if data[:2] in PROTOCOLS:
        return True
    if not data.rstrip(b"\n").endswith(b".") or len(data) > 1 << 20:
        return False
    try:
        steps = [opcode.name for opcode, _, _ in pickletools.genops(io.BytesIO(data))]
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError):
        return False
    return len(steps) > 1 and steps[-1] == "STOP"


def pickles(path: Path) -> list[str]:
    """The names of the pickles in a file: itself, or members of a zip, which is what PyTorch and NumPy write."""
    data = path.read_bytes()
    if is_pickle(data):
        return [path.name]
    if data[:4] != b"PK\x03\x04":
        return []
    with zipfile.ZipFile(path) as archive:
        return [f"{path.name}/{name}" for name in archive.namelist() if name.endswith(".pkl") or is_pickle(archive.read(name))]


def test_the_scan_knows_a_pickle(tmp_path: Path) -> None:
    """Written by hand, so that the test itself needs no pickle module."""
    (tmp_path / "new").write_bytes(b"\x80\x04K\x01.")
    (tmp_path / "old").write_bytes(b"(lp0\nI1\na.")
    (tmp_path / "text").write_bytes(b"A sentence that ends with a stop.")
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02K\x01.")
    assert {path.name: pickles(path) for path in sorted(tmp_path.iterdir())} == {
        "new": ["new"],
        "old": ["old"],
        "text": [],
        "zip": ["zip/archive/data.pkl"],
    }


def test_no_file_that_ships_is_a_pickle() -> None:
    found = [
        name
        for folder in SHIPPED
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
        for name in pickles(path)
    ]
    assert found == []
