"""Models of any kind as one flat graph: functions of the library inlined, variables as nodes that know their shapes.

`load` takes a `.keras` or `.h5` file, a SavedModel, a frozen graph, or the name of an architecture of
`keras.applications`. What it gives is for looking at and for TensorFlow's shape inference, not for running: it holds no
values of variables. Whatever is wrong with the input is a `BadInput` of one line.
"""

import dataclasses
import difflib
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def
from tensorflow.python.ops import resource_variable_ops

from sepconv import _files
from sepconv._bodies import BadModel
from sepconv._command import BadInput, one_line, shown

KINDS = "a .keras or .h5 file, a SavedModel's folder, a frozen graph's file, or a name of keras.applications"
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


@dataclasses.dataclass(frozen=True)
class Model:
    """A model's flat graph.

    Attributes:
        name: What the user called it, shortened.
        kind: What it was read from.
        graph_def: Its nodes. Variables are `VarHandleOp` nodes; control edges are gone.
        inputs: Shape of every input by its node's name, batch included; None for what is unknown, the rank too.
        layers: Names of the layers of a Keras model, which its nodes' scopes come from.
    """

    name: str
    kind: str
    graph_def: tf.compat.v1.GraphDef
    inputs: dict[str, tuple | None]
    layers: frozenset = frozenset()

    def graph(self, inputs: dict | None = None) -> tf.Graph:
        """With static shapes, as TensorFlow infers them from those of the inputs, or from other ones.

        Raises:
            BadInput: An op is not registered in this process, or the graph does not take such inputs.
        """
        graph_def = tf.compat.v1.GraphDef()
        graph_def.CopyFrom(self.graph_def)
        inputs = self.inputs | (inputs or {})
        for node in graph_def.node:
            node.attr.pop("_output_shapes", None)  # what held for other inputs
            if node.name in inputs:
                node.attr["shape"].shape.CopyFrom(tf.TensorShape(inputs[node.name]).as_proto())
        graph = tf.Graph()
        try:
            with graph.as_default():
                tf.graph_util.import_graph_def(graph_def, name="")
        except (ValueError, tf.errors.OpError) as error:
            raise BadInput(f"{self.name}: {one_line(error)}") from None
        return graph


def load(model: str, shapes: dict | None = None, signature: str | None = None) -> Model:
    """Loads a model of any kind.

    Args:
        model: A path, or the name of a class or function of `keras.applications`, which is built with random weights.
        shapes: Extents without the batch by the input's name, or by None where there is one input: for what the model
            leaves open. An unknown batch is 1.
        signature: Which of a SavedModel's signatures; None for "serving_default", or the only one.

    Raises:
        BadInput: There is no such thing, it cannot be read, or does not fit the other arguments.

    Example:
        >>> load("MobileNet").inputs
        {'keras_tensor': (1, 224, 224, 3)}
    """
    shapes, path = shapes or {}, Path(model)
    if not path.exists():
        if path.suffix or len(path.parts) > 1:
            raise BadInput(f"MODEL {model}: no such file or folder")
        read, kind = _application, "keras.applications"
    elif path.is_dir() or path.name == "saved_model.pb":
        path, read, kind = path if path.is_dir() else path.parent, _saved_model, "SavedModel"
    elif path.suffix in (".keras", ".h5"):
        read, kind = _keras_file, "Keras file"
    else:
        read, kind = _frozen, "frozen graph"
    if signature is not None and kind != "SavedModel":
        raise BadInput(f"--signature {signature}: only a SavedModel has signatures, and {model} is of kind {kind}")
    name = str(shown(path)) if path.exists() else model
    graph_def, inputs, *layers = read(path, shapes, signature)
    if not graph_def.node:
        raise BadInput(f"MODEL {model}: the graph has no nodes")
    return Model(name, kind, graph_def, _completed(inputs, shapes), *layers)


# One reader of each kind: path, shapes, signature -> graph, shapes of the inputs, of Keras models the layers' names


def _application(path, shapes, _):
    applications = {name: getattr(_keras().applications, name) for name in dir(_keras().applications)}
    known = [name for name, value in applications.items() if name[0].isupper() and callable(value)]
    if path.name not in known:
        names = {name.lower(): name for name in known}
        near = difflib.get_close_matches(path.name.lower(), names, 1, 0.6)
        hint = f": did you mean {names[near[0]]}?" if near else ""
        raise BadInput(f"MODEL {path.name}: no such file or folder, nor an architecture of keras.applications{hint}")
    given = list(shapes.values())[:1]
    try:
        model = applications[path.name](weights=None, **({"input_shape": given[0]} if given else {}))
    except ValueError as error:
        shape = ",".join(map(str, given[0])) if given else ""
        raise BadInput(f"--input-shape {shape}: {path.name}: {one_line(error)}") from None
    return _traced(model, shapes)


def _keras_file(path, shapes, _):
    try:
        model = _keras().models.load_model(path, compile=False)
    except Exception as error:  # whatever the file's layers raise
        raise BadInput(f"MODEL {path}: Keras cannot load it: {one_line(error)}") from None
    return _traced(model, shapes)


def _saved_model(path, _, signature):
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # OSError, errors of TensorFlow, KeyError: nothing is promised
        raise BadInput(f"MODEL {path}: TensorFlow cannot load it: {one_line(error)}") from None
    signatures = dict(getattr(loaded, "signatures", {}))
    if not signatures:
        raise BadInput(f"MODEL {path}: the SavedModel has no signature; save it with one")
    wanted = signature or ("serving_default" if "serving_default" in signatures else None)
    if wanted is None and len(signatures) == 1:
        (wanted,) = signatures
    if wanted not in signatures:
        raise BadInput(f"--signature {wanted or '(none)'}: must be one of {', '.join(sorted(signatures))}")
    return _function(signatures[wanted])


def _frozen(path, *_):
    try:
        graph_def = _flat(_files.graph_of(path))
    except BadModel as error:
        raise BadInput(f"MODEL {error} (must be {KINDS})") from None
    inputs = {node.name: node.attr["shape"].shape for node in graph_def.node if node.op == "Placeholder"}
    return graph_def, {name: _tuple(tf.TensorShape(shape)) for name, shape in inputs.items()}


def _keras():
    try:
        import keras
    except ImportError:
        raise BadInput(f"this MODEL needs Keras 3: pip install keras (without it: {KINDS.split(', ', 1)[1]})") from None
    return keras


def _traced(model, shapes):
    """A Keras model's call, for inference."""
    keras = _keras()
    functional = getattr(model, "_functional", None) or model  # in a Sequential
    try:
        symbolic = functional.input
    except (AttributeError, ValueError):  # a subclass, or not built on known inputs
        if len(shapes) != 1:
            raise BadInput(f"--input-shape: model {model.name} does not say what it takes: give one shape") from None
        symbolic = keras.KerasTensor((None, *next(iter(shapes.values()))), name=next(iter(shapes)) or "input")
    inputs = {tensor.name: tuple(tensor.shape) for tensor in keras.tree.flatten(symbolic)}
    known = _completed(inputs, shapes)

    def spec(tensor):
        return tf.TensorSpec(known[tensor.name], tensor.dtype, tensor.name)

    try:
        function = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
        found = _function(function.get_concrete_function(keras.tree.map_structure(spec, symbolic)))
        return *found, frozenset(layer.name for layer in model._flatten_layers())
    except Exception as error:  # whatever its layers raise
        raise BadInput(f"model {model.name} cannot be traced: {one_line(error)}") from None


def _function(concrete):
    """A concrete function as a flat graph of what its outputs need, and the shapes of its inputs."""
    count, graph_def = len(concrete.inputs) - len(concrete.captured_inputs), concrete.graph.as_graph_def()
    nodes = {node.name: node for node in graph_def.node}
    for placeholder, captured in zip(concrete.inputs[count:], concrete.captured_inputs, strict=True):
        _say_shape(nodes[placeholder.op.name], captured)
    inputs = {tensor.op.name: _tuple(tensor.shape) for tensor in concrete.inputs[:count]}
    return _flat(graph_def, [tensor.name for tensor in concrete.outputs]), inputs


def _say_shape(node, captured) -> None:
    """Makes the placeholder of something captured a node that knows its shape."""
    if node.op != "Placeholder":  # a small constant
        return
    if captured.dtype != tf.resource:
        node.attr["shape"].shape.CopyFrom(captured.shape.as_proto())
        return
    data = resource_variable_ops.get_eager_safe_handle_data(captured)
    if data.is_set and data.shape_and_type:  # a table has no shape
        node.op = "VarHandleOp"
        node.attr.clear()
        node.attr["dtype"].type = data.shape_and_type[0].dtype
        node.attr["shape"].shape.CopyFrom(data.shape_and_type[0].shape)


# Shapes


def _tuple(shape):
    return None if shape.rank is None else tuple(shape.as_list())


def _completed(inputs: dict, shapes: dict) -> dict:
    """The inputs' shapes with what was given put in, and a batch of 1 where it is unknown."""
    result = {name: shape and (shape[0] or 1, *shape[1:]) for name, shape in inputs.items()}
    for name, extents in shapes.items():
        text = f"--input-shape {name + '=' if name else ''}{','.join(map(str, extents))}"
        if name is None and len(inputs) != 1:
            raise BadInput(f"{text}: the model has {len(inputs)} inputs, write NAME=...: {', '.join(inputs)}")
        name = next(iter(inputs)) if name is None else name
        if name not in inputs:
            raise BadInput(f"{text}: the model has no such input, it has {', '.join(inputs) or 'none'}")
        shape = result[name] or (1, *[None] * len(extents))
        if len(shape) != len(extents) + 1 or any(
            known not in (None, extent) for known, extent in zip(shape[1:], extents, strict=True)
        ):
            wanted = ",".join("any" if extent is None else str(extent) for extent in shape[1:])
            raise BadInput(f"{text}: input {name} takes {wanted}")
        result[name] = (shape[0], *extents)
    return result


# Flattening


def _flat(graph_def, outputs=None):
    """With calls of the library's functions replaced by their nodes, and without what the outputs do not need."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    flat, moved, pending = [], {}, list(graph_def.node)[::-1]
    while pending:
        node = pending.pop()
        function = functions.get(node.attr["f"].func.name if node.op in _CALLS else node.op)
        if function is None:
            flat.append(node)
        else:
            nodes, results = _body(node, function, graph_def)
            pending += nodes[::-1]
            moved |= results
    for node in flat:
        inputs = [_resolved(name, moved) for name in node.input if not name.startswith("^")]
        node.ClearField("input")
        node.input.extend(inputs)
    if outputs is not None:
        flat = _needed(flat, [_resolved(name, moved) for name in outputs])
    result = tf.compat.v1.GraphDef(versions=graph_def.versions)
    result.node.extend(flat)
    result.library.CopyFrom(graph_def.library)  # branches and loops still call it
    return result


def _body(call, function, graph_def):
    """A called function's nodes under the call's name, and where each output of the call is to be found."""
    try:
        body, names = function_def_to_graph_def(function)
    except Exception as error:  # of several classes, where an op is not registered
        raise BadInput(f"function {function.signature.name} of the graph: {one_line(error)}") from None
    inputs = [name for name in call.input if not name.startswith("^")]
    arguments = {argument.name: inputs[i] for i, argument in enumerate(function.signature.input_arg)}
    nodes = []
    for node in body.node:
        if node.name in arguments:
            dtype = node.attr["dtype"].type
            node = tf.compat.v1.NodeDef(name=node.name, op="Identity", input=[arguments[node.name]])
            node.attr["T"].type = dtype
        else:
            for i, name in enumerate(node.input):
                node.input[i] = name if name.startswith("^") else f"{call.name}/{name}"
        node.name = f"{call.name}/{node.name}"
        nodes.append(node)
    results = [names[function.ret[output.name]] for output in function.signature.output_arg]
    return nodes, {f"{call.name}:{i}": f"{call.name}/{name}" for i, name in enumerate(results)}


def _resolved(name, moved):
    name = name if ":" in name else f"{name}:0"
    while name in moved:
        name = moved[name]
        name = name if ":" in name else f"{name}:0"
    return name


def _needed(nodes, tensors):
    by_name, needed = {node.name: node for node in nodes}, set()
    pending = [tensor.split(":")[0] for tensor in tensors]
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending += [tensor.split(":")[0] for tensor in by_name[name].input]
    return [node for node in nodes if node.name in needed]
