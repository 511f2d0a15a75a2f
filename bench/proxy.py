# Copyright (c) 2026, homelab.registry contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A TCP proxy on loopback that delivers everything later: a long way to the upstream, without limiting bandwidth.

proxy.py LISTEN_PORT TARGET_PORT MILLISECONDS_EACH_WAY

The kernel accepts a connection at once; what a client sends first waits for one round trip more, as long as TCP's
handshake would have taken.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque


class Side(asyncio.Protocol):
    """One end of a proxied connection; what it receives leaves at the other end after the delay."""

    def __init__(self, delay):
        self.delay = delay
        self.other = None
        self.transport = None
        self.queue = deque()

    def connection_made(self, transport):
        self.transport = transport

    def later(self, data):
        self.queue.append(data)
        asyncio.get_running_loop().call_later(self.delay, self.deliver)

    # One timer an item, but the queue keeps the order whatever order timers fire in.
    def deliver(self):
        data = self.queue.popleft()
        if data is None:
            self.other.transport.close()
        else:
            self.other.transport.write(data)

    def data_received(self, data):
        self.later(data)

    def connection_lost(self, _error):
        self.later(None)


class Front(Side):
    """The client's end."""

    def __init__(self, delay, port):
        super().__init__(delay)
        self.port = port

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.pause_reading()
        self.opening = asyncio.ensure_future(self.open())

    async def open(self):
        await asyncio.sleep(2 * self.delay)
        self.other = Side(self.delay)
        self.other.other = self
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.other, "127.0.0.1", self.port)
        except OSError:
            self.transport.abort()
        else:
            self.transport.resume_reading()

    def connection_lost(self, error):
        if self.other and self.other.transport:
            super().connection_lost(error)
        else:
            self.opening.cancel()


async def main(listen, target, milliseconds):
    server = await asyncio.get_running_loop().create_server(
        lambda: Front(milliseconds / 1000, target), "127.0.0.1", listen
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*(int(each) for each in sys.argv[1:4])))
