"""What several test files share: making tensors, comparing bits, counting the op's calls."""

import json
import pathlib

import numpy as np
import sepconv
import tensorflow as tf

# Kept from before any test may replace it.
tensorflows = tf.nn.separable_conv2d

HERE = pathlib.Path(__file__).parent
# What TensorFlow answers, by case; and where sepconv deliberately differs (crates/sepconv-conformance lists it).
CASES = {case["name"]: case for case in json.loads((HERE / "semantics.json").read_text())}
REGISTER = {row["case"]: row for row in json.loads((HERE / "deviations.json").read_text())}

# The named layers, of which the benchmarks have the list too.
SHAPES = {
    shape["name"]: shape for shape in json.loads((HERE.parent / "crates/sepconv/benches/shapes.json").read_text())
}


def arrays_of(name: str, seed=0):
    """Seeded input and filters of one of the 15 shapes, and its attributes."""
    shape, rng = SHAPES[name], np.random.default_rng(seed)
    image, multiplier, kernel = shape["input"], shape["channel_multiplier"], shape["kernel"]
    k = image[3] * multiplier
    shapes = image, (kernel, kernel, image[3], multiplier), (1, 1, k, shape["out_channels"])
    arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    stride, rate = shape["stride"], shape["rate"]
    return arrays, {"strides": [1, stride, stride, 1], "padding": "SAME", "dilations": [rate, rate]}


def small(batch=2, rng=None):
    """Input and filters of a call that every kernel takes, and its attributes; seeded, unless `rng` is given."""
    rng = rng or np.random.default_rng(3)
    shapes = [batch, 9, 8, 6], [3, 3, 6, 2], [1, 1, 12, 16]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    return arrays, {"strides": [1, 1, 1, 1], "padding": "SAME"}


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
    return np.where(np.isnan(array), 0xFFFF, array.view(f"u{array.dtype.itemsize}"))


def same(a, b) -> bool:
    return np.shape(a) == np.shape(b) and np.array_equal(bits(a), bits(b))


def kernel_calls() -> int:
    return sepconv.stats()["kernel_calls"]


def gradient_calls() -> int:
    return sepconv.stats()["gradient_calls"]
