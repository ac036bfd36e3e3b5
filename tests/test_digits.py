"""The training example learns, through the op, and finds both curves of the loss equal, or says where they differ."""

import sys

import numpy as np
import pytest
from helpers import kernel_calls
from matplotlib.image import imread
from sepconv.examples import digits


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The program with some options; gives its exit status. It writes into `tmp_path`."""

    def main(*options):
        monkeypatch.setattr(sys, "argv", ["digits", "--output", str(tmp_path), *options])
        return digits.main()

    return main


def test_it_learns_with_equal_losses(run, capsys, monkeypatch, tmp_path):
    train, kept = digits.train, {}
    monkeypatch.setattr(digits, "train", lambda *arguments: kept.update(train(*arguments)) or kept)
    before = kernel_calls()
    assert run("--epochs", "4") == 0
    theirs, ours = kept.values()
    steps = len(ours.losses)
    assert np.array_equal(np.array(ours.losses).view(np.uint32), np.array(theirs.losses).view(np.uint32))
    assert ours.accuracies == theirs.accuracies and ours.accuracies[-1] >= 0.98
    assert kernel_calls() - before == len(digits.SEPARABLE) * (steps + 4)  # every layer, in the four tests too
    printed = capsys.readouterr().out
    assert f"all {steps} losses are equal to the last bit" in printed and "digits.png" in printed
    assert imread(tmp_path / "digits.png").std() > 0


def test_it_says_where_losses_differ(run, capsys, monkeypatch):
    theirs = np.float32([2, 1, 0.5])
    ours = np.float32([2, np.nextafter(np.float32(1), np.float32(2)), 0.5])
    runs = {
        name: digits.Run(None, list(losses), [0.5], [1.0] * 3)
        for name, losses in zip(digits.FUNCTIONS, (theirs, ours), strict=True)
    }
    monkeypatch.setattr(digits, "train", lambda *_: runs)
    assert run() == 1
    assert "the losses differ from step 2 on" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", ["0", "-1", "some"])
def test_epochs_that_cannot_be(epochs, run, capsys):
    with pytest.raises(SystemExit) as ended:
        run("--epochs", epochs)
    assert ended.value.code == 2
    assert f"--epochs: '{epochs}' is not a whole number of 1 or more" in capsys.readouterr().err


def test_a_folder_that_cannot_be(run, capsys, tmp_path):
    place = tmp_path / "file"
    place.touch()
    assert run("--output", str(place)) == 2
    assert f"digits: error: --output {place}: " in capsys.readouterr().err


def test_an_interrupt(run, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(digits, "train", interrupted)
    assert run() == 130 and capsys.readouterr().err.endswith("digits: interrupted\n")
