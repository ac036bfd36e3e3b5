"""Gradients, which go through TensorFlow's own operations, are TensorFlow's to the bit; second derivatives too."""

import functools

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, THREADS
from helpers import kernel_calls, same, tensorflows

pytestmark = pytest.mark.skipif(not ONEDNN and THREADS > 1, reason="promised with oneDNN, and without on 1 thread")

CASES = {
    "plain": ([1, 1, 1, 1], "SAME", "NHWC", None),
    "strided": ([1, 2, 2, 1], "VALID", "NHWC", None),
    "dilated": ([1, 1, 1, 1], "SAME", "NHWC", [2, 3]),
    "strided and dilated": ([1, 2, 2, 1], "SAME", "NHWC", [2, 2]),
    "explicit": ([1, 1, 1, 1], [[0, 0], [1, 2], [0, 1], [0, 0]], "NHWC", None),
}


def tensors_of(dtype):
    rng = np.random.default_rng(5)
    shapes = [2, 9, 8, 4], [3, 3, 4, 2], [1, 1, 8, 5]
    return [tf.constant(rng.standard_normal(shape), dtype) for shape in shapes]


def gradients(convolve, tensors, attributes):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        output = convolve(*tensors, *attributes)
        loss = tf.reduce_sum(output * output)
    return tape.gradient(loss, tensors)


def second(convolve, tensors, attributes):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        first = gradients(convolve, tensors, attributes)
        loss = tf.add_n([tf.reduce_sum(gradient * gradient) for gradient in first])
    return tape.gradient(loss, tensors)


def all_same(ours, theirs):
    return len(ours) == len(theirs) and all(same(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_tape_and_in_a_function(case, dtype):
    tensors, attributes = tensors_of(dtype), CASES[case]
    before = kernel_calls()
    ours = gradients(sepconv.separable_conv2d, tensors, attributes)
    assert kernel_calls() - before == (sepconv.explain(*tensors, *attributes).path == "op")
    theirs = gradients(tensorflows, tensors, attributes)
    assert all_same(ours, theirs)
    function = tf.function(lambda *tensors: gradients(sepconv.separable_conv2d, list(tensors), attributes))
    assert all_same(function(*tensors), theirs)


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case):
    """Of small integers, so that no order of sums matters: these add up what comes along several ways."""
    tensors, attributes = [tf.round(tensor) for tensor in tensors_of("float64")], CASES[case]
    theirs = second(tensorflows, tensors, attributes)
    convolve = functools.partial(sepconv.separable_conv2d, numerics="reproducible")
    before = kernel_calls()
    assert all_same(second(convolve, tensors, attributes), theirs)
    assert kernel_calls() - before == 1
    assert all_same(tf.function(lambda *t: second(convolve, list(t), attributes))(*tensors), theirs)


@pytest.mark.parametrize("case", CASES)
def test_v1_gradients(case):
    # TensorFlow's graph optimiser changes TensorFlow's own bits; and with AVX2 they are not those of eager calls.
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=THREADS)
    config.graph_options.rewrite_options.disable_meta_optimizer = True

    def derivatives(convolve):
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            tensors = [tf.constant(array) for array in arrays]
            output = convolve(*tensors, *CASES[case])
            return session.run(tf.gradients(output * output, tensors))

    arrays = [tensor.numpy() for tensor in tensors_of("float32")]
    theirs = derivatives(tensorflows)
    assert all_same(derivatives(sepconv.separable_conv2d), theirs)


def test_unknown_extents():
    tensors, attributes = tensors_of("float32"), CASES["plain"]
    specs = [tf.TensorSpec([None, None, None, 4]), *[tf.TensorSpec(t.shape) for t in tensors[1:]]]
    function = tf.function(lambda *t: gradients(sepconv.separable_conv2d, list(t), attributes), input_signature=specs)
    assert all_same(function(*tensors), gradients(tensorflows, tensors, attributes))


def test_only_what_was_asked_for():
    tensors = tensors_of("float32")
    with tf.GradientTape() as tape:
        tape.watch(tensors[1])
        output = sepconv.separable_conv2d(*tensors, *CASES["plain"])
    assert tape.gradient(output, tensors, unconnected_gradients="none")[0] is None


@pytest.mark.parametrize("case", [([1, 1, 2, 1], "SAME", None, None), ([1, 2, 1, 1], "VALID", None, [1, 2])])
@pytest.mark.parametrize("context", [lambda f: f, tf.function], ids=["eager", "function"])
def test_unequal_strides_have_gradients_in_every_mode(case, context):
    """Among the results of stride 1, which TensorFlow's kernels take in every mode, stand those of other strides."""
    tensors = [tf.round(tensor * 8) for tensor in tensors_of("float64")]  # small integers: sums are exact in any order
    strides, padding, _, rate = case
    ours = context(lambda: gradients(sepconv.separable_conv2d, tensors, case))()

    def everywhere(input, *filters_and_rest):
        if padding == "SAME":  # 8 wide, 3 wide filter, stride 2: one zero behind; stride 1: one before as well
            input = tf.pad(input, [(0, 0), (1, 1), (0, 1), (0, 0)])
        if rate is None:
            return tensorflows(input, *filters_and_rest[:2], [1, 1, 1, 1], "VALID")[:, :: strides[1], :: strides[2]]
        # In TensorFlow's meaning a stride counts within each of the `rate` smaller images.
        parts = [tensorflows(input[:, :, i::2], *filters_and_rest[:2], [1, 1, 1, 1], "VALID")[:, ::2] for i in (0, 1)]
        return tf.reshape(tf.stack(parts, axis=3), [2, 4, 4, 5])

    assert all_same(ours, gradients(everywhere, tensors, case))
