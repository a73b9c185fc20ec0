"""Finding cases again: an index on disk of embeddings with metadata, and exact search in it."""
