"""Graphs and functions: what is found in them and replaced, what is left and why, the same bits, and the way back."""

import gc
import re

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from helpers import kernel_calls, same
from rewriting import FUSED, OP, PLAIN, UNKNOWN, activated, conv, depthwise, graph_of, nodes_of, replaced, run, types
from sepconv import _orders

v1 = tf.compat.v1
VARIANTS = {
    "same": PLAIN,
    "valid": {**PLAIN, "padding": "VALID"},
    "explicit": {**PLAIN, "padding": [[0, 0], [1, 2], [0, 1], [0, 0]]},
    "strides": {**PLAIN, "strides": [1, 2, 2, 1]},
    "rate": {**PLAIN, "dilations": [2, 2]},
    "rate of height": {**PLAIN, "dilations": [3, 1]},
    "rate, valid": {**PLAIN, "padding": "VALID", "dilations": [1, 2]},
    "rate, explicit": {**PLAIN, "padding": [[0, 0], [1, 2], [0, 1], [0, 0]], "dilations": [2, 3]},
    "rate, strides": {**PLAIN, "strides": [1, 2, 2, 1], "dilations": [2, 2]},
}
CASES = [(name, unknown) for name in VARIANTS for unknown in UNKNOWN if unknown in ("known", "all") or name == "rate"]


@pytest.mark.parametrize("name, unknown", CASES)
def test_variants(name, unknown, arrays):
    """Filters are constants where the shape is known or the batch is unknown, and arguments otherwise."""
    x, *filters = arrays
    shape = [None if n in UNKNOWN[unknown] else extent for n, extent in enumerate(x.shape)]
    constant = unknown in ("known", "batch")

    def build(x, *given):
        return tf.nn.separable_conv2d(x, *(filters if constant else given), **VARIANTS[name])

    given = arrays[:1] if constant else arrays
    original = graph_of(build, shape, *([] if constant else [filter.shape for filter in filters]))
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.replaced
    assert layer.exact == (unknown == "known") and layer.numerics.startswith("v1" if layer.exact else "batch")
    ours = rewritten.model
    # Nothing of what computed the padding stays.
    assert types(ours) == {"Placeholder", "Const", "Identity", OP}
    [node] = [node for node in ours.node if node.op == OP]
    assert node.attr["constant_filters"].b == constant and node.name == layer.node == "separable_conv2d"
    before, expected = kernel_calls(), run(original, *given)
    assert same(run(ours, *given), expected)
    assert kernel_calls() - before == 1
    assert imported_shape(ours) == imported_shape(original)
    restored = sepconv.restore(ours)
    # Where TensorFlow multiplies its own zeros as well, it is as good as a Pad.
    [back] = restored.report.replaced
    assert (back.numerics, back.exact, back.input) == (layer.numerics, layer.exact, layer.input)
    assert types(restored.model) - {"Pad"} == types(original)
    assert same(run(restored.model, *given), expected) and kernel_calls() - before == 1
    # The way back is no other than the way there began.
    assert types(replaced(restored.model)) == types(ours)


def imported_shape(definition):
    with tf.Graph().as_default():
        [tensor] = tf.graph_util.import_graph_def(definition, return_elements=["y:0"])
        return tensor.shape.as_list()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64], ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_other_dtypes(dtype, bias, arrays):
    """A bias that TensorFlow adds before it rounds to 16 bits is a reason to leave the layer."""
    x, *filters = [array.astype(dtype.as_numpy_dtype) for array in arrays]

    def build(x):
        y = tf.nn.separable_conv2d(x, *filters, **PLAIN)
        return tf.nn.bias_add(y, tf.cast(tf.linspace(0.1, 1.7, 16), dtype)) if bias else y

    original = graph_of(build, x.shape, dtype=dtype)
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.layers
    assert layer.replaced or dtype is not tf.float64 and bias and "with BiasAdd behind it" in layer.reason, layer
    assert bool({OP, FUSED} & types(rewritten.model)) == layer.replaced
    assert same(run(rewritten.model, x), run(original, x))


PADDED = [
    (tf.float32, "known"),
    (tf.float32, "batch"),
    (tf.float32, "all"),
    (tf.float16, "batch"),
    (tf.float64, "batch"),
]


@pytest.mark.parametrize("dtype, unknown", PADDED, ids=lambda value: getattr(value, "name", value))
def test_zeros_around_images(dtype, unknown, arrays):
    """A Pad in front becomes the op's padding. Its zeros are pixels: an infinite weight on one of them makes a NaN, as
    it need not with TensorFlow's own padding, so that is no way back."""
    x, *filters = [array.astype(dtype.as_numpy_dtype) for array in arrays]
    infinite = np.where(np.arange(9).reshape(3, 3, 1, 1) == 0, np.inf, filters[0]).astype(filters[0].dtype)
    shape = [None if n in UNKNOWN[unknown] else extent for n, extent in enumerate(x.shape)]

    def padded(x):
        return tf.raw_ops.PadV2(input=x, paddings=ZEROS, constant_values=tf.zeros([], dtype))

    strided = {"padding": "VALID", "strides": [1, 2, 2, 1]}
    chains = {
        "separable": lambda x: conv(depthwise(padded(x), filters[0], **strided), filters[1]),
        "alone": lambda x: tf.nn.relu6(depthwise(padded(x), infinite, **strided)),
    }
    for name, build in chains.items():
        original = graph_of(build, shape, dtype=dtype)
        rewritten = sepconv.rewrite(original)
        [layer] = rewritten.report.replaced
        assert (layer.padding, layer.input) == (((1, 2), (3, 0)), tuple(shape)), layer
        expected, ours = run(original, x), rewritten.model
        assert not {"PadV2", "DepthwiseConv2dNative"} & types(ours) and same(run(ours, x), expected)
        assert np.isnan(expected).any() == (name == "alone") and not np.isnan(expected).all()
        restored = sepconv.restore(ours).model
        assert {"PadV2", "DepthwiseConv2dNative"} <= types(restored) and same(run(restored, x), expected)
        assert types(replaced(restored)) == types(ours)


def test_zeros_around_images_that_are_dealt_out(arrays):
    x, *filters = arrays

    def build(x):
        return tf.nn.separable_conv2d(tf.pad(x, ZEROS), *filters, [1, 1, 1, 1], "VALID", dilations=[2, 3])

    original = graph_of(build, [None, *x.shape[1:]])
    ours = replaced(original)
    assert types(ours) == {"Placeholder", "Const", "Identity", OP}
    assert same(run(ours, x), run(original, x)) and same(run(sepconv.restore(ours).model, x), run(original, x))


ZEROS = [[0, 0], [1, 2], [3, 0], [0, 0]]
# Each gives what is convolved, and what is added behind that.
PADS = {
    "ones": lambda x: (tf.pad(x, ZEROS, constant_values=1), 0),
    "-0": lambda x: (tf.raw_ops.PadV2(input=x, paddings=ZEROS, constant_values=tf.constant(-0.0)), 0),
    "mirror": lambda x: (tf.pad(x, ZEROS, "REFLECT"), 0),
    "images": lambda x: (tf.pad(x, [[1, 0], *ZEROS[1:]]), 0),
    "channels": lambda x: (tf.pad(x[..., 1:], [*ZEROS[:3], [0, 1]]), 0),
    "other consumers": lambda x: ((padded := tf.pad(x, ZEROS)), padded[0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", PADS)
def test_another_pad_stays(name, arrays):
    x, *filters = arrays

    def build(x):
        padded, other = PADS[name](x)
        return conv(depthwise(padded, filters[0], padding="VALID"), filters[1]) + other

    original = graph_of(build, x.shape)
    ours = replaced(original)
    assert {"Pad", "PadV2", "MirrorPad"} & types(original) <= types(ours) and {OP, FUSED} & types(ours)
    assert same(run(ours, x), run(original, x))


def test_who_stands_beside_what_was_replaced_stays(arrays):
    """A node that is to be placed where another one is, which is gone."""
    x, *filters = arrays

    def build(x):
        pixels = depthwise(x, filters[0])
        with v1.colocate_with(pixels.op):
            return conv(pixels, filters[1]) + tf.identity(x[0, 0, 0, 0])

    original = graph_of(build, x.shape)
    assert b"loc:@DepthwiseConv2dNative" in original.SerializeToString()
    assert same(run(replaced(original), x), run(original, x))


def shared(x, d, p):
    pixels = depthwise(x, d)
    return conv(pixels, p) + tf.reduce_sum(pixels)


def controlled(x, d, p):
    pixels = depthwise(x, d)
    with tf.control_dependencies([pixels.op]):
        return conv(pixels, p) + tf.identity(x[0, 0, 0, 0])


def dealt_twice(x, d, p):
    blocks = tf.space_to_batch(x, [2, 2], [[2, 3], [2, 2]])
    pixels = tf.batch_to_space(depthwise(blocks, d, padding="VALID"), [2, 2], [[0, 1], [0, 0]])
    return conv(pixels, p) + tf.reduce_sum(blocks)


def dealt_otherwise(x, d, p):
    blocks = tf.space_to_batch(x, [2, 2], [[2, 3], [2, 2]])
    return conv(tf.batch_to_space(depthwise(blocks, d, padding="VALID"), [2, 2], [[1, 0], [0, 0]]), p)


def trained(x, d, p):
    ones = tf.ones([12])
    pixels, *_ = tf.raw_ops.FusedBatchNormV3(x=depthwise(x, d), scale=ones, offset=ones, mean=[], variance=[])
    return conv(pixels, p)


LEFT = {
    "has other consumers": shared,
    "what Depthwise.* gives has other consumers": controlled,
    "SpaceToBatchND has other consumers": dealt_twice,
    "as tf.nn.separable_conv2d does not": dealt_otherwise,
    "between the two convolutions stands Elu, no step of the op": lambda x, d, p: conv(tf.nn.elu(depthwise(x, d)), p),
    "between the two convolutions stands FusedBatchNormV3, no step of the op": trained,
    "no 1x1 convolution": lambda x, d, p: tf.reduce_sum(depthwise(x, d)),
    "not known to be 1x1": lambda x, d, p: conv(depthwise(x, d), np.ones([2, 1, 12, 16], np.float32)),
    "has strides": lambda x, d, p: conv(depthwise(x, d), p, strides=[1, 2, 2, 1]),
    "a filter is empty": lambda x, d, p: conv(depthwise(x, d), p[..., :0]),
    "channels in groups": lambda x, d, p: conv(depthwise(x, d), p[:, :, :6]),
    "dilations of its own": lambda x, d, p: conv(depthwise(x, d, dilations=[1, 2, 2, 1]), p),
    "data format NCHW": lambda x, d, p: conv(
        depthwise(tf.transpose(x, [0, 3, 1, 2]), d, data_format="NCHW"), p, data_format="NCHW"
    ),
}


@pytest.mark.parametrize("reason", LEFT)
def test_left(reason, arrays):
    x, *filters = arrays
    original = graph_of(lambda x: LEFT[reason](x, *filters), x.shape)
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.left
    assert not rewritten.report.replaced
    assert re.search(reason, layer.reason), layer.reason
    assert rewritten.model == original


def test_an_order_that_is_not_the_models_own_is_noticed(arrays, monkeypatch):
    """What is put in is tried in the model's context: a wrong order differs there."""
    x, *filters = arrays
    original = graph_of(lambda x: tf.nn.relu(tf.nn.separable_conv2d(x, *filters, **PLAIN)), x.shape)
    wrong = "v1 depthwise(fused, inside) pointwise(separate, 3x4) subnormals(kept)"
    monkeypatch.setattr(_orders, "order_of", lambda *_: _orders.Order(wrong, ""))
    [layer] = sepconv.rewrite(original).report.left
    assert "with Relu behind it" in layer.reason and "6912 elements" in layer.reason


def test_a_function_and_its_variables(arrays):
    """A concrete function, of which a part is a function of its own; what is assigned to its variables; gradients."""
    x, *filters = [tf.constant(array) for array in arrays]
    variables = [tf.Variable(filter) for filter in filters]
    inner = tf.function(lambda x: tf.nn.separable_conv2d(x, *variables, **PLAIN))

    @tf.function
    def model(x, scale):
        return {"y": inner(x) * scale["by"], "twice": [tf.nn.separable_conv2d(x, *variables, **PLAIN), None]}

    concrete = model.get_concrete_function(tf.TensorSpec([None, 9, 8, 6]), {"by": tf.TensorSpec([])})
    rewritten = sepconv.rewrite(concrete)
    assert len(rewritten.report.replaced) == 2 and not rewritten.report.left
    ours, scale = rewritten.model, {"by": tf.constant(2.0)}
    assert {variable.ref() for variable in ours.variables} == {variable.ref() for variable in variables}
    kept = [node.attr["constant_filters"].b for node in nodes_of(ours.graph.as_graph_def()) if node.op == OP]
    assert kept == [True, True]
    for factor in (1.0, -0.3):
        for variable, filter in zip(variables, filters, strict=True):
            variable.assign(filter * factor)
        before, expected = kernel_calls(), concrete(x, scale)
        given = ours(x, scale)
        assert kernel_calls() - before == 2
        assert given["twice"][1] is None and same(given["twice"][0], expected["twice"][0])
        assert same(given["y"], expected["y"])

    def gradients(function):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(function(x, scale)["y"] ** 2)
        return tape.gradient(loss, variables)

    for a, b in zip(gradients(ours), gradients(concrete), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    again = sepconv.restore(ours).model
    before = kernel_calls()
    assert same(again(x, scale)["y"], concrete(x, scale)["y"]) and kernel_calls() == before


def test_variables_that_are_gone():
    """A function goes on when nobody holds its model any more, and so do those that are made of it."""
    function, x = activated("relu", 1)
    gc.collect()
    with pytest.raises(AssertionError, match="have been deleted"):
        function.graph.variables  # noqa: B018
    ours = sepconv.rewrite(function)
    assert len(ours.report.replaced) == 1, str(ours.report)
    assert same(ours.model(x), function(x))
    assert same(sepconv.restore(ours.model).model(x), function(x))


def test_what_xla_compiles_is_left(arrays):
    x, *filters = arrays
    inner = tf.function(lambda x: tf.nn.separable_conv2d(x, *filters, **PLAIN))
    compiled = tf.function(lambda x: inner(x) + 1, jit_compile=True)
    report = sepconv.rewrite(graph_of(lambda x: compiled(x) + inner(x * 2), x.shape)).report
    assert report.layers and all("XLA" in layer.reason for layer in report.left) and not report.replaced


def test_nothing_to_replace():
    original = graph_of(lambda x: x + 1, [2])
    for function in (sepconv.rewrite, sepconv.restore):
        result = function(original)
        assert result.model == original and result.report.layers == () and "nothing" in str(result.report)
