"""The driver's side: contenders, each a process of its own that may die or hang without harm to the run."""

import contextlib
import dataclasses
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmark.shapes import ROOT

LONGEST = 240  # seconds for one answer: a graph of 32 layers with their filters takes some
PYTHON = [sys.executable, "-m"]


class Failed(Exception):
    """A contender refused, died or hung; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A contender. `chained`: measured in a graph of many layers, else in whole calls. `needs`: a Python module."""

    name: str
    what: str
    command: list
    onednn: str = "1"
    chained: bool = False
    needs: str | None = None
    ours: bool = False


WORKER = ROOT / "target/release/examples/bench"


def _kinds():
    graphs, peers = [*PYTHON, "benchmark.graphs"], [*PYTHON, "benchmark.peers"]
    return [
        Kind("crate", "the Rust crate, filter packed once", [WORKER, "THREADS", "once"], ours=True),
        Kind("crate-packing", "the Rust crate, packing in every call", [WORKER, "THREADS", "every-call"], ours=True),
        Kind("op", "our op in a TensorFlow graph", [*graphs, "op", "THREADS"], chained=True, ours=True),
        Kind("tensorflow", "TensorFlow's graph, oneDNN on", [*graphs, "tensorflow", "THREADS"], chained=True),
        Kind("tensorflow-off", "the same, oneDNN off", [*graphs, "tensorflow", "THREADS"], "0", chained=True),
        Kind("litert", "LiteRT with XNNPACK", [*peers, "litert", "THREADS"], needs="ai_edge_litert"),
        Kind("onnxruntime", "ONNX Runtime", [*peers, "onnxruntime", "THREADS"], needs="onnxruntime"),
        Kind("openvino", "OpenVINO", [*peers, "openvino", "THREADS"], needs="openvino"),
    ]


KINDS = {kind.name: kind for kind in _kinds()}


class Process:
    """A process that answers JSON lines. Started when first asked, and again when asked after it died."""

    def __init__(self, command, folder, onednn="1"):
        self.command = [str(part) for part in command]
        self.log = Path(folder) / f"{id(self)}.log"
        self.onednn = onednn
        self.process = None
        self.unread = b""
        self.refused = None

    def start(self):
        if self.process is not None:
            return
        paths = [str(ROOT / "ci"), *filter(None, [os.environ.get("PYTHONPATH")])]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2", "PYTHONPATH": os.pathsep.join(paths)}
        environment = {**os.environ, **quiet, "TF_ENABLE_ONEDNN_OPTS": self.onednn}
        with open(self.log, "wb") as log:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            # A group of its own: Ctrl-C is the driver's to handle.
            self.process = subprocess.Popen(self.command, env=environment, start_new_session=True, **pipes)
        self.unread = b""

    def send(self, **request):
        """Asks; `receive` has the answer. Several processes may be at work between the two."""
        self.refused = None
        try:
            self.start()
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            self.refused = self._death() if self.process else f"{self.command[0]}: {error.strerror}"

    def receive(self, longest=LONGEST):
        if self.refused:
            raise Failed(self.refused)
        until = time.monotonic() + longest
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self.unread:
                if not selector.select(max(0, until - time.monotonic())):
                    self.stop()
                    raise Failed(f"no answer within {longest} s")
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    raise Failed(self._death())
                self.unread += data
        line, self.unread = self.unread.split(b"\n", 1)
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(" ".join(answer["error"].split())[:300])
        return answer

    def ask(self, longest=LONGEST, **request):
        self.send(**request)
        return self.receive(longest)

    def _death(self):
        """How it ended, with the last that it said."""
        process, self.process = self.process, None
        close(process)
        status = process.wait()
        ended = f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{ended}: {said[-1].strip()[:200]}" if said else ended

    def stop(self):
        """Ends it, with what it started."""
        if self.process is None:
            return
        process, self.process = self.process, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        close(process)


def close(process):
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # what was written to a dead process is still in there
            pipe.close()


class Contender(Process):
    """A kind with a number of threads."""

    def __init__(self, kind, threads, folder):
        command = [str(threads) if part == "THREADS" else part for part in kind.command]
        super().__init__(command, folder, kind.onednn)
        self.kind, self.threads = kind, threads
