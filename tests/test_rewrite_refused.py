"""What rewrite and restore cannot use they refuse in one line, before any work; nothing is half-written, nor lost."""

import errno
import os
import pathlib
import resource
import shutil
import threading

import numpy as np
import pytest
import sepconv
import tensorflow as tf
from conftest import THREADS
from fresh import attempt
from rewriting import COMMAND, PLAIN, SAVED, command, graph_of
from sepconv import __main__, _check

v1 = tf.compat.v1


def broken(folder, content=b"\xff\xff nonsense"):
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(content)


# What is refused, of a model and a place; and where something may be replaced.
BAD = {
    "no such file or folder": lambda here: (here / "none", here / "out"),
    "is broken": lambda here: (broken(here / "in"), (here / "in", here / "out"))[1],
    "holds no graph": lambda here: (broken(here / "in", b""), (here / "in", here / "out"))[1],
    "is no SavedModel": lambda here: ((here / "in").mkdir(), (here / "in", here / "out"))[1],
    "model.export": lambda here: ((here / "in.keras").write_bytes(b""), (here / "in.keras", here / "out"))[1],
    "is there already": lambda here: (here / "good", here / "good"),
    "lies within": lambda here: (broken(here / "in"), (here / "in", here / "in" / "out"))[1],
    "cannot be written": lambda here: (here / "good", here / "good" / "out"),
    "such folder|No such": lambda here: (here / "good", here / "none" / "out"),
    "TensorFlow cannot read": lambda here: (here / "unknown", here / "out"),
    "assets/x: cannot be copied to .*out: No such": lambda here: (
        (shutil.copytree(SAVED, here / "in"), (here / "in/assets").mkdir(), (here / "in/assets/x").symlink_to("none")),
        (here / "in", here / "out"),
    )[1],
}
OVERWRITING = {
    "holds the model .*, which would be gone": lambda here: (here / "good", here),
    "a folder without saved_model.pb, and only a model": lambda here: (
        SAVED,
        (here / "notes").mkdir() or here / "notes",
    ),
    "is a folder, and what is written would be a file": lambda here: (
        here / "good",
        shutil.copytree(SAVED, here / "out"),
    ),
    "is a file, and what is written would be a folder": lambda here: (SAVED, here / "good"),
}


def contents(folder) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


@pytest.fixture
def good(tmp_path: pathlib.Path, arrays):
    """A file with a model that has a layer of each kind."""
    x, *filters = arrays

    def build(x):
        return sum(function(x, *filters, **PLAIN) for function in (tf.nn.separable_conv2d, sepconv.separable_conv2d))

    (tmp_path / "good").write_bytes(graph_of(build, x.shape).SerializeToString())
    return tmp_path / "good"


@pytest.mark.parametrize("function", [sepconv.rewrite, sepconv.restore], ids=lambda function: function.__name__)
@pytest.mark.parametrize("what", [*BAD, *OVERWRITING])
def test_bad_input(what, function, good, tmp_path: pathlib.Path):
    """One line, and nothing half-written."""
    unknown = v1.GraphDef.FromString(good.read_bytes())
    unknown.node[0].op = "NoSuchOp"
    (tmp_path / "unknown").write_bytes(unknown.SerializeToString())
    given = (BAD | OVERWRITING)[what](tmp_path)
    before = contents(tmp_path)
    with pytest.raises(sepconv.BadModel, match=what) as refused:
        function(*given, overwrite=what in OVERWRITING)
    assert "\n" not in str(refused.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_model_is_replaced_by_its_own_result(folder, good, tmp_path: pathlib.Path, monkeypatch):
    """Or stays where it is, if the result cannot have its name."""
    model = shutil.copytree(SAVED, tmp_path / "model") if folder else good
    before, rename = contents(tmp_path), pathlib.Path.rename

    def refused(path, target):
        if path.name == "new":
            raise PermissionError(errno.EPERM, "Not now")
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", refused)
    with pytest.raises(sepconv.BadModel, match="model|good: cannot be written: Not now"):
        sepconv.restore(model, model, overwrite=True)
    assert contents(tmp_path) == before
    monkeypatch.undo()
    assert sepconv.restore(model, model, overwrite=True).report.replaced
    after = contents(tmp_path)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert {path.name for path in changed} - {"fingerprint.pb"} == {"saved_model.pb" if folder else "good"}
    assert not sepconv.restore(model, tmp_path / "again").report.layers


@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_a_disk_that_is_full(folder, tmp_path: pathlib.Path):
    """As a limit of what a file may hold: it shows up in the midst of writing."""
    model, ours = tmp_path / "model", tmp_path / "ours"
    if folder:
        module = tf.Module()
        module.numbers = tf.Variable(tf.ones([4096]))
        tf.saved_model.save(module, str(model))
        shutil.copytree(model, ours)
        (ours / "notes").write_text("mine")
    else:
        model.write_bytes(graph_of(lambda x: x + np.ones(4096, np.float32), [4096]).SerializeToString())
        ours.write_bytes(b"another")
    before, limits = contents(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(sepconv.BadModel, match="cannot be (copied to|written).*: File too large") as refused:
            sepconv.rewrite(model, ours, overwrite=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(refused.value) and str(ours) in str(refused.value)
    assert contents(tmp_path) == before


def test_a_folder_that_is_not_writable(tmp_path: pathlib.Path):
    """Its copy is: whoever may not write where they like could neither write into it nor remove it."""
    model = shutil.copytree(SAVED, tmp_path / "model")
    for folder in (model / "variables", model):
        folder.chmod(0o555)
    assert sepconv.restore(model, tmp_path / "restored").report.replaced
    assert {path.stat().st_mode & 0o777 for path in (model, model / "variables")} == {0o555}
    assert {(tmp_path / "restored" / name).stat().st_mode & 0o700 for name in (".", "variables")} == {0o700}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "restored"]


ENDED = """
import os, signal
from sepconv import _check, _files
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's & may have left ignored
def end(*_, **__):
    os.kill(os.getpid(), signal.{signal})
{function} = end
"""


@pytest.mark.parametrize("signal, status, said", [("SIGTERM", 143, "terminated"), ("SIGINT", 130, "interrupted")])
def test_a_command_that_is_ended(signal, status, said, tmp_path: pathlib.Path):
    """Nothing half-written stays, and a model whose check was ended does not look as if it were checked."""
    copying = ENDED.format(signal=signal, function="_files.shutil.copytree")
    ended = attempt(copying + COMMAND, "restore", str(SAVED), str(tmp_path / "out"))
    assert (ended.status, ended.output, [*tmp_path.iterdir()]) == (status, "", [])
    assert ended.errors.splitlines()[-1] == f"sepconv: {said}"
    checking = ENDED.format(signal=signal, function="_check._finish")
    ended = attempt(checking + COMMAND, "rewrite", str(SAVED), str(tmp_path / "out"), "--check")
    assert (ended.status, [path.name for path in tmp_path.iterdir()]) == (status, ["out"])
    assert ended.errors.splitlines()[-1] == f"sepconv: {said}: {tmp_path / 'out'} is written, but was not checked"


def test_a_model_from_a_pipe(good, tmp_path: pathlib.Path):
    """Is read once, also where it stays as it is."""
    os.mkfifo(tmp_path / "pipe")
    content = graph_of(lambda x: x + 1, [2]).SerializeToString()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content]).start()
    assert not sepconv.rewrite(tmp_path / "pipe", tmp_path / "copy").report.layers
    assert (tmp_path / "copy").read_bytes() == content


def test_the_commands_error_is_one_line(tmp_path: pathlib.Path):
    ended = command("rewrite", tmp_path / "none", tmp_path / "out")
    lines = [line for line in ended.errors.splitlines() if "sepconv" in line]
    assert ended.status == 1 and lines == [f"sepconv: error: {tmp_path / 'none'}: no such file or folder"]
    assert "Traceback" not in ended.errors


# Options, and what is said of them.
REFUSED = {
    "--inputs none.npz": "--inputs none.npz: no such file",
    "--inputs broken.npz": "--inputs broken.npz: is no npz file",
    "--inputs text.npz": "--inputs text.npz: cannot be read: ",
    "--inputs other.npz": "--inputs other.npz: has the arrays y, and good takes x0",
    "--json .": "--json .: cannot be written",
    "--json none/report.json": "--json none/report.json: no folder none",
    "--json good": "--json good: would be written over good, or into it",
    "--json out": "--json out: would be written over out, or into it",
    "--inputs good.npz --json ./good.npz": "--json good.npz: would be written over good.npz, or into it",
    "--seed -1": "argument --seed: '-1' is not a whole number of 0 or more",
}


@pytest.mark.parametrize("options", REFUSED)
def test_what_cannot_be_used_is_said_before_any_work(options, good, tmp_path: pathlib.Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("broken.npz").write_bytes(b"zzz")
    np.savez("text.npz", x0=np.array([object()]))
    np.savez("good.npz", x0=np.ones(2))
    np.savez("other.npz", y=np.ones(2))
    before = contents(tmp_path)
    assert __main__.main(["rewrite", "good", "out", "--check", *options.split()]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"sepconv: error: {REFUSED[options]}")
    assert contents(tmp_path) == before


def test_what_lies_within_a_model_or_is_a_pipe_is_said_before_any_work(tmp_path: pathlib.Path, capsys):
    model = shutil.copytree(SAVED, tmp_path / "model")
    os.mkfifo(tmp_path / "pipe")
    for given, options, said in (
        (
            model,
            ["--json", model / "report.json"],
            f"--json {model / 'report.json'}: would be written over {model}, or",
        ),
        (tmp_path / "pipe", ["--check"], f"--check: {tmp_path / 'pipe'} can be read only once"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert __main__.main([*map(str, ["rewrite", given, tmp_path / "out", *options])]) == 1
        assert said in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


def test_what_a_check_cannot_run(tmp_path: pathlib.Path, monkeypatch, capsys):
    """The words of the processes that run the models, in this one."""
    text, numbers, silent, inputs = [str(tmp_path / name) for name in ("text", "numbers", "silent", "inputs.npz")]
    pathlib.Path(text).write_bytes(graph_of(tf.strings.length, [2], dtype=tf.string).SerializeToString())
    pathlib.Path(numbers).write_bytes(graph_of(lambda x: x + 1, [2]).SerializeToString())
    tf.saved_model.save(tf.Module(), silent)
    np.savez(inputs, other=np.ones(2))
    for model, given, said in (
        (text, "", "no random numbers fit the input x0 (string, (2,)): give some (--inputs)"),
        (numbers, inputs, "the file of inputs has no array x0, only other"),
        (silent, "", "it has no signature with outputs"),
    ):
        monkeypatch.setattr("sys.argv", ["", model, given, "0", str(tmp_path / "results.npz"), str(THREADS)])
        with pytest.raises(SystemExit) as ended:
            _check._main()
        assert ended.value.code == 1 and capsys.readouterr().out == f"sepconv: {said}\n"


def test_arguments_of_other_types():
    for given, said in (
        (("model",), "output must say where the result is written"),
        ((v1.GraphDef(), "output"), "output is for a model that is given by its path"),
        ((3,), "model must be a GraphDef, a concrete function or a path, got int; a Keras model is exported first"),
    ):
        for function in (sepconv.rewrite, sepconv.restore):
            with pytest.raises(TypeError, match=said):
                function(*given)
