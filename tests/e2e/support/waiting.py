"""Waiting for conditions. The tests time nothing: they wait until something is so, and fail when it never gets so."""

import time

PATIENCE = 30  # seconds; a busy machine or a sanitizer build needs them


def wait_until(condition, what, seconds=PATIENCE, every=0.01):
    """The first true value of condition(); an assertion that names what was waited for after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain: {what() if callable(what) else what}")
        time.sleep(every)
