"""The bodies of a model, which are its graph and its functions: each as a `tf.Graph` to look at, with every shape that
TensorFlow infers, and as the nodes that stand in the model, to change.
"""

import functools

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorflow.python.framework import function_def_to_graph, tensor_util

from sepconv._command import BadInput, one_line


class BadModel(BadInput):
    """What was given cannot be read, or its result not written; the message is one line."""


class Body:
    """A graph, or a function of its library.

    Attributes:
        function: The function's name; "" for the graph.
        nodes: The nodes, as the model has them.
        compiled: Whether XLA compiles it.
    """

    def __init__(self, definition, function, kept=(), compiled=False):
        self._definition, self._function, self._kept = definition, function, kept
        self.compiled = compiled
        self.function = "" if function is None else function.signature.name
        self.nodes = definition.node if function is None else function.node_def

    @functools.cached_property
    def graph(self) -> tf.Graph:
        return read(self._definition, self._function)

    @property
    def stays(self) -> bool:
        """Whether it is a function that TensorFlow calls, and does not put in the place of its calls."""
        return self._function is not None and "_noinline" in self._function.attr and self._function.attr["_noinline"].b

    @functools.cached_property
    def kept(self) -> set:
        """Names of the tensors that are taken from outside."""
        if self._function is None:
            return set(self._kept)
        return {tensor.name for tensor in self.graph.outputs} | {f"{op.name}:0" for op in self.graph.control_outputs}

    def edit(self) -> "Edit":
        return Edit(self.nodes, self._function, self.kept)


def read(definition, function=None) -> tf.Graph:
    """A GraphDef's graph, or that of a function of its library.

    Raises:
        BadModel: There is none.
    """
    graph = tf.Graph()
    try:
        with graph.as_default():
            if function is None:
                tf.graph_util.import_graph_def(definition, name="")
                return graph
            library = tf.compat.v1.GraphDef(library=definition.library, versions=definition.versions)
            tf.graph_util.import_graph_def(library, name="")
            return function_def_to_graph.function_def_to_graph(function, include_library_functions=True)
    except (ValueError, KeyError, tf.errors.OpError) as error:
        where = "graph" if function is None else f"function {function.signature.name}"
        raise BadModel(f"TensorFlow cannot read the {where}: {one_line(error)}") from error


class Edit:
    """Changes nodes in place: of a graph, or of a function whose references to tensors name the output as well."""

    def __init__(self, nodes, function=None, kept=()):
        self._nodes, self._function, self._kept = nodes, function, set(map(_node_of, kept))
        self.by_name = {node.name: node for node in nodes}
        self._loops, self._new = any(node.op == "Enter" for node in nodes), []

    def tensor(self, node: str, output: str) -> str:
        """How an input says that it takes the one tensor that some node gives."""
        return f"{node}:{output}:0" if self._function is not None else node

    def node(self, input: str) -> node_def_pb2.NodeDef | None:
        """The node that an input takes something of; None if that is an argument."""
        return self.by_name.get(_node_of(input))

    def new(self, name: str, op: str, inputs=()) -> node_def_pb2.NodeDef:
        """Adds a node; its name is the given one, or that with a number."""
        taken, number = name, 0
        arguments = () if self._function is None else [a.name for a in self._function.signature.input_arg]
        while taken in self.by_name or taken in arguments:
            number += 1
            taken = f"{name}_{number}"
        node = self._nodes.add(name=taken, op=op, input=inputs)
        self.by_name[taken] = node
        self._new.append(taken)
        return node

    def constant(self, name: str, value) -> str:
        """Adds a constant; gives how an input takes it."""
        return self._constant(name, tensor_util.make_tensor_proto(value))

    def nothing(self, name: str, shape) -> str:
        """The same of an integer tensor without elements, however large its extents."""
        dims = [tensor_shape_pb2.TensorShapeProto.Dim(size=extent) for extent in shape]
        shape = tensor_shape_pb2.TensorShapeProto(dim=dims)
        return self._constant(name, tensor_pb2.TensorProto(dtype=types_pb2.DT_INT32, tensor_shape=shape))

    def _constant(self, name, tensor) -> str:
        node = self.new(name, "Const")
        node.attr["dtype"].type = tensor.dtype
        node.attr["value"].tensor.CopyFrom(tensor)
        return self.tensor(node.name, "output")

    def keep_in_frame(self, image: str) -> None:
        """Ties constants that were added since the last call to an image: a loop of TensorFlow 1 could not take them
        otherwise."""
        for node in map(self.by_name.get, self._new):
            if self._loops and node is not None and node.op == "Const":
                node.input.append(f"^{_node_of(image)}")
        self._new = []

    def rename(self, node: str, output: str, new: str) -> None:
        """Tells whoever takes a node's output that it has another name; in a graph it has none."""
        if self._function is None or output == new:
            return
        old, new = f"{node}:{output}:0", f"{node}:{new}:0"
        for taker in self._nodes:
            taker.input[:] = [new if input == old else input for input in taker.input]
        for key, tensor in self._function.ret.items():
            if tensor == old:
                self._function.ret[key] = new

    def remove(self, names, unused) -> None:
        """Removes nodes, and what only computes numbers for inputs that are `unused` now, or theirs."""
        names, candidates, gone = set(names), set(map(_node_of, unused)), set()
        while names or candidates:
            gone |= {f"loc:@{name}".encode() for name in names}
            for name in names:
                candidates.update(map(_node_of, self.by_name.pop(name).input))
            for n in reversed([n for n, node in enumerate(self._nodes) if node.name in names]):
                del self._nodes[n]
            taken = {_node_of(input) for node in self._nodes for input in node.input}
            idle = [name for name in candidates - taken - self._kept if name in self.by_name]
            names, candidates = {name for name in idle if self.by_name[name].op in _NUMBERS}, set()
        for node in self._nodes:
            if "_class" in node.attr and gone.intersection(node.attr["_class"].list.s):
                node.attr["_class"].list.s[:] = [place for place in node.attr["_class"].list.s if place not in gone]


# What only computes how much is padded, and numbers of steps.
_NUMBERS = {
    *("Add", "AddV2", "Cast", "ConcatV2", "Const", "DivNoNan", "FloorMod", "Identity", "Mul", "Neg", "Pack", "Reshape"),
    *("Rsqrt", "Shape", "ShapeN", "Slice", "Sqrt", "StridedSlice", "Sub"),
}


def _node_of(input: str) -> str:
    return input.lstrip("^").split(":")[0]


def bodies(definition, types: set, kept=()) -> list:
    """The graph, if it holds an operation of these types, and the functions of its library that do.

    Args:
        definition: A GraphDef.
        types: Of operations.
        kept: Names of the graph's tensors that somebody takes besides its nodes.
    """
    found = [Body(definition, None, kept)] if any(node.op in types for node in definition.node) else []
    compiled = _compiled(definition)
    for function in definition.library.function:
        if any(node.op in types for node in function.node_def):
            found.append(Body(definition, function, compiled=function.signature.name in compiled))
    return found


def count_of(definition, types: set) -> int:
    """How many operations of these types the graph and its functions hold."""
    functions = [function.node_def for function in definition.library.function]
    return sum(node.op in types for nodes in (definition.node, *functions) for node in nodes)


def called(nodes) -> set:
    """Names of all functions that some nodes call, or hand on; and the types of the nodes, which may be such."""
    return {node.op for node in nodes} | {function.name for node in nodes for function in functions_of(node)}


def functions_of(node):
    """The functions that its attributes name."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func
        yield from value.list.func


_COMPILED = "_XlaMustCompile"


def _compiled(definition) -> set:
    """Names of the functions that are compiled by XLA, and of all that these call."""
    functions = {function.signature.name: function for function in definition.library.function}
    nodes = [*definition.node, *[node for function in functions.values() for node in function.node_def]]
    waiting = {name for name, f in functions.items() if _COMPILED in f.attr and f.attr[_COMPILED].b}
    waiting |= called(node for node in nodes if _COMPILED in node.attr and node.attr[_COMPILED].b)
    compiled = set()
    while waiting:
        compiled |= waiting
        waiting = set().union(*[called(functions[name].node_def) for name in waiting if name in functions]) - compiled
    return compiled & set(functions)
