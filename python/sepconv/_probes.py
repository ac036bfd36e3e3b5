"""TensorFlow's two parts of a separable convolution, called for one geometry with arrays: what a reveal asks.

The eager calls go around all that watches eager operations (gradient tapes, op callbacks, graphs being built), so
that a reveal leaves no trace.
"""

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, execute
from tensorflow.python.framework import constant_op
from tensorflow.python.profiler import profiler_v2

from sepconv._arguments import Call


def _convolution(run, name, call: Call, input, filter, strides=(1, 1), padding="VALID", explicit=()):
    attributes = ("T", call.dtype.as_datatype_enum, "strides", [1, *strides, 1], "padding", padding)
    attributes += ("explicit_paddings", list(explicit), "data_format", "NHWC", "dilations", [1, 1, 1, 1])
    return run(name, [input, filter], attributes)


def depthwise(run, call: Call, geometry: dict, input, filter):
    """SpaceToBatchND, DepthwiseConv2dNative and BatchToSpaceND as `tf.nn.separable_conv2d` puts them together.

    Args:
        run: Called with an op's name, its inputs and its attributes; gives the output.
    """
    if not geometry["space_to_batch"]:
        return _native(run, call, input, filter, *_padding(call), geometry["paddings"])
    rate, paddings, crops = _space_to_batch(geometry)
    blocks = run("SpaceToBatchND", [input, rate, paddings], _types(call, "Tpaddings"))
    blocks = _native(run, call, blocks, filter, "VALID", (), [(0, 0), (0, 0)])
    return run("BatchToSpaceND", [blocks, rate, crops], _types(call, "Tcrops"))


def _native(run, call, input, filter, padding, explicit, paddings):
    name, (vertical, horizontal) = "DepthwiseConv2dNative", call.strides
    try:
        return _convolution(run, name, call, input, filter, call.strides, padding, explicit)
    except tf.errors.InvalidArgumentError:
        if vertical == horizontal:
            raise
    # Without oneDNN TensorFlow refuses unequal strides: what it would give stands among the results of stride 1.
    explicit = np.ravel([(0, 0), *paddings, (0, 0)]).tolist()
    everywhere = _convolution(run, name, call, input, filter, (1, 1), "EXPLICIT", explicit)
    return np.asarray(everywhere)[:, ::vertical, ::horizontal]


def input_gradient(run, call: Call, geometry: dict, pixels, filter):
    """The gradient of the input from that of the depthwise result, as TensorFlow's gradients put it together."""
    if not geometry["space_to_batch"]:
        return _native_gradient(run, call, "Input", (np.asarray(call.input, np.int32), filter, pixels), geometry)
    rate, paddings, crops = _space_to_batch(geometry)
    blocks = run("SpaceToBatchND", [pixels, rate, crops], _types(call, "Tpaddings"))
    shape = _blocks(call, geometry)
    blocks = _native_gradient(run, call, "Input", (np.asarray(shape, np.int32), filter, blocks), geometry)
    return run("BatchToSpaceND", [blocks, rate, paddings], _types(call, "Tcrops"))


def depthwise_filter_gradient(run, call: Call, geometry: dict, input, pixels):
    """The gradient of the depthwise filter from that of the depthwise result, in the same way."""
    shape = np.asarray(call.depthwise_filter, np.int32)
    if geometry["space_to_batch"]:
        rate, paddings, crops = _space_to_batch(geometry)
        input = run("SpaceToBatchND", [input, rate, paddings], _types(call, "Tpaddings"))
        pixels = run("SpaceToBatchND", [pixels, rate, crops], _types(call, "Tpaddings"))
    return _native_gradient(run, call, "Filter", (input, shape, pixels), geometry)


def _space_to_batch(geometry: dict):
    return [np.asarray(geometry[name], np.int32) for name in ("rate", "paddings", "crops")]


def _types(call: Call, last: str) -> tuple:
    int32 = tf.int32.as_datatype_enum
    return "T", call.dtype.as_datatype_enum, "Tblock_shape", int32, last, int32


def _blocks(call: Call, geometry: dict) -> list:
    """The shape of what SpaceToBatchND makes of the input."""
    batch, *image, channels = call.input
    rate = geometry["rate"]
    image = [(extent + sum(zeros)) // r for extent, zeros, r in zip(image, geometry["paddings"], rate, strict=True)]
    return [batch * rate[0] * rate[1], *image, channels]


def _native_gradient(run, call: Call, of: str, inputs, geometry: dict):
    padding, explicit = _padding(call) if not geometry["space_to_batch"] else ("VALID", ())
    attributes = ("T", call.dtype.as_datatype_enum, "strides", [1, *call.strides, 1], "padding", padding)
    attributes += ("explicit_paddings", list(explicit), "data_format", "NHWC", "dilations", [1, 1, 1, 1])
    return run(f"DepthwiseConv2dNativeBackprop{of}", list(inputs), attributes)


def _padding(call: Call) -> tuple:
    if isinstance(call.padding, str):
        return call.padding, ()
    return "EXPLICIT", np.ravel([(0, 0), *call.padding, (0, 0)]).tolist()


def pointwise_gradient(run, call: Call, of: str, inputs):
    """The gradient of the 1x1 convolution's input or filter, from inputs as TensorFlow's operation takes them."""
    attributes = ("T", call.dtype.as_datatype_enum, "strides", [1, 1, 1, 1], "use_cudnn_on_gpu", True)
    attributes += ("padding", "VALID", "explicit_paddings", [], "data_format", "NHWC", "dilations", [1, 1, 1, 1])
    return run(f"Conv2DBackprop{of}", list(inputs), attributes)


class Eager:
    """TensorFlow's eager kernels on the calling thread."""

    def __init__(self, call: Call, geometry: dict):
        self.call, self.geometry = call, geometry

    @staticmethod
    def run(name, inputs, attributes):
        inputs = [constant_op.constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
        return execute.quick_execute(name, 1, inputs, attributes, context.context())[0]

    def depthwise(self, input, filter):
        with context.eager_mode():
            return np.asarray(depthwise(self.run, self.call, self.geometry, input, filter))

    def pointwise(self, pixels, filter):
        with context.eager_mode():
            return np.asarray(_convolution(self.run, "Conv2D", self.call, pixels, filter))

    def pixels_gradient(self, upstream, filter):
        """`filter` is the transposed pointwise filter."""
        sizes = np.asarray([*upstream.shape[:3], filter.shape[1]], np.int32)
        filter = np.ascontiguousarray(filter.T)[None, None]
        with context.eager_mode():
            return np.asarray(pointwise_gradient(self.run, self.call, "Input", (sizes, filter, upstream)))

    def pointwise_filter_gradient(self, pixels, upstream):
        """`pixels` is the transposed depthwise result."""
        sizes = np.asarray(self.call.pointwise_filter, np.int32)
        pixels = np.ascontiguousarray(pixels.T).reshape(*upstream.shape[:3], -1)
        with context.eager_mode():
            return np.asarray(pointwise_gradient(self.run, self.call, "Filter", (pixels, sizes, upstream)))

    def input_gradient(self, pixels, filter):
        with context.eager_mode():
            return np.asarray(input_gradient(self.run, self.call, self.geometry, pixels, filter))

    def depthwise_filter_gradient(self, input, pixels):
        with context.eager_mode():
            return np.asarray(depthwise_filter_gradient(self.run, self.call, self.geometry, input, pixels))


def takes(dtype: tf.DType, strides: tuple = (1, 1, 1, 1), data_format: str = "NHWC") -> bool:
    """Whether TensorFlow's depthwise kernel takes such attributes in this process.

    Raises:
        ProfileRunning: If it has not been asked before.
    """
    key = dtype, strides, data_format
    if key not in _taken:
        refuse_while_profiling()
        one = np.ones([1, 1, 1, 1], dtype.as_numpy_dtype)
        attributes = (
            "T",
            dtype.as_datatype_enum,
            "strides",
            list(strides),
            "padding",
            "VALID",
            "explicit_paddings",
            [],
        )
        attributes += ("data_format", data_format, "dilations", [1, 1, 1, 1])
        try:
            with context.eager_mode():
                Eager.run("DepthwiseConv2dNative", [one, one], attributes)
            _taken[key] = True
        except (tf.errors.UnimplementedError, tf.errors.InvalidArgumentError):
            _taken[key] = False
    return _taken[key]


_taken: dict = {}


class ProfileRunning(Exception):
    """A profile is being recorded; what is asked of TensorFlow's operations would show in it."""


def refuse_while_profiling() -> None:
    """Raises ProfileRunning, or does nothing."""
    if profiler_v2._profiler is not None:
        raise ProfileRunning
