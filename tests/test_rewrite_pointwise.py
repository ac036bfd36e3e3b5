"""1x1 convolutions that belong to no depthwise one, as in front of MobileNetV2's: with the steps behind them they
become an op as far as the bits stay."""

import functools

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN
from helpers import bits, same
from rewriting import (
    PLAIN,
    POINTWISE,
    UNKNOWN,
    bias_comes_first,
    conv,
    depthwise,
    graph_of,
    normalised,
    run,
    statistics,
    types,
    usual,
)

# By steps, in the op's words: attributes, and what stands behind.
STEPS = {
    "add": ({}, lambda y, m, b: tf.nn.bias_add(y, b)[:, ::-1]),
    "add relu": ({"strides": [1, 2, 2, 1], "padding": "SAME"}, lambda y, m, b: tf.nn.relu(tf.nn.bias_add(y, b))),
    "multiply add relu6": ({}, lambda y, m, b: tf.nn.relu6(y * m + b)),
    "multiply add": ({"strides": [1, 2, 3, 1]}, lambda y, m, b: (y * m + b)[:, ::-1]),
    "relu6": ({}, lambda y, m, b: tf.nn.relu6(y)[:, ::-1]),
    "multiply add swish_onednn" if ONEDNN else "multiply add swish": (
        {},
        lambda y, m, b: (z := y * m + b) * tf.sigmoid(z),
    ),
    "add leaky_relu(0.20000000298023224)": ({}, lambda y, m, b: tf.nn.leaky_relu(y + b, 0.2)),
}


@pytest.fixture
def given(rng):
    """An image with numbers of all kinds, a filter, a scale and a bias."""
    x = rng.standard_normal([2, 9, 8, 10]).astype(np.float32)
    x[:, 2:4] = np.maximum(x[:, 2:4], 0)
    x[0, 5, :3, 1] = np.nan, np.inf, -0.0
    filter = rng.standard_normal([1, 1, 10, 24]).astype(np.float32)
    return [x, filter, *rng.uniform(0.5, 1.5, [2, 24]).astype(np.float32)]


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("constant", [False, True], ids=["arguments", "constants"])
@pytest.mark.parametrize("words", STEPS)
def test_with_steps(words, constant, unknown, given):
    attributes, behind = STEPS[words]
    shape = [None if n in UNKNOWN[unknown] else extent for n, extent in enumerate(given[0].shape)]

    def build(x, *others):
        filter, *numbers = given[1:] if constant else others
        return behind(conv(x, filter, **attributes), *numbers)

    feeds = given[: 1 if constant else None]
    original = graph_of(build, shape, *[array.shape for array in feeds[1:]])
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.layers
    if bias_comes_first(layer):
        assert same(run(rewritten.model, *feeds), run(original, *feeds))
        return
    assert layer.replaced, layer
    scaled = words.removeprefix("multiply").strip() if constant else words
    assert usual(layer.pointwise_steps) == scaled and layer.depthwise_filter is None and layer.depthwise_steps == ""
    assert "1x1 to 24" in str(rewritten.report) and layer.strides == tuple(
        attributes.get("strides", PLAIN["strides"])[1:3]
    )
    assert POINTWISE in types(rewritten.model) and "Conv2D" not in types(rewritten.model)
    before, expected = sepconv.stats(), run(original, *feeds)
    assert same(run(rewritten.model, *feeds), expected)
    after = sepconv.stats()
    assert [after[key] - before[key] for key in ("pointwise_calls", "kernel_calls", "depthwise_calls")] == [1, 0, 0]
    restored = sepconv.restore(rewritten.model)
    [back] = restored.report.replaced
    assert (back.input, back.pointwise_filter, back.pointwise_steps) == (
        layer.input,
        layer.pointwise_filter,
        layer.pointwise_steps,
    )
    assert POINTWISE not in types(restored.model) and same(run(restored.model, *feeds), expected)


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype, batch, rng):
    """Replaced or left, the bits are TensorFlow's."""
    arrays = [tf.constant(rng.standard_normal(shape), dtype) for shape in ([2, 7, 7, 32], [1, 1, 32, 48], [48])]

    def build(x, filter, bias):
        return tf.nn.relu6(conv(x, filter) + bias)

    shapes = [[batch, 7, 7, 32], *[array.shape for array in arrays[1:]]]
    original = graph_of(build, *shapes, dtype=arrays[0].dtype)
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.layers
    assert layer.replaced or dtype != "float64", layer
    assert same(run(rewritten.model, *arrays), run(original, *arrays))
    assert same(run(sepconv.restore(rewritten.model).model, *arrays), run(original, *arrays))


def block(x, expand, first, d, p, last):
    """An inverted residual block, as in MobileNetV2."""
    y = tf.nn.relu6(normalised(conv(x, expand), first))
    y = tf.nn.relu6(normalised(depthwise(y, d), first))
    return x + normalised(conv(y, p), last)


@pytest.fixture
def network(rng):
    shapes = [1, 1, 16, 48], [3, 3, 48, 1], [1, 1, 48, 16]
    expand, d, p = [tf.Variable(rng.standard_normal(shape), dtype=tf.float32) for shape in shapes]
    first, last = [tf.nest.map_structure(tf.Variable, statistics(rng, channels)) for channels in (48, 16)]
    variables = expand, first, d, p, last

    def call(x):
        for _ in range(2):
            x = block(x, *variables)
        return {"y": x}

    return tf.function(call, autograph=False), tf.nest.flatten(variables)


@pytest.mark.parametrize("batch", [2, None])
def test_a_block_of_mobilenet_v2(network, batch, rng, tmp_path):
    """Both 1x1 convolutions become ops, each with its own, in a saved model, too; and training goes on through them."""
    function, variables = network
    concrete = function.get_concrete_function(tf.TensorSpec([batch, 8, 8, 16], name="x"))
    rewritten = sepconv.rewrite(concrete)
    layers = rewritten.report.replaced
    assert len(layers) == 4 and not rewritten.report.left, str(rewritten.report)
    assert sum(layer.depthwise_filter is None for layer in layers) == 2
    x = tf.constant(rng.standard_normal([2, 8, 8, 16]), tf.float32)

    def gradients(model):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x)["y"]
        return tape.gradient(y, [x, *variables])

    assert same(rewritten.model(x)["y"], concrete(x)["y"])
    for ours, theirs in zip(gradients(rewritten.model), gradients(concrete), strict=True):
        if theirs is None:  # of a mean or a variance that was seen in training
            continue
        # The function's own backward graph is optimised with its forward graph, this one by itself.
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3 * np.abs(theirs).max())

    module = tf.Module()
    module.variables_of_model = variables
    tf.saved_model.save(module, tmp_path / "model", {"serving_default": concrete})
    assert len(sepconv.rewrite(tmp_path / "model", tmp_path / "ours").report.replaced) == 4
    served = tf.saved_model.load(tmp_path / "ours").signatures["serving_default"]
    assert same(served(x=x)["y"], concrete(x)["y"])


def test_gradients_of_the_op(rng):
    """Those of TensorFlow's operations, which compute it again."""
    x, filter, scale = [rng.standard_normal(shape).astype(np.float32) for shape in ([2, 7, 6, 5], [1, 1, 5, 8], [8])]
    original = graph_of(
        lambda x, f, m: tf.nn.relu(conv(x, f, strides=[1, 2, 2, 1]) * m + 0.5), x.shape, filter.shape, scale.shape
    )
    rewritten = sepconv.rewrite(original)
    assert len(rewritten.report.replaced) == 1, str(rewritten.report)

    def gradients(definition, *tensors):
        y = tf.graph_util.import_graph_def(definition, dict(zip(("x0", "x1", "x2"), tensors, strict=True)), ["y:0"])[0]
        return tf.gradients(y, tensors)

    tensors = [*map(tf.constant, (x, filter, scale))]
    ours, theirs = [tf.function(functools.partial(gradients, model))(*tensors) for model in (rewritten.model, original)]
    assert all(np.any(gradient) for gradient in theirs)
    assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))


# What stays as it is, and is no layer of the report; or is left, for a reason.
STAY = {
    "no steps": (lambda x, f: conv(x, f)[:, ::-1], None),
    "3x3": (lambda x, f: tf.nn.relu(conv(x, tf.tile(f, [3, 3, 1, 1]))), None),
    "a step of the batch": (lambda x, f: conv(x, f) * np.float32([[[[1]]], [[[2]]]]), None),
    "groups": (lambda x, f: tf.nn.relu(conv(x, f[:, :, :5])), "takes its channels in groups"),
    "padding": (
        lambda x, f: tf.nn.relu(conv(x, f, padding="EXPLICIT", explicit_paddings=[0, 0, 1, 0, 0, 0, 0, 0])),
        "has padding",
    ),
}


@pytest.mark.parametrize("name", STAY)
def test_what_stays(name, given):
    build, reason = STAY[name]
    original = graph_of(build, given[0].shape, given[1].shape)
    rewritten = sepconv.rewrite(original)
    assert not rewritten.report.replaced
    assert [layer.reason.split(" ", 1)[1] for layer in rewritten.report.left] == ([reason] if reason else [])
    assert rewritten.model == original


def test_what_somebody_else_takes_is_no_step(given):
    """Neither what another operation takes nor what an op has become of."""
    x, filter, scale, bias = given

    def build(x):
        y = conv(x, filter) + bias
        z = tf.nn.relu(y)
        d = depthwise(z, np.ones([3, 3, 24, 1], np.float32))
        return tf.concat([y, tf.nn.relu6(conv(d, np.ones([1, 1, 24, 24], np.float32)) + bias)], 3)

    original = graph_of(build, x.shape)
    rewritten = sepconv.rewrite(original)
    words = {usual(layer.pointwise_steps) for layer in rewritten.report.replaced}
    assert words <= {"add", "add relu6"} and "add" in words, str(rewritten.report)
    assert same(run(rewritten.model, x), run(original, x))


@pytest.mark.parametrize("first", ["1x1", "separable"])
@pytest.mark.parametrize("activation", [tf.nn.relu, tf.nn.relu6, tf.nn.elu, tf.nn.leaky_relu], ids=lambda f: f.__name__)
def test_two_that_are_added(activation, first, given):
    """TensorFlow may compute the sum and its activation together with either of them: with the second one, where the
    first is an op; alone, where both are. What is not a number shows it."""
    x, filter, _, bias = given
    x[1, 1, 1], x[1, 2, 2] = np.nan, np.inf

    def build(x):
        before = x if first == "1x1" else depthwise(x, np.ones([3, 3, 10, 1], np.float32))
        y, z = [tf.nn.bias_add(conv(image, f), bias) for image, f in ((before, filter), (x, -filter))]
        return activation(y + z)

    original = graph_of(build, x.shape)
    rewritten = sepconv.rewrite(original)
    assert len(rewritten.report.layers) == 2
    assert same(run(rewritten.model, x), run(original, x))
    assert same(run(sepconv.restore(rewritten.model).model, x), run(original, x))


# What the optimiser multiplies into a constant filter, or does not: how many are replaced.
IN_FRONT = {
    "a number": (lambda x: x * 0.17, 0),
    "divided by a number": (lambda x: x / 255, 0),
    "Keras's Rescaling": (lambda x: x * (1 / 255) + 0.0, 0),
    "the same twice": (lambda x: x + x, 0),
    "behind what changes nothing": (lambda x: tf.transpose(x * 0.17, [0, 2, 1, 3]), 0),
    "hard sigmoid": (lambda x: tf.nn.relu6(x + 3) * (1 / 6), 0),
    "a scale": (lambda x: x * np.linspace(0.5, 1.5, 10, dtype=np.float32), 1),
    "an offset": (lambda x: x + 0.5, 1),
    "ReLU": (lambda x: tf.nn.relu(x * 0.17), 1),
}


@pytest.mark.parametrize("in_caller", [False, True], ids=["here", "in the caller"])
@pytest.mark.parametrize("name", IN_FRONT)
def test_what_stands_in_front(name, in_caller, given):
    front, count = IN_FRONT[name]
    x, filter, _, bias = given

    def convolve(x):
        return tf.nn.relu(conv(x, filter) + bias)

    inner = tf.function(convolve) if in_caller else convolve
    original = graph_of(lambda x: inner(front(tf.nn.relu(x))), x.shape)
    rewritten = sepconv.rewrite(original)
    assert len(rewritten.report.replaced) == count, str(rewritten.report)
    assert same(run(rewritten.model, x), run(original, x))


# Layers of which TensorFlow computes some once, and those that are each other's surroundings.
TWINS = {
    "scaled": lambda x, f, m, b: tf.concat([conv(x, f) * 0.3 + b, conv(x, f)[:, ::-1]], 3),
    "activation": lambda x, f, m, b: tf.concat([tf.nn.relu(conv(x, f) + b), tf.nn.relu6(conv(x, f) + b)], 3),
    "mixed": lambda x, f, m, b: tf.nn.relu(tf.nn.bias_add(conv(x, f), b) + (conv(x, f + 1) + m)),
    "mixed, the other way": lambda x, f, m, b: tf.nn.relu((conv(x, f + 1) + m) + tf.nn.bias_add(conv(x, f), b)),
    "three": lambda x, f, m, b: tf.nn.elu(tf.add_n([tf.nn.bias_add(conv(x, f * n), b) for n in (1, 2, 3)])),
}


@pytest.mark.parametrize("name", TWINS)
def test_twins(name, given):
    x, *others = given
    original = graph_of(lambda x: TWINS[name](x, *others), x.shape)
    rewritten = sepconv.rewrite(original)
    assert same(run(rewritten.model, x), run(original, x))
    assert same(run(sepconv.restore(rewritten.model).model, x), run(original, x))


def test_steps_on_a_gpu_stay(given):
    """The op has no kernel there."""
    x, filter, _, bias = given

    def build(x):
        y = conv(x, filter) + bias
        with tf.device("/GPU:0"):
            return tf.nn.leaky_relu(y, 0.2, name="on_gpu")

    rewritten = sepconv.rewrite(graph_of(build, x.shape))
    [layer] = rewritten.report.replaced
    [node] = [node for node in rewritten.model.node if node.name == "on_gpu"]
    assert layer.pointwise_steps == "add" and (node.op, node.device) == ("LeakyRelu", "/device:GPU:0")


def test_a_left_layer_whose_second_part_is_replaced(given):
    """Each of them is named after its own convolution."""
    x, filter, _, bias = given

    def build(x):
        pixels = tf.tanh(depthwise(x, np.ones([3, 3, 10, 1], np.float32), name="first"))
        return tf.nn.relu6(conv(pixels, filter, name="second") + bias)[:, ::-1]

    rewritten = sepconv.rewrite(graph_of(build, x.shape))
    nodes = [(layer.node, layer.replaced) for layer in rewritten.report.layers]
    assert nodes == [("first", False), ("second", True)], str(rewritten.report)


def test_minus_zero_and_subnormal_numbers():
    """A sum that was flushed to -0 stays one where all that follows is -0: pixels are taken as they are."""
    tiny = np.finfo(np.float32).tiny
    x = np.full([1, 7, 7, 16], -0.0, np.float32)
    x[..., 0] = -tiny
    filter = np.full([1, 1, 16, 32], 0.5, np.float32)
    function = tf.function(lambda x, f, b: conv(x, f) * b)
    concrete = function.get_concrete_function(*[tf.TensorSpec(s, np.float32) for s in (x.shape, filter.shape, [32])])
    rewritten = sepconv.rewrite(concrete)
    assert len(rewritten.report.replaced) == 1, str(rewritten.report)
    arrays = [tf.constant(array) for array in (x, filter, np.ones([32], np.float32))]
    expected = concrete(*arrays)
    assert same(rewritten.model(*arrays), expected)
    assert not ONEDNN or (bits(expected) == bits(np.float32(-0.0))).all()


def test_a_few_pixels_of_an_image_of_unknown_extents(rng):
    """TensorFlow multiplies a single one as a vector, and several in other ways."""
    filter, bias = rng.standard_normal([1, 1, 96, 24]).astype(np.float32), rng.standard_normal(24).astype(np.float32)
    graph = graph_of(lambda x, filter, b: tf.nn.relu(conv(x, filter) + b), [1, None, None, 96], filter.shape, [24])
    rewritten = sepconv.rewrite(graph)
    assert len(rewritten.report.replaced) == 1, str(rewritten.report)
    for height, width in [(1, 1), (1, 2), (1, 3), (2, 2), (1, 5), (2, 3), (1, 7), (2, 4), (3, 3), (7, 7)]:
        x = rng.standard_normal([1, height, width, 96]).astype(np.float32)
        assert same(run(rewritten.model, x, filter, bias), run(graph, x, filter, bias)), (height, width)
