"""`medvl pack`: one archive with which medvl is installed on a machine that has no network."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from medvl import __version__
from medvl.errors import ConfigError
from medvl.files import whole

from .built_in import bundle_folder
from .console import err, say, warn

TOP = "medvl-offline"
ROOM = 3  # wheels, the archive, and what pip unpacks while it looks


def run(
    out: Path,
    *,
    bundles: Sequence[str] = (),
    configs: Sequence[Path] = (),
    python: str | None = None,
    extras: Sequence[str] = (),
    own: Path | None = None,
) -> int:
    """Write the archive `out`; exit code 0.

    Args:
        out: a .tar file, replaced when it is there.
        bundles: names or folders; each is verified first.
        configs: files that are carried along.
        python: version of the destination, such as 3.11; None is that of this process. Another one takes ready wheels only.
        extras: of medvl, such as ``cluster``.
        own: medvl's wheel, None builds it from the checkout, or from what is installed.

    Raises:
        BundleError: a bundle is not whole.
        ConfigError: two bundles or configs of one name, pip cannot find or fetch what is needed, or there is no room.
    """
    from medvl.doctor.packages import constraints_file
    from medvl.models.bundle import open_bundle

    from . import pack_archive as archive
    from . import pack_wheels as wheels

    version = python or f"{sys.version_info[0]}.{sys.version_info[1]}"
    folders = [bundle_folder(name) for name in bundles]
    names = [open_bundle(folder).name for folder in folders]
    for what, found in (("bundles", names), ("files given with --config", [path.name for path in configs])):
        if len(set(found)) < len(found):
            raise ConfigError(f"two {what} have one name; rename one, or give it once")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".medvl-pack-", dir=out.parent) as scratch:
        work = Path(scratch)
        top = work / TOP
        (top / "wheels").mkdir(parents=True)
        with err().status("making medvl's own wheel"):
            mine = wheels.own_wheel(work / "own") if own is None else own
        shutil.copyfile(mine, top / "wheels" / mine.name)
        constraints = constraints_file()
        with err().status("asking the package index what is needed"):
            needed = wheels.resolve(mine, extras, constraints, version, work)
        carried = sum(wheels.size_of(folder) for folder in (*folders, *configs))
        _tell_size(needed, carried, out.parent)
        wheels.fetch(needed, constraints, version, top / "wheels", warn)
        archive.lay_out(top, dict(zip(names, folders, strict=True)), configs, constraints)
        archive.write_texts(top, __version__ if own is None else wheels.version_of(mine), version, extras)
        n = archive.write_sums(top)
        with err().status("writing the archive"), whole(out) as part:
            archive.write_tar(top, part)
    say(f"{out}: {out.stat().st_size / 1e6:.0f} MB, {n} files, for Python {version}")
    say(f"There: tar xf {out.name} && sh {TOP}/install.sh")
    return 0


def _tell_size(needed: Sequence[tuple[str, str, int | None]], carried: int, place: Path) -> None:
    """Say what will be fetched, before it is.

    Raises:
        ConfigError: the disk has no room for it.
    """
    known = [size for _, _, size in needed if size is not None]
    unknown = len(needed) - len(known)
    more = f" and {unknown} of unknown size" if unknown else ""
    warn(f"{len(needed)} packages, {sum(known) / 1e6:.0f} MB{more}; bundles and configs {carried / 1e6:.0f} MB")
    for name, version, size in sorted(needed, key=lambda one: -(one[2] or 0))[:5]:
        warn(f"  {name} {version}: {'unknown' if size is None else f'{size / 1e6:.0f} MB'}")
    free, wanted = shutil.disk_usage(place).free, ROOM * (sum(known) + carried)
    if free < wanted:
        raise ConfigError(
            f"packing needs about {wanted / 1e9:.1f} GB here and {free / 1e9:.1f} GB are free; name another disk with --out"
        )
