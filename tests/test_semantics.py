"""What TensorFlow answers, odd and bad input included: every row, eager and in a graph, for the op.

The expected answer is that of the register of deviations; where it has none, TensorFlow's modes agree and so do we.
"""

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN
from helpers import CASES, REGISTER, attributes_of, kernel_calls, same, tensorflows

REFUSALS = tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, ValueError, TypeError
ARGUMENTS = ("input", "filter", "strides", "padding", "rate", "dilations", "data_format", "float16")


def expected_shape(case):
    """The shape to compute, or None where to refuse."""
    deviation = REGISTER.get(case["name"])
    answer = deviation["answer"] if deviation else case["tensorflow"]["eager, oneDNN off"]
    return answer.get("shape")


def arguments(case):
    rng = np.random.default_rng(7)
    dtype = tf.as_dtype(case["dtype"])
    names = "input", "depthwise_filter", "pointwise_filter"
    return [tf.cast(rng.standard_normal(case[name]), dtype) for name in names], attributes_of(case)


def in_graph(function, tensors, attributes):
    return tf.function(lambda *tensors: function(*tensors, **attributes))(*tensors)


def eagerly(function, tensors, attributes):
    return function(*tensors, **attributes)


@pytest.mark.parametrize("run", [eagerly, in_graph])
@pytest.mark.parametrize("name", CASES)
def test_case(name, run):
    case = CASES[name]
    tensors, attributes = arguments(case)
    shape = expected_shape(case)
    context = "eager" if run is eagerly else "graph"
    if shape is None:
        with pytest.raises(REFUSALS) as refused:
            run(sepconv.separable_conv2d, tensors, attributes)
        if name in REGISTER:
            classes = {REGISTER[name]["answer"]["error"] if run is eagerly else "ValueError"}
        else:
            classes = {case["tensorflow"][f"{context}, oneDNN {mode}"]["error"] for mode in ("off", "on")}
        assert type(refused.value).__name__ in classes
        assert any(word in str(refused.value) for word in ARGUMENTS), refused.value
        return
    result = run(sepconv.separable_conv2d, tensors, attributes)
    assert result.shape == shape
    assert result.dtype.name == case["dtype"]
    # Where TensorFlow gives this shape in this mode, its eager bits are ours.
    if case["tensorflow"][f"eager, oneDNN {'on' if ONEDNN else 'off'}"].get("shape") == shape:
        assert same(result, tensorflows(*tensors, **attributes))


# TensorFlow refuses each with a TypeError or a ValueError; iterators are made for each call.
NO_INTEGERS = {
    "strides of text": ("strides", lambda: ["1"] * 4),
    "a text of strides": ("strides", lambda: "1221"),
    "an array of strides": ("strides", lambda: np.ones(4, int)),
    "a set of strides": ("strides", lambda: {1, 2, 3, 4}),
    "an iterator of strides": ("strides", lambda: iter([1] * 4)),
    "texts of padding": ("padding", lambda: ["00", "11", "11", "00"]),
    "padding of text": ("padding", lambda: [["0", "0"], ["1", "1"], ["1", "1"], ["0", "0"]]),
    "padding of sets": ("padding", lambda: [[0, 0], {1, 2}, {1, 2}, [0, 0]]),
    "an iterator of padding": ("padding", lambda: iter([[0, 0], [1, 1], [1, 1], [0, 0]])),
    "a set of dilations": ("dilations", lambda: {2, 3}),
    "an iterator of dilations": ("dilations", lambda: iter([2, 2])),
    "bytes of dilations": ("dilations", lambda: b"\2\2"),
    "fractions of dilations": ("dilations", lambda: [2.0, 2.0]),
}


@pytest.mark.parametrize("run", [eagerly, in_graph])
@pytest.mark.parametrize("name", NO_INTEGERS)
def test_what_is_no_sequence_of_integers(name, run):
    argument, value = NO_INTEGERS[name]
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    equal = {"strides": [1] * 4, "padding": [[0, 0], [1, 1], [1, 1], [0, 0]], "dilations": [2, 2]}[argument]
    for _ in range(2):  # what an equal one is taken for is remembered, and what a refused one was
        for function in tensorflows, sepconv.separable_conv2d:
            with pytest.raises((TypeError, ValueError)):
                run(function, tensors, {"strides": [1] * 4, "padding": "SAME", argument: value()})
        run(sepconv.separable_conv2d, tensors, {"strides": [1] * 4, "padding": "SAME", argument: equal})


@pytest.mark.parametrize("refused_first", [True, False])
def test_a_refused_call_changes_no_other(refused_first, rng):
    channels = 4 + refused_first  # a shape of its own
    tensors = [tf.constant(rng.standard_normal(s), tf.float32) for s in ([1, 9, 9, channels], [3, 3, channels, 1])]
    tensors.append(tf.ones([1, 1, channels, 16]))
    attributes = {"strides": [1] * 4, "padding": "SAME", "dilations": [2, 2]}

    def refused():
        with pytest.raises(TypeError):
            sepconv.separable_conv2d(*tensors, **{**attributes, "dilations": [2.0, 2.0]})

    def taken():
        before = kernel_calls()
        sepconv.separable_conv2d(*tensors, **attributes)
        assert kernel_calls() - before == (sepconv.explain(*tensors, **attributes).path == "op")

    for call in (refused, taken) if refused_first else (taken, refused):
        call()


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
    if argument == "padding" and value == 2**31 - 1:
        # Within the limits, but the result is enormous: left to TensorFlow's own operations, which say so.
        with pytest.raises((tf.errors.ResourceExhaustedError, tf.errors.AbortedError, tf.errors.InvalidArgumentError)):
            run(sepconv.separable_conv2d, tensors, attributes)
        return
    with pytest.raises(REFUSALS) as refused:
        run(sepconv.separable_conv2d, tensors, attributes)
    assert argument in str(refused.value) or "rate" in str(refused.value), refused.value


ENORMOUS = {
    "padding": {"padding": [[0, 0], [2**31 - 1] * 2, [2**31 - 1] * 2, [0, 0]]},
    "strided padding": {"padding": [[0, 0], [2**31 - 1] * 2, [0, 0], [0, 0]], "strides": [1, 3, 3, 1]},
    "rate and padding": {"padding": [[0, 0], [2**31 - 1] * 2, [2**31 - 1] * 2, [0, 0]], "dilations": [2**30] * 2},
}


@pytest.mark.parametrize("run", [eagerly, in_graph])
@pytest.mark.parametrize("name", ENORMOUS)
def test_an_enormous_result_is_refused_before_memory_is_taken(name, run):
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    attributes = {"strides": [1, 1, 1, 1], "numerics": "reproducible", **ENORMOUS[name]}
    with pytest.raises((tf.errors.ResourceExhaustedError, *REFUSALS)) as refused:
        run(sepconv.separable_conv2d, tensors, attributes)
    assert any(word in str(refused.value) for word in ("OOM", "too large", "memory")), refused.value


@pytest.mark.parametrize("run", [eagerly, in_graph])
def test_the_largest_numbers_that_give_a_small_result(run):
    """Explicit zeros and strides that cancel: computed, and nothing in between is as large as the numbers."""
    most = 2**31 - 1
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    padding = [[0, 0], [0, most], [0, most], [0, 0]]
    attributes = {"strides": [1, most, most, 1], "padding": padding, "numerics": "reproducible"}
    result = run(sepconv.separable_conv2d, tensors, attributes)
    assert np.array_equal(result[0, :, :, 0], [[18, 0], [0, 0]])


def through_the_op(*tensors):
    numerics = sepconv.explain(*SMALL, [1, 1, 1, 1], "SAME", numerics="reproducible").numerics
    op = tf.load_op_library(sepconv.library_path()).sepconv_separable_conv2d
    return op(*tensors, numerics=numerics)


SMALL = [tf.TensorSpec(shape) for shape in ([1, 5, 5, 2], [3, 3, 2, 1], [1, 1, 2, 3])]
MALFORMED = [
    *([], [0], [0, 1], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 3], [0, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]),
    *([0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 1, 1], [0, 2**31, 1, 1, 1, 0], [0, 1, 1, 1, 2**62, 0], [0] * 30),
    *([0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2, 0, 0, 0], [0, 1, 1, 1, 1, 2, 2**31, 0, 0, 0]),
]


@pytest.mark.parametrize("context", ["eager", "graph", "unknown shape"])
@pytest.mark.parametrize("geometry", MALFORMED, ids=str)
def test_a_malformed_geometry_is_refused(geometry, context):
    """The op as someone calls it who does not go through this package, or a damaged saved graph."""
    tensors = [tf.ones(spec.shape) for spec in SMALL]
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match="geometry|strides|rate|padding") as refused:
        if context == "eager":
            through_the_op(*tensors, tf.zeros(geometry, tf.int32))
        elif context == "graph":
            tf.function(lambda *t: through_the_op(*t, tf.zeros(geometry, tf.int32)))(*tensors)
        else:
            unknown = tf.function(through_the_op, input_signature=[*SMALL, tf.TensorSpec(None, tf.int32)])
            unknown(*tensors, tf.zeros(geometry, tf.int32))
    # While tracing TensorFlow makes a ValueError of what the shape function refuses.
    assert type(refused.value) is (ValueError if context == "graph" else tf.errors.InvalidArgumentError)


BAD_SHAPES = {
    "rank of input": ([5, 5, 2], [3, 3, 2, 1], [1, 1, 2, 3]),
    "rank of depthwise_filter": ([1, 5, 5, 2], [3, 3, 2], [1, 1, 2, 3]),
    "rank of pointwise_filter": ([1, 5, 5, 2], [3, 3, 2, 1], [2, 3]),
    "channels": ([1, 5, 5, 3], [3, 3, 2, 1], [1, 1, 2, 3]),
    "k": ([1, 5, 5, 2], [3, 3, 2, 2], [1, 1, 2, 3]),
    "2x2 pointwise": ([1, 5, 5, 2], [3, 3, 2, 1], [2, 2, 2, 3]),
    "no channels": ([1, 5, 5, 0], [3, 3, 0, 1], [1, 1, 0, 3]),
    "no multiplier": ([1, 5, 5, 2], [3, 3, 2, 0], [1, 1, 0, 3]),
}


@pytest.mark.parametrize("context", ["eager", "graph", "unknown shape"])
@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_do_not_fit_are_refused_by_the_op(name, context):
    tensors = [tf.ones(shape) for shape in BAD_SHAPES[name]]
    geometry = tf.zeros([0, 1, 1, 1, 1, 0], tf.int32)
    known = [tf.TensorSpec(tensor.shape) for tensor in tensors]
    specs = known if context == "graph" else [tf.TensorSpec(None)] * 3
    words = "input|depthwise_filter|pointwise_filter"
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError), match=words) as refused:
        if context == "eager":
            through_the_op(*tensors, geometry)
        else:
            tf.function(lambda *t: through_the_op(*t, geometry), input_signature=specs)(*tensors)
    assert type(refused.value) is (ValueError if context == "graph" else tf.errors.InvalidArgumentError)


@pytest.mark.parametrize(
    "numerics", ["", "v1", "v2 x", "tensor flow", "v1 depthwise(fused, inside) pointwise(fused, 3) subnormals(kept)", 5]
)
def test_numerics_that_do_not_fit(numerics):
    tensors = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    with pytest.raises(REFUSALS, match="numerics"):
        sepconv.separable_conv2d(*tensors, [1, 1, 1, 1], "SAME", numerics=numerics)
