"""What the examples share: bad input, their options' types, paths as shown, and the colours of their plots."""

import argparse
import os
from pathlib import Path

TENSORFLOW_COLOR, SEPCONV_COLOR = "#c97b2d", "#1f5fa8"


class BadInput(Exception):
    """What the user gave cannot be used; the message is one line."""


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def writable_folder(path):
    """Makes the folder for the pictures before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise BadInput(f"--output {path}: not writable")


def shown(path):
    """The path as a reader in this folder would type it."""
    path, here = Path(path).resolve(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
