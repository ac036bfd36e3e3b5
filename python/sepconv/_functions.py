"""Concrete functions of changed graphs, and the names of changed functions."""

import tensorflow as tf
from tensorflow.python.framework import ops


def give_new_names(definition, changed: set) -> None:
    """Gives the functions of a GraphDef that were changed, and those that call them, names that no other function of
    the process has: who holds the old ones too could not tell them apart."""
    changed = set(changed)
    while True:
        callers = {f.signature.name for f in definition.library.function if _called(f.node_def) & changed}
        if callers <= changed:
            break
        changed |= callers
    names = {name: f"{name}_sepconv_{ops.uid()}" for name in changed}
    if not names:
        return
    for function in definition.library.function:
        function.signature.name = names.get(function.signature.name, function.signature.name)
        _rename(function.node_def, names)
    for gradient in definition.library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    _rename(definition.node, names)


def _functions_of(node):
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func
        yield from value.list.func


def _called(nodes) -> set:
    return {node.op for node in nodes} | {function.name for node in nodes for function in _functions_of(node)}


def _rename(nodes, names) -> None:
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for function in _functions_of(node):
            function.name = names.get(function.name, function.name)


def like(concrete, definition):
    """A concrete function of a changed graph, with the arguments, the results and the variables of another."""
    captures = {internal.op.name: external for external, internal in concrete.graph.captures}
    arguments = [tensor.op.name for tensor in concrete.inputs if tensor.op.name not in captures]
    inner = tf.compat.v1.GraphDef(versions=definition.versions, library=definition.library)
    inner.node.extend(node for node in definition.node if node.name not in {*captures, *arguments})

    def call(*args, **kwargs):
        graph = tf.compat.v1.get_default_graph()
        given = [value for value in tf.nest.flatten((args, kwargs), expand_composites=True) if tf.is_tensor(value)]
        mapped = dict(zip((f"{name}:0" for name in arguments), given, strict=True))
        mapped |= {f"{name}:0": graph.capture(external) for name, external in captures.items()}
        outputs = [tensor.name for tensor in concrete.outputs]
        results = tf.graph_util.import_graph_def(inner, mapped, outputs, name="")
        for variable in concrete.graph.variables:
            graph.watch_variable(variable)
        return _packed(concrete.structured_outputs, concrete.outputs, results)

    args, kwargs = concrete.structured_input_signature
    return tf.function(call, autograph=False).get_concrete_function(*args, **kwargs)


def _packed(structure, tensors, results):
    """Results in the place of the tensors of a structure; what is none there stays."""
    rest = iter(results)
    flat = tf.nest.flatten(structure, expand_composites=True)
    is_result = [tf.is_tensor(value) or isinstance(value, tf.TypeSpec) for value in flat]
    if sum(is_result) != len(tensors):
        return list(results)
    packed = [next(rest) if known else value for value, known in zip(flat, is_result, strict=True)]
    return tf.nest.pack_sequence_as(structure, packed, expand_composites=True)
