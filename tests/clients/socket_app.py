"""A WebSocket server that sends back what it gets: socket_app.py VERSION; it prints its port."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    await socket.send(sys.argv[1])
    async for message in socket:
        if message == "leave":
            await socket.close(4321, "as asked")
        else:
            await socket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
