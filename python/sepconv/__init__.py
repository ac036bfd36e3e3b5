"""tf.nn.separable_conv2d as one op, with TensorFlow's bits.

>>> import sepconv
>>> y = sepconv.separable_conv2d(x, depthwise_filter, pointwise_filter, strides=[1, 1, 1, 1], padding="SAME")
>>> sepconv.explain(x, depthwise_filter, pointwise_filter, strides=[1, 1, 1, 1], padding="SAME").path
'op'
"""

import contextlib
import sys

from sepconv import _library as _library  # first, as it says what is missing
from sepconv import _vectorized as _vectorized  # registers what tf.vectorized_map asks for
from sepconv import compat
from sepconv._bodies import BadModel
from sepconv._convolution import Explanation, explain, explain_gradients, separable_conv2d, warmup
from sepconv._library import library_path, stats, version
from sepconv._patch import Patch, patch
from sepconv._report import Report
from sepconv._rewriting import restore, rewrite

# TensorFlow has imported Keras 3 by now, if it is there: this costs nothing, and Keras finds the layers of its files.
# Otherwise `import sepconv.keras` says what is missing.
if "keras" in sys.modules:
    with contextlib.suppress(ImportError):
        from sepconv import keras as keras

__version__ = version()

__all__ = [
    "BadModel",
    "Explanation",
    "Patch",
    "Report",
    "compat",
    "explain",
    "explain_gradients",
    "library_path",
    "patch",
    "restore",
    "rewrite",
    "separable_conv2d",
    "stats",
    "warmup",
]
