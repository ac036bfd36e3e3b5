"""`python -m sepconv inspect` finds the same layers in every kind of model, measures and draws them, and refuses what
it cannot use in one line."""

import io
import json
import re

import keras
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from fresh import attempt
from helpers import kernel_calls
from inspecting import inspect, ones
from matplotlib.image import imread
from rich.console import Console
from sepconv import __main__, _chart, _inspect_tables
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

LAYERS = keras.layers


@pytest.fixture(scope="module")
def network():
    """Most kinds of layers, and a dilated one."""
    image = keras.Input([16, 16, 3])
    x = LAYERS.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    x = LAYERS.SeparableConv2D(12, 3, padding="same", dilation_rate=2, depth_multiplier=2, activation="relu")(x)
    y = LAYERS.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    y = LAYERS.ReLU(6)(LAYERS.BatchNormalization()(y))
    x = LAYERS.add([x, LAYERS.Conv2D(12, 1)(y)])
    x = LAYERS.Conv2D(16, 3, groups=2)(x)
    return keras.Model(image, LAYERS.Dense(5)(LAYERS.GlobalAveragePooling2D()(x)))


# Kind, input, output, kernel, strides, rate, groups, channel multiplier.
EXPECTED = [
    ["convolution", [1, 16, 16, 3], [1, 8, 8, 8], [3, 3], [2, 2], [1, 1], 1, 1],
    ["separable", [1, 8, 8, 8], [1, 8, 8, 12], [3, 3], [1, 1], [2, 2], 1, 2],
    ["separable", [1, 8, 8, 12], [1, 8, 8, 12], [3, 3], [1, 1], [1, 1], 1, 1],
    ["grouped", [1, 8, 8, 12], [1, 6, 6, 16], [3, 3], [1, 1], [1, 1], 2, 1],
    ["dense", [1, 1, 1, 16], [1, 1, 1, 5], [1, 1], [1, 1], [1, 1], 1, 1],
]
COSTS = [  # parameters and multiply-adds, as the model is
    (27 * 8, 64 * 27 * 8),
    (9 * 16 + 16 * 12, 64 * (9 * 16 + 16 * 12)),
    (9 * 12 + 12 * 12, 64 * (9 * 12 + 12 * 12)),
    (9 * 6 * 16, 36 * 9 * 6 * 16),
    (16 * 5, 16 * 5),
]


def facts(report):
    names = "kind", "input", "output", "kernel", "strides", "rate", "groups", "channel_multiplier"
    return [[layer[name] for name in names] for layer in report["layers"]]


# Kinds of models


@pytest.fixture(scope="module")
def models(folder, network):
    """Every kind of file of one network."""
    places = {
        kind: folder / name for kind, name in {"keras": "a.keras", "h5": "a.h5", "saved": "a", "pb": "a.pb"}.items()
    }
    network.save(places["keras"])
    network.save(places["h5"])
    tf.saved_model.save(network, str(places["saved"]))
    function = tf.function(lambda image: network(image, training=False))
    frozen = convert_variables_to_constants_v2(function.get_concrete_function(tf.TensorSpec([None, 16, 16, 3])))
    places["pb"].write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return places


@pytest.mark.parametrize("kind", ["keras", "h5", "saved", "pb"])
def test_every_kind_of_model(kind, models, tmp_path):
    report = inspect(tmp_path, models[kind], "--rho", "1")
    assert facts(report) == EXPECTED
    assert [(r["parameters"]["model"], r["multiply_adds"]["model"]) for r in report["layers"]] == COSTS
    totals = report["totals"]
    assert totals["multiply_adds"]["model"] == sum(cost for _, cost in COSTS)
    assert totals["parameters"]["model"] == sum(parameters for parameters, _ in COSTS)
    assert list(report["inputs"].values()) == [[1, 16, 16, 3]] and report["notes"] == []
    assert set(report["layers"][2]["between"]) >= {"Relu6"} and report["layers"][1]["between"] == []


def test_sepconvs_own_op(network, tmp_path):
    stock = inspect_model(network, tmp_path, "stock.keras")
    ours = inspect_model(sepconv.keras.convert(keras.models.clone_model(network)), tmp_path, "ours.keras")
    assert [len(layer["nodes"]) for layer in stock["layers"]] == [1, 2, 2, 1, 1]
    assert [len(layer["nodes"]) for layer in ours["layers"]] == [1, 1, 2, 1, 1]
    assert facts(ours) == facts(stock) == EXPECTED
    assert ours["layers"][1]["padding"] == "SAME" and ours["totals"] == stock["totals"]


def test_rewritten_models_count_the_same(models, tmp_path):
    report = sepconv.rewrite(models["saved"], tmp_path / "ours").report
    stock, ours = inspect(tmp_path, models["saved"]), inspect(tmp_path, tmp_path / "ours")
    assert any(layer.depthwise_steps for layer in report.replaced)
    assert facts(ours) == facts(stock) and ours["totals"] == stock["totals"]
    names = [[[layer[key] for key in ("name", "nodes")] for layer in report["layers"]] for report in (ours, stock)]
    assert names[0] == names[1]


def test_a_depthwise_part_that_became_an_op_alone(tmp_path):
    """Squeeze and excitation lies between it and the 1x1 convolution behind: they are one layer all the same."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [1, 8, 8, 16], "image")
        y = tf.nn.depthwise_conv2d(x, ones(3, 3, 16, 1), [1, 1, 1, 1], "SAME", name="first")
        y = tf.nn.relu(y + ones(16), "activation")
        gate = tf.nn.conv2d(tf.reduce_mean(y, [1, 2], keepdims=True), ones(1, 1, 16, 16), 1, "VALID", name="gate")
        tf.nn.conv2d(y * tf.sigmoid(gate), ones(1, 1, 16, 24), 1, "VALID", name="second")
    (tmp_path / "stock.txt").write_text(str(graph.as_graph_def()))
    report = sepconv.rewrite(tmp_path / "stock.txt", tmp_path / "ours.txt").report
    assert [layer.node for layer in report.replaced] == ["first"], str(report)
    stock, ours = [inspect(tmp_path, tmp_path / name) for name in ("stock.txt", "ours.txt")]
    assert facts(ours) == facts(stock) and ours["totals"] == stock["totals"]
    assert sorted(layer["kind"] for layer in ours["layers"]) == ["dense", "separable"]
    names = [{layer["kind"]: (layer["name"], layer["nodes"]) for layer in each["layers"]} for each in (ours, stock)]
    assert names[0] == names[1]


def test_names_are_those_of_the_layers(models, tmp_path):
    expected = ["conv2d", "separable_conv2d", "depthwise_conv2d + conv2d", "conv2d", "dense"]
    for kind in ("keras", "saved"):
        names = [layer["name"] for layer in inspect(tmp_path, models[kind])["layers"]]
        assert len(set(names)) == len(names)
        assert [re.sub(r"_\d+", "", name) for name in names] == expected


def inspect_model(model, tmp_path, name):
    model.save(tmp_path / name)
    return inspect(tmp_path, tmp_path / name)


def test_nested_functions_signatures_and_open_shapes(tmp_path):
    class Model(tf.Module):
        def __init__(self):
            self.filter = tf.Variable(ones(3, 3, 4, 6))

        @tf.function
        def inner(self, x, filter):
            return tf.nn.relu(tf.nn.conv2d(x, filter, 1, "VALID"))

        @tf.function
        def outer(self, x):
            return {"y": self.inner(self.inner(x, self.filter)[..., :4], self.filter)}

    model = Model()
    spec = tf.TensorSpec([None, None, None, 4], name="x")
    signatures = {"one": model.outer.get_concrete_function(spec)}
    tf.saved_model.save(model, str(tmp_path / "nested"), signatures)
    report = inspect(tmp_path, tmp_path / "nested", "--input-shape", "12,10,4")
    assert [layer["output"] for layer in report["layers"]] == [[1, 10, 8, 6], [1, 8, 6, 6]]
    assert report["totals"]["parameters"]["model"] == 9 * 4 * 6  # shared
    report = inspect(tmp_path, tmp_path / "nested", "--input-shape", "x=12,10,4", "--signature", "one")
    assert report["inputs"] == {"x": [1, 12, 10, 4]}


def test_an_architecture_by_name_with_a_shape(tmp_path):
    report = inspect(tmp_path, "MobileNetV2", "--input-shape", "96,96,3")
    kinds = [layer["kind"] for layer in report["layers"]]
    # Its paper's bottlenecks: an expansion (but in the first), a depthwise convolution and a projection.
    assert (kinds.count("separable"), kinds.count("1x1"), kinds.count("depthwise")) == (17, 17, 0)
    assert report["inputs"] == {next(iter(report["inputs"])): [1, 96, 96, 3]}


# Times and pictures


@pytest.fixture(scope="module")
def measured(folder, models):
    before = kernel_calls()
    report = inspect(
        *(folder, models["keras"], "--measure", "--threads", THREADS, "--seconds", 0.01),
        *("--chart", folder / "chart.png"),
    )
    assert kernel_calls() > before
    return report


def test_times(measured):
    machine = measured["machine"]
    assert machine["threads"] == THREADS and machine["peak"] > 1e9
    ways = [set(layer["times"]) for layer in measured["layers"]]
    three = {"model", "standard", "separable", "sepconv"}
    assert ways == [three, three, three, three, {"model"}]
    for layer in measured["layers"]:
        for way, timing in layer["times"].items():
            assert timing["median"] >= timing["seconds"] > 0 and 0 < timing["of_peak"] < 1.5
            operations = 2 * layer["multiply_adds"]["separable" if way == "sepconv" else way]
            assert timing["of_peak"] == pytest.approx(operations / timing["seconds"] / machine["peak"])
        assert layer["times"].get("sepconv", {}).get("path") in (None, "op", "tensorflow")
    assert measured["layers"][2]["times"]["sepconv"]["path"] == "op"
    theirs = sum(layer["times"]["model"]["seconds"] for layer in measured["layers"])
    assert measured["totals"]["seconds"]["tensorflow"] == pytest.approx(theirs)


def test_the_picture(measured, folder):
    picture = imread(folder / "chart.png")
    assert min(picture.shape[:2]) > 500 and picture.std() > 0
    figure = _chart.draw(measured)
    titles = [axes.get_title("right") or axes.get_title() for axes in figure.axes]
    expected = [
        "each layer as a standard and as a separable convolution",
        rf"measured, {THREADS} thread\(s\); peak \d+ GFLOP/s",
        "where the work is",
        "standard to separable: .*",
        "width alpha, resolution rho",
    ]
    assert len(titles) == len(expected) and all(map(re.fullmatch, expected, titles)), titles
    products, times, work, groups, multipliers = figure.axes
    layers = measured["layers"][:4]  # the fifth is no convolution of more than one pixel
    for bars, way in zip(products.containers, ("standard", "separable"), strict=True):
        assert [*bars.datavalues] == [layer["multiply_adds"][way] for layer in layers]
    for bars, way in zip(times.containers, ("standard", "separable", "sepconv"), strict=True):
        assert [*bars.datavalues] == [1e3 * layer["times"][way]["seconds"] for layer in layers]
    assert sum(bars.datavalues[0] for bars in work.containers) == pytest.approx(1)
    assert [*groups.lines[0].get_ydata()] == [row["multiply_adds"] for row in measured["groups"]["rows"]]
    drawn = [value for line in multipliers.lines[1:] for value in line.get_ydata()]
    assert sorted(drawn) == sorted(row["ratio"] for row in measured["multipliers"])


def test_the_page_is_one_file(models, tmp_path):
    path = tmp_path / "chart.html"
    inspect(tmp_path, models["keras"], "--chart", path)
    text = path.read_text()
    assert "<svg" in text and "conv2d" in text and f"{sum(cost for _, cost in COSTS):,}" in text
    for fetched in ("<script", "<link", "<img", "@import", 'href="http', "src=", "url(http"):
        assert fetched not in text


def test_the_table_and_json_on_the_standard_output(models, capsys):
    assert __main__.main(["inspect", str(models["keras"]), "--no-measure"]) == 0
    printed = capsys.readouterr().out
    total = sum(products for _, products in COSTS)
    assert f"{total:,} as the model is" in printed and "(Inception)" in printed and "alpha²·rho²" in printed
    assert __main__.main(["inspect", str(models["keras"]), "--no-measure", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"schema", "model", "kind", "inputs", "layers", "totals", "groups", "multipliers", "notes"} <= set(report)
    assert report["schema"] == 1 and report["machine"] is None


def test_a_narrow_terminal(measured):
    printed = {}
    for width in (80, 200):
        console = Console(file=io.StringIO(), width=width, highlight=False)
        _inspect_tables.show(measured, console)
        printed[width] = console.file.getvalue()
    name = re.escape(measured["layers"][1]["name"])
    (wide,) = re.findall(rf"^{name} .*", printed[200], re.MULTILINE)
    narrow = re.findall(rf"^{name} .*", printed[80], re.MULTILINE)
    assert len(narrow) == 3 and max(map(len, narrow)) <= 80
    assert [cell for line in narrow for cell in line.split()[1:]] == wide.split()[1:]


# What is refused


@pytest.fixture(scope="module")
def broken(folder):
    for name in ("broken.keras", "broken.h5", "broken.pb"):
        (folder / name).write_bytes(b"\x08nonsense\xff" * 20)
    (folder / "empty.pb").touch()
    (folder / "text.txt").touch()
    (folder / "hollow").mkdir()
    tf.saved_model.save(tf.Module(), str(folder / "silent"))
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, [None, None, None, 3], "image")
        tf.nn.conv2d(image, ones(3, 3, 3, 4), 1, "SAME")
    (folder / "open.pb").write_bytes(graph.as_graph_def().SerializeToString())
    with tf.Graph().as_default() as graph:
        tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [1, 2], "image"))
    (folder / "idle.pb").write_bytes(graph.as_graph_def().SerializeToString())
    text = graph.as_graph_def()
    text.node.add(name="odd", op="NobodysOp")
    (folder / "odd.pb").write_bytes(text.SerializeToString())
    return folder


REFUSED = {
    "nowhere.keras": "MODEL {}: no such file or folder",
    "broken.keras": "MODEL {}: Keras cannot load it: ",
    "broken.h5": "MODEL {}: Keras cannot load it: ",
    "broken.pb": "MODEL {}: is broken: ",
    "empty.pb": "MODEL {}: holds no GraphDef (must be a .keras or .h5 file",
    "text.txt": "MODEL {}: holds no GraphDef (must be a .keras or .h5 file",
    "hollow": "MODEL {}: TensorFlow cannot load it: ",
    "silent": "MODEL {}: the SavedModel has no signature",
    "open.pb": "--input-shape: needed, for node ",
    "idle.pb": "MODEL {}: has no convolution and no matrix product",
    "odd.pb": "NobodysOp",
    "open.pb --input-shape 8,8,4": "--input-shape 8,8,4: input image takes any,any,3",
    "open.pb --input-shape 8,3": "--input-shape 8,3: input image takes any,any,3",
    "open.pb --input-shape other=8,8,3": "--input-shape other=8,8,3: the model has no such input, it has image",
    "open.pb --input-shape 8,x": "--input-shape: '8,x' must be whole numbers of 1 or more",
    "open.pb --signature x": "--signature x: only a SavedModel has signatures",
    "a --signature x": "--signature x: must be one of serving_default",
    "a --layer x": "--layer x: must be a convolution of more than one pixel: ",
    "a --squeeze 100": "--squeeze 100: must be at most the ",
    "a --squeeze 0": "--squeeze: '0' is not a whole number of 1 or more",
    "a --alpha 1,5": "--alpha: '1,5' must be numbers above 0 and up to 4",
    "a --rho 1/0": "--rho: '1/0' must be numbers above 0 and up to 4",
    "a --seconds 61": "--seconds: '61' must be a number from 0 to 60",
    "a --chart chart.pdf": "--chart chart.pdf: must end in .png or .html",
    "a --chart no/chart.png": "--chart no/chart.png: no folder no",
    "a --json {}": "--json {0}: would be written over {0}, or into it",
    "a --json {}/report.json": "--json {0}/report.json: would be written over {0}, or into it",
    "a --json .": "--json .: cannot be written",
    "a --json /dev/full": "--json /dev/full: cannot be written: No space left on device",
    "a --measure --threads 63": "--threads 63: TensorFlow already runs in this process",
    "a --unknown": "unrecognized arguments: --unknown",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_refused_in_one_line(arguments, broken, models, capsys):
    name, *options = arguments.split()
    path = broken / name
    options = [option.format(path) for option in options]
    measuring = [] if "--measure" in options else ["--no-measure"]
    assert __main__.main(["inspect", str(path), *measuring, *options]) == 1
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert [line.startswith("sepconv: error: ") for line in lines] == [True] and not printed.out
    assert REFUSED[arguments].format(path) in lines[0]


def test_a_name_that_is_nearly_right(capsys):
    assert __main__.main(["inspect", "Xceptoin", "--no-measure"]) == 1
    assert "did you mean Xception?" in capsys.readouterr().err
    assert __main__.main(["inspect", "mobilenet", "--no-measure"]) == 1
    assert "did you mean MobileNet?" in capsys.readouterr().err
    assert __main__.main(["inspect", "nofile", "--no-measure"]) == 1
    assert capsys.readouterr().err.endswith("nor an architecture of keras.applications\n")
    assert __main__.main([]) == 1
    assert "required: COMMAND" in capsys.readouterr().err


def test_help(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        __main__.main(["inspect", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "alpha^2 * rho^2" in printed and "float32" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_every_option_says_its_default(command):
    [commands] = [action for action in __main__.parser()._actions if action.choices]
    for action in commands.choices[command]._actions:
        if action.option_strings and action.dest != "help":
            assert "(default: " in action.help, action.option_strings


def test_the_version(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"sepconv {sepconv.__version__}, TensorFlow {tf.__version__}\n"


def test_it_runs_as_a_module(models):
    code = "import runpy, sys; sys.argv = ['sepconv', *sys.argv[1:]]; runpy.run_module('sepconv', run_name='__main__')"
    ended = attempt(code, "inspect", str(models["pb"]), "--no-measure")
    assert ended.status == 0 and "depthwise separable" in ended.output


def test_without_rich(models, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "rich.console", None)
    assert __main__.main(["inspect", str(models["pb"]), "--no-measure"]) == 1
    assert "pip install rich" in capsys.readouterr().err
