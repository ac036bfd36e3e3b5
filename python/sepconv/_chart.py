"""The report of `inspect` as a picture, or as an HTML page of one file with that picture and the figures; see
`_inspect.examine` for what the report holds.
"""

import html
import io
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sepconv import _inspect_tables as tables
from sepconv.examples._common import SEPCONV_COLOR, TENSORFLOW_COLOR

STANDARD_COLOR = "#9a9a9a"
WAYS = {  # of computing a layer
    "standard": ("standard convolution, TensorFlow", STANDARD_COLOR),
    "separable": ("separable, TensorFlow", TENSORFLOW_COLOR),
    "sepconv": ("separable, sepconv", SEPCONV_COLOR),
}
WORK_COLORS = {"1x1": SEPCONV_COLOR, "depthwise": "#6fb1e0", "convolution": STANDARD_COLOR, "dense": "#d9d2c5"}
MANY = 30  # layers: more than can have their names written


def write(report: dict, path: Path) -> None:
    """Draws the report into a file whose name ends in .png or .html."""
    if path.suffix == ".png":
        draw(report).savefig(path, dpi=100)
    else:
        path.write_text(page(report))


def draw(report: dict) -> Figure:
    figure = Figure(figsize=(12, 10 if report["machine"] else 7.5), layout="constrained")
    figure.suptitle(f"{report['model']}: {_summary(report)}", fontsize=12)
    layers = [row for row in report["layers"] if row["ratio"] is not None]
    rows = 3 if report["machine"] else 2
    grid = figure.add_gridspec(rows, 3, height_ratios=[1.1] * (rows - 1) + [1])
    _products(figure.add_subplot(grid[0, :]), layers, with_names=not report["machine"])
    if report["machine"]:
        _times(figure.add_subplot(grid[1, :]), layers, report["machine"])
    _work(figure.add_subplot(grid[-1, 0]), report["totals"])
    _groups(figure.add_subplot(grid[-1, 1]), report["groups"])
    _multipliers(figure.add_subplot(grid[-1, 2]), report["multipliers"])
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def page(report: dict) -> str:
    """The picture and the tables; nothing is fetched from elsewhere."""
    from rich.console import Console

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(report).savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    picture = re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), flags=re.DOTALL)
    console = Console(file=io.StringIO(), width=170, highlight=False)
    tables.show(report, console)
    title = html.escape(report["model"])
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}: what its layers cost</title>\n'
        "<style>body{font-family:sans-serif;max-width:90em;margin:1em auto}svg{max-width:100%;height:auto}"
        f"pre{{overflow-x:auto}}</style>\n{picture}<pre>{html.escape(console.file.getvalue())}</pre>\n</html>\n"
    )


def _summary(report):
    totals, standard = report["totals"], report["totals"]["multiply_adds"]["standard"]
    text = f"{tables.short(totals['multiply_adds']['model'])} multiply-adds, {tables.short(standard)} as standard"
    if totals["seconds"]:
        theirs, ours = (1e3 * totals["seconds"][way] for way in ("tensorflow", "sepconv"))
        text += f"; {theirs:.1f} ms with TensorFlow's ops, {ours:.1f} ms with sepconv's"
    return text


def _products(axes, layers, with_names):
    place = np.arange(len(layers))
    for offset, way, label in ((-0.2, "standard", "standard"), (0.2, "separable", "depthwise separable")):
        values = [row["multiply_adds"][way] for row in layers]
        axes.bar(place + offset, values, 0.4, label=label, color=WAYS[way][1] if way == "standard" else SEPCONV_COLOR)
    axes.set(yscale="log", ylabel="multiply-adds", title="each layer as a standard and as a separable convolution")
    _name_layers(axes, layers if with_names else [])


def _times(axes, layers, machine):
    place = np.arange(len(layers))
    for offset, (way, (label, color)) in zip((-0.27, 0, 0.27), WAYS.items(), strict=True):
        values = [1e3 * (((row["times"] or {}).get(way) or {}).get("seconds") or 0) for row in layers]
        axes.bar(place + offset, values, 0.27, label=label, color=color)
    peak = f"peak {machine['peak'] / 1e9:.0f} GFLOP/s"
    axes.set(yscale="log", ylabel="ms (less is better)", title=f"measured, {machine['threads']} thread(s); {peak}")
    _name_layers(axes, layers)


def _name_layers(axes, layers):
    axes.margins(x=0.01)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=9, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))
        axes.set_title(axes.get_title(), fontsize=11, loc="right")
        axes.title.set_text("")
    step = -(-len(layers) // (2 * MANY)) or 1
    names = [_short_name(row["name"]) for row in layers[::step]]
    axes.set_xticks(np.arange(len(layers))[::step], names, rotation=90, fontsize=7)


def _short_name(name):
    """The end of a long one."""
    return name if len(name) <= 24 else f"…{name[-23:]}"


def _work(axes, totals):
    """Shares of parameters and multiply-adds by what computes."""
    keys, begun = ("of_multiply_adds", "of_parameters"), np.zeros(2)
    for kind, color in WORK_COLORS.items():
        values = np.array([totals["work"][kind][key] or 0 for key in keys])
        bars = axes.barh((1, 0), values, 0.6, begun, color=color, label=tables.WORK_NAMES[kind])
        labels = [f"{value:.0%}" if value >= 0.06 else "" for value in values]
        axes.bar_label(bars, labels, label_type="center", color="white" if kind == "1x1" else "black", fontsize=9)
        begun += values
    axes.set_yticks((1, 0), ("multiply-\nadds", "para-\nmeters"))
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    axes.set_title("where the work is", fontsize=11)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))


def _groups(axes, groups):
    axes.set_title("no layer has groups", fontsize=11)
    if not groups:
        return
    counts = [row["groups"] for row in groups["rows"]]
    axes.plot(counts, [row["multiply_adds"] for row in groups["rows"]], marker="o", color=SEPCONV_COLOR)
    axes.axhline(groups["rows"][-1]["multiply_adds"], color=STANDARD_COLOR, linewidth=0.8, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="groups of channels", ylabel="multiply-adds")
    axes.set_xticks(counts, counts, fontsize=8)
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_title(f"standard to separable: {tables.shapes(groups)}, {tables.kernel_of(groups)}", fontsize=11)


def _multipliers(axes, rows):
    highest = max(max(row["predicted_ratio"], row["ratio"] or 0) for row in rows)
    axes.plot([0, highest], [0, highest], color=STANDARD_COLOR, linewidth=0.8, linestyle="--", label="equal")
    for rho in dict.fromkeys(row["rho"] for row in rows):
        chosen = [row for row in rows if row["rho"] == rho]
        points = [row["predicted_ratio"] for row in chosen], [row["ratio"] for row in chosen]
        axes.plot(*points, marker="o", linewidth=1, markersize=4, label=f"rho {rho:.3g}")
    axes.set(xlabel="alpha²·rho²", ylabel="exact cost")
    axes.set_title("width alpha, resolution rho", fontsize=11)
    axes.legend(frameon=False, fontsize=8)
