"""Draws .build/bench/results.json as an SVG: a panel for each subject with its ratios that have targets.

usage: plot.py RESULTS OUTPUT
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

pyplot.rcParams.update({"svg.fonttype": "none", "font.size": 7})  # text stays text

MET, MISSED = "#2a7f4f", "#b3412d"
COLUMNS = 3
BAR, TITLE = 0.17, 0.55  # inches


def advantage(value: float, target: dict) -> float:
    """How many times better than the peer: of times the inverse."""
    return 1 / value if "at_most" in target else value


def panels(results: dict) -> dict[str, list[dict]]:
    """The ratios of each subject, in the order of the run; differences are no ratios and left out."""
    found: dict[str, list[dict]] = {}
    for benchmark in results["benchmarks"]:
        for number in benchmark.get("numbers", []):
            if number["target"] and " / " in number["ratio"] and number["value"]["min"] > 0:
                found.setdefault(benchmark["subject"], []).append(number)
    return found


def height(numbers: list[dict]) -> float:
    return TITLE + BAR * len(numbers)


def columns(found: dict[str, list[dict]]) -> list[dict[str, list[dict]]]:
    """As high as each other as far as the order allows."""
    share = sum(map(height, found.values())) / COLUMNS
    divided: list[dict[str, list[dict]]] = []
    used = 0.0
    for subject, numbers in found.items():
        if not divided or used + height(numbers) / 2 > share * len(divided):
            divided.append({})
        divided[-1][subject] = numbers
        used += height(numbers)
    return divided


def label(number: dict) -> str:
    """As `echo_50_uvloop, against uvloop`, without saying that twice."""
    peer = number["ratio"].rpartition(" / ")[2]
    return number["name"] if number["name"].endswith(peer) else f"{number['name']} / {peer}"


def draw_panel(axes, subject: str, numbers: list[dict]) -> None:
    for place, number in enumerate(numbers):
        target = number["target"]
        median, *ends = (advantage(number["value"][key], target) for key in ("median", "min", "max"))
        axes.barh(place, median - 1, left=1, height=0.6, color=MET if number["met"] else MISSED)
        axes.plot(sorted(ends), [place, place], color="black", linewidth=0.8)
        limit = advantage(next(iter(target.values())), target)
        axes.plot([limit, limit], [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_title(subject, loc="left", fontweight="bold")
    axes.set_yticks(range(len(numbers)), [label(number) for number in numbers])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_ylim(len(numbers) - 0.4, -0.6)


def draw(results: dict, output: str) -> None:
    divided = columns(panels(results))
    size = max(sum(map(height, column.values())) for column in divided)
    figure = pyplot.figure(figsize=(13, size + 0.9), layout="constrained")
    for part, column in zip(figure.subfigures(1, len(divided), squeeze=False)[0], divided, strict=True):
        heights = [height(numbers) for numbers in column.values()]
        # A column that is shorter ends in nothing.
        heights.append(max(size - sum(heights), 0.01))
        grid = part.add_gridspec(len(heights), 1, height_ratios=heights)
        for row, (subject, numbers) in enumerate(column.items()):
            draw_panel(part.add_subplot(grid[row]), subject, numbers)
    conditions = "; ".join(f"{name}: {text}" for name, text in results["conditions"].items())
    legend = "Times better than the peer: bars medians, thin lines all rounds, thick lines targets"
    figure.suptitle(f"{legend}\n{conditions}", x=0.01, horizontalalignment="left", fontsize=8)
    figure.savefig(output, metadata={"Date": None})


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        draw(json.load(file), sys.argv[2])
