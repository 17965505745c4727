-- The first format. Bodies are JSON of the domain types; what is searched for has a column of its own.

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE projects (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE environments (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL REFERENCES projects (id),
    name    TEXT NOT NULL,
    UNIQUE (project, name)
) STRICT;

CREATE TABLE services (
    id          TEXT PRIMARY KEY,
    environment TEXT NOT NULL REFERENCES environments (id),
    name        TEXT NOT NULL,
    host        TEXT NOT NULL UNIQUE,
    number      INTEGER NOT NULL UNIQUE,
    wanted      TEXT NOT NULL,
    live        TEXT,
    created_at  INTEGER NOT NULL,
    UNIQUE (environment, name)
) STRICT;

-- scope is an environment's id (shared variables) or a service's id.
CREATE TABLE variables (
    scope      TEXT NOT NULL,
    name       TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE volumes (
    id         TEXT PRIMARY KEY,
    service    TEXT NOT NULL REFERENCES services (id),
    name       TEXT NOT NULL,
    mount      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (service, name),
    UNIQUE (service, mount)
) STRICT;

CREATE TABLE sources (
    digest     TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE releases (
    id         TEXT PRIMARY KEY,
    service    TEXT NOT NULL REFERENCES services (id),
    version    INTEGER NOT NULL,
    body       TEXT NOT NULL,
    variables  BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (service, version)
) STRICT;

CREATE TABLE deployments (
    id         TEXT PRIMARY KEY,
    service    TEXT NOT NULL REFERENCES services (id),
    state      TEXT NOT NULL,
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    finished   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX deployments_of_service ON deployments (service, created_at);

CREATE TABLE events (
    deployment TEXT NOT NULL REFERENCES deployments (id),
    sequence   INTEGER NOT NULL,
    body       TEXT NOT NULL,
    PRIMARY KEY (deployment, sequence)
) STRICT, WITHOUT ROWID;
