"""The op's gradients: each an op of its own, in the order of TensorFlow's sum where that can be followed, otherwise
TensorFlow's own operations, as always where steps are behind its parts. Only those that are asked for are computed.
"""

import tensorflow as tf

from sepconv import _composite, _library, _orders, _pipeline, _probes
from sepconv._arguments import Call, refusal, shape_of

NAMES = ("input", "depthwise_filter", "pointwise_filter")

# Of the op of each gradient. "pixels" is the gradient of the depthwise result, which two others take up.
INPUTS = {
    "pixels": ("pointwise_filter", "upstream"),
    "input": ("input", "depthwise_filter", "pixels", "geometry"),
    "depthwise_filter": ("input", "depthwise_filter", "pixels", "geometry"),
    "pointwise_filter": ("input", "depthwise_filter", "pointwise_filter", "upstream", "geometry"),
}


def _gradient_of(name: str):
    """Registers the gradient of an op with one result, with an upstream of that result's shape: another one would kill
    the process in some of TensorFlow's own operations."""

    def register(function):
        @tf.RegisterGradient(name)
        def gradient(op, upstream):
            return function(op, _checked(tf.convert_to_tensor(upstream), op.outputs[0]))

        return function

    return register


def _checked(upstream, result):
    """The upstream, refused if its shape is not the result's: at once, or when the graph runs."""
    if not upstream.shape.is_compatible_with(result.shape):
        raise refusal(f"upstream must have the result's shape {result.shape}, got {upstream.shape}")
    if upstream.shape.is_fully_defined() and result.shape.is_fully_defined():
        return upstream
    got, limit = tf.shape(upstream, tf.int64), tf.shape(result, tf.int64)
    # Of ranks that differ, one of them 1, the elements could still be equal; of others they cannot be compared.
    elements = tf.raw_ops.Equal(x=got, y=limit, incompatible_shape_error=False)
    equal = tf.equal(tf.size(got), tf.size(limit)) & tf.reduce_all(elements)
    words = ["upstream must have the result's shape", limit, "got", got]
    with tf.control_dependencies([tf.debugging.Assert(equal, words, summarize=8)]):
        upstream = tf.identity(upstream)
    upstream.set_shape(result.shape)
    return upstream


@_gradient_of("Sepconv>SeparableConv2D")
def _gradient(op, upstream):
    *tensors, carrier = op.inputs
    skipped = getattr(op, "skip_input_indices", None) or ()
    wanted = [name for number, name in enumerate(NAMES) if number not in skipped]
    attributes = _library.geometry({"carrier": carrier.shape.as_list()})
    call = _call(tensors, attributes)
    numerics = op.get_attr("numerics").decode()
    if numerics == _orders.reproducible() and _pipeline.compiled_by_xla():
        raise refusal(
            "gradients with numerics='reproducible' are not to be had under jit_compile=True: XLA has no kernel of them"
        )
    found = orders_of(call, numerics, wanted)
    orders = {name: order.numerics for name, order in found.items() if order.numerics is not None}
    arguments = dict(zip(NAMES, tensors, strict=True), upstream=upstream, geometry=carrier)

    def ours(name):
        inputs = [arguments[argument] for argument in INPUTS[name]]
        return _library.op(name)(*inputs, numerics=orders[name])

    if any("pixels" in INPUTS[name] for name in wanted if name in orders):
        arguments["pixels"] = ours("pixels")
    found = {name: ours(name) for name in wanted if name in orders}
    rest = [name for name in wanted if name not in orders]
    found.update(zip(rest, _theirs(tensors, rest, attributes, upstream), strict=True))
    return [*(found.get(name) for name in NAMES), None]


def orders_of(call: Call, forward: str, wanted) -> dict:
    """The order of each gradient by name, "pixels" among them; TensorFlow's own operations serve where it has no text.

    Args:
        call: The convolution.
        forward: The text of its numerics.
        wanted: Names of gradients.
    """
    if _pipeline.compiled_by_xla():
        return dict.fromkeys(wanted, _orders.Order(None, _pipeline.COMPILED_BY_XLA))
    if not call.known and forward != _orders.reproducible():
        unknown = _orders.Order(None, "the shape is unknown, and sums over pixels have another order for each")
        return dict.fromkeys(wanted, unknown)
    taking_up = [name for name in wanted if "pixels" in INPUTS[name]]
    try:
        orders = {name: _orders.gradient_of(call, name, forward) for name in ["pixels"][: len(taking_up)] + wanted}
    except _probes.ProfileRunning:
        running = _orders.Order(None, "a profile is being recorded, and a reveal would show in it")
        return dict.fromkeys(wanted, running)
    if taking_up and orders["pixels"].numerics is None:
        reason = f"it takes up the depthwise result's gradient: {orders['pixels'].reason}"
        orders |= dict.fromkeys(taking_up, _orders.Order(None, reason))
    return orders


def _call(tensors, attributes: dict) -> Call:
    shapes = [shape_of(name, tensor) for name, tensor in zip(NAMES, tensors, strict=True)]
    padding = attributes["padding"] if isinstance(attributes["padding"], str) else _pairs(attributes["padding"])
    return Call(*shapes, tensors[0].dtype, tuple(attributes["strides"]), padding, tuple(attributes["rate"]))


def _pairs(padding) -> tuple:
    return tuple(tuple(pair) for pair in padding)


def _theirs(tensors, wanted, attributes: dict, upstream):
    """Some gradients through TensorFlow's own operations."""
    if not wanted:
        return []
    wanted = [NAMES.index(name) for name in wanted]

    def gradients():
        inner = _of_this_graph(tensors)
        sources = [inner[n] for n in wanted]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            output = _convolve(inner, attributes)
        return tape.gradient(output, sources, upstream)

    return _unless_empty(upstream, [tensors[n] for n in wanted], gradients)


def _unless_empty(upstream, sources, gradients):
    """`gradients()`, those of `sources`; zeros where the result is empty: then some of TensorFlow's kernels leave a
    gradient as the memory was, and others refuse."""

    def zeros():  # that a second tape can follow back
        return [tf.math.multiply_no_nan(source, tf.zeros([], source.dtype)) for source in sources]

    extents = shape_of("upstream", upstream)
    if 0 in extents:
        return zeros()
    return gradients() if None not in extents else tf.cond(tf.size(upstream) > 0, gradients, zeros)


def _of_this_graph(tensors) -> list:
    """The same, of the graph that is being built: of those that a gradient in a `tf.cond` takes from the branch, a tape
    loses sight."""
    return [tf.identity(tensor) for tensor in tensors]


def _convolve(tensors, attributes: dict):
    strides, padding = [1, *attributes["strides"], 1], attributes["padding"]
    padding = padding if isinstance(padding, str) else [(0, 0), *padding, (0, 0)]
    return _pipeline.separable_conv2d(*tensors, strides, padding, None, attributes["rate"], None)


def _again(inputs, upstream, name: str, tensors, first, carrier):
    """The gradient of a gradient, all through TensorFlow's own operations.

    Args:
        inputs: Those of the gradient's operation.
        upstream: The gradient with respect to its result.
        name: Of which of `tensors`, the convolution's three, it is the gradient.
        first: The gradient with respect to the convolution's result.
        carrier: Has the convolution's attributes as its shape; None for stride 1 without padding.
    """
    attributes = {"strides": [1, 1], "rate": [1, 1], "padding": "VALID"}
    attributes = attributes if carrier is None else _library.geometry({"carrier": carrier.shape.as_list()})
    with tf.GradientTape() as tape:
        tape.watch([*tensors, first])
        (gradient,) = _theirs(tensors, [name], attributes, first)
    known = {id(tensor): tensor for tensor in [*tensors, first]}
    inputs = [known.get(id(tensor)) for tensor in inputs]
    sources = [tensor for tensor in inputs if tensor is not None]
    gradients = dict(zip(map(id, sources), tape.gradient(gradient, sources, upstream), strict=True))
    return [None if tensor is None else gradients[id(tensor)] for tensor in inputs]


@_gradient_of(_library.FUSED)
@_gradient_of(_library.DEPTHWISE)
@_gradient_of(_library.POINTWISE)
def _with_steps(op, upstream):
    """Those of the op with steps behind its parts: computed again, and differentiated, as TensorFlow's operations."""
    place, skipped = _composite.geometry_of(op), getattr(op, "skip_input_indices", None) or ()
    wanted = [n for n in range(len(op.inputs)) if n != place and n not in skipped]

    def gradients():
        # Of its own each, for the op may take one tensor twice.
        tensors = {n: tf.identity(tensor) for n, tensor in enumerate(op.inputs) if n != place}
        sources = [tensors[n] for n in wanted]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            output = _composite.composite(op)(*tensors.values())
        return tape.gradient(output, sources, upstream)

    found = dict(zip(wanted, _unless_empty(upstream, [op.inputs[n] for n in wanted], gradients), strict=True))
    return [found.get(n) for n in range(len(op.inputs))]


@_gradient_of("Sepconv>SeparableConv2DBackpropPixels")
def _of_pixels(op, upstream):
    pointwise_filter, first = inputs = _of_this_graph(op.inputs)
    pixels = tf.zeros_like(upstream)
    return _again(inputs, upstream, "input", [pixels, _one_tap(pixels), pointwise_filter], first, None)


@_gradient_of("Sepconv>SeparableConv2DBackpropInput")
def _of_input(op, upstream):
    input, depthwise_filter, pixels, carrier = inputs = _of_this_graph(op.inputs)
    return _again(inputs, upstream, "input", [input, depthwise_filter, _nothing(pixels)], pixels, carrier)


@_gradient_of("Sepconv>SeparableConv2DBackpropDepthwiseFilter")
def _of_depthwise_filter(op, upstream):
    input, depthwise_filter, pixels, carrier = inputs = _of_this_graph(op.inputs)
    return _again(inputs, upstream, "depthwise_filter", [input, depthwise_filter, _nothing(pixels)], pixels, carrier)


@_gradient_of("Sepconv>SeparableConv2DBackpropPointwiseFilter")
def _of_pointwise_filter(op, upstream):
    *tensors, first, carrier = inputs = _of_this_graph(op.inputs)
    return _again(inputs, upstream, "pointwise_filter", tensors, first, carrier)


def _one_tap(pixels):
    """The depthwise filter that changes nothing."""
    return tf.ones([1, 1, tf.shape(pixels)[3], 1], pixels.dtype)


def _nothing(pixels):
    """The pointwise filter that changes nothing."""
    return tf.eye(tf.shape(pixels)[3], dtype=pixels.dtype)[None, None]
