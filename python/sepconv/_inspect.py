"""`python -m sepconv inspect`: what a model's convolutions cost, and would cost as depthwise separable ones.

`add_arguments` and `run` are the command; `examine` gives its report as plain values, which `--json` writes and tables
and charts are made from.
"""

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path

import sepconv
from sepconv import _cost
from sepconv._command import BadInput, check_place, positive, writing

SCHEMA = 1  # goes up where a name in the report changes its meaning or goes away
CHARTS = (".png", ".html")
ALPHAS, RHOS = "1,0.75,0.5,0.25", "1,6/7,5/7,4/7"  # MobileNet's own; its images are 224, 192, 160 and 128 wide
MOST = 4  # a width or resolution multiplier
HELP = "parameters, multiply-adds and times of a model's layers, as standard and as depthwise separable convolutions"
DESCRIPTION = """\
Per layer and in total: parameters and multiply-adds as standard convolutions
and as depthwise separable ones, their ratio beside 1/out_channels +
1/(kernel*kernel), and where the work lies; a layer's cost from one group of
channels to one group per channel; the cost with MobileNet's width multiplier
alpha and resolution multiplier rho beside alpha^2 * rho^2; and the time that
layers take with TensorFlow's ops and with sepconv's, as a part of the
machine's peak.

Parameters are those of filters and matrices; biases and normalisation are left
out. Exit status: 0, 1 where something given cannot be used, 130 after an
interrupt."""
EPILOG = """\
Times are the best of some calls; --json has their medians too. The peak is the
best rate of TensorFlow's products of 768x768 float32 matrices, on the same
threads in the same run. It stands in for the peak of the processor's multiply-
add units, which ci/bench measures and which is somewhat higher: a layer can
come out above 100 %. Needs rich; charts need matplotlib, Keras models Keras 3."""


def add_arguments(parser) -> None:
    """The command's options."""
    from sepconv._models import KINDS

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    add = parser.add_argument
    add("model", metavar="MODEL", help=f"{KINDS}, which is built with random weights")
    help = (
        "extents of the model's input, or of that called NAME, without the batch, where the model leaves them open "
        "(default: the model's own); an unknown batch is 1"
    )
    add("--input-shape", action="append", type=_input_shape, default=[], metavar="[NAME=]224,224,3", help=help)
    add("--signature", metavar="NAME", help="which of a SavedModel's signatures (default: serving_default)")
    help = "the layer whose cost is shown by groups of channels (default: of the geometry with most multiply-adds)"
    add("--layer", metavar="NAME", help=help)
    help = (
        "how many channels the 1x1 product of an Inception tower leaves of that layer's in_channels, at most all "
        "(default: a sixth)"
    )
    add("--squeeze", type=positive, metavar="N", help=help)
    numbers = f"as numbers or fractions above 0 and up to {MOST} with commas between (default: %(default)s)"
    help = f"MobileNet's width multipliers, which scale every layer's numbers of channels, {numbers}"
    add("--alpha", type=_multipliers, default=ALPHAS, metavar="LIST", help=help)
    help = f"MobileNet's resolution multipliers, which scale every image's height and width, {numbers}"
    add("--rho", type=_multipliers, default=RHOS, metavar="LIST", help=help)
    help = "whether layers are timed on this machine (default: --measure)"
    add("--measure", action=argparse.BooleanOptionalAction, default=True, help=help)
    help = "how many threads layers are timed on (default: %(default)s)"
    add("--threads", type=positive, default=1, metavar="N", help=help)
    help = "for how many seconds each way to compute a layer is timed, at least, from 0 to 60 (default: %(default)s)"
    add("--seconds", type=_seconds, default=0.2, metavar="S", help=help)
    help = "a file for the report as JSON, beside the tables; - for the standard output, without the tables"
    add("--json", metavar="PATH", help=f"{help} (default: the tables alone)")
    help = "a file for a drawing of the report, a picture (.png) or a page (.html) (default: none is drawn)"
    add("--chart", metavar="PATH", type=Path, help=help)


def run(options) -> int:
    """The command; gives its exit status."""
    try:
        from rich.console import Console

        if options.chart is not None:
            from sepconv import _chart
    except ModuleNotFoundError as missing:
        raise BadInput(f"no module {missing.name}: pip install rich matplotlib") from None
    import tensorflow as tf

    from sepconv import _inspect_tables

    _check_places(options)
    tf.get_logger().setLevel("ERROR")  # what it has to say of a model's age is not what was asked
    report = examine(options, _progress(Console(stderr=True)))
    if options.json not in (None, "-"):
        with writing("--json", options.json):
            Path(options.json).write_text(json.dumps(report, indent=1) + "\n")
    if options.chart is not None:
        with writing("--chart", options.chart):
            _chart.write(report, options.chart)
    if options.json == "-":
        print(json.dumps(report, indent=1))
    else:
        width = {} if sys.stdout.isatty() else {"width": 200}  # a file or pipe folds nothing
        _inspect_tables.show(report, Console(highlight=False, **width))
    return 0


# The report


def examine(options, progress=None) -> dict:
    """The report as plain values.

    Args:
        options: What `add_arguments` parses.
        progress: Called with the number of layers to measure; gives a context whose value is called with each's name.

    Returns:
        A dictionary: `model`, `kind`, `inputs`, `layers` (a dictionary each), `totals`, `groups`, `multipliers`,
        `machine` (None without `--measure`), `notes`, `versions`, `schema`.

    Raises:
        BadInput: The model or an option cannot be used.
    """
    from sepconv import _layers, _models

    if options.measure:
        from sepconv import _measure

        _measure.use_threads(options.threads)
    model = _models.load(options.model, _shapes(options.input_shape), options.signature)
    layers, notes = _layers.find(model.graph(), model.inputs, model.layers)
    if not layers:
        raise BadInput(f"MODEL {options.model}: has no convolution and no matrix product")
    spectrum = _groups(_chosen(layers, options.layer), options.squeeze)
    multipliers = _multiplied(model, layers, options.alpha, options.rho, notes)
    timings, machine = {}, None
    if options.measure:
        with (progress or _silent)(len(_measure.distinct(layers))) as tick:
            timings, peak = _measure.measure(layers, options.seconds, tick)
        machine = {"threads": options.threads, "peak": peak, "peak_is": "float32 products of TensorFlow, operations/s"}
    rows = [_row(layer, timings.get(layer.name), machine) for layer in layers]
    return {
        "schema": SCHEMA,
        "versions": {"sepconv": sepconv.__version__, "tensorflow": _tensorflow_version()},
        "model": model.name,
        "kind": model.kind,
        "inputs": {name: None if shape is None else list(shape) for name, shape in model.inputs.items()},
        "layers": rows,
        "totals": _totals(layers, rows),
        "groups": spectrum,
        "multipliers": multipliers,
        "machine": machine,
        "notes": notes,
    }


def _row(layer, timings, machine):
    model, standard, separable = layer.cost(), layer.standard(), layer.separable()
    predicted = layer.predicted_ratio()
    row = {
        **{name: getattr(layer, name) for name in ("name", "kind", "dtype", "groups", "channel_multiplier")},
        **{name: _plain(getattr(layer, name)) for name in ("nodes", "between", "input", "output", "kernel", "strides")},
        **{"rate": list(layer.rate), "padding": _plain(layer.padding), "weights": list(layer.weights)},
        **_costs(model=model, standard=standard, separable=separable),
        "ratio": separable.multiply_adds / standard.multiply_adds if layer.spatial and standard.multiply_adds else None,
        "predicted_ratio": None if predicted is None else float(predicted),
        "times": None,
    }
    if timings:
        operations = {"model": model, "standard": standard, "separable": separable, "sepconv": separable}
        row["times"] = {
            way: {
                **{"seconds": timing.seconds, "median": timing.median, "path": timing.path, "reason": timing.reason},
                "of_peak": timing.seconds and 2 * operations[way].multiply_adds / timing.seconds / machine["peak"],
            }
            for way, timing in timings.items()
        }
    return row


def _totals(layers, rows):
    costs = {
        way: _cost.total((layer, getattr(layer, method)()) for layer in layers)
        for way, method in {"model": "cost", "standard": "standard", "separable": "separable"}.items()
    }
    work = {kind: _cost.total((r, r.work().get(kind, _cost.Cost())) for r in layers) for kind in _cost.WORK}
    whole = costs["model"]
    return {
        **_costs(**costs),
        "ratio": _part(costs["separable"].multiply_adds, costs["standard"].multiply_adds),
        "work": {
            kind: {
                **{"parameters": cost.parameters, "multiply_adds": cost.multiply_adds},
                "of_parameters": _part(cost.parameters, whole.parameters),
                "of_multiply_adds": _part(cost.multiply_adds, whole.multiply_adds),
            }
            for kind, cost in work.items()
        },
        "seconds": _seconds_in_all(rows),
    }


def _seconds_in_all(rows):
    """Of all layers as they are in the model, one after the other: with TensorFlow's ops, and with sepconv's where it
    has one; None unless all were measured."""
    tensorflow = [((row["times"] or {}).get("model") or {}).get("seconds") for row in rows]
    if None in tensorflow:
        return None
    ours = [
        row["times"]["sepconv"]["seconds"] or theirs if row["kind"] == "separable" else theirs
        for row, theirs in zip(rows, tensorflow, strict=True)
    ]
    return {"tensorflow": sum(tensorflow), "sepconv": sum(ours)}


def _chosen(layers, name):
    """The layer whose groups are shown; None where there is none that could have any."""
    spatial = [layer for layer in layers if layer.spatial]
    if name is not None:
        for layer in spatial:
            if layer.name == name:
                return layer
        known = ", ".join(layer.name for layer in spatial) or "none"
        raise BadInput(f"--layer {name}: must be a convolution of more than one pixel: {known}")
    sums = {}
    for layer in spatial:
        geometry = layer.input, layer.output, layer.kernel, layer.strides
        sums.setdefault(geometry, [0, layer])[0] += layer.cost().multiply_adds
    return max(sums.values(), key=lambda each: each[0])[1] if sums else None


def _groups(layer, squeeze):
    """A layer's cost by the number of groups, and as in Inception's towers."""
    if layer is None:
        return None
    if squeeze is not None and squeeze > layer.in_channels:
        raise BadInput(f"--squeeze {squeeze}: must be at most the {layer.in_channels} in_channels of {layer.name}")
    channels, standard = squeeze or max(1, layer.in_channels // 6), layer.standard()

    def row(cost, **what):
        return {**what, **vars(cost), "ratio": _part(cost.multiply_adds, standard.multiply_adds)}

    rows = [row(_cost.in_groups(layer, groups), groups=groups) for groups in _cost.groups_of(layer.in_channels)]
    shapes = {"input": list(layer.input), "output": list(layer.output), "kernel": list(layer.kernel)}
    return {
        **{"layer": layer.name, **shapes, "rows": rows},
        "squeezed": row(_cost.squeezed(layer, channels), channels=channels),
    }


def _multiplied(model, layers, alphas, rhos, notes):
    """The model's cost for every width and resolution multiplier."""
    whole, rows = _cost.total((layer, layer.cost()) for layer in layers), []
    for rho in rhos:
        extents, exact = _extents(model, layers, rho)
        for alpha in alphas:
            thinned = [layer.scaled(alpha, each) for layer, each in zip(layers, extents, strict=True)]
            cost = _cost.total((layer, layer.cost()) for layer in thinned)
            rows.append(
                {
                    **{"alpha": float(alpha), "rho": float(rho), **vars(cost), "exact": exact},
                    "ratio": _part(cost.multiply_adds, whole.multiply_adds),
                    "predicted_ratio": float(alpha**2 * rho**2),
                }
            )
    if not all(row["exact"] for row in rows):
        notes.append("the graph takes no other resolution: each layer's height and width were scaled and rounded up")
    return rows


def _extents(model, layers, rho):
    """Height and width of every layer's output for a scaled resolution: as TensorFlow infers them where the graph takes
    such an input, and otherwise scaled one by one."""
    from sepconv import _layers

    if rho != 1:
        inputs = {
            name: (shape[0], *(max(1, round(extent * rho)) for extent in shape[1:3]), shape[3])
            for name, shape in model.inputs.items()
            if shape is not None and len(shape) == 4 and None not in shape
        }
        if not inputs:  # no image, nothing to scale
            return [layer.output[1:3] for layer in layers], True
        try:
            found, _ = _layers.find(model.graph(inputs), model.inputs, model.layers)
            if [layer.name for layer in found] == [layer.name for layer in layers]:
                return [layer.output[1:3] for layer in found], True
        except BadInput:
            pass
    scaled = [tuple(-(-extent * rho // 1) for extent in layer.output[1:3]) for layer in layers]
    return [tuple(map(int, each)) for each in scaled], rho == 1


def _costs(**costs):
    return {
        "parameters": {name: cost.parameters for name, cost in costs.items()},
        "multiply_adds": {name: cost.multiply_adds for name, cost in costs.items()},
    }


def _part(part, whole):
    return part / whole if whole else None


def _plain(value):
    """Tuples as lists, as JSON has them."""
    return [_plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def _tensorflow_version():
    import tensorflow as tf

    return tf.__version__


# The options


def _input_shape(text):
    name, _, extents = text.rpartition("=")
    try:
        shape = tuple(positive(extent) for extent in extents.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers of 1 or more, such as 224,224,3") from None
    return name or None, shape


def _shapes(pairs):
    shapes = dict(pairs)
    if len(shapes) < len(pairs):
        raise BadInput("--input-shape: must be given once for each input")
    return shapes


def _multipliers(text):
    try:
        values = [Fraction(each.strip()) for each in text.split(",")]
    except (ValueError, ZeroDivisionError):
        values = [Fraction(0)]
    if not all(0 < value <= MOST for value in values):
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers above 0 and up to {MOST}, such as 1,0.75 or 1,6/7")
    return values


def _seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number from 0 to 60")
    return value


def _check_places(options):
    """Before any work is done: whether what is asked for can be written."""
    if options.chart is not None and options.chart.suffix not in CHARTS:
        raise BadInput(f"--chart {options.chart}: must end in {' or '.join(CHARTS)}")
    if options.json not in (None, "-"):
        check_place("--json", options.json, [options.model])
    if options.chart is not None:
        check_place("--chart", options.chart)


# The progress of measuring


class _silent:
    def __init__(self, _):
        pass

    def __enter__(self):
        return lambda _: None

    def __exit__(self, *_):
        pass


def _progress(console):
    """A bar of the layers measured, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    class Bar:
        def __init__(self, total):
            columns = TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
            # No refreshing thread: it would take time from what is measured.
            self.progress = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self.total, self.done = total, 0

        def __enter__(self):
            self.progress.__enter__()
            self.task = self.progress.add_task("", total=self.total)
            return self.tick

        def tick(self, name):
            refresh = console.is_terminal
            self.progress.update(self.task, completed=self.done, description=name, refresh=refresh)
            self.done += 1

        def __exit__(self, *error):
            self.progress.__exit__(*error)

    return Bar
