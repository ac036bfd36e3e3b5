"""`python -m sepconv COMMAND`: what the package does on the command line.

Exit status: 0 it went well, 1 something given cannot be used, 130 it was interrupted, 143 terminated; what went wrong
stands in one line on the standard error.
"""

import argparse
import os
import signal
import sys

import tensorflow as tf

from sepconv import __version__, _inspect, _restore_command, _rewrite_command
from sepconv._command import BadInput, Terminated, status_of

COMMANDS = {"inspect": _inspect, "rewrite": _rewrite_command, "restore": _restore_command}


class Parser(argparse.ArgumentParser):
    """Refuses like everything else here: in one line."""

    def error(self, message):
        raise BadInput(message)


def terminate(*_):
    raise Terminated


def parser() -> argparse.ArgumentParser:
    main = Parser(prog="python -m sepconv", description="A command's own --help says more.")
    main.add_argument("--version", action="version", version=f"sepconv {__version__}, TensorFlow {tf.__version__}")
    commands = main.add_subparsers(metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return main


def main(arguments: list[str] | None = None) -> int:
    def run():
        options = parser().parse_args(arguments)
        return options.run(options)

    try:
        return status_of("sepconv", run)
    except BrokenPipeError:  # a pager that was left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
