"""The socket that listens: how many connections there may be, those whose TLS handshake is not done included, and files for all."""

import os
import socket
from weakref import WeakSet

from ..core.errors import UserError

HANDSHAKES = 64
"""So many connections beyond those of the limit may be at their handshakes, or be told that there are too many."""
OTHER_FILES = 192
"""Of the database, the models, the log and the libraries."""


class Listening(socket.socket):
    """Closes at once what comes while `most` of the connections that it accepted are open."""

    def __init__(self, bound: socket.socket, most: int):
        super().__init__(bound.family, bound.type, bound.proto, fileno=bound.detach())
        self._most = most
        self._accepted: WeakSet[socket.socket] = WeakSet()

    def accept(self) -> tuple[socket.socket, object]:
        """Raises ConnectionAbortedError for one that is too many, which the event loop takes for one that left by itself."""
        connection, address = super().accept()
        if sum(one.fileno() >= 0 for one in list(self._accepted)) >= self._most:
            connection.close()
            raise ConnectionAbortedError
        self._accepted.add(connection)
        return connection, address


def demand_files(connections: int) -> None:
    """Lets this process open enough files for so many connections. Raises UserError where the system does not allow that."""
    if os.name == "nt":
        return
    import resource

    needed = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(
            f"limits.connections: needs {needed} open files, and this system allows {hard} (ulimit -Hn); raise that, or ask for fewer"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
