"""Replaces the separable convolutions of a model, and the 1x1 ones with what stands behind them, by sepconv's op,
wherever that changes no bit of what it computes."""

import argparse
import pathlib

from sepconv import _check, _model_command, _rewriting
from sepconv._command import BadInput, natural

HELP = "put sepconv's op into a SavedModel or a frozen graph, with the same bits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    _model_command.add_model_arguments(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="then run both models, each in a fresh process, and compare the bits of all signatures that random "
        "numbers or the arrays of --inputs fit; the exit status is 1 if any differ (default: run neither)",
    )
    parser.add_argument(
        "--inputs",
        type=pathlib.Path,
        metavar="NPZ",
        help="an npz file with an array for each input, by its name or SIGNATURE/NAME, for --check, which it implies "
        "(default: random numbers; 1 and 2 where a batch is unknown, 64 for other unknown extents)",
    )
    parser.add_argument(
        "--seed",
        type=natural,
        default=0,
        metavar="N",
        help="seed of --check's random numbers, a whole number of 0 or more (default: %(default)s)",
    )


def run(arguments) -> int:
    checked = arguments.check or arguments.inputs is not None
    if checked and arguments.input.exists() and not (arguments.input.is_file() or arguments.input.is_dir()):
        raise BadInput(f"--check: {arguments.input} can be read only once, and would be run too: give a file")
    if arguments.inputs is not None:
        given = _check.arrays_of(arguments.inputs)
        if arguments.input.exists():
            _check.check_names(arguments.inputs, given, arguments.input)
    _model_command.prepare(arguments)
    report, outputs = _model_command.transform(_rewriting.rewrite, arguments), None
    try:
        if checked:
            with _model_command.waiting("running both models"):
                outputs = _check.check(arguments.input, arguments.output, arguments.inputs, arguments.seed)
    except KeyboardInterrupt as interrupt:
        interrupt.args = (f"{arguments.output} is written, but was not checked",)
        raise
    finally:
        _model_command.show(report, arguments, outputs)
    return int(any(output.same is False for output in outputs or ()))
