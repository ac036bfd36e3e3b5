"""sepconv beside its peers on this machine: times, ratios, and which of the targets are met.

Exit status: 0 it ran, whatever was met (with --strict: 0 all targets met, 1 some missed), 2 it could not run.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmark import report as reporting
from benchmark import targets
from benchmark.contender import KINDS, WORKER, Failed
from benchmark.measuring import Measuring
from benchmark.shapes import INPUTS, ROOT, SHAPES

PARTS = ("dtypes", "eager", "first", "machine", "networks", "training")
PACKAGES = ("tensorflow-cpu", "ai-edge-litert", "onnxruntime", "openvino", "numpy")
MOST_THREADS, MOST_BATCH, MOST_SECONDS, MOST_ROUNDS, MOST_LINKS = 1024, 256, 60, 1000, 1000


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


def names_from(allowed):
    def chosen(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(allowed)}")
        return [name for name in allowed if name in names]

    return chosen


def whole(most):
    def number(text):
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to {most}")
        return int(text)

    return number


def counts(most):
    def numbers(text):
        return sorted({whole(most)(part) for part in text.split(",")})

    return numbers


def duration(text):
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= MOST_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to {MOST_SECONDS}")
    return value


def arguments(given=None):
    lines = [f"  {kind.name:15}{kind.what}" for kind in KINDS.values()]
    epilog = "\n".join(["contenders:", *lines, "", "shapes:", f"  {', '.join(SHAPES)}"])
    parser = argparse.ArgumentParser(
        prog="ci/bench",
        description=__doc__,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", type=names_from(SHAPES), default=list(SHAPES), metavar="A,B", help="which layers (default all)")
    add("--contenders", type=names_from(KINDS), default=list(KINDS), metavar="A,B", help="who takes part (default all)")
    add("--threads", type=counts(MOST_THREADS), default=[1, 2], metavar="N,M", help="numbers of threads (default 1,2)")
    add("--seconds", type=duration, default=0.04, help="of each contender in each round (default %(default)s)")
    add("--rounds", type=whole(MOST_ROUNDS), default=7, help="of all contenders, per shape (default %(default)s)")
    add("--pause", type=duration, default=0.02, help="seconds between contenders (default %(default)s)")
    add("--links", type=whole(MOST_LINKS), default=32, help="layers in a graph that is measured (default %(default)s)")
    add(
        "--filters",
        choices=("constant", "variable"),
        default="constant",
        help="what filters are in graphs (default %(default)s, as in a frozen model)",
    )
    add(
        "--leave-out",
        type=names_from(PARTS),
        default=[],
        metavar="A,B",
        help=f"what not to measure: {', '.join(PARTS)} (default nothing)",
    )
    add(
        "--models",
        type=names_from(INPUTS),
        nargs="?",
        const=list(INPUTS),
        metavar="A,B",
        help=f"instead of layers: whole models of Keras, as they are and rewritten: {', '.join(INPUTS)} (default all)",
    )
    add("--batches", type=counts(MOST_BATCH), default=[1, 8], metavar="N,M", help="of --models (default 1,8)")
    add(
        "--output", type=Path, default=ROOT / "target/bench", metavar="DIR", help="folder of report.json and report.png"
    )
    add("--strict", action="store_true", help="exit status 1 when a target is missed")
    options = parser.parse_args(given)
    if not options.shapes or not options.contenders or options.models == []:
        parser.error("--shapes, --contenders and --models must name at least one each")
    return options


def check(options):
    """Says before any work what cannot be used."""
    if options.models:
        options.contenders = [name for name in options.contenders if name in ("op", "tensorflow")]
        if len(options.contenders) < 2:
            raise BadInput("--models: measures op and tensorflow, and --contenders leaves one out")
    with_machine = "machine" not in options.leave_out and not options.models
    with_worker = with_machine or {"crate", "crate-packing"} & set(options.contenders)
    if with_worker and not WORKER.exists():
        raise BadInput(f"{WORKER.relative_to(ROOT)}: not built, run ci/bench rather than this module")
    for name in options.contenders:
        needs = KINDS[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            raise BadInput(f"--contenders {name}: no module {needs}, run ci/bench rather than this module")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {options.output}: {error.strerror}") from None
    if not os.access(options.output, os.W_OK):
        raise BadInput(f"--output {options.output}: not writable")


def processor():
    """Its name and what it can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = [word for word in facts.get("flags", "").split() if word.startswith(("avx", "fma", "amx"))]
    return {"name": facts.get("model name", platform.processor()), "cores": os.cpu_count(), "features": features}


def versions():
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure(options, console):
    """The report, of a run behind a progress bar."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    folder = tempfile.mkdtemp(prefix="run-", dir=options.output)
    try:
        with (
            # No refreshing thread: it would take time from what is measured.
            Progress(*columns, console=console, auto_refresh=False, transient=True) as progress,
            Measuring(options, folder, lambda *step: tick(*step)) as measuring,
        ):
            task = progress.add_task("", total=measuring.steps())

            def tick(what, steps):
                if steps == 0 and not console.is_terminal:
                    print(f"ci/bench: {what}", file=sys.stderr, flush=True)
                progress.update(task, description=f"{what:34}", advance=steps, refresh=console.is_terminal)

            measured = measuring.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "took_seconds": round(time.monotonic() - begun),
        "load_before": load,
        "processor": processor(),
        "versions": versions(),
        "settings": settings,
    }
    report = about | measured
    return report | {"targets": targets.evaluate(report)}


def run(options, console):
    check(options)
    report = measure(options, console)
    reporting.show(report, console)
    paths = reporting.write(report, options.output)
    machine, load = report["processor"], report["load_before"]
    console.print(f"{machine['name']}, {machine['cores']} cores, load before {load:.1f}; {report['took_seconds']} s")
    console.print(f"wrote {' and '.join(os.path.relpath(path) for path in paths)}", soft_wrap=True, markup=False)
    missed = any(row["met"] is False for row in report["targets"])
    return 1 if missed and options.strict else 0


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that processes and files are cleared away
    try:
        return run(options, Console(highlight=False))
    except (BadInput, Failed) as error:
        print(f"ci/bench: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ci/bench: stopped, nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
