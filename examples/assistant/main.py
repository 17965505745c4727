"""The application that gunicorn serves: settings checked, routes wired."""

import sys
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse

from assistant import chat, health, threads
from assistant.auth import install_auth
from assistant.database import Database
from assistant.model import choose_model
from assistant.settings import Settings, SettingsError, load_settings

# gunicorn replaces a worker that ends with any other code, again and again; on 3 it gives up.
EXIT_CANNOT_BOOT = 3
CHAT_PAGE = Path(__file__).parent / "static" / "index.html"


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI):
        app.state.database = Database(settings.database_url)
        await app.state.database.prepare()
        yield
        await app.state.database.close()

    docs = {"docs_url": None, "redoc_url": None, "openapi_url": None} if settings.is_production else {}
    app = FastAPI(title="Assistant", lifespan=lifespan, **docs)
    app.state.settings = settings
    app.state.model = choose_model(settings)
    app.add_exception_handler(RequestValidationError, answer_invalid_request)
    install_auth(app, settings)
    app.include_router(health.router)
    app.include_router(threads.router)
    app.include_router(chat.router)
    app.add_api_route("/", chat_page, include_in_schema=False)
    if settings.frontend_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.frontend_origins,
            allow_credentials="*" not in settings.frontend_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type"],
        )
    return app


async def chat_page() -> FileResponse:
    return FileResponse(CHAT_PAGE, headers={"Cache-Control": "no-cache"})


async def answer_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
    # Says what is wrong without sending the input back, which may be long or not even be text.
    details = [{name: detail[name] for name in ("type", "loc", "msg")} for detail in error.errors()]
    return JSONResponse({"detail": details}, status_code=422)


def settings_or_exit() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(EXIT_CANNOT_BOOT)


app = create_app(settings_or_exit())
