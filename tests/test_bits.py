"""The bits of an eager `tf.nn.separable_conv2d`, in every context, and the op's own count of its calls."""

import itertools
import pathlib
import pickle
import sys

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import AVX512, ONEDNN, PROMISED, THREADS
from fresh import in_fresh_process
from helpers import SHAPES, arrays_of, kernel_calls, same, tensorflows

pytestmark = PROMISED


@pytest.mark.parametrize("name", SHAPES)
def test_fifteen_shapes_in_every_context(name, rng):
    arrays, attributes = arrays_of(name)
    tensors = [tf.constant(array) for array in arrays]
    expected = tensorflows(*tensors, **attributes)
    variables = [tf.Variable(array) for array in arrays[1:]]
    convolve = sepconv.separable_conv2d
    constants = tf.function(lambda x: convolve(x, *arrays[1:], **attributes))
    contexts = {
        "eager": lambda: convolve(*tensors, **attributes),
        "variables": tf.function(lambda: convolve(tensors[0], *variables, **attributes)),
        "constants": lambda: constants(tensors[0]),
    }
    before, sequence = kernel_calls(), rng.permutation(list(contexts) * 2)
    for context in sequence:
        assert same(contexts[context](), expected), f"{context} in {list(sequence)}"
    assert kernel_calls() - before == len(sequence)
    explanation = sepconv.explain(*tensors, **attributes)
    assert explanation.path == "op" and explanation.exact, explanation


FRESH = """
import os, pickle, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[3]))
arrays, attributes = pickle.load(open(sys.argv[1], "rb"))
function = tf.function(lambda x: tf.nn.separable_conv2d(x, arrays[1], arrays[2], **attributes))
function(tf.constant(arrays[0])).numpy().tofile(sys.argv[2])
"""


@pytest.mark.parametrize("name", SHAPES)
def test_constant_filters_of_a_fresh_process(name, tmp_path: pathlib.Path):
    arrays, attributes = arrays_of(name)
    (tmp_path / "call").write_bytes(pickle.dumps((arrays, attributes)))
    in_fresh_process(FRESH, str(tmp_path / "call"), str(tmp_path / "result"), str(THREADS))
    before = kernel_calls()
    result = sepconv.separable_conv2d(*arrays, **attributes, numerics="tensorflow-constant")
    assert kernel_calls() - before == 1
    assert same(result, np.fromfile(tmp_path / "result", np.float32).reshape(result.shape))


HISTORY = """
import sys, zlib
import numpy as np
import sepconv
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
rng = np.random.default_rng(1)
x, d, p = (tf.constant(rng.standard_normal(s, dtype=np.float32)) for s in
           ([1, 7, 7, 1024], [3, 3, 1024, 1], [1, 1, 1024, 1024]))
d_array, p_array, variables = d.numpy(), p.numpy(), (tf.Variable(d), tf.Variable(p))
def functions(convolve):
    attributes = dict(strides=[1, 1, 1, 1], padding="SAME")
    constants = tf.function(lambda x: convolve(x, d_array, p_array, **attributes))
    return {
        "v": tf.function(lambda: convolve(x, *variables, **attributes)),
        "c": lambda: constants(x),
        "e": lambda: convolve(x, d, p, **attributes),
    }
convolve = {"tensorflow": tf.nn.separable_conv2d, "sepconv": sepconv.separable_conv2d}[sys.argv[1]]
kinds = functions(convolve)
results = [kinds[kind]().numpy() for kind in sys.argv[2]]
results.append(tf.nn.separable_conv2d(x, d, p, [1, 1, 1, 1], "SAME").numpy())
print(" ".join(str(zlib.crc32(r.tobytes())) for r in results))
"""


@pytest.mark.skipif(not ONEDNN, reason="without oneDNN the context never mattered")
def test_tensorflow_depends_on_history_and_we_do_not():
    orders = ["vcvc", "cvcv"]
    theirs = [in_fresh_process(HISTORY, "tensorflow", order).split() for order in orders]
    ours = [in_fresh_process(HISTORY, "sepconv", order + "e").split() for order in orders]
    if len({*itertools.chain(*theirs)}) == 1:
        pytest.skip("this machine's oneDNN re-lays no filter for this shape")
    # The same function with the same filters gives other bits, by what ran before it.
    assert theirs[0][0] != theirs[1][1] or theirs[0][1] != theirs[1][0]
    # Ours are those of the eager call, the last of each line, whatever ran before.
    assert {*itertools.chain(*ours)} == {theirs[0][-1]}, (ours, theirs)


def random_case(rng):
    """A fifth with K >= 512, a tenth with one output channel, a tenth with a single row."""
    kind = rng.random()
    single_row, one_column = 0.1 <= kind < 0.2, kind < 0.1
    multiplier = int(rng.choice([1, 1, 1, 2, 3]))
    k = int(rng.integers(512, 1600)) if rng.random() < 0.2 else int(rng.integers(1, 384))
    channels = max(1, k // multiplier)
    if channels * multiplier < 512 <= k:
        channels += 1
    kernel = rng.integers(1, 6, 2)
    rate = rng.integers(1, 4, 2) if rng.random() < 0.3 else np.array([1, 1])
    stride = int(rng.integers(1, 4)) if rng.random() < 0.4 else 1
    extent = rng.integers(1, 18, 2)
    batch = int(rng.choice([1, 1, 2, 3, 8])) if channels < 512 else int(rng.choice([1, 1, 1, 2]))
    padding = ["SAME", "VALID", "EXPLICIT"][rng.integers(3)]
    if single_row:
        batch, padding, stride, rate = 1, "VALID", 1, np.array([1, 1])
        extent = kernel.copy()
    elif padding == "VALID":
        extent = np.maximum(extent, (kernel - 1) * rate + 1)
    elif padding == "EXPLICIT":
        pads = rng.integers(0, 3, (2, 2))
        extent = np.maximum(extent, (kernel - 1) * rate + 1 - pads.sum(1))
        padding = [[0, 0], pads[0].tolist(), pads[1].tolist(), [0, 0]]
    columns = 1 if one_column else int(rng.integers(1, 200))
    dtype = rng.choice([*[np.float32] * 3, np.float64, np.float16, tf.bfloat16.as_numpy_dtype])
    shapes = [batch, *extent, channels], [*kernel, channels, multiplier], [1, 1, channels * multiplier, columns]
    arrays = [rng.standard_normal(np.asarray(shape, int)).astype(dtype) for shape in shapes]
    return arrays, {"strides": [1, stride, stride, 1], "padding": padding, "dilations": rate.tolist()}


# Bytes of the smallest types whose orders are followed: before 2.21 TensorFlow rounds every product of 16-bit depthwise
# sums before it adds them, which the kernels do not.
FOLLOWED_SIZE = 2 if tuple(map(int, tf.__version__.split(".")[:2])) >= (2, 21) else 4


def test_500_random_geometries(rng, capsys):
    count, through_op, of_followed, left = 500, 0, [], {}
    for index in range(count):
        arrays, attributes = random_case(rng)
        tensors = [tf.constant(array) for array in arrays]
        before = kernel_calls()
        result = sepconv.separable_conv2d(*tensors, **attributes)
        calls = kernel_calls() - before
        shapes = [list(array.shape) for array in arrays]
        assert same(result, tensorflows(*tensors, **attributes)), (index, shapes, attributes)
        explanation = sepconv.explain(*tensors, **attributes)
        assert calls == (explanation.path == "op")
        through_op += calls
        if arrays[0].dtype.itemsize >= FOLLOWED_SIZE:
            of_followed.append(calls)
        if not calls:
            left.setdefault(explanation.reason, []).append(shapes)
    with capsys.disabled():
        mode = f"oneDNN {'on' if ONEDNN else 'off'}, {THREADS} thread(s)"
        print(f"\n{mode}: {count} of {count} equal, {through_op} through the op", file=sys.stderr)
        for reason, shapes in left.items():
            print(f"  {len(shapes)} to TensorFlow, such as {shapes[0]}: {reason}", file=sys.stderr)
    assert np.mean(of_followed) >= (0.97 if ONEDNN else 0.8)


@pytest.mark.parametrize("unknown", ["batch", "batch, height and width"])
def test_orders_of_unknown_shapes(unknown, rng, capsys):
    """How often the prediction for a shape that a graph does not know is right."""
    count, predicted, right = 40, 0, 0
    for _ in range(count):
        arrays, attributes = random_case(rng)
        specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
        batch, *image, channels = arrays[0].shape
        specs[0] = tf.TensorSpec([None, *(image if unknown == "batch" else [None, None]), channels], arrays[0].dtype)
        text = sepconv.explain(*specs, **attributes).numerics
        if text is not None:
            tensors = [tf.constant(array) for array in arrays]
            predicted += 1
            right += same(
                sepconv.separable_conv2d(*tensors, **attributes, numerics=text), tensorflows(*tensors, **attributes)
            )
    with capsys.disabled():
        mode = f"oneDNN {'on' if ONEDNN else 'off'}, {THREADS} thread(s)"
        print(f"\n{mode}, unknown {unknown}: {right} of {predicted} predictions right", file=sys.stderr)
    # One wrong of 40 says nothing against 99 %. Without AVX-512 TensorFlow takes the last rows in orders of their own,
    # and how many these are depends on the size: seen of 120 each were 90 % (off) and 98 % (on), and 70 % and 81 %.
    most = (1 if AVX512 else 5, 0.3 if AVX512 else 0.45)
    assert predicted - right <= (most[0] if unknown == "batch" else most[1] * predicted)
