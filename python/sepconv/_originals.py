"""What `rewrite` put the op in the place of, kept with it: `restore` puts just that back, under the same names, and
`inspect` calls layers after it. TensorFlow hands on attributes whose names begin with an underscore, wherever it saves,
loads, imports or inlines a graph.
"""

import dataclasses

import tensorflow as tf

_ATTRIBUTE = "_sepconv_original"
_INPUT = "sepconv_input_"
# Names of other nodes, of what only a gradient needs, and what is inferred.
_DROPPED = "_class", "_gradient_op_type", "_output_shapes"


def keep(node, last: tf.Tensor, given, passed) -> None:
    """Writes into a node of the op what computed a tensor.

    Args:
        node: A NodeDef.
        last: The tensor.
        given: What the op takes besides its geometry, in this order. Where that is None, and in front of the others, it
            is numbers or extents: the operations that make them are kept too.
        passed: Operations that are left out, each with the tensor that stands for what it gives.
    """
    names = {tensor.name: f"{_INPUT}{n}" for n, tensor in reversed([*enumerate(given)]) if tensor is not None}
    kept = tf.compat.v1.GraphDef()
    for n in range(len(given)):
        kept.node.add(name=f"{_INPUT}{n}", op="Placeholder").attr["dtype"].type = node.attr["T"].type

    def reference(tensor) -> str:
        while tensor.op in passed:
            tensor = passed[tensor.op]
        if tensor.name in names:
            return names[tensor.name]
        waiting.append(tensor.op)
        return tensor.name

    waiting, seen = [], set()
    result = reference(last)
    while waiting:
        op = waiting.pop()
        if op in seen:
            continue
        seen.add(op)
        copy = kept.node.add()
        copy.CopyFrom(op.node_def)
        copy.device = ""
        copy.input[:] = [reference(tensor) for tensor in op.inputs]
        for dropped in _DROPPED:
            copy.attr.pop(dropped, None)
    node.attr[_ATTRIBUTE].list.s.extend([node.name.encode(), result.encode(), kept.SerializeToString()])


@dataclasses.dataclass(frozen=True)
class Original:
    """What an op stands for.

    Attributes:
        scope: What was put in front of the op's name since, and belongs in front of these nodes' too.
        result: The name of the tensor that the op gives.
        graph: The nodes, and a placeholder for each of the op's inputs besides its geometry; for a normalisation's, one
            for each of its operands.
    """

    scope: str
    result: str
    graph: tf.compat.v1.GraphDef

    @property
    def count(self) -> int:
        """Of the placeholders."""
        return sum(node.name.startswith(_INPUT) for node in self.graph.node)

    @property
    def normalises(self) -> bool:
        return any(node.op.startswith("FusedBatchNorm") for node in self.graph.node)

    def named(self, *types) -> tuple:
        """The names of the nodes of these types, one type after the other."""
        return tuple(self.scope + node.name for type in types for node in self.graph.node if node.op == type)

    def run(self, name: str):
        """A function of the inputs, whose operations have this scope."""

        def run(*inputs):
            given = {f"{_INPUT}{n}": input for n, input in enumerate(inputs)}
            return tf.graph_util.import_graph_def(self.graph, given, [self.result], name=name)[0]

        return run


def original_of(op: tf.Operation) -> Original | None:
    """Of an op that `rewrite` put into a graph; None of any other."""
    if _ATTRIBUTE not in op.node_def.attr:
        return None
    name, result, graph = op.get_attr(_ATTRIBUTE)
    scope = op.name.removesuffix(name.decode()) if op.name.endswith(name.decode()) else f"{op.name}/"
    return Original(scope, result.decode(), tf.compat.v1.GraphDef.FromString(graph))
