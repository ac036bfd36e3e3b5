"""`patch`: while it holds, TensorFlow's own names of separable_conv2d lead to sepconv."""

import functools
import threading

import tensorflow as tf
from tensorflow.python.autograph.impl.api import autograph_artifact
from tensorflow.python.ops import nn as internal_nn
from tensorflow.python.util import dispatch

from sepconv import _arguments, _convolution

# The modules whose attribute it is, in v1's order of arguments and in v2's. Not TensorFlow's nn_impl, where both are
# defined: there v2's finds the v1 one that it calls, and sepconv's own fallback ends.
_V1 = tf.compat.v1.nn, internal_nn
_V2 = tf.nn, tf.compat.v2.nn
_NAME = "separable_conv2d"

_lock = threading.Lock()
_holding: list = []


class Patch:
    """What `patch` returns: it holds until `undo`, or until the end of its outermost `with` block, and again in another
    one."""

    def __init__(self, numerics):
        v1, v2 = _stand_ins(_arguments.check_numerics(numerics))
        self._functions = dict.fromkeys(_V1, v1) | dict.fromkeys(_V2, v2)
        self._found: dict = {}  # what stood there before
        self._entered = 0  # with blocks
        with _lock:
            self._hold()

    def _hold(self) -> None:
        if self not in _holding:
            self._found = {module: getattr(module, _NAME) for module in self._functions}
            _holding.append(self)
            for module, function in self._functions.items():
                setattr(module, _NAME, function)

    def undo(self) -> None:
        """Puts back what this patch replaced; what came later stays, another patch or somebody else's function. A
        second call does nothing."""
        with _lock:
            self._undo()

    def _undo(self) -> None:
        if self not in _holding:
            return
        _holding.remove(self)
        for module, function in self._functions.items():
            if getattr(module, _NAME) is function:
                setattr(module, _NAME, self._found[module])
            for later in _holding:
                if later._found[module] is function:
                    later._found[module] = self._found[module]

    def __enter__(self) -> "Patch":
        with _lock:
            self._entered += 1
            self._hold()
        return self

    def __exit__(self, *_) -> None:
        with _lock:
            self._entered -= 1
            if not self._entered:
                self._undo()


def patch(numerics: str = "tensorflow") -> Patch:
    """Routes `tf.nn.separable_conv2d` and `tf.compat.v1.nn.separable_conv2d` through sepconv, with their signatures.

    What calls them by these names comes along: Keras's layers, `keras.ops.separable_conv`, other people's models. It
    holds for the whole process and all its threads, from the call on until it is undone; where several hold, the newest
    counts. What stays TensorFlow's: functions traced before, names bound before (`from tensorflow.nn import
    separable_conv2d`), and layers of Keras with strides and dilation above 1, which Keras puts together from other ops.

    Args:
        numerics: Whose bits, as for `separable_conv2d`.

    Returns:
        A `Patch`: a context manager with a method `undo`.

    Raises:
        TypeError: `numerics` is not a string.

    Example:
        >>> with sepconv.patch():
        ...     y = model.predict(x)
        >>> patched = sepconv.patch()  # until the process ends, or
        >>> patched.undo()
    """
    return Patch(numerics)


def _stand_ins(numerics):
    """sepconv's function in TensorFlow's two orders of arguments."""

    @_like(tf.compat.v1.nn.separable_conv2d)
    def v1(
        input,
        depthwise_filter,
        pointwise_filter,
        strides,
        padding,
        rate=None,
        name=None,
        data_format=None,
        dilations=None,
    ):
        tensors, rates = (input, depthwise_filter, pointwise_filter), {"rate": rate, "numerics": numerics}
        return _convolution.separable_conv2d(*tensors, strides, padding, data_format, dilations, name, **rates)

    @_like(tf.nn.separable_conv2d)
    def v2(
        input,
        depthwise_filter,
        pointwise_filter,
        strides,
        padding,
        data_format=None,
        dilations=None,
        name=None,
    ):
        tensors = input, depthwise_filter, pointwise_filter
        return _convolution.separable_conv2d(
            *tensors, strides, padding, data_format, dilations, name, numerics=numerics
        )

    return v1, v2


def _like(original):
    """With its name and documentation, open to types that want to be asked first, and left alone by AutoGraph."""

    def decorator(function):
        return autograph_artifact(dispatch.add_dispatch_support(functools.wraps(original, updated=())(function)))

    return decorator
