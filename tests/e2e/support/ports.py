"""Free ports, below the range the system takes for outgoing connections, so that nobody takes them between choosing and binding.

The workers of one run share the range out among themselves: between choosing and binding there is time, in which another could choose the same. Within its share each
draws at random, so that two runs side by side hardly ever meet.
"""

import os
import random
import socket

_random = random.SystemRandom()
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(host="127.0.0.1"):
    """A port nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = _random.randrange(10000 + _worker, 32000, _workers)
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
