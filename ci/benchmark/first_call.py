"""A process that times first calls: each in a fork of its own, which has TensorFlow and sepconv imported and has run
nothing yet. `python -m benchmark.first_call THREADS`."""

import json
import os
import sys
import time

import numpy as np
import sepconv
import tensorflow as tf

from benchmark import shapes
from benchmark.serving import serve

FUNCTIONS = {"sepconv": sepconv.separable_conv2d, "tensorflow": tf.nn.separable_conv2d}


def call(shape, data, function):
    """Seconds of the first eager call and of the one after it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(_times(shapes.from_request(shape), data, FUNCTIONS[function])).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    if not text:
        raise RuntimeError("the forked process died")
    return json.loads(text)


def _times(shape, data, function):
    tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
    tensors = [tf.constant(array) for array in shapes.read(data, shape)]
    np.testing.assert_equal(tf.reduce_sum(tf.zeros([4])).numpy(), 0)  # TensorFlow has run something
    times = []
    for _ in range(2):
        start = time.perf_counter()
        function(*tensors, **shape.attributes)
        times.append(time.perf_counter() - start)
    return {"first": times[0], "second": times[1]}


if __name__ == "__main__":
    serve({"call": call})
