"""What the examples share: a folder for their pictures, and the colours of their plots."""

import os

from sepconv._command import BadInput as BadInput
from sepconv._command import positive as positive
from sepconv._command import shown as shown
from sepconv._command import status_of as status_of

TENSORFLOW_COLOR, SEPCONV_COLOR = "#c97b2d", "#1f5fa8"


def writable_folder(path):
    """Makes the folder for the pictures before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"--output {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK):
        raise BadInput(f"--output {path}: not writable")
