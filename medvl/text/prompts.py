"""Findings as questions: a YAML list of what to ask of a scan, and the present and absent sentences that ask it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medvl.errors import ConfigError, did_you_mean

_CODED = ("code", "site", "side")


class Code(BaseModel):
    """A coded concept, as DICOM writes it.

    Args:
        scheme: coding scheme designator of PS3.16 annex 8, such as SCT (SNOMED CT), RADLEX or DCM.
        value: the code, up to 16 characters.
        meaning: its words, up to 64 characters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    scheme: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,16}$")
    value: str = Field(pattern=r"^[A-Za-z0-9_.:{}-]{1,16}$")
    meaning: str = Field(min_length=1, max_length=64, pattern=r"^[^\\\x00-\x1f]+$")


class Finding(BaseModel):
    """One question.

    Args:
        key: snake_case name; label: what a person reads.
        region: kind of region it is asked of, such as kidney.
        truth: label attribute that answers it.
        given: key of a finding that must be present for this one to make sense.
        phases: contrast phases in which it can be seen; empty for all.
        templates: sentence frames with {} for a descriptor; none when the descriptors are sentences.
        present, absent: descriptors; {side} becomes left or right.
        descriptor: one sentence on how it looks.
        code: what it is called in a terminology; reports to a PACS use a private code without it.
        site: where it lies, in a terminology; the region asked where that is not told.
        side: side of the site, for a finding whose region has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    key: str
    label: str
    region: str
    truth: str
    given: str | None = None
    phases: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    present: tuple[str, ...]
    absent: tuple[str, ...]
    descriptor: str = ""
    code: Code | None = None
    site: Code | None = None
    side: Literal["left", "right"] | None = None

    def prompts(self, region_name: str) -> tuple[list[str], list[str]]:
        """Present and absent sentences for one region: every template with every descriptor."""
        side = region_name.rpartition("_")[2]
        return self._fill(self.present, side), self._fill(self.absent, side)

    def _fill(self, descriptors: Iterable[str], side: str) -> list[str]:
        frames = self.templates or ("{}",)
        said = [frame.replace("{}", d).replace("{side}", side) for frame in frames for d in descriptors]
        return [text[:1].upper() + text[1:] for text in said]


class FindingList(BaseModel):
    """A named list of findings."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    findings: tuple[Finding, ...]

    @property
    def sha256(self) -> str:
        """Of everything the list says; of codes, only where it says them."""
        values = self.model_dump(mode="json")
        for finding in values["findings"]:
            for name in _CODED:
                if finding[name] is None:
                    del finding[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def __getitem__(self, key: str) -> Finding:
        """The finding called `key`.

        Raises:
            ConfigError: there is none.
        """
        for finding in self.findings:
            if finding.key == key:
                return finding
        raise ConfigError(f"no finding {key} in the list {self.name}; {did_you_mean(key, (f.key for f in self.findings))}")

    def only(self, kinds: Iterable[str]) -> FindingList:
        """The findings asked of some kinds of region; the list itself when that is all of them.

        Raises:
            ConfigError: none is asked of any of them.
        """
        wanted = tuple(kinds)
        kept = tuple(f for f in self.findings if f.region in wanted)
        if not kept:
            raise ConfigError(f"the findings list {self.name} asks nothing of {', '.join(wanted)}; name another list")
        return self if len(kept) == len(self.findings) else FindingList(name=self.name, findings=kept)


def as_yaml(findings: FindingList) -> str:
    """YAML text of a list, which `load_findings` reads back."""
    values = findings.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def load_findings(source: Path | str | dict[str, Any]) -> FindingList:
    """A findings list from a YAML file, YAML text or plain values.

    Raises:
        ConfigError: no such file, unknown or missing keys, two findings of one name, or a `given` that names no finding.
    """
    try:
        values = (
            source
            if isinstance(source, dict)
            else yaml.safe_load(source.read_text("utf-8") if isinstance(source, Path) else source)
        )
        found = FindingList.model_validate(values)
    except OSError as error:
        raise ConfigError(f"the findings list {source} cannot be read ({type(error).__name__}); give a YAML file") from error
    except (ValidationError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the findings list is not usable: {error}") from error
    keys = [f.key for f in found.findings]
    for f in found.findings:
        if keys.count(f.key) > 1:
            raise ConfigError(f"two findings are called {f.key}")
        if f.given is not None and f.given not in keys:
            raise ConfigError(f"{f.key} is given {f.given}, which is no finding of the list {found.name}")
    return found
