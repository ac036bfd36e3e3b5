"""Which of the goals the measured numbers meet: one row for each, with the worst shape. Knows nothing of how they were
taken; a report read back from its file gives the same rows."""

import dataclasses
import math
import statistics

from benchmark.shapes import SHAPES

PEERS = ("litert", "onnxruntime", "openvino", "tensorflow", "tensorflow-off")
AT_PEAK = ("mbv1_7", "mbv1_13", "xcep_mid", "b8_mbv1_7")
DILATED = tuple(name for name, shape in SHAPES.items() if shape.rate > 1)
DTYPES = ("float64", "float16", "bfloat16")
# How many times as fast whole models have to be; all others must not be slower.
MODELS = {"MobileNet": 1.3, "Xception": 1.15, "DeepLab head": 2.0}
LONG = 1e-3  # seconds: from here on a second thread should nearly halve the time


@dataclasses.dataclass
class Target:
    """One goal. `met` is None where nothing was measured, or the machine is not one that the goal is for."""

    what: str
    goal: str
    figure: float | None = None
    unit: str = "x"
    met: bool | None = None
    worst: str = ""  # the shape that is furthest from the goal
    shapes: int = 0  # on how many it was measured
    note: str = ""  # why it is neither met nor missed


def times(report, dtype="float32"):
    """Median seconds by shape, threads and contender."""
    return {
        (row["shape"], row["threads"], row["contender"]): row["seconds"]
        for row in report["layers"]
        if row["dtype"] == dtype and "seconds" in row
    }


def ratios(seconds, theirs, ours, threads, names=tuple(SHAPES)):
    """By shape, how many times as fast ours is."""
    pairs = {name: (seconds.get((name, threads, theirs)), seconds.get((name, threads, ours))) for name in names}
    return {name: a / b for name, (a, b) in pairs.items() if a and b}


def best_peer(seconds, name, threads):
    """The fastest peer's name and seconds, or None."""
    found = [(seconds[name, threads, peer], peer) for peer in PEERS if (name, threads, peer) in seconds]
    return min(found)[::-1] if found else None


def against_best(seconds, ours, threads):
    """By shape, our speed as a multiple of the best peer's."""
    found = {}
    for name in SHAPES:
        best = best_peer(seconds, name, threads)
        if best and (name, threads, ours) in seconds:
            found[name] = best[1] / seconds[name, threads, ours]
    return found


def of_peak(report, contender, threads):
    """By shape, the fraction of the FMA peak of that moment (medians both)."""
    seconds = times(report)
    peaks = {row["shape"]: row["float32"]["median"] for row in report["machine"] if row["threads"] == threads}
    return {
        name: SHAPES[name].operations / seconds[name, threads, contender] / 1e9 / peak
        for name, peak in peaks.items()
        if (name, threads, contender) in seconds
    }


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def every(what, found, least, unit="x"):
    """Every shape reaches so much."""
    target = Target(what, f"each >= {least:g}", unit=unit, shapes=len(found))
    if found:
        target.worst = min(found, key=found.get)
        target.figure = found[target.worst]
        target.met = target.figure >= least
    return target


def mean(what, found, least):
    """The geometric mean over the shapes reaches so much."""
    target = Target(what, f"mean >= {least:g}", shapes=len(found))
    if found:
        target.figure = geometric_mean(found.values())
        target.met = target.figure >= least
        target.worst = min(found, key=found.get)
    return target


def at_most(what, figure, most, unit):
    return Target(what, f"<= {most:g} {unit}", figure, unit, None if figure is None else figure <= most)


def counted(number):
    return f"{number} thread{'s' if number > 1 else ''}"


def evaluate(report):
    """All rows, as dictionaries; where whole models were measured, nothing else was."""
    if report.get("models"):
        return [dataclasses.asdict(row) for row in model_rows(report)]
    seconds, rows = times(report), []
    for threads in (1, 2):
        found, what = against_best(seconds, "crate", threads), f"crate / best peer, {counted(threads)}"
        rows += [every(what, found, 0.97), mean(what, found, 1.10)]
    found = {name: value for name, value in of_peak(report, "crate", 1).items() if name in AT_PEAK}
    rows.append(every("crate / FMA peak, 1 thread", found, 0.94, ""))
    for threads, least in ((1, 1.35), (2, 1.6)):
        found, what = ratios(seconds, "tensorflow", "op", threads), f"op / TF, {counted(threads)}"
        rows += [every(what, found, 1.05), mean(what, found, least)]
    found = ratios(seconds, "tensorflow", "op", 2, DILATED)
    rows.append(every("op / TF, dilated, 2 threads", found, 1.5))
    for ours in ("crate", "op"):
        both = [(name, seconds.get((name, 1, ours)), seconds.get((name, 2, ours))) for name in SHAPES]
        found = {name: one / two for name, one, two in both if one and two and one > LONG}
        rows.append(every(f"{ours}, 2 threads / 1 (over 1 ms)", found, 1.85))
    rows += training_rows(report)
    rows += dtype_rows(report)
    return [dataclasses.asdict(row) for row in [*rows, *call_rows(report)]]


def least_of(model):
    return MODELS.get(model, 1.0)


def model_rows(report):
    """The worst of every model's batches and numbers of threads; where bits differ, speed is worth nothing."""
    rows = report["models"]
    seconds = {
        (row["contender"], row["model"], row["batch"], row["threads"]): row["seconds"]
        for row in rows
        if "seconds" in row and not row.get("differing_bits")
    }
    for model in dict.fromkeys(row["model"] for row in rows):
        pairs = {key: seconds.get(("tensorflow", *key[1:])) for key in seconds if key[:2] == ("op", model)}
        found = {f"batch {k[2]}, {counted(k[3])}": theirs / seconds[k] for k, theirs in pairs.items() if theirs}
        target = every(f"{model}, rewritten / as it is", found, least_of(model))
        if any(row["model"] == model and row.get("differing_bits") for row in rows):
            target.met, target.note = False, "bits differ"
        yield target


def training_rows(report):
    for threads in sorted({row["threads"] for row in report["layers"] if row["dtype"] == "training"}) or [1]:
        found = ratios(times(report, "training"), "tensorflow", "op", threads)
        what = f"forward and gradients, op / TF, {counted(threads)}"
        yield from (every(what, found, 1.0), mean(what, found, 1.3))


def dtype_rows(report):
    threads_measured = sorted({row["threads"] for row in report["layers"] if row["dtype"] in DTYPES}) or [1]
    for dtype in ("float64", "float16"):
        for threads in threads_measured:
            found = ratios(times(report, dtype), "tensorflow", "op", threads)
            what = f"{dtype}, op / TF, {counted(threads)}"
            yield from (every(what, found, 1.2), mean(what, found, 1.5))
    for threads in threads_measured:
        found = ratios(times(report, "bfloat16"), "tensorflow", "op", threads)
        target = every(f"bfloat16, op / TF, {counted(threads)}", found, 1.0)
        if "avx512_bf16" not in report["processor"]["features"]:
            target.met, target.note = None, "not here"
        yield target


def call_rows(report):
    eager = report.get("eager", {}).get("seconds", {})
    target, added = Target("eager tiny, sepconv / TF", ">= 1.5"), None
    if eager:
        target.figure = eager["tensorflow"] / eager["sepconv"]
        target.met = target.figure >= 1.5
        added = 1e6 * (eager["sepconv"] - eager["bare"])
    yield target
    yield at_most("the Python function adds", added, 20, "us")
    firsts = {row["shape"]: 1e3 * row["sepconv"]["first"] for row in report.get("first_calls", []) if "sepconv" in row}
    target = at_most("first call, median", statistics.median(firsts.values()) if firsts else None, 100, "ms")
    target.worst, target.shapes = max(firsts, key=firsts.get) if firsts else "", len(firsts)
    yield target
