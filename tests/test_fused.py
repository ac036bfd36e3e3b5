"""The op with steps behind its parts, which models are rewritten to: the bits of TensorFlow's operations one after the
other, static shapes, and what is refused.
"""

import itertools

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, PROMISED, THREADS
from fresh import in_fresh_process
from helpers import same

DTYPES = [tf.float16, tf.bfloat16, tf.float32, tf.float64]
HAVE_NUMBERS = {"add": 1, "multiply": 1, "multiply_add": 2}


def fused(x, factor, addend):
    """Of float32: their products are exact as float64."""
    return tf.cast(tf.cast(x, tf.float64) * tf.cast(factor, tf.float64) + tf.cast(addend, tf.float64), x.dtype)


# As TensorFlow's own attribute holds a fifth.
LEAKY = f"leaky_relu({np.float32(0.2).item()!r})"
STEPS = {
    "add": lambda x, numbers: x + next(numbers),
    "multiply": lambda x, numbers: x * next(numbers),
    "multiply_add": lambda x, numbers: fused(x, next(numbers), next(numbers)),
    "relu": lambda x, _: tf.nn.relu(x),
    "relu6": lambda x, _: tf.nn.relu6(x),
    "relu_onednn": lambda x, _: tf.where(x > 0, x, tf.zeros_like(x)),
    "relu6_onednn": lambda x, _: tf.where(x > 0, tf.minimum(x, 6), tf.zeros_like(x)),
    LEAKY: lambda x, _: tf.nn.leaky_relu(x, 0.2),
    # As graphs compute it, which multiply by a sixth what is to be divided by 6.
    "hard_swish": lambda x, _: x * (tf.nn.relu6(x + 3) * (1 / 6)),
    "hard_swish_sixth_first": lambda x, _: (x * (1 / 6)) * tf.nn.relu6(x + 3),
    "swish": lambda x, _: x * tf.sigmoid(x),
}
if ONEDNN:  # which computes it otherwise, and in graphs only
    _swish = tf.function(lambda x: x * tf.sigmoid(x), reduce_retracing=True)
    STEPS["swish_onednn"] = lambda x, _: _swish(x)
OF_FLOAT32 = [word for word in STEPS if word.startswith("swish")]


# Arguments: a folder with a model and an image, the library, how many threads.
RUN_SAVED = """
import sys
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[3]))
tf.load_op_library(sys.argv[2])
model = tf.saved_model.load(sys.argv[1] + "/model")
np.save(sys.argv[1] + "/result.npy", model.call(tf.constant(np.load(sys.argv[1] + "/image.npy"))))
assert "sepconv" not in sys.modules
"""


def op(*arguments, **attributes):
    return tf.load_op_library(sepconv.library_path()).sepconv_fused_separable_conv2d(*arguments, **attributes)


def depthwise_op(*arguments, **attributes):
    return tf.load_op_library(sepconv.library_path()).sepconv_fused_depthwise_conv2d(*arguments, **attributes)


def carrier(strides, padding):
    """As graphs hold attributes."""
    return tf.zeros([0, *strides, 1, 1, ["SAME", "VALID"].index(padding)], tf.int32)


class Layer:
    """A layer with random filters and numbers for the steps behind its parts."""

    def __init__(self, rng, dtype, image, kernel, multiplier, out_channels, strides, padding, steps):
        k = image[3] * multiplier
        shapes = [*kernel, image[3], multiplier], [1, 1, k, out_channels]
        self.filters = [tf.Variable(rng.standard_normal(shape) / 3, dtype=dtype) for shape in shapes]
        self.steps, channels = steps, (k, out_channels)
        counts = [sum(HAVE_NUMBERS.get(word, 0) for word in words) for words in steps]
        shapes = [shape for shape, count in zip(channels, counts, strict=True) for _ in range(count)]
        self.numbers = [tf.Variable(rng.standard_normal(shape), dtype=dtype) for shape in shapes]
        self.strides, self.padding = strides, padding
        self.image = tf.constant(rng.standard_normal(image), dtype)

    def theirs(self, x):
        numbers, (depthwise_filter, pointwise_filter) = iter(self.numbers), self.filters
        # TensorFlow's own depthwise operation wants equal strides of both directions.
        x = tf.nn.depthwise_conv2d(x, depthwise_filter, [1, *self.strides, 1], self.padding)
        for word in self.steps[0]:
            x = STEPS[word](x, numbers)
        x = tf.nn.conv2d(x, pointwise_filter, 1, "VALID")
        for word in self.steps[1]:
            x = STEPS[word](x, numbers)
        return x

    def ours(self, x, **more):
        attributes = {"strides": [1, *self.strides, 1], "padding": self.padding}
        explanation = sepconv.explain(x, *self.filters, **attributes)
        if explanation.path != "op":
            pytest.skip(explanation.reason)
        words = {
            f"{part}_steps": " ".join(words) for part, words in zip(("depthwise", "pointwise"), self.steps, strict=True)
        }
        return op(
            *(x, *self.filters, carrier(self.strides, self.padding), self.numbers),
            numerics=explanation.numerics,
            **words,
            **more,
        )


PAIRS = [*itertools.product(STEPS, repeat=2)]
CASES = [
    ([1, 7, 7, 64], (3, 3), 1, 96, (1, 1), "SAME", (["multiply", "add", "relu6"], ["multiply", "add", "relu6"])),
    ([2, 9, 8, 13], (3, 3), 2, 21, (2, 2), "VALID", (["add", "relu"], ["add", LEAKY])),
    (
        [2, 6, 7, 33],
        (5, 3),
        1,
        8,
        (1, 1),
        "SAME",
        (["multiply", "add", "hard_swish"], ["multiply", "add", "hard_swish"]),
    ),
    ([1, 12, 12, 16], (3, 3), 1, 40, (2, 2), "SAME", ([], ["relu"])),
    ([1, 12, 12, 16], (3, 3), 1, 40, (1, 1), "SAME", ([LEAKY], [])),
]


@PROMISED
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[5]}")
def test_the_bits_of_operations_one_after_the_other(rng, dtype, case):
    layer = Layer(rng, dtype, *case)
    expected = layer.theirs(layer.image)
    before = sepconv.stats()["fused_calls"]
    assert same(tf.function(layer.ours)(layer.image), expected)
    assert same(layer.ours(layer.image), expected)
    assert sepconv.stats()["fused_calls"] - before == 2


@PROMISED
@pytest.mark.parametrize("steps", PAIRS, ids=" ".join)
def test_any_step_may_follow_any_other(rng, steps):
    # An image of eight pixels: Eigen's swish takes eight numbers at a time, and others otherwise.
    case = [2, 2, 4, 18], (3, 3), 1, 17, (1, 1), "SAME", ([*steps], [*reversed(steps)])
    layer = Layer(rng, tf.float32, *case)
    # Eagerly: TensorFlow's graphs add two additions up first, and multiply two factors.
    assert same(layer.ours(layer.image), layer.theirs(layer.image))


@pytest.mark.parametrize("word", OF_FLOAT32)
def test_swish_of_numbers_of_every_size(word):
    bits = np.arange(2**16, dtype=np.uint32) * 65537  # every exponent, and mantissas from one end to the other
    x = tf.constant(bits.view(np.float32).reshape(1, 64, 64, 16))
    x = x + 0.0  # as the sum of products gives zeros
    numerics = "v1 depthwise(fused, inside) pointwise(fused, chain) subnormals(flushed)"
    ours = depthwise_op(x, tf.ones([1, 1, 16, 1]), carrier((1, 1), "SAME"), [], numerics=numerics, depthwise_steps=word)
    assert same(ours, STEPS[word](x, None))


@PROMISED
def test_a_filter_is_packed_once_whatever_the_other_operands(rng):
    layer = Layer(rng, tf.float32, *CASES[0])
    function = tf.function(lambda x: layer.ours(x, constant_filters=True))
    before = sepconv.stats()["packings"]

    def check():
        for image in (layer.image, 2 * layer.image, layer.image[:, 1:]):
            assert same(function(image), layer.ours(image))
        return sepconv.stats()["packings"] - before

    packed = check()  # for each of two shapes
    for variable in (layer.filters[0], *layer.numbers):
        variable.assign_sub(tf.ones_like(variable))
        assert check() == packed
    layer.filters[1].assign(-layer.filters[1])
    assert check() > packed


def test_static_shapes_are_kept(rng):
    layer = Layer(rng, tf.float32, *CASES[1])

    @tf.function(input_signature=[tf.TensorSpec([None, 9, None, 13])])
    def convolve(x):
        geometry, words = carrier(layer.strides, layer.padding), {"depthwise_steps": "add relu"}
        alone = depthwise_op(x, layer.filters[0], geometry, layer.numbers[:1], numerics="reproducible", **words)
        words["pointwise_steps"] = "add leaky_relu(0.2)"
        return alone, op(x, *layer.filters, geometry, layer.numbers, numerics="reproducible", **words)

    shapes = [shape.as_list() for shape in convolve.get_concrete_function().output_shapes]
    assert shapes == [[None, 4, None, 26], [None, 4, None, 21]]
    assert [y.shape for y in convolve(layer.image)] == [[2, 4, 3, 26], [2, 4, 3, 21]]


@PROMISED
def test_a_saved_model_needs_the_library_only(rng, tmp_path):
    layer = Layer(rng, tf.float32, *CASES[0])
    module = tf.Module()
    module.variables_of_it = [*layer.filters, *layer.numbers]
    module.call = tf.function(layer.ours, input_signature=[tf.TensorSpec(layer.image.shape)])
    tf.saved_model.save(module, str(tmp_path / "model"))
    np.save(tmp_path / "image.npy", layer.image)
    in_fresh_process(
        RUN_SAVED,
        *(str(tmp_path), sepconv.library_path(), str(THREADS)),
    )
    assert same(np.load(tmp_path / "result.npy"), layer.theirs(layer.image))


def test_what_is_refused(rng):
    x, depthwise_filter, pointwise_filter = tf.ones([1, 4, 4, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 5])

    def refused(numbers, *steps):
        """By the depthwise part alone, if there are steps behind that only."""
        alone = len(steps) == 1
        filters = (depthwise_filter, pointwise_filter)[: 1 if alone else 2]
        words = dict(zip(("depthwise_steps", "pointwise_steps"), steps, strict=False))
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            call = depthwise_op if alone else op
            call(x, *filters, carrier((1, 1), "SAME"), numbers, numerics="reproducible", **words)
        return error.value.message

    for nothing in ([], [""]):
        assert (
            "depthwise_steps: a step must be add, multiply, multiply_add, relu, relu6, relu_onednn, relu6_onednn, "
            "leaky_relu(number), hard_swish, hard_swish_sixth_first, swish or swish_onednn, got"
            in refused([], "gelu", *nothing)
        )
        assert "numbers must be 1 tensors, as many as the steps have, got 0" in refused([], "relu add", *nothing)
        assert "numbers must be 0 tensors" in refused([tf.ones([2])], "relu", *nothing)
        message = refused([tf.ones([3])], "add", *nothing)
        assert "step 0 behind the depthwise part must have a number for each of 2 channels, got 3" in message
    assert "numbers must be 1 tensors, as many as the steps have, got 0" in refused([], "", "relu add")
    message = refused([tf.ones([2]), tf.ones([4])], "multiply", "add")
    assert "step 0 behind the pointwise part must have a number for each of 5 channels, got 4" in message
    for shape in [2, 1], [2, 1, 1, 1], [1, 2, 1, 1], [1, 1, 1, 1, 2]:
        message = refused([tf.ones([2]), tf.ones(shape)], "multiply add")
        limit = "must have at most 4 dimensions, all of them 1 but the last"
        assert f"numbers[1] {limit}, got shape {shape}" in message


def gradients(convolve, layer):
    """Of all that the layer is made of, eagerly and in a graph, and some of the second order."""
    sources = [layer.image, *layer.filters, *layer.numbers]

    def of(x):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(x)
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                y = convolve(x)
            first = tape.gradient(y, [x, *sources[1:]])
            of_filter = tape.gradient(y, layer.filters[0])
        return *first, of_filter, *outer.gradient(of_filter, [x, layer.filters[1]])

    return *of(layer.image), *tf.function(of)(layer.image)


@PROMISED
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
def test_gradients_are_those_of_tensorflows_operations(rng, dtype):
    layer = Layer(rng, dtype, *CASES[0])
    ours, theirs = gradients(layer.ours, layer), gradients(layer.theirs, layer)
    assert len(ours) == 2 * (7 + 3)
    for gradient, expected in zip(ours, theirs, strict=True):
        assert gradient.shape == expected.shape and gradient.dtype == expected.dtype
        assert dtype is not tf.float32 or same(gradient, expected)


def test_gradients_of_one_tensor_taken_twice_are_added_up():
    x, scale = tf.ones([1, 4, 4, 2]), tf.Variable([2.0, 2.0, 2.0])
    filters = tf.ones([1, 1, 2, 1]), tf.ones([1, 1, 2, 3])
    with tf.GradientTape() as tape:
        words = {"pointwise_steps": "multiply multiply", "numerics": "reproducible"}
        y = op(x, *filters, carrier((1, 1), "SAME"), [scale, scale], **words)
    # Of 2 * scale**2 at 16 pixels.
    assert tape.gradient(y, scale).numpy().tolist() == [128.0] * 3


def test_gradients_of_a_rewritten_function(rng):
    """The depthwise part alone, with a Pad in front, too: its zeros count."""
    x, filter, bias = (
        tf.ones([1, 8, 8, 4]),
        tf.Variable(rng.standard_normal([3, 3, 4, 1]), dtype=tf.float32),
        tf.ones(4),
    )

    def convolve(x):
        padded = tf.pad(x, [[0, 0], [0, 1], [0, 1], [0, 0]])
        return tf.nn.relu(tf.nn.depthwise_conv2d(padded, filter, [1, 2, 2, 1], "VALID") + bias)

    original = tf.function(convolve).get_concrete_function(tf.TensorSpec(x.shape))
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.replaced
    assert (layer.pointwise_filter, layer.padding) == (None, ((0, 1), (0, 1)))
    results = []
    for function in original, rewritten.model:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = function(x)
        results.append(tape.gradient(y, [x, filter]))
    assert all(itertools.starmap(same, zip(*results, strict=True)))
