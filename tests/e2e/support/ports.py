"""Free ports, below the range the system takes for outgoing connections, so that nobody takes them between choosing and binding.

The workers of one run share the range out among themselves, and each deals its share out in an order of chance: no port comes twice before all have come, for between
choosing and binding there is time, and two runs side by side hardly ever meet.
"""

import itertools
import os
import random
import socket

_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_share = list(range(10000 + _worker, 32000, _workers))
random.SystemRandom().shuffle(_share)
_ports = itertools.cycle(_share)


def free_port(host="127.0.0.1"):
    """A port nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in _ports:
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
