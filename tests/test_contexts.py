"""The same bits wherever a call stands and whatever it is given: eager, functions, v1 graphs, threads; arrays and
variables of every dtype; and TensorFlow's names for the resulting tensors.
"""

import pathlib
import re
import threading
import time

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import PROMISED, THREADS
from fresh import in_fresh_process
from helpers import arrays_of, kernel_calls, same, small, tensorflows

v1 = tf.compat.v1


@PROMISED
@pytest.mark.parametrize("kind", ["numpy arrays", "lists", "tensors", "variables", "a mixture"])
def test_kinds_of_arguments(kind):
    arrays, attributes = small()
    given = {
        "numpy arrays": arrays,
        "lists": [array.tolist() for array in arrays],
        "tensors": [tf.constant(array) for array in arrays],
        "variables": [tf.Variable(array) for array in arrays],
        "a mixture": [arrays[0].tolist(), tf.Variable(arrays[1]), arrays[2]],
    }[kind]
    expected = tensorflows(*[tf.constant(array) for array in arrays], **attributes)
    before = kernel_calls()
    assert same(sepconv.separable_conv2d(*given, **attributes), expected)
    assert same(tf.function(lambda: sepconv.separable_conv2d(*given, **attributes))(), expected)
    assert kernel_calls() - before == 2


@PROMISED
def test_kinds_of_attributes():
    (x, d, p), _ = small()
    pairs = [[0, 0], [1, 1], [1, 1], [0, 0]]
    expected = tensorflows(x, d, p, [1, 1, 1, 1], pairs, dilations=[2, 2])
    for strides in ([1, 1, 1, 1], (1, 1, 1, 1), [1.0] * 4, [np.int64(1)] * 4):
        for padding in (pairs, tuple(map(tuple, pairs)), np.array(pairs)):
            for rate in (
                [2, 2],
                (2, 2),
                np.array([2, 2]),
                tf.constant([2, 2]),
                tf.Variable([2, 2]),
                [tf.constant(2)] * 2,
            ):
                result = sepconv.separable_conv2d(x, d, p, strides, padding, dilations=rate)
                assert same(result, expected), (strides, padding, rate)
    assert same(sepconv.separable_conv2d(x, d, p, [1] * 4, b"SAME"), tensorflows(x, d, p, [1] * 4, "SAME"))


@PROMISED
def test_v1_graph_and_session():
    arrays, attributes = small()
    with tf.Graph().as_default(), v1.Session() as session:
        feeds = [v1.placeholder(tf.float32, array.shape) for array in arrays]
        open_batch = v1.placeholder(tf.float32, [None, *arrays[0].shape[1:]])
        variables = [v1.get_variable(name, initializer=array) for name, array in zip("dp", arrays[1:], strict=True)]
        results = {
            "placeholders": sepconv.separable_conv2d(*feeds, **attributes),
            "variables": sepconv.separable_conv2d(feeds[0], *variables, **attributes),
            "constants": sepconv.separable_conv2d(open_batch, *arrays[1:], **attributes),
            "v1 order": sepconv.compat.v1.separable_conv2d(
                open_batch, *feeds[1:], [1, 1, 1, 1], "SAME", [1, 1], "named", "NHWC"
            ),
        }
        session.run(v1.global_variables_initializer())
        before = kernel_calls()
        values = session.run(results, {**dict(zip(feeds, arrays, strict=True)), open_batch: arrays[0]})
        assert kernel_calls() - before == len(results)
    expected = tensorflows(*arrays, **attributes)
    for name, value in values.items():
        assert same(value, expected), name


V1_PROCESS = """
import numpy as np, sys
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
import sepconv
rng = np.random.default_rng(0)
arrays = [rng.standard_normal(s).astype(np.float32) for s in ([1, 7, 7, 16], [3, 3, 16, 1], [1, 1, 16, 8])]
x = tf.placeholder(tf.float32, [None, 7, 7, 16])
before = len(tf.get_default_graph().get_operations())
ours = sepconv.compat.v1.separable_conv2d(x, *arrays[1:], [1, 1, 1, 1], "SAME", [2, 2])
added = [op.type for op in tf.get_default_graph().get_operations()[before:]]
assert sorted(added) == ["Const", "Const", "Const", "Sepconv>SeparableConv2D"], added
with tf.Session(config=tf.ConfigProto(intra_op_parallelism_threads=int(sys.argv[1]))) as session:
    ours = session.run(ours, {x: arrays[0]})
print(ours.tobytes().hex())
print(sepconv.stats()["kernel_calls"])
"""


@PROMISED
def test_a_process_without_eager_execution():
    result, calls = in_fresh_process(V1_PROCESS, str(THREADS)).split()
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ([1, 7, 7, 16], [3, 3, 16, 1], [1, 1, 16, 8])]
    # Eager ones, as promised: with constant filters TensorFlow has other bits on some processors.
    assert result == tensorflows(*arrays, [1, 1, 1, 1], "SAME", dilations=[2, 2]).numpy().tobytes().hex()
    assert calls == "1"


def test_threads_of_a_process_that_only_loads_a_model():
    code = "import tensorflow as tf; tf.config.threading.set_intra_op_parallelism_threads(7); "
    assert in_fresh_process(code + "import sepconv; print(sepconv.stats()['threads'])").split() == ["7"]


def test_v1_arguments():
    arrays, _ = small()
    expected = sepconv.separable_conv2d(*arrays, [1, 1, 1, 1], "VALID", dilations=[2, 1])
    convolve = sepconv.compat.v1.separable_conv2d
    assert same(convolve(*arrays, [1, 1, 1, 1], "VALID", [2, 1]), expected)
    assert same(convolve(*arrays, strides=[1, 1, 1, 1], padding="VALID", dilations=[2, 1]), expected)
    assert same(sepconv.separable_conv2d(*arrays, [1, 1, 1, 1], "VALID", rate=[2, 1]), expected)
    for function in (convolve, sepconv.separable_conv2d):
        with pytest.raises(ValueError, match="dilations and rate"):
            function(*arrays, strides=[1, 1, 1, 1], padding="VALID", rate=[2, 1], dilations=[2, 1])


@pytest.mark.parametrize("path", ["op", "tensorflow", "NCHW"])
@pytest.mark.parametrize("kind", ["placeholders", "arrays", "variables"])
def test_names_and_scopes(kind, path, monkeypatch):
    arrays, attributes = small()
    if path == "tensorflow":
        monkeypatch.setattr(sepconv._convolution, "DTYPES", ())
    if path == "NCHW":
        arrays[0] = arrays[0].transpose(0, 3, 1, 2)
        attributes["data_format"] = "NCHW"

    def names(convolve):
        with tf.Graph().as_default() as graph:
            given = arrays
            if kind == "placeholders":
                given = [v1.placeholder(array.dtype, array.shape) for array in arrays]
            if kind == "variables":
                given = [v1.get_variable(name, initializer=array) for name, array in zip("xdp", arrays, strict=True)]
            results = [convolve(*given, **attributes), convolve(*given, **attributes)]
            results += [convolve(*given, **attributes, name="mine"), convolve(*given, **attributes, name="mine")]
            with tf.name_scope("outer"), v1.name_scope("inner"):
                results += [convolve(*given, **attributes), convolve(*given, **attributes, name="mine")]
                results += [convolve(*given, **attributes, name="absolute/")]
            # What is built afterwards keeps its name too.
            results += [tf.identity(results[0], name="separable_conv2d"), tf.identity(results[0], name="mine")]
            inputs = {op.name for op in graph.get_operations() if op.type in ("Const", "Placeholder", "VarHandleOp")}
            ends = ("tensor_in", "_filter", "Placeholder", "x", "d", "p")
            return [result.name for result in results], {name for name in inputs if name.endswith(ends)}

    assert names(sepconv.separable_conv2d) == names(tensorflows)


def test_names_in_a_function():
    arrays, attributes = small()

    def names(convolve):
        function = tf.function(lambda x: tf.stack([convolve(x, *arrays[1:], **attributes) for _ in range(2)]))
        graph = function.get_concrete_function(tf.TensorSpec(arrays[0].shape)).graph
        return [tensor.name for tensor in graph.get_operation_by_name("stack").inputs]

    assert names(sepconv.separable_conv2d) == names(tensorflows)


@PROMISED
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("rate", [None, [2, 1]])
def test_every_dtype_and_format(dtype, data_format, strides, rate):
    """Whatever some kernel of TensorFlow computes is computed, with its bits where it computes it in this mode."""
    arrays, _ = small()
    strides = [1, *strides, 1]
    tensors = [tf.cast(array, dtype) for array in arrays]
    if data_format == "NCHW":
        tensors[0] = tf.transpose(tensors[0], [0, 3, 1, 2])
        strides = [strides[axis] for axis in (0, 3, 1, 2)]
    arguments = (*tensors, strides, "SAME", data_format, rate)
    ours = sepconv.separable_conv2d(*arguments)
    graph = tf.function(lambda *tensors: sepconv.separable_conv2d(*tensors, strides, "SAME", data_format, rate))(
        *tensors
    )
    assert ours.dtype == graph.dtype == dtype and ours.shape == graph.shape
    assert same(ours, graph)
    try:
        theirs = tensorflows(*arguments)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        return
    assert same(ours, theirs)


def test_dtypes_that_differ():
    (x, d, p), attributes = small()
    for context in (lambda f: f, tf.function):
        for given in ((x.astype(np.float64), d, p), (x, d.astype(np.float64), p), (x, d, p.astype(np.float16))):
            refusals = []
            for convolve in (tensorflows, sepconv.separable_conv2d):
                with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)) as refused:
                    context(lambda c=convolve, g=given: c(*g, **attributes))()
                refusals.append(type(refused.value))
            assert refusals[0] == refusals[1]
            wrong = "pointwise_filter must be float32, as input is, got float16"
            if given[2].dtype == np.float32:
                wrong = "depthwise_filter must be float(32, as input is, got float64|64, as input is, got float32)"
            assert re.search(wrong, str(refused.value))


@pytest.mark.parametrize(
    "dilations", [2, True, "ab", [1, 2, 2, 1], (2.0, 2.0), [[2, 2]], tf.constant([2.0, 2.0])], ids=str
)
def test_dilations_that_are_none(dilations):
    """TensorFlow's classes, and words that name the argument; it takes `[2]`, too."""
    arrays, attributes = small()
    for context in (lambda f: f, tf.function):
        refusals = []
        for convolve in (tensorflows, sepconv.separable_conv2d):
            with pytest.raises((TypeError, ValueError)) as refused:
                context(lambda c=convolve: c(*arrays, **attributes | {"dilations": dilations}))()
            refusals.append(type(refused.value))
        assert refusals[0] == refusals[1]
        assert f"dilations must be two positive integers, or an integer tensor of shape [2], got {dilations!r}" in str(
            refused.value
        )


@pytest.mark.parametrize("number", [tf.constant, tf.Variable, "fed"], ids=str)
def test_dilations_among_which_are_numbers_of_a_graph(number):
    arrays, attributes = small()
    results = []
    for convolve in (tensorflows, sepconv.separable_conv2d):
        rate = None if number == "fed" else number(2)

        @tf.function
        def call(given, convolve=convolve, rate=rate):
            return convolve(*arrays, **attributes | {"dilations": [given if rate is None else rate, 2]})

        results.append(call(tf.constant(2)))
    assert same(*results)


def test_integers_are_refused_as_tensorflow_refuses_them():
    tensors = tf.ones([1, 5, 5, 2], tf.int32), tf.ones([3, 3, 2, 1], tf.int32), tf.ones([1, 1, 2, 3], tf.int32)
    for context in (lambda f: f, tf.function):
        refusals = []
        for convolve in (tensorflows, sepconv.separable_conv2d):
            with pytest.raises((tf.errors.NotFoundError, tf.errors.InvalidArgumentError, TypeError)) as refused:
                context(lambda c=convolve: c(*tensors, [1, 1, 1, 1], "SAME"))()
            refusals.append(type(refused.value))
        assert refusals[0] == refusals[1]


@PROMISED
def test_control_flow():
    arrays, attributes = small(batch=1)
    x, filters = tf.constant(arrays[0]), arrays[1:]
    expected = tensorflows(x, *filters, **attributes)

    @tf.function
    def loop(x):
        total = sepconv.separable_conv2d(x, *filters, **attributes)
        for _ in tf.range(3):
            total = sepconv.separable_conv2d(x, *filters, **attributes)
        return total

    assert same(loop(x), expected)


@PROMISED
def test_two_threads_with_new_shapes_at_once():
    rng = np.random.default_rng(11)
    cases = []
    for height in range(20, 32):
        shapes = [1, height, 5, 8], [3, 3, 8, 1], [1, 1, 8, 24]
        cases.append([rng.standard_normal(shape).astype(np.float32) for shape in shapes])
    failures, start = [], threading.Barrier(4)

    def work(order):
        start.wait()
        for arrays in order:
            result = sepconv.separable_conv2d(*arrays, [1, 1, 1, 1], "SAME")
            if not same(result, tensorflows(*arrays, [1, 1, 1, 1], "SAME")):
                failures.append([array.shape for array in arrays])

    before = kernel_calls()
    orders = cases, cases[::-1], cases[6:] + cases[:6], cases
    threads = [threading.Thread(target=work, args=[order]) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert kernel_calls() - before == len(threads) * len(cases)


@PROMISED
def test_what_the_machine_has_no_memory_for_is_refused():
    """TensorFlow's own operations end the process over it where oneDNN is on."""
    tensors = tf.ones([1, 8, 8, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    with pytest.raises(tf.errors.ResourceExhaustedError, match="padding.*bytes"):
        sepconv.separable_conv2d(*tensors, [1, 1, 1, 1], [[0, 0], [2**31 - 1, 0], [0, 0], [0, 0]])


def sleeps_of_our_threads() -> dict:
    """How often each thread of the kernels' pool has gone to sleep."""
    sleeps = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
        except OSError:  # it has ended
            continue
        if status["Name"].startswith("sepconv-"):
            sleeps[task.name] = int(status["voluntary_ctxt_switches"])
    return sleeps


def test_calls_at_once_share_the_threads():
    """However many call; and tiny calls stay on the thread that calls."""
    (arrays, attributes), (tiny, tiny_attributes) = arrays_of("mbv1_7"), arrays_of("tiny")
    tensors, attributes["numerics"] = [tf.constant(array) for array in arrays], "reproducible"
    expected, results = sepconv.separable_conv2d(*tensors, **attributes), []

    def work():
        results.extend([sepconv.separable_conv2d(*tensors, **attributes) for _ in range(5)])

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 20 and all(same(result, expected) for result in results)
    time.sleep(0.1)
    before = sleeps_of_our_threads()
    assert len(before) <= THREADS and (before or THREADS == 1)
    for _ in range(100):
        sepconv.separable_conv2d(*tiny, **tiny_attributes, numerics="reproducible")
    assert sleeps_of_our_threads() == before
