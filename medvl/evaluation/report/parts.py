"""Sections of a report on retrieval, survival, subgroups, a second model and leaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medvl.evaluation.report import figures
from medvl.evaluation.report.document import NA, Picture, Section, Table, Text, number, p_text, paragraph, points, readable, span

Told = Mapping[str, Any]
Block = Text | Table | Picture


def retrieval_blocks(task: Told) -> Iterator[Block]:
    """Both ways beside chance, and who was left out."""
    if "na" in task:
        yield paragraph(f"{NA}: {task['na']}.")
        return
    ways = {"image_to_report": "scan to report", "report_to_image": "report to scan"}
    ks = list(task["chance"])
    rows = [
        (
            name,
            *(span(task[way]["recall"][k]) for k in ks),
            span(task[way]["median_rank"], 1),
            span(task[way]["mean_reciprocal_rank"]),
            span(task[way]["ndcg_shared_findings"]),
            span(task[way]["map_shared_findings"]),
        )
        for way, name in ways.items()
    ]
    low = next(iter(ways))
    rows.append(
        (
            "chance",
            *(f"{task['chance'][k]:.3f}" for k in ks),
            f"{(task['gallery'] + 1) / 2:.1f}",
            "",
            number(task[low]["ndcg_chance"]),
            number(task[low]["map_chance"]),
        )
    )
    columns = ("way", *(f"recall at {k}" for k in ks), "median rank", "mean reciprocal rank", "nDCG", "mAP")
    caption = (
        f"{task['patients']} patients ask, each in a gallery of {task['gallery']} patients; ties count at their expected place. "
        f"nDCG and mAP (mean average precision) ask for patients with the same findings instead of one's own: an answer is worth "
        f"the share of present findings that both have, and right for mAP from {task['alike']:g} on. {task['labelled']} patients "
        "have findings to compare."
    )
    yield Table(columns, tuple(rows), caption)
    if task["excluded"]:
        yield paragraph(
            "Left out:", "; ".join(f"{e['patients']} patients ({readable(e['reason'])})" for e in task["excluded"]) + "."
        )


def survival_section(task: Told) -> Section:
    """Concordance, curves by risk group, accuracy at fixed times."""
    title = f"Survival: {task['endpoint']}"
    if "na" in task:
        return Section(title, (paragraph(f"{NA}: {task['na']}."),))
    blocks: list[Block] = []
    rows = []
    for name, c in task["concordance"].items():
        label, u = "this model" if name == "model" else readable(name), c.get("uno", {})
        against = [span(part["model_minus_this"]) if "model_minus_this" in part else "" for part in (c, u)]
        rows.append((label, f"{NA}: {c['na']}" if "na" in c else span(c), against[0], span(u) if u else "", against[1]))
    columns = ("risk", "Harrell's C", "this model minus it", "Uno's C", "this model minus it")
    caption = f"{task['patients']} patients, {task['events']} events. Weights of Uno's C are from the censoring of these patients"
    blocks.append(Table(columns, tuple(rows), caption))
    if task["excluded"]:
        blocks.append(
            paragraph(
                "Left out:", "; ".join(f"{e['patients']} patients ({readable(e['reason'])})" for e in task["excluded"]) + "."
            )
        )
    test = task["groups"].get("logrank")
    caption = (
        "Kaplan-Meier curves of three risk groups with 95 % intervals and how many were still watched, cut at tertiles of the "
        "bundle's reference patients." + (f" Log-rank p {p_text(test['p'])}." if test else "")
    )
    blocks.append(Picture("survival", figures.kaplan_meier(task), "Survival of three risk groups", caption))
    picture = figures.survival_calibration(task)
    if picture is not None:
        caption = "Predicted and observed survival of the risk groups, with 95 % intervals of what was observed."
        blocks.append(Picture("survival-calibration", picture, "Calibration of predicted survival", caption))
    blocks.append(_accuracy(task))
    return Section(title, tuple(blocks))


def _accuracy(task: Told) -> Table:
    """AUC and Brier score at each horizon, beside one curve for everybody."""
    rows = []
    for days, at in task["at"].items():
        auc, brier = at.get("auc", {}), at.get("brier", {})
        note = at.get("na") or auc.get("na", "")
        rows.append((f"{float(days) / 365.25:.1f}", span(auc), *_briers(brier), note))
    whole = task["integrated_brier"]
    rows.append(("all of these, integrated", "", *_briers(whole), whole.get("na", "")))
    caption = (
        "Accuracy at fixed times. Kaplan-Meier: the Brier score of one curve for everybody, that of these same patients, drawn "
        "anew with them; it knows their mean survival, which the model does not. A difference below 0 is in favour of the model. "
        "Weights for censoring are from these patients too, estimated anew in each draw."
    )
    return Table(("years", "AUC", "Brier score", "Kaplan-Meier", "model minus Kaplan-Meier", "note"), tuple(rows), caption)


def _briers(told: Told) -> tuple[str, str, str]:
    return span(told), span(told.get("kaplan_meier")), span(told.get("minus_kaplan_meier"))


def subgroup_section(told: Told, labels: Told) -> Section:
    """Forest plot and table of every group."""
    groups = told["subgroups"]
    if not groups:
        return Section("Subgroups", (paragraph("The protocol names none."),))
    blocks: list[Block] = []
    mean = told["tasks"].get("zero_shot", {}).get("mean_auroc", {"value": None})
    picture = figures.subgroup_forest(groups, mean) if mean.get("value") is not None else None
    if picture is not None:
        caption = (
            "Mean AUROC by group. Within a column, every group is averaged over the same findings: those with enough present and "
            "absent regions in all its groups. Means of different columns are over different findings. Dashed: all patients, "
            "all findings."
        )
        blocks.append(Picture("subgroups", picture, "Mean AUROC of each subgroup", caption))
    rows = []
    for column in groups:
        for group in column.get("groups", ()):
            mean, c = group["mean_auroc"], group.get("concordance")
            rows.append(
                (
                    column["label"],
                    group["group"],
                    str(group["patients"]),
                    span(mean),
                    span(c) if c else "",
                    str(c["events"]) if c else "",
                )
            )
    if rows:
        columns = ("by", "group", "patients", "mean AUROC", "Harrell's C", "events")
        blocks.append(
            Table(
                columns,
                tuple(rows),
                "Subgroups; NA where there are too few. Each finding of each group is in the JSON.",
                n_left=2,
            )
        )
    left = [f"{column['label']}: {NA}, {column['na']}" for column in groups if "na" in column]
    left += [
        f"{g['label']}: no finding has enough regions in every group, so there is no common mean"
        for g in groups
        if g.get("mean_over") == []
    ]
    if left:
        blocks.append(points(left))
    return Section("Subgroups", tuple(blocks))


def comparison_section(told: Told, labels: Told) -> Section:
    """Paired differences to a second model."""
    blocks: list[Block] = []
    rows = [{**row, "what": labels.get(row["what"], row["what"])} for row in told["rows"]]
    picture = figures.difference_forest(rows)
    if picture is not None:
        blocks.append(
            Picture(
                "comparison",
                picture,
                "Differences between the two models",
                "Paired differences; right of the dashed line this model is better.",
            )
        )
    cells = []
    for row in rows:
        what = (readable(row["what"]), row["metric"], str(row.get("n", "")))
        if "na" in row:
            cells.append((*what, NA, NA, NA, NA, NA, row["na"]))
        else:
            cells.append(
                (
                    *what,
                    number(row["first"]),
                    number(row["second"]),
                    span(row["difference"]),
                    p_text(row["p"]),
                    p_text(row["p_adjusted"]),
                    row["method"],
                )
            )
    columns = ("what", "metric", "n", "this model", "second", "difference", "p", "adjusted p", "test")
    shared = told["regions"]
    caption = (
        f"Second model: {told['second']['name']}, SHA-256 {told['second']['sha256'][:16]}. {shared['shared']} regions "
        f"shared; {shared['only_first']} only of this model, {shared['only_second']} only of the second."
    )
    blocks += [Table(columns, tuple(cells), caption, n_left=2), paragraph(told["note"])]
    return Section("Beside a second model", tuple(blocks))


def leak_section(told: Told) -> Section:
    """What this cohort shares with others and with itself."""
    rows = []
    for name, part in (*told["splits"].items(), ("within this cohort, other patients", told["within"])):
        images, reports = part["images"], part["reports"]
        near = images.get("nearest_cosine_median_p99_max")
        rows.append(
            (
                name,
                str(part["patients"]["n"]) if "patients" in part else "",
                NA if "na" in images else f"{images['n']} of {images['compared']}",
                NA if not near else " / ".join(f"{v:.2f}" for v in near),
                f"{reports['n']} of {reports['judged']}",
                str(reports["boilerplate"]),
                str(reports["identical_boilerplate"]),
            )
        )
    limits = told["limits"]
    columns = (
        "beside",
        "same patients",
        "images alike",
        "nearest: median / 99 % / max",
        "reports alike",
        "reports not judged",
        "of these, identical",
    )
    caption = (
        f"Images are alike from a cosine of {limits['image_cosine']:g} of standardised features; reports, where "
        f"{100 * limits['text_overlap']:.0f} % of "
        f"the uncommon five-word phrases of one stand in another. Phrases that more than 1 % of patients share are "
        f"boilerplate: a report with fewer than "
        f"{limits['text_phrases']} other phrases is not judged, so two identical normal reports are no leak."
    )
    blocks: list[Block] = [Table(columns, tuple(rows), caption)]
    if "na" in told:
        blocks.insert(0, paragraph(f"{NA}: {told['na']}."))
    return Section("Leaks between splits", tuple(blocks))
