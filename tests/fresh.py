"""Processes that have imported TensorFlow and done nothing else, forked off one that has: importing takes seconds."""

import dataclasses
import multiprocessing
import os
import pathlib
import sys
import tempfile

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tensorflow"])
_PATIENCE = 600  # seconds


@dataclasses.dataclass
class Ended:
    """How a process ended (below zero: by that signal), and what it printed."""

    status: int
    output: str
    errors: str


def attempt(code: str, *arguments: str) -> Ended:
    """Runs Python code with this process's mode, whatever becomes of it."""
    with tempfile.TemporaryDirectory() as folder:
        places = [pathlib.Path(folder, name) for name in ("output", "errors")]
        for place in places:
            place.touch()
        process = _FORKS.Process(target=_run, args=(code, arguments, *map(str, places)))
        process.start()
        process.join(_PATIENCE)
        if process.exitcode is None:
            process.kill()
            process.join()
        return Ended(process.exitcode, *(place.read_text() for place in places))


def in_fresh_process(code: str, *arguments: str) -> str:
    """The same, which has to end well; gives what it printed."""
    ended = attempt(code, *arguments)
    assert ended.status == 0, ended.errors[-4000:]
    return ended.output


def _run(code, arguments, output, errors):
    for place, stream in ((output, 1), (errors, 2)):
        os.dup2(os.open(place, os.O_WRONLY), stream)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<fresh>", "exec"), {"__name__": "__main__"})
