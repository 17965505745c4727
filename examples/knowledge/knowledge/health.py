"""The health answer that decides whether this instance gets traffic, and the one that tells whether its halves agree."""

import logging

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from knowledge.collection import CurrentCollection

log = logging.getLogger(__name__)
router = APIRouter()


@router.get("/health")
def health(collection: CurrentCollection) -> JSONResponse:
    try:
        count = collection.check()
    except Exception as error:  # Chroma's errors have no common parent
        log.warning("the collection does not answer: %s", error)
        return JSONResponse({"status": "unavailable", "collection": str(error)}, status_code=503)
    return JSONResponse({"status": "ok", "documents": count})


@router.get("/consistency")
def consistency(collection: CurrentCollection) -> JSONResponse:
    agreement = collection.compare()
    body = {**agreement._asdict(), "consistent": agreement.is_whole}
    return JSONResponse(body, status_code=200 if agreement.is_whole else 500)
