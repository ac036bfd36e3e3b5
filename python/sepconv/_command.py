"""What the package's commands and examples share: bad input, their options' types, and paths as shown."""

import argparse
from pathlib import Path


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def shown(path):
    """The path as a reader in this folder would type it."""
    path, here = Path(path).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def one_line(error) -> str:
    """The first line that says something of what a library raised; some raise pages."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__).rstrip(":")
