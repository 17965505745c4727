"""The language models behind one interface: a conversation goes in, tokens come out."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from assistant.settings import Settings

QUOTE_MAX_CHARS = 200
ANTHROPIC_VERSION = "2023-06-01"
ANTHROPIC_MAX_TOKENS = 2_048
ANTHROPIC_TIMEOUT_SECONDS = 60


class ModelError(Exception):
    """The model gave no reply, or broke off in the middle of one."""


@dataclass(frozen=True)
class Turn:
    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    message: str
    recent_turns: list[Turn]
    earlier_messages: int


class Model(Protocol):
    def reply(self, conversation: Conversation) -> AsyncIterator[str]: ...


class BuiltInModel:
    """Answers without key or network, the same words for the same conversation."""

    def __init__(self, token_delay_ms: int) -> None:
        self._token_delay_seconds = token_delay_ms / 1_000

    async def reply(self, conversation: Conversation) -> AsyncIterator[str]:
        for token in re.findall(r"\S+\s*", built_in_reply(conversation)):
            await asyncio.sleep(self._token_delay_seconds)
            yield token


def built_in_reply(conversation: Conversation) -> str:
    quote = conversation.message.strip()
    if len(quote) > QUOTE_MAX_CHARS:
        quote = quote[:QUOTE_MAX_CHARS] + "…"
    match conversation.earlier_messages:
        case 0:
            memory = "This is the first message of our thread."
        case 1:
            memory = "I remember 1 earlier message in this thread."
        case count:
            memory = f"I remember {count} earlier messages in this thread."
    return (
        f"Thank you for writing! You said: “{quote}” {memory} "
        "I am the small built-in model, so I can only repeat what I hear, one word at a time. "
        "Give me an ANTHROPIC_API_KEY and a real model will answer here instead."
    )


class AnthropicModel:
    """Streams a reply from Anthropic's Messages API."""

    def __init__(self, api_key: str, model: str, base_url: str) -> None:
        self._headers = {"x-api-key": api_key, "anthropic-version": ANTHROPIC_VERSION}
        self._model = model
        self._url = base_url.rstrip("/") + "/v1/messages"

    async def reply(self, conversation: Conversation) -> AsyncIterator[str]:
        import httpx  # only paid for when a key is configured

        turns = [*conversation.recent_turns, Turn("user", conversation.message)]
        body = {
            "model": self._model,
            "max_tokens": ANTHROPIC_MAX_TOKENS,
            "messages": [{"role": turn.role, "content": turn.content} for turn in turns],
            "stream": True,
        }
        try:
            async with (
                httpx.AsyncClient(timeout=ANTHROPIC_TIMEOUT_SECONDS) as client,
                client.stream("POST", self._url, headers=self._headers, json=body) as response,
            ):
                if response.status_code != 200:
                    raise ModelError(f"Anthropic answered with status {response.status_code}")
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    event = json.loads(line.removeprefix("data:"))
                    if event["type"] == "message_stop":
                        return
                    if event["type"] == "error":
                        raise ModelError(f"Anthropic broke off: {event['error']['type']}")
                    if event["type"] == "content_block_delta" and event["delta"]["type"] == "text_delta":
                        yield event["delta"]["text"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise ModelError(f"cannot read Anthropic's reply: {type(error).__name__}") from error
        raise ModelError("Anthropic's reply ended early")


def choose_model(settings: Settings) -> Model:
    if settings.anthropic_api_key:
        return AnthropicModel(
            settings.anthropic_api_key, settings.anthropic_model, settings.anthropic_base_url
        )
    return BuiltInModel(settings.token_delay_ms)


def model_of(request: Request) -> Model:
    return request.app.state.model


CurrentModel = Annotated[Model, Depends(model_of)]
