"""Models in files are rewritten and restored with all that belongs to them, also by the command, which can check
the bits."""

import functools
import json
import pathlib

import keras
import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from fresh import in_fresh_process
from helpers import kernel_calls, same
from rewriting import (
    FUSED,
    PLAIN,
    SAVED,
    bias_comes_first,
    command,
    conv,
    dilated,
    graph_of,
    normalised,
    statistics,
    usual,
)
from rich.console import Console
from sepconv import __main__, _check, _model_command
from sepconv._report import Layer, Report
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

v1 = tf.compat.v1


class Model(tf.Module):
    """With an asset, a variable bias and a layer whose order depends on the context."""

    def __init__(self, folder):
        rng = np.random.default_rng(5)
        shapes = [3, 3, 512, 1], [1, 1, 512, 512], [512]
        self.values = [tf.Variable(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
        words = folder / "words.txt"
        words.write_text("a word\n")
        self.words = tf.saved_model.Asset(str(words))

    @tf.function(input_signature=[tf.TensorSpec([None, 7, 7, 512], name="image")])
    def convolve(self, x):
        *filters, bias = self.values
        return {"pixels": tf.nn.relu(tf.nn.bias_add(tf.nn.separable_conv2d(x, *filters, **PLAIN), bias))}


RUN = """
import sys
import numpy as np, tensorflow as tf
library, model, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
if library:
    tf.load_op_library(library)
assert "sepconv" not in sys.modules
model = tf.saved_model.load(model)
assert tf.io.read_file(model.words.asset_path) == b"a word\\n"
for batch in (1, 2):
    x = np.random.default_rng(batch).standard_normal([batch, 7, 7, 512]).astype(np.float32)
    pixels = model.signatures["serving_default"](image=tf.constant(x))["pixels"]
    print(pixels.shape, hash(pixels.numpy().tobytes()))
    model.values[2].assign_add(tf.ones([512]))
"""


def test_a_saved_model_in_processes_that_only_load_the_library(tmp_path: pathlib.Path):
    """Variables, assignments, assets and signatures survive; the bits are those of the model in a fresh process."""
    tf.saved_model.save(Model(tmp_path), str(tmp_path / "model"))
    result = sepconv.rewrite(tmp_path / "model", tmp_path / "ours")
    [layer] = result.report.layers
    assert layer.replaced or bias_comes_first(layer), layer
    sepconv.restore(tmp_path / "ours", tmp_path / "restored")
    printed = [
        in_fresh_process(RUN, library, str(tmp_path / name), str(THREADS))
        for name, library in (("model", ""), ("ours", sepconv.library_path()), ("restored", ""))
    ]
    assert printed[0] == printed[1] == printed[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "ours", "restored", "words.txt"]


@pytest.mark.parametrize("resources", [False, True], ids=["references", "resources"])
def test_a_saved_model_of_tensorflow_1(resources, arrays, tmp_path: pathlib.Path):
    """Layers in the graph itself, with variables of both kinds, and in the body of a loop."""
    x, *filters = arrays
    ones = tf.ones([3, 3, 16, 1]).numpy(), tf.ones([1, 1, 16, 16]).numpy() / 9
    with tf.Graph().as_default(), v1.Session() as session:
        placeholder = v1.placeholder(tf.float32, [None, None, None, 6])
        variables = [v1.get_variable(f"v{n}", initializer=f, use_resource=resources) for n, f in enumerate(filters)]
        y = tf.nn.separable_conv2d(placeholder, *variables, **PLAIN, dilations=[2, 2])
        shapes = [tf.TensorShape([]), tf.TensorShape([None, None, None, 16])]
        _, y = v1.while_loop(
            lambda i, y: i < 2, lambda i, y: (i + 1, tf.nn.separable_conv2d(y, *ones, **PLAIN)), [0, y], shapes
        )
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": placeholder}, {"y": y})
    report = sepconv.rewrite(tmp_path / "model", tmp_path / "ours").report
    assert len(report.replaced) == 2 and not report.left, str(report)
    before, results = kernel_calls(), []
    for name in ("model", "ours"):
        signature = tf.saved_model.load(tmp_path / name).signatures["serving_default"]
        results.append(signature(x=tf.constant(x))["y"])
    assert same(*results) and kernel_calls() - before == 3


def test_what_was_saved_with_the_op_is_restored(tmp_path: pathlib.Path):
    """Paddings of all kinds and unequal strides (`saved_models/save.py`); the numerics were not TensorFlow's."""
    example = np.load(SAVED / "example.npz")
    report = sepconv.restore(SAVED, tmp_path / "restored").report
    assert report.replaced and not report.left, str(report)
    before = kernel_calls()
    result = tf.saved_model.load(tmp_path / "restored").convolve(example["x"])
    assert kernel_calls() == before
    np.testing.assert_allclose(result, example["y"], rtol=1e-5, atol=1e-5)


def test_what_is_restored_can_be_exported(arrays, rng, tmp_path: pathlib.Path):
    """To LiteRT, and to XLA, which has bits of its own."""
    x, d, p = map(tf.Variable, arrays)
    numbers, model = tf.nest.map_structure(tf.Variable, statistics(rng, 12)), tf.Module()
    model.variables_of_it = [d, p, *numbers]
    spec = tf.TensorSpec(x.shape, name="x")
    model.convolve = tf.function(
        lambda x: {"y": conv(tf.nn.relu6(normalised(dilated(x, d), numbers)), p)}, input_signature=[spec]
    )
    tf.saved_model.save(model, str(tmp_path / "model"), model.convolve)
    assert sepconv.rewrite(tmp_path / "model", tmp_path / "ours").report.replaced
    assert sepconv.restore(tmp_path / "ours", tmp_path / "restored").report.replaced
    converted, compiled = {}, {}
    for name in ("ours", "restored"):
        loaded = tf.saved_model.load(tmp_path / name)
        expected = model.convolve(x)["y"]
        converted[name] = lambda name=name: tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / name)).convert()
        compiled[name] = lambda loaded=loaded: tf.function(loaded.convolve, jit_compile=True)(x.value())["y"]
    for exported in (converted, compiled):
        with pytest.raises(Exception, match=FUSED):
            exported["ours"]()
    assert converted["restored"]()
    np.testing.assert_allclose(compiled["restored"](), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["save", "frozen"])
def test_keras_layers(how, tmp_path: pathlib.Path):
    """Batch normalisation is multiplied into filters that are frozen."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input([24, 24, 8]),
            layers.SeparableConv2D(16, 3, padding="same", activation="relu", bias_initializer="random_normal"),
            layers.SeparableConv2D(16, 3, padding="same", dilation_rate=2, use_bias=False),
            layers.BatchNormalization(gamma_initializer="random_normal", beta_initializer="random_normal"),
            layers.SeparableConv2D(16, 3, strides=2, depth_multiplier=2),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Conv2D(16, 1),
        ]
    )
    path = tmp_path / "model"
    if how == "save":
        tf.saved_model.save(model, str(path))
    else:
        concrete = tf.function(model).get_concrete_function(tf.TensorSpec([None, 24, 24, 8]))
        path.write_bytes(convert_variables_to_constants_v2(concrete).graph.as_graph_def().SerializeToString())
    report = sepconv.rewrite(path, tmp_path / "ours").report
    functions = {layer.function for layer in report.layers}
    assert len(report.layers) == 4 * len(functions), str(report)
    assert all(map(bias_comes_first, report.left)), str(report)
    assert report.replaced[-1].depthwise_steps == "add multiply add"
    outputs = _check.check(path, tmp_path / "ours", None, 0)
    assert outputs and all(output.same for output in outputs), outputs


def test_xception(tmp_path: pathlib.Path):
    keras.utils.set_random_seed(3)
    model = keras.applications.Xception(weights=None, input_shape=(128, 128, 3), classes=10)
    model.export(tmp_path / "model", verbose=False)
    ended = command("rewrite", tmp_path / "model", tmp_path / "ours", "--check", "--threads", THREADS, "--json", "-")
    assert ended.status == 0, ended.errors
    content = json.loads(ended.output)
    assert (content["replaced"], content["left"]) == (38, 0)  # 4 of them 1x1 convolutions alone
    assert content["check"] and all(output["same"] for output in content["check"])


def test_the_command_on_a_frozen_graph(tmp_path: pathlib.Path):
    trained = Model(tmp_path)
    frozen = convert_variables_to_constants_v2(trained.convolve.get_concrete_function())
    model, ours, report = tmp_path / "model.pb", tmp_path / "ours.pb", tmp_path / "report.json"
    model.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    inputs = {"image": np.random.default_rng(7).standard_normal([1, 7, 7, 512]).astype(np.float32)}
    np.savez(tmp_path / "inputs.npz", **inputs)
    options = "--check", "--inputs", tmp_path / "inputs.npz", "--json", report, "--threads", THREADS
    ended = command("rewrite", model, ours, *options)
    assert ended.status == 0, ended.errors
    assert "replaced" in ended.output and "25088 of 25088 elements have the same bits: equal" in ended.output
    content = json.loads(report.read_text())
    assert (content["replaced"], content["left"], content["check"][0]["same"]) == (1, 0, True)
    [layer] = content["layers"]
    facts = {"rate": [1, 1], "depthwise_steps": "", "exact": False}
    assert usual(layer["pointwise_steps"]) == "add relu"
    assert facts.items() <= layer.items() and layer["numerics"].startswith("batch")
    ended = command("restore", ours, tmp_path / "restored.pb", "--json", "-")
    back = json.loads(ended.output)
    assert (back["replaced"], back["left"]) == (1, 0)
    # The way back tells the same of the layer, by the op's own name.
    assert back["layers"] == [layer | {"node": "Relu", "reason": "TensorFlow's own operations"}]


def test_a_check_that_finds_a_difference(tmp_path: pathlib.Path, arrays):
    x, *filters = arrays
    for name, factor in (("a", 1), ("b", 1 + 2**-20)):
        filters[1][0, 0, 0, 0] *= factor
        definition = graph_of(lambda x: tf.nn.separable_conv2d(x, *filters, **PLAIN), [None, *x.shape[1:]])
        (tmp_path / name).write_bytes(definition.SerializeToString())
    outputs = _check.check(tmp_path / "a", tmp_path / "b", None, 0)
    assert [output.name for output in outputs] == ["y:0 (batch 1)", "y:0 (batch 2)"]
    assert all(not output.same and 0 < output.equal < output.elements for output in outputs)


def saved(path, **changed):
    """A model with a signature of texts, one of numbers, and one that takes no less than two of them."""
    signatures = {
        "texts": (tf.strings.length, tf.TensorSpec([2], tf.string)),
        "numbers": (lambda x: x + 1, tf.TensorSpec([2])),
        "pairs": (lambda x: tf.gather(x, [1]), tf.TensorSpec([None])),
        **changed,
    }

    def function(build, spec):
        spec = tf.TensorSpec(spec.shape, spec.dtype, "x")
        return tf.function(lambda x: {"y": build(x)}, autograph=False).get_concrete_function(spec)

    tf.saved_model.save(tf.Module(), str(path), {name: function(*of) for name, of in signatures.items()})
    return path


def test_a_check_of_those_signatures_that_can_be_run(tmp_path: pathlib.Path, capsys):
    model, ours, inputs, report = saved(tmp_path / "m"), tmp_path / "ours", tmp_path / "i.npz", tmp_path / "report"
    options = "--check", "--json", str(report), "--threads", str(THREADS)
    assert __main__.main(["rewrite", str(model), str(ours), *options]) == 0
    printed = capsys.readouterr().out
    assert "check: texts: not run: no random numbers fit the input x (string, (2,))" in printed
    assert "check: pairs/y (batch 2): 1 of 1" in printed and "check: pairs (batch 1): not run: " in printed
    found = {output["name"]: output["same"] for output in json.loads(report.read_text())["check"]}
    assert found == {"texts": None, "pairs (batch 1)": None, "numbers/y": True, "pairs/y (batch 2)": True}
    np.savez(inputs, **{"texts/x": np.array([b"a", b"word"])})
    outputs = _check.check(model, ours, inputs, 0)
    assert {output.name: output.same for output in outputs} == {"texts/y": True, "numbers": None, "pairs": None}
    assert outputs[0].reason == "the file of inputs has no array x, only texts/x"
    np.savez(inputs, **{"texts/z": np.ones(2), "numbers/x": np.ones(2)})
    with pytest.raises(sepconv.BadModel, match="m: cannot be run: the file of inputs has no array x, only"):
        _check.check(model, ours, inputs, 0)
    other = saved(tmp_path / "other", numbers=(lambda x: tf.gather(x, [2]), tf.TensorSpec([None])))
    with pytest.raises(sepconv.BadModel, match="other: cannot be run: numbers"):
        _check.check(model, other, None, 0)


def test_names_of_inputs_are_checked_before_any_work(tmp_path: pathlib.Path, capsys):
    """As the check takes them: all of one signature, and of each that is named; without loading the model."""
    model, inputs = saved(tmp_path / "m"), tmp_path / "i.npz"
    takes = "has the arrays {}, and " + f"{model} takes numbers/x, pairs/x, texts/x"
    for names, said in (
        ("z", takes.format("z")),
        ("texts/z numbers/x", takes.format("numbers/x, texts/z")),
        ("", takes.format("none")),
        ("texts/x z", None),
        ("x", None),
    ):
        np.savez(inputs, **dict.fromkeys(names.split(), np.ones(2)))
        if said is None:
            _check.check_names(inputs, _check.arrays_of(inputs), model)
            continue
        assert __main__.main(["rewrite", str(model), str(tmp_path / "ours"), "--inputs", str(inputs)]) == 1
        assert capsys.readouterr().err == f"sepconv: error: --inputs {inputs}: {said}\n"
        assert not (tmp_path / "ours").exists()


def test_the_table_in_80_columns(tmp_path: pathlib.Path, monkeypatch, capsys):
    """Every word of it whole but for names that are longer than a line."""
    call = {"input": (None, 14, 14, 512), "depthwise_filter": (3, 3, 512, 1), "pointwise_filter": (1, 1, 512, 512)}
    call |= {"dtype": "float32", "strides": (1, 1), "padding": "SAME", "rate": (2, 2), "pointwise_steps": "add relu6"}
    reason = "the shape is unknown: the kernel picks the order revealed for the nearest one"
    layers = [
        Layer("model/block_1/separable_conv2d", "__inference_1", True, reason, **call),
        Layer("x" * 100, "", False, "no 1x1 convolution takes what it gives"),
    ]
    console = functools.partial(Console, width=80)
    monkeypatch.setattr(_model_command, "Console", lambda **_: console())
    _model_command._print_table(Report(tuple(layers)))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[:3] == [
        "in function __inference_1:",
        "replaced  model/block_1/separable_conv2d",
        "          ?x14x14x512, 3x3x512x1 to 512, float32, SAME, rate 2x2, - / add relu6",
    ]
    assert " ".join(" ".join(lines[3:5]).split()) == reason
    assert lines[5:] == ["in the graph:", f"left  {'x' * 74}", f"      {'x' * 26}", f"      {layers[1].reason}"]


def test_a_model_that_is_rewritten_already(tmp_path: pathlib.Path, arrays, capsys):
    x, *filters = arrays
    definition = graph_of(lambda x: sepconv.separable_conv2d(x, *filters, **PLAIN), x.shape)
    assert sepconv.rewrite(definition).report.already == 1 and sepconv.restore(definition).report.already == 0
    assert __main__.main(["rewrite", str(SAVED), str(tmp_path / "ours"), "--threads", str(THREADS)]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'ours'}: already rewritten: 3 ops of sepconv; nothing to replace, the model is the same\n"
    )


def test_a_difference_is_the_exit_status(tmp_path: pathlib.Path, monkeypatch, capsys):
    (tmp_path / "model").write_bytes(graph_of(lambda x: x + 1, [4]).SerializeToString())
    monkeypatch.setattr(_check, "check", lambda *_: [_check.Output("y:0", 4, 3, False)])
    options = "--check", "--threads", str(THREADS)
    assert __main__.main(["rewrite", str(tmp_path / "model"), str(tmp_path / "ours"), *options]) == 1
    assert "check: y:0: 3 of 4 elements have the same bits: DIFFERENT" in capsys.readouterr().out


def test_a_model_with_nothing_to_replace_is_copied(tmp_path: pathlib.Path):
    model = tf.Module()
    model.v = tf.Variable(2.0)
    model.call = tf.function(lambda x: x * model.v, input_signature=[tf.TensorSpec([])])
    tf.saved_model.save(model, str(tmp_path / "model"))
    ended = command("rewrite", tmp_path / "model", tmp_path / "copy")
    assert ended.status == 0 and "nothing to replace" in ended.output
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*")) for n in ("model", "copy")]
    assert files[0] == files[1]
    for path in files[0]:
        if (tmp_path / "model" / path).is_file():
            assert (tmp_path / "model" / path).read_bytes() == (tmp_path / "copy" / path).read_bytes()
