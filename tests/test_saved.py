"""A graph that was saved runs where only the library is loaded, with the same bits and static shapes; and a second copy
of the library does no harm.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import ONEDNN, THREADS
from fresh import in_fresh_process
from helpers import arrays_of, kernel_calls, same, tensorflows

pytestmark = pytest.mark.skipif(not ONEDNN and THREADS > 1, reason="promised with oneDNN, and without on 1 thread")

STRIDED = {"strides": [1, 2, 2, 1], "padding": [[0, 0], [1, 2], [0, 1], [0, 0]], "dilations": [2, 1]}

RUN = """
import sys
import numpy as np, tensorflow as tf
library, folder, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
tf.load_op_library(library)
assert "sepconv" not in sys.modules
model = tf.saved_model.load(folder + "/model")
x = np.load(folder + "/x.npy")
for name, call in model.signatures.items():
    if name == "open":
        print(call.structured_outputs["output"].shape.as_list())
    np.save(f"{folder}/{name}.npy", call(x=tf.constant(x))["output"].numpy())
types = {node.op for f in call.graph.as_graph_def().library.function for node in f.node_def}
types |= {node.op for node in call.graph.as_graph_def().node}
print(int("Sepconv>SeparableConv2D" in types), int("DepthwiseConv2dNative" in types))
"""


@pytest.mark.parametrize("numerics", ["tensorflow", "reproducible"])
@pytest.mark.parametrize(
    "attributes", [{"strides": [1, 1, 1, 1], "padding": "SAME"}, STRIDED], ids=["plain", "strided"]
)
def test_saved_in_one_process_and_run_in_another(attributes, numerics, tmp_path: pathlib.Path):
    (x, d, p), _ = arrays_of("mbv1_7")

    class Model(tf.Module):
        def __init__(self):
            self.d, self.p = tf.Variable(d), tf.Variable(p)

        def convolve(self, x):
            return {"output": sepconv.separable_conv2d(x, self.d, self.p, **attributes, numerics=numerics)}

        known = tf.function(convolve, input_signature=[tf.TensorSpec(x.shape, name="x")])
        open = tf.function(convolve, input_signature=[tf.TensorSpec([None, 14, None, 512], name="x")])

    model = Model()
    signatures = {name: getattr(model, name).get_concrete_function() for name in ("known", "open")}
    tf.saved_model.save(model, str(tmp_path / "model"), signatures)
    np.save(tmp_path / "x.npy", x)
    printed = in_fresh_process(RUN, sepconv.library_path(), str(tmp_path), str(THREADS)).split("\n")
    assert json.loads(printed[0].replace("None", "null")) == model.open.get_concrete_function().output_shapes["output"]
    assert printed[1] == "1 0"
    expected = sepconv.separable_conv2d(x, d, p, **attributes, numerics=numerics)
    assert same(np.load(tmp_path / "known.npy"), expected)
    # A prediction, which differs between processors, but not between processes.
    assert same(np.load(tmp_path / "open.npy"), model.open(x)["output"])
    if numerics == "tensorflow":
        assert same(expected, tensorflows(x, d, p, **attributes))


@pytest.mark.parametrize("batch", [1, None])
def test_import_graph_def(batch):
    (x, d, p), _ = arrays_of("tiny")
    expected = tensorflows(x, d, p, **STRIDED)
    width = tensorflows(np.ones([1, 8, 20, 16], np.float32), d, p, **STRIDED).shape[2]
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [batch, 8, 8, 16], "image")
        output = sepconv.separable_conv2d(image, d, p, **STRIDED, name="convolved")
        serialized, shape = graph.as_graph_def().SerializeToString(), output.shape.as_list()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        parsed = tf.compat.v1.GraphDef.FromString(serialized)
        image, output = tf.graph_util.import_graph_def(parsed, return_elements=["image:0", "convolved:0"], name="again")
        assert output.shape.as_list() == shape == [batch, *expected.shape[1:]]
        before = kernel_calls()
        assert same(session.run(output, {image: x}), expected)
        assert kernel_calls() - before == 1
    with tf.Graph().as_default():
        # Other shapes come in at import: what the output's becomes follows.
        wider = tf.compat.v1.placeholder(tf.float32, [3, None, 20, 16])
        (output,) = tf.graph_util.import_graph_def(parsed, {"image": wider}, return_elements=["convolved:0"], name="")
        assert output.shape.as_list() == [3, None, width, 16]


COPY = """
import sys
import numpy as np, tensorflow as tf
first, second, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
if first == "package":
    import sepconv
    sepconv.stats()
ops = [tf.load_op_library(second)]
import sepconv
ops.append(tf.load_op_library(sepconv.library_path()))
# TensorFlow makes a Python function of the op where it was registered, which is the first copy.
owner = ops[first == "package"]
x, d, p = tf.ones([1, 5, 5, 2]), tf.ones([3, 3, 2, 1]), tf.ones([1, 1, 2, 3])
y = sepconv.separable_conv2d(x, d, p, [1, 1, 1, 1], "SAME", numerics="reproducible")
text = sepconv.explain(x, d, p, [1, 1, 1, 1], "SAME", numerics="reproducible").numerics
geometry = tf.zeros([0, 1, 1, 1, 1, 0], tf.int32)
for _ in range(2):
    z = owner.sepconv_separable_conv2d(x, d, p, geometry, numerics=text)
    assert np.array_equal(y.numpy().view(np.uint32), z.numpy().view(np.uint32))
print(sepconv.stats()["kernel_calls"])
"""


@pytest.mark.parametrize("first", ["package", "copy"])
def test_a_second_copy_of_the_library(first, tmp_path: pathlib.Path):
    """Loaded before or after the package's own: one op, one count of its calls."""
    copy = shutil.copy(sepconv.library_path(), tmp_path / "copied.so")
    assert in_fresh_process(COPY, first, str(copy), str(THREADS)).split() == ["3"]
