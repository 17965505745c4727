"""An embedding without a model: hashed n-grams of letters. Nothing is downloaded, and a text has one vector for ever."""

import zlib

import numpy as np
from chromadb import Documents, EmbeddingFunction, Embeddings

DIMENSIONS = 256
NGRAM_LENGTHS = (3, 4)
SIGN_BIT = 1 << 31


def embed(text: str) -> np.ndarray:
    """Returns a vector of length one. Texts that share pieces of words lie near each other."""
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    padded = f"  {' '.join(text.lower().split())}  "
    for length in NGRAM_LENGTHS:
        for start in range(len(padded) - length + 1):
            # Not hash(): Python salts that anew in every process.
            hashed = zlib.crc32(padded[start : start + length].encode())
            vector[hashed % DIMENSIONS] += -1 if hashed & SIGN_BIT else 1
    return vector / (np.linalg.norm(vector) or 1)


class NgramEmbedding(EmbeddingFunction[Documents]):
    def __init__(self) -> None:
        """Has nothing to configure; Chroma warns when it is missing."""

    def __call__(self, input: Documents) -> Embeddings:
        return [embed(text) for text in input]

    @staticmethod
    def name() -> str:
        return "hashed-ngrams"

    def get_config(self) -> dict[str, object]:
        return {"dimensions": DIMENSIONS, "ngram_lengths": list(NGRAM_LENGTHS)}

    @staticmethod
    def build_from_config(config: dict[str, object]) -> "NgramEmbedding":
        return NgramEmbedding()
