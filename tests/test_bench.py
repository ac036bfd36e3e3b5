"""ci/bench: what it concludes from numbers, what it says of contenders that fail, and a run over one tiny layer."""

import copy
import io
import json
import os
import subprocess
import sys

import benchmark.__main__ as program
import pytest
from benchmark import report as reporting
from benchmark import shapes, targets
from benchmark.contender import KINDS, Failed, Process
from conftest import CI, ONEDNN, THREADS
from rich.console import Console

SPEEDS = {  # against TensorFlow with oneDNN on
    "crate": 1.9,
    "crate-packing": 1.6,
    "op": 1.7,
    "tensorflow": 1.0,
    "tensorflow-off": 0.8,
    "litert": 1.5,
    "onnxruntime": 1.4,
    "openvino": 1.3,
}
DTYPES = "float32", "training", "float64", "float16", "bfloat16"


def recorded():
    """A report in which every target is met: a peak of 100 GFLOP/s per thread, the crate at 95 of them."""
    layers, machine, threads = [], [], (1, 2)
    for name, shape in shapes.SHAPES.items():
        for count in threads:
            machine.append({"shape": name, "threads": count})
            machine[-1] |= {k: {"median": 100.0 * count, "best": 101.0 * count} for k in ("float32", "float64", "copy")}
            for contender, speed in SPEEDS.items():
                seconds = shape.operations / (95e9 * count) * SPEEDS["crate"] / speed
                row = {"shape": name, "threads": count, "contender": contender, "seconds": seconds, "best": seconds}
                for dtype in DTYPES if contender in ("op", "tensorflow") else DTYPES[:1]:
                    layers.append(row | {"dtype": dtype, "calls": 9})
    first = {"sepconv": {"first": 0.05, "second": 0.001}, "tensorflow": {"first": 0.02, "second": 0.001}}
    measured = {"seconds": 0.1, "best": 0.1, "calls": 5, "layers": 34, "ran": 34}
    networks = [{"network": "Xception, 299", "threads": 1, "contender": c, **measured} for c in ("op", "tensorflow")]
    report = {
        "layers": layers,
        "machine": machine,
        "instructions": "AVX-512",
        "first_calls": [{"shape": name, **first} for name in shapes.SHAPES],
        "eager": {"seconds": {"tensorflow": 1e-4, "sepconv": 3e-5, "bare": 2e-5}},
        "networks": networks,
        "processor": {"name": "a processor", "cores": 2, "features": ["avx512_bf16"]},
        "settings": {"links": 32, "filters": "constant"},
        "load_before": 0.1,
    }
    return report | {"targets": targets.evaluate(report)}


def recorded_models():
    """A report of whole models, in which every target is met."""
    rows = []
    for model, least in {**targets.MODELS, "NASNetMobile": 1.0}.items():
        for batch, threads in [(1, 1), (1, 2), (8, 1), (8, 2)]:
            row = {"model": model, "batch": batch, "threads": threads, "best": 1.0, "calls": 9}
            rows.append(row | {"contender": "tensorflow", "seconds": 1.1 * least})
            counts = {"replaced": 13, "layers": 14, "differing_bits": 0}
            rows.append(row | counts | {"contender": "op", "seconds": 1.0})
    report = recorded() | {"layers": [], "machine": [], "models": rows}
    return report | {"targets": targets.evaluate(report)}


def row_of(report, what):
    return [row for row in targets.evaluate(report) if row["what"].startswith(what)]


def text_of(report):
    console = Console(width=120, record=True, file=io.StringIO())
    reporting.show(report, console)
    return console.export_text()


def test_all_targets_met():
    report = recorded()
    assert [row["what"] for row in report["targets"] if not row["met"]] == []
    each, mean = row_of(report, "crate / best peer, 2")
    assert each["figure"] == pytest.approx(1.9 / 1.5) == mean["figure"] and each["shapes"] == 15
    assert row_of(report, "crate / FMA peak")[0]["figure"] == pytest.approx(0.95)
    assert row_of(report, "the Python function")[0]["figure"] == pytest.approx(10)
    # Only layers over 1 ms count, and not all of the 15 are.
    assert 0 < row_of(report, "crate, 2 threads / 1")[0]["shapes"] < 15


def test_one_slow_layer():
    report = recorded()
    for row in report["layers"]:
        if (row["shape"], row["threads"], row["contender"], row["dtype"]) == ("m4", 1, "crate", "float32"):
            row["seconds"] *= 1.5
    each, mean = row_of(report, "crate / best peer, 1")
    assert (each["met"], each["worst"]) == (False, "m4") and mean["met"]
    assert "missed" in text_of(report | {"targets": targets.evaluate(report)})


def test_what_was_not_measured_is_neither_met_nor_missed():
    report = recorded()
    for left_out in ("eager", "first_calls", "networks"):
        del report[left_out]
    report["layers"], report["machine"] = [row for row in report["layers"] if row["contender"] == "litert"], []
    report["targets"] = targets.evaluate(report)
    assert {row["met"] for row in report["targets"]} == {None}
    assert "unmeasured" in text_of(report)
    other = recorded()
    other["processor"]["features"] = ["avx2"]
    assert [row["met"] for row in row_of(other, "bfloat16")] == [None, None]


def test_whole_models(tmp_path):
    report = recorded_models()
    assert {(row["met"], row["shapes"]) for row in report["targets"]} == {(True, 4)} and len(report["targets"]) == 4
    assert row_of(report, "DeepLab head")[0]["figure"] == pytest.approx(2.2)
    assert "13 of 14" in text_of(report)
    assert [path.name for path in reporting.write(report, tmp_path)] == ["models.json"]
    slow, other, gone = [row for row in report["models"] if row["contender"] == "op"][::4][:3]
    slow["seconds"] *= 2
    other["differing_bits"] = 3
    del gone["seconds"]
    gone["error"] = "killed by SIGSEGV"
    report["targets"] = targets.evaluate(report)
    assert [(row["met"], row["note"], row["shapes"]) for row in report["targets"]] == [
        (False, "", 4),
        (False, "bits differ", 3),
        (True, "", 3),
        (True, "", 4),
    ]
    text = text_of(report)
    assert "DeepLab head, batch 1 (1): killed by SIGSEGV" in text
    assert "op: Xception, batch 1: bits differ from TensorFlow's" in text


def test_failures_are_shown():
    report = recorded()
    gone = [row for row in report["layers"] if (row["contender"], row["shape"]) == ("openvino", "tiny")]
    for row in gone:
        del row["seconds"]
        row["error"] = "killed by SIGSEGV"
    text = text_of(report)
    assert "openvino float32: tiny (1), tiny (2): killed by SIGSEGV" in text and "error" in text


def test_files_are_whole_or_not_there(tmp_path):
    report = recorded()
    reporting.write(report, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]
    assert targets.evaluate(json.loads((tmp_path / "report.json").read_text())) == report["targets"]
    before = (tmp_path / "report.json").read_bytes()
    broken = copy.deepcopy(report) | {"machine": [{"threads": 1}]}
    with pytest.raises(KeyError):
        reporting.write(broken, tmp_path)
    assert (tmp_path / "report.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--shapes", "mbv9"], ["--shapes", "'mbv9'", "mbv1_1"]),
        (["--contenders", "crate,mkl"], ["--contenders", "'mkl'", "openvino"]),
        (["--threads", "0"], ["--threads", "'0'", "1024"]),
        (["--seconds", "-1"], ["--seconds", "'-1'", "60"]),
        (["--rounds", "many"], ["--rounds", "'many'", "1000"]),
        (["--leave-out", "all"], ["--leave-out", "'all'", "networks"]),
        (["--shapes", ","], ["--shapes"]),
        (["--models", "MobileNetV9"], ["--models", "'MobileNetV9'", "Xception"]),
        (["--models", ","], ["--models"]),
        (["--batches", "1,257"], ["--batches", "'257'", "256"]),
    ],
    ids=str,
)
def test_wrong_options(given, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        program.arguments(given)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and all(word in said for word in words)


def test_contenders_that_fail(tmp_path):
    def process(code):
        return Process([sys.executable, "-c", code], tmp_path)

    with pytest.raises(Failed, match="ended with status 3: no such luck"):
        process("import sys; sys.stderr.write('no such luck\\n'); sys.exit(3)").ask(do="measure")
    with pytest.raises(Failed, match="killed by SIGABRT"):
        process("import os; os.abort()").ask(do="measure")
    with pytest.raises(Failed, match=r"no answer within 0\.2 s"):
        process("import time; time.sleep(60)").ask(0.2, do="measure")
    gone = process("print('{}')")
    gone.ask(do="measure")
    gone.process.wait()
    with pytest.raises(Failed, match="ended with status 0"):
        gone.ask(do="measure")
    with pytest.raises(Failed, match="nothing-here"):
        Process(["./nothing-here"], tmp_path).ask(do="measure")
    refusing = process('for _ in open(0): print(\'{"error": "not that"}\', flush=True)')
    for _ in range(2):
        with pytest.raises(Failed, match="not that"):
            refusing.ask(do="prepare")
    refusing.stop()


def test_the_arrays_of_networks_fit():
    for layers, count in zip(shapes.NETWORKS.values(), (13, 34), strict=True):
        assert len(layers) == count
        for (shape, pooling), (following, _) in zip(layers, layers[1:], strict=False):
            batch, height, width, channels = shape.output
            assert following.input == (batch, -(-height // pooling), -(-width // pooling), channels)


def test_all_models_are_measured_unless_some_are_named():
    assert program.arguments(["--models"]).models == [*shapes.INPUTS] and program.arguments([]).models is None
    assert set(targets.MODELS) < set(shapes.INPUTS)


@pytest.mark.skipif(not ONEDNN or THREADS > 1, reason="its processes have modes of their own")
def test_a_run_of_a_model(tmp_path, monkeypatch):
    """Of a small image, so that the processes' start is what takes time."""
    monkeypatch.setitem(shapes.INPUTS, shapes.HEAD, (9, 9, 32))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(CI), *filter(None, sys.path)]))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    options = ["--models", shapes.HEAD, "--batches", "1", "--threads", "1", "--rounds", "1", "--seconds", "0.01"]
    console = Console(file=io.StringIO())
    assert program.run(program.arguments([*options, "--output", str(tmp_path)]), console) == 0
    theirs, ours = sorted(json.loads((tmp_path / "models.json").read_text())["models"], key=lambda row: len(row))
    assert (theirs["contender"], ours["contender"]) == ("tensorflow", "op") and theirs["calls"] > 0 < ours["calls"]
    assert (ours["replaced"], ours["layers"], ours["differing_bits"]) == (5, 5, 0)


def test_a_run(tmp_path):
    options = ["--shapes", "tiny", "--contenders", "op,tensorflow", "--threads", "1", "--rounds", "1", "--links", "3"]
    options += ["--seconds", "0.01", "--leave-out", "dtypes,eager,first,machine,networks", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(CI), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "benchmark", *options]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "op / TF on" in result.stdout and "bits equal" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.png"]
    layers = json.loads((tmp_path / "report.json").read_text())["layers"]
    assert {row["contender"] for row in layers} == {"op", "tensorflow"} <= set(KINDS)
    assert all(row["calls"] > 0 and row["difference"] < 1e-4 for row in layers)
