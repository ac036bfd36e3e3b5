"""What TensorFlow answers, odd and bad input included: every row, eager and in a graph, for the op.

The expected answer follows from TensorFlow's own four answers by the design's rules ("Where TensorFlow disagrees with
itself").
"""

import json
import pathlib

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN
from helpers import same, tensorflows

CASES = json.loads((pathlib.Path(__file__).parent / "semantics.json").read_text())
# Rule 4: oneDNN's answers to these are accidents.
ALWAYS_REFUSED = {"rank5_input", "explicit_pads_batch"}
REFUSALS = tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, ValueError, TypeError
ARGUMENTS = ("input", "filter", "strides", "padding", "rate", "dilations", "data_format", "float16")


def expected_shape(case):
    """The shape to compute, or None where to refuse."""
    answers = case["tensorflow"]
    computed = [answers[mode].get("shape") for mode in ("eager, oneDNN off", "eager, oneDNN on")]
    if case["name"] in ALWAYS_REFUSED:
        return None
    return computed[0] or computed[1]


def arguments(case):
    rng = np.random.default_rng(7)
    dtype = tf.as_dtype(case["dtype"])
    tensors = [
        tf.cast(rng.standard_normal(case[name]), dtype) for name in ("input", "depthwise_filter", "pointwise_filter")
    ]
    return tensors, {
        "strides": case["strides"],
        "padding": case["padding"],
        "data_format": case["data_format"],
        "dilations": case["rate"],
    }


def in_graph(function, tensors, attributes):
    return tf.function(lambda *tensors: function(*tensors, **attributes))(*tensors)


def eagerly(function, tensors, attributes):
    return function(*tensors, **attributes)


@pytest.mark.parametrize("run", [eagerly, in_graph])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case, run):
    tensors, attributes = arguments(case)
    shape = expected_shape(case)
    context = "eager" if run is eagerly else "graph"
    tensorflow = [case["tensorflow"][f"{context}, oneDNN {mode}"] for mode in ("off", "on")]
    try:
        result = run(sepconv.separable_conv2d, tensors, attributes)
    except REFUSALS as error:
        # While tracing, refusing what TensorFlow's own shape function refuses is as good.
        assert shape is None or (run is in_graph and all("error" in answer for answer in tensorflow)), error
        classes = {answer["error"] for answer in tensorflow if "error" in answer}
        assert type(error).__name__ in classes | {"InvalidArgumentError" if run is eagerly else "ValueError"}
        assert any(word in str(error) for word in ARGUMENTS), error
        return
    assert shape is not None, f"computed {result.shape}, should have refused"
    assert result.shape == shape
    assert result.dtype.name == case["dtype"]
    # Where TensorFlow gives this shape in this mode, its eager bits are ours.
    if case["tensorflow"][f"eager, oneDNN {'on' if ONEDNN else 'off'}"].get("shape") == shape:
        assert same(result, tensorflows(*tensors, **attributes))


BIG = [2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -(2**31), -(2**63)]


@pytest.mark.parametrize("run", [eagerly, in_graph])
@pytest.mark.parametrize("value", BIG)
@pytest.mark.parametrize("argument", ["strides", "dilations", "padding"])
def test_numbers_near_the_limits(argument, value, run):
    """An error or a result, never an abort nor a huge allocation."""
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    attributes = {"strides": [1, 1, 1, 1], "padding": "VALID" if argument == "dilations" else "SAME"}
    attributes[argument] = {
        "strides": [1, value, value, 1],
        "dilations": [value, value],
        "padding": [[0, 0], [value, value], [0, 0], [0, 0]],
    }[argument]
    if argument == "strides" and value == 2**31 - 1:
        assert run(sepconv.separable_conv2d, tensors, attributes).shape == [1, 1, 1, 3]
        return
    with pytest.raises((*REFUSALS, tf.errors.ResourceExhaustedError)) as refused:
        run(sepconv.separable_conv2d, tensors, attributes)
    assert argument in str(refused.value) or "rate" in str(refused.value) or "memory" in str(refused.value).lower()


@pytest.mark.parametrize(
    "numerics", ["", "v1", "v2 x", "tensor flow", "v1 depthwise(fused, inside) pointwise(fused, 3) subnormals(kept)", 5]
)
def test_numerics_that_do_not_fit(numerics):
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    with pytest.raises(REFUSALS, match="numerics"):
        sepconv.separable_conv2d(*tensors, [1, 1, 1, 1], "SAME", numerics=numerics)
