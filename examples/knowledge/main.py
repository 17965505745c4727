"""The application that gunicorn serves: settings checked, the collection opened, routes wired."""

import sys
from contextlib import asynccontextmanager

from fastapi import FastAPI

from knowledge import answers, documents, health
from knowledge.collection import Collection
from knowledge.settings import Settings, SettingsError, load_settings

# gunicorn replaces a worker that ends with any other code, again and again; on 3 it gives up.
EXIT_CANNOT_BOOT = 3


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI):
        # In the worker, after the fork: Chroma's threads and files belong to one process.
        app.state.collection = Collection(settings)
        yield

    app = FastAPI(title="Knowledge", lifespan=lifespan)
    app.state.settings = settings
    app.include_router(health.router)
    app.include_router(documents.router)
    app.include_router(answers.router)
    return app


def settings_or_exit() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(EXIT_CANNOT_BOOT)


app = create_app(settings_or_exit())
