-- Pushes by git: the branch of a service that is deployed, and who may push.

-- None until the first push has decided it, or its owner has.
ALTER TABLE services ADD COLUMN git_branch TEXT;

CREATE TABLE git_tokens (
    id         TEXT PRIMARY KEY,
    service    TEXT NOT NULL REFERENCES services (id),
    name       TEXT NOT NULL,
    -- SHA-256 of the token, which has 160 random bits of its own: nothing slower is needed.
    hash       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX git_tokens_of_service ON git_tokens (service, created_at);
