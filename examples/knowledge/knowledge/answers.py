"""Answers, word by word: what the nearest documents say, as server-sent events."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from sse_starlette import EventSourceResponse

from knowledge.collection import CurrentCollection, Found
from knowledge.documents import TEXT_MAX_LENGTH

router = APIRouter()

SOURCES = 3
# An answer under way at shutdown may finish; gunicorn's own patience is 30 seconds.
SHUTDOWN_GRACE_SECONDS = 20


@router.get("/answer")
async def answer(
    request: Request,
    collection: CurrentCollection,
    q: Annotated[str, Query(min_length=1, max_length=TEXT_MAX_LENGTH)],
) -> EventSourceResponse:
    sources = await run_in_threadpool(collection.search, q, SOURCES)
    delay = request.app.state.settings.token_delay_ms / 1000
    return EventSourceResponse(stream_answer(sources, delay), shutdown_grace_period=SHUTDOWN_GRACE_SECONDS)


async def stream_answer(sources: list[Found], delay: float) -> AsyncIterator[dict[str, str]]:
    for word in compose(sources).split():
        yield {"data": json.dumps({"token": f"{word} "})}
        await asyncio.sleep(delay)
    yield {"event": "done", "data": json.dumps({"sources": [found.id for found in sources]})}


def compose(sources: list[Found]) -> str:
    if not sources:
        return "Nothing is known about that yet."
    first, *others = (found.text for found in sources)
    return " ".join([f"The nearest document says: {first}", *(f"Another: {other}" for other in others)])
