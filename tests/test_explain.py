"""`explain` says what a call does and why; `stats` counts what was done; numerics that were given are followed."""

import inspect
import pathlib
import statistics
import time
import typing

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, PROMISED, THREADS
from helpers import arrays_of, kernel_calls, same, tensorflows
from sepconv import _library

PLAIN = {"strides": [1, 1, 1, 1], "padding": "SAME"}

DTYPES = "float16", "bfloat16", "float32", "float64"


def specs(image=(1, 8, 8, 16), depthwise=(3, 3, 16, 1), pointwise=(1, 1, 16, 16), dtype="float32"):
    return [tf.TensorSpec(shape, dtype) for shape in (image, depthwise, pointwise)]


@PROMISED
def test_the_op():
    explanation = sepconv.explain(*specs(), **PLAIN)
    assert explanation.path == "op" and explanation.exact and "revealed" in explanation.reason
    assert explanation.numerics.startswith("v1 ")
    assert explanation == sepconv.explain(*[np.ones(s.shape, np.float32) for s in specs()], **PLAIN)
    assert explanation == sepconv.explain(*[tf.Variable(tf.ones(s.shape)) for s in specs()], **PLAIN, name="ignored")


UNKNOWN = specs(depthwise=(None,) * 4)
LEFT = {
    "a filter of unknown shape": (UNKNOWN, {}, "unknown"),
    "unknown channels": (specs(image=(1, 8, 8, None)), {}, "unknown"),
    "an unknown rank": (specs(image=None), {}, "unknown"),
    "three dilations": (specs(), {"dilations": [1, 1, 1]}, "dilations"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_tensorflow(name):
    given, attributes, reason = LEFT[name]
    explanation = sepconv.explain(*given, **PLAIN, **attributes)
    assert explanation.path == "tensorflow" and explanation.numerics is None
    assert reason in explanation.reason


def test_nchw():
    explanation = sepconv.explain(*specs(image=(1, 16, 8, 8)), **PLAIN, data_format="NCHW")
    assert explanation.path == ("tensorflow" if ONEDNN else "op"), explanation
    fixed = sepconv.explain(*specs(image=(1, 16, 8, 8)), **PLAIN, data_format="NCHW", numerics="reproducible")
    assert fixed.path == "op" and fixed.exact


def test_an_order_that_is_not_followed(monkeypatch):
    monkeypatch.setattr(_library, "reveal", lambda *_: {"unclear": "sums go round in circles"})
    given = specs(image=(1, 5, 4, 16))
    explanation = sepconv.explain(*given, **PLAIN)
    assert explanation.path == "tensorflow" and "sums go round in circles" in explanation.reason
    before = kernel_calls()
    tensors = [tf.random.normal(spec.shape) for spec in given]
    assert same(sepconv.separable_conv2d(*tensors, **PLAIN), tensorflows(*tensors, **PLAIN))
    assert kernel_calls() == before


def test_exact_says_when_tensorflows_own_operations_may_differ_from_its_eager_ones(monkeypatch):
    monkeypatch.setattr(_library, "reveal", lambda *_: {"unclear": "sums go round in circles"})
    long = specs(image=(1, 3, 4, 600), depthwise=(3, 3, 600, 1), pointwise=(1, 1, 600, 16))
    assert sepconv.explain(*long, **PLAIN).exact  # eager is what was promised
    with tf.Graph().as_default():
        assert sepconv.explain(*long, **PLAIN).exact == (not ONEDNN)
        # With AVX2 short sums depend on constant filters too.
        assert sepconv.explain(*specs(image=(1, 3, 4, 16)), **PLAIN).exact == (not ONEDNN)


def test_explain_refuses_what_a_call_refuses():
    for context in ("eager", "graph"):
        with pytest.raises(tf.errors.InvalidArgumentError if context == "eager" else ValueError, match="in_channels"):
            if context == "eager":
                sepconv.explain(*specs(image=(1, 8, 8, 3)), **PLAIN)
            else:
                tf.function(lambda: sepconv.explain(*specs(image=(1, 8, 8, 3)), **PLAIN))()
    with pytest.raises(tf.errors.InvalidArgumentError, match="pointwise_filter must be float32"):
        sepconv.explain(*specs()[:2], specs(dtype="float64")[2], **PLAIN)


def test_stats():
    arrays, attributes = arrays_of("tiny")
    before = sepconv.stats()
    for dtype in DTYPES:
        sepconv.separable_conv2d(*[tf.cast(a, dtype) for a in arrays], **attributes, numerics="reproducible")
    sepconv.explain(*arrays, **attributes, numerics="reproducible")
    after = sepconv.stats()
    assert after["kernel_calls"] - before["kernel_calls"] == 4
    for dtype in DTYPES:
        assert after["kernel_calls_by_dtype"][dtype] - before["kernel_calls_by_dtype"][dtype] == 1
    assert after["threads"] == THREADS
    with pytest.raises(tf.errors.InvalidArgumentError):
        sepconv.separable_conv2d(*arrays[:2], arrays[2][:, :, 1:], **attributes)
    assert sepconv.stats()["kernel_calls"] == after["kernel_calls"]


@PROMISED
@pytest.mark.parametrize("name", ["mbv1_13", "aspp_r2", "tiny"])
def test_a_text_comes_back(name):
    """What `explain` prints gives the same bits as an argument, in every context."""
    arrays, attributes = arrays_of(name)
    text = sepconv.explain(*arrays, **attributes).numerics
    given = sepconv.explain(*arrays, **attributes, numerics=text)
    assert (given.path, given.numerics, given.exact) == ("op", text, True)
    expected = tensorflows(*arrays, **attributes)
    assert same(sepconv.separable_conv2d(*arrays, **attributes, numerics=text), expected)
    function = tf.function(lambda *tensors: sepconv.separable_conv2d(*tensors, **attributes, numerics=text))
    assert same(function(*arrays), expected)


def test_a_text_for_another_length_is_refused():
    text = "v1 depthwise(fused, inside) pointwise(fused, 8+8) subnormals(kept)"
    assert sepconv.explain(*specs(), **PLAIN, numerics=text).numerics == text.replace("8+8", "8x2")
    with pytest.raises(tf.errors.InvalidArgumentError, match="numerics.*16 products"):
        sepconv.explain(*specs(depthwise=(3, 3, 16, 2), pointwise=(1, 1, 32, 16)), **PLAIN, numerics=text)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["b8_mbv1_7", "tiny", "aspp_r12", "k5"])
def test_reproducible(name, dtype):
    """The same bits however the batch is split and on however many threads."""
    arrays, attributes = arrays_of(name)
    x, d, p = (tf.constant(array, dtype) for array in arrays)
    x = tf.concat([x, -x, x * 0.5], 0)
    attributes["numerics"] = "reproducible"
    expected = sepconv.separable_conv2d(x, d, p, **attributes)
    for size in (1, 2, x.shape[0] - 1):
        parts = [sepconv.separable_conv2d(x[i : i + size], d, p, **attributes) for i in range(0, x.shape[0], size)]
        assert same(tf.concat(parts, 0), expected), size
    try:
        for threads in (1, 2, 3, 7):
            _library.set_threads(threads)
            assert sepconv.stats()["threads"] == threads
            assert same(sepconv.separable_conv2d(x, d, p, **attributes), expected), threads
    finally:
        _library.set_threads(THREADS)


@PROMISED
def test_a_cached_eager_call_costs_little():
    arrays, attributes = arrays_of("tiny")
    tensors = [tf.constant(array) for array in arrays]
    functions, times = (sepconv.separable_conv2d, tensorflows), ([], [])
    for _ in range(200):
        for function, taken in zip(functions, times, strict=True):
            begun = time.perf_counter()
            function(*tensors, **attributes)
            taken.append(time.perf_counter() - begun)
    ours, theirs = map(statistics.median, times)
    assert theirs / ours >= 1.5, f"{ours * 1e6:.0f} us against {theirs * 1e6:.0f} us"


def test_the_package():
    assert sepconv.__version__ == "0.1.0"
    assert sepconv.library_path().endswith(".so")
    assert {*sepconv.__all__} <= {*dir(sepconv)}


def test_type_hints():
    assert pathlib.Path(sepconv.__file__).with_name("py.typed").exists()
    public = [getattr(sepconv, name) for name in sepconv.__all__] + [sepconv.compat.v1.separable_conv2d]
    public += [sepconv.keras.convert, sepconv.keras.restore]
    functions = [function for function in public if inspect.isroutine(function)]
    assert len(functions) >= 8
    for function in functions:
        hints, signature = typing.get_type_hints(inspect.unwrap(function)), inspect.signature(function)
        assert {*signature.parameters, "return"} == {*hints}, function
