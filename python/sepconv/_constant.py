"""TensorFlow's two parts with filters that are constants of a graph, in a process where nothing else ran.

With oneDNN, what a function returns depends on what ran before on its thread, so this context is asked in a child
process that only ever runs functions with constant filters. It lives until its parent ends.
"""

import atexit
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import tensorflow as tf

from sepconv import _probes

_lock = threading.Lock()
_child = None


class Constant:
    """The child process, as a probe."""

    def __init__(self, call, geometry):
        self.call, self.geometry = call, geometry

    def depthwise(self, input, filter):
        return _ask("depthwise", self.call, self.geometry, np.array(input), np.array(filter))

    def pointwise(self, pixels, filter):
        return _ask("pointwise", self.call, self.geometry, np.array(pixels), np.array(filter))


def _ask(*question):
    global _child
    with _lock:
        if _child is None or _child.poll() is not None:
            threads = str(tf.config.threading.get_intra_op_parallelism_threads())
            command = [sys.executable, "-m", "sepconv._constant", threads]
            environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
            _child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
            )
            atexit.register(_child.kill)
        try:
            pickle.dump(question, _child.stdin)
            _child.stdin.flush()
            ok, answer = pickle.load(_child.stdout)
        except (OSError, EOFError) as error:
            status = _child.wait()
            _child = None
            raise RuntimeError(f"the process that reveals constant filters ended with status {status}") from error
    if not ok:
        raise RuntimeError(answer)
    return answer


def _answer(part, call, geometry, input, filter):
    filter = np.asarray(filter)

    @tf.function
    def function(input):
        def run(name, inputs, attributes):
            return _raw(name, inputs, attributes)

        if part == "depthwise":
            return _probes.depthwise(run, call, geometry, input, filter)
        return _probes._convolution(run, "Conv2D", call, input, filter)

    return function(tf.constant(input)).numpy()


def _raw(name, inputs, attributes):
    """The op of that name in the graph being built."""
    given = dict(zip(attributes[::2], attributes[1::2], strict=True))
    names = {"SpaceToBatchND": ("block_shape", "paddings"), "BatchToSpaceND": ("block_shape", "crops")}
    arguments = dict(zip(("input", *names.get(name, ("filter",))), inputs, strict=True))
    keep = ("strides", "padding", "explicit_paddings", "data_format", "dilations")
    return getattr(tf.raw_ops, name)(**arguments, **{key: given[key] for key in keep if key in given})


def _serve():
    # Nothing but answers may reach the pipe, whatever a library prints.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    while True:
        try:
            question = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = True, _answer(*question)
        except Exception as error:  # whatever TensorFlow raises is the answer
            answer = False, f"{type(error).__name__}: {error}"
        pickle.dump(answer, pipe)
        pipe.flush()


if __name__ == "__main__":
    _serve()
