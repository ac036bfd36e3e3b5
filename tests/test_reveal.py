"""A reveal costs little, happens once, and leaves no trace on tapes, graphs, profiles or op callbacks."""

import collections
import pathlib
import pickle
import signal
import sys
import time

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import PROMISED
from helpers import SHAPES, arrays_of, kernel_calls, same, tensorflows
from sepconv import _arguments, _context, _convolution, _library, _orders, _probes
from tensorflow.python.framework import op_callbacks
from tensorflow.tsl.profiler.protobuf import xplane_pb2

MOST_CALLS, LONGEST = 20, 0.05


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is known of any geometry when a test begins."""
    monkeypatch.setattr(_orders, "_known", {})
    monkeypatch.setattr(_convolution, "_eager_ways", {})


@pytest.fixture
def begun(monkeypatch):
    """When each call of a probe began."""
    times = []

    class Counted(_probes.Eager):
        def depthwise(self, *arrays):
            times.append(time.perf_counter())
            return super().depthwise(*arrays)

        def pointwise(self, *arrays):
            times.append(time.perf_counter())
            return super().pointwise(*arrays)

    monkeypatch.setitem(_orders.CONTEXTS, "tensorflow", Counted)
    return times


# batch, height, width, in_channels, channel_multiplier, kernel, out_channels: few rows and columns, long sums.
HARD = [
    *((1, 1, 1, 2048, 1, 1, 1), (1, 1, 1, 1536, 1, 1, 2), (1, 2, 1, 1024, 1, 1, 2), (1, 1, 3, 728, 2, 3, 3)),
    *((1, 3, 3, 1500, 1, 3, 1), (2, 1, 1, 997, 1, 1, 1), (1, 7, 7, 2048, 1, 3, 1000), (1, 1, 1, 4096, 1, 3, 1)),
]


@pytest.mark.parametrize("shape", [*SHAPES, *HARD], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_budget_of_calls(shape, dtype, begun):
    """At most 20 calls of TensorFlow's parts, or more within 50 ms. (What the library itself takes is not counted.)"""
    if isinstance(shape, str):
        arrays, attributes = arrays_of(shape)
    else:
        batch, height, width, channels, multiplier, kernel, columns = shape
        shapes = [batch, height, width, channels], [kernel, kernel, channels, multiplier]
        arrays = [np.ones(s, np.float32) for s in (*shapes, [1, 1, channels * multiplier, columns])]
        attributes = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    specs = [tf.TensorSpec(array.shape, dtype) for array in arrays]
    for attempt in range(3):  # a thread that others keep waiting has to be asked again
        begun.clear()
        _orders._known.clear()
        explanation = sepconv.explain(*specs, **attributes)
        assert begun
        if all(later - begun[0] <= LONGEST for later in begun[MOST_CALLS:]):
            break
        assert attempt < 2, (len(begun), explanation)
    calls = len(begun)
    assert sepconv.explain(*specs, **attributes) == explanation
    sepconv.separable_conv2d(*[tf.ones(spec.shape, dtype) for spec in specs], **attributes)
    assert len(begun) == calls, "revealed again"


@pytest.mark.parametrize("name", ["mbv1_7", "tiny"])
def test_budget_of_calls_for_unknown_extents(name, begun):
    """Several geometries stand for all: each has the budget of one."""
    arrays, attributes = arrays_of(name)
    specs = [tf.TensorSpec([None, None, None, arrays[0].shape[3]]), *[tf.TensorSpec(a.shape) for a in arrays[1:]]]
    sepconv.explain(*specs, **attributes)
    geometries = [call for call, _ in _orders._known if call.known]
    assert 2 <= len(geometries) <= 2 * len(_orders.EXTENTS)
    assert len(begun) <= MOST_CALLS * len(geometries) or begun[-1] - begun[0] <= LONGEST * len(geometries)


class Seen:
    """What an op callback is shown: types of operations."""

    def __init__(self):
        self.types = collections.Counter()

    def __call__(self, op_type, inputs, attrs, outputs, op_name=None, graph=None):
        self.types[op_type.decode() if isinstance(op_type, bytes) else op_type] += 1

    def __enter__(self):
        op_callbacks.add_op_callback(self)
        return self.types

    def __exit__(self, *_):
        op_callbacks.remove_op_callback(self)


@PROMISED
def test_op_callbacks_see_the_op_alone():
    arrays, attributes = arrays_of("tiny")
    tensors = [tf.constant(array) for array in arrays]
    with Seen() as types:
        sepconv.separable_conv2d(*tensors, **attributes)
    assert types.pop("Sepconv>SeparableConv2D") == 1
    assert set(types) <= {"Fill", "Const"}, types  # the geometry's own zero elements


@PROMISED
def test_a_graph_gets_the_op_and_a_constant():
    arrays, attributes = arrays_of("tiny")
    for specs in ([tf.TensorSpec(a.shape) for a in arrays], [tf.TensorSpec([None, None, None, 16]), *arrays[1:]]):
        specs = [s if isinstance(s, tf.TensorSpec) else tf.TensorSpec(s.shape) for s in specs]
        function = tf.function(lambda *t: sepconv.separable_conv2d(*t, **attributes), input_signature=specs)
        types = collections.Counter(op.type for op in function.get_concrete_function().graph.get_operations())
        assert types == {"Placeholder": 3, "Const": 1, "Sepconv>SeparableConv2D": 1, "Identity": 1}
    with tf.Graph().as_default() as outer, tf.Graph().as_default() as graph:
        tensors = [tf.compat.v1.placeholder(tf.float32, array.shape) for array in arrays]
        sepconv.separable_conv2d(*tensors, **attributes)
        types = collections.Counter(op.type for op in graph.get_operations())
        assert types == {"Placeholder": 3, "Const": 1, "Sepconv>SeparableConv2D": 1}
        assert not outer.get_operations()


@PROMISED
def test_tapes_and_accumulators_do_not_record_probes(monkeypatch):
    """Not even where the probes' own tensors are watched."""
    arrays, attributes = arrays_of("tiny")
    tensors = [tf.constant(array) for array in arrays]
    original, seen = _probes.Eager.run, []

    def run(name, inputs, attributes):
        inputs = [tf.constant(value) for value in inputs]
        tape.watch(inputs)
        seen.append((inputs, original(name, inputs, attributes)))
        return seen[-1][1]

    monkeypatch.setattr(_probes.Eager, "run", staticmethod(run))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensors)
        with tf.autodiff.ForwardAccumulator(tensors, tensors) as forward:
            result = sepconv.separable_conv2d(*tensors, **attributes)
    assert seen
    for inputs, output in seen:
        assert tape.gradient(output, inputs) == [None] * len(inputs) and forward.jvp(output) is None
    assert None not in tape.gradient(result, tensors) and forward.jvp(result) is not None


def operations_in(folder: pathlib.Path) -> collections.Counter:
    """How often each kind of eager operation ran while the profile in the folder was recorded."""
    (file,) = folder.rglob("*.xplane.pb")
    names = collections.Counter()
    for plane in xplane_pb2.XSpace.FromString(file.read_bytes()).planes:
        names.update(plane.event_metadata[event.metadata_id].name for line in plane.lines for event in line.events)
    prefix = "EagerLocalExecute: "
    return collections.Counter({n.removeprefix(prefix): c for n, c in names.items() if n.startswith(prefix)})


@PROMISED
def test_while_a_profile_is_recorded(tmp_path: pathlib.Path):
    arrays, attributes = arrays_of("tiny")
    tensors = [tf.constant(array) for array in arrays]
    expected = tensorflows(*tensors, **attributes)
    before = kernel_calls()
    tf.profiler.experimental.start(str(tmp_path))
    try:
        result = sepconv.separable_conv2d(*tensors, **attributes)
        explanation = sepconv.explain(*tensors, **attributes)
    finally:
        tf.profiler.experimental.stop()
    assert same(result, expected) and kernel_calls() == before
    assert explanation.path == "tensorflow" and "profile" in explanation.reason and explanation.exact
    types = operations_in(tmp_path)
    assert (types["DepthwiseConv2dNative"], types["Conv2D"]) == (1, 1), types
    # Afterwards as ever.
    assert sepconv.explain(*tensors, **attributes).path == "op"
    assert same(sepconv.separable_conv2d(*tensors, **attributes), expected)
    assert kernel_calls() - before == 1


@PROMISED
def test_a_known_geometry_needs_no_reveal_while_a_profile_is_recorded(tmp_path: pathlib.Path):
    arrays, attributes = arrays_of("tiny")
    expected = sepconv.separable_conv2d(*arrays, **attributes)
    before = kernel_calls()
    tf.profiler.experimental.start(str(tmp_path))
    try:
        assert same(sepconv.separable_conv2d(*arrays, **attributes), expected)
        graph = tf.function(lambda *tensors: sepconv.separable_conv2d(*tensors, **attributes))(*arrays)
    finally:
        tf.profiler.experimental.stop()
    assert same(graph, expected) and kernel_calls() - before == 2


def test_what_a_probe_raises(monkeypatch):
    """A refusal sends the call to TensorFlow; an interrupt stays one."""
    arrays, attributes = arrays_of("tiny")

    class Raises(_probes.Eager):
        error = tf.errors.ResourceExhaustedError(None, None, "no memory for this")

        def depthwise(self, *_):
            raise self.error

    monkeypatch.setitem(_orders.CONTEXTS, "tensorflow", Raises)
    explanation = sepconv.explain(*arrays, **attributes)
    assert explanation.path == "tensorflow" and "no memory for this" in explanation.reason
    _orders._known.clear()
    Raises.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sepconv.explain(*arrays, **attributes)


def test_an_interrupt_at_any_time(monkeypatch):
    """Also between two probes, where it comes up as the next one begins: it is no order that is unclear."""
    arrays, attributes = arrays_of("mbv1_7")
    specs = [tf.TensorSpec(array.shape) for array in arrays]
    begun = time.perf_counter()
    sepconv.explain(*specs, **attributes)
    took = time.perf_counter() - begun
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for part in range(1, 40):
            _orders._known.clear()
            try:
                signal.setitimer(signal.ITIMER_REAL, part / 40 * took)
                explanation = sepconv.explain(*specs, **attributes)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                # One that comes last of all finds it done.
                assert all(order.numerics for order in _orders._known.values())
            else:
                assert explanation.path == "op"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not ignored


def test_an_interrupt_between_two_probes_ends_a_reveal_at_once(monkeypatch):
    arrays, attributes = arrays_of("tiny")
    _orders._known.clear()
    asked, reveal = [], _library.reveal

    def interrupted(request, ask):
        def counted(*arguments):
            asked.append(arguments)
            if len(asked) == 3:
                signal.raise_signal(signal.SIGALRM)
            return ask(*arguments)

        return reveal(request, counted)

    monkeypatch.setattr(_library, "reveal", interrupted)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sepconv.explain(*arrays, **attributes)
        assert len(asked) == 3 and signal.getsignal(signal.SIGALRM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGALRM, before)


def test_an_interrupt_waits_for_the_end_of_a_probe(monkeypatch):
    """TensorFlow's code does not expect what a handler raises: a conversion reported it as an error of its own."""
    arrays, attributes = arrays_of("tiny")
    ended = []

    class Interrupted(_probes.Eager):
        def depthwise(self, *arguments):
            signal.raise_signal(signal.SIGALRM)
            ended.append(super().depthwise(*arguments))
            return ended[-1]

    monkeypatch.setitem(_orders.CONTEXTS, "tensorflow", Interrupted)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sepconv.explain(*arrays, **attributes)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(ended) == 1


def test_an_interrupt_while_a_context_is_asked(monkeypatch):
    """The next question gets its own answer, not the one that was still to come."""
    arrays, attributes = arrays_of("tiny")
    expected = sepconv.explain(*arrays, **attributes, numerics="tensorflow-constant")
    _orders._known.clear()
    load = pickle.load
    monkeypatch.setattr(_context.pickle, "load", lambda _: signal.raise_signal(signal.SIGINT))
    graph = tf.Graph().as_graph_def().SerializeToString()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & may have left ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            _context.Context().run(graph, [], [])
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.setattr(_context.pickle, "load", load)
    assert sepconv.explain(*arrays, **attributes, numerics="tensorflow-constant") == expected


def test_a_reveal_must_not_take_the_machines_memory(begun):
    specs = [tf.TensorSpec(shape) for shape in ([1 << 20, 100, 100, 64], [3, 3, 64, 1], [1, 1, 64, 64])]
    explanation = sepconv.explain(*specs, [1, 1, 1, 1], "SAME")
    assert explanation.path == "tensorflow" and "memory" in explanation.reason and not begun


def test_the_key_of_an_order_is_the_whole_call(begun):
    arrays, attributes = arrays_of("tiny")
    specs = [tf.TensorSpec(array.shape) for array in arrays]
    variants = [
        attributes,
        {**attributes, "padding": "VALID"},
        {**attributes, "strides": [1, 2, 2, 1]},
        {**attributes, "dilations": [2, 1]},
    ]
    counts = []
    for variant in variants:
        sepconv.explain(*specs, **variant)
        counts.append(len(begun))
    assert counts == sorted(set(counts))
    calls = {call for call, _ in _orders._known}
    assert len(calls) == len(variants) and all(isinstance(call, _arguments.Call) for call in calls)


@PROMISED
@pytest.mark.parametrize("described", ["specs", "tensors", "a mixture"])
def test_after_a_warmup_nothing_is_asked(described, begun):
    arrays, attributes = arrays_of("k5")
    specs = [tf.TensorSpec(array.shape) for array in arrays]
    given = {"specs": specs, "tensors": arrays, "a mixture": [specs[0], *arrays[1:]]}[described]
    explanation = sepconv.warmup(*given, **attributes)
    assert explanation == sepconv.explain(*arrays, **attributes) and explanation.path == "op"
    asked, ways, calls = len(begun), len(_convolution._eager_ways), kernel_calls()
    assert asked and ways == 1
    expected = tensorflows(*arrays, **attributes)
    assert same(sepconv.separable_conv2d(*arrays, **attributes), expected)
    assert same(tf.function(lambda *t: sepconv.separable_conv2d(*t, **attributes))(*arrays), expected)
    assert (len(begun), len(_convolution._eager_ways), kernel_calls()) == (asked, ways, calls + 2)


@PROMISED
def test_a_warmup_of_unknown_extents_and_one_while_a_graph_is_built(begun):
    arrays, attributes = arrays_of("tiny")
    open = tf.TensorSpec([None, *arrays[0].shape[1:]])
    filters = [tf.TensorSpec(array.shape) for array in arrays[1:]]
    assert not sepconv.warmup(open, *filters, **attributes).exact
    asked = len(begun)
    function = tf.function(lambda x: sepconv.separable_conv2d(x, *arrays[1:], **attributes), input_signature=[open])
    assert same(function(arrays[0]), tensorflows(*arrays, **attributes))
    with tf.Graph().as_default() as graph:
        sepconv.warmup(tf.TensorSpec([3, *open.shape[1:]]), *filters, **attributes)
        assert not graph.get_operations()
        asked_for_three = len(begun)
    assert asked_for_three > asked
    sepconv.separable_conv2d(tf.zeros([3, *open.shape[1:]]), *arrays[1:], **attributes)
    assert len(begun) == asked_for_three
