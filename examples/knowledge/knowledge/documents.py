"""Documents in, and the nearest ones out."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from knowledge.collection import CurrentCollection

router = APIRouter()

TEXT_MAX_LENGTH = 16 * 1024
TEXTS_MAX = 100

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=TEXT_MAX_LENGTH)]


class NewDocuments(BaseModel):
    texts: list[Text] = Field(min_length=1, max_length=TEXTS_MAX)


@router.post("/documents", status_code=201)
def put_documents(new: NewDocuments, collection: CurrentCollection) -> dict[str, list[str]]:
    return {"ids": collection.put(new.texts)}


@router.get("/documents")
def list_documents(collection: CurrentCollection) -> dict[str, list[str]]:
    return {"ids": collection.ids()}


@router.get("/search")
def search(
    collection: CurrentCollection,
    q: Annotated[str, Query(min_length=1, max_length=TEXT_MAX_LENGTH)],
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> dict[str, list[dict[str, object]]]:
    return {"documents": [found._asdict() for found in collection.search(q, limit)]}
