"""TensorFlow's own operations, put together as `tf.nn.separable_conv2d` does: where the op does not serve. Computes
also where some of TensorFlow's kernels refuse what others of them take (unequal strides, NCHW), and where TensorFlow's
function fails for want of a static shape.
"""

import tensorflow as tf
from tensorflow.python.framework import ops, tensor_util
from tensorflow.python.ops import control_flow_util, nn_ops

from sepconv import _probes

# Kept from before anything may replace it in TensorFlow's namespace.
_tensorflows = tf.nn.separable_conv2d


COMPILED_BY_XLA = "the function is compiled by XLA (jit_compile=True), which has no kernel of the op"


def compiled_by_xla() -> bool:
    """Whether a function is being traced under `jit_compile=True`, or one that such a function calls. What eager code
    does meanwhile (`tf.init_scope`) is not compiled."""
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(ops.get_default_graph())


def separable_conv2d(input, depthwise_filter, pointwise_filter, strides, padding, data_format, rate, name):
    """Arguments and result are those of `tf.nn.separable_conv2d`; they are checked already."""
    tensors = _checked(input, depthwise_filter, pointwise_filter)
    strides = [int(stride) for stride in strides]  # of eager tensors, a graph could not compare them
    return _separable_conv2d(*tensors, strides, padding, data_format, rate, name)


def _checked(input, depthwise_filter, pointwise_filter) -> list:
    """The tensors, with what nobody can tell before the graph runs asked then; the errors name the tensors' nodes."""
    # Of another rank they would end the process where oneDNN is on.
    tensors = {"input": input, "depthwise_filter": depthwise_filter, "pointwise_filter": pointwise_filter}
    input, depthwise_filter, pointwise_filter = [
        tf.ensure_shape(tensor, [None] * 4, f"{name}_has_4_dimensions") if tensor.shape.rank is None else tensor
        for name, tensor in tensors.items()
    ]
    # TensorFlow would take a larger filter, and one of several groups.
    channels, extents = depthwise_filter.shape[2:], pointwise_filter.shape[:3]
    if not (channels.is_fully_defined() and extents.is_fully_defined()):
        found = tf.shape(pointwise_filter)[:3]
        limit = tf.stack([1, 1, tf.reduce_prod(tf.shape(depthwise_filter)[2:])])
        words = ["pointwise_filter must have shape [1, 1, in_channels * channel_multiplier, out_channels], which is"]
        words += [limit, "and out_channels, got", tf.shape(pointwise_filter)]
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.equal(found, limit)), words, summarize=4)]):
            pointwise_filter = tf.ensure_shape(pointwise_filter, [1, 1, None, None])
    return [input, depthwise_filter, pointwise_filter]


def _separable_conv2d(input, depthwise_filter, pointwise_filter, strides, padding, data_format, rate, name):
    filters = depthwise_filter, pointwise_filter
    if not isinstance(padding, (str, bytes)):
        padding = [list(pair) for pair in padding]  # TensorFlow takes no arrays
    if data_format == "NCHW" and not _takes(input.dtype, data_format="NCHW"):
        axes = [0, 2, 3, 1]
        input, strides = tf.transpose(input, axes), [strides[axis] for axis in axes]
        padding = padding if isinstance(padding, (str, bytes)) else [padding[axis] for axis in axes]
        output = _separable_conv2d(input, *filters, strides, padding, None, rate, None)
        return tf.transpose(output, [0, 3, 1, 2], name=name)
    if padding in ("SAME", b"SAME") and not filters[0].shape[:2].is_fully_defined() and not _ones(rate):
        input, padding = _padded(input, filters[0], rate, 2 if data_format == "NCHW" else 1), "VALID"
    if data_format != "NCHW" and strides[1] != strides[2] and not _takes(input.dtype, strides=tuple(strides)):
        return _unequal_strides(input, *filters, strides, padding, rate, name)
    return _tensorflows(input, *filters, strides, padding, data_format, rate, name)


def _part(operation):
    """One part alone, NHWC, by TensorFlow's operation for it."""

    def part(input, filter, strides, padding, rate):
        def native(input, _, padding):
            return operation(input, filter, strides, padding)

        shape = filter.shape if filter.shape.is_fully_defined() else tf.shape(filter)
        return nn_ops.with_space_to_batch(input, rate, padding, native, filter_shape=shape)

    return part


PARTS = {"depthwise": _part(nn_ops.depthwise_conv2d_native), "pointwise": _part(tf.nn.conv2d)}


def _takes(dtype, **attributes) -> bool:
    try:
        return _probes.takes(dtype, **attributes)
    except _probes.ProfileRunning:
        return True


def _ones(rate) -> bool:
    """Whether TensorFlow's function sees, while the graph is built, that nothing is dilated."""
    known = None if rate is None else tensor_util.constant_value(tf.convert_to_tensor(rate, tf.int32))
    return rate is None or known is not None and (known == 1).all()


def _padded(input, depthwise_filter, rate, first_axis):
    """With the zeros that SAME puts around an image that is dealt out by `rate`: TensorFlow's function fails to do so
    where the filter's shape is unknown while the graph is built."""
    zeros = (tf.shape(depthwise_filter)[:2] - 1) * tf.convert_to_tensor(rate, tf.int32)
    image = tf.stack([zeros // 2, zeros - zeros // 2], axis=1)
    return tf.pad(input, tf.pad(image, [[first_axis, 2 - first_axis], [0, 0]]))


def _unequal_strides(input, depthwise_filter, pointwise_filter, strides, padding, rate, name):
    """What the kernels would give stands among the results of stride 1."""
    _, vertical, horizontal, _ = strides

    def depthwise(input, _, padding):
        if padding not in ("SAME", b"SAME"):
            return native(input, padding)[:, ::vertical, ::horizontal]
        zeros = [_same(tf.shape(input)[i], tf.shape(depthwise_filter)[i - 1], strides[i]) for i in (1, 2)]
        pixels = native(tf.pad(input, [(0, 0), *zeros, (0, 0)]), "VALID")[:, ::vertical, ::horizontal]
        if input.shape.rank is not None:
            known = zip(input.shape.as_list()[1:3], strides[1:3], strict=True)
            pixels.set_shape([None, *[n and -(-n // stride) for n, stride in known], None])
        return pixels

    def native(input, padding):
        return nn_ops.depthwise_conv2d_native(input, depthwise_filter, [1, 1, 1, 1], padding)

    rate, shape = [1, 1] if rate is None else rate, tf.shape(depthwise_filter)
    pixels = nn_ops.with_space_to_batch(input, rate, padding, depthwise, filter_shape=shape)
    return tf.nn.conv2d(pixels, pointwise_filter, 1, "VALID", name=name)


def _same(extent, kernel, stride):
    """Zeros before and after, as SAME takes them."""
    zeros = tf.maximum((extent + stride - 1) // stride * stride - stride + kernel - extent, 0)
    return zeros // 2, zeros - zeros // 2
