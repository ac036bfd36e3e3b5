"""What stands around a layer decides about its bits too: TensorFlow's optimiser multiplies constants into filters, adds
up in an order of its own, across what leaves numbers as they are, and puts functions in the place of their calls."""

import pathlib

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from fresh import at_once
from helpers import same
from rewriting import bias_comes_first, conv, depthwise, graph_of, replaced
from sepconv._functions import give_new_names

RNG = np.random.default_rng(1)
DEPTHWISE, POINTWISE, OF_DEPTHWISE, OF_BOTH, SCALE, BIAS = [
    RNG.standard_normal(shape).astype(np.float32)
    for shape in ([3, 3, 16, 1], [1, 1, 16, 24], [3, 3, 16, 8], [3, 3, 24, 8], [24], [24])
]
IMAGE, FILTERS = [2, 9, 9, 24], ([3, 3, 16, 1], [1, 1, 16, 24])


def separable(x, d=DEPTHWISE, p=POINTWISE):
    return conv(depthwise(x, d), p)


def function(build):
    """One that the graph calls."""
    return tf.function(build, autograph=False)


inner = function(lambda x: separable(x))
scaled = function(lambda x, d, p, scale, bias: separable(x, d, p) * scale + bias)
# It stays a call when it runs.
called = tf.function(lambda x: separable(x), autograph=False, experimental_attributes={"_noinline": True})
outer = function(lambda x: inner(x) * SCALE)
# By name: what is computed of images of 16 channels and of others, and these others' shapes.
CASES = {
    # A number goes on into the next filter,
    "depthwise, number": (lambda x: conv(depthwise(x, DEPTHWISE) * 0.3, OF_DEPTHWISE),),
    "hard swish, number": (
        lambda x: conv((z := depthwise(x, DEPTHWISE) + BIAS[:16]) * tf.nn.relu6(z + 3) * (1 / 6), OF_DEPTHWISE),
    ),
    "ReLU, number": (lambda x: conv(tf.nn.relu(separable(x)) * 0.3, OF_BOTH),),
    "arguments, number": (lambda x, d, p: conv(separable(x, d, p) * 0.3, OF_BOTH), *FILTERS),
    "number, transposed": (
        lambda x: conv(tf.transpose(tf.nn.relu(depthwise(x, DEPTHWISE)) * 0.3, [0, 2, 1, 3]), OF_DEPTHWISE),
    ),
    # and a scale into the layer's own, across what is nothing when it runs;
    "no gradient, scale": (lambda x: tf.stop_gradient(separable(x)) * SCALE,),
    "reshaped, scale": (lambda x: tf.reshape(separable(x), IMAGE) * SCALE,),
    "transposed twice, scale": (
        lambda x: tf.transpose(tf.transpose(separable(x), [0, 2, 1, 3]), [0, 2, 1, 3]) * SCALE,
    ),
    # and past another product.
    "products": (lambda x, a, b: separable(x) * b * (a * 0.3), IMAGE, [24]),
    # Several images are added up at once, and the bias last.
    "no gradient, image": (lambda x, a: tf.stop_gradient(separable(x) + BIAS) + a, IMAGE),
    "sum of two": (lambda x, a: tf.add_n([separable(x) + BIAS, a]), IMAGE),
    "sum of three": (lambda x, a, b: tf.add_n([separable(x) + BIAS, a, b]), IMAGE, IMAGE),
    "arguments, sum of three": (
        lambda x, a, b, d, p, bias: tf.add_n([separable(x, d, p) + bias, a, b]),
        IMAGE,
        IMAGE,
        *FILTERS,
        [24],
    ),
    # The same where functions are called.
    "constants are given": (lambda x: scaled(x, *map(tf.constant, (DEPTHWISE, POINTWISE, SCALE, BIAS))),),
    "scale outside": (lambda x: inner(x) * SCALE,),
    "scale outside of two": (lambda x: outer(x) + inner(x),),
    "scale outside of a call": (lambda x: called(x) * SCALE,),
    "scale in another": (lambda x: function(lambda y: y * SCALE)(separable(x)),),
}
# There all that is left is one of several steps, or one layer of several.
TAKEN = {"ReLU, number", "arguments, number", "number, transposed", "products", "scale outside of a call"}
TAKEN |= {name for name in CASES if "image" in name or "sum of" in name}

RUN = """
import sys
import numpy as np, tensorflow as tf
library, threads, special, model, to = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
tf.load_op_library(library)
definition = tf.compat.v1.GraphDef.FromString(open(model, "rb").read())
graph = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
inputs = [op.outputs[0] for op in graph.graph.get_operations() if op.type == "Placeholder"]
rng = np.random.default_rng(5)
given = [rng.standard_normal(tensor.shape).astype(np.float32) for tensor in inputs]
given[0].flat[: len(special.split())] = [*map(float, special.split())]
np.save(to, graph.prune(inputs, graph.graph.get_tensor_by_name("y:0"))(*map(tf.constant, given)).numpy())
"""


def results(folder: pathlib.Path, *definitions, special="") -> list:
    """What graphs give, each in a fresh process, of random numbers behind a few special ones."""
    runs = []
    for n, definition in enumerate(definitions):
        (folder / f"{n}.pb").write_bytes(definition.SerializeToString())
        runs.append((sepconv.library_path(), str(THREADS), special, str(folder / f"{n}.pb"), str(folder / f"{n}.npy")))
    for ended in at_once(RUN, *runs):
        assert ended.status == 0, ended.errors[-4000:]
    return [np.load(to) for *_, to in runs]


@pytest.mark.parametrize("name", CASES)
def test_bits_in_surroundings(name, tmp_path: pathlib.Path):
    build, *others = CASES[name]
    original = graph_of(build, [2, 9, 9, 16], *others)
    rewritten = sepconv.rewrite(original)
    assert bool(rewritten.report.replaced) or name not in TAKEN, str(rewritten.report)
    theirs, ours = results(tmp_path, original, rewritten.model)
    assert np.unique(theirs).size > theirs.size / 4 and same(ours, theirs), str(rewritten.report)


ACTIVATIONS = {
    "ReLU": (separable, tf.nn.relu),
    "ReLU6": (separable, tf.nn.relu6),
    "depthwise, ReLU": (depthwise, tf.nn.relu),
    "depthwise, ReLU6": (depthwise, tf.nn.relu6),
}


@pytest.mark.parametrize("constant", [False, True], ids=["arguments", "constants"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_numbers_that_are_none(name, constant, tmp_path: pathlib.Path):
    """oneDNN makes NaN 0 where it computes a ReLU in one with a convolution."""
    layer, activation = ACTIVATIONS[name]
    filters = [DEPTHWISE, POINTWISE][: 1 if layer is depthwise else 2]
    shapes = [] if constant else [filter.shape for filter in filters]

    def build(x, *given):
        y = layer(x, *(filters if constant else given))
        return activation(tf.nn.bias_add(y, BIAS[: y.shape[3]]))[:, ::-1]

    original = graph_of(build, [2, 9, 9, 16], *shapes)
    ours = replaced(original)
    theirs, result = results(tmp_path, original, ours, special="nan inf -inf")
    assert same(result, theirs)


def test_a_function_that_is_called_too_often():
    original = graph_of(lambda x: tf.add_n([inner(x * n) for n in range(33)]), [2, 9, 9, 16])
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.left
    assert layer.reason == "the function is called in more than 32 ways" and rewritten.model == original


doubled = function(lambda a: a * 2)
# Functions of constants: the parts of a model that are tried by themselves take along what they call.
CALLED = {
    "call": function(lambda a: doubled(a)),
    "call that stays": tf.function(lambda a: a * 2, autograph=False, experimental_attributes={"_noinline": True}),
    "condition": lambda a: tf.cond(tf.constant(True), lambda: a * 2, lambda: a * 3),
    "loop": lambda a: tf.while_loop(lambda n, a: n < 2, lambda n, a: (n + 1, a * 1.5), [0, a])[1],
}
MADE = {
    "filter": lambda x, made: separable(x, p=made(POINTWISE)),
    "bias": lambda x, made: tf.nn.relu(tf.nn.bias_add(separable(x), made(BIAS))),
    "scale": lambda x, made: separable(x) * made(SCALE),
}


@pytest.mark.parametrize("part", MADE)
@pytest.mark.parametrize("name", CALLED)
def test_constants_that_functions_make(name, part, tmp_path: pathlib.Path):
    original = graph_of(lambda x: MADE[part](x, lambda a: CALLED[name](tf.constant(a))), [2, 9, 9, 16])
    # As those of a file, which nobody has called in this process.
    give_new_names(original, {function.signature.name for function in original.library.function})
    rewritten = sepconv.rewrite(original)
    [layer] = rewritten.report.layers
    # What TensorFlow does not know to be constant, it does not multiply into a filter either.
    left = part == "scale" and "gives other bits" in layer.reason
    assert layer.replaced or left or bias_comes_first(layer), layer.reason
    theirs, ours = results(tmp_path, original, rewritten.model)
    assert same(ours, theirs)
