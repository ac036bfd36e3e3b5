"""The arguments of one call, taken as TensorFlow takes them and refused with TensorFlow's error classes."""

import contextlib
import dataclasses
import operator
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util

# Of several integers, as TensorFlow takes them: no text, no set, nothing that is used up by being looked at.
STRIDES = (list, tuple, tf.TensorShape)
PAIRS = (list, tuple, np.ndarray)
RATES = (list, tuple, range, np.ndarray, tf.TensorShape)

PADDINGS = ("SAME", "VALID", "EXPLICIT")
FORMATS = ("NHWC", "NCHW")

# As annotations say them.
TensorLike = tf.types.experimental.TensorLike
Padding = str | Sequence[Sequence[int]]
Rate = Sequence[int] | TensorLike


@dataclasses.dataclass(frozen=True)
class Call:
    """One call in NHWC; unknown extents are None. `rate` is None where it is no pair of constants."""

    input: tuple
    depthwise_filter: tuple
    pointwise_filter: tuple
    dtype: tf.DType
    strides: tuple
    padding: str | tuple
    rate: tuple | None

    def request(self) -> dict:
        """As the library's C functions take it."""
        return {
            "input": self.input,
            "depthwise_filter": self.depthwise_filter,
            "pointwise_filter": self.pointwise_filter,
            "strides": self.strides,
            "padding": self.padding,
            "rate": self.rate,
        }

    @property
    def known(self) -> bool:
        return None not in self.input + self.depthwise_filter + self.pointwise_filter


def refusal(message: str, in_graph: type = ValueError) -> Exception:
    """The class that TensorFlow uses for a refused argument: eager, or while a graph is built."""
    return tf.errors.InvalidArgumentError(None, None, message) if tf.executing_eagerly() else in_graph(message)


def shape_of(name: str, tensor) -> tuple:
    """The static shape as a tuple, of rank 4; all None where the rank is unknown."""
    shape = tensor.shape
    if shape.rank is None:
        return (None,) * 4
    if shape.rank != 4:
        raise refusal(f"{name} must have 4 dimensions, got {shape.rank} (shape {shape})")
    return tuple(shape.as_list())  # tuple(shape) holds objects where TensorFlow 1's behaviour is on


def freeze(value):
    """Lists as tuples, so that arguments can be a key; what is no integer with its class, for 2.0 and True equal 2 and
    1 but are not taken everywhere."""
    if value is None or value.__class__ is str:
        return value
    if isinstance(value, (list, tuple)):
        return tuple([v if v.__class__ is int else freeze(v) for v in value])
    return value.__class__, value


def check_format(data_format) -> str:
    if data_format is None:
        return "NHWC"
    if data_format not in FORMATS:
        raise refusal(f'data_format must be "NHWC" or "NCHW", got {data_format!r}')
    return data_format


NUMERICS = "tensorflow", "tensorflow-certain", "tensorflow-constant", "reproducible"


def check_numerics(numerics) -> str:
    if not isinstance(numerics, str):
        raise TypeError(f"numerics must be a string, got {numerics!r}")
    # A text begins with its version, or with the batch that it is for.
    if numerics not in NUMERICS and not numerics.lstrip().startswith(("v1", "batch")):
        names = ", ".join(map(repr, NUMERICS))
        raise refusal(f"numerics must be {names} or a text that `explain` gave, got {numerics!r}")
    return numerics


def check_dtypes(input, depthwise_filter, pointwise_filter) -> None:
    for name, filter in (("depthwise_filter", depthwise_filter), ("pointwise_filter", pointwise_filter)):
        if filter.dtype.base_dtype != input.dtype.base_dtype:
            raise refusal(f"{name} must be {input.dtype.name}, as input is, got {filter.dtype.name}", TypeError)


def check_rate(rate) -> None:
    """Refuses what TensorFlow's function refuses too, of what is no pair of constants: it takes a list of one integer,
    and of three, and numbers of a graph among others."""
    if isinstance(rate, list | tuple) and any(map(tf.is_tensor, rate)):
        return
    message = f"dilations must be two positive integers, or an integer tensor of shape [2], got {rate!r}"
    if not tf.is_tensor(rate):
        try:
            # Nothing of this belongs into a graph that is being built.
            with contextlib.nullcontext() if tf.executing_eagerly() else tf.Graph().as_default():
                rate = tf.convert_to_tensor(rate, tf.int32)
        except (TypeError, ValueError) as error:
            raise type(error)(message) from error
    fits = any(rate.shape.is_compatible_with([length]) for length in (1, 2, 3))
    if rate.dtype.base_dtype != tf.int32 or not fits:
        raise ValueError(message)


def normalise(input, depthwise_filter, pointwise_filter, strides, padding, data_format, rate) -> Call:
    """The call with its attributes as pairs for height and width.

    Args:
        input, depthwise_filter, pointwise_filter: Tensors.
        strides, padding, data_format, rate: As for `separable_conv2d`; `data_format` is checked already.
    """
    filters = shape_of("depthwise_filter", depthwise_filter), shape_of("pointwise_filter", pointwise_filter)
    if any(extent not in (None, 1) for extent in filters[1][:2]):
        raise ValueError(f"pointwise_filter must be 1 high and 1 wide, got shape {pointwise_filter.shape}")
    image = shape_of("input", input)
    height, width, channels = (1, 2, 3) if data_format == "NHWC" else (2, 3, 1)
    return Call(
        (image[0], image[height], image[width], image[channels]),
        *filters,
        input.dtype,
        _strides(strides, height, width),
        _padding(padding, height, width),
        _rate(rate),
    )


def _fitting(name: str, values) -> tuple:
    """Integers that the library's C functions can carry; TensorFlow's limits they check themselves."""
    for value in values:
        if not -(2**63) <= value < 2**63:
            raise refusal(f"{name} must be at most {2**31 - 1}, got {value}")
    return tuple(values)


def _integers(values, classes) -> list:
    if not isinstance(values, classes):
        raise ValueError(f"no sequence: {values!r}")
    if any(isinstance(value, (str, bytes)) for value in values):
        raise TypeError(f"no integers: {values!r}")
    return [int(value) for value in values]  # as TensorFlow, which cuts fractions off


def _strides(strides, height: int, width: int) -> tuple:
    try:
        strides = _integers(strides, STRIDES)
    except (TypeError, ValueError) as error:
        raise TypeError(f"strides must be a list of 4 integers, got {strides!r}") from error
    if len(strides) != 4:
        raise refusal(f"strides must have 4 values, got {len(strides)}: {strides}")
    if any(strides[axis] != 1 for axis in range(4) if axis not in (height, width)):
        raise refusal(f"strides of the batch and channels must be 1, got {strides}")
    return _fitting("strides", (strides[height], strides[width]))


def _padding(padding, height: int, width: int):
    if isinstance(padding, bytes):
        padding = padding.decode(errors="replace")
    if isinstance(padding, str):
        if padding not in PADDINGS[:2]:
            raise refusal(
                f'padding must be "SAME", "VALID" or a list of 4 pairs, got {padding!r}'
                if padding != "EXPLICIT"
                else 'padding "EXPLICIT" is given as a list of 4 pairs, got the word alone'
            )
        return padding
    message = f'padding must be "SAME", "VALID" or a list of 4 pairs of integers, got {padding!r}'
    if not isinstance(padding, PAIRS):
        raise TypeError(message)
    try:
        pairs = [tuple(_integers(pair, PAIRS)) for pair in padding]
    except (TypeError, ValueError) as error:
        raise type(error)(message) from error
    if len(pairs) != 4 or any(len(pair) != 2 for pair in pairs):
        raise refusal(f"explicit padding must be 4 pairs, got {padding!r}")
    if any(pairs[axis] != (0, 0) for axis in range(4) if axis not in (height, width)):
        raise refusal(f"explicit padding of batch and channels must be 0, got {padding!r}")
    return _fitting("padding", pairs[height]), _fitting("padding", pairs[width])


def _rate(rate):
    if rate is None:
        return 1, 1
    if tf.is_tensor(rate):
        rate = tensor_util.constant_value(rate)
    try:
        values = [operator.index(r) for r in rate] if isinstance(rate, RATES) else []
    except TypeError:
        return None
    if len(values) != 2:  # or no integers: TensorFlow's own function says what it thinks of it
        return None
    if min(values) < 1:
        raise ValueError(f"rate (dilations) must be positive, got {values}")
    return _fitting("rate (dilations)", values)
