"""How fast the viewer is: a 512 x 512 x 300 DICOM study in headless Chromium on the loopback address.

    python benchmarks/viewer.py --slices 300 --sessions 10 --work runs/viewer --markdown runs/viewer/table.md

Writes the series of `benchmarks/series.py` (uncompressed and JPEG-LS) and a results folder that points at them, starts the viewer
on it and prints a table. Every cold row has a server of its own. The files are in the page cache; Chromium draws without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from series import write_series

from medvl.geometry import Geometry
from medvl_ui.launch import command

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FIRST, NEXT, PLAIN, PACKED = "a0first", "a1next", "b0plain", "c0packed"
# In the page: the first element inside the components' shadow roots that matches.
FIND = """const find = (selector) => {
  for (const host of document.querySelectorAll("*")) {
    const found = host.shadowRoot?.querySelector(selector);
    if (found) return found;
  }
  return undefined;
};"""
# Clicks a worklist button and resolves with the milliseconds until the first slice of another study is on the canvas.
OPEN = """(button) => new Promise((done) => {
  FIND
  const old = find(".pane"), before = Number(old?.dataset.opened ?? 0), start = performance.now();
  const look = () => {
    const now = find(".pane"), other = now && (now !== old || Number(now.dataset.opened) > before);
    if (other && now.dataset.shown === "true") done(performance.now() - start);
    else requestAnimationFrame(look);
  };
  button.click();
  requestAnimationFrame(look);
})""".replace("FIND", FIND)
# Scrolls a plane to and fro, or turns the oblique plane by keys or by a handle already held on this canvas (`kind`); per step
# [script time of the frame, event until its frame has run], both in ms.
SCROLL = """async (canvas, [n, kind]) => {
  const box = canvas.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
  const how = { bubbles: true, cancelable: true };
  const made = {
    wheel: (back) => new WheelEvent("wheel", { deltaY: back ? -120 : 120, ...how }),
    key: (back) => new KeyboardEvent("keydown", { key: back ? "ArrowRight" : "ArrowLeft", shiftKey: true, ...how }),
    drag: (_, k) => new PointerEvent("pointermove", { clientX: x + 80, clientY: y - 10 - (k % 30), ...how }),
  };
  const rows = [], plain = window.requestAnimationFrame.bind(window);
  for (let k = 0; k < n; k++) {
    let spent = 0;
    window.requestAnimationFrame = (act) => plain((t) => {
      const begun = performance.now();
      act(t);
      spent += performance.now() - begun;
    });
    const start = performance.now();
    canvas.dispatchEvent(made[kind](k % 60 >= 30, k));
    await new Promise(plain);
    rows.push([spent, performance.now() - start]);
  }
  window.requestAnimationFrame = plain;
  return rows;
}"""
# Clicks a finding and resolves with the milliseconds until the position of the axial plane has changed.
JUMP = """(button) => new Promise((done) => {
  FIND
  const where = () => find(".axial .position")?.textContent, before = where(), start = performance.now();
  const look = () => (where() === before ? requestAnimationFrame(look) : done(performance.now() - start));
  button.click();
  look();
})""".replace("FIND", FIND)


def prepare(work: Path, n_slices: int) -> Path:
    """The results folder of four studies: two small ones, the large one uncompressed and as JPEG-LS."""
    import nibabel as nib

    results, series = work / "results", work / "series"
    if not (series / "jpegls").is_dir() or len(list((series / "jpegls").iterdir())) != n_slices:
        write_series(series, n_slices)
    large = Geometry.centered((-0.35, -0.35, -150 + (n_slices - 1) / 2), (n_slices, 512, 512), (1.0, 0.7, 0.7))
    small = Geometry.centered((0, 0, 0), (40, 64, 64), (3.0, 3.0, 3.0))
    sources = {PLAIN: "uncompressed", PACKED: "jpegls"}
    for case in (FIRST, NEXT, PLAIN, PACKED):
        folder = results / "studies" / case
        (folder / "heatmaps").mkdir(parents=True, exist_ok=True)
        grid = large if case in sources else small
        findings = []
        for k, name in enumerate(("renal_mass", "stone")):
            peak = grid.to_lps(np.array(grid.shape_dhw) * (0.3 + 0.4 * k)).tolist()
            place = Geometry.centered(peak, (48, 48, 48), (2.0, 2.0, 2.0))
            d, h, w = (np.indices(place.shape_dhw) - 23.5) / 8
            heat = nib.Nifti1Image(np.exp(-(d**2 + h**2 + w**2)).astype(np.float32).transpose(2, 1, 0), place.affine_ras_ijk)
            nib.save(heat, folder / "heatmaps" / f"{name}.nii.gz")
            entry = {
                "finding": name,
                "label": name.replace("_", " ").capitalize(),
                "region": "kidney_right",
                "verdict": "present",
            }
            findings.append(entry | {"score": 0.9 - 0.1 * k, "heatmap": f"heatmaps/{name}.nii.gz", "peak_lps": peak})
        study = {"schema": "medvl.findings/1", "case_id": case, "status": "done", "findings": findings}
        (folder / "findings.json").write_text(json.dumps(study), encoding="utf-8")
        if case not in sources:
            hu = np.zeros(small.shape_dhw[::-1], np.int16)
            nib.save(nib.Nifti1Image(hu, small.affine_ras_ijk), folder / "image.nii.gz")
    where = {case: {"path": str((series / name).resolve()), "series_key": ""} for case, name in sources.items()}
    (results / "sources.json").write_text(json.dumps(where), encoding="utf-8")
    return results


@contextmanager
def serving(results: Path, log: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of a viewer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("a") as out:
        server = subprocess.Popen(command(results, port=port, open_browser=False), stdout=out, stderr=subprocess.STDOUT)
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.25)
            yield f"http://127.0.0.1:{port}/", server.pid
        finally:
            server.terminate()
            server.wait()


def resident_mib(pid: int, *, shared: bool = True) -> float:
    """Resident memory of a process in MiB; `shared=False` counts shared pages by share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    row = next(line for line in text.splitlines() if line.startswith("Rss:" if shared else "Pss:"))
    return int(row.split()[1]) / 1024


def chromium_mib() -> float:
    """Memory of all Chromium processes below this one in MiB, shared pages counted once."""
    total, parents = 0.0, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    for pid in parents:
        above = pid
        while above in parents and above != os.getpid():
            above = parents[above]
        try:
            if above == os.getpid() and "chrom" in Path(f"/proc/{pid}/comm").read_text():
                total += resident_mib(pid, shared=False)
        except OSError:
            continue
    return total


def ready(tab: Any) -> None:
    """Wait until all voxels of the open study have arrived."""
    tab.wait_for_selector('.pane[data-ready="true"]', timeout=120_000)


def clicked(tab: Any, case: str) -> float:
    """Open a study; seconds until its first slice is drawn."""
    return float(tab.evaluate(OPEN, tab.get_by_role("button", name=case).first.element_handle())) / 1000


def first_slices(browser: Any, results: Path, log: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds from the click to the first slice, per kind of opening."""
    times: dict[str, list[float]] = {}
    ways = [(PLAIN, "uncompressed, read when clicked"), (PACKED, "JPEG-LS, read when clicked")]
    for _ in range(repeats):
        for case, title in ways:
            with serving(results, log) as (url, _):
                tab = browser.new_page(viewport={"width": 1366, "height": 768})
                tab.goto(url)
                ready(tab)
                times.setdefault(title, []).append(clicked(tab, case))
                ready(tab)
                clicked(tab, FIRST)
                ready(tab)
                times.setdefault(title.split(",")[0] + ", in memory", []).append(clicked(tab, case))
                ready(tab)
                tab.close()
        with serving(results, log) as (url, _):
            tab = browser.new_page(viewport={"width": 1366, "height": 768})
            tab.goto(url)
            ready(tab)
            clicked(tab, PLAIN)
            ready(tab)
            tab.wait_for_timeout(6000)  # the next in the list, JPEG-LS, is read meanwhile
            times.setdefault("JPEG-LS, next in the list, read ahead", []).append(clicked(tab, PACKED))
            tab.close()
    return times


def frames(tab: Any, plane: str, n: int, kind: str = "wheel") -> np.ndarray:
    """(n, 2) ms of script per frame and from the event, ``"wheel"``, ``"key"`` or ``"drag"``, to the drawn frame."""
    return np.array(tab.locator(f".plane.{plane} canvas").evaluate(SCROLL, [n, kind]))


def turning(tab: Any) -> dict[str, np.ndarray]:
    """Frame times of a turned axial plane: while its handle in the coronal plane is dragged, by keys, and one step further."""
    tab.get_by_label("Oblique", exact=True).select_option("Turn axial")
    box = tab.locator(".plane.coronal canvas").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.click(*middle)  # the cursor, about which the handles stand
    tab.mouse.move(middle[0] + 0.3 * min(box["width"], box["height"]), middle[1])
    tab.mouse.down()
    rows = {"axial turned, handle dragged (nearest voxel)": frames(tab, "coronal", 60, "drag")}
    tab.mouse.up()
    if "turned" not in tab.locator(".plane.axial .title").inner_text():
        raise SystemExit("the handle of the axial plane was not where it was expected")
    tab.locator(".plane.axial canvas").press("0")
    rows["axial turned by keys, 1 to 30 degrees"] = frames(tab, "axial", 60, "key")
    for _ in range(20):
        tab.locator(".plane.axial canvas").press("Shift+ArrowLeft")
    rows["axial turned 20 degrees"] = frames(tab, "axial", 60)
    tab.get_by_label("Evidence", exact=True).check()
    rows["axial turned 20 degrees, with evidence"] = frames(tab, "axial", 60)
    tab.locator(".plane.axial canvas").press("r")
    return rows


def scrolling(browser: Any, results: Path, log: Path) -> dict[str, np.ndarray]:
    """Frame times of the planes of the large study, and the milliseconds of clicks on findings under ``"finding"``."""
    with serving(results, log) as (url, _):
        tab = browser.new_page(viewport={"width": 1366, "height": 768})
        tab.goto(url)
        ready(tab)
        clicked(tab, PLAIN)
        ready(tab)
        tab.get_by_label("Evidence", exact=True).uncheck()
        rows = {f"{plane}": frames(tab, plane, 100) for plane in ("axial", "coronal", "sagittal")}
        for label in ("MIP 10 mm", "MIP 20 mm", "Average 5 mm"):
            tab.get_by_label("Slab", exact=True).select_option(label)
            rows[f"axial, {label}"] = frames(tab, "axial", 60)
        tab.get_by_label("Slab", exact=True).select_option("Single slice")
        rows |= turning(tab)
        tab.get_by_label("Evidence", exact=True).check()
        rows["axial with evidence"] = frames(tab, "axial", 60)
        buttons = [tab.get_by_role("button", name=name).first for name in ("Stone", "Renal mass") * 5]
        jumps = []
        for button in buttons:
            jumps.append([0.0, tab.evaluate(JUMP, button.element_handle())])
            ready(tab)
            tab.wait_for_timeout(400)
        rows["finding"] = np.array(jumps)
        tab.close()
    return rows


def memory(browser: Any, results: Path, log: Path, sessions: int) -> list[tuple[str, float, float]]:
    """(what, MiB of the server, MiB of Chromium) with more and more sessions that hold the large study."""
    rows = []
    with serving(results, log) as (url, pid):
        rows.append(("no session", resident_mib(pid), chromium_mib()))
        tabs = []
        for k in range(sessions):
            tab = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
            tabs.append(tab)
            tab.goto(url)
            ready(tab)
            clicked(tab, PLAIN)
            ready(tab)
            if k + 1 in (1, sessions):
                tab.wait_for_timeout(1000)
                rows.append((f"{k + 1} session{'s' if k else ''}", resident_mib(pid), chromium_mib()))
        for tab in tabs:
            tab.context.close()
    return rows


def table(times: dict[str, list[float]], rows: dict[str, np.ndarray], held: list[tuple[str, float, float]]) -> str:
    """The three tables as Markdown."""
    lines = ["| first slice after the click | median s | slowest s |", "|---|---|---|"]
    lines += [f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |" for name, values in times.items()]
    lines += [
        "",
        "| one slice further | script p50 ms | script p95 ms | event to drawn p50 ms | p95 ms |",
        "|---|---|---|---|---|",
    ]
    jumps = rows.pop("finding")[:, 1]
    for name, values in rows.items():
        numbers = [*np.percentile(values[:, 0], [50, 95]), *np.percentile(values[:, 1], [50, 95])]
        lines.append(f"| {name} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |")
    lines += ["", f"A click on a finding, through the server, until the planes have moved: p50 {np.median(jumps):.0f} ms, ", ""]
    lines[-2] += f"p95 {np.percentile(jumps, 95):.0f} ms."
    lines += ["| memory | server MiB | Chromium MiB |", "|---|---|---|"]
    lines += [f"| {name} | {server:.0f} | {page:.0f} |" for name, server, page in held]
    return "\n".join(lines)


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/viewer"))
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--markdown", type=Path, help="also write the tables there")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    results, log = prepare(asked.work, asked.slices), asked.work / "server.log"
    before = os.getloadavg()[0]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        times = first_slices(browser, results, log, asked.repeats)
        rows = scrolling(browser, results, log)
        held = memory(browser, results, log, asked.sessions)
        browser.close()
    text = (
        table(times, rows, held) + f"\n\nLoad {before:.1f} before, {os.getloadavg()[0]:.1f} at the end, {os.cpu_count()} cores."
    )
    print(text)
    if asked.markdown:
        asked.markdown.write_text(text + "\n", encoding="utf-8")
    if "Traceback" in log.read_text(encoding="utf-8"):
        sys.exit(f"the server logged an exception: see {log}")


if __name__ == "__main__":
    main()
