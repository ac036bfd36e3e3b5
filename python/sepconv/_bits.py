"""Bits of arrays, compared as integers."""

import numpy as np


def bits(array) -> np.ndarray:
    """Floating-point numbers as integers, every NaN alike; anything else as it is."""
    array = np.asarray(array)
    if array.dtype.kind not in "fV":  # V is bfloat16's
        return array
    unsigned = array.view(f"u{array.dtype.itemsize}")
    return np.where(np.isnan(array), np.iinfo(unsigned.dtype).max, unsigned)


def equal(a, b) -> int:
    """How many elements of two arrays of one shape have the same bits."""
    return int(np.count_nonzero(bits(a) == bits(b)))
