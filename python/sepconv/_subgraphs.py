"""A part of a graph, cut out so that it can run by itself."""

import hashlib

import tensorflow as tf

from sepconv._bodies import called
from sepconv._functions import give_new_names

# Not functions of their inputs alone, or parts of loops.
_SOURCES = {
    *("Placeholder", "PlaceholderWithDefault", "ReadVariableOp", "VarHandleOp", "Variable", "VariableV2"),
    *("Enter", "Exit", "LoopCond", "Merge", "NextIteration", "Switch"),
}


class Subgraph:
    """What computes some tensors: given operations, what is made of constants, and what is made of an input's shape.

    Attributes:
        definition: A GraphDef, with placeholders where it was cut.
        input: The name of the input's placeholder; None if nothing takes it.
        others: All other tensors that it was cut at, by the names of their placeholders.
        outputs: The names of the tensors.
    """

    def __init__(self, tensors, input: tf.Tensor | None, inside=()):
        self._cut, self._inside = input, set(inside)
        self.outputs = [tensor.name for tensor in tensors]
        self.input, self.others = None, {}
        operations, leaves, waiting = {}, {}, list(tensors)
        while waiting:
            tensor = waiting.pop()
            if tensor is input or not self._holds(tensor):
                leaves.setdefault(tensor.name, tensor)
            elif tensor.op.name not in operations:
                operations[tensor.op.name] = tensor.op
                waiting += tensor.op.inputs
        prefix = "sepconv_leaf_"
        while any(name.startswith(prefix) for name in operations):
            prefix += "_"
        names = {name: f"{prefix}{n}" for n, name in enumerate(leaves)}
        with tf.Graph().as_default() as graph:
            for name, leaf in leaves.items():
                tf.compat.v1.placeholder(leaf.dtype, leaf.shape, names[name])
        self.definition = graph.as_graph_def()
        for op in operations.values():
            node = self.definition.node.add()
            node.CopyFrom(op.node_def)
            node.device = ""
            del node.input[:]
            node.input.extend(names.get(tensor.name, tensor.name) for tensor in op.inputs)
            for other in ("_class", "_gradient_op_type"):  # names of other nodes, and of what only a gradient needs
                node.attr.pop(other, None)
        for name, leaf in leaves.items():
            if leaf is input:
                self.input = names[name]
            else:
                self.others[names[name]] = leaf
        self._take_functions(operations.values())

    def _take_functions(self, operations) -> None:
        """Takes the functions that are called along, under new names: whoever runs several parts of models would find
        one name for two of them."""
        graphs = [op.graph for op in operations if _calls(op)]
        functions = {f.signature.name: f for f in graphs[0].as_graph_def().library.function} if graphs else {}
        wanted, waiting = set(), called(self.definition.node)
        while waiting := (waiting & functions.keys()) - wanted:
            wanted |= waiting
            waiting = set().union(*[called(functions[name].node_def) for name in waiting])
        self.definition.library.function.extend(functions[name] for name in sorted(wanted))
        give_new_names(self.definition, wanted)

    def _holds(self, tensor) -> bool:
        op = tensor.op
        return op in self._inside or constant(op) or tensor.dtype.is_integer and constant(op, self._cut)

    def fingerprint(self) -> bytes:
        """The same for graphs that differ in nothing but the names of their nodes, unless they call functions."""
        names = {node.name: str(n) for n, node in enumerate(self.definition.node)}
        hashed = hashlib.sha256()
        for node in self.definition.node:
            inputs = [f"{names[input.split(':')[0]]}:{input.partition(':')[2] or 0}" for input in node.input]
            hashed.update(f"{node.op} {inputs}".encode())
            for key in sorted(node.attr):
                hashed.update(key.encode() + node.attr[key].SerializeToString(deterministic=True))
        return hashed.digest()

    def function(self):
        """A function of the input, if anything takes it, which gives all tensors."""
        imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(self.definition, name=""), [])
        tensor = imported.graph.get_tensor_by_name
        feeds = [] if self.input is None else [tensor(f"{self.input}:0")]
        return imported.prune(feeds, [tensor(name) for name in self.outputs])


def stays(tensor: tf.Tensor) -> bool:
    """Whether nobody changes it in its place while an op holds it: a constant, or what is read from a resource
    variable, whose next value is then put elsewhere (TensorFlow's `InplaceUpdate` and its like ask nobody)."""
    op = tensor.op
    while op.type == "Identity":
        op = op.inputs[0].op
    return op.type in ("Const", "ReadVariableOp")


def opaque(op: tf.Operation) -> bool:
    """Whether it is more than a function of its inputs that TensorFlow's optimiser looks into."""
    return op.type in _SOURCES or op.op_def.is_stateful or _calls(op)


def _calls(op: tf.Operation) -> bool:
    """Whether it calls functions, or is named after one."""
    kinds = {attribute.type for attribute in op.op_def.attr}
    return not kinds.isdisjoint({"func", "list(func)"}) or op.graph._is_function(op.type)


def made_of(tensor: tf.Tensor, inside, input: tf.Tensor) -> dict | None:
    """The operations that make a tensor of what others give and of one more tensor, or of constants, as keys; None if
    it takes anything else to make it."""
    found, waiting = {}, [tensor]
    while waiting:
        tensor = waiting.pop()
        op = tensor.op
        if tensor is input or op in inside or op in found or constant(op):
            continue
        if opaque(op):
            return None
        found[op] = None
        waiting += op.inputs
    return found


def constant(op: tf.Operation, besides: tf.Tensor | None = None) -> bool:
    """Whether what an operation gives is made of constants alone; and of one more tensor, if it is given."""
    seen, waiting = set(), [op]
    while waiting:
        op = waiting.pop()
        if op.type in _SOURCES or op.op_def.is_stateful:
            return False
        seen.add(op)
        waiting += [tensor.op for tensor in op.inputs if tensor is not besides and tensor.op not in seen]
    return True
