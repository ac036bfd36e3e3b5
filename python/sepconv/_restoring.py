"""TensorFlow's own operations in the place of the op: in every model that holds it, rewritten or built with it."""

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph, op_def_registry

from sepconv import _composite, _library, _originals, _steps
from sepconv._bodies import Body
from sepconv._report import Layer

TYPES = {_library.op_name(), _library.FUSED, _library.DEPTHWISE, _library.POINTWISE}


def restore_body(body: Body, progress) -> list:
    """Puts them into a graph or function; a list of `Layer`s."""
    layers, edit = [], body.edit()
    for op in [op for op in body.graph.get_operations() if op.type in TYPES]:
        described = {"node": op.name, "function": body.function}
        try:
            call = _attributes(op)
            _put(edit, op, body.function != "")
            layers.append(Layer(replaced=True, reason="TensorFlow's own operations", **described, **call))
        except _composite.UnknownCall as unknown:
            layers.append(Layer(replaced=False, reason=str(unknown), **described))
        progress(op.name)
    return layers


def _attributes(op) -> dict:
    """What the layer computes, by the names of `Layer`."""
    place = _composite.geometry_of(op)
    names = [f"{part}_filter" for part in _composite.parts_of(op)]
    image, *filters = [(tuple(t.shape.as_list()) if t.shape.rank == 4 else (None,) * 4) for t in op.inputs[:place]]
    known = all(None not in shape for shape in (image, *filters))
    return {
        **{"input": image, **dict(zip(names, filters, strict=True))},
        **{"dtype": op.inputs[0].dtype.name, **_composite.call_of(op)},
        **{f"{part}_steps": text for part, text in _composite.steps_of(op).items()},
        **{"numerics": op.get_attr("numerics").decode(), "exact": known},
    }


def _put(edit, op, in_function):
    place = _composite.geometry_of(op)
    names = ["input", *(f"{part}_filter" for part in _composite.parts_of(op))]
    node = edit.by_name[op.name]
    tensors = [input for input in node.input if input[0] != "^"]
    controls, (geometry, *numbers) = list(node.input[len(tensors) :]), tensors[place:]
    given = [(input, tensor.shape) for input, tensor in zip(tensors, op.inputs[:place], strict=False)]
    left = [(input, tensor.shape) for input, tensor in zip(numbers, op.inputs[place + 1 :], strict=True)]
    steps, plain = {}, [*given, *left]
    for part, text in _composite.steps_of(op).items():
        steps[part], taken, left = _steps.recognised(text, left, edit)
        given += taken
    run, scope, original = _composite.composite(op, steps), f"{op.name}/", _originals.original_of(op)
    # What computed a normalisation's numbers may be gone since, as where variables became constants.
    if original is not None and original.count == len(given if original.normalises else plain):
        run, scope, given = original.run(_composite.NAME), original.scope, given if original.normalises else plain
    names += [f"numbers_{n}" for n in range(len(given) - len(names))]
    specs = [tf.TensorSpec(shape, op.inputs[0].dtype, name) for (_, shape), name in zip(given, names, strict=True)]
    traced = tf.function(run, autograph=False).get_concrete_function(*specs).function_def
    arguments = [argument.name for argument in traced.signature.input_arg]
    nodes = {node.name: node for node in traced.node_def}
    [returned] = traced.ret.values()
    identity = nodes[returned.split(":")[0]]
    last, output, _ = identity.input[0].split(":")
    if not in_function:
        nodes = {node.name: node for node in function_def_to_graph.function_def_to_graph_def(traced)[0].node}
    given = dict(zip(arguments, [input for input, _ in given], strict=True))
    new, waiting = {}, [last]
    while waiting:
        name = waiting.pop()
        if name in new or name in given:
            continue
        # TensorFlow gives the operations of one scope its name.
        theirs = f"{scope}{name.removeprefix(_composite.NAME + '/')}"
        if _is_there(nodes[name], edit.by_name.get(theirs)):
            given[name] = edit.tensor(theirs, "output")
            continue
        new[name] = node if name == last else edit.new(theirs, nodes[name].op)
        waiting += [input.split(":")[0] for input in nodes[name].input]
    shapes = dict(node.attr).get("_output_shapes")
    for name, target in new.items():
        source = nodes[name]
        target.op = source.op
        target.device = node.device
        del target.input[:]
        target.input.extend(_renamed(input, given, new) for input in source.input)
        target.attr.clear()
        for key, value in source.attr.items():
            target.attr[key].CopyFrom(value)
    edit.keep_in_frame(tensors[0])
    edit.rename(node.name, "output", output)
    node.input.extend(controls)
    outputs = op_def_registry.get(node.op).output_arg
    if shapes is not None and len(outputs) == 1 and not outputs[0].type_list_attr:
        node.attr["_output_shapes"].CopyFrom(shapes)
    edit.remove([], [geometry, *numbers])


def _is_there(constant, node) -> bool:
    """Whether a node is this constant: several layers took it."""
    both = constant.op, node and node.op
    return both == ("Const", "Const") and constant.attr["value"] == node.attr["value"]


def _renamed(input, given, new):
    name, _, output = input.partition(":")
    if name in given:
        return given[name]
    return new[name].name if output in ("", "0") else f"{new[name].name}:{output}"
