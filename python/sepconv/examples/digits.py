"""Learns handwritten digits with TensorFlow's separable convolution and with sepconv's, and compares every loss.

`python -m sepconv.examples.digits` trains one small network in the manner of Xception (separable convolutions, batch
normalisation, residual connections) once with each function, from the same seeds: scikit-learn's 1797 scans of 8x8
pixels, a fifth kept for the test. It prints the accuracy, the time of a step and whether both curves of the loss are
equal to the last bit, and plots the curves. Exit status: 0 equal, 1 they differ, 2 it could not run.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

try:
    import numpy as np
    import tensorflow as tf
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ModuleNotFoundError as missing:
    needs = "pip install tensorflow-cpu scikit-learn matplotlib rich"
    print(f"digits: error: no module {missing.name}: {needs}", file=sys.stderr)
    sys.exit(2)

import sepconv
from sepconv.examples._common import (
    SEPCONV_COLOR,
    TENSORFLOW_COLOR,
    positive,
    shown,
    status_of,
    writable_folder,
)

FUNCTIONS = {"tf.nn.separable_conv2d": tf.nn.separable_conv2d, "sepconv.separable_conv2d": sepconv.separable_conv2d}
COLORS = dict(zip(FUNCTIONS, (TENSORFLOW_COLOR, SEPCONV_COLOR), strict=True))
SEED = 2
BATCH = 32
LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
BN_MOMENTUM, BN_EPSILON = 0.9, 1e-3

# Every separable layer's channels; strides are 1.
SEPARABLE = {
    **{"entry1": (32, 64), "entry2": (64, 64)},
    **{"middle1": (64, 64), "middle2": (64, 64), "middle3": (64, 64)},
    "exit": (64, 128),
}


# The digits


def digits():
    """Images in 0 to 1 and labels: of the training set, then of the test set."""
    data = load_digits()
    images, labels = data.images[..., np.newaxis].astype(np.float32) / 16, data.target.astype(np.int32)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=SEED, stratify=labels
    )
    return (train_images, train_labels), (test_images, test_labels)


def batches(images, labels, epochs):
    """Every step's images, each moved by up to a pixel, and labels, the same in every run; a rest is left out."""
    random = np.random.default_rng(SEED)
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    moved = np.lib.stride_tricks.sliding_window_view(padded[..., 0], images.shape[1:3], (1, 2))
    for _ in range(epochs):
        order = random.permutation(len(images))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[start : start + BATCH]
            down, right = random.integers(0, 3, (2, BATCH))
            yield tf.constant(moved[chosen, down, right][..., np.newaxis]), tf.constant(labels[chosen])


# The network


class Xception(tf.Module):
    """Logits of digits, by a function with the signature of `tf.nn.separable_conv2d`."""

    def __init__(self, separable_conv2d):
        super().__init__()
        self.separable_conv2d = separable_conv2d
        self.random = np.random.default_rng(SEED)
        self.filters = {"first": self.filter(3, 3, 1, 32), "shortcut": self.filter(1, 1, 32, 64)}
        for name, (in_channels, out_channels) in SEPARABLE.items():
            self.filters[f"{name}/depthwise"] = self.filter(3, 3, in_channels, 1)
            self.filters[f"{name}/pointwise"] = self.filter(1, 1, in_channels, out_channels)
        self.filters["last"] = self.filter(1, 1, 128, 10)
        channels = {"first": 32, "shortcut": 64} | {name: channels for name, (_, channels) in SEPARABLE.items()}
        self.scale = {name: tf.Variable(tf.ones([n])) for name, n in channels.items()}
        self.offset = {name: tf.Variable(tf.zeros([n])) for name, n in channels.items()}
        self.mean = {name: tf.Variable(tf.zeros([n]), trainable=False) for name, n in channels.items()}
        self.variance = {name: tf.Variable(tf.ones([n]), trainable=False) for name, n in channels.items()}
        self.velocities = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in self.trainable_variables]

    def filter(self, height, width, in_channels, out_channels):
        shape = height, width, in_channels, out_channels
        products = height * width * (in_channels if out_channels > 1 else 1)
        return tf.Variable(self.random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / products)))

    def normalised(self, name, x, training):
        mean, variance = self.mean[name], self.variance[name]
        if training:
            moments = tf.nn.moments(x, [0, 1, 2])
            for moving, moment in zip((mean, variance), moments, strict=True):
                moving.assign(BN_MOMENTUM * moving + (1 - BN_MOMENTUM) * moment)
            mean, variance = moments
        return tf.nn.batch_normalization(x, mean, variance, self.offset[name], self.scale[name], BN_EPSILON)

    def separable(self, name, x, training):
        filters = [self.filters[f"{name}/{kind}"] for kind in ("depthwise", "pointwise")]
        return self.normalised(name, self.separable_conv2d(x, *filters, [1, 1, 1, 1], "SAME"), training)

    def __call__(self, images, training):
        x = tf.nn.relu(self.normalised("first", tf.nn.conv2d(images, self.filters["first"], 1, "SAME"), training))
        shortcut = self.normalised("shortcut", tf.nn.conv2d(x, self.filters["shortcut"], 2, "SAME"), training)
        x = self.separable("entry2", tf.nn.relu(self.separable("entry1", x, training)), training)
        x = shortcut + tf.nn.max_pool2d(x, 3, 2, "SAME")
        y = x
        for name in ("middle1", "middle2", "middle3"):
            y = self.separable(name, tf.nn.relu(y), training)
        x = tf.nn.relu(self.separable("exit", x + y, training))
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        return tf.nn.conv2d(x, self.filters["last"], 1, "VALID")[:, 0, 0]

    @tf.function
    def step(self, images, labels, rate):
        """One step down the gradient, with Nesterov's momentum; gives the loss before it."""
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, self(images, training=True))
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        for variable, velocity, gradient in zip(variables, self.velocities, gradients, strict=True):
            gradient += DECAY * variable
            velocity.assign(MOMENTUM * velocity + gradient)
            variable.assign_sub(rate * (gradient + MOMENTUM * velocity))
        return loss

    @tf.function
    def accuracy(self, images, labels):
        """The share of images whose largest logit is the label's."""
        found = tf.argmax(self(images, training=False), axis=1, output_type=labels.dtype)
        return tf.reduce_mean(tf.cast(found == labels, tf.float32))


# The training


@dataclass
class Run:
    """One network's training."""

    network: Xception
    losses: list = field(default_factory=list)  # of every step
    accuracies: list = field(default_factory=list)  # on the test set, after every epoch
    times: list = field(default_factory=list)  # of every step, in ms


def train(epochs, tick):
    """Trains a network with each function, in turn step by step, so that both see the same machine; runs by name."""
    training, test = digits()
    test = [tf.constant(array) for array in test]
    per_epoch = len(training[0]) // BATCH
    runs = {name: Run(Xception(function)) for name, function in FUNCTIONS.items()}
    for index, (images, labels) in enumerate(batches(*training, epochs)):
        # Half a cosine, from LEARNING_RATE to nothing.
        rate = tf.constant(LEARNING_RATE * (1 + np.cos(np.pi * index / (epochs * per_epoch))) / 2, tf.float32)
        for run in list(runs.values())[:: 1 if index % 2 else -1]:
            start = time.perf_counter()
            run.losses.append(run.network.step(images, labels, rate).numpy())
            run.times.append(1e3 * (time.perf_counter() - start))
        if (index + 1) % per_epoch == 0:
            for run in runs.values():
                run.accuracies.append(float(run.network.accuracy(*test)))
            tick()
    return runs


def first_difference(runs):
    """The first step, from 1, whose losses have other bits, or None."""
    ours, theirs = (np.array(run.losses, np.float32).view(np.uint32) for run in runs.values())
    differing = np.flatnonzero(ours != theirs)
    return int(differing[0]) + 1 if differing.size else None


# What is shown


def table(runs):
    view = Table(box=None, padding=(0, 2, 0, 0))
    view.add_column("trained with", no_wrap=True)
    for heading in ("last loss", "test accuracy", "step ms"):
        view.add_column(heading, justify="right", no_wrap=True)
    for name, run in runs.items():
        step = statistics.median(run.times)
        view.add_row(name, f"{run.losses[-1]:.6f}", f"{run.accuracies[-1]:.2%}", f"{step:.2f}")
    return view


def draw(runs, verdict, path):
    """Loss and accuracy, sepconv's curve thin over TensorFlow's thick one."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"Handwritten digits: {verdict}", fontsize=11)
    panels = figure.subplots(1, 2)
    for (name, run), width in zip(runs.items(), (4, 1.2), strict=True):
        style = {"label": name, "color": COLORS[name], "linewidth": width}
        steps = np.arange(1, len(run.losses) + 1)
        panels[0].plot(steps, run.losses, **style)
        panels[1].plot(np.arange(1, len(run.accuracies) + 1), run.accuracies, marker=".", **style)
    panels[0].set(xlabel="step", ylabel="training loss", yscale="log")
    panels[1].set(xlabel="epoch", ylabel="test accuracy")
    panels[1].yaxis.set_major_formatter("{x:.1%}")
    panels[1].xaxis.get_major_locator().set_params(integer=True)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=150)


# The program


def arguments():
    parser = argparse.ArgumentParser(prog="digits", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--epochs", type=positive, default=12, help="times that every image is learnt from (default %(default)s)")
    add("--output", type=Path, default="target/digits", metavar="DIR", help="folder for the plot (default %(default)s)")
    return parser.parse_args()


def run(options, console):
    """The whole program; gives the exit status."""
    writable_folder(options.output)
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("epochs"), TimeElapsedColumn())
    # No refreshing thread: it would take time from what is measured.
    with Progress(*columns, console=console, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("training", total=options.epochs)
        runs = train(options.epochs, lambda: progress.update(task, advance=1, refresh=console.is_terminal))

    console.print(table(runs))
    theirs, ours = (statistics.median(run.times) for run in runs.values())
    console.print(f"\nMedians over all steps, taken in turn; TensorFlow's over sepconv's: {theirs / ours:.2f}.")
    console.print(f"sepconv's kernels ran {sepconv.stats()['kernel_calls']} times in all.")
    step, steps = first_difference(runs), len(runs["sepconv.separable_conv2d"].losses)
    verdict = f"the losses differ from step {step} on" if step else f"all {steps} losses are equal to the last bit"
    console.print(f"[{'red' if step else 'green'}]{verdict}")
    plot = options.output / "digits.png"
    draw(runs, verdict, plot)
    console.print(f"wrote {shown(plot)}", soft_wrap=True, markup=False)
    return 1 if step else 0


def main():
    options = arguments()
    return status_of("digits", lambda: run(options, Console(highlight=False)), refused=2)


if __name__ == "__main__":
    sys.exit(main())
