"""Which column of a spreadsheet is what: by name, by synonyms, and as told; what is not sure is asked, never assumed."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from medvl.dataset.synonyms import COVARIATES, IDENTIFIERS, SYNONYMS
from medvl.errors import ConfigError
from medvl.text.ontology import NAMED, load_ontology

DATES = ("scan_date", "diagnosis_date", "last_seen_date", "death_date", "birth_date")
REQUIRED = ("patient_id", "study")
_PREFIX = {"label_": "label", "label:": "label", "clinical_": "clinical", "clinical:": "clinical"}
_CENTER = re.compile(r"\w+_[xyz]_mm")
_RESERVED = frozenset(
    ("seed", "patient_id", "case_id", "report", "split", "time_days", "event", "age_years", "sex", "site", "phase")
)


@dataclass(frozen=True)
class Label:
    """A column of labels. `region` is empty where the column speaks of the finding wherever it is."""

    column: str
    finding: str
    region: str


@dataclass(frozen=True)
class Mapped:
    """What each column is.

    Args:
        fields: wanted name to columns, best first (several for `study` and `report` alone: the first that is filled counts).
        labels: columns of labels; clinical: covariate name to column; centers: columns of region centres, taken as named.
        identifiers: columns that are used to clean reports and for nothing else.
        ignored: columns that nothing uses; told: lines for a person, one a column that was not plainly named.
    """

    fields: Mapping[str, tuple[str, ...]]
    labels: tuple[Label, ...] = ()
    clinical: Mapping[str, str] = field(default_factory=dict)
    centers: tuple[str, ...] = ()
    identifiers: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    def lines(self) -> list[tuple[str, str]]:
        """(column, what it is taken as) for every column that is used, in the order of the fields."""
        found = [(column, name) for name, columns in self.fields.items() for column in columns]
        found += [(m.column, f"label {m.finding}" + (f" of {m.region}" if m.region else "")) for m in self.labels]
        found += [(column, f"clinical {name}") for name, column in self.clinical.items()]
        found += [(column, "centre of a region") for column in self.centers]
        found += [(column, "identifier: cleans reports, not kept") for column in self.identifiers]
        return found + [(column, "not used") for column in self.ignored]


@cache
def finding_regions() -> Mapping[str, tuple[str, ...]]:
    """Every attribute that is present or absent, and the regions it may be a label of."""
    found: dict[str, tuple[str, ...]] = {}
    for ontology in map(load_ontology, NAMED):
        names = [name for key in ontology.findings for name in ontology.named(key)]
        rules = ontology.attributes
        names += [rules["large"]["key"], *rules["flags"]] if rules else []
        found |= {name: ontology.regions for name in names if name not in found}
    return found


def plain(name: str) -> str:
    """A column's name without case, accents, blanks and marks: ``Pat. ID`` and ``PATID`` are the same."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", name.replace("ß", "ss")) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]", "", bare.casefold())


def map_columns(
    columns: Sequence[str],
    told: Mapping[str, Sequence[str]] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    clinical: Sequence[str] = (),
    identifiers: Sequence[str] = (),
) -> Mapped:
    """What each column is.

    Args:
        columns: of the sheet.
        told: wanted name to columns, from ``--map``; wanted names are the fields, ``label_FINDING[@REGION]``,
            ``clinical_NAME``, ``identifier`` and ``ignore``.
        aliases: further names of findings, such as the keys of a findings list, to their attribute.
        clinical: columns that are covariates.
        identifiers: columns that hold identity.

    Raises:
        ConfigError: a name that is told is not known, a column is not there, or patient or study cannot be found.
    """
    work = _Mapping(columns, dict(aliases or {}))
    for wanted, names in (told or {}).items():
        for name in names:
            work.as_told(wanted, name)
    for name in clinical:
        work.as_told(f"clinical_{_snake(name)}", name)
    for name in identifiers:
        work.as_told("identifier", name)
    work.by_name()
    return work.finish()


class _Mapping:
    """Columns being sorted out."""

    def __init__(self, columns: Sequence[str], aliases: dict[str, str]) -> None:
        self.columns, self.left, self.aliases = tuple(columns), list(columns), aliases
        self.fields: dict[str, list[str]] = {}
        self.labels: list[Label] = []
        self.clinical: dict[str, str] = {}
        self.centers: list[str] = []
        self.identifiers: list[str] = []
        self.ignored: list[str] = []
        self.told: list[str] = []
        self.fixed: set[str] = set()

    def as_told(self, wanted: str, column: str) -> None:
        """One ``--map WANTED=COLUMN``."""
        if column not in self.columns:
            raise ConfigError(f"the manifest has no column {column!r}{_near(column, self.columns)}")
        if column in self.left:
            self.left.remove(column)
        elif wanted != "identifier":
            raise ConfigError(f"column {column!r} is mapped twice; map it once")
        if wanted in SYNONYMS:
            self.fields.setdefault(wanted, []).append(column)
            self.fixed.add(wanted)
        elif wanted == "ignore":
            self.ignored.append(column)
        elif wanted == "identifier":
            self.identifiers.append(column)
        elif not self._prefixed(column, wanted, sure=True):
            known = [*SYNONYMS, "label_FINDING", "label_FINDING@REGION", "clinical_NAME", "identifier", "ignore"]
            raise ConfigError(f"--map knows no {wanted!r}{_near(wanted, known)}; it takes {', '.join(known)}")

    def by_name(self) -> None:
        """Everything that is left, by its name."""
        ranked: dict[str, list[tuple[int, str]]] = {}
        by_synonym = {plain(s): (wanted, k) for wanted, names in SYNONYMS.items() for k, s in enumerate(names)}
        for column in tuple(self.left):
            found = by_synonym.get(plain(column))
            if found is not None and found[0] not in self.fixed:
                ranked.setdefault(found[0], []).append((found[1], column))
                self.left.remove(column)
        for wanted, columns in ranked.items():
            self._settle(wanted, [column for _, column in sorted(columns)])
        for column in tuple(self.left):
            if self._prefixed(column, column) or self._known(column):
                self.left.remove(column)

    def _settle(self, wanted: str, columns: Sequence[str]) -> None:
        kept = columns if wanted in ("study", "report") else columns[:1]
        self.fields[wanted] = list(kept)
        for column in kept:
            if plain(column) != plain(wanted):
                self.told.append(f"column {column!r}: taken as {wanted}")
        for column in columns[len(kept) :]:
            personal = wanted in ("patient_id", "accession")
            (self.identifiers if personal else self.ignored).append(column)
            self.told.append(
                f"column {column!r} may be {wanted} too; {kept[0]!r} is taken. To change it: --map {wanted}={_quoted(column)}"
            )

    def _prefixed(self, column: str, name: str, sure: bool = False) -> bool:
        """``label_FINDING[@REGION]`` and ``clinical_NAME``."""
        kind = next((kind for start, kind in _PREFIX.items() if name.lower().startswith(start)), None)
        rest = name[6:] if kind == "label" else name[9:]
        if kind == "label":
            return self._label(column, rest, sure=True)
        if kind == "clinical" and _snake(rest):
            self._covariate(_snake(rest), column)
            return True
        return False

    def _label(self, column: str, text: str, sure: bool) -> bool:
        name, _, region = text.partition("@")
        name, region = _snake(name), _snake(region)
        name = self.aliases.get(name, name)
        regions = finding_regions().get(name)
        if regions is None:
            if sure:
                raise ConfigError(f"column {column!r}: no finding is called {name!r}{_near(name, finding_regions())}")
            return False
        if region and region not in regions:
            raise ConfigError(f"column {column!r}: {name} is no finding of {region!r}; its regions are {', '.join(regions)}")
        if any((label.finding, label.region) == (name, region) for label in self.labels):
            place = f"{name}@{region}" if region else name
            raise ConfigError(f"column {column!r}: {place} is labelled twice; drop one: --map ignore=COLUMN")
        self.labels.append(Label(column, name, region or (regions[0] if len(regions) == 1 else "")))
        return True

    def _covariate(self, name: str, column: str) -> None:
        if name in _RESERVED:
            raise ConfigError(f"a clinical covariate cannot be called {name!r}; rename: --map clinical_OTHER={_quoted(column)}")
        if name in self.clinical:
            raise ConfigError(f"two columns are the clinical covariate {name!r}: {self.clinical[name]!r} and {column!r}")
        self.clinical[name] = column

    def _known(self, column: str) -> bool:
        name = _snake(column)
        if _CENTER.fullmatch(column):
            self.centers.append(column)
        elif plain(column) in {plain(i) for i in IDENTIFIERS}:
            self.identifiers.append(column)
            self.told.append(f"column {column!r}: holds identity; it cleans reports and is not kept")
        elif name in COVARIATES:
            self._covariate(name, column)
        elif not self._label(column, column, sure=False):
            return False
        elif plain(column) != plain(self.labels[-1].finding):
            self.told.append(f"column {column!r}: taken as label {self.labels[-1].finding}")
        return True

    def finish(self) -> Mapped:
        for column in self.left:
            self.told.append(f"column {column!r} is not known{self._meant(column)}")
        missing = [name for name in REQUIRED if name not in self.fields]
        if missing:
            hints = "\n".join(line for line in self.told if "not known" in line)
            raise ConfigError(
                f"the manifest has no column for {missing[0]}; name it with --map {missing[0]}=COLUMN"
                + (f"\n{hints}" if hints else f". Its columns: {', '.join(map(repr, self.columns))}")
            )
        fields = {name: tuple(self.fields[name]) for name in SYNONYMS if name in self.fields}
        return Mapped(
            fields, tuple(self.labels), self.clinical, tuple(self.centers), tuple(self.identifiers), (*self.ignored, *self.left),
            tuple(self.told),
        )  # fmt: skip

    def _meant(self, column: str) -> str:
        """What a column that is not known may have been meant to be."""
        free = {plain(s): name for name, names in SYNONYMS.items() if name not in self.fields for s in names}
        free |= {plain(name): f"label_{name}" for name in finding_regions()}
        digits = plain(column).translate(str.maketrans("0135", "oles"))
        for text in (plain(column), digits):
            close = difflib.get_close_matches(text, free, 1, 0.78)
            if close:
                return f", did you mean {free[close[0]]}? --map {free[close[0]]}={_quoted(column)}"
        name = _snake(column) or "NAME"
        given = _quoted(column)
        return f"; not used. As a covariate: --map clinical_{name}={given}; as labels of a finding: --map label_FINDING={given}"


def parse_map(texts: Iterable[str]) -> dict[str, list[str]]:
    """``WANTED=COLUMN`` options by wanted name.

    Raises:
        ConfigError: one does not read so.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        wanted, sign, column = text.partition("=")
        if not sign or not wanted.strip() or not column.strip():
            raise ConfigError(f'--map takes WANTED=COLUMN, such as --map report="Report text"; got {text!r}')
        found.setdefault(wanted.strip(), []).append(column.strip())
    return found


def _near(name: str, known: Iterable[str]) -> str:
    by_plain = {plain(k): k for k in known}
    close = difflib.get_close_matches(plain(name), by_plain, 1, 0.6)
    return f"; did you mean {by_plain[close[0]]!r}?" if close else ""


def _snake(name: str) -> str:
    bare = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return re.sub(r"[^a-z0-9]+", "_", bare.casefold()).strip("_")


def _quoted(column: str) -> str:
    return column if re.fullmatch(r"[\w.-]+", column) else f'"{column}"'
