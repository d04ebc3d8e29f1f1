"""Free ports, below the range the system takes for outgoing connections, so that nobody takes them between choosing and binding."""

import itertools
import os
import random
import socket

_start = random.Random(os.getpid() * 7919 + int.from_bytes(os.urandom(4))).randrange(10000, 31000)
_ports = itertools.cycle(range(10000, 32000))
for _ in range(_start - 10000):
    next(_ports)


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
