"""Models that exist: what is found in them and replaced, what is left and why, the same bits, and the way back."""

import errno
import gc
import itertools
import json
import pathlib
import re
import resource
import shutil

import keras
import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import AVX512, ONEDNN, THREADS
from fresh import attempt, in_fresh_process
from helpers import HERE, kernel_calls, same
from sepconv import __main__, _check, _orders
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

v1 = tf.compat.v1
OP = "Sepconv>SeparableConv2D"
# Saved with the op (`saved_models/save.py`).
SAVED = sorted((HERE / "saved_models").glob("*/"))[0]
FUSED, DEPTHWISE = "Sepconv>FusedSeparableConv2D", "Sepconv>FusedDepthwiseConv2D"
PLAIN = {"strides": [1, 1, 1, 1], "padding": "SAME"}
SHAPES = [2, 9, 8, 6], [3, 3, 6, 2], [1, 1, 12, 16]


@pytest.fixture
def arrays(rng):
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def bias_comes_first(layer) -> bool:
    """Whether a layer is left because oneDNN, for single images without AVX-512, begins a sum with the bias that is
    fused with it, where eager calls add it at the end: no order of the op does that."""
    return ONEDNN and not AVX512 and not layer.replaced and "here, with BiasAdd, Relu behind it" in layer.reason


def graph_of(build, *shapes, dtype=tf.float32):
    """The GraphDef of a function of placeholders `x0`, `x1`, ...; what it gives is `y`."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(*[v1.placeholder(dtype, shape, f"x{n}") for n, shape in enumerate(shapes)]), "y")
    return graph.as_graph_def()


def run(definition, *arrays, fetch="y"):
    function = v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    tensor = function.graph.get_tensor_by_name
    feeds = [tensor(f"x{n}:0") for n in range(len(arrays))]
    return function.prune(feeds, tensor(f"{fetch}:0"))(*map(tf.constant, arrays))


def nodes_of(definition) -> list:
    bodies = [definition.node, *[function.node_def for function in definition.library.function]]
    return [node for nodes in bodies for node in nodes]


def types(definition) -> set:
    return {node.op for node in nodes_of(definition)}


def replaced(definition, count=1):
    """The rewritten GraphDef, in which so many layers are replaced and none is left."""
    rewritten = sepconv.rewrite(definition)
    report = rewritten.report
    assert (len(report.replaced), len(report.left)) == (count, 0), str(report)
    return rewritten.model


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
UNKNOWN = {"known": [], "batch": [0], "height and width": [1, 2], "all": [0, 1, 2]}


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
    original = graph_of(build, shape, *([] if constant else SHAPES[1:]))
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
        assert {"Pad", "DepthwiseConv2dNative"} <= types(restored) and same(run(restored, x), expected)
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


BEHIND = {
    "bias and ReLU": lambda y, m, b: tf.nn.relu(tf.nn.bias_add(y, b)),
    "ReLU6": lambda y, m, b: tf.nn.relu6(y),
    "scale": lambda y, m, b: y * m,
    "scale first": lambda y, m, b: m.reshape(1, 1, 1, -1) * y + b,
    "a number": lambda y, m, b: y * 0.3,
    "divided": lambda y, m, b: y / m,
    "scales": lambda y, m, b: tf.nn.relu(y * m * b + m),
    "computed scale": lambda y, m, b: y * (tf.math.rsqrt(tf.constant(m) + 1e-3) * b) + b,
    "scale of the batch": lambda y, m, b: y * m[:2].reshape(2, 1, 1, 1),
    "residual": lambda y, m, b: tf.nn.relu(tf.nn.bias_add(y, b) + y[:, ::-1]),
    "batch norm": lambda y, m, b: tf.nn.elu(v1.nn.fused_batch_norm(y, m, b, b, m, is_training=False)[0]),
}


@pytest.mark.parametrize("function", [False, True], ids=["graph", "function"])
@pytest.mark.parametrize("name", BEHIND)
def test_what_stands_behind(name, function, arrays, rng):
    """TensorFlow's optimiser multiplies constants into constant filters, and fuses biases: the bits stay."""
    x, *filters = arrays
    scale, bias = rng.uniform(0.5, 1.5, [2, 16]).astype(np.float32)

    def build(x):
        return BEHIND[name](tf.nn.separable_conv2d(x, *filters, **PLAIN), scale, bias)

    original = graph_of(tf.function(build) if function else build, x.shape)
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.layers
    # oneDNN's own Elu is fused with a normalisation.
    assert layer.replaced or name == "residual" or name == "batch norm" and ONEDNN, layer
    assert bool(layer.function) == function
    assert same(run(rewritten.model, x), run(original, x))
    assert same(run(sepconv.restore(rewritten.model).model, x), run(original, x))


def depthwise(x, filter, **attributes):
    return tf.raw_ops.DepthwiseConv2dNative(**{"input": x, "filter": filter, **PLAIN, **attributes})


def conv(x, filter, **attributes):
    return tf.raw_ops.Conv2D(**{"input": x, "filter": filter, **PLAIN, "padding": "VALID", **attributes})


BETWEEN = {
    "multiply add relu6": lambda y, m, b: tf.nn.relu6(y * m + b),
    "add relu": lambda y, m, b: tf.nn.relu(tf.nn.bias_add(y, b)),
    "add leaky_relu(0.20000000298023224)": lambda y, m, b: tf.nn.leaky_relu(tf.identity(b + y), 0.2),
    "multiply": lambda y, m, b: tf.reshape(m, [1, 1, 1, -1]) * y,
    "add": lambda y, m, b: y + 0.5,
}


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("constant", [False, True], ids=["arguments", "constants"])
@pytest.mark.parametrize("words", BETWEEN)
def test_what_stands_between(words, constant, unknown, arrays, rng):
    """As in MobileNet: behind each of the two convolutions."""
    x, *filters = arrays
    shape = [None if n in UNKNOWN[unknown] else extent for n, extent in enumerate(x.shape)]
    numbers = [rng.uniform(0.5, 1.5, n).astype(np.float32) for n in (12, 12, 16, 16)]

    def build(x, *given):
        d, p, *numbers_given = (*filters, *numbers) if constant else given
        pixels = BETWEEN[words](depthwise(x, d), *numbers_given[:2])
        return BETWEEN[words](conv(pixels, p), *numbers_given[2:])

    given = [x] if constant else [x, *filters, *numbers]
    original = graph_of(build, shape, *[array.shape for array in given[1:]])
    ours = sepconv.rewrite(original)
    [layer] = ours.report.layers
    if bias_comes_first(layer):
        assert words == "add relu" and same(run(ours.model, *given), run(original, *given))
        return
    assert layer.replaced, layer
    assert layer.depthwise_steps == words
    # A constant scale that TensorFlow multiplies into the filter is there already.
    assert layer.pointwise_steps == (words if not constant else words.removeprefix("multiply").strip())
    assert types(ours.model) <= {"Placeholder", "Const", "Identity", "Reshape", FUSED}
    before, expected = kernel_calls(), run(original, *given)
    assert same(run(ours.model, *given), expected)
    assert kernel_calls() - before == 1
    restored = sepconv.restore(ours.model).model
    assert FUSED not in types(restored) and same(run(restored, *given), expected)


ALONE = {
    "add": ({}, lambda y, m, b: tf.nn.bias_add(y, b)[:, ::-1]),
    "multiply add relu6": ({"strides": [1, 2, 2, 1]}, lambda y, m, b: tf.nn.relu6(y * m + b)),
    # Without oneDNN the last elements are others, where those of all channels fill no whole number of registers.
    "multiply add swish_onednn" if ONEDNN else "multiply add": ({}, lambda y, m, b: (z := y * m + b) * tf.sigmoid(z)),
    "add multiply": ({}, lambda y, m, b: (z := (y + b) * m) * (gate := tf.sigmoid(z)) + gate),
    "": ({"dilations": [2, 3]}, lambda y, m, b: tf.nn.elu(y)),
    "relu": ({"dilations": [2, 3]}, lambda y, m, b: tf.nn.relu(y)[:, ::-1]),
}


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("constant", [False, True], ids=["arguments", "constants"])
@pytest.mark.parametrize("words", ALONE)
def test_a_depthwise_part_alone(words, constant, unknown, arrays, rng):
    """With what stands behind it, or dilated."""
    x, filter, _ = arrays
    attributes, behind = ALONE[words]
    shape = [None if n in UNKNOWN[unknown] else extent for n, extent in enumerate(x.shape)]
    numbers = [rng.uniform(0.5, 1.5, 12).astype(np.float32) for _ in range(2)]

    def build(x, *given):
        d, *numbers_given = (filter, *numbers) if constant else given
        return behind(tf.nn.depthwise_conv2d(x, d, **{**PLAIN, **attributes}), *numbers_given)

    given = [x] if constant else [x, filter, *numbers]
    original = graph_of(build, shape, *[array.shape for array in given[1:]])
    ours = sepconv.rewrite(original)
    [layer] = ours.report.replaced
    assert layer.depthwise_steps == words and layer.pointwise_filter is None
    assert DEPTHWISE in types(ours.model)
    before, expected = sepconv.stats()["depthwise_calls"], run(original, *given)
    assert same(run(ours.model, *given), expected)
    assert sepconv.stats()["depthwise_calls"] - before == 1
    restored = sepconv.restore(ours.model).model
    assert DEPTHWISE not in types(restored) and same(run(restored, *given), expected)


def normalised(y, statistics, version="V3", **attributes):
    operands = dict(zip(("scale", "offset", "mean", "variance"), statistics, strict=True))
    attributes = {"epsilon": 1e-3, "is_training": False, **attributes}
    return getattr(tf.raw_ops, f"FusedBatchNorm{version}")(x=y, **operands, **attributes)[0]


def statistics(rng, channels) -> list:
    array = rng.standard_normal([4, channels]).astype(np.float32)
    return [*array[:3], np.abs(array[3])]


def dilated(x, filter):
    return tf.nn.depthwise_conv2d(x, filter, **PLAIN, dilations=[2, 3])


# How many channels stand between, and what is computed. 12 do not fill oneDNN's vectors, for which it has another loop.
NORMALISED = {
    "both": (48, lambda x, d, p, m, n: normalised(conv(normalised(depthwise(x, d), m), p), n)),
    "both, older": (
        12,
        lambda x, d, p, m, n: tf.nn.relu6(
            normalised(conv(tf.nn.relu6(normalised(depthwise(x, d), m, "")), p), n, "V2", epsilon=0.1)
        ),
    ),
    "both, dilated": (
        48,
        lambda x, d, p, m, n: tf.nn.relu(normalised(conv(tf.nn.relu(normalised(dilated(x, d), m)), p), n)),
    ),
    "behind a bias": (12, lambda x, d, p, m, n: tf.nn.relu6(normalised(conv(depthwise(x, d), p) + n[0], n))),
    "far behind": (
        12,
        lambda x, d, p, m, n: tf.nn.relu(normalised(tf.nn.relu6(tf.nn.leaky_relu(conv(depthwise(x, d), p) + n[0])), n)),
    ),
    "alone": (48, lambda x, d, p, m, n: tf.nn.relu(normalised(depthwise(x, d), m))[:, ::-1]),
    "alone, dilated": (12, lambda x, d, p, m, n: tf.nn.relu6(normalised(dilated(x, d), m))[:, ::-1]),
}


@pytest.mark.parametrize("constant", [False, True], ids=["variables", "constants"])
@pytest.mark.parametrize("name", NORMALISED)
def test_batch_normalisation(name, constant, rng):
    """TensorFlow computes it in several ways, each with bits of its own."""
    channels, build = NORMALISED[name]
    # Without AVX-512, oneDNN has other zeros in a single image with a ReLU.
    shapes = [2 if constant else 1, 9, 8, 6], [3, 3, 6, channels // 6], [1, 1, channels, 16]
    x, *filters = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    given = [*filters, statistics(rng, channels), statistics(rng, 16)]
    if not constant:
        given = tf.nest.map_structure(tf.Variable, given)
    function = tf.function(lambda x: build(x, *given), autograph=False)
    function = function.get_concrete_function(tf.TensorSpec(x.shape))
    rewritten = sepconv.rewrite(function)
    [layer] = rewritten.report.layers
    assert layer.replaced, layer
    assert not [type for type in types(rewritten.model.graph.as_graph_def()) if "FusedBatchNorm" in type]
    restored = sepconv.restore(rewritten.model).model
    for _ in range(2):
        expected = function(x)
        assert same(rewritten.model(x), expected) and same(restored(x), expected)
        for variable in function.variables:
            variable.assign(variable * 0.7)


def test_a_frozen_mobilenet(rng):
    """As TF1-slim has them: constants behind identities, batch normalisation behind each convolution."""
    channels = [8, 16, 24, 24]
    x = rng.standard_normal([1, 16, 16, 8]).astype(np.float32)

    def build(x):
        def frozen(array):
            return tf.identity(tf.constant(array))

        def block(x, k, out, stride):
            d, p = [rng.standard_normal(shape).astype(np.float32) for shape in ([3, 3, k, 1], [1, 1, k, out])]
            pixels = depthwise(x, frozen(d), strides=[1, stride, stride, 1])
            pixels = tf.nn.relu6(normalised(pixels, map(frozen, statistics(rng, k))))
            return tf.nn.relu6(normalised(conv(pixels, frozen(p)), map(frozen, statistics(rng, out))))

        for (k, out), stride in zip(itertools.pairwise(channels), (1, 2, 1), strict=True):
            x = block(x, k, out, stride)
        return x

    original = graph_of(build, x.shape)
    ours = replaced(original, 3)
    assert not {"FusedBatchNormV3", "Relu6"} & types(ours)
    assert same(run(ours, x), run(original, x))
    assert types(sepconv.restore(ours).model) == types(original)


@pytest.mark.parametrize("batch", [2, None])
def test_an_image_is_added(batch, arrays, rng):
    """TensorFlow adds the bias last then, also where it only knows that two images are alike: of what is behind the
    layer, the multiplication alone becomes part of it."""
    x, *filters = arrays
    scale, bias = rng.uniform(0.5, 1.5, [2, 16]).astype(np.float32)
    given = [x, *filters, scale, bias, rng.standard_normal([1, 1, 6, 16]).astype(np.float32)]

    def build(x, d, p, scale, bias, beside):
        return conv(depthwise(x, d), p) * scale + bias + conv(x, beside)

    original = graph_of(build, [batch, *x.shape[1:]], *[array.shape for array in given[1:]])
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.replaced
    assert layer.pointwise_steps == "multiply"
    assert same(run(rewritten.model, *given), run(original, *given))


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
    assert "with Relu behind it" in layer.reason and "2304 elements" in layer.reason


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


def test_what_xla_compiles_is_left(arrays):
    x, *filters = arrays
    inner = tf.function(lambda x: tf.nn.separable_conv2d(x, *filters, **PLAIN))
    compiled = tf.function(lambda x: inner(x) + 1, jit_compile=True)
    report = sepconv.rewrite(graph_of(lambda x: compiled(x) + inner(x * 2), x.shape)).report
    assert report.layers and all("XLA" in layer.reason for layer in report.left) and not report.replaced


def test_what_was_saved_with_the_op_is_restored(tmp_path: pathlib.Path):
    """Paddings of all kinds and unequal strides (`saved_models/save.py`); the numerics were not TensorFlow's."""
    example = np.load(SAVED / "example.npz")
    report = sepconv.restore(SAVED, tmp_path / "restored").report
    assert report.replaced and not report.left, str(report)
    before = kernel_calls()
    result = tf.saved_model.load(tmp_path / "restored").convolve(example["x"])
    assert kernel_calls() == before
    np.testing.assert_allclose(result, example["y"], rtol=1e-5, atol=1e-5)


def test_nothing_to_replace():
    original = graph_of(lambda x: x + 1, [2])
    for function in (sepconv.rewrite, sepconv.restore):
        result = function(original)
        assert result.model == original and result.report.layers == () and "nothing" in str(result.report)


# Files


class Model(tf.Module):
    """With an asset, a variable bias and a layer whose order depends on the context."""

    def __init__(self, folder):
        rng = np.random.default_rng(5)
        shapes = [3, 3, 512, 1], [1, 1, 512, 512], [512]
        self.values = [tf.Variable(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
        words = folder / "words.txt"
        words.write_text("a word\n")
        self.words = tf.saved_model.Asset(str(words))

    @tf.function(input_signature=[tf.TensorSpec([None, 7, 7, 512], name="image")])
    def convolve(self, x):
        *filters, bias = self.values
        return {"pixels": tf.nn.relu(tf.nn.bias_add(tf.nn.separable_conv2d(x, *filters, **PLAIN), bias))}


RUN = """
import sys
import numpy as np, tensorflow as tf
library, model, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
if library:
    tf.load_op_library(library)
assert "sepconv" not in sys.modules
model = tf.saved_model.load(model)
assert tf.io.read_file(model.words.asset_path) == b"a word\\n"
for batch in (1, 2):
    x = np.random.default_rng(batch).standard_normal([batch, 7, 7, 512]).astype(np.float32)
    pixels = model.signatures["serving_default"](image=tf.constant(x))["pixels"]
    print(pixels.shape, hash(pixels.numpy().tobytes()))
    model.values[2].assign_add(tf.ones([512]))
"""


def test_a_saved_model_in_processes_that_only_load_the_library(tmp_path: pathlib.Path):
    """Variables, assignments, assets and signatures survive; the bits are those of the model in a fresh process."""
    tf.saved_model.save(Model(tmp_path), str(tmp_path / "model"))
    result = sepconv.rewrite(tmp_path / "model", tmp_path / "ours")
    [layer] = result.report.layers
    assert layer.replaced or bias_comes_first(layer), layer
    sepconv.restore(tmp_path / "ours", tmp_path / "restored")
    printed = [
        in_fresh_process(RUN, library, str(tmp_path / name), str(THREADS))
        for name, library in (("model", ""), ("ours", sepconv.library_path()), ("restored", ""))
    ]
    assert printed[0] == printed[1] == printed[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "ours", "restored", "words.txt"]


@pytest.mark.parametrize("resources", [False, True], ids=["references", "resources"])
def test_a_saved_model_of_tensorflow_1(resources, arrays, tmp_path: pathlib.Path):
    """Layers in the graph itself, with variables of both kinds, and in the body of a loop."""
    x, *filters = arrays
    ones = tf.ones([3, 3, 16, 1]).numpy(), tf.ones([1, 1, 16, 16]).numpy() / 9
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder = v1.placeholder(tf.float32, [None, None, None, 6])
        variables = [v1.get_variable(f"v{n}", initializer=f, use_resource=resources) for n, f in enumerate(filters)]
        y = tf.nn.separable_conv2d(placeholder, *variables, **PLAIN, dilations=[2, 2])
        shapes = [tf.TensorShape([]), tf.TensorShape([None, None, None, 16])]
        _, y = v1.while_loop(
            lambda i, y: i < 2, lambda i, y: (i + 1, tf.nn.separable_conv2d(y, *ones, **PLAIN)), [0, y], shapes
        )
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": placeholder}, {"y": y})
    report = sepconv.rewrite(tmp_path / "model", tmp_path / "ours").report
    assert len(report.replaced) == 2 and not report.left, str(report)
    before, results = kernel_calls(), []
    for name in ("model", "ours"):
        signature = tf.saved_model.load(tmp_path / name).signatures["serving_default"]
        results.append(signature(x=tf.constant(x))["y"])
    assert same(*results) and kernel_calls() - before == 3


def test_what_is_restored_can_be_exported(arrays, rng, tmp_path: pathlib.Path):
    """To LiteRT, and to XLA, which has bits of its own."""
    x, d, p = map(tf.Variable, arrays)
    numbers, model = tf.nest.map_structure(tf.Variable, statistics(rng, 12)), tf.Module()
    model.variables_of_it = [d, p, *numbers]
    spec = tf.TensorSpec(x.shape, name="x")
    model.convolve = tf.function(
        lambda x: {"y": conv(tf.nn.relu6(normalised(dilated(x, d), numbers)), p)}, input_signature=[spec]
    )
    tf.saved_model.save(model, str(tmp_path / "model"), model.convolve)
    assert sepconv.rewrite(tmp_path / "model", tmp_path / "ours").report.replaced
    assert sepconv.restore(tmp_path / "ours", tmp_path / "restored").report.replaced
    converted, compiled = {}, {}
    for name in ("ours", "restored"):
        loaded = tf.saved_model.load(tmp_path / name)
        expected = model.convolve(x)["y"]
        converted[name] = lambda name=name: tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / name)).convert()
        compiled[name] = lambda loaded=loaded: tf.function(loaded.convolve, jit_compile=True)(x.value())["y"]
    for exported in (converted, compiled):
        with pytest.raises(Exception, match=FUSED):
            exported["ours"]()
    assert converted["restored"]()
    np.testing.assert_allclose(compiled["restored"](), expected, rtol=1e-4, atol=1e-4)


COMMAND = """
import runpy, sys
sys.argv[0] = "sepconv"
runpy.run_module("sepconv", run_name="__main__")
"""


def command(*arguments):
    return attempt(COMMAND, *map(str, arguments))


def test_the_command_on_a_frozen_graph(tmp_path: pathlib.Path):
    trained = Model(tmp_path)
    frozen = convert_variables_to_constants_v2(trained.convolve.get_concrete_function())
    model, ours, report = tmp_path / "model.pb", tmp_path / "ours.pb", tmp_path / "report.json"
    model.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    inputs = {"image": np.random.default_rng(7).standard_normal([1, 7, 7, 512]).astype(np.float32)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    options = "--check", "--inputs", tmp_path / "inputs.npz", "--json", report, "--threads", THREADS
    ended = command("rewrite", model, ours, *options)
    assert ended.status == 0, ended.errors
    assert "replaced" in ended.output and "25088 of 25088 elements have the same bits: equal" in ended.output
    content = json.loads(report.read_text())
    assert (content["replaced"], content["left"], content["check"][0]["same"]) == (1, 0, True)
    [layer] = content["layers"]
    facts = {"rate": [1, 1], "depthwise_steps": "", "pointwise_steps": "add relu", "exact": False}
    assert facts.items() <= layer.items() and layer["numerics"].startswith("batch")
    ended = command("restore", ours, tmp_path / "restored.pb", "--json", "-")
    back = json.loads(ended.output)
    assert (back["replaced"], back["left"]) == (1, 0)
    # The way back tells the same of the layer, by the op's own name.
    assert back["layers"] == [layer | {"node": "Relu", "reason": "TensorFlow's own operations"}]


def test_a_check_that_finds_a_difference(tmp_path: pathlib.Path, arrays):
    x, *filters = arrays
    for name, factor in (("a", 1), ("b", 1 + 2**-20)):
        filters[1][0, 0, 0, 0] *= factor
        definition = graph_of(lambda x: tf.nn.separable_conv2d(x, *filters, **PLAIN), [None, *x.shape[1:]])
        (tmp_path / name).write_bytes(definition.SerializeToString())
    outputs = _check.check(tmp_path / "a", tmp_path / "b", None, 0)
    assert [output.name for output in outputs] == ["y:0 (batch 1)", "y:0 (batch 2)"]
    assert all(not output.same and 0 < output.equal < output.elements for output in outputs)


def test_a_model_with_nothing_to_replace_is_copied(tmp_path: pathlib.Path):
    model = tf.Module()
    model.v = tf.Variable(2.0)
    model.call = tf.function(lambda x: x * model.v, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(model, str(tmp_path / "model"))
    ended = command("rewrite", tmp_path / "model", tmp_path / "copy")
    assert ended.status == 0 and "nothing to replace" in ended.output
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("model", "copy")]
    assert files[0] == files[1]
    for path in files[0]:
        if (tmp_path / "model" / path).is_file():
            assert (tmp_path / "model" / path).read_bytes() == (tmp_path / "copy" / path).read_bytes()


def broken(folder, content=b"\xff\xff nonsense"):
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(content)


# What is refused, of a model and a place; and where something may be replaced.
BAD = {
    "no such file or folder": lambda here: (here / "none", here / "out"),
    "is broken": lambda here: (broken(here / "in"), (here / "in", here / "out"))[1],
    "holds no graph": lambda here: (broken(here / "in", b""), (here / "in", here / "out"))[1],
    "is no SavedModel": lambda here: ((here / "in").mkdir(), (here / "in", here / "out"))[1],
    "model.export": lambda here: ((here / "in.keras").write_bytes(b""), (here / "in.keras", here / "out"))[1],
    "is there already": lambda here: (here / "good", here / "good"),
    "lies within": lambda here: (broken(here / "in"), (here / "in", here / "in" / "out"))[1],
    "cannot be written": lambda here: (here / "good", here / "good" / "out"),
    "such folder|No such": lambda here: (here / "good", here / "none" / "out"),
    "TensorFlow cannot read": lambda here: (here / "unknown", here / "out"),
    "assets/x: cannot be copied to .*out: No such": lambda here: (
        (shutil.copytree(SAVED, here / "in"), (here / "in/assets").mkdir(), (here / "in/assets/x").symlink_to("none")),
        (here / "in", here / "out"),
    )[1],
}
OVERWRITING = {
    "holds the model .*, which would be gone": lambda here: (here / "good", here),
    "a folder without saved_model.pb, and only a model": lambda here: (
        SAVED,
        (here / "notes").mkdir() or here / "notes",
    ),
    "is a folder, and what is written would be a file": lambda here: (
        here / "good",
        shutil.copytree(SAVED, here / "out"),
    ),
    "is a file, and what is written would be a folder": lambda here: (SAVED, here / "good"),
}


def contents(folder) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def good(tmp_path: pathlib.Path, arrays):
    """A file with a model that has a layer of each kind."""
    x, *filters = arrays

    def build(x):
        return sum(function(x, *filters, **PLAIN) for function in (tf.nn.separable_conv2d, sepconv.separable_conv2d))

    (tmp_path / "good").write_bytes(graph_of(build, x.shape).SerializeToString())
    return tmp_path / "good"


@pytest.mark.parametrize("function", [sepconv.rewrite, sepconv.restore], ids=lambda function: function.__name__)
@pytest.mark.parametrize("what", [*BAD, *OVERWRITING])
def test_bad_input(what, function, good, tmp_path: pathlib.Path):
    """One line, and nothing half-written."""
    unknown = v1.GraphDef.FromString(good.read_bytes())
    unknown.node[0].op = "NoSuchOp"
    (tmp_path / "unknown").write_bytes(unknown.SerializeToString())
    given = (BAD | OVERWRITING)[what](tmp_path)
    before = contents(tmp_path)
    with pytest.raises(sepconv.BadModel, match=what) as refused:
        function(*given, overwrite=what in OVERWRITING)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_model_is_replaced_by_its_own_result(folder, good, tmp_path: pathlib.Path, monkeypatch):
    """Or stays where it is, if the result cannot have its name."""
    model = shutil.copytree(SAVED, tmp_path / "model") if folder else good
    before, rename = contents(tmp_path), pathlib.Path.rename

    def refused(path, target):
        if path.name == "new":
            raise PermissionError(errno.EPERM, "Not now")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", refused)
    with pytest.raises(sepconv.BadModel, match="model|good: cannot be written: Not now"):
        sepconv.restore(model, model, overwrite=True)
    assert contents(tmp_path) == before
    monkeypatch.undo()
    assert sepconv.restore(model, model, overwrite=True).report.replaced
    after = contents(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path.name for path in changed} - {"fingerprint.pb"} == {"saved_model.pb" if folder else "good"}
    assert not sepconv.restore(model, tmp_path / "again").report.layers


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_disk_that_is_full(folder, tmp_path: pathlib.Path):
    """As a limit of what a file may hold: it shows up in the midst of writing."""
    model, ours = tmp_path / "model", tmp_path / "ours"
    if folder:
        module = tf.Module()
        module.numbers = tf.Variable(tf.ones([4096]))
        tf.saved_model.save(module, str(model))
        shutil.copytree(model, ours)
        (ours / "notes").write_text("mine")
    else:
        model.write_bytes(graph_of(lambda x: x + np.ones(4096, np.float32), [4096]).SerializeToString())
        ours.write_bytes(b"another")
    before, limits = contents(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(sepconv.BadModel, match="cannot be (copied to|written).*: File too large") as refused:
            sepconv.rewrite(model, ours, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(refused.value) and str(ours) in str(refused.value)
    assert contents(tmp_path) == before


def test_the_commands_error_is_one_line(tmp_path: pathlib.Path):
    ended = command("rewrite", tmp_path / "none", tmp_path / "out")
    lines = [line for line in ended.errors.splitlines() if "sepconv" in line]
    assert ended.status == 1 and lines == [f"sepconv: error: {tmp_path / 'none'}: no such file or folder"]
    assert "Traceback" not in ended.errors


# Options, and what is said of them.
REFUSED = {
    "--inputs none.npz": "--inputs none.npz: no such file",
    "--inputs broken.npz": "--inputs broken.npz: is no npz file",
    "--inputs text.npz": "--inputs text.npz: cannot be read: ",
    "--json .": "--json .: cannot be written",
    "--json none/report.json": "--json none/report.json: no folder none",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_used_is_said_before_any_work(options, good, tmp_path: pathlib.Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("broken.npz").write_bytes(b"zzz")
    np.savez("text.npz", x0=np.array([object()]))
    before = contents(tmp_path)
    assert __main__.main(["rewrite", "good", "out", "--check", *options.split()]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sepconv: error: {REFUSED[options]}")
    assert contents(tmp_path) == before


def test_a_difference_is_the_exit_status(tmp_path: pathlib.Path, monkeypatch, capsys):
    (tmp_path / "model").write_bytes(graph_of(lambda x: x + 1, [4]).SerializeToString())
    monkeypatch.setattr(_check, "check", lambda *_: [_check.Output("y:0", 4, 3, False)])
    options = "--check", "--threads", str(THREADS)
    assert __main__.main(["rewrite", str(tmp_path / "model"), str(tmp_path / "ours"), *options]) == 1
    assert "check: y:0: 3 of 4 elements have the same bits: DIFFERENT" in capsys.readouterr().out


def test_what_a_check_cannot_run(tmp_path: pathlib.Path, monkeypatch, capsys):
    """The words of the processes that run the models, in this one."""
    text, numbers, silent, inputs = [str(tmp_path / name) for name in ("text", "numbers", "silent", "inputs.npz")]
    pathlib.Path(text).write_bytes(graph_of(tf.strings.length, [2], dtype=tf.string).SerializeToString())
    pathlib.Path(numbers).write_bytes(graph_of(lambda x: x + 1, [2]).SerializeToString())
    tf.saved_model.save(tf.Module(), silent)
    np.savez(inputs, other=np.ones(2))
    for model, given, said in (
        (text, "", "no random numbers fit the input x0 (string, (2,)): give some (--inputs)"),
        (numbers, inputs, "the file of inputs has no array x0, only other"),
        (silent, "", "it has no signature with outputs"),
    ):
        monkeypatch.setattr("sys.argv", ["", model, given, "0", str(tmp_path / "results.npz"), str(THREADS)])
        with pytest.raises(SystemExit) as ended:
            _check._main()
        assert ended.value.code == 1 and capsys.readouterr().out == f"sepconv: {said}\n"


def test_arguments_of_other_types():
    for given, said in (
        (("model",), "output must say where the result is written"),
        ((v1.GraphDef(), "output"), "output is for a model that is given by its path"),
        ((3,), "model must be a GraphDef, a concrete function or a path, got int"),
    ):
        for function in (sepconv.rewrite, sepconv.restore):
            with pytest.raises(TypeError, match=said):
                function(*given)


# Keras


@pytest.mark.parametrize("how", ["save", "frozen"])
def test_keras_layers(how, tmp_path: pathlib.Path):
    """Batch normalisation is multiplied into filters that are frozen."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([24, 24, 8]),
            layers.SeparableConv2D(16, 3, padding="same", activation="relu", bias_initializer="random_normal"),
            layers.SeparableConv2D(16, 3, padding="same", dilation_rate=2, use_bias=False),
            layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal"),
            layers.SeparableConv2D(16, 3, strides=2, depth_multiplier=2),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Conv2D(16, 1),
        ]
    )
    path = tmp_path / "model"
    if how == "save":
        tf.saved_model.save(model, str(path))
    else:
        concrete = tf.function(model).get_concrete_function(tf.TensorSpec([None, 24, 24, 8]))
        path.write_bytes(convert_variables_to_constants_v2(concrete).graph.as_graph_def().SerializeToString())
    report = sepconv.rewrite(path, tmp_path / "ours").report
    functions = {layer.function for layer in report.layers}
    assert len(report.layers) == 4 * len(functions), str(report)
    assert all(map(bias_comes_first, report.left)), str(report)
    assert report.replaced[-1].depthwise_steps == "add multiply add"
    outputs = _check.check(path, tmp_path / "ours", None, 0)
    assert outputs and all(output.same for output in outputs), outputs


def activated(activation, batch, *others):
    """A function of a Keras model that begins with a depthwise part, a normalisation and an activation; and images."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    first = [
        layers.DepthwiseConv2D(3, use_bias=False),
        layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal"),
        layers.Activation(activation),
    ]
    model = keras.Sequential([keras.Input([12, 12, 16]), *first, *others])
    x = tf.random.normal([batch, 12, 12, 16])
    return tf.function(model).get_concrete_function(tf.TensorSpec(x.shape)), x


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


def test_hard_swish():
    """As in MobileNetV3, whose graphs multiply by a sixth."""
    function, x = activated("hard_swish", 1, keras.layers.GlobalAveragePooling2D())
    ours = sepconv.rewrite(function)
    [layer] = ours.report.replaced
    assert layer.depthwise_steps == "multiply add hard_swish", layer
    assert same(ours.model(x), function(x))


def test_hard_swish_whose_sixth_is_moved(arrays):
    """TensorFlow's optimiser multiplies the image by the sixth first here, which rounds otherwise."""
    x, *filters = arrays

    def build(x):
        image = depthwise(x, filters[0])
        return conv(image * (tf.nn.relu6(image + 3) / 6), filters[1])

    original = graph_of(build, x.shape)
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.replaced
    assert layer.depthwise_steps == "hard_swish_sixth_first", layer
    assert same(run(rewritten.model, x), run(original, x))


def test_swish():
    """As Keras makes it, with a gradient of its own; behind a depthwise part alone, and between and behind two."""
    layers = keras.layers
    function, x = activated(
        "swish",
        2,
        layers.AveragePooling2D(2),
        layers.DepthwiseConv2D(3, activation="swish", use_bias=False),
        layers.Conv2D(24, 1, activation="swish", use_bias=False),
    )
    ours = sepconv.rewrite(function)
    word = "swish_onednn" if ONEDNN else "swish"
    steps = [(layer.depthwise_steps, layer.pointwise_steps) for layer in ours.report.replaced]
    assert steps == [(f"multiply add {word}", ""), (word, word)], str(ours.report)
    assert same(ours.model(x), function(x))
    assert same(sepconv.restore(ours.model).model(x), function(x))


def test_xception(tmp_path: pathlib.Path):
    keras.utils.set_random_seed(3)
    model = keras.applications.Xception(weights=None, input_shape=(128, 128, 3), classes=10)
    model.export(tmp_path / "model", verbose=False)
    ended = command("rewrite", tmp_path / "model", tmp_path / "ours", "--check", "--threads", THREADS, "--json", "-")
    assert ended.status == 0, ended.errors
    content = json.loads(ended.output)
    assert (content["replaced"], content["left"]) == (34, 0)
    assert content["check"] and all(output["same"] for output in content["check"])
