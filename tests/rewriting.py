"""What the tests of rewriting share: graphs of placeholders, their parts and nodes, how they are run; the command."""

import re

import keras
import numpy as np
import sepconv
import tensorflow as tf
from conftest import AVX512, ONEDNN
from fresh import attempt
from helpers import HERE

v1 = tf.compat.v1
OP = "Sepconv>SeparableConv2D"
FUSED, DEPTHWISE = "Sepconv>FusedSeparableConv2D", "Sepconv>FusedDepthwiseConv2D"
POINTWISE = "Sepconv>FusedPointwiseConv2D"
PLAIN = {"strides": [1, 1, 1, 1], "padding": "SAME"}
# Saved with the op (`saved_models/save.py`).
SAVED = sorted((HERE / "saved_models").glob("*/"))[0]
UNKNOWN = {"known": [], "batch": [0], "height and width": [1, 2], "all": [0, 1, 2]}


def bias_comes_first(layer) -> bool:
    """Whether a layer is left because oneDNN, for single images without AVX-512, begins a sum with the bias that is
    fused with it, where eager calls add it at the end: no order of the op does that."""
    return ONEDNN and not AVX512 and not layer.replaced and "here, with BiasAdd, Relu behind it" in layer.reason


def usual(steps: str) -> str:
    """Steps without a word about whose ReLU it is: oneDNN's where it computes that in one with a convolution."""
    return re.sub(r"\b(relu6?)_onednn", r"\1", steps)


def graph_of(build, *shapes, dtype=tf.float32):
    """The GraphDef of a function of placeholders `x0`, `x1`, ...; what it gives is `y`."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(*[v1.placeholder(dtype, shape, f"x{n}") for n, shape in enumerate(shapes)]), "y")
    return graph.as_graph_def()


def run(definition, *arrays, fetch="y"):
    function = v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    tensor = function.graph.get_tensor_by_name
    feeds = [tensor(f"x{n}:0") for n in range(len(arrays))]
    return function.prune(feeds, tensor(f"{fetch}:0"))(*map(tf.constant, arrays))


def nodes_of(definition) -> list:
    bodies = [definition.node, *[function.node_def for function in definition.library.function]]
    return [node for nodes in bodies for node in nodes]


def types(definition) -> set:
    return {node.op for node in nodes_of(definition)}


def replaced(definition, count=1):
    """The rewritten GraphDef, in which so many layers are replaced and none is left."""
    rewritten = sepconv.rewrite(definition)
    report = rewritten.report
    assert (len(report.replaced), len(report.left)) == (count, 0), str(report)
    return rewritten.model


def depthwise(x, filter, **attributes):
    return tf.raw_ops.DepthwiseConv2dNative(**{"input": x, "filter": filter, **PLAIN, **attributes})


def conv(x, filter, **attributes):
    return tf.raw_ops.Conv2D(**{"input": x, "filter": filter, **PLAIN, "padding": "VALID", **attributes})


def dilated(x, filter):
    return tf.nn.depthwise_conv2d(x, filter, **PLAIN, dilations=[2, 3])


def normalised(y, statistics, version="V3", **attributes):
    operands = dict(zip(("scale", "offset", "mean", "variance"), statistics, strict=True))
    attributes = {"epsilon": 1e-3, "is_training": False, **attributes}
    return getattr(tf.raw_ops, f"FusedBatchNorm{version}")(x=y, **operands, **attributes)[0]


def statistics(rng, channels) -> list:
    array = rng.standard_normal([4, channels]).astype(np.float32)
    return [*array[:3], np.abs(array[3])]


def activated(activation, batch, *others):
    """A function of a Keras model that begins with a depthwise part, a normalisation and an activation; and images."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    first = [
        layers.DepthwiseConv2D(3, use_bias=False),
        layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal"),
        layers.Activation(activation),
    ]
    model = keras.Sequential([keras.Input([12, 12, 16]), *first, *others])
    x = tf.random.normal([batch, 12, 12, 16])
    return tf.function(model).get_concrete_function(tf.TensorSpec(x.shape)), x


COMMAND = """
import runpy, sys
sys.argv[0] = "sepconv"
runpy.run_module("sepconv", run_name="__main__")
"""


def command(*arguments):
    return attempt(COMMAND, *map(str, arguments))
