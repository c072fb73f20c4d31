"""Python's websockets as a client: socket_client.py URL [SECONDS]; with seconds it stays and talks for so long."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def talk(url, seconds):
    """One connection, which no flip may end."""
    async with connect(url) as socket:
        version = await socket.recv()
        print("began", flush=True)
        until = asyncio.get_running_loop().time() + seconds
        count = 0
        while asyncio.get_running_loop().time() < until:
            await socket.send(f"{count}")
            assert await socket.recv() == f"{count}"
            count += 1
            await asyncio.sleep(0.01)
        print(version, count)


async def main(url):
    async with connect(url, max_size=None) as socket:
        await socket.recv()
        for message in ["text", "ünïcode", b"\0binary\xff", "", os.urandom(3_000_000)]:
            await socket.send(message)
            assert await socket.recv() == message
        latency = await asyncio.wait_for(await socket.ping(), 10)
        assert latency < 5
        await socket.send("leave")
        try:
            await socket.recv()
            raise AssertionError("it was not closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as asked"), closed
    # And closed from here.
    async with connect(url) as socket:
        await socket.recv()
    assert socket.close_code == 1000, socket.close_code


asyncio.run(talk(sys.argv[1], float(sys.argv[2])) if len(sys.argv) > 2 else main(sys.argv[1]))
