"""What the commands that write a model share: their arguments, a bar for the progress, the report on the terminal."""

import argparse
import contextlib
import dataclasses
import itertools
import json
import pathlib
import sys

import tensorflow as tf

from sepconv._command import check_place, positive, writing

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
    from rich.text import Text
except ImportError:  # the same without colours, bars and borders
    Console = None


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "input",
        type=pathlib.Path,
        metavar="IN",
        help="the model: a SavedModel's folder, or a file with a GraphDef (a frozen graph; .pbtxt and .txt: as text)",
    )
    parser.add_argument(
        "output", type=pathlib.Path, metavar="OUT", help="the path of the new model, of the kind that IN is"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace OUT if it is a model already (default: refuse)"
    )
    parser.add_argument(
        "--json",
        metavar="PATH",
        help="a file for the report as JSON, beside the table; - for the standard output, without the table "
        "(default: the table alone)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=0,
        metavar="N",
        help="how many threads TensorFlow computes an operation on, which its bits may depend on: as many as where the "
        "model will run (default: one for each processor)",
    )


def prepare(arguments) -> None:
    """Before any work is done."""
    if arguments.json not in (None, "-"):
        inputs = getattr(arguments, "inputs", None)
        check_place("--json", arguments.json, [arguments.input, arguments.output, *filter(None, [inputs])])
    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)


def transform(function, arguments):
    """Calls `sepconv.rewrite` or `restore`, with a bar; gives the report."""
    with _bar() as progress:
        return function(arguments.input, arguments.output, overwrite=arguments.overwrite, progress=progress).report


@contextlib.contextmanager
def _bar():
    if Console is None or not sys.stderr.isatty():
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("layers", total=None)
        yield lambda done, total, node: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def waiting(what: str):
    if Console is None or not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def show(report, arguments, check=None) -> None:
    """Prints the report and what a check found, and writes the JSON that was asked for."""
    content = report.as_dict()
    if check is not None:
        content["check"] = [dataclasses.asdict(output) for output in check]
    text = json.dumps(content, indent=2) + "\n"
    if arguments.json == "-":
        sys.stdout.write(text)
        return
    if arguments.json:
        with writing("--json", arguments.json):
            pathlib.Path(arguments.json).write_text(text)
    _print_table(report)
    for output in check or ():
        if output.same is None:
            print(f"check: {output.name}: not run: {output.reason}")
            continue
        verdict = "equal" if output.same else "DIFFERENT"
        print(f"check: {output.name}: {output.equal} of {output.elements} elements have the same bits: {verdict}")
    print(f"{arguments.output}: {report.summary()}")


def _print_table(report) -> None:
    if Console is None:
        print(report)
        return
    console = Console(width=None if sys.stdout.isatty() else 160)
    for function, rows in itertools.groupby(report.rows(), key=lambda row: row[1]):
        console.print(Text(f"in function {function}:" if function else "in the graph:"))
        # What belongs to a layer stands below its name: beside it, nothing would fit into 80 columns.
        table = Table.grid(padding=(0, 2))
        table.add_column()
        table.add_column(overflow="fold")
        for node, _, what, replaced, reason in rows:
            done = Text("replaced", "green") if replaced else Text("left", "yellow")
            table.add_row(done, Text(node, "bold"))
            for line in filter(None, [what, reason]):
                table.add_row("", Text(line))
        console.print(table)
