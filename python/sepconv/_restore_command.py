"""Puts TensorFlow's own operations in the place of sepconv's op, in any model that holds it: for exporters."""

import argparse

from sepconv import _model_command, _rewriting

HELP = "put TensorFlow's own operations back in the place of sepconv's op"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = __doc__
    _model_command.add_model_arguments(parser)


def run(arguments) -> int:
    _model_command.prepare(arguments)
    _model_command.show(_model_command.transform(_rewriting.restore, arguments), arguments)
    return 0
