"""Times of layers on this machine, by TensorFlow's own ops and by sepconv's, and what the machine could do at most.

A layer is measured in a graph of its own, a few times behind each other: every link takes the same random image, but
only once the link before is through, so that none can be left out and the cost of the call from Python is shared. What
stands around the products in the model (bias, normalisation, activation) is not in it.
"""

import dataclasses
import statistics
import time

import numpy as np
import tensorflow as tf

import sepconv
from sepconv._command import BadInput, one_line
from sepconv._cost import Layer

LINKS = 4
LEAST_CALLS = 3
# Of the product that stands for the machine's peak: large enough to be worth its packing, and small enough that a
# processor's own cache holds it. And how often it is taken at a time.
_SIDE, _TIMES = 768, 8


@dataclasses.dataclass
class Timing:
    """One way to compute a layer.

    Attributes:
        seconds: The best, which other programs of the machine disturb least; None where it failed.
        median: Of all calls.
        path: "op" or "tensorflow", what sepconv's function computed with; None for TensorFlow's own.
        reason: Why it went that way, or failed.
    """

    seconds: float | None = None
    median: float | None = None
    path: str | None = None
    reason: str | None = None


def use_threads(threads: int) -> None:
    """For everything that TensorFlow does from now on.

    Raises:
        BadInput: TensorFlow already runs in this process with another number.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() == threads:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        running = tf.config.threading.get_intra_op_parallelism_threads() or "its own number of"
        raise BadInput(
            f"--threads {threads}: TensorFlow already runs in this process, with {running} threads"
        ) from None


def distinct(layers: list[Layer]) -> list[Layer]:
    """One layer of each kind and geometry."""
    return list({_key(layer): layer for layer in reversed(layers)}.values())[::-1]


def measure(layers: list[Layer], seconds: float, tick) -> tuple[dict, float]:
    """The times of layers that differ, and the peak.

    Args:
        layers: All layers of a model.
        seconds: How long each way of computing a layer is measured, at least; but a few calls in any case.
        tick: Called with the layer's name before each distinct layer.

    Returns:
        A dictionary from a layer's name to its `Timing`s by way: "model" (as it is in the model, by TensorFlow), and
        where they differ or exist "standard" (TensorFlow's convolution), "separable" (`tf.nn.separable_conv2d`) and
        "sepconv"; and the peak in operations per second, two of them a multiply-add: the best of products of float32
        matrices, taken between the layers.
    """
    found, product = {}, _product()
    peak = _readings(product, 2 * _TIMES)
    for layer in distinct(layers):
        tick(layer.name)
        found[_key(layer)] = _layer(layer, seconds)
        peak += _readings(product, _TIMES)
    return {layer.name: found[_key(layer)] for layer in layers}, 2 * _SIDE**3 / min(peak)


def _key(layer):
    return dataclasses.replace(layer, name="", nodes=(), between=(), weights=(), first=False, last=False)


def _product():
    side = tf.random.stateless_normal([_SIDE, _SIDE], [1, 2])
    function = tf.function(lambda a: tf.matmul(a, a)[0, 0]).get_concrete_function(tf.TensorSpec(side.shape))
    return lambda: function(side)


def _readings(call, count):
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _layer(layer, seconds):
    """Every way's timing, taken in turn so that all see the same machine."""
    timings, calls = {}, {}
    for way, (function, filters) in _ways(layer).items():
        timings[way] = Timing()
        try:
            calls[way] = _chain(layer, function, filters, timings[way] if way == "sepconv" else None)
            calls[way]()
        except (tf.errors.OpError, ValueError) as error:
            calls.pop(way, None)
            timings[way].reason = one_line(error)
    times, begun = {way: [] for way in calls}, time.perf_counter()
    while calls and (
        time.perf_counter() - begun < seconds * len(calls) or len(next(iter(times.values()))) < LEAST_CALLS
    ):
        for way, call in calls.items():
            times[way] += _readings(call, 1)
    for way, each in times.items():
        timings[way].seconds, timings[way].median = min(each) / LINKS, statistics.median(each) / LINKS
    own = {"convolution": "standard", "1x1": "model", "dense": "model"}.get(layer.kind, layer.kind)
    if own in timings and own != "model":
        timings["model"] = timings[own]
    return timings


def _ways(layer):
    """By name: a function of an image and filters, and the filters' shapes."""
    attributes = {"strides": [1, *layer.strides, 1], "padding": _padding(layer), "dilations": list(layer.rate)}
    channels, k = (layer.in_channels, layer.out_channels), layer.in_channels * layer.channel_multiplier
    full = (*layer.kernel, *channels)
    depthwise, pointwise = (*layer.kernel, channels[0], layer.channel_multiplier), (1, 1, k, channels[1])

    def convolution(image, filter):
        return tf.nn.conv2d(image, filter, **attributes)

    if layer.padding is None:
        return {}
    if layer.kind == "dense":
        return {"model": (lambda image, matrix: tf.matmul(image[:, 0, 0], matrix)[:, None, None], [full[2:]])}
    if layer.kind == "1x1":
        return {"model": (convolution, [full])}
    if layer.kind == "depthwise":
        return {
            "model": (lambda image, filter: tf.nn.depthwise_conv2d(image, filter, **attributes), [depthwise]),
            "standard": (convolution, [full]),
        }
    ways = {
        "standard": (convolution, [full]),
        "separable": (lambda *tensors: tf.nn.separable_conv2d(*tensors, **attributes), [depthwise, pointwise]),
        "sepconv": (lambda *tensors: sepconv.separable_conv2d(*tensors, **attributes), [depthwise, pointwise]),
    }
    if layer.kind == "grouped":
        ways["model"] = convolution, [(*layer.kernel, channels[0] // layer.groups, channels[1])]
    return ways


def _padding(layer):
    if layer.padding is None or isinstance(layer.padding, str):
        return layer.padding
    return [[0, 0], *map(list, layer.padding), [0, 0]]


def _chain(layer, function, filters, timing):
    """A call that computes the layer `LINKS` times; `timing` learns which way sepconv goes."""
    random = np.random.default_rng(1)
    image = tf.constant(random.standard_normal(layer.input, np.float32), layer.dtype)
    variables = [tf.Variable(tf.cast(random.standard_normal(shape, np.float32), layer.dtype)) for shape in filters]

    @tf.function(autograph=False)
    def chain(image):
        numbers = []
        for _ in range(LINKS):
            with tf.control_dependencies(numbers[-1:]):
                link_input = tf.identity(image)
            numbers.append(function(link_input, *map(tf.convert_to_tensor, variables))[0, 0, 0, 0])
        return tf.add_n(numbers)

    compiled = chain.get_concrete_function(tf.TensorSpec(image.shape, image.dtype))
    if timing is not None:
        attributes = {"strides": [1, *layer.strides, 1], "padding": _padding(layer), "dilations": list(layer.rate)}
        explanation = sepconv.explain(image, *variables, **attributes)
        timing.path, timing.reason = explanation.path, explanation.reason
    return lambda: compiled(image)
