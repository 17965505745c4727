"""Chat: the user's message is stored first, then the reply is streamed and stored."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

import anyio
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, StringConstraints
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sse_starlette import EventSourceResponse

from assistant.auth import CurrentUser
from assistant.database import CurrentDatabase, Database
from assistant.model import Conversation, CurrentModel, Model, ModelError, Turn
from assistant.models import Message
from assistant.threads import load_thread

log = logging.getLogger(__name__)
router = APIRouter(prefix="/threads")

MESSAGE_MAX_BYTES = 16 * 1024
RECENT_TURNS = 40
# A reply under way at shutdown may finish; gunicorn's own patience is 30 seconds.
SHUTDOWN_GRACE_SECONDS = 20


def refuse_long_message(message: str) -> str:
    if len(message.encode()) > MESSAGE_MAX_BYTES:
        raise ValueError(f"message is longer than {MESSAGE_MAX_BYTES} bytes")
    return message


class NewMessage(BaseModel):
    message: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1),
        AfterValidator(refuse_long_message),
    ]


@router.post("/{thread_id:int}/chat")
async def chat(
    thread_id: int, new: NewMessage, user: CurrentUser, database: CurrentDatabase, model: CurrentModel
) -> EventSourceResponse:
    async with database.writing.begin() as session:
        await load_thread(session, thread_id, user)
        conversation = await load_conversation(session, thread_id, new.message)
        session.add(Message(thread_id=thread_id, role="user", content=new.message))
    # Committed. No session stays open while the reply is streamed, however long that takes.
    return EventSourceResponse(
        stream_reply(database, model, thread_id, conversation),
        shutdown_grace_period=SHUTDOWN_GRACE_SECONDS,
    )


async def load_conversation(session: AsyncSession, thread_id: int, message: str) -> Conversation:
    in_thread = Message.thread_id == thread_id
    earlier_messages = await session.scalar(select(func.count()).select_from(Message).where(in_thread))
    newest_first = select(Message).where(in_thread).order_by(Message.id.desc()).limit(RECENT_TURNS)
    recent_turns = [Turn(earlier.role, earlier.content) for earlier in await session.scalars(newest_first)]
    return Conversation(message, recent_turns[::-1], earlier_messages)


async def stream_reply(
    database: Database, model: Model, thread_id: int, conversation: Conversation
) -> AsyncIterator[dict[str, str]]:
    tokens: list[str] = []
    failure = "the reply was interrupted"
    interrupted = True
    message_id = None
    try:
        async with aclosing(model.reply(conversation)) as reply:
            async for token in reply:
                tokens.append(token)
                yield {"data": json.dumps({"token": token})}
        interrupted = False
    except ModelError as error:
        failure = str(error)
        log.warning("reply in thread %s failed: %s", thread_id, failure)
    finally:
        # Runs as well when the client has left or the process is stopping; shielded,
        # so that what was said so far is stored before the task is cancelled.
        with anyio.CancelScope(shield=True):
            message_id = await save_reply(database, thread_id, "".join(tokens), interrupted)
    if interrupted:
        yield {"event": "error", "data": json.dumps({"error": failure, "message_id": message_id})}
    else:
        yield {"event": "done", "data": json.dumps({"message_id": message_id})}


async def save_reply(database: Database, thread_id: int, content: str, interrupted: bool) -> int | None:
    """Stores the reply and returns its id; a reply without a single word is not stored."""
    if not content:
        return None
    message = Message(thread_id=thread_id, role="assistant", content=content, interrupted=interrupted)
    async with database.writing.begin() as session:
        session.add(message)
    return message.id
