"""Saves the op of a pointwise part alone with an example beside it, in a folder of this version's name. Of numerics
that are the same everywhere.
"""

import pathlib

import numpy as np
import sepconv
import tensorflow as tf

NUMERICS = "v1 depthwise(fused, inside) pointwise(fused, chain) subnormals(kept)"


class Model(tf.Module):
    def __init__(self, rng):
        self.filter, self.bias = [tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ([1, 1, 4, 3], [3])]

    @tf.function(input_signature=[tf.TensorSpec([None, 5, 4, 4], name="x")], autograph=False)
    def convolve(self, x):
        ops, strides_2 = tf.load_op_library(sepconv.library_path()), tf.zeros([0, 2, 2, 1, 1, 1], tf.int32)
        attributes = {"pointwise_steps": "add relu6", "numerics": NUMERICS, "constant_filters": True}
        return ops.sepconv_fused_pointwise_conv2d(x, self.filter, strides_2, [self.bias], **attributes)


folder = pathlib.Path(__file__).parent / f"{sepconv.__version__}-pointwise"
rng = np.random.default_rng(1)
x, model = rng.standard_normal([2, 5, 4, 4], dtype=np.float32), Model(rng)
y = model.convolve(x)
tf.saved_model.save(model, str(folder), options=tf.saved_model.SaveOptions(experimental_custom_gradients=False))
np.savez(folder / "example.npz", x=x, y=y)
