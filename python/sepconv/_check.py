"""Runs two models on the same inputs, each in a process of its own, and compares the bits of what they give."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile
import zlib

import numpy as np
import tensorflow as tf

from sepconv import _bits, _files
from sepconv._bodies import BadModel
from sepconv._command import one_line

# For extents that the model leaves open. Batches of one image and of several are different things to TensorFlow.
_BATCHES = 1, 2
_EXTENT = 64


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of both models: of so many `elements` that many are `equal`, and whether all is the `same`, shapes and
    dtypes too. Or a signature that was not run, of which `same` is None, and the `reason`."""

    name: str
    elements: int
    equal: int
    same: bool | None
    reason: str = ""


def check(original: pathlib.Path, other: pathlib.Path, inputs: pathlib.Path | None, seed: int) -> list:
    """A list of `Output`s.

    Args:
        original, other: Paths of models, whose signatures are the same.
        inputs: Of an npz file with an array for each input, by its name or `signature/name`; None: random numbers.
            Signatures that it does not have arrays for are not run, nor those that no random numbers fit.
        seed: Of these.

    Raises:
        BadModel: No signature can be run, or one of the other model cannot that the original's can.
    """
    with tempfile.TemporaryDirectory() as folder:
        places = [pathlib.Path(folder, f"{n}.npz") for n in range(2)]
        running = [_start(model, inputs, seed, to) for model, to in zip((original, other), places, strict=True)]
        try:
            results = [_finish(*each) for each in running]
        finally:
            for process, *_ in running:
                process.kill()
    (arrays, idle), (others, idle_there) = results
    found = [Output(name, 0, 0, None, reason) for name, reason in idle.items()]
    for name in idle_there.keys() - idle:
        raise BadModel(f"{other}: cannot be run: {name}: {idle_there[name]}")
    for name, array in arrays.items():
        again = others.get(name)
        alike = again is not None and again.shape == array.shape and again.dtype == array.dtype
        equal = _bits.equal(array, again) if alike else 0
        found.append(Output(name, array.size, equal, alike and equal == array.size))
    return found


def arrays_of(inputs: pathlib.Path) -> dict:
    """The arrays of an npz file by their names."""
    if not inputs.is_file():
        raise BadModel(f"--inputs {inputs}: no such file")
    if not zipfile.is_zipfile(inputs):
        raise BadModel(f"--inputs {inputs}: is no npz file")
    try:
        with np.load(inputs) as arrays:
            return dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BadModel(f"--inputs {inputs}: cannot be read: {one_line(error)}") from error


def check_names(inputs: pathlib.Path, given, model: pathlib.Path) -> None:
    """Before any work is done: whether the names of the arrays given are those that a model takes.

    Raises:
        BadModel: Those of no signature are all there, or not all of one that some are given for by its name.
    """
    signatures = _files.inputs_of(model)
    lacking = {
        signature: [name for name in names if _key(signature, name, given) is None]
        for signature, names in signatures.items()
    }
    wanted = [signature for signature in signatures if _is_asked_for(signature, given)]
    if any(lacking[signature] for signature in wanted) or signatures and all(lacking.values()):
        takes = ", ".join("/".join(filter(None, (name, input))) for name in signatures for input in signatures[name])
        has = ", ".join(sorted(given)) or "none"
        raise BadModel(f"--inputs {inputs}: has the arrays {has}, and {model} takes {takes}")


def _is_asked_for(signature, given) -> bool:
    return any(key.startswith(f"{signature}/") for key in given)


def _key(signature, name, given) -> str | None:
    """Under which of these names the array of an input is given."""
    return next((key for key in (f"{signature}/{name}", name) if key in given), None)


def _start(model, inputs, seed, results):
    threads = str(tf.config.threading.get_intra_op_parallelism_threads())
    command = [sys.executable, "-m", "sepconv._check", *map(str, (model, inputs or "", seed, results, threads))]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment, text=True, **pipes), model, results


def _finish(process, model, results) -> tuple:
    """Arrays by the outputs' names, and by the names of signatures that were not run, why."""
    output, _ = process.communicate()
    said = [line.removeprefix(_SAYS) for line in output.splitlines() if line.startswith(_SAYS)]
    if process.returncode:
        reason = said[-1] if said else f"its process ended with status {process.returncode}"
        raise BadModel(f"{model}: cannot be run: {reason}")
    with np.load(results) as arrays:
        return dict(arrays), json.loads(said[-1])


_SAYS = "sepconv: "


def _main():
    model, inputs, seed, results, threads = sys.argv[1:]
    tf.config.threading.set_intra_op_parallelism_threads(int(threads))
    try:
        given = None
        if inputs:
            given = arrays_of(pathlib.Path(inputs))
        outputs, idle = {}, {}
        for signature, (specs, function) in _signatures(pathlib.Path(model)).items():
            batches = _BATCHES if given is None and _open(specs) else _BATCHES[:1]
            for batch in batches:
                where = f" (batch {batch})" if len(batches) > 1 else ""
                try:
                    found = function(_feeds(signature, specs, given, int(seed), batch))
                    found = {name: _plain(tensor.numpy()) for name, tensor in found.items()}
                except Exception as error:  # whatever a model raises
                    if _is_asked_for(signature, given or ()):
                        raise  # it was asked for
                    idle[(signature + where).strip()] = one_line(error)
                    continue
                outputs |= {"/".join(filter(None, (signature, name))) + where: found[name] for name in found}
        if not outputs:
            raise BadModel("; ".join(dict.fromkeys(idle.values())) or "it has no signature with outputs")
        np.savez(results, **outputs)
        print(_SAYS + json.dumps(idle))
    except Exception as error:  # the parent says it
        print(_SAYS + one_line(error))
        sys.exit(1)


def _plain(array):
    """As numpy's files can hold it."""
    if array.dtype.kind == "O":
        return np.asarray(array.tolist())
    return _bits.bits(array) if array.dtype.kind == "V" else array


def _open(specs) -> bool:
    return any(spec.shape.rank and spec.shape[0] is None for spec in specs.values())


def _feeds(signature, specs, given, seed, batch) -> dict:
    rng, feeds = np.random.default_rng([seed, batch]), {}
    for name, spec in sorted(specs.items()):
        if given is None:
            feeds[name] = _random(rng, name, spec, batch)
            continue
        key = _key(signature, name, given)
        if key is None:
            raise BadModel(f"the file of inputs has no array {name}, only {', '.join(sorted(given))}")
        feeds[name] = tf.constant(given[key], spec.dtype)
    return feeds


def _random(rng, name, spec, batch):
    if spec.shape.rank is None or not (spec.dtype.is_floating or spec.dtype.is_integer or spec.dtype.is_bool):
        raise BadModel(
            f"no random numbers fit the input {name} ({spec.dtype.name}, {spec.shape}): give some (--inputs)"
        )
    shape = [_EXTENT if extent is None else extent for extent in spec.shape]
    if shape and spec.shape[0] is None:
        shape[0] = batch
    numbers = rng.standard_normal(shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
    return tf.cast(tf.constant(numbers), spec.dtype)


def _signatures(model) -> dict:
    """By name, the inputs' specs and a function of a dictionary of inputs that gives one of outputs."""
    if model.is_dir():
        loaded = tf.saved_model.load(str(model))
        _signatures.loaded = loaded  # its variables go with it
        return {
            name: (function.structured_input_signature[1], lambda feeds, function=function: function(**feeds))
            for name, function in loaded.signatures.items()
        }
    return {"": _graph_function(_files.graph_of(model))}


def _graph_function(definition):
    """Placeholders in, what no node takes out."""
    imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    operations = imported.graph.get_operations()
    inputs = [op.outputs[0] for op in operations if op.type == "Placeholder"]
    outputs = [
        tensor
        for op in operations
        if op.type not in ("Const", "Placeholder") and not any(output.consumers() for output in op.outputs)
        for tensor in op.outputs
    ]
    function = imported.prune(inputs, outputs)
    names = [tensor.op.name for tensor in inputs]

    def call(feeds):
        results = function(*[feeds[name] for name in names])
        return dict(zip((tensor.name for tensor in outputs), results, strict=True))

    return {tensor.op.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs}, call


if __name__ == "__main__":
    _main()
