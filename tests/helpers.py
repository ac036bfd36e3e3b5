"""What several test files share: making tensors, comparing bits, counting the op's calls."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import sepconv
import tensorflow as tf

# Kept from before any test may replace it.
tensorflows = tf.nn.separable_conv2d

HERE = pathlib.Path(__file__).parent
# What TensorFlow answers, by case; and where sepconv deliberately differs (crates/sepconv-conformance lists it).
CASES = {case["name"]: case for case in json.loads((HERE / "semantics.json").read_text())}
REGISTER = {row["case"]: row for row in json.loads((HERE / "deviations.json").read_text())}

# batch, height, width, in_channels, channel_multiplier, kernel, stride, rate, out_channels
SHAPES = {
    "mbv1_1": (1, 112, 112, 32, 1, 3, 1, 1, 64),
    "mbv1_2s2": (1, 112, 112, 64, 1, 3, 2, 1, 128),
    "mbv1_3": (1, 56, 56, 128, 1, 3, 1, 1, 128),
    "mbv1_6s2": (1, 28, 28, 256, 1, 3, 2, 1, 512),
    "mbv1_7": (1, 14, 14, 512, 1, 3, 1, 1, 512),
    "mbv1_13": (1, 7, 7, 1024, 1, 3, 1, 1, 1024),
    "xcep_mid": (1, 19, 19, 728, 1, 3, 1, 1, 728),
    "xcep_b2": (1, 147, 147, 64, 1, 3, 1, 1, 128),
    "aspp_r2": (1, 33, 33, 256, 1, 3, 1, 2, 256),
    "aspp_r12": (1, 33, 33, 256, 1, 3, 1, 12, 256),
    "b8_mbv1_7": (8, 14, 14, 512, 1, 3, 1, 1, 512),
    "b32_cifar": (32, 32, 32, 64, 1, 3, 1, 1, 64),
    "m4": (1, 56, 56, 32, 4, 3, 1, 1, 64),
    "k5": (1, 28, 28, 120, 1, 5, 1, 1, 40),
    "tiny": (1, 8, 8, 16, 1, 3, 1, 1, 16),
}


def arrays_of(name: str, seed=0):
    """Seeded input and filters of one of the 15 shapes, and its attributes."""
    batch, height, width, channels, multiplier, kernel, stride, rate, columns = SHAPES[name]
    rng = np.random.default_rng(seed)
    image, k = (batch, height, width, channels), channels * multiplier
    shapes = image, (kernel, kernel, channels, multiplier), (1, 1, k, columns)
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    return arrays, {"strides": [1, stride, stride, 1], "padding": "SAME", "dilations": [rate, rate]}


def attributes_of(case) -> dict:
    """A semantics case's attributes by the names of `separable_conv2d`."""
    return {"dilations": case["rate"], **{name: case[name] for name in ("strides", "padding", "data_format")}}


def ones(case):
    """Tensors of a semantics case, all ones, and its attributes."""
    shapes = [case[name] for name in ("input", "depthwise_filter", "pointwise_filter")]
    return [tf.ones(shape, case["dtype"]) for shape in shapes], attributes_of(case)


def bits(tensor) -> np.ndarray:
    """As integers, every NaN alike."""
    array = tensor.numpy() if tf.is_tensor(tensor) else np.asarray(tensor)
    integers = array.view(f"u{array.dtype.itemsize}").copy()
    integers[np.isnan(array)] = 0xFFFF
    return integers


def same(a, b) -> bool:
    return np.shape(a) == np.shape(b) and np.array_equal(bits(a), bits(b))


def kernel_calls() -> int:
    return sepconv.stats()["kernel_calls"]


def in_fresh_process(code: str, *arguments: str) -> str:
    """Runs Python code with this process's mode; gives what it printed."""
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout
