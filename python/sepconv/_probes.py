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
        if isinstance(call.padding, str):
            padding, explicit = call.padding, ()
        else:
            padding, explicit = "EXPLICIT", np.ravel([(0, 0), *call.padding, (0, 0)]).tolist()
        return _native(run, call, input, filter, padding, explicit, geometry["paddings"])
    rate, paddings, crops = (np.asarray(geometry[name], np.int32) for name in ("rate", "paddings", "crops"))
    types = ("T", call.dtype.as_datatype_enum, "Tblock_shape", tf.int32.as_datatype_enum)
    blocks = run("SpaceToBatchND", [input, rate, paddings], (*types, "Tpaddings", tf.int32.as_datatype_enum))
    blocks = _native(run, call, blocks, filter, "VALID", (), [(0, 0), (0, 0)])
    return run("BatchToSpaceND", [blocks, rate, crops], (*types, "Tcrops", tf.int32.as_datatype_enum))


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
