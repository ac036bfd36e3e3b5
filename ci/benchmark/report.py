"""What a run found, as tables on the terminal, `report.json` and `report.png`. Works on a report that was read back."""

import json
import os
import statistics

from matplotlib.figure import Figure
from rich.table import Table

from benchmark import targets
from benchmark.contender import KINDS
from benchmark.shapes import SHAPES

COLORS = {
    "crate": "#1f5fa8",
    "crate-packing": "#7fb0e0",
    "op": "#0b2e59",
    "tensorflow": "#c97b2d",
    "tensorflow-off": "#e6b98a",
    "litert": "#3a8f4d",
    "onnxruntime": "#8a4fa3",
    "openvino": "#b53a4e",
}
BUSY = 0.5  # processes running or waiting
SHORT = {"crate-packing": "packing", "tensorflow": "TF on", "tensorflow-off": "TF off", "onnxruntime": "ORT"}


def table(title, first, *others):
    view = Table(title=title, box=None, padding=(0, 1, 0, 0))
    view.add_column(first, no_wrap=True)
    for heading in others:
        view.add_column(heading, justify="right", no_wrap=True)
    return view


def number(value, form=".2f"):
    return "-" if value is None else format(value, form)


def milliseconds(seconds):
    return "-" if seconds is None else f"{1e3 * seconds:.4f}" if seconds < 1e-4 else f"{1e3 * seconds:.3f}"


def judged(ratio, least=1.0):
    return "-" if ratio is None else f"[{'green' if ratio >= least else 'red'}]{ratio:.2f}"


def present(rows, key, order):
    found = {row[key] for row in rows}
    return [name for name in order if name in found]


def layer_tables(report):
    """Times and ratios in f32, for each number of threads."""
    rows = [row for row in report["layers"] if row["dtype"] == "float32"]
    seconds, errors = (
        targets.times(report),
        {(r["shape"], r["threads"], r["contender"]): r for r in rows if "error" in r},
    )
    names, contenders = present(rows, "shape", SHAPES), present(rows, "contender", KINDS)
    for threads in sorted({row["threads"] for row in rows}):
        what = targets.counted(threads)
        view = table(f"ms per layer, {what}", "shape", *[SHORT.get(name, name) for name in contenders])
        for name in names:
            best = min((seconds[name, threads, c] for c in contenders if (name, threads, c) in seconds), default=None)
            cells = []
            for contender in contenders:
                cell = seconds.get((name, threads, contender))
                text = "[red]error" if (name, threads, contender) in errors else milliseconds(cell)
                cells.append(f"[bold]{text}[/]" if cell is not None and cell == best else text)
            view.add_row(name, *cells)
        yield view
        yield ratio_table(report, seconds, names, threads)


def ratio_table(report, seconds, names, threads):
    title = f"how many times as fast, {targets.counted(threads)}; GFLOP/s of the crate"
    view = table(title, "shape", "best peer", "crate", "packing", "op / TF on", "GFLOP/s", "of peak", "vs 1 thread")
    crate, packing = (targets.against_best(seconds, ours, threads) for ours in ("crate", "crate-packing"))
    op, peak = targets.ratios(seconds, "tensorflow", "op", threads), targets.of_peak(report, "crate", threads)
    for name in names:
        best = targets.best_peer(seconds, name, threads)
        mine, single = seconds.get((name, threads, "crate")), seconds.get((name, 1, "crate"))
        view.add_row(
            name,
            SHORT.get(best[0], best[0]) if best else "-",
            judged(crate.get(name), 0.97),
            judged(packing.get(name), 0.97),
            judged(op.get(name), 1.05),
            number(mine and SHAPES[name].operations / mine / 1e9, ".1f"),
            f"{100 * peak[name]:.0f} %" if name in peak else "-",
            number(single / mine if single and mine and threads > 1 else None),
        )
    means = [number(targets.geometric_mean(each.values()) if each else None) for each in (crate, packing, op)]
    view.add_row("[bold]geometric mean", "", *means)
    return view


def dtype_table(report):
    rows = [row for row in report["layers"] if row["dtype"] != "float32"]
    if not rows:
        return
    dtypes, threads = (
        present(rows, "dtype", ("training", "float64", "float16", "bfloat16")),
        sorted({r["threads"] for r in rows}),
    )
    short = {"training": "training", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}
    headings = [f"{short[dtype]}, {number_of}" for dtype in dtypes for number_of in threads]
    view = table("op against TensorFlow with oneDNN on, by threads", "shape", *headings)
    columns_found = [targets.ratios(targets.times(report, d), "tensorflow", "op", t) for d in dtypes for t in threads]
    for name in present(rows, "shape", SHAPES):
        view.add_row(name, *[judged(found.get(name)) for found in columns_found])
    means = [number(targets.geometric_mean(found.values()) if found else None) for found in columns_found]
    view.add_row("[bold]geometric mean", *means)
    yield view


def network_table(report):
    rows = report.get("networks")
    if not rows:
        return
    view = table(
        "separable layers of whole networks, ms", "network", "threads", "TF on", "op", "ratio", "through the op"
    )
    found = {(row["network"], row["threads"], row["contender"]): row for row in rows}
    for network, threads in dict.fromkeys((row["network"], row["threads"]) for row in rows):
        theirs, ours = (found.get((network, threads, contender), {}) for contender in ("tensorflow", "op"))
        times = [each.get("seconds") for each in (theirs, ours)]
        ratio = times[0] / times[1] if all(times) else None
        through = f"{ours['ran']} of {ours['layers']}" if "ran" in ours else "-"
        view.add_row(network, str(threads), *map(milliseconds, times), judged(ratio), through)
    yield view


def model_table(report):
    rows = report.get("models")
    if not rows:
        return
    found = {(row["model"], row["batch"], row["threads"], row["contender"]): row for row in rows}
    headings = "batch", "threads", "TF on", "rewritten", "ratio", "replaced", "bits"
    view = table("whole models, ms", "model", *headings)
    for model, batch, threads in dict.fromkeys(key[:3] for key in found):
        theirs, ours = (found.get((model, batch, threads, contender), {}) for contender in ("tensorflow", "op"))
        times = [each.get("seconds") for each in (theirs, ours)]
        ratio = times[0] / times[1] if all(times) else None
        replaced = f"{ours['replaced']} of {ours['layers']}" if "replaced" in ours else "-"
        bits = {None: "-", 0: "equal"}.get(ours.get("differing_bits"), "[red]differ")
        numbers = judged(ratio, targets.least_of(model)), replaced, bits
        view.add_row(model, str(batch), str(threads), *map(milliseconds, times), *numbers)
    yield view


def call_tables(report):
    seconds = report.get("eager", {}).get("seconds")
    if seconds:
        view = table("eager call of tiny from Python, us", "tf.nn.separable_conv2d", "sepconv", "bare op", "ratio")
        cells = [number(1e6 * seconds[name], ".1f") for name in ("tensorflow", "sepconv", "bare")]
        view.add_row(*cells, judged(seconds["tensorflow"] / seconds["sepconv"], 1.5))
        yield view
    rows = report.get("first_calls")
    if rows:
        headings = "shape", "sepconv first", "second", "TensorFlow first", "second"
        view = table("first eager call in a fresh process, ms", *headings)
        for row in rows:
            pairs = [row.get(function, {}) for function in ("sepconv", "tensorflow")]
            cells = [pair.get(which) for pair in pairs for which in ("first", "second")]
            view.add_row(row["shape"], *[number(cell and 1e3 * cell, ".1f") for cell in cells])
        yield view


def machine_table(report):
    rows = report["machine"]
    if not rows:
        return
    kinds = {"float32": "f32 GFLOP/s", "float64": "f64 GFLOP/s", "copy": "copy GB/s"}
    title = f"the machine ({report.get('instructions')}): median of the medians beside each shape, best of all readings"
    view = table(title, "threads", *[heading for kind in kinds.values() for heading in (kind, "best")])
    for threads in sorted({row["threads"] for row in rows}):
        cells = []
        for kind in kinds:
            readings = [row[kind] for row in rows if row["threads"] == threads]
            middle = statistics.median(reading["median"] for reading in readings)
            cells += [number(middle, ".1f"), number(max(reading["best"] for reading in readings), ".1f")]
        view.add_row(str(threads), *cells)
    yield view


def target_table(rows):
    title = "targets: times as fast, unless a unit stands there; the worst of how many shapes"
    view = table(title, "what", "target", "figure", "", "worst", "of")
    for row in rows:
        met = {True: "[green]met", False: "[red]missed", None: "[dim]" + (row["note"] or "unmeasured")}[row["met"]]
        counted = str(row["shapes"]) if row["shapes"] else ""
        view.add_row(row["what"], row["goal"], number(row["figure"]), met, row["worst"], counted)
    return view


def remarks(report):
    """What a reader of the tables has to know."""
    load = report["load_before"]
    if load > BUSY:
        yield f"[red]The machine was at work before the run (load {load:.1f}): do not trust these times."
    if report.get("models"):
        yield "Filters in variables; in both, one operation at a time."
        return
    links, filters = report["settings"]["links"], report["settings"]["filters"]
    yield f"op, TF on and TF off: a layer of {links} in a graph, {filters} filters; the others: whole calls."
    yield "Graphs of large layers in other dtypes, and with gradients, are shorter."
    checked = [row for row in report["layers"] if "differing_bits" in row]
    if checked:
        equal = sum(row["differing_bits"] == 0 for row in checked)
        yield f"op: bits equal to those of TensorFlow's eager call in {equal} of {len(checked)} layers."


def problems(report):
    """One line for each contender that failed somewhere, and for bits that differ."""
    by_reason = {}
    lists = [report["layers"], *(report.get(part, []) for part in ("networks", "models", "first_calls"))]
    for row in [row for rows in lists for row in rows]:
        place = row.get("shape") or row.get("network") or f"{row['model']}, batch {row['batch']}"
        if "error" in row:
            who = f"{row.get('contender', 'first call')} {row.get('dtype', '')}".strip()
            by_reason.setdefault((who, row["error"]), []).append(
                f"{place} ({row['threads']})" if "threads" in row else place
            )
        if row.get("differing_bits"):
            by_reason.setdefault((row["contender"], "bits differ from TensorFlow's"), []).append(place)
    if "error" in report.get("eager", {}):
        by_reason["eager calls", report["eager"]["error"]] = ["tiny"]
    return [f"{who}: {', '.join(dict.fromkeys(places))}: {reason}" for (who, reason), places in by_reason.items()]


def put(view, console):
    """A table below its title, which need not fit its width."""
    title, view.title = view.title, None
    console.print(f"[bold]{title}", soft_wrap=True)
    console.print(view, "")


def show(report, console):
    tables = [layer_tables, dtype_table, network_table, model_table, call_tables, machine_table]
    for each in tables:
        for view in each(report):
            put(view, console)
    put(target_table(report["targets"]), console)
    for line in remarks(report):
        console.print(line, soft_wrap=True)
    for line in problems(report):
        console.print(line, style="red", markup=False, soft_wrap=True)


def draw(report):
    """Above the time of a layer, below the part of the FMA peak; one column for each number of threads."""
    rows = [row for row in report["layers"] if row["dtype"] == "float32"]
    threads, names = sorted({row["threads"] for row in rows}), present(rows, "shape", SHAPES)
    contenders, seconds = present(rows, "contender", KINDS), targets.times(report)
    figure = Figure(figsize=(3 + 5.2 * len(threads), 8.5), layout="constrained")
    panels = figure.subplots(2, len(threads), squeeze=False, sharex=True, sharey="row")
    for column, number_of in enumerate(threads):
        above, below = panels[:, column]
        for index, contender in enumerate(contenders):
            offset = 0.6 * (index + 0.5) / len(contenders) - 0.3
            ours = KINDS[contender].ours
            style = {
                "color": COLORS[contender],
                "marker": "D" if ours else "o",
                "s": 30 if ours else 22,
                "zorder": 2 + ours,
            }
            for axes, values in (
                (
                    above,
                    {n: 1e3 * seconds[n, number_of, contender] for n in names if (n, number_of, contender) in seconds},
                ),
                (below, targets.of_peak(report, contender, number_of)),
            ):
                places = [names.index(name) + offset for name in values]
                axes.scatter(places, list(values.values()), label=KINDS[contender].what, **style)
        above.set_yscale("log")
        above.set_title(targets.counted(number_of))
        below.set_ylim(0, 1.05)
        below.axhline(1, color="black", linewidth=0.8)
        below.set_xticks(range(len(names)), names, rotation=60, ha="right")
        for axes in (above, below):
            axes.grid(axis="y", linewidth=0.4)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            for edge in range(len(names) - 1):
                axes.axvline(edge + 0.5, color="#dddddd", linewidth=0.6, zorder=0)
    panels[0, 0].set_ylabel("median time of a layer, ms (less is better)")
    panels[1, 0].set_ylabel("part of the measured FMA peak (more is better)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def write(report, folder):
    """Both files, each whole or not at all; of whole models there is no plot."""
    names = ["models.json"] if report.get("models") else ["report.json", "report.png"]
    paths = [folder / name for name in names]
    partial = [path.with_name(f".{path.name}.part") for path in paths]
    try:
        partial[0].write_text(json.dumps(report, indent=1) + "\n")
        if len(paths) > 1:
            draw(report).savefig(partial[1], dpi=150, format="png")
        for new, path in zip(partial, paths, strict=True):
            os.replace(new, path)
    finally:
        for path in partial:
            path.unlink(missing_ok=True)
    return paths
