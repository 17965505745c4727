-- Repositories that services follow, and what their webhooks have brought.

CREATE TABLE remotes (
    service      TEXT PRIMARY KEY REFERENCES services (id),
    body         TEXT NOT NULL,
    -- Sealed, as variables are.
    hook         BLOB NOT NULL,
    deploy_key   BLOB,
    status_token BLOB,
    -- What ssh has learnt of the host, in the format of known_hosts.
    known_hosts  TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE deliveries (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    service    TEXT NOT NULL REFERENCES services (id),
    -- The forge's name of it. One that is here already is a replay.
    name       TEXT NOT NULL,
    -- SHA-256 of a signed body: a delivery's name is not signed, so that a replay could bear another.
    digest     TEXT,
    commit_of  TEXT,
    at         INTEGER NOT NULL,
    deployment TEXT,
    -- None while it is under way.
    ended_as   TEXT,
    words      TEXT,
    UNIQUE (service, name)
) STRICT;
CREATE INDEX deliveries_of_service ON deliveries (service, number);
CREATE INDEX deliveries_by_digest ON deliveries (service, digest);
