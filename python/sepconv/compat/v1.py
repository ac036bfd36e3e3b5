"""`tf.compat.v1.nn`'s argument order."""

from collections.abc import Sequence

import tensorflow as tf

from sepconv import _convolution
from sepconv._arguments import Padding, Rate, TensorLike


@tf.autograph.experimental.do_not_convert
def separable_conv2d(
    input: TensorLike,
    depthwise_filter: TensorLike,
    pointwise_filter: TensorLike,
    strides: Sequence[int],
    padding: Padding,
    rate: Rate | None = None,
    name: str | None = None,
    data_format: str | None = None,
    dilations: Rate | None = None,
    *,
    numerics: str = "tensorflow",
) -> tf.Tensor:
    """`sepconv.separable_conv2d` with the arguments in the order of `tf.compat.v1.nn.separable_conv2d`.

    Args:
        input, depthwise_filter, pointwise_filter: 4-D tensors of one dtype: float16, bfloat16, float32 or float64.
        strides, padding, data_format, dilations, name, numerics: As for `sepconv.separable_conv2d`.
        rate: The older name of `dilations`.

    Returns:
        A tensor of the input's dtype, `[batch, out_height, out_width, out_channels]` (in `data_format`'s order).

    Raises:
        tf.errors.InvalidArgumentError, ValueError, TypeError: As `sepconv.separable_conv2d`.

    Example:
        >>> x = tf.random.normal([1, 8, 8, 3])
        >>> filters = tf.ones([3, 3, 3, 1]), tf.ones([1, 1, 3, 5])
        >>> sepconv.compat.v1.separable_conv2d(x, *filters, [1, 1, 1, 1], "SAME", rate=[2, 2]).shape
        TensorShape([1, 8, 8, 5])
    """
    return _convolution.separable_conv2d(
        input,
        depthwise_filter,
        pointwise_filter,
        strides,
        padding,
        data_format,
        dilations,
        name,
        rate=rate,
        numerics=numerics,
    )
