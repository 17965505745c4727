"""The documents, in one Chroma collection: an HNSW index in files of its own, and everything else in chroma.sqlite3."""

import hashlib
import subprocess
import sys
import threading
from typing import Annotated, NamedTuple

import chromadb
from chromadb.config import Settings as ChromaSettings
from fastapi import Depends, Request

from knowledge.embedding import NgramEmbedding
from knowledge.settings import Settings

NAME = "documents"
# How many neighbours of its own text a document must be among. The index is approximate: who is not found at once is
# looked for once more, farther off.
NEIGHBOURS, MORE_NEIGHBOURS = 5, 200
QUERY_BATCH = 200
COUNT_LIMIT_SECONDS = 30
COUNT = """
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=20)
print(database.execute(
    "SELECT count(*) FROM embeddings JOIN segments ON segments.id = segment_id"
    " JOIN collections ON collections.id = collection WHERE name = ?", [sys.argv[2]]
).fetchone()[0])
"""


class Found(NamedTuple):
    id: str
    text: str
    distance: float


class Agreement(NamedTuple):
    """What the two halves of the collection say of each other."""

    index: int
    sqlite: int
    found_by_query: int
    strangers: int

    @property
    def is_whole(self) -> bool:
        return self.index == self.sqlite == self.found_by_query and self.strangers == 0


class Collection:
    """The one owner of the files: Chroma's embedded client may be used by many threads, but by one process."""

    def __init__(self, settings: Settings) -> None:
        self._sqlite_path = settings.chroma_dir / "chroma.sqlite3"
        client = chromadb.PersistentClient(
            path=str(settings.chroma_dir), settings=ChromaSettings(anonymized_telemetry=False)
        )
        self._documents = client.get_or_create_collection(
            NAME,
            embedding_function=NgramEmbedding(),
            configuration={
                "hnsw": {
                    "space": "cosine",
                    "sync_threshold": settings.sync_threshold,
                    "batch_size": min(100, settings.sync_threshold),
                }
            },
        )
        self._writing = threading.Lock()

    def check(self) -> int:
        """Asks the database for a count and the index for a neighbour; raises what Chroma raises."""
        count = self._documents.count()
        if count:
            self._documents.query(query_texts=["health"], n_results=1, include=[])
        return count

    def put(self, texts: list[str]) -> list[str]:
        """Stores texts and returns their ids. A text that is there already keeps its id."""
        by_id = {hashlib.sha256(text.encode()).hexdigest()[:20]: text for text in texts}
        with self._writing:
            self._documents.upsert(ids=list(by_id), documents=list(by_id.values()))
        return list(by_id)

    def ids(self) -> list[str]:
        return self._documents.get(include=[])["ids"]

    def search(self, text: str, limit: int) -> list[Found]:
        if not self._documents.count():
            return []
        answer = self._documents.query(query_texts=[text], n_results=limit, include=["documents", "distances"])
        return [Found(*row) for row in zip(answer["ids"][0], answer["documents"][0], answer["distances"][0])]

    def compare(self) -> Agreement:
        """Holds the index against the database, with no write in between."""
        with self._writing:
            known = self._documents.get(include=["documents"])
            vectors = self._vectors(known["ids"])
            return Agreement(vectors, self._count_rows(), *self._query_all(known["ids"], known["documents"]))

    def _vectors(self, ids: list[str]) -> int:
        """Returns for how many ids the index has a vector. Chroma fails as a whole when one is missing."""
        try:
            return len(self._documents.get(include=["embeddings"])["embeddings"])
        except Exception:
            return sum(self._has_vector(one) for one in ids)

    def _has_vector(self, one: str) -> bool:
        try:
            return len(self._documents.get(ids=[one], include=["embeddings"])["embeddings"]) == 1
        except Exception:
            return False

    def _query_all(self, ids: list[str], texts: list[str]) -> tuple[int, int]:
        found, strangers, known = 0, set(), set(ids)
        for start in range(0, len(ids), QUERY_BATCH):
            batch = slice(start, start + QUERY_BATCH)
            answer = self._documents.query(query_texts=texts[batch], n_results=NEIGHBOURS, include=[])
            for own, neighbours in zip(ids[batch], answer["ids"]):
                found += own in neighbours or own in self._far_neighbours(own)
                strangers.update(set(neighbours) - known)
        # What the database has forgotten need not be near to what it knows: one look at everything, and one more.
        if known:
            everything = self._documents.query(query_texts=["."], n_results=len(known) + 1, include=[])
            strangers.update(set(everything["ids"][0]) - known)
        return found, len(strangers)

    def _far_neighbours(self, own: str) -> list[str]:
        text = self._documents.get(ids=[own], include=["documents"])["documents"][0]
        return self._documents.query(query_texts=[text], n_results=MORE_NEIGHBOURS, include=[])["ids"][0]

    def _count_rows(self) -> int:
        # In a process of its own: closing the file here would drop the locks that Chroma's own SQLite holds on it.
        count = subprocess.run(
            [sys.executable, "-I", "-c", COUNT, str(self._sqlite_path), NAME],
            capture_output=True,
            text=True,
            timeout=COUNT_LIMIT_SECONDS,
            check=False,
        )
        if count.returncode:
            raise RuntimeError(f"cannot count the rows of {self._sqlite_path}: {count.stderr.strip()}")
        return int(count.stdout)


def current_collection(request: Request) -> Collection:
    return request.app.state.collection


CurrentCollection = Annotated[Collection, Depends(current_collection)]
