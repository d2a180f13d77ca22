"""Draws and tabulates what ``peers.py`` measured: ``python plots.py results/peers.json``."""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DATASETS = {"ml100k": "MovieLens-100K", "ml1m": "MovieLens-1M"}
QUIET = 0.25  # cores busy with other things, above which a fit counts only where all were so
LABELS = {
    "sk_torchmf": "sk_torchmf",
    "cmfrec": "cmfrec ALS",
    "cornac": "Cornac MF",
    "libmf": "LibMF",
    "lenskit": "LensKit ALS",
    "surprise": "Surprise SVD",
    "skorch": "skorch",
    "spotlight": "Spotlight",
    "implicit": "implicit ALS (ranking)",
    "lightfm": "LightFM WARP (ranking)",
    "myfm": "myFM",
}
# Okabe and Ito's colours, told apart by colour-blind readers too, and a marker each
STYLES = dict(
    zip(
        LABELS,
        [
            ("#000000", "o"),
            ("#E69F00", "s"),
            ("#56B4E9", "^"),
            ("#009E73", "D"),
            ("#CC79A7", "v"),
            ("#D55E00", "P"),
            ("#0072B2", "X"),
            ("#8C8C00", "*"),
            ("#999999", "<"),
            ("#7F4F24", ">"),
            ("#6A3D9A", "h"),
        ],
        strict=True,
    )
)


def seconds(records):
    """Median fit time of the undisturbed runs, of all where each was disturbed."""
    quiet = [record for record in records if record["others"] < QUIET]
    return median(record["seconds"] for record in quiet or records)


def grouped(records, *names):
    """Records by the values of some of their fields."""
    groups = defaultdict(list)
    for record in records:
        groups[tuple(record.get(name) for name in names)].append(record)
    return groups


def by_system(records):
    """Each system and its records, ours first."""
    groups = grouped(records, "system")
    return [(system, groups[system,]) for system in LABELS if (system,) in groups]


def line(axes, system, points):
    """One system's curve."""
    colour, marker = STYLES[system]
    ours = system == "sk_torchmf"
    width, order = (2.5, 3) if ours else (1.3, 2)
    axes.plot(*zip(*sorted(points), strict=True), color=colour, marker=marker, label=LABELS[system], linewidth=width, zorder=order)


def finish(figure, axes, path, title, x, y):
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)


def draw_passes(records, path, where):
    figure, axes = plt.subplots(figsize=(8, 5))
    for system, own in by_system(records):
        points = [(seconds(same), mean(record["rmse"] for record in same)) for same in grouped(own, "label").values()]
        line(axes, system, points)
    axes.set_xscale("log")
    axes.set_ylim(top=0.94)  # beyond it are first passes only
    finish(figure, axes, path, f"Held-out error against fit time, k = 64\n{where}", "Fit time (s)", "Test RMSE (rating units)")


def draw_widths(records, path, where):
    figure, axes = plt.subplots(figsize=(8, 5))
    for system, own in by_system(records):
        points = [(k, same[0]["n_ratings"] * same[0]["passes"] / seconds(same)) for (k,), same in grouped(own, "k").items()]
        line(axes, system, points)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({record["k"] for record in records})
    axes.set_xticks(ticks, ticks)
    finish(figure, axes, path, f"Ratings passed over per second\n{where}", "Number of factors k", "Ratings x passes per second")


def draw_memory(records, path, where):
    figure, axes = plt.subplots(figsize=(8, 5))
    for system, own in by_system(records):
        points = [(record["n_ratings"], record["peak_bytes"] / 2**20) for record in own if record["peak_bytes"]]
        if points:
            line(axes, system, points)
    axes.set_xscale("log")
    axes.set_yscale("log")
    title = f"Peak memory of a fit above the data it was given, k = 32\n{where}"
    finish(figure, axes, path, title, "Ratings", "Peak above the data (MiB)")


def table(heading, rows):
    """A Markdown table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in cells) + " |" for cells in lines) + "\n"


def compare_rows(records, reference="Biased, defaults"):
    """One row a system and variant: seconds, ratio to ours, RMSE (mean of the splits' means), how many runs were undisturbed."""
    groups = grouped(records, "system", "label")
    reference = groups.get(("sk_torchmf", reference))
    ours = seconds(reference) if reference else float("nan")
    rows = []
    for (system, label), own in groups.items():
        splits = grouped(own, "split").values()
        rmse, clipped = (mean(mean(record[name] for record in same) for same in splits) for name in ("rmse", "rmse_clipped"))
        quiet = sum(record["others"] < QUIET for record in own)
        time, busy = seconds(own), median(record["cpu_seconds"] for record in own)
        numbers = f"{time:.3g}", f"{time / ours:.1f}", f"{busy:.3g}", f"{rmse:.4f}", f"{clipped:.4f}", f"{quiet} of {len(own)}"
        rows.append((LABELS[system], label, *numbers))
    return sorted(rows, key=lambda row: row[5])


def tables(results):
    """All tables, as Markdown."""
    by = grouped(results["records"], "experiment")
    parts = ["# Rating prediction: all tables\n"]
    parts.append(", ".join(f"{name}: {value}" for name, value in results["machine"].items()) + "\n")
    versions = {record["system"]: record["version"] for record in results["records"]}
    parts.append(", ".join(f"{LABELS[name]} {version}" for name, version in versions.items()) + "\n")
    heading = "system", "settings", "fit (s)", "times ours", "processor (s)", "RMSE", "RMSE, clipped", "undisturbed runs"
    for dataset in ("ml100k", "ml1m"):
        records = [record for record in by["compare",] if record["split"].startswith(dataset)]
        if records:
            parts += [f"## {dataset}, random 90/10", table(heading, compare_rows(records))]
    if by["folds",]:
        groups = grouped(by["folds",], "label").items()
        rows = [(label, f"{mean(record['rmse'] for record in own):.4f}") for (label,), own in groups]
        parts += ["## Official folds u1 to u5", table(("sk_torchmf", "mean RMSE"), rows)]
    if by["search",]:
        rows = [
            (LABELS[r["system"]], *(f"{value:.2f}" for value in r["seconds"]), f"{r['rmse']:.4f}", r["best"]) for r in by["search",]
        ]
        parts += ["## Grid search, 12 x 5", table(("system", "first (s)", "workers warm (s)", "best RMSE", "best"), rows)]
    for record in by["workers",]:
        rows = [(n, *(f"{value:.1f}" for value in values)) for n, values in record["seconds"].items()]
        heading = "n_jobs", *(f"turn {j + 1} (s)" for j in range(len(rows[0]) - 1))
        parts += [f"## Grid search on {record['split']}, 4 x 5", table(heading, rows)]
    if by["memory",]:
        rows = [
            (
                LABELS[r["system"]],
                r["n_ratings"],
                f"{r['seconds']:.2f}",
                f"{1e9 * r['seconds'] / r['n_ratings']:.0f}",
                f"{r['peak_bytes'] / 2**20:.0f}",
                f"{r['peak_bytes'] / r['n_ratings']:.0f}",
            )
            for r in by["memory",]
            if r["peak_bytes"]
        ]
        heading = "system", "ratings", "fit (s)", "ns a rating", "peak above the data (MiB)", "bytes a rating"
        parts += ["## Memory", table(heading, rows)]
    for r in by["fold_in",]:
        parts.append(f"fold_in of {r['n_ratings']} ratings: {r['fold_in_seconds']:.2f} s; score: {r['score_seconds']:.2f} s\n")
    ranking = [record for record in by["widths",] if record["system"] in ("implicit", "lightfm") and record["k"] == 64]
    if ranking:
        groups = grouped(ranking, "system").items()
        rows = [(LABELS[system], f"{seconds(own) / own[0]['passes']:.3f}") for (system,), own in groups]
        parts += ["## Ranking systems, k = 64", table(("system", "seconds a pass"), rows)]
    if results["failed"]:
        parts += ["## Not run", table(("what", "why"), results["failed"].items())]
    return "\n".join(parts)


def main(path):
    """Draw the plots beside the JSON file and print the tables, which are kept there too."""
    results = json.loads(path.read_text())
    machine = results["machine"]
    where = f"{machine['threads']} threads, {machine['processor']}"
    by = grouped(results["records"], "experiment")
    for name, draw in (("passes", draw_passes), ("widths", draw_widths), ("memory", draw_memory)):
        if records := by[name,]:
            data = (
                "planted ratings"
                if name == "memory" or machine["data"] != "MovieLens"
                else DATASETS[records[0]["split"].split("_")[0]]
            )
            draw(records, path.parent / f"{name}.png", f"{data}, {where}")
    text = tables(results)
    path.with_suffix(".md").write_text(text)
    print(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
