"""Filters that stay in their places are packed once for many calls, seldom in training; every change is seen."""

import threading

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from helpers import same, small
from sepconv import _subgraphs

v1 = tf.compat.v1


def packings() -> int:
    return sepconv.stats()["packings"]


def constant_filters_of(graph):
    [node] = [node for node in graph.as_graph_def().node if node.op == "Sepconv>SeparableConv2D"]
    return node.attr["constant_filters"].b


def test_constant_filters_are_packed_for_every_shape_and_thread():
    (_, *filters), attributes = small()
    attributes["numerics"] = "reproducible"

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 6])])
    def convolve(x):
        return sepconv.separable_conv2d(x, *filters, **attributes)

    assert constant_filters_of(convolve.get_concrete_function().graph)
    inputs = [small(batch)[0][0] for batch in (1, 2, 5)]
    expected = [sepconv.separable_conv2d(x, *filters, **attributes) for x in inputs]
    wrong = []

    def work(n):
        for i in range(n, n + 30):
            if not same(convolve(inputs[i % 3]), expected[i % 3]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_variables_in_the_places_of_constant_filters():
    """A graph that was rewired after it was built still sees what its filters are now."""
    (x, *filters), attributes = small()
    attributes["numerics"] = "reproducible"
    built = tf.function(lambda x: sepconv.separable_conv2d(x, *filters, **attributes)).get_concrete_function(x)
    [node] = [node for node in built.graph.as_graph_def().node if node.op == "Sepconv>SeparableConv2D"]
    variables = [tf.Variable(filter) for filter in filters]

    @tf.function
    def rewired():
        names = [node.input[0], *node.input[1:3]]
        tensors = dict(zip(names, [tf.constant(x), *[v.read_value() for v in variables]], strict=True))
        definition = built.graph.as_graph_def()
        [output] = tf.import_graph_def(definition, input_map=tensors, return_elements=[node.name + ":0"])
        return output

    assert constant_filters_of(rewired.get_concrete_function().graph)
    for change in range(4):
        assert same(rewired(), sepconv.separable_conv2d(x, *variables, **attributes))
        if change % 2:
            variables[1].assign_add(tf.ones_like(variables[1]))
        else:
            variables[1].assign(variables[1] * 2)


def test_filters_that_are_arguments_are_not_kept():
    """Their memory may be of an array that its owner changes."""
    (x, *filters), attributes = small()
    attributes["numerics"] = "reproducible"
    function = tf.function(lambda x, *filters: sepconv.separable_conv2d(x, *filters, **attributes))
    given = [tf.constant(array) for array in (x, *filters)]
    assert not constant_filters_of(function.get_concrete_function(*given).graph)
    captured = tf.function(lambda x: sepconv.separable_conv2d(x, *given[1:], **attributes))
    assert not constant_filters_of(captured.get_concrete_function(x).graph)
    before = packings()
    assert same(function(*given), captured(x)) and packings() == before


def test_what_stays_in_its_place():
    with tf.Graph().as_default():
        resource, reference = [
            v1.get_variable(name, [2], use_resource=name == "resource") for name in ("resource", "reference")
        ]
        read = tf.convert_to_tensor(resource)
        for tensor in (read, tf.identity(tf.identity(read)), tf.constant(1.0)):
            assert _subgraphs.stays(tensor)
        for tensor in (tf.convert_to_tensor(reference), tf.cast(read, tf.float16), v1.placeholder(tf.float32, [2])):
            assert not _subgraphs.stays(tensor)


def test_variables_are_packed_once():
    attributes = small()[1] | {"numerics": "reproducible"}
    variables = [tf.Variable(filter) for filter in small()[0][1:]]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 6])])
    def convolve(x):
        return sepconv.separable_conv2d(x, *variables, **attributes)

    def check(calls):
        for n in range(calls):
            x = small(1 + n % 3)[0][0]
            assert same(convolve(x), sepconv.separable_conv2d(x, *variables, **attributes))

    assert constant_filters_of(convolve.get_concrete_function().graph)
    before = packings()
    check(10)  # of other shapes each
    assert packings() - before == 1
    variables[0].assign_add(tf.ones_like(variables[0]))  # the depthwise filter is read in every call
    check(3)
    assert packings() - before == 1


def compiled(variable):
    tf.function(lambda: variable.assign(2 * variable), jit_compile=True)()


CHANGES = {
    "assign": lambda variable: variable.assign(variable * 2),
    "assign an array": lambda variable: variable.assign(np.ones(variable.shape, np.float32)),
    "assign_add": lambda variable: variable.assign_add(tf.ones_like(variable)),
    "scatter_update": lambda variable: variable.scatter_update(tf.IndexedSlices(tf.ones([1, 1, 12, 16]), [0])),
    "scatter_nd_update": lambda variable: variable.scatter_nd_update([[0, 0, 1]], tf.ones([1, 16])),
    "a slice": lambda variable: variable[0, 0, 1].assign(tf.ones([16])),
    "an optimizer": lambda variable: tf.raw_ops.ResourceApplyGradientDescent(
        var=variable.handle, alpha=0.1, delta=tf.ones(variable.shape)
    ),
    "XLA": compiled,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_variable_that_is_kept_is_seen(change):
    (x, *filters), attributes = small()
    attributes["numerics"] = "reproducible"
    variables = [tf.Variable(filter) for filter in filters]
    convolve = tf.function(lambda: sepconv.separable_conv2d(x, *variables, **attributes))
    before = packings()
    for again in (False, True):
        expected = sepconv.separable_conv2d(x, *variables, **attributes)
        for _ in range(10):
            assert same(convolve(), expected)
        assert packings() > before
        CHANGES[change](variables[1])
        changed = sepconv.separable_conv2d(x, *variables, **attributes)
        assert same(convolve(), changed) and (again or not same(changed, expected))


def test_a_variable_that_is_assigned_during_calls():
    """Each call sees one of its values."""
    (x, *filters), attributes = small()
    attributes["numerics"] = "reproducible"
    values = [filters[1], -filters[1]]
    variable = tf.Variable(values[0])
    convolve = tf.function(lambda: sepconv.separable_conv2d(x, filters[0], variable, **attributes))
    allowed = {sepconv.separable_conv2d(x, filters[0], value, **attributes).numpy().tobytes() for value in values}
    convolve()
    seen, ended = set(), threading.Event()

    def call():
        last = False
        while not last:
            last = ended.is_set()
            seen.add(convolve().numpy().tobytes())

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(300):
        variable.assign(values[n % 2])
    ended.set()
    for thread in threads:
        thread.join()
    assert seen and seen <= allowed


def test_training_does_not_pack_in_every_step():
    """Each packing costs the optimizer a copy: ever fewer are tried, and all where filters stay for some calls."""
    (x, *filters), attributes = small()
    variables = [tf.Variable(filter) for filter in filters]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(sepconv.separable_conv2d(x, *variables, **attributes, numerics="reproducible"))
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=1e-3, delta=gradient)
        return loss

    before = packings()
    for _ in range(100):
        step()
    assert 0 < packings() - before <= 7

    forward = tf.function(lambda: sepconv.separable_conv2d(x, *variables, **attributes, numerics="reproducible"))
    before = packings()
    for _ in range(20):
        for _ in range(10):
            forward()
        variables[1].assign_add(tf.ones_like(variables[1]))
    assert packings() - before == 20
