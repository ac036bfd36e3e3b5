"""Handlers of signals wait while a C function runs that calls Python back: what one raises just as a callback begins,
such as an interrupt, `ctypes` prints and forgets, and the work goes on as if nobody had asked it to end.
"""

import contextlib
import signal
import threading


@contextlib.contextmanager
def waiting():
    """The handlers of what comes meanwhile run at the end, in their order."""
    handlers, came = {}, []
    if threading.current_thread() is threading.main_thread():  # no other runs any
        found = {number: signal.getsignal(number) for number in signal.valid_signals()}
        handlers = {number: handler for number, handler in found.items() if callable(handler)}
    with contextlib.ExitStack() as restored:
        for number, handler in handlers.items():
            restored.callback(signal.signal, number, handler)
            signal.signal(number, lambda *arguments: came.append(arguments))
        yield
    for number, frame in came:
        handlers[number](number, frame)
