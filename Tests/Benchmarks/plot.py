"""Draws .build/bench/results.json as an SVG: each ratio that has a target, with its spread.

usage: plot.py RESULTS OUTPUT
"""

import json
import sys

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

pyplot.rcParams["svg.fonttype"] = "none"  # text stays text

MET, MISSED = "#2a7f4f", "#b3412d"
BAR = 0.24  # inches


def advantage(value: float, target: dict) -> float:
    """How many times better than the peer: of times the inverse."""
    return 1 / value if "at_most" in target else value


def rows(results: dict) -> list[dict]:
    """The ratios, in the order of the run; differences are no ratios and left out."""
    return [
        number
        for benchmark in results["benchmarks"]
        for number in benchmark.get("numbers", [])
        if number["target"] and " / " in number["ratio"] and number["value"]["min"] > 0
    ]


def draw(results: dict, output: str) -> None:
    numbers = rows(results)
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + BAR * len(numbers)), layout="constrained")
    for place, number in enumerate(numbers):
        target = number["target"]
        median, *ends = (advantage(number["value"][key], target) for key in ("median", "min", "max"))
        color = MET if number["met"] else MISSED
        axes.barh(place, median - 1, left=1, height=0.6, color=color)
        axes.plot(sorted(ends), [place, place], color="black", linewidth=0.8)
        limit = advantage(next(iter(target.values())), target)
        axes.plot([limit, limit], [place - 0.4, place + 0.4], color="black", linewidth=2)
    axes.set_yticks(range(len(numbers)), [number["name"] for number in numbers], fontsize=7)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("times better than the peer; thin: all rounds, thick: the target")
    conditions = "\n".join(f"{name}: {text}" for name, text in results["conditions"].items())
    axes.set_title(conditions, fontsize=7, loc="left")
    figure.savefig(output, metadata={"Date": None})


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        draw(json.load(file), sys.argv[2])
