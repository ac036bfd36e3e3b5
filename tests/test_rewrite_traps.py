"""Graphs in which something looks like what it is not, or stands where little can be put: the same bits, and back."""

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from helpers import same
from rewriting import PLAIN, conv, depthwise, graph_of, normalised, replaced, run, statistics, types
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

v1 = tf.compat.v1


@pytest.fixture
def layer(rng):
    """A function of images of 8 channels; each call is a layer of its own."""

    def layer(x, between=lambda y: y):
        filters = [rng.standard_normal(shape).astype(np.float32) for shape in ([3, 3, 8, 1], [1, 1, 8, 8])]
        return conv(between(depthwise(x, filters[0])), filters[1])

    return layer


def check(original, *arrays, layers=1):
    """Rewritten, with so many layers replaced, and restored: the bits are the original's."""
    expected, ours = run(original, *arrays), replaced(original, layers)
    assert same(run(ours, *arrays), expected)
    restored = sepconv.restore(ours).model
    assert "Sepconv>" not in "".join(types(restored)) and same(run(restored, *arrays), expected)


# Of one pixel each, images have the shape of numbers for all pixels.
OF_ONE_PIXEL = {
    "sum": (lambda x, f: f(x) + f(x * 2), 2),
    "sum of three": (lambda x, f: f(x) + f(x * 2) + f(x * 3), 3),
    "sum of ReLUs": (lambda x, f: tf.nn.relu(f(x) + tf.nn.relu(f(x * 2))), 2),
    "product between": (lambda x, f: f(x, lambda y: tf.nn.relu6(y * tf.nn.relu(f(x * 2)))), 2),
    "product with itself": (lambda x, f: (y := f(x)) * y, 1),
}


@pytest.mark.parametrize("name", OF_ONE_PIXEL)
def test_images_of_one_pixel(name, layer, rng):
    build, layers = OF_ONE_PIXEL[name]
    x = rng.standard_normal([1, 1, 1, 8]).astype(np.float32)
    check(graph_of(lambda x: build(x, layer), x.shape), x, layers=layers)


@pytest.mark.parametrize("behind", [lambda y: y, lambda y: tf.nn.relu(y + 0.5)], ids=["", "number"])
def test_in_a_loop_of_tensorflow_1(behind, layer, rng):
    """Constants are of the loop there only if something of it says so."""
    x = rng.standard_normal([2, 6, 5, 8]).astype(np.float32)

    def build(x):
        return v1.while_loop(lambda i, y: i < 2, lambda i, y: (i + 1, y + behind(layer(x))), [0, x])[1]

    v1.disable_control_flow_v2()
    try:
        original = graph_of(build, x.shape)
    finally:
        v1.enable_control_flow_v2()
    assert {"Enter", "Exit"} <= types(original)
    check(original, x)


def test_who_stands_beside_numbers_stays(layer, rng):
    """A node that is to be placed where a number is, which is gone."""
    x = rng.standard_normal([2, 6, 5, 8]).astype(np.float32)

    def build(x):
        number = tf.constant(0.5)
        with v1.colocate_with(number.op):
            beside = tf.identity(x)
        return tf.nn.relu(layer(x) + number) + beside

    check(graph_of(build, x.shape), x)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 3e38])
def test_not_a_number_behind_a_relu(value, layer, rng):
    """Infinite channels of both signs are no number when they are added up, and only then: two kinds of ReLU differ."""
    x = rng.standard_normal([2, 9, 9, 8]).astype(np.float32)
    x[0, 4, 4] = value
    numbers = statistics(rng, 8)

    def build(x):
        y = layer(x, lambda y: tf.nn.relu(normalised(y, numbers)))
        return tf.nn.relu(tf.nn.bias_add(y, numbers[1]))[:, ::-1]

    check(graph_of(build, x.shape), x)


def test_statistics_that_somebody_takes(layer, rng):
    """A normalisation gives more than images."""
    x, [scale, offset, mean, variance] = rng.standard_normal([2, 6, 5, 8]).astype(np.float32), statistics(rng, 8)

    def build(x):
        y, taken, *_ = tf.raw_ops.FusedBatchNormV3(
            x=layer(x), scale=scale, offset=offset, mean=mean, variance=variance, is_training=False
        )
        return tf.nn.relu(y) + taken

    check(graph_of(build, x.shape), x)


def test_a_number_that_adds_a_dimension(layer, rng):
    x = rng.standard_normal([2, 6, 5, 8]).astype(np.float32)
    sixth, three = np.full([1, 1, 1, 1, 1], 1 / 6, np.float32), np.float32(3)

    def build(x):
        return (y := layer(x)) * (tf.nn.relu6(y + three) * sixth)

    original = graph_of(build, x.shape)
    assert run(original, x).shape == [1, *x.shape] and run(replaced(original), x).shape == [1, *x.shape]
    check(original, x)


def test_no_images(layer):
    [left] = sepconv.rewrite(graph_of(layer, [0, 6, 5, 8])).report.layers
    assert not left.replaced and left.reason == "the image is empty"


def test_functions_with_variables_and_without_a_signature(rng):
    """One that was made of a graph has none, and may have a variable as an argument otherwise."""
    x = tf.constant(rng.standard_normal([2, 6, 5, 8]), tf.float32)
    variables = [tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ([3, 3, 8, 1], [1, 1, 8, 4])]
    function = tf.function(lambda x, p: {"y": tf.nn.separable_conv2d(x, variables[0], p, **PLAIN)})
    given = function.get_concrete_function(tf.TensorSpec(x.shape), variables[1])
    frozen = convert_variables_to_constants_v2(
        tf.function(lambda x: function(x, variables[1])).get_concrete_function(tf.TensorSpec(x.shape))
    )
    for concrete, arguments in ((given, (x, variables[1])), (frozen, (x,))):
        expected, rewritten = concrete(*arguments), sepconv.rewrite(concrete)
        assert len(rewritten.report.replaced) == 1 and not rewritten.report.left
        for model in (rewritten.model, sepconv.restore(rewritten.model).model):
            tf.nest.assert_same_structure(model(*arguments), expected)
            assert all(map(same, tf.nest.flatten(model(*arguments)), tf.nest.flatten(expected)))
