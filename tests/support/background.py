# SPDX-License-Identifier: Apache-2.0
"""What goes on beside a test."""
import threading


class Background(threading.Thread):
    """For `with`: run() goes on until self.finished is set, and has ended behind it."""

    def __init__(self):
        super().__init__(daemon=True)
        self.finished = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.finished.set()
        self.join()
