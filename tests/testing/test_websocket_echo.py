"""The echo that the Autobahn suite is run against."""

from websockets.asyncio.client import connect

from longwire.testing.websocket_echo import open_echo


async def test_every_message_comes_back_as_it_was_sent() -> None:
    listener, device_port = await open_echo("127.0.0.1", 0)
    large = b"\x00\xff" * (1 << 20)
    async with connect(f"ws://127.0.0.1:{listener.port}/ws", max_size=None, compression=None) as socket:
        for message in ("", "text", "Grüße", b"", b"bytes", large):
            await socket.send(message)
            assert await socket.recv() == message
        # It asks nobody for proof: nothing counts as a stranger's.
        assert device_port.unauthenticated_bytes == 0
    listener.stop_accepting()
    for connection in list(device_port.open):
        connection.abort()
