"""Threads: create one, list them, read one with its messages."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from assistant.auth import CurrentUser, User
from assistant.database import CurrentDatabase
from assistant.models import Message, Thread

router = APIRouter(prefix="/threads")

TITLE_MAX_CHARS = 200
SQLITE_MAX_INTEGER = 2**63 - 1


class NewThread(BaseModel):
    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TITLE_MAX_CHARS)
    ]


class ThreadAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    created_at: datetime


class MessageAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    role: str
    content: str
    created_at: datetime
    # Shown only when true.
    interrupted: bool = False


class ThreadWithMessages(ThreadAnswer):
    messages: list[MessageAnswer]


@router.post("", status_code=201)
async def create_thread(new: NewThread, user: CurrentUser, database: CurrentDatabase) -> ThreadAnswer:
    thread = Thread(title=new.title, owner=user.id)
    async with database.writing.begin() as session:
        session.add(thread)
    return ThreadAnswer.model_validate(thread)


@router.get("")
async def list_threads(user: CurrentUser, database: CurrentDatabase) -> list[ThreadAnswer]:
    newest_first = select(Thread).where(Thread.owner == user.id).order_by(Thread.id.desc())
    async with database.reading() as session:
        return [ThreadAnswer.model_validate(thread) for thread in await session.scalars(newest_first)]


@router.get("/{thread_id:int}", response_model_exclude_defaults=True)
async def read_thread(thread_id: int, user: CurrentUser, database: CurrentDatabase) -> ThreadWithMessages:
    async with database.reading() as session:
        thread = await load_thread(session, thread_id, user)
        oldest_first = select(Message).where(Message.thread_id == thread_id).order_by(Message.id)
        messages = [MessageAnswer.model_validate(message) for message in await session.scalars(oldest_first)]
    return ThreadWithMessages(
        id=thread.id, title=thread.title, created_at=thread.created_at, messages=messages
    )


async def load_thread(session: AsyncSession, thread_id: int, user: User) -> Thread:
    """Returns the user's thread; someone else's is as unknown as one that never was."""
    if thread_id <= SQLITE_MAX_INTEGER:
        thread = await session.get(Thread, thread_id)
        if thread and thread.owner == user.id:
            return thread
    raise HTTPException(404, "no such thread")
