"""Puts TensorFlow's own operations in the place of sepconv's op, in any model that holds it: for exporters."""

import argparse

from sepconv import _command, _rewriting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _command.add_model_arguments(parser)


def run(arguments) -> int:
    _command.prepare(arguments)
    _command.show(_command.transform(_rewriting.restore, arguments), arguments)
    return 0
