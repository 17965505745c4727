"""A chat backend: threads in SQLite, replies streamed as server-sent events."""
