"""A C program without Python loads the library, runs a saved model and gets the same bits."""

import pathlib

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from consumer import results
from helpers import same, tensorflows

pytestmark = pytest.mark.skipif(THREADS > 1, reason="the number of threads cannot matter to a program that is not told")
ATTRIBUTES = {"strides": [1, 2, 2, 1], "padding": "SAME", "dilations": [2, 1]}


@pytest.fixture
def saved(tmp_path: pathlib.Path, rng):
    """A saved model's folder, its input, and TensorFlow's own result."""
    x, *filters = (rng.standard_normal(s, dtype=np.float32) for s in ([2, 9, 8, 6], [3, 3, 6, 2], [1, 1, 12, 16]))
    model, variables = tf.Module(), [tf.Variable(filter) for filter in filters]
    model.filters = variables
    model.convolve = tf.function(
        lambda x: {"y": sepconv.separable_conv2d(x, *variables, **ATTRIBUTES)},
        input_signature=[tf.TensorSpec(x.shape, name="x")],
    )
    tf.saved_model.save(model, str(tmp_path), model.convolve)
    return tmp_path, x, tensorflows(x, *filters, **ATTRIBUTES)


def test_the_same_bits_without_python(consumer, saved):
    folder, x, expected = saved
    y, stats = results(consumer(sepconv.library_path(), folder, "serving_default", x))
    assert same(y.reshape(expected.shape), expected)
    assert stats["kernel_calls"] == 1


def test_what_is_missing_is_named(consumer, saved, tmp_path):
    """As in any program that has TensorFlow's own ops only, such as TensorFlow Serving's."""
    for library, message in (("", "'Sepconv>SeparableConv2D'"), (str(tmp_path / "none.so"), "none.so")):
        ended = consumer(library, saved[0], "serving_default", saved[1])
        assert ended.returncode == 1 and not ended.stdout
        assert message in ended.stderr.decode().splitlines()[-1]
