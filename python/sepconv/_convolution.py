"""`separable_conv2d` and `explain`: which way a call goes, and going it."""

import dataclasses
import functools
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.python.autograph.impl.api import autograph_artifact
from tensorflow.python.eager import context
from tensorflow.python.framework import ops
from tensorflow.python.util import _pywrap_util_port

from sepconv import _arguments, _gradients, _library, _orders, _pipeline, _probes, _subgraphs
from sepconv._arguments import Call, Padding, Rate, TensorLike, refusal

DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)
CERTAIN = "tensorflow-certain"


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What `separable_conv2d` does with some arguments.

    Attributes:
        path: "op", or "tensorflow" for TensorFlow's own operations.
        reason: Why, in a sentence.
        numerics: The text of the order of sums, as the `numerics` argument takes it; of a gradient that of its own
            sum, which no argument takes, for gradients follow from the call's numerics. None on TensorFlow's path.
        exact: True where the bits that were asked for are certain; False where they are a prediction.
    """

    path: str
    reason: str
    numerics: str | None
    exact: bool


@dataclasses.dataclass(frozen=True)
class _Way:
    """An explanation with what the op needs to be built; `lasting` if the next such call goes the same way."""

    explanation: Explanation
    carrier: tuple | None = None
    lasting: bool = True

    @functools.cached_property
    def numerics(self):
        return self.explanation.numerics

    @functools.cached_property
    def tensor(self):
        """The carrier as an eager tensor; a graph gets one of its own."""
        return _carrier(self.carrier)


_eager_ways: dict = {}


@autograph_artifact  # the mark of `do_not_convert`, which wraps every call besides
def separable_conv2d(
    input: TensorLike,
    depthwise_filter: TensorLike,
    pointwise_filter: TensorLike,
    strides: Sequence[int],
    padding: Padding,
    data_format: str | None = None,
    dilations: Rate | None = None,
    name: str | None = None,
    *,
    rate: Rate | None = None,
    numerics: str = "tensorflow",
) -> tf.Tensor:
    """2-D convolution with separable filters: `tf.nn.separable_conv2d` as one op.

    Args:
        input: 4-D tensor, `[batch, height, width, in_channels]` (or `[batch, in_channels, height, width]`), float16,
            bfloat16, float32 or float64, or whatever converts to one. Any extent may be unknown in a graph.
        depthwise_filter: 4-D tensor, `[height, width, in_channels, channel_multiplier]`, of the same dtype.
        pointwise_filter: 4-D tensor, `[1, 1, in_channels * channel_multiplier, out_channels]`, of the same dtype.
        strides: Four integers; those of batch and channels are 1. Height's and width's may differ.
        padding: `"SAME"`, `"VALID"`, or four pairs of integers, `[[0, 0], [top, bottom], [left, right], [0, 0]]`.
        data_format: `"NHWC"` (the default) or `"NCHW"`.
        dilations: Two positive integers, or an integer tensor of shape `[2]`: the dilation in height and width, in
            TensorFlow's meaning where strides are above 1 too. None: not dilated.
        name: A name for the operation.
        rate: Another name of `dilations`.
        numerics: Whose bits: `"tensorflow"` (those of an eager `tf.nn.separable_conv2d` in this process; where a shape
            is unknown when a graph is built, a prediction of them), `"tensorflow-certain"` (the same, but TensorFlow's
            own operations in place of predictions),
            `"tensorflow-constant"` (those of a fresh graph whose filters are constants), `"reproducible"` (the same on
            every machine and for every batch size), or a text that `explain` or the command line printed.

    Returns:
        A tensor of the input's dtype, `[batch, out_height, out_width, out_channels]` (in `data_format`'s order).

    Raises:
        tf.errors.InvalidArgumentError: Arguments that do not fit, eagerly; the message names argument, value and limit.
        tf.errors.ResourceExhaustedError: What the machine has no memory for, eagerly.
        ValueError, TypeError: The same while a graph is built, and what TensorFlow refuses with these.

    Example:
        >>> x = tf.random.normal([1, 8, 8, 3])
        >>> y = sepconv.separable_conv2d(x, tf.ones([3, 3, 3, 1]), tf.ones([1, 1, 3, 5]), [1, 1, 1, 1], "SAME")
        >>> y.shape
        TensorShape([1, 8, 8, 5])
    """
    tensors = input, depthwise_filter, pointwise_filter
    attributes = strides, padding, data_format, _one_rate(dilations, rate)
    if _library.executing_eagerly():
        eager = ops.EagerTensor
        if not (
            isinstance(input, eager) and isinstance(depthwise_filter, eager) and isinstance(pointwise_filter, eager)
        ):
            tensors = _tensors(*tensors)
        way = _eager_way(tensors, attributes, numerics)
        if way.carrier is None or data_format == "NCHW":
            return _convolve(way, tensors, attributes, name)
        return _library.convolve(*tensors, way.tensor, way.numerics, name)
    with ops.name_scope(name, "separable_conv2d", tensors) as scope:
        tensors = _tensors(*tensors)
        return _convolve(_way(tensors, attributes, numerics), tensors, attributes, scope)


@tf.autograph.experimental.do_not_convert
def explain(
    input: TensorLike | tf.TensorSpec,
    depthwise_filter: TensorLike | tf.TensorSpec,
    pointwise_filter: TensorLike | tf.TensorSpec,
    strides: Sequence[int],
    padding: Padding,
    data_format: str | None = None,
    dilations: Rate | None = None,
    name: str | None = None,
    *,
    rate: Rate | None = None,
    numerics: str = "tensorflow",
) -> Explanation:
    """What `separable_conv2d` does with the same arguments; reveals the order if nobody did yet.

    Args:
        input, depthwise_filter, pointwise_filter: Tensors, or `tf.TensorSpec`s of their shapes (extents may be None)
            and dtypes: float16, bfloat16, float32 or float64. No values are looked at.
        strides, padding, data_format, dilations, rate, numerics: As for `separable_conv2d`.
        name: Ignored.

    Returns:
        An `Explanation`.

    Raises:
        tf.errors.InvalidArgumentError, ValueError, TypeError: What `separable_conv2d` refuses.

    Example:
        >>> x = tf.random.normal([1, 7, 7, 1024])
        >>> filters = tf.ones([3, 3, 1024, 1]), tf.ones([1, 1, 1024, 1024])
        >>> sepconv.explain(x, *filters, [1, 1, 1, 1], "SAME").numerics  # differs between machines
        'v1 depthwise(fused, inside) pointwise(fused, 176x5+144) subnormals(flushed)'
    """
    del name
    tensors = _described(input, depthwise_filter, pointwise_filter)
    return _way(tensors, (strides, padding, data_format, _one_rate(dilations, rate)), numerics).explanation


@tf.autograph.experimental.do_not_convert
def explain_gradients(
    input: TensorLike | tf.TensorSpec,
    depthwise_filter: TensorLike | tf.TensorSpec,
    pointwise_filter: TensorLike | tf.TensorSpec,
    strides: Sequence[int],
    padding: Padding,
    data_format: str | None = None,
    dilations: Rate | None = None,
    name: str | None = None,
    *,
    rate: Rate | None = None,
    numerics: str = "tensorflow",
) -> dict[str, Explanation]:
    """What the gradients of `separable_conv2d` with the same arguments do; reveals their orders if nobody did yet.

    Args, Raises: As for `explain`.

    Returns:
        A dictionary of `Explanation`s: of "input", "depthwise_filter" and "pointwise_filter". The order of the
        depthwise result's gradient, which the first two take up, is not in their numerics.

    Example:
        >>> filters = tf.TensorSpec([3, 3, 64, 1]), tf.TensorSpec([1, 1, 64, 64])
        >>> found = sepconv.explain_gradients(tf.TensorSpec([8, 14, 14, 64]), *filters, [1, 1, 1, 1], "SAME")
        >>> found["depthwise_filter"].numerics  # differs between machines
        'v1 depthwise_filter(fused, inside, chain) subnormals(flushed)'
    """
    del name
    tensors = _described(input, depthwise_filter, pointwise_filter)
    attributes = strides, padding, data_format, _one_rate(dilations, rate)
    forward = _way(tensors, attributes, numerics).explanation
    if forward.numerics is None:
        return dict.fromkeys(_gradients.NAMES, forward)
    call = _arguments.normalise(*tensors, strides, padding, _arguments.check_format(data_format), attributes[3])
    orders = _gradients.orders_of(call, forward.numerics, list(_gradients.NAMES))
    certain = _context_does_not_matter()

    def explained(order):
        if order.numerics is None:
            return Explanation("tensorflow", order.reason, None, certain)
        return Explanation("op", order.reason, order.numerics, True)

    return {name: explained(orders[name]) for name in _gradients.NAMES}


@tf.autograph.experimental.do_not_convert
def warmup(
    input: TensorLike | tf.TensorSpec,
    depthwise_filter: TensorLike | tf.TensorSpec,
    pointwise_filter: TensorLike | tf.TensorSpec,
    strides: Sequence[int],
    padding: Padding,
    data_format: str | None = None,
    dilations: Rate | None = None,
    name: str | None = None,
    *,
    rate: Rate | None = None,
    numerics: str = "tensorflow",
) -> Explanation:
    """Does ahead what the first `separable_conv2d` with such arguments costs besides an ordinary call.

    That is the reveal, the start of the kernels' threads and, where every extent is known, one call on zeros. Later
    calls of the process, eager or while graphs are built, find it done.

    Args:
        input, depthwise_filter, pointwise_filter: Tensors, or `tf.TensorSpec`s of their shapes (extents may be None)
            and dtypes: float16, bfloat16, float32 or float64.
        strides, padding, data_format, dilations, name, rate, numerics: As for `separable_conv2d`.

    Returns:
        An `Explanation`: what those calls will do.

    Raises:
        tf.errors.InvalidArgumentError, ValueError, TypeError: What `separable_conv2d` refuses.

    Example:
        >>> filters = tf.TensorSpec([3, 3, 512, 1]), tf.TensorSpec([1, 1, 512, 512])
        >>> for batch in (1, 8):
        ...     found = sepconv.warmup(tf.TensorSpec([batch, 14, 14, 512]), *filters, [1, 1, 1, 1], "SAME")
    """
    tensors = _described(input, depthwise_filter, pointwise_filter)
    arguments = (strides, padding, data_format, dilations, name)
    explanation = explain(*tensors, *arguments, rate=rate, numerics=numerics)
    with tf.init_scope():
        if tf.executing_eagerly() and all(tensor.shape.is_fully_defined() for tensor in tensors):
            zeros = [tf.zeros(tensor.shape, tensor.dtype) for tensor in tensors]
            separable_conv2d(*zeros, *arguments, rate=rate, numerics=numerics)
    return explanation


def _described(*tensors):
    """The tensors, each that is described by a `tf.TensorSpec` as it is."""
    return [tensor if isinstance(tensor, tf.TensorSpec) else ops.convert_to_tensor(tensor) for tensor in tensors]


def _one_rate(dilations, rate):
    if dilations is not None and rate is not None:
        raise ValueError("dilations and rate are two names of one argument: give one of them")
    return rate if dilations is None else dilations


def _tensors(input, depthwise_filter, pointwise_filter):
    # The names are those that TensorFlow's own function gives.
    return (
        ops.convert_to_tensor(input, name="tensor_in"),
        ops.convert_to_tensor(depthwise_filter, name="depthwise_filter"),
        ops.convert_to_tensor(pointwise_filter, name="pointwise_filter"),
    )


def _convolve(way, tensors, attributes, name):
    if way.carrier is None:
        return _pipeline.separable_conv2d(*tensors, *attributes, name)
    input, *filters = tensors
    eagerly = context.executing_eagerly()
    carrier = way.tensor if eagerly else _carrier(way.carrier)
    stays = not isinstance(filters[1], ops.EagerTensor) and _subgraphs.stays(filters[1])
    convolve = functools.partial(_library.op(), numerics=way.numerics, constant_filters=stays)
    if attributes[2] != "NCHW":
        return convolve(input, *filters, carrier, name=name)
    output = convolve(tf.transpose(input, [0, 2, 3, 1]), *filters, carrier)
    return tf.transpose(output, [0, 3, 1, 2], name=name)


def _carrier(shape: tuple):
    return tf.zeros(shape, tf.int32, name="geometry")


def _eager_way(tensors, attributes, numerics) -> _Way:
    """`_way`, remembered: what a call costs besides the op itself."""
    input, depthwise_filter, pointwise_filter = tensors
    strides, padding, data_format, rate = attributes
    try:
        key = (
            *(input._shape_tuple(), depthwise_filter._shape_tuple(), pointwise_filter._shape_tuple()),
            *(input._datatype_enum(), depthwise_filter._datatype_enum(), pointwise_filter._datatype_enum()),
            *(_arguments.freeze(strides), _arguments.freeze(padding), data_format, _arguments.freeze(rate), numerics),
        )
        way = _eager_ways.get(key)
    except TypeError:  # arguments that cannot be a key, such as tensors
        return _way(tensors, attributes, numerics)
    if way is None:
        way = _way(tensors, attributes, numerics)
        if way.lasting:
            _eager_ways[key] = way
    return way


def _way(tensors, attributes, numerics) -> _Way:
    strides, padding, data_format, rate = attributes
    _arguments.check_numerics(numerics)
    data_format = _arguments.check_format(data_format)
    _arguments.check_dtypes(*tensors)
    call = _arguments.normalise(*tensors, strides, padding, data_format, rate)
    certainly, numerics = numerics == CERTAIN, "tensorflow" if numerics == CERTAIN else numerics
    named = numerics in _orders.CONTEXTS
    # Where TensorFlow's own operations certainly give its eager bits.
    certain = _context_does_not_matter()
    if call.rate is None:
        if not named:
            raise refusal(f"dilations must be two integers for numerics={numerics!r}, got {rate!r}")
        _arguments.check_rate(rate)
        # TensorFlow pads otherwise where it cannot see in time that nothing is dilated.
        return _tensorflow("dilations are not two integers known when the call is built", tf.executing_eagerly())
    geometry = _library.geometry(call.request() | ({} if named else {"numerics": numerics}))
    if "error" in geometry:
        raise refusal(geometry["error"])
    if named and call.known and isinstance(tensors[0], ops.EagerTensor):
        _fits(call, geometry)
    if _pipeline.compiled_by_xla():
        if not named:
            raise refusal(f"numerics={numerics!r} is not to be had under jit_compile=True: XLA has no kernel of the op")
        return _tensorflow(_pipeline.COMPILED_BY_XLA, False)
    if call.dtype not in DTYPES and not named:
        raise refusal(f"numerics={numerics!r} takes float16, bfloat16, float32 and float64, got {call.dtype.name}")
    if call.dtype not in DTYPES:
        return _tensorflow(f"the op does not take {call.dtype.name}", certain)
    use_threads()
    carrier = tuple(geometry["carrier"])
    if not named:
        return _Way(Explanation("op", "the numerics were given", geometry["numerics"], True), carrier)
    if 0 in call.depthwise_filter[:2]:
        # TensorFlow may refuse such a filter, so there is nobody to ask.
        numerics = _library.geometry(call.request() | {"numerics": "reproducible"})["numerics"]
        return _Way(Explanation("op", "a sum of no products is the same in every order", numerics, True), carrier)
    if None in call.depthwise_filter + call.pointwise_filter or call.input[3] is None:
        return _tensorflow("the shape of a filter, or the number of channels, is unknown", certain)
    if certainly and not call.known:
        return _tensorflow("the shape is unknown, and certainty was asked for", certain)
    try:
        if data_format == "NCHW" and _probes.takes(call.dtype, data_format="NCHW"):
            return _tensorflow("NCHW is left to TensorFlow where it takes it", certain)
        order = _orders.order_of(call, numerics)
    except _probes.ProfileRunning:
        return _tensorflow("a profile is being recorded, and a reveal would show in it", certain, lasting=False)
    if order.numerics is None:
        return _tensorflow(order.reason, certain)
    return _Way(Explanation("op", order.reason, order.numerics, call.known), carrier)


def _fits(call: Call, geometry: dict) -> None:
    """Refuses what the machine has no memory for: TensorFlow's operations may end the process over it."""
    needed = _orders.memory_of(call, geometry)
    if needed > _orders.MEMORY:
        message = (
            f"input {list(call.input)} with padding {call.padding!r} and the filters given takes {needed} bytes, "
            f"and the machine has {_orders.MEMORY}"
        )
        raise tf.errors.ResourceExhaustedError(None, None, message)


def _tensorflow(reason: str, certain: bool, lasting: bool = True) -> _Way:
    return _Way(Explanation("tensorflow", reason, None, certain), None, lasting)


def _context_does_not_matter() -> bool:
    """Whether TensorFlow's own operations certainly give its eager bits here: not in a graph with oneDNN, where sums
    depend on whether filters are constants, and on what ran before."""
    return tf.executing_eagerly() or not _pywrap_util_port.IsMklEnabled()


@functools.cache
def use_threads() -> None:
    """Hands TensorFlow's number of intra-op threads to the kernels; it is fixed once TensorFlow has run."""
    context.context().ensure_initialized()
    _library.set_threads(tf.config.threading.get_intra_op_parallelism_threads())
