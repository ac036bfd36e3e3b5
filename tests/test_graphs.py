"""What is done with graphs: they are frozen, retraced, vectorised, compiled by XLA, differentiated after loading, kept
from an older version; and what is wrong in them only when they run.
"""

import functools
import pathlib
import re

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import PROMISED, THREADS
from fresh import in_fresh_process
from helpers import HERE, kernel_calls, same, tensorflows
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

PLAIN = {"strides": [1, 1, 1, 1], "padding": "SAME"}
OP = "Sepconv>SeparableConv2D"


@pytest.fixture
def tensors(rng):
    """Of small integers, so that where TensorFlow's own operations compute, no order of sums matters."""
    shapes = [2, 6, 5, 4], [3, 3, 4, 2], [1, 1, 8, 5]
    return [tf.constant(rng.integers(-4, 5, shape), tf.float32) for shape in shapes]


@pytest.fixture
def reals(rng):
    """For the bits of sums. A reveal of these shapes takes so few probes that a busy machine cannot run out of time."""
    return [tf.constant(rng.standard_normal(s), tf.float32) for s in ([2, 6, 5, 4], [3, 3, 4, 2], [1, 1, 8, 5])]


def ops_of(function, *arguments) -> set:
    definition = function.get_concrete_function(*arguments).graph.as_graph_def()
    return {node.op for graph in (definition, *definition.library.function) for node in nodes_of(graph)}


def nodes_of(graph):
    return graph.node if isinstance(graph, tf.compat.v1.GraphDef) else graph.node_def


@PROMISED
def test_a_frozen_graph(reals):
    x, *filters = reals
    expected = tensorflows(*reals, **PLAIN)
    variables = [tf.Variable(filter) for filter in filters]

    @tf.function(input_signature=[tf.TensorSpec(x.shape)])
    def convolve(x):
        return sepconv.separable_conv2d(x, *variables, **PLAIN)

    frozen = convert_variables_to_constants_v2(convolve.get_concrete_function())
    for variable in variables:
        variable.assign(tf.zeros_like(variable))
    definition = frozen.graph.as_graph_def()
    assert {node.op for node in definition.node} == {"Placeholder", "Const", "Identity", "NoOp", OP}
    before = kernel_calls()
    assert same(frozen(x)[0], expected)

    def imported():
        tf.graph_util.import_graph_def(definition, name="")

    [input], [output] = frozen.inputs, frozen.outputs
    again = tf.compat.v1.wrap_function(imported, []).prune(input.name, output.name)
    assert again(x).shape == output.shape == expected.shape and same(again(x), expected)
    assert kernel_calls() - before == 3


@PROMISED
@pytest.mark.parametrize("reduce_retracing", [False, True])
def test_retracing_with_changing_batch_sizes(reals, reduce_retracing):
    traced = []

    @tf.function(reduce_retracing=reduce_retracing)
    def convolve(x, *filters):
        traced.append(x.shape[0])
        return sepconv.separable_conv2d(x, *filters, **PLAIN)

    x, *filters = reals
    before, batches = kernel_calls(), [1, 2, 5, 3, 2, 1]
    for batch in batches:
        images = tf.tile(x[:1], [batch, 1, 1, 1])
        assert same(convolve(images, *filters), tensorflows(images, *filters, **PLAIN)), batch
    assert traced == ([1, None] if reduce_retracing else [1, 2, 5, 3])
    assert kernel_calls() - before == len(batches)


@PROMISED
def test_a_dataset_of_changing_batch_sizes(reals):
    x, *filters = reals
    images = tf.concat([x, -x, x * 2], 0)

    def convolve(x):
        return sepconv.separable_conv2d(x, *filters, **PLAIN)

    mapped = tf.data.Dataset.from_tensor_slices(images).batch(4).map(convolve, num_parallel_calls=2)
    assert mapped.element_spec == tf.TensorSpec([None, 6, 5, 5])
    before, expected = kernel_calls(), [tensorflows(part, *filters, **PLAIN) for part in (images[:4], images[4:])]
    assert all(same(a, b) for a, b in zip(mapped, expected, strict=True))
    assert kernel_calls() - before == 2


def test_a_while_loop_and_its_gradient(tensors):
    x, depthwise_filter, pointwise_filter = tensors
    pointwise_filter = tf.pad(pointwise_filter, [(0, 0), (0, 0), (0, 0), (0, 3)])[:, :, :, :4]

    def body(i, x):
        return i + 1, sepconv.separable_conv2d(x, depthwise_filter, pointwise_filter, **PLAIN, numerics="reproducible")

    @tf.function
    def loop(x, depthwise_filter):
        with tf.GradientTape() as tape:
            tape.watch(x)
            shapes = [tf.TensorShape([]), tf.TensorShape([None, None, None, 4])]
            _, y = tf.while_loop(lambda i, x: i < 3, body, [0, x], shapes)
        return y, tape.gradient(y, x)

    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = x
        for _ in range(3):
            expected = tensorflows(expected, depthwise_filter, pointwise_filter, **PLAIN)
    before = kernel_calls()
    y, gradient = loop(x, depthwise_filter)
    assert kernel_calls() - before >= 3
    assert same(y, expected) and same(gradient, tape.gradient(expected, x))


ROWS = "v1 depthwise(fused, inside) pointwise(fused, 8, rows 0..3 columns 0..5 separate 3+5) subnormals(kept)"
BY_ROWS = "batch 1 rows 30: {}; batch 2 rows 60: {}".format(
    *(f"v1 depthwise(fused, inside) pointwise(fused, {blocks}) subnormals(kept)" for blocks in ("8", "3+5"))
)


@PROMISED
@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible", ROWS, BY_ROWS])
@pytest.mark.parametrize("stacked", ["x", "d", "p", "xd", "xdp"])
def test_vectorized_map(reals, stacked, numerics):
    """Every image has the bits that it has by itself; in one call where nothing else differs between the iterations."""
    several = {name: tf.stack([t, t * 2 - 1, 1 - t * t]) for name, t in zip("xdp", reals, strict=True)}
    single = dict(zip("xdp", [reals[0][:1], *reals[1:]], strict=True))
    several["x"] = several["x"][:, :1]

    def convolve(of):
        return sepconv.separable_conv2d(*({**single, **of}).values(), **PLAIN, numerics=numerics)

    given = {name: several[name] for name in stacked}
    expected = tf.stack([convolve({name: t[i] for name, t in given.items()}) for i in range(3)])
    text = sepconv.explain(*single.values(), **PLAIN, numerics=numerics).numerics
    before = kernel_calls()
    mapped = tf.vectorized_map(convolve, given, fallback_to_while_loop=False)
    assert mapped.shape == expected.shape and same(mapped, expected)
    assert kernel_calls() - before == (1 if stacked == "x" and "rows" not in text and "overrun" not in text else 3)


def test_vectorized_gradients(tensors):
    """A gradient of the filters by each image."""
    x, *filters = tensors
    images = tf.stack([x, x * 2, 1 - x])

    def gradients(x, convolve=sepconv.separable_conv2d):
        with tf.GradientTape() as tape:
            tape.watch(filters)
            loss = tf.reduce_sum(convolve(x, *filters, **PLAIN) ** 2)
        return tape.gradient(loss, filters)

    expected = [gradients(x, tensorflows) for x in images]
    for mapped, *each in zip(tf.vectorized_map(gradients, images), *expected, strict=True):
        assert same(mapped, tf.stack(each))


def value_and_gradients(convolve, tensors):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = convolve(*tensors, **PLAIN)
        loss = tf.reduce_sum(y * y)
    return [y, *tape.gradient(loss, tensors)]


@pytest.mark.skipif(THREADS > 1, reason="the number of threads cannot matter to it")
def test_jit_compile(tensors):
    """Sums of small integers, so that the bits, which XLA has its own of, are TensorFlow's others too."""
    explained = []
    inner = tf.function(lambda *t: sepconv.separable_conv2d(*t, **PLAIN))

    @tf.function(jit_compile=True)
    def compiled(*tensors):
        explained.append(sepconv.explain(*tensors, **PLAIN))
        with tf.init_scope():  # runs eagerly, and is not compiled
            explained.append(sepconv.explain(*tensors_outside, **PLAIN))
        return value_and_gradients(sepconv.separable_conv2d, list(tensors)), inner(*tensors)

    tensors_outside, expected, before = tensors, value_and_gradients(tensorflows, tensors), kernel_calls()
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        (y, *gradients), again = compiled(*tensors)
        loss = tf.reduce_sum(again * again)
    assert kernel_calls() == before and OP not in ops_of(compiled, *tensors)
    # Gradients within the compiled function, then through it from outside.
    for got in ([y, *gradients], [again, *tape.gradient(loss, tensors)]):
        assert all(same(a, b) for a, b in zip(got, expected, strict=True))
    within, outside = explained[:2]
    assert (within.path, within.exact) == ("tensorflow", False) and "XLA" in within.reason
    assert outside.path == "op"

    def of_an_outer_call(numerics):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            y = sepconv.separable_conv2d(*tensors, **PLAIN, numerics=numerics)
        return tf.function(lambda upstream: tape.gradient(y, tensors, upstream), jit_compile=True)(2 * y)

    assert all(same(a, b) for a, b in zip(of_an_outer_call("tensorflow"), expected[1:], strict=True))
    with pytest.raises(ValueError, match="gradients with numerics='reproducible'.*jit_compile"):
        of_an_outer_call("reproducible")
    with pytest.raises(ValueError, match="numerics='reproducible'.*jit_compile"):
        tf.function(lambda: sepconv.separable_conv2d(*tensors, **PLAIN, numerics="reproducible"), jit_compile=True)()
    assert OP in ops_of(tf.function(lambda *t: sepconv.separable_conv2d(*t, **PLAIN)), *tensors)


@pytest.mark.skipif(THREADS > 1, reason="the number of threads cannot matter to it")
def test_jit_compile_around_a_function_that_was_traced_before(tensors):
    """The exception: TensorFlow does not trace it again, and XLA finds the op in it."""
    inner = tf.function(lambda *t: sepconv.separable_conv2d(*t, **PLAIN))
    expected = inner(*tensors)
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match=re.escape(OP)):
        tf.function(lambda *t: inner(*t), jit_compile=True)(*tensors)
    assert same(inner(*tensors), expected)


UNIMPORTED = """
import sys
import tensorflow as tf
tf.load_op_library(sys.argv[1])
model = tf.saved_model.load(sys.argv[2])
x = tf.ones([1, 4, 4, 2])

def gradient():
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = model.convolve(x)
    return tape.gradient(y, x)

try:
    gradient()
except LookupError as error:
    print(error)
assert "sepconv" not in sys.modules
import sepconv
print(gradient()[0, 1, 1].numpy())
"""


def test_a_gradient_through_a_loaded_graph_needs_the_package(tmp_path: pathlib.Path):
    model = tf.Module()
    filters = tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    model.convolve = tf.function(
        lambda x: sepconv.separable_conv2d(x, *filters, **PLAIN, numerics="reproducible"),
        input_signature=[tf.TensorSpec([1, 4, 4, 2])],
    )
    tf.saved_model.save(model, str(tmp_path))
    refused, gradient = in_fresh_process(UNIMPORTED, sepconv.library_path(), str(tmp_path)).splitlines()
    # The words are TensorFlow's own: a library that is only loaded has no say in them.
    assert "No gradient defined" in refused and OP in refused
    assert gradient == "[27. 27.]"


SAVED = HERE / "saved_models"


@pytest.mark.parametrize("folder", sorted(f for f in SAVED.glob("*/") if "-" not in f.name), ids=lambda f: f.name)
def test_what_an_older_version_saved(folder):
    """`saved_models/save.py` made it; it stays as it is for ever. Its numerics are the same on every machine."""
    example = np.load(folder / "example.npz")
    before = kernel_calls()
    assert same(tf.saved_model.load(folder).convolve(example["x"]), example["y"])
    assert kernel_calls() - before == 3  # each a way of giving attributes to the op


@pytest.mark.parametrize("folder", sorted(SAVED.glob("*-pointwise")), ids=lambda f: f.name)
def test_what_an_older_version_saved_of_a_pointwise_part(folder):
    """`saved_models/save_pointwise.py` made it; it stays as well."""
    example, before = np.load(folder / "example.npz"), sepconv.stats()["pointwise_calls"]
    assert same(tf.saved_model.load(folder).convolve(example["x"]), example["y"])
    assert sepconv.stats()["pointwise_calls"] - before == 1


@pytest.mark.parametrize("folder", sorted(SAVED.glob("*-training")), ids=lambda f: f.name)
def test_what_an_older_version_saved_of_training_and_rewriting(folder):
    """`saved_models/save_training.py` made it; it stays as well."""
    example, model, before = np.load(folder / "example.npz"), tf.saved_model.load(folder), sepconv.stats()
    for name, count in (("step", 3), ("convolve", 2)):
        results = getattr(model, name)(example["x"])
        assert len(results) == count
        assert all(same(result, example[f"{name}{n}"]) for n, result in enumerate(results))
    after = sepconv.stats()
    assert [after[key] - before[key] for key in ("gradient_calls", "fused_calls", "depthwise_calls")] == [4, 1, 1]


@PROMISED
@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
def test_a_filter_whose_rank_only_the_running_graph_knows(tensors, numerics):
    spec, expected = tf.TensorSpec(None), sepconv.separable_conv2d(*tensors, **PLAIN, numerics=numerics)
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, **PLAIN, numerics=numerics), input_signature=[spec] * 3
    )
    for n, name in enumerate(("input", "depthwise_filter", "pointwise_filter")):
        for wrong in (tensors[n][0], tensors[n][None]):
            given = [*tensors[:n], wrong, *tensors[n + 1 :]]
            with pytest.raises(tf.errors.InvalidArgumentError, match=name) as refused:
                function(*given)
            shape = re.escape(str(wrong.shape.as_list())[1:-1]).replace(",\\ ", ",\\s*")
            assert re.search(shape, refused.value.message) and "4 dimensions" in refused.value.message.replace("_", " ")
    assert same(function(*tensors), expected)


@pytest.mark.parametrize("unknown", [0, 1, 2])
def test_filters_of_unknown_extents_in_a_graph_of_tensorflow_1(unknown, tensors):
    """Where `==` of tensors says whether they are one object."""
    shapes = [tensor.shape.as_list() for tensor in tensors]
    for n, axes in enumerate([[0], [2], [2]]):
        shapes[n] = [None if n == unknown and axis in axes else extent for axis, extent in enumerate(shapes[n])]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholders = [tf.compat.v1.placeholder(tensors[0].dtype, shape) for shape in shapes]
        both = [function(*placeholders, **PLAIN) for function in (sepconv.separable_conv2d, tensorflows)]
        found = session.run(both, dict(zip(placeholders, [tensor.numpy() for tensor in tensors], strict=True)))
    assert same(*found)


@pytest.mark.parametrize("context", [lambda f: f, tf.function], ids=["eager", "function"])
def test_an_upstream_gradient_that_is_not_a_number(tensors, context):
    """Spreads as it does through TensorFlow's own operations, and no further."""

    @context
    def gradients(upstream, *tensors, convolve=sepconv.separable_conv2d):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = convolve(*tensors, **PLAIN)
        return y, *tape.gradient(y, tensors, output_gradients=upstream)

    ones = np.ones([2, 6, 5, 5], np.float32)
    wrong = ones.copy()
    wrong[1, 2, 3, 4] = np.nan
    before = kernel_calls()
    for upstream in (wrong, ones):
        got, expected = gradients(upstream, *tensors), gradients(upstream, *tensors, convolve=tensorflows)
        assert all(same(a, b) for a, b in zip(got, expected, strict=True))
        assert np.isnan(got[1]).any() == (upstream is wrong) and not np.isnan(got[1]).all()
    assert kernel_calls() - before == 2


@pytest.mark.parametrize("context", [lambda f: f, tf.function], ids=["eager", "function"])
def test_numbers_that_are_checked_name_the_op(tensors, context):
    convolving = functools.partial(sepconv.separable_conv2d, **PLAIN, numerics="reproducible")
    convolve = context(lambda *t: convolving(*t))
    wrong = tf.constant(np.full(tensors[0].shape, np.inf) * [1, -1, 1, -1], tf.float32)

    @context
    def gradients(upstream):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = convolving(*tensors)
        return tape.gradient(y, tensors, upstream)

    tf.debugging.enable_check_numerics()
    try:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f'NaN in output 0 of.*"{OP}"'):
            convolve(wrong, *tensors[1:])
        with pytest.raises(tf.errors.InvalidArgumentError, match=f'NaN in output 0 of.*"{OP}Backprop'):
            gradients(tf.fill([2, 6, 5, 5], np.float32("nan")))
    finally:
        tf.debugging.disable_check_numerics()
    assert not np.isnan(convolve(*tensors)).any()
    assert not any(np.isnan(gradient).any() for gradient in gradients(tf.ones([2, 6, 5, 5])))
