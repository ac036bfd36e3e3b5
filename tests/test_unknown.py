"""The same bits and static shapes where extents, ranks, filters or rates are unknown until the graph runs."""

import itertools

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import PROMISED
from helpers import arrays_of, kernel_calls, same, small, tensorflows

v1 = tf.compat.v1


@PROMISED
def test_a_rate_that_only_the_running_graph_knows():
    (x, d, p), attributes = small()
    function = tf.function(lambda rate: sepconv.separable_conv2d(x, d, p, **attributes, dilations=rate))
    for rate in ([1, 1], [2, 1], [3, 3]):
        assert same(function(tf.constant(rate)), tensorflows(x, d, p, **attributes, dilations=rate))
    with tf.Graph().as_default():
        explanation = sepconv.explain(x, d, p, **attributes, dilations=v1.placeholder(tf.int32, [2]))
        assert (explanation.path, explanation.exact) == ("tensorflow", False)
    with pytest.raises(ValueError, match="dilations"):
        fixed = {**attributes, "numerics": "reproducible"}
        tf.function(lambda rate: sepconv.separable_conv2d(x, d, p, **fixed, dilations=rate))(tf.constant([1, 1]))


UNKNOWN = {"batch": [0], "height": [1], "width": [2], "height and width": [1, 2], "all but channels": [0, 1, 2]}


@PROMISED
@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("name", ["mbv1_7", "tiny"])
def test_unknown_extents(name, unknown):
    """The op picks among the orders of several extents: a prediction, right where only the batch is unknown, and for
    the usual image."""
    arrays, attributes = arrays_of(name)
    shape = [None if axis in UNKNOWN[unknown] else extent for axis, extent in enumerate(arrays[0].shape)]
    spec = tf.TensorSpec(shape)
    filters = [tf.constant(array) for array in arrays[1:]]
    function = tf.function(
        lambda x: sepconv.separable_conv2d(x, *filters, **attributes), input_signature=[spec], reduce_retracing=True
    )
    before = kernel_calls()
    batches = (1, 2) if 0 in UNKNOWN[unknown] else (1,)
    results = {batch: function(tf.constant(np.concatenate([arrays[0]] * batch))) for batch in batches}
    assert kernel_calls() - before == len(batches)
    for batch, result in results.items():
        x = tf.constant(np.concatenate([arrays[0]] * batch))
        if batch == 1 or unknown == "batch":
            assert same(result, tensorflows(x, *filters, **attributes)), f"batch {batch}"
        assert same(function(x), result)
    filters = [tf.TensorSpec(filter.shape) for filter in filters]
    explanation = sepconv.explain(spec, *filters, **attributes)
    assert (explanation.path, explanation.exact) == ("op", False), explanation
    certain = {**attributes, "numerics": "tensorflow-certain"}
    explanation_of_certain = sepconv.explain(spec, *filters, **certain)
    assert (explanation_of_certain.path, explanation_of_certain.numerics) == ("tensorflow", None)
    assert sepconv.explain(*arrays, **certain).path == "op"
    # What was printed is a text like any other.
    x = tf.constant(arrays[0])
    again = sepconv.separable_conv2d(x, *arrays[1:], **attributes, numerics=explanation.numerics)
    assert same(again, tensorflows(x, *arrays[1:], **attributes))


@PROMISED
@pytest.mark.parametrize("what", ["rank", "channels", "filters", "everything"])
def test_what_is_left_to_tensorflow_while_unknown(what):
    arrays, attributes = small(batch=1)
    specs = [tf.TensorSpec(array.shape) for array in arrays]
    if what == "rank":
        specs[0] = tf.TensorSpec(None)
    if what == "channels":
        specs[0] = tf.TensorSpec([1, 9, 8, None])
    if what in ("filters", "everything"):
        specs[1:] = [tf.TensorSpec([None] * 4)] * 2
    if what == "everything":
        specs = [tf.TensorSpec(None), tf.TensorSpec([None] * 4), tf.TensorSpec([None] * 4)]
    function = tf.function(lambda *t: sepconv.separable_conv2d(*t, **attributes), input_signature=specs)
    expected = tensorflows(*arrays, **attributes)
    assert same(function(*arrays), expected)
    # Numerics that were given are never left to anyone.
    explanation = sepconv.explain(*specs, **attributes, numerics="reproducible")
    assert (explanation.path, explanation.exact) == ("op", True)
    fixed = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, **attributes, numerics="reproducible"), input_signature=specs
    )
    eager = sepconv.separable_conv2d(*arrays, **attributes, numerics="reproducible")
    assert same(fixed(*arrays), eager)


PARTIAL = [
    *([2, 9, 8, 6], [None, 9, 8, 6], [2, None, 8, 6], [2, 9, None, 6], [None, None, None, 6]),
    *([2, 9, 8, None], [None, None, None, None], None),
]
FILTERS = [
    *(([3, 3, 6, 2], [1, 1, 12, 16]), ([3, 3, 6, 2], [None] * 4), ([None] * 4, [1, 1, 12, 16])),
    *(([None] * 4, None), (None, [1, 1, 12, 16]), (None, None)),
]
ATTRIBUTES = [
    ([1, 1, 1, 1], "SAME", None),
    ([1, 2, 2, 1], "SAME", None),
    ([1, 3, 3, 1], "VALID", None),
    ([1, 1, 2, 1], "SAME", None),
    ([1, 1, 1, 1], "SAME", [2, 2]),
    ([1, 1, 1, 1], "VALID", [2, 3]),
    ([1, 2, 2, 1], "SAME", [2, 2]),
    ([1, 1, 1, 1], [[0, 0], [1, 2], [0, 3], [0, 0]], None),
    ([1, 2, 2, 1], [[0, 0], [1, 2], [0, 3], [0, 0]], [2, 1]),
]
ONES = [1, 1]


def dims(tensor):
    return [None] * 4 if tensor.shape.rank is None else tensor.shape.as_list()


@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
@pytest.mark.parametrize("strides, padding, rate", ATTRIBUTES)
def test_no_static_shape_is_lost(strides, padding, rate, numerics):
    for image, (depthwise, pointwise) in itertools.product(PARTIAL, FILTERS):
        with tf.Graph().as_default():
            tensors = [v1.placeholder(tf.float32, shape) for shape in (image, depthwise, pointwise)]
            try:
                theirs = tensorflows(*tensors, strides, padding, dilations=rate)
            except ValueError:  # TensorFlow's function must know the filters for some of this; ours need not
                theirs = None
            ours = sepconv.separable_conv2d(*tensors, strides, padding, dilations=rate, numerics=numerics)
            assert theirs is None or ours.shape.rank is not None or theirs.shape.rank is None
            known = dims(theirs) if theirs is not None else [None] * 4
            for axis, (a, b) in enumerate(zip(dims(ours), known, strict=True)):
                assert b is None or a == b, (image, depthwise, pointwise, axis, ours.shape, theirs.shape)


@PROMISED
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("rate", [[2, 2], [1, 3], ONES, "tensor"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_filters_of_unknown_shape_with_a_rate(strides, rate, data_format):
    """TensorFlow's own function cannot be built so; eager it computes."""
    arrays, _ = small()
    if rate == "tensor":
        rate = tf.constant([3, 2])
    strides = (1, *strides, 1) if data_format == "NHWC" else (1, 1, *strides)
    if data_format == "NCHW":
        arrays[0] = arrays[0].transpose(0, 3, 1, 2)
    arguments = strides, "SAME", data_format
    specs = [tf.TensorSpec([None] * 4)] * 3
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t[:3], *arguments, t[3]),
        input_signature=[*specs, tf.TensorSpec([2], tf.int32)],
    )
    # TensorFlow pads otherwise where it cannot see in time that nothing is dilated.
    if rate is not ONES:
        assert same(function(*arrays, rate), sepconv.separable_conv2d(*arrays, *arguments, rate))
    fixed = rate.numpy().tolist() if tf.is_tensor(rate) else rate
    function = tf.function(lambda *t: sepconv.separable_conv2d(*t, *arguments, fixed), input_signature=specs)
    assert same(function(*arrays), sepconv.separable_conv2d(*arrays, *arguments, fixed))


@PROMISED
def test_ranks_that_only_the_running_graph_knows():
    """Another rank than 4 ends the process in TensorFlow where oneDNN is on."""
    tensors = tf.ones([1, 8, 8, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    attributes = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, **attributes), input_signature=[tf.TensorSpec(None)] * 3
    )
    assert same(function(*tensors), tensorflows(*tensors, **attributes))
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(tensors[0][0], *tensors[1:])


@PROMISED
def test_strides_that_are_tensors():
    arrays, _ = small()
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, strides, "SAME"), input_signature=[tf.TensorSpec([None] * 4)] * 3
    )
    strides = [tf.constant(stride) for stride in (1, 2, 2, 1)]
    assert same(function(*arrays), tensorflows(*arrays, strides, "SAME"))


@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("rank", [None, 4])
def test_filters_that_only_the_running_graph_knows(rank, data_format):
    """TensorFlow computes with a pointwise filter of 2 rows, and with one of two groups."""
    specs = [tf.TensorSpec(rank and [None] * rank)] * 3
    function = tf.function(lambda *t: sepconv.separable_conv2d(*t, [1] * 4, "SAME", data_format), input_signature=specs)
    image = tf.ones([1, 4, 4, 4])
    function(image, tf.ones([3, 3, 4, 1]), tf.ones([1, 1, 4, 6]))
    for shape in ([2, 1, 4, 6], [1, 2, 4, 6], [1, 1, 2, 6], [1, 1, 3, 6]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="pointwise_filter must have shape .*1 1 4.* got"):
            function(image, tf.ones([3, 3, 4, 1]), tf.ones(shape))
