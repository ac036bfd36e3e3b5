"""The report of `inspect` as tables for people; see `_inspect.examine` for what it holds."""

from rich.markup import escape
from rich.table import Table

WORK_NAMES = {
    "1x1": "1x1 products",
    "depthwise": "depthwise",
    "convolution": "standard convolutions",
    "dense": "fully connected",
}
WIDE = 150  # columns that all there is to say of a layer needs


def show(report: dict, console) -> None:
    """Prints everything."""
    inputs = ", ".join(f"{name} {_shape(shape)}" for name, shape in report["inputs"].items())
    _say(console, f"{report['model']} ({report['kind']}), input {inputs}\n")
    for table in _layers(report, console.width):
        console.print(table)
        console.print()
    _say(console, _below_layers(report))
    for heading, table in _parts(report):
        _say(console, f"\n{heading}")
        console.print(table)
    for note in report["notes"]:
        _say(console, f"\nNote: {note}.")


def short(number) -> str:
    """With three digits or more and a unit: 39.9M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:#.4g}{unit}".replace(".G", "G").replace(".M", "M").replace(".k", "k")
    return str(number)


def shapes(row: dict) -> str:
    """28x28x192 → 256."""
    return f"{'x'.join(map(str, row['input'][1:]))} → {row['output'][3]}"


def kernel(row: dict) -> str:
    """3x3, /2 with strides, rate 2 where dilated, x4 with a channel multiplier."""
    text = "x".join(map(str, row["kernel"]))
    text += f"/{_pair(row['strides'])}" if max(row["strides"]) > 1 else ""
    text += f" rate {_pair(row['rate'])}" if max(row["rate"]) > 1 else ""
    text += f" x{row['channel_multiplier']}" if row["channel_multiplier"] > 1 else ""
    return text + (f" g{row['groups']}" if row["groups"] > 1 else "")


def milliseconds(row: dict, way: str) -> str:
    timing = (row["times"] or {}).get(way) or {}
    return "" if timing.get("seconds") is None else f"{1e3 * timing['seconds']:.3f}"


def _say(console, text):
    console.print(text, soft_wrap=True, markup=False)


def _table(texts, numbers):
    view = Table(box=None, padding=(0, 2, 0, 0))
    for heading in texts:
        view.add_column(heading, overflow="fold")
    for heading in numbers:
        view.add_column(heading, justify="right", no_wrap=True)
    return view


def _layers(report, width):
    """One table of all layers; where that does not fit, one of what they are, one of their costs and one of times."""
    parts = [(_WHAT, _what), (_COSTS, _costs)] + [(_TIMES, _times)] * (report["machine"] is not None)
    for chosen in [parts] if width >= WIDE else [[part] for part in parts]:
        texts = [heading for headings, _ in chosen if headings is _WHAT for heading in headings]
        numbers = [heading for headings, _ in chosen if headings is not _WHAT for heading in headings]
        view = _table(("layer", *texts), numbers)
        for row in report["layers"]:
            view.add_row(escape(row["name"]), *(cell for _, cells in chosen for cell in cells(row)))
        if any(headings is _COSTS for headings, _ in chosen):
            totals = {**report["totals"], "predicted_ratio": None}
            blank = ("",) * (len(texts) + 1)
            view.add_row("all", *blank[1:], *_costs(totals), style="bold")
        yield view


_WHAT = "kind", "input → channels", "kernel"
_COSTS = "params\nstd", "params\nsep", "mult-adds\nstd", "mult-adds\nsep", "ratio", "1/N\n+1/k²"
_TIMES = "std ms", "TF ms", "ours ms", "of peak"


def _what(row):
    return row["kind"], shapes(row), kernel(row)


def _costs(row):
    both = row.get("kind") not in ("1x1", "dense")
    for key in ("parameters", "multiply_adds"):
        yield short(row[key]["standard"]) if both else ""
        yield short(row[key]["separable"])
    yield _number(row["ratio"], ".4f")
    yield _number(row["predicted_ratio"], ".4f")


def _times(row):
    """Of the convolution, of what TensorFlow has in place of the separable layer, of sepconv; and the part of the peak
    that the fastest way to compute the layer as it is in the model reaches."""
    theirs = "separable" if "separable" in (row["times"] or {}) else "model"
    own = ["model", "sepconv"] if row["kind"] == "separable" else ["model"]
    parts = [((row["times"] or {}).get(way) or {}).get("of_peak") or 0 for way in own]
    star = "*" if ((row["times"] or {}).get("sepconv") or {}).get("path") == "tensorflow" else ""
    ours = milliseconds(row, "sepconv") + star
    return milliseconds(row, "standard"), milliseconds(row, theirs), ours, f"{max(parts):.0%}" if max(parts) else ""


def _below_layers(report):
    totals, machine, lines = report["totals"], report["machine"], []
    lines.append(
        "std: as standard convolutions; sep: as depthwise separable ones; N: out_channels, k: kernel. 1x1 products and "
        "fully connected layers are the same in both."
    )
    for name, key in (("parameters", "parameters"), ("multiply-adds", "multiply_adds")):
        costs = totals[key]
        lines.append(
            f"In all, {name}: {costs['standard']:,} as standard convolutions, {costs['separable']:,} as separable "
            f"ones, {costs['model']:,} as the model is."
        )
    if machine is None:
        return "\n".join(lines)
    lines.append(
        f"Times on {machine['threads']} thread(s), the best of some calls, of the products alone: std, TensorFlow's "
        f"convolution; TF, its own ops for the separable one (or the layer as it is); ours, sepconv's. Of peak: the "
        f"model's own layer, the faster way, of {machine['peak'] / 1e9:.1f} GFLOP/s in float32 matrix products."
    )
    if any(((row["times"] or {}).get("sepconv") or {}).get("path") == "tensorflow" for row in report["layers"]):
        lines.append("*: sepconv leaves this layer to TensorFlow's own ops; --json says why.")
    if totals["seconds"]:
        theirs, ours = (1e3 * totals["seconds"][way] for way in ("tensorflow", "sepconv"))
        lines.append(
            f"The model's layers one after the other: {theirs:.2f} ms with TensorFlow's ops, {ours:.2f} ms with "
            f"sepconv's for the separable ones: {theirs / ours:.2f} times as fast."
        )
    return "\n".join(lines)


def _parts(report):
    view = _table(("work of the model",), ("parameters", "share", "multiply-adds", "share"))
    for kind, work in report["totals"]["work"].items():
        shares = [_number(work[key], ".2%") for key in ("of_parameters", "of_multiply_adds")]
        view.add_row(WORK_NAMES[kind], f"{work['parameters']:,}", shares[0], f"{work['multiply_adds']:,}", shares[1])
    yield "Where the work is", view
    if report["groups"]:
        yield _groups(report["groups"])
    view = _table((), ("alpha", "rho", "parameters", "multiply-adds", "ratio", "alpha²·rho²"))
    for row in report["multipliers"]:
        cells = f"{row['parameters']:,}", f"{row['multiply_adds']:,}"
        ratios = _number(row["ratio"], ".4f"), f"{row['predicted_ratio']:.4f}"
        view.add_row(f"{row['alpha']:.4g}", f"{row['rho']:.4g}", *cells, *ratios)
    yield "Width multiplier alpha and resolution multiplier rho: the model's exact cost and the approximation", view


def _groups(groups):
    view = _table(("groups of channels",), ("parameters", "multiply-adds", "of standard"))

    def add(what, row):
        view.add_row(what, f"{row['parameters']:,}", f"{row['multiply_adds']:,}", _number(row["ratio"], ".4f"))

    for row in groups["rows"]:
        add(group_name(row["groups"], groups), row)
        if row["groups"] == 1:
            squeezed = groups["squeezed"]
            add(f"1x1 to {squeezed['channels']} channels, then standard (Inception)", squeezed)
    return f"From standard to separable: {groups['layer']}, {shapes(groups)}, {kernel_of(groups)}", view


def group_name(count, groups) -> str:
    if count == 1:
        return "1: standard"
    if count == groups["input"][3]:
        return f"{count}, then 1x1: depthwise separable"
    return f"{count}, then 1x1" + (" (Inception)" if count in (3, 4) else "")


def kernel_of(groups) -> str:
    return "x".join(map(str, groups["kernel"]))


def _shape(shape):
    return "of unknown shape" if shape is None else "x".join("?" if n is None else str(n) for n in shape)


def _pair(values):
    return str(values[0]) if values[0] == values[1] else f"{values[0]},{values[1]}"


def _number(value, form):
    return "" if value is None else format(value, form)
