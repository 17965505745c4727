"""The app of `cargo xtask bench handover`: GET, POST into SQLite, an event stream and a WebSocket, as ASGI without a framework."""

import asyncio
import os
import sqlite3
import zlib

VERSION = "0"
DATA = os.environ.get("TRACKBED_VOLUME_MOUNT_PATH")
EVENT_SECONDS = 0.05
FILLER = "." * 200

database = None
if DATA:
    database = sqlite3.connect(os.path.join(DATA, "notes.db"), isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS notes (name TEXT NOT NULL)")


async def answer(send, status, text, kind="text/plain"):
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def body_of(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def until_gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass


async def events(receive, send, count):
    """`count` events, or with 0 until the client has gone."""
    gone = asyncio.ensure_future(until_gone(receive))
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    number = 0
    while (number < count or count == 0) and not gone.done():
        event = f"data: {number} {FILLER}\n\n"
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        await asyncio.sleep(EVENT_SECONDS)
        number += 1
    gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "websocket":
        return await echo(receive, send)
    method, path = scope["method"], scope["path"]
    if (method, path) == ("GET", "/events"):
        return await events(receive, send, int(scope["query_string"] or 0))
    if (method, path) == ("POST", "/notes"):
        body = await body_of(receive)
        if body is None:
            return None
        if database:
            database.execute("INSERT INTO notes (name) VALUES (?)", [body.split(b" ")[0].decode()])
        return await answer(send, 201, f"{len(body)} {zlib.adler32(body)}")
    if path in ("/version", "/health"):
        return await answer(send, 200, VERSION)
    await answer(send, 404, "no such path")
