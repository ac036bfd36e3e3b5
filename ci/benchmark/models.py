"""A process that writes a layer as the peers take it: `model.tflite` by TensorFlow's own converter, `model.onnx` as a
pair of Conv nodes with explicit pads, as ONNX Runtime refuses automatic ones with dilation. Run as
`python -m benchmark.models`.
"""

import os
from pathlib import Path

import numpy as np

from benchmark import shapes
from benchmark.serving import serve


def write(path, content):
    """All of the file or none."""
    partial = path.with_suffix(".part")
    partial.write_bytes(content)
    os.replace(partial, path)


def tflite(shape, data):
    import tensorflow as tf

    shape = shapes.from_request(shape)
    _, *filters = shapes.read(data, shape)

    @tf.function(autograph=False)
    def layer(x):
        return tf.nn.separable_conv2d(x, *map(tf.constant, filters), **shape.attributes)

    function = layer.get_concrete_function(tf.TensorSpec(shape.input, tf.float32))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], layer)
    write(Path(data) / "model.tflite", converter.convert())


def onnx(shape, data):
    from onnx import TensorProto, checker, helper, numpy_helper

    shape = shapes.from_request(shape)
    _, depthwise_filter, pointwise_filter = shapes.read(data, shape)
    kernel = shape.kernel
    # Height, width, channel, multiplier -> (channel, multiplier), 1, height, width.
    depthwise_filter = depthwise_filter.transpose(2, 3, 0, 1).reshape(shape.k, 1, kernel, kernel)
    pointwise_filter = pointwise_filter[0, 0].T.reshape(shape.out_channels, shape.k, 1, 1)
    weights = {"depthwise_filter": depthwise_filter, "pointwise_filter": pointwise_filter}
    (top, bottom), (left, right) = shape.pads
    depthwise = helper.make_node(
        "Conv",
        ["input", "depthwise_filter"],
        ["between"],
        group=shape.input[3],
        kernel_shape=[kernel] * 2,
        strides=[shape.stride] * 2,
        dilations=[shape.rate] * 2,
        pads=[top, left, bottom, right],
    )
    pointwise = helper.make_node("Conv", ["between", "pointwise_filter"], ["output"], kernel_shape=[1, 1])
    (batch, height, width, channels), (_, out_height, out_width, out_channels) = shape.input, shape.output
    values = {"input": [batch, channels, height, width], "output": [batch, out_channels, out_height, out_width]}
    info = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, extents) for name, extents in values.items()}
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph([depthwise, pointwise], "layer", [info["input"]], [info["output"]], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    write(Path(data) / "model.onnx", model.SerializeToString())


if __name__ == "__main__":
    serve({"tflite": tflite, "onnx": onnx})
