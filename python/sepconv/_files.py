"""Models in files: SavedModels, whose variables, assets and signatures stay as they are, and single GraphDefs. What is
written appears under its name when it is whole.
"""

import contextlib
import os
import pathlib
import shutil
import stat
import tempfile

import tensorflow as tf
from google.protobuf import message, text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import meta_graph

from sepconv import _functions
from sepconv._bodies import BadModel
from sepconv._command import one_line
from sepconv._report import Report

_SAVED, _SAVED_TEXT, _FINGERPRINT = "saved_model.pb", "saved_model.pbtxt", "fingerprint.pb"
_TEXT = ".pbtxt", ".txt"


def transform(path: pathlib.Path, output: pathlib.Path, overwrite: bool, change) -> Report:
    """Writes a model as `change` leaves it.

    Args:
        path, output: The model's and the result's.
        overwrite: Whether there may be something at `output`.
        change: Called with a GraphDef and the names of the tensors that are taken from outside; changes it in place,
            and gives a report and a set of the names of changed functions.
    """
    if not path.exists():
        raise BadModel(f"{path}: no such file or folder")
    source, target = path.resolve(), output.resolve()
    if source != target and path.is_dir() and target.is_relative_to(source):
        raise BadModel(f"{output}: lies within the model {path}")
    if source != target and source.is_relative_to(target):
        raise BadModel(f"{output}: holds the model {path}, which would be gone with it")
    with _written(output, overwrite, path.is_dir()) as place:
        return (_saved_model if path.is_dir() else _graph)(path, place, change)


@contextlib.contextmanager
def _written(output, overwrite, folder):
    """A place beside the output that takes its name in the end, or is gone."""
    if os.path.lexists(output):
        _refuse_to_replace(output, overwrite, folder)
    try:
        whole = pathlib.Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise BadModel(f"{output}: cannot be written: {error.strerror}") from error
    try:
        new, old = whole / "new", whole / "old"
        if folder:
            new.mkdir()
        yield new
        _exchange(new, output, old)
    except shutil.Error as error:  # of many files at once, each with its reason as a text
        source, _, why = error.args[0][0]
        why = why.partition("] ")[2].partition(":")[0] or why
        raise BadModel(f"{source}: cannot be copied to {output}: {why}") from error
    except OSError as error:
        raise BadModel(f"{output}: cannot be written: {error.strerror or error}") from error
    finally:
        if os.path.lexists(output) or not os.path.lexists(old):  # what was there is never lost
            shutil.rmtree(whole, ignore_errors=True)


def _refuse_to_replace(output, overwrite, folder):
    """Unless it may be, and is of the kind that takes its place: a folder could be anything of the user's."""
    if not overwrite:
        raise BadModel(f"{output}: is there already (--overwrite replaces it)")
    if output.is_dir() != folder:
        kinds = ("a file", "a folder") if folder else ("a folder", "a file")
        raise BadModel("{}: is {}, and what is written would be {}".format(output, *kinds))
    if folder and not any((output / name).exists() for name in (_SAVED, _SAVED_TEXT)):
        raise BadModel(f"{output}: is a folder without {_SAVED}, and only a model is replaced")


def _exchange(new, output, old):
    """Gives the new one the output's name, and puts aside what has it; or leaves that where it is."""
    try:
        if os.path.lexists(output):
            output.rename(old)
        new.rename(output)
    except BaseException:
        if os.path.lexists(old):
            old.rename(output)
        raise


def graph_of(path: pathlib.Path):
    """The GraphDef of a file that holds one, in binary or as text."""
    return _read(path)[0]


def inputs_of(path: pathlib.Path) -> dict:
    """The names of the inputs of a SavedModel's signatures, by these; of a file's graph, those of its placeholders
    under "". The model is not loaded."""
    if not path.is_dir():
        return {"": [node.name for node in graph_of(path).node if node.op == "Placeholder"]}
    model = _read_saved_model(path)
    signatures = {name: s for graph in model.meta_graphs for name, s in graph.signature_def.items()}
    # TensorFlow's loader has signatures of its own.
    return {name: sorted(s.inputs) for name, s in sorted(signatures.items()) if not name.startswith("__saved_model_")}


def _read(path) -> tuple:
    """The same, and the file's bytes: a pipe gives them once."""
    if hint := _HINTS.get(path.name, _HINTS.get(path.suffix)):
        raise BadModel(f"{path}: holds no GraphDef: {hint}")
    content = _content(path)
    definition = _parsed(path, content, tf.compat.v1.GraphDef(), path.suffix in _TEXT)
    if not definition.node:
        raise BadModel(f"{path}: holds no GraphDef")
    return definition, content


EXPORTED = "a Keras model is exported first: model.export(folder)"
_HINTS = {
    **{_SAVED: "of a SavedModel the folder is given", ".keras": EXPORTED, ".h5": EXPORTED},
    ".tflite": "a LiteRT model has no graph of TensorFlow's",
}


def _graph(path, place, change) -> Report:
    definition, content = _read(path)
    report, functions = change(definition)
    if not report.replaced:
        place.write_bytes(content)
        return report
    _functions.give_new_names(definition, functions)
    text = path.suffix in _TEXT
    place.write_bytes(text_format.MessageToString(definition).encode() if text else _serialized(definition))
    return report


def _read_saved_model(path) -> saved_model_pb2.SavedModel:
    text = not (path / _SAVED).exists()
    if text and not (path / _SAVED_TEXT).exists():
        raise BadModel(f"{path}: holds no {_SAVED}, so it is no SavedModel")
    file = path / (_SAVED_TEXT if text else _SAVED)
    model = _parsed(file, _content(file), saved_model_pb2.SavedModel(), text)
    if not model.meta_graphs:
        raise BadModel(f"{path}: its {_SAVED} holds no graph")
    return model


def _saved_model(path, place, change) -> Report:
    model, report = _read_saved_model(path), Report()
    for graph in model.meta_graphs:
        found, _ = change(graph.graph_def, _kept(graph))
        report += found
        _mend_captures(graph)
        if found.replaced and graph.meta_info_def.HasField("stripped_op_list"):
            operations = meta_graph.stripped_op_list_for_graph(graph.graph_def)
            graph.meta_info_def.stripped_op_list.CopyFrom(operations)
    changed = {_SAVED, _SAVED_TEXT, _FINGERPRINT} if report.replaced else set()

    def ignored(folder, names):
        return changed.intersection(names) if pathlib.Path(folder) == path else ()

    try:
        shutil.copytree(path, place, ignore=ignored, dirs_exist_ok=True)
    finally:
        _for_their_owner(place)
    if report.replaced:
        (place / _SAVED).write_bytes(_serialized(model))
        if (path / _FINGERPRINT).exists():
            _write_fingerprint(place)
    return report


def _for_their_owner(place) -> None:
    """Makes folders writable that are copies of such as are not: nothing could be put into them, nor could they be
    renamed or removed."""
    for folder, *_ in os.walk(place):
        os.chmod(folder, os.stat(folder).st_mode | stat.S_IRWXU)


def _kept(graph) -> list:
    """Names of the tensors that signatures and collections speak of."""
    names = []
    for signature in graph.signature_def.values():
        for tensor in [*signature.inputs.values(), *signature.outputs.values()]:
            names.append(tensor.name)
    for collection in graph.collection_def.values():
        names += collection.node_list.value
    return [name if ":" in name else f"{name}:0" for name in names if name]


def _mend_captures(graph) -> None:
    """Gives gradients of Keras's own, as of a swish that the op has taken, other tensors in the place of those that are
    gone: the model cannot be loaded otherwise, and nobody takes such a gradient, for its operations are gone too."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    for node in graph.object_graph_def.nodes:
        function = functions.get(node.captured_tensor.concrete_function)
        if node.WhichOneof("kind") != "captured_tensor" or function is None:
            continue
        there = [inner.name for inner in (*function.signature.input_arg, *function.node_def)]
        if node.captured_tensor.name.split(":")[0] not in there:
            node.captured_tensor.name = f"{there[0]}:0"


def _write_fingerprint(place) -> None:
    """TensorFlow's hashes of the model, where this TensorFlow can make them; they are not needed to load it."""
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        from tensorflow.python.saved_model import fingerprinting_utils

        fingerprinting_utils.write_fingerprint(str(place))


def _content(path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadModel(f"{path}: cannot be read: {error.strerror}") from error


def _parsed(path, content, proto, text):
    try:
        if text:
            text_format.Parse(content.decode(), proto)
        else:
            proto.ParseFromString(content)
    except (message.DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise BadModel(f"{path}: is broken: {one_line(error)}") from error
    return proto


def _serialized(proto) -> bytes:
    try:
        return proto.SerializeToString()
    except (message.EncodeError, ValueError) as error:
        raise BadModel(f"the result is too large for one file: {one_line(error)}") from error
