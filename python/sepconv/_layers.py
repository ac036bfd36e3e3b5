"""Finds the layers that multiply in a flat graph: convolutions of every kind, matrix products, and which depthwise
convolution belongs to which 1x1 convolution. All shapes are those that TensorFlow infers.
"""

import collections
import dataclasses
import math
import os.path
import re

import tensorflow as tf
from tensorflow.python.framework import tensor_util

from sepconv import _composite, _library, _originals
from sepconv._command import BadInput
from sepconv._cost import Layer

# What a graph optimiser has fused with the bias and more keeps its first inputs and its attributes.
_CONVOLUTIONS = ("Conv2D", "_FusedConv2D")
_DEPTHWISE = ("DepthwiseConv2dNative", "_FusedDepthwiseConv2dNative")
_PRODUCTS = ("MatMul", "_FusedMatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_OURS = (_library.op_name(), _library.FUSED, _library.DEPTHWISE, _library.POINTWISE)
# They multiply too, and are not counted.
_UNCOUNTED = ("Conv2DBackpropInput", "Conv3D", "Einsum", "XlaConvV2", "XlaDotV2")

# One element of the result for each of the image: bias, normalisation and activation, whole or in pieces.
_STEPS = {
    *("Add", "AddV2", "BiasAdd", "Cast", "ClipByValue", "Elu", "Erf", "Exp", "FusedBatchNorm", "FusedBatchNormV2"),
    *(
        "FusedBatchNormV3",
        "Identity",
        "IdentityN",
        "LeakyRelu",
        "Log1p",
        "Maximum",
        "Minimum",
        "Mul",
        "Neg",
        "RealDiv",
        "Reciprocal",
    ),
    *("Relu", "Relu6", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Square", "Sub", "Tanh"),
}
# What an op's own name adds to its layer's, in Keras and in TensorFlow.
_PLAIN = {
    *("convolution", "separable_conv2d", "depthwise", "Conv2D", "SeparableConv2D", "MatMul", "BatchMatMul", "BiasAdd"),
    *("Relu", "Relu6", "Conv1D", "Tensordot", "PartitionedCall", "StatefulPartitionedCall"),
}


def find(graph: tf.Graph, inputs, names=frozenset()) -> tuple[list[Layer], list[str]]:
    """Every layer that multiplies, in the order in which they compute, and notes on what is left out.

    Args:
        graph: With static shapes.
        inputs: Names of the nodes that the model's input comes through.
        names: What Keras calls its layers.

    Raises:
        BadInput: Some layer's shape is unknown.
    """
    search = _Search(graph, inputs)
    return _named(search.layers(), names), search.notes()


class _Search:
    def __init__(self, graph, inputs):
        self.graph, self.inputs = graph, set(inputs)
        self.operations = graph.get_operations()
        fed = [operation for operation in self.operations if operation.name in self.inputs]
        self.fed = _reached(fed, _consumers)
        self.batch = next((t.shape[0] for operation in fed for t in operation.outputs if t.shape.rank), 1)
        self.taken = set()  # 1x1 convolutions that belong to a depthwise one

    def layers(self):
        """Every layer, nameless, and whether it is a first or a last one."""
        found = []
        for operation in self.operations:
            if operation.type in _DEPTHWISE or self._one_channel_a_group(operation):
                found.append(self._depthwise(operation))
            elif operation.type == _library.DEPTHWISE:
                found.append(self._ours(operation))
        for operation in self.operations:
            if operation.name in self.taken or self._one_channel_a_group(operation):
                continue
            if operation.type in _CONVOLUTIONS:
                found.append(self._convolution(operation))
            elif operation.type == _library.POINTWISE:
                found.append(self._our_pointwise(operation))
            elif operation.type in _OURS and operation.type != _library.DEPTHWISE:
                found.append(self._ours(operation))
            elif operation.type in _PRODUCTS:
                found.append(self._product(operation))
        order = {operation: i for i, operation in enumerate(self.operations)}
        found.sort(key=lambda layer_and_ends: order[layer_and_ends[1]])
        layers, ends = [layer for layer, *_ in found], [pair for _, *pair in found]
        return self._placed(layers, ends)

    # Kinds of layers: the layer, and the ops that it takes its input and gives its output with

    def _depthwise(self, operation):
        layer = self._spatial(operation)
        end = layer["end"]
        height, width, _, multiplier = self._shape(operation.inputs[1])
        if operation.type not in _DEPTHWISE:  # a grouped convolution, whose filter holds all that come out
            multiplier //= layer["input"][3]
        common = layer["common"] | {"kernel": (height, width), "channel_multiplier": multiplier}
        pointwise, between = self._pointwise_behind(end.outputs[0], operation)
        if pointwise is None:
            output = layer["output"]
            weights = self._weights(operation.inputs[1])
            found = Layer("", (operation.name,), "depthwise", layer["input"], output, weights=weights, **common)
            return found, operation, end
        self.taken.add(pointwise.name)
        output = self._image(pointwise.outputs[0], pointwise)
        weights = self._weights(operation.inputs[1], pointwise.inputs[1])
        nodes, common = (operation.name, *_nodes(pointwise)), common | {"between": between, "weights": weights}
        return Layer("", nodes, "separable", layer["input"], output, **common), operation, pointwise

    def _convolution(self, operation):
        layer = self._spatial(operation)
        height, width, in_channels, _ = self._shape(operation.inputs[1])
        groups, output = layer["input"][3] // in_channels, layer["output"]
        kind = "grouped" if groups > 1 else "convolution"
        if (height, width) == (1, 1) and groups == 1:
            kind = _kind_of_1x1(output)
        common = layer["common"] | {"kernel": (height, width), "groups": groups}
        weights = self._weights(operation.inputs[1])
        found = Layer("", (operation.name,), kind, layer["input"], output, weights=weights, **common)
        return found, operation, layer["end"]

    def _ours(self, operation):
        alone = operation.type == _library.DEPTHWISE
        input, *filters = operation.inputs[: _composite.geometry_of(operation)]
        height, width, _, multiplier = self._shape(filters[0])
        nodes, end, between = _nodes(operation), operation, ()
        if alone:
            pointwise, between = self._pointwise_behind(operation.outputs[0], operation)
            if pointwise is not None:
                self.taken.add(pointwise.name)
                nodes, filters, end = (*nodes, *_nodes(pointwise)), [*filters, pointwise.inputs[1]], pointwise
        found = Layer(
            *("", nodes, "depthwise" if end is operation and alone else "separable"),
            *(self._shape(input), self._shape(end.outputs[0])),
            kernel=(height, width),
            channel_multiplier=multiplier,
            between=between,
            weights=self._weights(*filters),
            dtype=input.dtype.name,
            **self._call(operation),
        )
        return found, operation, end

    def _our_pointwise(self, operation):
        input, filter = operation.inputs[:2]
        image, output = self._shape(input), self._shape(operation.outputs[0])
        common = {"weights": self._weights(filter), "dtype": input.dtype.name, **self._call(operation)}
        found = Layer("", _nodes(operation), _kind_of_1x1(output), image, output, **common)
        return found, operation, operation

    def _call(self, operation):
        """What the geometry of an op of ours says."""
        self._shape(operation.inputs[_composite.geometry_of(operation)])  # which has to be known
        return _composite.call_of(operation)

    def _product(self, operation):
        left, right = operation.inputs[:2]
        transposed = operation.get_attr("adj_x" if operation.type.startswith("Batch") else "transpose_a")
        in_channels = self._shape(left)[-2 if transposed else -1]
        *rows, out_channels = self._shape(operation.outputs[0])
        pixels, weights = tf.TensorShape(rows).num_elements(), self._weights(right)
        if not weights and self._weights(left):  # the weights stand on the left
            pixels, out_channels, weights = pixels // rows[-1] * out_channels, rows[-1], self._weights(left)
        image, common = (pixels, 1, 1), {"weights": weights, "dtype": left.dtype.name}
        kind = "1x1" if weights and pixels > (self.batch or 1) else "dense"
        found = Layer("", (operation.name,), kind, (*image, in_channels), (*image, out_channels), **common)
        return found, operation, operation

    def _spatial(self, operation):
        """What convolutions have in common, the dilation around them included."""
        start, end = operation.inputs[0], operation
        strides, rate = (self._pair(operation, name) for name in ("strides", "dilations"))
        padding = operation.get_attr("padding").decode()
        before, after = start.op, operation.outputs[0].consumers()
        if before.type == "SpaceToBatchND" and [consumer.type for consumer in after] == ["BatchToSpaceND"]:
            start, end = before.inputs[0], after[0]
            blocks = tensor_util.constant_value(before.inputs[1])
            rate = (1, 1) if blocks is None else (*map(int, blocks),)
            rate = (1, *rate) if len(rate) == 1 else rate
            padding = _padding_around(self._shape(start), self._shape(end.outputs[0]), before, strides)
        elif padding == "EXPLICIT":
            numbers = operation.get_attr("explicit_paddings")
            axis = 4 if _channels_first(operation) else 2
            padding = tuple(tuple(numbers[i : i + 2]) for i in (axis, axis + 2))
        return {
            "end": end,
            "input": self._image(start, operation),
            "output": self._image(end.outputs[0], operation),
            "common": {"strides": strides, "rate": rate, "padding": padding, "dtype": start.dtype.name},
        }

    def _one_channel_a_group(self, operation):
        if operation.type not in _CONVOLUTIONS:
            return False
        channels, in_channels = self._image(operation.inputs[0], operation)[3], self._shape(operation.inputs[1])[2]
        return in_channels == 1 and channels > 1

    # Which 1x1 convolution belongs to a depthwise one

    def _pointwise_behind(self, tensor, depthwise):
        """The only 1x1 convolution that takes a depthwise result and the types of the steps between, or None.

        Steps take the result, what was made of it step by step, and one number per channel or for the whole image: so
        no residual connection lies between. What is made of the whole image (squeeze and excitation) only scales it.
        """
        reached, steps, found = {tensor.ref()}, [], []
        waiting, stuck = collections.deque(tensor.consumers()), 0
        batch, *_, channels = self._image(tensor, depthwise)
        while waiting and stuck < len(waiting):
            step = waiting.popleft()
            if step.name in steps or step in found:
                continue
            if self._is_pointwise(step) and step.inputs[0].ref() in reached:
                found.append(step)
            elif step.type in _STEPS and all(t.ref() in reached or _one_a_channel(t) for t in step.inputs):
                steps.append(step.name)
                size = tensor.shape.num_elements()
                images = [output for output in step.outputs if output.shape.num_elements() == size]
                reached.update(image.ref() for image in images)
                waiting.extend(consumer for image in images for consumer in image.consumers())
            elif step.type == "Shape" or _elements(step) <= batch * channels:
                pass  # made of the whole image
            else:
                waiting.append(step)
                stuck += 1
                continue
            stuck = 0
        if waiting or len(found) != 1:
            return None, ()
        return found[0], tuple(self.graph.get_operation_by_name(name).type for name in steps)

    def _is_pointwise(self, operation):
        if operation.type == _library.POINTWISE:
            strides = self._call(operation)["strides"]
        elif operation.type in _CONVOLUTIONS:
            strides = self._pair(operation, "strides")
        else:
            return False
        if strides != (1, 1):
            return False
        height, width, in_channels, _ = self._shape(operation.inputs[1])
        channels = self._image(operation.inputs[0], operation)[3]
        return (height, width, in_channels) == (1, 1, channels) and channels > 1

    # Shapes, attributes, weights

    def _shape(self, tensor):
        if not tensor.shape.is_fully_defined():
            shapes = [self.graph.get_operation_by_name(name).outputs[0] for name in sorted(self.inputs)]
            unknown = [f"{t.op.name} {t.shape}" for t in shapes if not t.shape.is_fully_defined()]
            raise BadInput(
                f"--input-shape: needed, for node {tensor.op.name} has shape {tensor.shape}; "
                + (f"unknown: {', '.join(unknown)}" if unknown else "it depends on more than the inputs' shapes")
            )
        return tuple(tensor.shape.as_list())

    def _image(self, tensor, operation):
        batch, *rest = self._shape(tensor)
        return (batch, *rest[1:], rest[0]) if _channels_first(operation) else (batch, *rest)

    def _pair(self, operation, name):
        values = operation.get_attr(name)
        return tuple(values[2:4] if _channels_first(operation) else values[1:3])

    def _weights(self, *filters):
        """What holds the filters, by name; none where one of them is computed from the model's input."""
        if any(tensor.op in self.fed for tensor in filters):
            return ()
        return tuple(_origin(tensor.op) for tensor in filters)

    # The whole

    def _placed(self, layers, ends):
        """With `first` and `last` told."""
        after_some = _reached([end for _, end in ends], _consumers, [])
        before_some = _reached([start for start, _ in ends], lambda operation: [t.op for t in operation.inputs])
        for layer, (start, end) in zip(layers, ends, strict=True):
            yield layer, start not in after_some, before_some.isdisjoint(_consumers(end))

    def notes(self):
        counts = collections.Counter(o.type for o in self.operations if o.type in _UNCOUNTED)
        notes = [f"{count} {kind} not counted" for kind, count in sorted(counts.items())]
        inside = self.graph.as_graph_def().library.function if any(_branches(o) for o in self.operations) else ()
        kinds = {*_CONVOLUTIONS, *_DEPTHWISE, *_PRODUCTS, *_OURS}
        hidden = sum(node.op in kinds for function in inside for node in function.node_def)
        return [*notes, f"{hidden} products inside branches or loops not counted"] if hidden else notes


def _consumers(operation):
    return [consumer for output in operation.outputs for consumer in output.consumers()]


def _reached(operations, following, seen=None):
    """What can be reached step by step; with the operations themselves, unless `seen` says where to begin."""
    seen, pending = set(operations if seen is None else seen), list(operations)
    while pending:
        new = [operation for operation in following(pending.pop()) if operation not in seen]
        seen.update(new)
        pending += new
    return seen


def _branches(operation):
    return operation.type in ("If", "StatelessIf", "Case", "StatelessCase", "While", "StatelessWhile")


def _kind_of_1x1(output):
    return "dense" if output[1:3] == (1, 1) else "1x1"


def _nodes(operation):
    """The names of the convolutions that a node is, or stands for."""
    original = _originals.original_of(operation)
    return (operation.name,) if original is None else original.named("DepthwiseConv2dNative", "Conv2D")


def _channels_first(operation):
    return operation.type not in _OURS and operation.get_attr("data_format") == b"NCHW"


def _elements(operation):
    """Of its first output; infinitely many where it has none, or nobody knows."""
    known = operation.outputs[0].shape.num_elements() if operation.outputs else None
    return math.inf if known is None else known


def _one_a_channel(tensor):
    """Whether it is no image: one number, or one per channel, or the same for all pixels."""
    rank = tensor.shape.rank
    if rank is None or rank != 4:
        return rank is not None and rank < 2
    extents = tensor.shape.as_list()
    return extents[1:3] == [1, 1] or extents[2:4] == [1, 1]


def _origin(operation):
    """The name of the variable or constant that a filter is read from."""
    while operation.type in ("Identity", "ReadVariableOp", "Cast", "Reshape", "Transpose") and operation.inputs:
        operation = operation.inputs[0].op
    return operation.name


def _padding_around(input, output, space_to_batch, strides):
    """The padding of an image that is dealt out for its dilation; None where it is neither of both."""
    zeros = tensor_util.constant_value(space_to_batch.inputs[2])
    if zeros is not None and (zeros[:, 0] == 0).all():
        return "VALID"  # what comes after the image fills it up
    same = all(-(-input[1 + i] // strides[i]) == output[1 + i] for i in range(2)) if len(input) == 4 else False
    return "SAME" if same else None


def _named(placed, keras_names):
    """Layers with names: what their nodes' names have in common, without the scope that all lie in."""
    placed = list(placed)
    scopes = [[_scope(node, keras_names) for node in layer.nodes] for layer, *_ in placed]
    common = os.path.commonpath([os.path.dirname(scope) for each in scopes for scope in each] or [""])
    counts, result = collections.Counter(), []
    for (layer, first, last), each in zip(placed, scopes, strict=True):
        short = [scope[len(common) :].lstrip("/") for scope in each]
        name = " + ".join(dict.fromkeys(short))
        counts[name] += 1
        name = name if counts[name] == 1 else f"{name} ({counts[name]})"
        result.append(dataclasses.replace(layer, name=name, first=first, last=last))
    return result


def _scope(node, keras_names):
    """What the node's name says of its layer: without what the op adds."""
    parts, layer = node.split("/"), 1
    for i, part in enumerate(parts[:-1]):
        # Keras opens each layer's scope twice, and TensorFlow numbers what it has seen before.
        name, _, number = part.rpartition("_")
        if number.isdecimal() and name in keras_names:
            parts[i], layer = name, i + 1
    dropped = set()  # a word that comes again is the layer's own name
    while len(parts) > layer and _plain(parts[-1]) in _PLAIN - dropped:
        dropped.add(_plain(parts.pop()))
    return "/".join(parts)


def _plain(word):
    return re.sub(r"_\d+$", "", word)
