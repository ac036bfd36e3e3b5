"""tf.nn.separable_conv2d as one op, with TensorFlow's bits.

>>> import sepconv
>>> y = sepconv.separable_conv2d(x, depthwise_filter, pointwise_filter, strides=[1, 1, 1, 1], padding="SAME")
>>> sepconv.explain(x, depthwise_filter, pointwise_filter, strides=[1, 1, 1, 1], padding="SAME").path
'op'
"""

from sepconv import _vectorized as _vectorized  # registers what tf.vectorized_map asks for
from sepconv import compat
from sepconv._convolution import Explanation, explain, separable_conv2d, warmup
from sepconv._library import library_path, stats, version

__version__ = version()

__all__ = ["Explanation", "compat", "explain", "library_path", "separable_conv2d", "stats", "warmup"]
