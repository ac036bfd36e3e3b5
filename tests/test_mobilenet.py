"""The Rust example gives the bits of Keras's MobileNet from an exported file; what it cannot use it refuses."""

import json
import os
import pathlib
import shutil
import subprocess

import keras
import numpy as np
import pytest
from conftest import SEED, THREADS
from fresh import attempt, in_fresh_process
from helpers import bits
from safetensors.numpy import load_file, save_file
from sepconv.examples import mobilenet_export

ROOT = pathlib.Path(__file__).parents[1]
ALPHA, SIZE, BATCH, CLASSES = 0.25, 64, 2, 100

EXPORT = """
import sys
from sepconv.examples import mobilenet_export
sys.exit(mobilenet_export.main())
"""

# The model as a server would run it: a function, filters in variables; and what its parts give, by the file's names.
# Then the same function, rewritten.
KERAS = """
import sys
import tensorflow as tf
weights, input, output, threads = sys.argv[1:]
tf.config.threading.set_intra_op_parallelism_threads(int(threads))
import keras
from safetensors.numpy import load_file, save_file
model = keras.models.load_model(weights)
# Its name has a number that depends on what else was built.
[pooling] = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
layers = {"features": model.get_layer("conv_pw_13_relu"), "pooled": pooling, "logits": model.get_layer("reshape_2")}
outputs = {name: layer.output for name, layer in layers.items()} | {"probabilities": model.output}
parts = keras.Model(model.inputs, outputs)
images = tf.constant(load_file(input)["input"])
function = tf.function(lambda images: parts(images, training=False)).get_concrete_function(images)
results = function(images)
import sepconv
rewritten = sepconv.rewrite(function)
assert len(rewritten.report.replaced) == 14, str(rewritten.report)
results |= {f"rewritten {name}": result for name, result in rewritten.model(images).items()}
save_file({name: result.numpy() for name, result in results.items()}, output)
"""


@pytest.fixture(scope="module")
def program():
    """The example, built: in `CARGO_TARGET_DIR` or this tree's own folder."""
    cargo = shutil.which("cargo", path=f"{os.environ['PATH']}:{pathlib.Path.home() / '.cargo/bin'}")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    build = [cargo, "build", "--release", "--locked", "-q", "-p", "sepconv", "--example", "mobilenet"]
    subprocess.run(build, cwd=ROOT, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)
    return target / "release/examples/mobilenet"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("narrow"), ALPHA, SIZE, BATCH)


@pytest.fixture(scope="module")
def wide_files(tmp_path_factory):
    """Of the usual width, where 1x1 convolutions add up to 1024 products."""
    return exported(tmp_path_factory.mktemp("wide"), 1, 32, 1)


def exported(folder, alpha, size, batch):
    """A folder with a model and what is exported of it, in this mode, and images."""
    model = keras.applications.MobileNet((size, size, 3), alpha, classes=CLASSES, weights=None)
    mobilenet_export.randomise(model, SEED)
    model.save(folder / "model.keras")
    options = ["--alpha", str(alpha), "--size", str(size), "--classes", str(CLASSES), "--batch", str(batch)]
    options += ["--threads", str(THREADS), "--weights", str(folder / "model.keras")]
    printed = in_fresh_process(EXPORT, str(folder / "weights.safetensors"), *options)
    assert "83 tensors" in printed and "13 blocks' orders" in printed
    images = np.random.default_rng(SEED).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    save_file({"input": images}, folder / "images.safetensors")
    return folder


@pytest.fixture
def run(program):
    """The program with some options; few runs, because nobody looks at the times."""

    def with_options(*options, runs=3):
        command = [program, "--runs", str(runs), *map(str, options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return with_options


def metadata_of(path):
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])["__metadata__"]


def refused(ended):
    """The one line on the standard error, of a program that did nothing."""
    assert ended.returncode == 1 and ended.stdout == ""
    line = ended.stderr.removesuffix("\n")
    assert line.startswith("mobilenet: error: ") and "\n" not in line
    return line


@pytest.mark.parametrize("width", ["files", "wide_files"])
def test_bits_are_tensorflows(width, request, run):
    files = request.getfixturevalue(width)
    weights, images, ours, theirs = (files / f"{name}.safetensors" for name in ("weights", "images", "ours", "theirs"))
    ended = run("--weights", weights, "--input", images, "--output", ours, "--threads", 2)
    assert ended.returncode == 0, ended.stderr
    assert (
        ended.stdout.count("images per second") == 2
        and f"image {len(load_file(images)['input']) - 1}: classes" in ended.stdout
    )
    in_fresh_process(KERAS, str(files / "model.keras"), str(images), str(theirs), str(THREADS))
    ours, theirs = load_file(ours), load_file(theirs)
    for name in ("features", "pooled", "logits"):
        expected = theirs[name].reshape(ours[name].shape)
        assert np.unique(expected).size > expected.size / 4, f"{name}: too many alike to show anything"
        assert np.array_equal(bits(ours[name]), bits(expected)), name
        assert np.array_equal(bits(theirs[f"rewritten {name}"]), bits(theirs[name])), name
    # TensorFlow's exponential function is its own: a few units in the last place.
    np.testing.assert_allclose(ours["probabilities"], theirs["probabilities"], rtol=1e-5)


def test_another_order_gives_other_bits(files, run, tmp_path):
    weights, changed = files / "weights.safetensors", tmp_path / "changed.safetensors"
    metadata = metadata_of(weights)
    assert "pointwise(fused, 256)" in metadata["numerics.block_13"]
    changes = {"numerics.block_13": metadata["numerics.block_13"].replace("256", "16x16")}
    save_file(load_file(weights), changed, metadata | changes)
    results = []
    for file in (weights, changed):
        assert run("--weights", file, "--output", tmp_path / "output.safetensors", "--threads", 1).returncode == 0
        results.append(load_file(tmp_path / "output.safetensors"))
    before, after = results
    assert np.mean(bits(before["features"]) != bits(after["features"])) > 0.1
    np.testing.assert_allclose(after["features"], before["features"], rtol=1e-3, atol=1e-4)


def test_random_weights_have_the_width_and_the_size_that_are_asked_for(run, tmp_path):
    output = tmp_path / "output.safetensors"
    ended = run("--alpha", 0.5, "--rho", 3 / 7, "--output", output, "--threads", 1)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("images per second") == 1
    features = load_file(output)["features"]
    assert features.shape == (1, 3, 3, 512) and np.unique(features).size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", 0.5], "--alpha 0.5: the weights are for 0.25"),
        (["--rho", 1], "--rho 1: the weights are for 0.2857, images of 64x64"),
        (["--batch", 3], "--batch 3: the weights' orders of sums are for 2"),
        (["--threads", 2000], "--threads must be 1 to 1024, got 2000"),
        (["--threads", "many"], "invalid value 'many' for '--threads <THREADS>'"),
        (["--input", "none.safetensors"], "none.safetensors: No such file"),
    ],
)
def test_options_that_do_not_fit(options, message, files, run):
    assert message in refused(run("--weights", files / "weights.safetensors", *options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", -1], "--alpha must be a finite number above 0, got -1"),
        (["--alpha", "nan"], "--alpha must be a finite number above 0, got NaN"),
        (["--alpha", 0.01], "--alpha 0.01, --rho 1, --batch 1: alpha must leave the first layer 1 to 128 of its 32"),
        (["--alpha", 1e9], "alpha must leave the first layer 1 to 128 of its 32 channels, got 1000000000"),
        (["--rho", 0], "--rho must be a finite number above 0, got 0"),
        (["--rho", "nan"], "--rho must be a finite number above 0, got NaN"),
        (["--rho", "inf"], "--rho must be a finite number above 0, got inf"),
        (["--rho", 0.1], "--rho 0.1, --batch 1: images must be 32 or more pixels high and wide"),
        (["--rho", 1e9], "images must be 32 or more pixels high and wide"),
        (["--batch", 0], "got 0 of 224x224"),
        (["--input", "none.safetensors"], "none.safetensors: No such file"),
        (["--output", "/nowhere/x.safetensors"], "--output /nowhere/x.safetensors: there is no folder /nowhere"),
        (["--output", "/"], "--output /: it must be a file, and is a folder"),
    ],
)
def test_networks_that_cannot_be(options, message, run):
    assert message in refused(run(*options))


def test_no_runs(run):
    assert "--runs must be 1 to 1024, got 0" in refused(run(runs=0))


def test_files_that_cannot_be_used(files, run, tmp_path):
    whole, broken = files / "weights.safetensors", tmp_path / "broken.safetensors"
    tensors, metadata = load_file(whole), metadata_of(whole)

    def line(data):
        broken.write_bytes(data) if isinstance(data, bytes) else save_file(*data[:1], broken, *data[1:])
        found = refused(run("--weights", broken))
        assert str(broken) in found or "block_3" in found
        return found

    assert "none.safetensors: No such file" in refused(run("--weights", tmp_path / "none.safetensors"))
    assert "not a safetensors file, or not whole" in line(whole.read_bytes()[:-1])
    assert "not a safetensors file, or not whole" in line(b"")
    assert "its metadata has no `format`" in line((tensors,))
    assert "its format must be `sepconv mobilenet 1`, got `2`" in line((tensors, metadata | {"format": "2"}))
    assert "its metadata's `alpha` must be a number, got `wide`" in line((tensors, metadata | {"alpha": "wide"}))
    assert "`conv1.filter` must be [3, 3, 3, 16] of F32" in line((tensors, metadata | {"alpha": "0.5"}))
    assert "images must be 32 or more pixels high and wide" in line((tensors, metadata | {"resolution": "0"}))
    without = {name: tensor for name, tensor in tensors.items() if name != "conv_pw_7.scale"}
    assert "it has no tensor `conv_pw_7.scale`" in line((without, metadata))
    order = "v1 depthwise(fused, all) pointwise(fused, {}) subnormals(flushed)"
    fits_not = line((tensors, metadata | {"numerics.block_3": order.format("7+7")}))
    assert "block_3: numerics: the sum `7x2` adds 14 products, but there are 32" in fits_not
    no_text = line((tensors, metadata | {"numerics.block_3": order.format("some")}))
    assert "numerics of block_3: expected" in no_text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "none"], "argument --alpha: "),
        (["--alpha", "-1"], "argument --alpha: '-1' is not a number above 0"),
        (["--size", "0"], "argument --size: "),
        (["--size", "8", "--alpha", "0.1"], ""),
        (["--weights", "none.weights.h5"], "--weights none.weights.h5: "),
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number of 0 or more"),
        ([], "output /nowhere/weights.safetensors: no folder /nowhere"),
    ],
)
def test_exports_that_cannot_be(options, message, tmp_path):
    place = str(tmp_path / "weights.safetensors") if options else "/nowhere/weights.safetensors"
    ended = attempt(EXPORT, place, *options)
    assert ended.status == 1 and ended.output == ""
    assert f"mobilenet_export: error: {message}" in ended.errors and "Traceback" not in ended.errors
