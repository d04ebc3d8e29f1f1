"""Free ports, below the range the system takes for outgoing connections, so that nobody takes them between choosing and binding.

Each is drawn at random: test processes side by side never meet on one for long enough to share it.
"""

import random
import socket

_random = random.SystemRandom()


def free_port(host="127.0.0.1"):
    """A port nobody listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        port = _random.randrange(10000, 32000)
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
                return port
            except OSError:
                continue
