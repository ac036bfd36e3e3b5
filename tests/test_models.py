"""Whole models of Keras, rewritten: how many of their layers are replaced, and equal bits in processes that ran nothing
else and know no more than TensorFlow and the library."""

import pathlib

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from benchmark import architectures
from conftest import ONEDNN, THREADS
from consumer import results
from fresh import at_once
from helpers import bits, same
from rewriting import usual
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

# Where they would take their minutes for nothing.
pytestmark = pytest.mark.skipif(ONEDNN and THREADS == 1, reason="with oneDNN, orders are the same on two threads")

SMALL = 128, 128, 3
# By name: the network, its input, what else it is built with; how many of its depthwise convolutions are replaced, with
# the 1x1 convolution behind them or alone, and how many 1x1 convolutions alone.
MODELS = {
    "MobileNet 0.25": ("MobileNet", SMALL, {"alpha": 0.25}, 13, 1),
    "MobileNet 0.5": ("MobileNet", (160, 160, 3), {"alpha": 0.5}, 13, 1),
    "MobileNet 0.75": ("MobileNet", (192, 192, 3), {"alpha": 0.75}, 13, 1),
    "MobileNet 1": ("MobileNet", (224, 224, 3), {}, 13, 1),
    "Xception": ("Xception", SMALL, {}, 34, 4),
    "MobileNetV2": ("MobileNetV2", SMALL, {}, 17, 17),
    "MobileNetV3Small": ("MobileNetV3Small", SMALL, {}, 11, 40),
    "EfficientNetB0": ("EfficientNetB0", SMALL, {}, 16, 64),
    "NASNetMobile": ("NASNetMobile", SMALL, {}, 160, 27),
    "DeepLab head": (architectures.HEAD, (33, 33, 256), {}, 3, 2),
}
# Those that share their processes: importing and loading takes longer than they do.
TOGETHER = [[name for name in MODELS if name.startswith("MobileNet ")]]
TOGETHER += [[name] for name in MODELS if name not in TOGETHER[0]]

# A process that imports no sepconv, and no Keras but what TensorFlow itself imports: `test_without_python` shows that
# neither is needed. A model for any number of images is run on one and on two.
RUN = """
import sys
import numpy as np, tensorflow as tf
library, threads, model, to, *off = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
tf.config.optimizer.set_experimental_options({name: False for name in off})
if library:
    tf.load_op_library(library)
results = {}

def run(name, function, shape):
    for batch in (1, 2) if shape[0] is None else shape[:1]:
        images = np.random.default_rng(batch).standard_normal([batch, *shape[1:]]).astype(np.float32)
        results[f"{name}, batch {batch}"] = function(tf.constant(images)).numpy()

if model.endswith(".pb"):
    definition = tf.compat.v1.GraphDef.FromString(open(model, "rb").read())
    graph = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(definition, name=""), [])
    image, logits = [graph.graph.get_tensor_by_name(f"{name}:0") for name in ("image", "Identity")]
    run("frozen", graph.prune(image, logits), image.shape)
else:
    loaded = tf.saved_model.load(model)
    for name, function in sorted(loaded.signatures.items()):
        [spec] = function.structured_input_signature[1].values()
        run(name, lambda image: function(image=image)["logits"], spec.shape)
assert "sepconv" not in sys.modules
np.savez(to, **results)
"""


def results_of(folder: pathlib.Path, *runs) -> list:
    """What models give, each in a fresh process: of each the file, and what is switched off there."""
    each = []
    for n, (name, *off) in enumerate(runs):
        library = sepconv.library_path() if name.startswith("ours") else ""
        each.append((library, str(THREADS), str(folder / name), str(folder / f"{n}.npz"), *off))
    for ended in at_once(RUN, *each):
        assert ended.status == 0, ended.errors[-4000:]
    results = [dict(np.load(folder / f"{n}.npz")) for n in range(len(runs))]
    for name, logits in results[0].items():
        assert np.unique(logits).size > logits.size / 2, f"{name}: too many alike to show anything"
        assert len(logits) == 1 or np.std(logits[0] - logits[1]) > 1e-3, f"{name}: the image makes no difference"
    return results


def built(name, batch):
    """One of the models, as a concrete function."""
    network, shape, more, *_ = MODELS[name]
    return architectures.function_of(architectures.build(network, shape, **more), batch)


@pytest.fixture(scope="module")
def rewritten(request, tmp_path_factory):
    """The names of models, a folder with them for any number of images, filters in variables, and the report."""
    names, folder = request.param, tmp_path_factory.mktemp("saved")
    module, functions = tf.Module(), {}
    for n, name in enumerate(names):
        functions[f"signature_{n}"] = built(name, None)
    module.all_variables = [variable for function in functions.values() for variable in function.variables]
    tf.saved_model.save(module, str(folder / "model"), functions)
    return names, folder, sepconv.rewrite(folder / "model", folder / "ours").report


@pytest.mark.parametrize("rewritten", TOGETHER, ids=lambda names: names[0], indirect=True)
def test_saved_models(rewritten):
    names, folder, report = rewritten
    expected = [sum(MODELS[name][column] for name in names) for column in (3, 4)]
    # Without oneDNN, how TensorFlow multiplies single pixels depends on how many there are.
    left = [layer for layer in report.left if layer.depthwise_filter is None and layer.input[1:3] == (1, 1)]
    assert report.left == tuple(left) and not (ONEDNN and left), str(report)
    alone = sum(layer.depthwise_filter is None for layer in report.replaced)
    assert [len(report.replaced) - alone, alone + len(left)] == expected, str(report)
    theirs, ours = results_of(folder, ["model"], ["ours"])
    assert len(theirs) == 2 * len(names)
    for name, logits in theirs.items():
        assert same(ours[name], logits), name


@pytest.mark.parametrize("rewritten", TOGETHER[:1], ids=lambda names: names[0], indirect=True)
def test_without_python(rewritten, consumer, rng):
    """Nor Keras, therefore: MobileNet as it is, and rewritten."""
    _, folder, _ = rewritten
    image = rng.standard_normal([1, *SMALL], dtype=np.float32)
    runs = ("", folder / "model"), (sepconv.library_path(), folder / "ours")
    told = {"TF_NUM_INTRAOP_THREADS": str(THREADS)}
    (theirs, _), (ours, stats) = [results(consumer(*run, "signature_0", image, **told)) for run in runs]
    assert same(ours, theirs) and np.unique(theirs).size > 500
    assert stats["fused_calls"] == 13


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A folder with MobileNet as a graph for one image, filters and normalisations in constants."""
    folder = tmp_path_factory.mktemp("frozen")
    graph = convert_variables_to_constants_v2(built("MobileNet 0.25", 1)).graph
    (folder / "model.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder


def test_a_frozen_graph(frozen):
    report = sepconv.rewrite(frozen / "model.pb", frozen / "ours.pb").report
    assert (len(report.replaced), len(report.left)) == (14, 0), str(report)
    # What is multiplied behind a product is multiplied into its filter, as TensorFlow does.
    steps = [(usual(layer.depthwise_steps), usual(layer.pointwise_steps)) for layer in report.replaced]
    assert steps == [("multiply add relu6", "add relu6")] * 13 + [("", "add")]  # the logits are a 1x1 convolution too
    theirs, ours = results_of(frozen, ["model.pb"], ["ours.pb"])
    assert same(*[logits["frozen, batch 1"] for logits in (theirs, ours)])


def test_folded_constants_change_a_frozen_graphs_bits(frozen):
    """Without sepconv: TensorFlow's optimiser multiplies what normalisations multiply by into the filters in front of
    them, which rounds otherwise. What it fuses then (the remapper: a product with its bias and its activation) changes
    nothing in float32. So the rewriter asks for an order where that has happened."""
    folding, fusing = "constant_folding", "remapping"
    runs = [], [fusing], [folding], [folding, fusing]
    results = results_of(frozen, *(["model.pb", *off] for off in runs))
    usual, unfused, unfolded, neither = [each["frozen, batch 1"] for each in results]
    assert same(usual, unfused) and same(unfolded, neither)
    assert np.mean(bits(usual) != bits(unfolded)) > 0.5
    np.testing.assert_allclose(usual, unfolded, rtol=1e-3, atol=1e-4)
