"""`tf.compat.v1.nn`'s argument order."""

import tensorflow as tf

from sepconv import _convolution


@tf.autograph.experimental.do_not_convert
def separable_conv2d(
    input,
    depthwise_filter,
    pointwise_filter,
    strides,
    padding,
    rate=None,
    name=None,
    data_format=None,
    dilations=None,
    *,
    numerics="tensorflow",
):
    """`sepconv.separable_conv2d` with the arguments in the order of `tf.compat.v1.nn.separable_conv2d`.

    See `sepconv.separable_conv2d` for shapes, dtypes and errors.
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
