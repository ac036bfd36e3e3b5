"""Processes that have imported TensorFlow and done nothing else, forked off one that has: importing takes seconds."""

import dataclasses
import multiprocessing
import os
import pathlib
import sys
import tempfile
import time

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tensorflow"])
_PATIENCE = 600  # seconds


@dataclasses.dataclass
class Ended:
    """How a process ended (below zero: by that signal), and what it printed."""

    status: int
    output: str
    errors: str


def at_once(code: str, *arguments_of_each, patience: float = _PATIENCE) -> list:
    """Runs Python code with this process's mode, in a process for each of several lists of arguments, whatever becomes
    of them; those that take longer than `patience` seconds are killed."""
    with tempfile.TemporaryDirectory() as folder:
        places = [
            [pathlib.Path(folder, f"{name}{n}") for name in ("output", "errors")] for n in range(len(arguments_of_each))
        ]
        processes = []
        for arguments, (output, errors) in zip(arguments_of_each, places, strict=True):
            output.touch()
            errors.touch()
            processes.append(_FORKS.Process(target=_run, args=(code, arguments, str(output), str(errors))))
            processes[-1].start()
        deadline = time.monotonic() + patience
        for process in processes:
            process.join(max(0, deadline - time.monotonic()))
            if process.exitcode is None:
                process.kill()
                process.join()
        return [
            Ended(process.exitcode, output.read_text(), errors.read_text())
            for process, (output, errors) in zip(processes, places, strict=True)
        ]


def attempt(code: str, *arguments: str) -> Ended:
    """The same in one process."""
    return at_once(code, arguments)[0]


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
