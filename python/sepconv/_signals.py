"""Handlers of signals wait while a C function runs that calls Python back: what one raises just as a callback begins,
such as an interrupt, `ctypes` prints and forgets, and the work goes on as if nobody had asked it to end.
"""

import contextlib
import signal
import threading


class Waiting:
    """A context in which handlers wait: for its end, or for a part of a callback that lets them run."""

    def __init__(self):
        self._handlers, self._came, self._wait = {}, [], False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():  # no other runs any
            found = {number: signal.getsignal(number) for number in signal.valid_signals()}
            self._handlers = {number: handler for number, handler in found.items() if callable(handler)}
        # Whatever a handler raises here or at the end, those that are replaced are still called.
        for number in self._handlers:
            signal.signal(number, self._handle)
        self._wait = True
        return self

    def __exit__(self, *_):
        self._wait = False
        try:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        finally:
            self.run()

    @contextlib.contextmanager
    def let_run(self):
        """Handlers do not wait here. To be entered where what they raise is caught."""
        self._wait = False
        try:
            self.run()
            yield
        finally:
            self._wait = True

    def _handle(self, number, frame):
        if self._wait:
            self._came.append((number, frame))
        else:
            self._handlers[number](number, frame)

    def run(self):
        """Those that wait run now. To be called where what they raise is caught."""
        if self._came:
            number, frame = self._came.pop(0)
            try:
                self._handlers[number](number, frame)
            finally:
                self.run()
