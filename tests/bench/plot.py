"""Draw what ``--json`` wrote: ``python -m bench.plot FIGURES.json PLOT.svg``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

HOLDS, MISSED, GOAL = "#2a7f62", "#b5533c", "#333333"


def main() -> None:
    """One bar for each ratio; the mark is its goal."""
    source, target = map(Path, sys.argv[1:])
    rows: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))["rows"]
    goals = [(name, goal) for name, row in rows.items() for goal in row["goals"] if goal["peer"]]
    goals.reverse()  # the first row comes to the top
    labels = [f"{name}: {goal['figure']}, {goal['party']}" for name, goal in goals]
    # Text stays text, and the same figures give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench"})
    figure, axes = plt.subplots(figsize=(9, 0.3 * len(goals) + 1), layout="constrained")
    colours = [HOLDS if goal["holds"] else MISSED for _, goal in goals]
    axes.barh(labels, [goal["outcome"] for _, goal in goals], color=colours, left=0)
    for place, (_, goal) in enumerate(goals):
        limit = float(goal["goal"].strip("<>=x "))
        axes.plot([limit, limit], [place - 0.45, place + 0.45], color=GOAL, linewidth=2)
    axes.axvline(1, color=GOAL, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xlabel("ours / the peer's, median of all rounds; the mark is the goal")
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
