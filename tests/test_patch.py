"""While `patch` holds, TensorFlow's names lead to sepconv and give the same bits; then they are TensorFlow's again."""

import inspect
import threading

import keras
import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import PROMISED
from helpers import arrays_of, gradient_calls, kernel_calls, same, tensorflows
from sepconv import _library
from tensorflow.python.ops import nn as internal_nn

pytestmark = PROMISED

MODULES = tf.nn, tf.compat.v2.nn, tf.compat.v1.nn, internal_nn
ORIGINALS = [module.separable_conv2d for module in MODULES]
ATTRIBUTES = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def installed():
    return [module.separable_conv2d for module in MODULES]


@pytest.fixture(autouse=True)
def undone():
    yield
    assert installed() == ORIGINALS


def tensors_of(dtype="float32"):
    return [tf.constant(array, dtype) for array in arrays_of("tiny")[0]]


def takes_part(call, expected) -> bool:
    """The result's bits are those expected; says whether an op of ours gave it."""
    before = kernel_calls()
    assert same(call(), expected)
    return kernel_calls() - before > 0


@pytest.mark.parametrize("n", range(len(MODULES)))
def test_a_name(n):
    module, original, tensors = MODULES[n], ORIGINALS[n], tensors_of()
    dilated = {**ATTRIBUTES, "dilations": [2, 3]}
    with sepconv.patch():
        function = module.separable_conv2d
        assert function is not original
        assert inspect.signature(function) == inspect.signature(original)
        assert (function.__name__, function.__doc__) == (original.__name__, original.__doc__)
        assert takes_part(lambda: function(*tensors, **dilated), tensorflows(*tensors, **dilated))
        assert takes_part(tf.function(lambda: function(*tensors, **ATTRIBUTES)), tensorflows(*tensors, **ATTRIBUTES))
        others = ("rate", "name") if n > 1 else ("data_format", "dilations")
        positional = [*tensors, *ATTRIBUTES.values(), *({"rate": [2, 3], "dilations": [2, 3]}.get(o) for o in others)]
        assert takes_part(lambda: function(*positional), tensorflows(*tensors, **dilated))
        with pytest.raises(TypeError, match="numerics"):
            function(*tensors, **ATTRIBUTES, numerics="reproducible")
        if n < 2:
            with pytest.raises(TypeError, match="rate"):
                function(*tensors, **ATTRIBUTES, rate=[1, 1])
        with pytest.raises(tf.errors.InvalidArgumentError, match="in_channels"):
            function(tensors[0][..., 1:], *tensors[1:], **ATTRIBUTES)
    assert not takes_part(lambda: module.separable_conv2d(*tensors, **dilated), tensorflows(*tensors, **dilated))


def test_keras(rng):
    """Keras's own layers and ops, and a model of other people's."""
    x = rng.standard_normal([2, 9, 8, 4], dtype=np.float32)
    layers = [
        keras.layers.SeparableConv2D(6, 3, padding="same", activation="relu"),
        keras.layers.SeparableConv2D(6, 3, strides=2),
        keras.layers.TimeDistributed(keras.layers.SeparableConv1D(6, 3)),
    ]
    inputs = keras.Input([9, 8, 4])
    kernels = [tf.constant(rng.standard_normal(shape), tf.float32) for shape in ([3, 3, 4, 1], [1, 1, 4, 6])]
    model = keras.Model(inputs, keras.ops.separable_conv(layers[0](inputs)[..., :4], *kernels))
    channels_first = tf.transpose(x, [0, 3, 1, 2])
    calls = [lambda layer=layer: layer(x) for layer in layers]
    calls.append(lambda: keras.ops.separable_conv(channels_first, *kernels, data_format="channels_first"))
    calls.append(lambda: model(x))
    calls.append(lambda: model.predict(x, verbose=0))
    expected = [call() for call in calls]
    model.predict_function = None  # which was traced
    with sepconv.patch():
        for call, result in zip(calls, expected, strict=True):
            assert takes_part(call, result)
    model.predict_function = None
    for call, result in zip(calls, expected, strict=True):
        assert not takes_part(call, result)


def test_what_keras_puts_together_itself_stays():
    layer = keras.layers.SeparableConv2D(6, 3, strides=2, dilation_rate=2)
    x = tf.random.stateless_normal([2, 12, 12, 4], [1, 2])
    expected = layer(x)
    with sepconv.patch():
        assert not takes_part(lambda: layer(x), expected)


@pytest.mark.parametrize("eagerly", [False, True], ids=["function", "eager"])
def test_training(eagerly):
    """The losses and weights of eager training, to the bit: TensorFlow's own gradients have other bits in
    functions, with oneDNN on two threads."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal([8, 6, 6, 3], dtype=np.float32), rng.standard_normal([8, 4, 4, 5], dtype=np.float32)
    model = keras.Sequential([keras.Input([6, 6, 3]), keras.layers.SeparableConv2D(5, 3, activation="tanh")])
    weights = model.get_weights()

    def trained(eagerly):
        model.set_weights(weights)
        model.compile("sgd", "mse", run_eagerly=eagerly)
        losses = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
        return [*losses, *model.get_weights()]

    expected, before, gradients_before = trained(True), kernel_calls(), gradient_calls()
    with sepconv.patch():
        assert all(map(same, trained(eagerly), expected))
    assert kernel_calls() - before == 4
    assert gradient_calls() - gradients_before == 4 * 3  # nobody asks for the input's


def test_nested_and_undone_in_any_order():
    tensors = tensors_of()
    reproducible = sepconv.separable_conv2d(*tensors, **ATTRIBUTES, numerics="reproducible")
    expected = tensorflows(*tensors, **ATTRIBUTES)

    def call():
        return tf.nn.separable_conv2d(*tensors, **ATTRIBUTES)

    with pytest.raises(ZeroDivisionError), sepconv.patch() as outer:
        first = installed()
        with sepconv.patch("reproducible"):
            assert takes_part(call, reproducible) and installed() != first
        assert installed() == first and takes_part(call, expected)
        second = sepconv.patch("reproducible")
        outer.undo()
        assert takes_part(call, reproducible)  # the other one still holds
        second.undo()
        assert installed() == ORIGINALS and not takes_part(call, expected)
        second.undo()  # and does nothing, while a third holds
        with sepconv.patch():
            second.undo()
            assert takes_part(call, expected)
        _ = 1 / 0


def test_entered_again():
    patched = sepconv.patch()
    first = installed()
    with patched, patched:
        with patched:
            pass
        assert installed() == first
    assert installed() == ORIGINALS
    with patched:
        assert installed() == first
        patched.undo()
        assert installed() == ORIGINALS
    with patched:
        assert installed() == first


def test_what_somebody_puts_there_later_stays():
    def somebodys(*_, **__):
        return "somebody's"

    try:
        with sepconv.patch():
            tf.nn.separable_conv2d = somebodys
            with sepconv.patch():
                assert tf.nn.separable_conv2d is not somebodys
            assert tf.nn.separable_conv2d is somebodys
        assert installed() == [somebodys, *ORIGINALS[1:]]
    finally:
        tf.nn.separable_conv2d = ORIGINALS[0]


def test_somebody_elses_function_is_put_back(monkeypatch):
    def somebodys(*_, **__):
        return "somebody's"

    monkeypatch.setattr(tf.nn, "separable_conv2d", somebodys)
    with sepconv.patch():
        assert takes_part(
            lambda: tf.nn.separable_conv2d(*tensors_of(), **ATTRIBUTES), tensorflows(*tensors_of(), **ATTRIBUTES)
        )
    assert tf.nn.separable_conv2d is somebodys
    monkeypatch.undo()


def test_from_many_threads():
    """Patches that come and go in several threads leave nothing behind."""

    def come_and_go():
        for _ in range(200):
            with sepconv.patch():
                assert tf.nn.separable_conv2d is not ORIGINALS[0]

    failures = []
    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    hook, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = hook
    assert not failures


@pytest.mark.parametrize("context", [lambda f: f, tf.function], ids=["eager", "function"])
def test_what_is_left_to_tensorflow_reaches_it(context, monkeypatch):
    monkeypatch.setattr(_library, "reveal", lambda *_: {"unclear": "sums go round in circles"})
    x = tf.random.stateless_normal([1, 6, 5, 16], [3, 4])  # a shape that no other test has asked about
    filters = tensors_of()[1:]
    expected = tensorflows(x, *filters, **ATTRIBUTES)
    with sepconv.patch():
        for module in MODULES:
            call = context(lambda module=module: module.separable_conv2d(x, *filters, **ATTRIBUTES))
            assert not takes_part(call, expected)


def test_gradients():
    tensors = tensors_of()

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = tf.reduce_sum(tf.nn.separable_conv2d(*tensors, **ATTRIBUTES) ** 2)
        return tape.gradient(loss, tensors)

    before, expected = gradient_calls(), gradients()
    assert gradient_calls() == before
    with sepconv.patch():
        assert all(map(same, gradients(), expected))
    assert gradient_calls() - before == 4


def test_types_that_want_to_be_asked_first():
    class Boxed(tf.experimental.ExtensionType):
        inside: tf.Tensor

    x, *filters = tensors_of()
    with sepconv.patch():

        @tf.experimental.dispatch_for_api(tf.nn.separable_conv2d, {"input": Boxed})
        def unboxed(*args, **kwargs):
            return tf.nn.separable_conv2d(args[0].inside, *args[1:], **kwargs)

        expected = tensorflows(x, *filters, **ATTRIBUTES)
        assert takes_part(lambda: tf.nn.separable_conv2d(Boxed(x), *filters, **ATTRIBUTES), expected)


@pytest.mark.parametrize("numerics", [None, 3, ["tensorflow"]])
def test_bad_arguments(numerics):
    with pytest.raises(TypeError, match="numerics must be a string, got"):
        sepconv.patch(numerics)
    with pytest.raises(tf.errors.InvalidArgumentError, match="numerics must be 'tensorflow', .* got 'tensorflov'"):
        sepconv.patch("tensorflov")
    assert installed() == ORIGINALS
