"""Saves a small graph with an example beside it, in a folder of this version's name, which must stay loadable: every
way in which a node holds padding, and much of what numerics can say.
"""

import pathlib

import numpy as np
import sepconv
import tensorflow as tf

BLOCKS = "v1 depthwise(fused, inside) pointwise(fused, 1+3) subnormals(flushed)"
LANES = "v1 depthwise(separate, all, columns) pointwise(separate, lanes(1, 2, 2)) subnormals(kept)"
ELSEWHERE = "v1 depthwise(fused, inside) pointwise(fused, chain, rows 0..3 columns 0..1 paired 4) subnormals(kept)"
CALLS = [
    {"strides": [1, 1, 1, 1], "padding": "SAME", "numerics": "reproducible"},
    {"strides": [1, 1, 1, 1], "padding": "VALID", "dilations": [2, 1], "numerics": ELSEWHERE},
    {
        "strides": [1, 2, 1, 1],
        "padding": [[0, 0], [1, 0], [0, 1], [0, 0]],
        "numerics": f"batch 1 rows 6: {BLOCKS}; batch 2 rows 12: {LANES}",
    },
]


class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 4, 4, 2], name="x")], autograph=False)
    def convolve(self, x):
        for attributes in CALLS:
            x = sepconv.separable_conv2d(x, *filters, **attributes)
        return x


folder = pathlib.Path(__file__).parent / sepconv.__version__
folder.mkdir()
rng = np.random.default_rng(0)
filters = [rng.standard_normal(shape, dtype=np.float32) for shape in ([2, 2, 2, 2], [1, 1, 4, 2])]
x, model = rng.standard_normal([2, 4, 4, 2], dtype=np.float32), Model()
tf.saved_model.save(model, str(folder), options=tf.saved_model.SaveOptions(experimental_custom_gradients=False))
np.savez(folder / "example.npz", x=x, y=model.convolve(x))
