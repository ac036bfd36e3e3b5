"""The same bits and static shapes wherever a call stands: eager, functions, v1 graphs, unknown extents; and
TensorFlow's names for the resulting tensors.
"""

import itertools
import pathlib
import threading
import time

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, THREADS
from fresh import in_fresh_process
from helpers import arrays_of, kernel_calls, same, tensorflows
from sepconv import _subgraphs

v1 = tf.compat.v1
PROMISED = pytest.mark.skipif(not ONEDNN and THREADS > 1, reason="promised with oneDNN, and without on 1 thread")


def small(batch=2, dtype=np.float32):
    """Input and filters of a call that every kernel takes, and its attributes."""
    rng = np.random.default_rng(3)
    shapes = [batch, 9, 8, 6], [3, 3, 6, 2], [1, 1, 12, 16]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return arrays, {"strides": [1, 1, 1, 1], "padding": "SAME"}


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
def test_a_rate_that_only_the_running_graph_knows():
    (x, d, p), attributes = small()
    function = tf.function(lambda rate: sepconv.separable_conv2d(x, d, p, **attributes, dilations=rate))
    for rate in ([1, 1], [2, 1], [3, 3]):
        assert same(function(tf.constant(rate)), tensorflows(x, d, p, **attributes, dilations=rate))
    with tf.Graph().as_default():
        explanation = sepconv.explain(x, d, p, **attributes, dilations=v1.placeholder(tf.int32, [2]))
        assert (explanation.path, explanation.exact) == ("tensorflow", False)
    with pytest.raises(ValueError, match="dilations"):
        fixed = {**attributes, "numerics": "reproducible"}
        tf.function(lambda rate: sepconv.separable_conv2d(x, d, p, **fixed, dilations=rate))(tf.constant([1, 1]))


UNKNOWN = {"batch": [0], "height": [1], "width": [2], "height and width": [1, 2], "all but channels": [0, 1, 2]}


@PROMISED
@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("name", ["mbv1_7", "tiny"])
def test_unknown_extents(name, unknown):
    """The op picks among the orders of several extents: a prediction, right where only the batch is unknown, and for
    the usual image."""
    arrays, attributes = arrays_of(name)
    shape = [None if axis in UNKNOWN[unknown] else extent for axis, extent in enumerate(arrays[0].shape)]
    spec = tf.TensorSpec(shape)
    filters = [tf.constant(array) for array in arrays[1:]]
    function = tf.function(
        lambda x: sepconv.separable_conv2d(x, *filters, **attributes), input_signature=[spec], reduce_retracing=True
    )
    before = kernel_calls()
    batches = (1, 2) if 0 in UNKNOWN[unknown] else (1,)
    results = {batch: function(tf.constant(np.concatenate([arrays[0]] * batch))) for batch in batches}
    assert kernel_calls() - before == len(batches)
    for batch, result in results.items():
        x = tf.constant(np.concatenate([arrays[0]] * batch))
        if batch == 1 or unknown == "batch":
            assert same(result, tensorflows(x, *filters, **attributes)), f"batch {batch}"
        assert same(function(x), result)
    filters = [tf.TensorSpec(filter.shape) for filter in filters]
    explanation = sepconv.explain(spec, *filters, **attributes)
    assert (explanation.path, explanation.exact) == ("op", False), explanation
    certain = {**attributes, "numerics": "tensorflow-certain"}
    explanation_of_certain = sepconv.explain(spec, *filters, **certain)
    assert (explanation_of_certain.path, explanation_of_certain.numerics) == ("tensorflow", None)
    assert sepconv.explain(*arrays, **certain).path == "op"
    # What was printed is a text like any other.
    x = tf.constant(arrays[0])
    again = sepconv.separable_conv2d(x, *arrays[1:], **attributes, numerics=explanation.numerics)
    assert same(again, tensorflows(x, *arrays[1:], **attributes))


@PROMISED
@pytest.mark.parametrize("what", ["rank", "channels", "filters", "everything"])
def test_what_is_left_to_tensorflow_while_unknown(what):
    arrays, attributes = small(batch=1)
    specs = [tf.TensorSpec(array.shape) for array in arrays]
    if what == "rank":
        specs[0] = tf.TensorSpec(None)
    if what == "channels":
        specs[0] = tf.TensorSpec([1, 9, 8, None])
    if what in ("filters", "everything"):
        specs[1:] = [tf.TensorSpec([None] * 4)] * 2
    if what == "everything":
        specs = [tf.TensorSpec(None), tf.TensorSpec([None] * 4), tf.TensorSpec([None] * 4)]
    function = tf.function(lambda *t: sepconv.separable_conv2d(*t, **attributes), input_signature=specs)
    expected = tensorflows(*arrays, **attributes)
    assert same(function(*arrays), expected)
    # Numerics that were given are never left to anyone.
    explanation = sepconv.explain(*specs, **attributes, numerics="reproducible")
    assert (explanation.path, explanation.exact) == ("op", True)
    fixed = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, **attributes, numerics="reproducible"), input_signature=specs
    )
    eager = sepconv.separable_conv2d(*arrays, **attributes, numerics="reproducible")
    assert same(fixed(*arrays), eager)


PARTIAL = [
    *([2, 9, 8, 6], [None, 9, 8, 6], [2, None, 8, 6], [2, 9, None, 6], [None, None, None, 6]),
    *([2, 9, 8, None], [None, None, None, None], None),
]
FILTERS = [
    *(([3, 3, 6, 2], [1, 1, 12, 16]), ([3, 3, 6, 2], [None] * 4), ([None] * 4, [1, 1, 12, 16])),
    *(([None] * 4, None), (None, [1, 1, 12, 16]), (None, None)),
]
ATTRIBUTES = [
    ([1, 1, 1, 1], "SAME", None),
    ([1, 2, 2, 1], "SAME", None),
    ([1, 3, 3, 1], "VALID", None),
    ([1, 1, 2, 1], "SAME", None),
    ([1, 1, 1, 1], "SAME", [2, 2]),
    ([1, 1, 1, 1], "VALID", [2, 3]),
    ([1, 2, 2, 1], "SAME", [2, 2]),
    ([1, 1, 1, 1], [[0, 0], [1, 2], [0, 3], [0, 0]], None),
    ([1, 2, 2, 1], [[0, 0], [1, 2], [0, 3], [0, 0]], [2, 1]),
]


ONES = [1, 1]


def dims(tensor):
    return [None] * 4 if tensor.shape.rank is None else tensor.shape.as_list()


@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
@pytest.mark.parametrize("strides, padding, rate", ATTRIBUTES)
def test_no_static_shape_is_lost(strides, padding, rate, numerics):
    for image, (depthwise, pointwise) in itertools.product(PARTIAL, FILTERS):
        with tf.Graph().as_default():
            tensors = [v1.placeholder(tf.float32, shape) for shape in (image, depthwise, pointwise)]
            try:
                theirs = tensorflows(*tensors, strides, padding, dilations=rate)
            except ValueError:  # TensorFlow's function must know the filters for some of this; ours need not
                theirs = None
            ours = sepconv.separable_conv2d(*tensors, strides, padding, dilations=rate, numerics=numerics)
            assert theirs is None or ours.shape.rank is not None or theirs.shape.rank is None
            known = dims(theirs) if theirs is not None else [None] * 4
            for axis, (a, b) in enumerate(zip(dims(ours), known, strict=True)):
                assert b is None or a == b, (image, depthwise, pointwise, axis, ours.shape, theirs.shape)


@PROMISED
@pytest.mark.parametrize("data_format", ["NHWC", "NCHW"])
@pytest.mark.parametrize("rate", [[2, 2], [1, 3], ONES, "tensor"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_filters_of_unknown_shape_with_a_rate(strides, rate, data_format):
    """TensorFlow's own function cannot be built so; eager it computes."""
    arrays, _ = small()
    if rate == "tensor":
        rate = tf.constant([3, 2])
    strides = (1, *strides, 1) if data_format == "NHWC" else (1, 1, *strides)
    if data_format == "NCHW":
        arrays[0] = arrays[0].transpose(0, 3, 1, 2)
    arguments = strides, "SAME", data_format
    specs = [tf.TensorSpec([None] * 4)] * 3
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t[:3], *arguments, t[3]),
        input_signature=[*specs, tf.TensorSpec([2], tf.int32)],
    )
    # TensorFlow pads otherwise where it cannot see in time that nothing is dilated.
    if rate is not ONES:
        assert same(function(*arrays, rate), sepconv.separable_conv2d(*arrays, *arguments, rate))
    fixed = rate.numpy().tolist() if tf.is_tensor(rate) else rate
    function = tf.function(lambda *t: sepconv.separable_conv2d(*t, *arguments, fixed), input_signature=specs)
    assert same(function(*arrays), sepconv.separable_conv2d(*arrays, *arguments, fixed))


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


@PROMISED
def test_ranks_that_only_the_running_graph_knows():
    """Another rank than 4 ends the process in TensorFlow where oneDNN is on."""
    tensors = tf.ones([1, 8, 8, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    attributes = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    function = tf.function(
        lambda *t: sepconv.separable_conv2d(*t, **attributes), input_signature=[tf.TensorSpec(None)] * 3
    )
    assert same(function(*tensors), tensorflows(*tensors, **attributes))
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(tensors[0][0], *tensors[1:])


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


def packings() -> int:
    return sepconv.stats()["packings"]


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
