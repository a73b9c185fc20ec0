"""Rules of the house that no other tool holds: what imports load, what may not be written, what must be declared."""

import ast
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ("medvl", "pipelines", "ui", "configs")
FOLDERS = (*SHIPPED, "tests", "benchmarks", "docs", ".ci")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = {"torch", "monai", "transformers", "streamlit", "numpy", "pandas", "pydicom", "nibabel", "matplotlib"}


def files(*folders: str, suffix: str = "") -> Iterator[Path]:
    """Every file below `folders`, and those of the root where `.` is among them."""
    for folder in folders:
        found = ROOT.iterdir() if folder == "." else (ROOT / folder).rglob("*")
        yield from (p for p in sorted(found) if p.is_file() and p.name.endswith(suffix) and "__pycache__" not in p.parts)


def texts(*folders: str) -> Iterator[tuple[Path, str]]:
    """Path and content of every text file below `folders`."""
    for path in files(*folders):
        raw = path.read_bytes()
        if b"\0" not in raw and path.name != ".git":
            yield path.relative_to(ROOT), raw.decode("utf-8", errors="replace")


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Path and syntax tree of every Python file below `folders`."""
    for path in files(*folders, suffix=".py"):
        yield path.relative_to(ROOT), parsed(path)


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a Python file, read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Full names of the modules that a file imports absolutely."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


@pytest.mark.parametrize(
    ("code", "allowed"),
    [
        ("import medvl", set()),
        ("from medvl_pipelines.cli import main\ntry:\n main(['--help'])\nexcept SystemExit: pass", set()),
        ("import medvl.geometry, medvl.records, medvl.dicom", {"numpy", "pydicom"}),
    ],
)
def test_light_imports_load_nothing_heavy(code: str, allowed: set[str]) -> None:
    probe = f"{code}\nimport sys\nprint('MODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=120)
    loaded = set(shown.stdout.rpartition("MODULES")[2].split())
    assert "medvl" in loaded
    assert loaded & HEAVY - allowed == set()


def test_no_pickle_anywhere() -> None:
    """A pickle runs code on loading: weights are safetensors, tables are Parquet or CSV, the rest is JSON and YAML."""
    modules = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
    calls = {"torch.load", "torch.save", "pd.read_pickle", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load"}
    found = []
    for path, tree in trees(*SHIPPED, "benchmarks"):
        found += [f"{path}: import {name}" for name in imported(tree) if name.partition(".")[0] in modules]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                checkpoint = name == "torch.load" and path.as_posix() == "medvl/models/weights.py"
                unsafe = any(k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in node.keywords)
                tensors_only = any(k.arg == "weights_only" and getattr(k.value, "value", None) is True for k in node.keywords)
                if (name in calls and not (checkpoint and tensors_only)) or name.endswith(".to_pickle") or unsafe:
                    found.append(f"{path}:{node.lineno}: {name}")
    assert found == []


def test_no_path_of_one_machine() -> None:
    pattern = re.compile(r"(?:^|[^\w.$])/(?:tmp|work|root|home|opt|mnt|Users)/[\w.-]+", re.MULTILINE)
    found = [f"{path}: {match.group().strip()}" for path, text in texts(".", *FOLDERS) for match in pattern.finditer(text)]
    assert found == []


def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *files("docs", suffix=".md")]
    dead, n_links = [], 0
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = target.partition("#")
            if re.match(r"[a-z]+:", target):
                continue
            n_links += 1
            aim = (page.parent / path).resolve() if path else page
            if not aim.exists() or (anchor and aim.suffix == ".md" and anchor not in anchors(aim)):
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []
    assert n_links > 20


def anchors(page: Path) -> set[str]:
    """The anchors that a Markdown page's headings give."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in files("docs", suffix=".md")} - {"index.md"}
    assert {page for page in pages if f"({page})" not in index} == set()


def test_command_page_says_what_the_command_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "cli_reference.py"))["page"]()
    assert (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8") == made, "run `make docs`"


def test_every_reason_code_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "reason-codes.md").read_text(encoding="utf-8")
    used = {
        str(node.args[0].value)
        for _, tree in trees("medvl", "pipelines")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("InputError", "Reason")
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert used, "no reason code found: did the names change?"
    assert {code for code in used if f"`{code}`" not in page} == set()


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~ \[;]", name)[0]).lower()


ABSENT = {"mlflow": "mlflow-skinny"}  # imports whose package has another name, of extras that may not be installed


def test_every_import_is_a_declared_dependency() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [
        name
        for extra in ("train", "radiomics", "scale", "reports", "server", "cluster", "oidc", "onnx", "mlflow")
        for name in extras[extra]
    ]  # of users
    declared = {normal(name) for name in [*PROJECT["project"]["dependencies"], *asked]}
    owners = packages_distributions()
    ours = {"medvl", "medvl_pipelines", "medvl_ui", "medvl_configs"}
    undeclared = {
        f"{path}: {name}"
        for path, tree in trees(*SHIPPED)
        for name in {full.partition(".")[0] for full in imported(tree)} - set(sys.stdlib_module_names) - ours
        if not declared & {normal(owner) for owner in owners.get(name, [ABSENT.get(name, name)])}
    }
    assert undeclared == set()


def test_every_dependency_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(pin): pin for pin in pins if pin and not pin.startswith("#")}
    extras = [name for extra in PROJECT["project"]["optional-dependencies"].values() for name in extra]
    assert {normal(name) for name in [*PROJECT["project"]["dependencies"], *extras]} - set(pinned) == set()
    assert [pin for pin in pinned.values() if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


def test_every_package_is_in_the_wheel() -> None:
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    here = set()
    for name, folder in mapping.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            here.add(".".join((name, *init.parent.relative_to(ROOT / folder).parts)))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == here
