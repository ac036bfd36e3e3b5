"""What the package's commands and examples share: bad input, how they end, types of options, files to write, paths as
shown."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an interrupt: whoever cleans up after one does so after this too."""


def status_of(program: str, run, refused: int = 1) -> int:
    """The exit status that `run` gives, or that of its early end, which is said in one line on the standard error.

    Args:
        program: Its name.
        run: Called without arguments. An interrupt that it raises may say what became of the work.
        refused: The status after `BadInput`.
    """
    try:
        return run()
    except BadInput as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return refused
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, Terminated)
        end = "terminated" if terminated else "interrupted"
        print(f"{program}: {': '.join([end, *map(str, interrupt.args)])}", file=sys.stderr)
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def natural(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def check_place(option, path, given=()) -> None:
    """Before any work is done: whether an option's file can be written, and is not one of these that are given, nor
    lies within one."""
    path = Path(path)
    for other in given:
        if path.resolve().is_relative_to(Path(other).resolve()):
            raise BadInput(f"{option} {path}: would be written over {other}, or into it")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"{option} {path}: cannot be written")


@contextlib.contextmanager
def writing(option, path):
    """While an option's file is written, which may fail all the same."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{option} {path}: cannot be written: {error.strerror or error}") from error


def shown(path):
    """The path as a reader in this folder would type it."""
    path, here = Path(path).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def one_line(error) -> str:
    """The first line that says something of what a library raised; some raise pages."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__).rstrip(":")
