"""Concrete functions of changed graphs, and the names of changed functions."""

import tensorflow as tf
from tensorflow.core.protobuf import saved_object_graph_pb2
from tensorflow.python.framework import ops
from tensorflow.python.saved_model import function_deserialization, nested_structure_coder
from tensorflow.python.util import compat

from sepconv._bodies import called, functions_of


def give_new_names(definition, changed: set) -> None:
    """Gives the functions of a GraphDef that were changed, and those that call them, names that no other function of
    the process has: who holds the old ones too could not tell them apart."""
    changed = set(changed)
    while True:
        callers = {f.signature.name for f in definition.library.function if called(f.node_def) & changed}
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


def _rename(nodes, names) -> None:
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for function in functions_of(node):
            function.name = names.get(function.name, function.name)


def library_of(concrete):
    """A GraphDef whose library holds a concrete function, and those that it calls, with all shapes that are known."""
    with tf.Graph().as_default() as graph:
        concrete.add_to_graph(graph)
    return graph.as_graph_def(add_shapes=True)


def like(concrete, definition):
    """A concrete function with the arguments, the results and the variables of another, as that one is in a changed
    `library_of`."""
    name = compat.as_str(concrete.name)
    # Once it was differentiated it has more outputs inside.
    [taken] = [len(f.signature.output_arg) for f in definition.library.function if f.signature.name == name]
    described = _signature(name, concrete.inputs, concrete.outputs[:taken])
    changed = function_deserialization.load_function_def_library(definition.library, described)[name]
    captured = [external for external, _ in concrete.graph.captures]

    def call(*args, **kwargs):
        given = [value for value in tf.nest.flatten((args, kwargs), expand_composites=True) if tf.is_tensor(value)]
        given = [getattr(value, "handle", value) for value in given]  # of a variable
        results = changed._call_flat([*given, *captured], [])
        # `graph.variables` fails once one's Python object is gone; its value lives on in what is captured.
        for variable in (held() for held in concrete.graph._weak_variables):
            if variable is not None:
                tf.compat.v1.get_default_graph().watch_variable(variable)
        results = tf.nest.flatten(results) if results is not None else []
        return _packed(concrete.structured_outputs, results)

    # A function that was made of a graph has none.
    given = len(concrete.inputs) - len(captured)
    args, kwargs = concrete.structured_input_signature or (
        [tf.TensorSpec.from_tensor(t) for t in concrete.inputs[:given]],
        {},
    )
    return tf.function(call, autograph=False).get_concrete_function(*args, **kwargs)


def _signature(name, inputs, outputs):
    """A function's tensors, as TensorFlow's loader of functions is told of them."""
    objects = saved_object_graph_pb2.SavedObjectGraph()
    described = objects.concrete_functions[name]
    inputs = tuple(tf.TensorSpec(t.shape, t.dtype, f"input_{n}") for n, t in enumerate(inputs))
    outputs = [tf.TensorSpec(t.shape, t.dtype) for t in outputs]
    encode = nested_structure_coder.encode_structure
    described.canonicalized_input_signature.CopyFrom(encode((inputs, {})))
    described.output_signature.CopyFrom(encode(outputs))
    return objects


def _packed(structure, results):
    """Results in the place of the tensors of a structure; what is none there stays."""
    rest = iter(results)
    flat = tf.nest.flatten(structure, expand_composites=True)
    is_result = [tf.is_tensor(value) or isinstance(value, tf.TypeSpec) for value in flat]
    packed = [next(rest) if known else value for value, known in zip(flat, is_result, strict=True)]
    return tf.nest.pack_sequence_as(structure, packed, expand_composites=True)
