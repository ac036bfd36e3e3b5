"""What stands between and behind a layer's two parts becomes steps of the op as far as the bits stay: biases, scales,
normalisations and activations."""

import itertools

import keras
import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN
from helpers import kernel_calls, same
from rewriting import (
    DEPTHWISE,
    FUSED,
    PLAIN,
    UNKNOWN,
    activated,
    bias_comes_first,
    conv,
    depthwise,
    dilated,
    graph_of,
    normalised,
    replaced,
    run,
    statistics,
    types,
    usual,
)

v1 = tf.compat.v1
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
    assert usual(layer.depthwise_steps) == words
    # A constant scale that TensorFlow multiplies into the filter is there already.
    assert usual(layer.pointwise_steps) == (words if not constant else words.removeprefix("multiply").strip())
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
    assert usual(layer.depthwise_steps) == words and layer.pointwise_filter is None
    assert DEPTHWISE in types(ours.model)
    before, expected = sepconv.stats()["depthwise_calls"], run(original, *given)
    assert same(run(ours.model, *given), expected)
    assert sepconv.stats()["depthwise_calls"] - before == 1
    restored = sepconv.restore(ours.model).model
    assert DEPTHWISE not in types(restored) and same(run(restored, *given), expected)


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


def hard_swish(y):
    return y * (tf.nn.relu6(y + 3) / 6)


def biased(x, d, p, b):
    return tf.nn.bias_add(conv(depthwise(x, d), p), b)


# Of an image, filters, numbers for 16 channels and statistics for 12. In another spelling of the same steps, bits may
# differ: TensorFlow's optimiser moves a sixth, or adds in another order where it sees a BiasAdd.
ORIGINALS = {
    "hard_swish": lambda x, d, p, b, s: conv(hard_swish(depthwise(x, d)), p)[:, ::-1],
    "hard_swish alone": lambda x, d, p, b, s: hard_swish(depthwise(x, d))[:, ::-1],
    "biases of two layers": lambda x, d, p, b, s: tf.nn.relu(biased(x, d, p, b) + biased(x, d + 1, p, b + 1)),
    "a bias and images": lambda x, d, p, b, s: tf.add_n([biased(x, d, p, b), *[tf.tile(x[..., :4], [1, 1, 1, 4])] * 2]),
    "scaled": lambda x, d, p, b, s: tf.nn.relu(conv(depthwise(x, d), p) * b / (b + 3) + 0.5),
    "dilated": lambda x, d, p, b, s: conv(tf.nn.relu6(dilated(x, d) + 1.5), p) + b,
    "normalised": lambda x, d, p, b, s: conv(normalised(depthwise(x, d), [s[n] for n in range(4)]), p),
    "by hand": lambda x, d, p, b, s: conv((depthwise(x, d) + -s[2]) * (s[0] * tf.math.rsqrt(s[3] + 1e-3)) + s[1], p),
}


@pytest.mark.parametrize("given", [False, True], ids=["constants", "arguments"])
@pytest.mark.parametrize("name", ORIGINALS)
def test_restored_is_what_was_there(name, given, arrays, rng):
    """The same nodes, and so the same bits; also where the op has got into a function or under another name since."""
    x, *filters = arrays
    numbers = *filters, rng.uniform(0.5, 1.5, [16]).astype(np.float32), np.stack(statistics(rng, 12))
    if given:
        original = graph_of(ORIGINALS[name], x.shape, *[array.shape for array in numbers])
    else:
        original = graph_of(lambda x: ORIGINALS[name](x, *numbers), [None, *x.shape[1:]])
    ours, feeds = sepconv.rewrite(original), (x, *numbers) if given else (x,)
    assert ours.report.replaced, str(ours.report)
    restored = sepconv.restore(ours.model).model
    if name != "scaled" or given:
        assert {node.name: node for node in restored.node} == {node.name: node for node in original.node}
    elsewhere = graph_of(tf.function(lambda *feeds: run_in(ours.model, feeds)), *[array.shape for array in feeds])
    for model in (restored, sepconv.restore(elsewhere).model):
        assert not [type for type in types(model) if "Sepconv" in type]
        assert same(run(model, *feeds), run(original, *feeds))


def run_in(definition, feeds):
    """A graph in the one that is being built."""
    return tf.graph_util.import_graph_def(definition, {f"x{n}": x for n, x in enumerate(feeds)}, ["y:0"], name="in")[0]


def test_what_an_older_sepconv_rewrote_is_restored(arrays):
    """It did not keep what was there."""
    x, *filters = arrays
    original = graph_of(lambda x: tf.nn.relu(tf.nn.separable_conv2d(x, *filters, **PLAIN) + 1), x.shape)
    ours = replaced(original)
    for node in ours.node:
        node.attr.pop("_sepconv_original", None)
    restored = sepconv.restore(ours).model
    assert types(restored) == types(original) and same(run(restored, x), run(original, x))


def test_hard_swish():
    """As in MobileNetV3, whose graphs multiply by a sixth."""
    function, x = activated("hard_swish", 1, keras.layers.GlobalAveragePooling2D())
    ours = sepconv.rewrite(function)
    [layer] = ours.report.replaced
    assert layer.depthwise_steps == "multiply add hard_swish", layer
    assert same(ours.model(x), function(x)) and same(sepconv.restore(ours.model).model(x), function(x))


def test_hard_swish_whose_sixth_is_moved(arrays):
    """TensorFlow's optimiser multiplies the image by the sixth first here, which rounds otherwise."""
    x, *filters = arrays

    original = graph_of(lambda x: conv(hard_swish(depthwise(x, filters[0])), filters[1]), x.shape)
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
