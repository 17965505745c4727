"""The health answer that decides whether this instance gets traffic."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from assistant.database import CurrentDatabase, DatabaseUnavailable

router = APIRouter()


@router.get("/health")
async def health(database: CurrentDatabase) -> JSONResponse:
    try:
        await database.check()
    except DatabaseUnavailable as error:
        return JSONResponse({"status": "unavailable", "database": str(error)}, status_code=503)
    return JSONResponse({"status": "ok", "database": "ok"})
