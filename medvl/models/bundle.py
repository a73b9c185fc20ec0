"""A bundle: weights with all that is needed to use them, every file under its SHA-256. No contract, no load.

Files: `bundle.json` (name, schema, hashes), `contract.json`, `model.json`, `weights.safetensors` (half precision),
`tokenizer.json`, `findings.yaml`, `bank.safetensors` (embedded prompts), `calibration.json`, `familiarity.safetensors`,
`survival.json`, `metrics.json`, `README.md` (the model card); where they were made, `paraphrases.json` (limits of disagreement),
`prior.safetensors` (answers of a null image) and `reference.safetensors` (answers of validation regions). Nothing is a pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvl.errors import BundleError
from medvl.files import write_json
from medvl.imaging.preprocess import Contract

if TYPE_CHECKING:
    from torch import Tensor

    from medvl.models.system import System

SCHEMA = "medvl.bundle/1"
REQUIRED = (
    "contract.json",
    "model.json",
    "weights.safetensors",
    "tokenizer.json",
    "findings.yaml",
    "bank.safetensors",
    "calibration.json",
    "familiarity.safetensors",
    "README.md",
)


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened and verified bundle.

    Args:
        folder: where it lies; manifest: `bundle.json`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["name"])

    @cached_property
    def sha256(self) -> str:
        """One hash for the whole: of the sorted file hashes."""
        return fingerprint(self.manifest["files"])

    @cached_property
    def contract(self) -> Contract:
        """What the image tower takes."""
        return Contract.from_json(self.values("contract.json"))

    @cached_property
    def kinds(self) -> dict[str, tuple[str, ...]]:
        """Regions by kind."""
        return {name: tuple(regions) for name, regions in self.values("model.json")["kinds"].items()}

    def __contains__(self, file: str) -> bool:
        return file in self.manifest["files"]

    def path(self, file: str) -> Path:
        """Where a file of the bundle lies."""
        return self.folder / file

    def values(self, file: str) -> Any:
        """A JSON file of the bundle."""
        return json.loads(self.path(file).read_text(encoding="utf-8"))

    def text(self, file: str) -> str:
        """A text file of the bundle."""
        return self.path(file).read_text(encoding="utf-8")

    def tensors(self, file: str, prefix: str = "") -> dict[str, Tensor]:
        """The tensors of a safetensors file whose names begin with `prefix`, without it; half precision becomes float32."""
        from safetensors import safe_open

        with safe_open(self.path(file), framework="pt") as stored:
            found = {k[len(prefix) :]: stored.get_tensor(k) for k in stored.keys() if k.startswith(prefix)}  # noqa: SIM118
        return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}


def load_system(bundle: Bundle) -> System:
    """The trained system of a bundle, on the processor and in evaluation mode: towers, and concept streams where it has them."""
    from tokenizers import Tokenizer

    from medvl.models.system import System, SystemConfig

    shapes = bundle.values("model.json")
    config = SystemConfig.model_validate({**shapes["clip"], "streams": shapes.get("streams")})
    concepts = shapes.get("concepts", {"anatomies": [], "findings": []})
    tokenizer = Tokenizer.from_str(bundle.text("tokenizer.json"))
    system = System(config, tokenizer, concepts["anatomies"], concepts["findings"])
    weights = bundle.tensors("weights.safetensors")
    system.load_state_dict({k: v for k, v in weights.items() if not k.startswith("localiser.")})
    return system.eval()


def fingerprint(files: Mapping[str, str]) -> str:
    """SHA-256 over file names and their hashes, sorted."""
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path, name: str, software: str) -> Bundle:
    """Write `bundle.json` over everything in `folder` and open the result."""
    files = {
        str(p.relative_to(folder)): sha256_of(p) for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "bundle.json"
    }
    contract = Contract.from_json(json.loads((folder / "contract.json").read_text(encoding="utf-8")))
    manifest = {"schema": SCHEMA, "name": name, "software": software, "contract_hash": contract.hash, "files": files}
    write_json(folder / "bundle.json", manifest)
    return open_bundle(folder)


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, after checking every file and the contract.

    Raises:
        BundleError: not a bundle, another schema, a file missing, added or altered, or a contract that does not match its hash.
    """
    try:
        manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(f"no bundle.json in {folder}; give a bundle folder or the name of a built-in bundle") from error
    except ValueError as error:  # neither JSON nor UTF-8
        raise BundleError(f"bundle.json in {folder} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise BundleError(f"expected schema {SCHEMA}, found {found}; this medvl cannot read it")
    _check_files(folder, manifest.get("files", {}))
    bundle = Bundle(folder, manifest)
    if bundle.contract.hash != manifest.get("contract_hash"):
        raise BundleError("contract.json does not match the contract hash of the bundle; the weights were made for another input")
    return bundle


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    missing = [f for f in REQUIRED if f not in files]
    if missing:
        raise BundleError(f"bundle.json does not list {', '.join(missing)}")
    for name, expected in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"bundle.json names a file outside the bundle: {name}")
        if not path.is_file():
            raise BundleError(f"{name} is missing from the bundle; copy it again")
        found = sha256_of(path)
        if found != expected:
            raise BundleError(f"{name} was altered: expected SHA-256 {expected[:12]}, found {found[:12]}; copy the bundle again")
    extra = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - set(files) - {"bundle.json"}
    if extra:
        raise BundleError(f"the bundle holds files its bundle.json does not list: {', '.join(sorted(extra)[:3])}")
