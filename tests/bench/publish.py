"""Turn what ``--json`` wrote into a table and a plot, for the page about speed.

python -m bench.publish DIRECTORY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

HOLDS, MISSED, GOAL = "#2a7f62", "#b5533c", "#333333"


def table(rows: dict[str, Any]) -> str:
    """Each goal with what came out, as Markdown."""
    lines = ["| row | figure | ours | peer | outcome | goal | |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        for goal in row["goals"]:
            peer = goal["peer"]
            ours = _median(row, goal["party"], goal["figure"])
            theirs = f"{peer}: {_median(row, peer, goal['figure'])}" if peer else ""
            times = "x" if peer else f", worst {_worst(row, goal['party'], goal['figure'])}"
            lines.append(
                f"| {name} | {goal['figure']} | {goal['party']}: {ours} "
                f"| {theirs} | {goal['outcome']:.3g}{times} "
                f"| {goal['goal']} | {'holds' if goal['holds'] else '**missed**'} |"
            )
    return "\n".join(lines) + "\n"


def medians(rows: dict[str, Any]) -> str:
    """Every figure of every party, as Markdown."""
    lines = ["| row | party | medians | rounds |", "|---|---|---|---|"]
    for name, row in rows.items():
        for party, figures in row["medians"].items():
            text = ", ".join(f"{figure} {value:.3g}" for figure, value in figures.items())
            lines.append(f"| {name} | {party} | {text} | {len(row['rounds'])} |")
    return "\n".join(lines) + "\n"


def _median(row: dict[str, Any], party: str, figure: str) -> str:
    return f"{row['medians'][party][figure]:.3g}"


def _worst(row: dict[str, Any], party: str, figure: str) -> str:
    return f"{max(samples[party][figure] for samples in row['rounds']):.3g}"


def plot(rows: dict[str, Any], target: Path) -> None:
    """One bar for each ratio; the mark is its goal."""
    goals = [(name, goal) for name, row in rows.items() for goal in row["goals"] if goal["peer"]]
    goals.reverse()  # the first row comes to the top
    labels = [f"{name}: {goal['figure']}, {goal['party']}" for name, goal in goals]
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench"})
    figure, axes = plt.subplots(figsize=(9, 0.28 * len(goals) + 1), layout="constrained")
    colours = [HOLDS if goal["holds"] else MISSED for _, goal in goals]
    axes.barh(labels, [goal["outcome"] for _, goal in goals], color=colours)
    for place, (_, goal) in enumerate(goals):
        limit = float(goal["goal"].strip("<>=x "))
        axes.plot([limit, limit], [place - 0.45, place + 0.45], color=GOAL, linewidth=2)
    axes.axvline(1, color=GOAL, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("ours / the peer's, median of all rounds; the mark is the goal")
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Write all three files beside the figures that they are made of."""
    directory = Path(sys.argv[1])
    figures = json.loads((directory / "bench.json").read_text(encoding="utf-8"))
    (directory / "goals.md").write_text(table(figures["rows"]), encoding="utf-8")
    (directory / "medians.md").write_text(medians(figures["rows"]), encoding="utf-8")
    plot(figures["rows"], directory / "bench.svg")


if __name__ == "__main__":
    main()
