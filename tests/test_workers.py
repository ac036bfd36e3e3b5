"""TensorFlow's own distribution strategies train layers of ours to the same weights, to the last bit, as its own; and a
worker that dies is an error in the others that names it.
"""

import contextlib
import signal
import socket

import pytest
from conftest import PROMISED, THREADS
from fresh import at_once

pytestmark = PROMISED

# Of the depthwise filter with the depthwise result's, and of the pointwise filter; the second layer's input too.
GRADIENTS = 3 + 4

# Neither bias nor ReLU stands behind a layer: TensorFlow's graph optimiser fuses them with its own operations and
# changes their bits.
TRAIN = """
import contextlib, json, os, signal, sys
import numpy as np, tensorflow as tf
threads, dying, task, *addresses = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
if addresses:
    task = {"type": "worker", "index": int(task)}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
else:
    [cpu] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
import sepconv

class Model(tf.Module):
    def __init__(self, convolve, rng):
        self.convolve = convolve
        shapes = [3, 3, 2, 2], [1, 1, 4, 8], [3, 3, 8, 1], [1, 1, 8, 4]
        self.filters = [tf.Variable(rng.normal(0, 0.3, shape), dtype=tf.float32) for shape in shapes]

    def __call__(self, images):
        images = tf.tanh(self.convolve(images, *self.filters[:2], [1, 1, 1, 1], "SAME"))
        return tf.reduce_mean(self.convolve(images, *self.filters[2:], [1, 2, 2, 1], "SAME"), [1, 2])

def train(convolve):
    rng = np.random.default_rng(3)
    with strategy.scope():
        model = Model(convolve, rng)
    before = [variable.numpy() for variable in model.filters]
    images, labels = (tf.constant(rng.standard_normal(s), tf.float32) for s in ([5, 2, 4, 6, 6, 2], [5, 2, 4, 4]))
    started = tf.Variable(0)

    def die(count):
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    def replica(images, labels):
        context = tf.distribute.get_replica_context()
        images, labels = (tf.gather(t, context.replica_id_in_sync_group) for t in (images, labels))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(images) - labels) ** 2)
        gradients = tape.gradient(loss, model.filters)
        with tf.control_dependencies([tf.py_function(die, [started], [])] if dying == "dies" else []):
            gradients = [tf.identity(gradient) for gradient in gradients]
        for variable, gradient in zip(model.filters, context.all_reduce("sum", gradients)):
            variable.assign_sub(0.1 * gradient)

    step = tf.function(lambda *batch: strategy.run(replica, batch), autograph=False)
    for batch in zip(images, labels):
        started.assign_add(1)
        step(*batch)
    after = [variable.numpy() for variable in model.filters]
    assert not any(np.array_equal(a, b) for a, b in zip(before, after))
    return b"".join(array.tobytes() for array in after).hex()

@tf.function(autograph=False)
def meet():
    return strategy.run(lambda: tf.distribute.get_replica_context().all_reduce("sum", tf.ones([])))

try:
    ours, stats = train(sepconv.separable_conv2d), sepconv.stats()
    print(ours, stats["kernel_calls"], stats["gradient_calls"], train(tf.nn.separable_conv2d))
    # The other one's last step fails if this process is gone before; this sum may.
    with contextlib.suppress(tf.errors.OpError):
        meet()
except tf.errors.OpError as error:
    print(type(error).__name__, str(error).replace("\\n", " "))
    ones = tf.ones([1, 4, 4, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
    print("goes on", sepconv.separable_conv2d(*ones, [1, 1, 1, 1], "VALID")[0, 0, 0, 0].numpy())
"""


def train_on_two_workers(*dying):
    """Two processes of one cluster on this machine."""
    with contextlib.ExitStack() as sockets:
        listening = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in dying]
        addresses = [f"localhost:{place.getsockname()[1]}" for place in listening]
    arguments = [(str(THREADS), dies, str(task), *addresses) for task, dies in enumerate(dying)]
    return at_once(TRAIN, *arguments, patience=120)


def test_two_workers():
    workers = train_on_two_workers("lives", "lives")
    assert [worker.status for worker in workers] == [0, 0], workers[0].errors[-2000:] + workers[1].errors[-2000:]
    [ours, calls, gradient_calls, theirs], other = [worker.output.split() for worker in workers]
    assert other == [ours, calls, gradient_calls, theirs] and ours == theirs
    assert int(calls) == 5 * 2  # steps, layers
    assert int(gradient_calls) == 5 * GRADIENTS


def test_two_logical_devices():
    [ended] = at_once(TRAIN, (str(THREADS), "lives", "0"), patience=120)
    assert ended.status == 0, ended.errors[-4000:]
    ours, calls, gradient_calls, theirs = ended.output.split()
    assert ours == theirs
    assert int(calls) == 5 * 2 * 2  # steps, layers, devices
    assert int(gradient_calls) == 5 * GRADIENTS * 2


@pytest.mark.skipif(THREADS > 1, reason="the number of threads cannot matter to it")
@pytest.mark.parametrize("dead", [0, 1])
def test_a_worker_that_dies_mid_step(dead):
    workers = train_on_two_workers(*["dies" if task == dead else "lives" for task in (0, 1)])
    assert workers[dead].status == -signal.SIGKILL, workers[dead].errors[-4000:]
    left = workers[1 - dead]
    assert left.status == 0, left.errors[-4000:]
    error, went_on = left.output.splitlines()
    assert error.startswith("UnavailableError") and f"/job:worker/replica:0/task:{dead}" in error
    assert went_on == "goes on 18.0"
