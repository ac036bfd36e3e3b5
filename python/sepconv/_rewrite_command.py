"""Replaces the separable convolutions of a model by sepconv's op, wherever that changes no bit of what it computes."""

import argparse
import pathlib

from sepconv import _command, _rewriting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _command.add_model_arguments(parser)
    parser.add_argument(
        "--check",
        action="store_true",
        help="run both models, each in a fresh process, and compare the bits; 1 if any differ",
    )
    parser.add_argument(
        "--inputs", type=pathlib.Path, metavar="NPZ", help="arrays for --check, by the inputs' names (default: random)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: %(default)s)")


def run(arguments) -> int:
    _command.use_threads(arguments.threads)
    report = _command.transform(_rewriting.rewrite, arguments)
    if not arguments.check:
        _command.show(report, arguments)
        return 0
    from sepconv import _check

    with _command.waiting("running both models"):
        outputs = _check.check(arguments.input, arguments.output, arguments.inputs, arguments.seed)
    _command.show(report, arguments, check=outputs)
    return int(not all(output.same for output in outputs))
