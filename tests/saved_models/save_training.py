"""Saves what training and rewriting leave in a graph, with an example beside it, in a folder of this version's name:
the gradients' ops, and both ops with steps behind their parts. Of numerics that are the same everywhere.
"""

import pathlib

import numpy as np
import sepconv
import tensorflow as tf

ATTRIBUTES = {"strides": [1, 1, 1, 1], "padding": "SAME"}
PLAIN = "v1 depthwise(fused, inside) pointwise(fused, chain) subnormals(kept)"


class Model(tf.Module):
    def __init__(self, rng):
        self.filters = [tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ([2, 2, 2, 2], [1, 1, 4, 2])]
        self.numbers = [tf.Variable(rng.standard_normal(s), dtype=tf.float32) for s in ([4], [4], [2])]

    @tf.function(input_signature=[tf.TensorSpec([2, 4, 4, 2], name="x")], autograph=False)
    def step(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = sepconv.separable_conv2d(x, *self.filters, **ATTRIBUTES, numerics="reproducible")
        return tape.gradient(y, [x, *self.filters], y)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 2], name="x")], autograph=False)
    def convolve(self, x):
        ops, geometry = tf.load_op_library(sepconv.library_path()), tf.zeros([0, 1, 1, 1, 1, 0], tf.int32)
        steps = {"depthwise_steps": "multiply_add relu6", "pointwise_steps": "add hard_swish", "numerics": PLAIN}
        both = ops.sepconv_fused_separable_conv2d(x, *self.filters, geometry, self.numbers, **steps)
        of_depthwise = {"depthwise_steps": "multiply_add relu", "numerics": PLAIN}
        return both, ops.sepconv_fused_depthwise_conv2d(x, self.filters[0], geometry, self.numbers[:2], **of_depthwise)


folder = pathlib.Path(__file__).parent / f"{sepconv.__version__}-training"
rng = np.random.default_rng(1)
x, model = rng.standard_normal([2, 4, 4, 2], dtype=np.float32), Model(rng)
results = {f"{name}{n}": y for name in ("step", "convolve") for n, y in enumerate(getattr(model, name)(x))}
tf.saved_model.save(model, str(folder), options=tf.saved_model.SaveOptions(experimental_custom_gradients=False))
np.savez(folder / "example.npz", x=x, **results)
