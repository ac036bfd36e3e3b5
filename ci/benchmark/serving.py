"""A measured process's side of the talk: one JSON line asks, one answers. Standard output belongs to the answers."""

import json
import os
import sys
import time


def serve(handlers):
    """Answers requests until standard input ends; `handlers` by what a request's `do` says."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = handlers[request.pop("do")](**request) or {}
        except Exception as error:  # whatever a library raises is the answer
            answer = {"error": f"{type(error).__name__}: {error}".strip()}
        print(json.dumps(answer), file=answers)


def timed(call, seconds, calls):
    """Seconds of each call: at least so many calls and so long."""
    begun, times = time.perf_counter(), []
    while len(times) < calls or time.perf_counter() - begun < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return {"seconds": times}
