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
from conftest import PROMISED, THREADS
from fresh import in_fresh_process
from helpers import arrays_of, kernel_calls, same, tensorflows

pytestmark = PROMISED

STRIDED = {"strides": [1, 2, 2, 1], "padding": [[0, 0], [1, 2], [0, 1], [0, 0]], "dilations": [2, 1]}

RUN = """
import json, sys
import numpy as np, tensorflow as tf
library, folder, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
tf.load_op_library(library)
assert "sepconv" not in sys.modules
model = tf.saved_model.load(folder + "/model")
x = np.load(folder + "/x.npy")
for name, call in model.signatures.items():
    results = call(x=tf.constant(x))
    np.savez(f"{folder}/{name}.npz", **{key: result.numpy() for key, result in results.items()})
    graph = call.graph.as_graph_def()
    types = {node.op for part in (graph.node, *(f.node_def for f in graph.library.function)) for node in part}
    types = sorted(type for type in types if "Sepconv" in type or "DepthwiseConv2d" in type)
    print(json.dumps([name, types, {key: shape.shape.as_list() for key, shape in call.structured_outputs.items()}]))
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

        def differentiate(self, x):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(self.convolve(x)["output"] ** 2)
            return dict(zip("dp", tape.gradient(loss, [self.d, self.p]), strict=True))

        known = tf.function(convolve, input_signature=[tf.TensorSpec(x.shape, name="x")])
        open = tf.function(convolve, input_signature=[tf.TensorSpec([None, 14, None, 512], name="x")])
        step = tf.function(differentiate, input_signature=known.input_signature)

    model = Model()
    signatures = {name: getattr(model, name).get_concrete_function() for name in ("known", "open", "step")}
    tf.saved_model.save(model, str(tmp_path / "model"), signatures)
    np.save(tmp_path / "x.npy", x)
    printed = in_fresh_process(RUN, sepconv.library_path(), str(tmp_path), str(THREADS)).splitlines()
    types, shapes = ({row[0]: row[n] for row in map(json.loads, printed)} for n in (1, 2))
    results = {name: np.load(tmp_path / f"{name}.npz") for name in signatures}
    assert types["known"] == types["open"] == ["Sepconv>SeparableConv2D"]
    assert shapes["open"]["output"] == model.open.get_concrete_function().output_shapes["output"].as_list()
    expected = sepconv.separable_conv2d(x, d, p, **attributes, numerics=numerics)
    assert same(results["known"]["output"], expected)
    # A prediction, which differs between processors, but not between processes.
    assert same(results["open"]["output"], model.open(x)["output"])
    if numerics == "tensorflow":
        assert same(expected, tensorflows(x, d, p, **attributes))
    found = sepconv.explain_gradients(x, d, p, **attributes, numerics=numerics)
    for key, name in (("d", "DepthwiseFilter"), ("p", "PointwiseFilter")):
        through_op = found["depthwise_filter" if key == "d" else "pointwise_filter"].path == "op"
        assert through_op or numerics == "tensorflow"
        assert (f"Sepconv>SeparableConv2DBackprop{name}" in types["step"]) == through_op
        assert same(results["step"][key], model.step(x)[key])


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
