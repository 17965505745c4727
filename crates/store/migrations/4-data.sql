-- Restore points, the schedules of volumes, and volumes that were removed but can be had back.

-- A removed volume frees its name and its mount path. SQLite cannot drop a constraint, so the table is made anew.
CREATE TABLE volumes_of_format_4 (
    id          TEXT PRIMARY KEY,
    service     TEXT NOT NULL REFERENCES services (id),
    name        TEXT NOT NULL,
    mount       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    schedules   TEXT NOT NULL DEFAULT 'hourly,daily',
    limit_bytes INTEGER,
    removed_at  INTEGER,
    -- When its directory was deleted for good; its points may live on for a while.
    erased_at   INTEGER
) STRICT;
INSERT INTO volumes_of_format_4 (id, service, name, mount, created_at)
    SELECT id, service, name, mount, created_at FROM volumes;
DROP TABLE volumes;
ALTER TABLE volumes_of_format_4 RENAME TO volumes;
CREATE UNIQUE INDEX volumes_by_name ON volumes (service, name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX volumes_by_mount ON volumes (service, mount) WHERE removed_at IS NULL;

CREATE TABLE restore_points (
    id       TEXT PRIMARY KEY,
    volume   TEXT NOT NULL REFERENCES volumes (id),
    service  TEXT NOT NULL REFERENCES services (id),
    taken_at INTEGER NOT NULL,
    body     TEXT NOT NULL
) STRICT;
CREATE INDEX restore_points_of_volume ON restore_points (volume, taken_at);

-- The last tick of a schedule that was served.
CREATE TABLE volume_ticks (
    volume   TEXT NOT NULL REFERENCES volumes (id),
    schedule TEXT NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (volume, schedule)
) STRICT, WITHOUT ROWID;

-- Where an app looks for a file that was adopted into a volume, and where it lies now; both as the app sees them.
CREATE TABLE app_links (
    service TEXT NOT NULL REFERENCES services (id),
    at      TEXT NOT NULL,
    target  TEXT NOT NULL,
    PRIMARY KEY (service, at)
) STRICT, WITHOUT ROWID;

-- Whether stages of a deployment may lie beside the volumes; none of an earlier format has any.
ALTER TABLE deployments ADD COLUMN stages INTEGER NOT NULL DEFAULT 1;
UPDATE deployments SET stages = 0;
CREATE INDEX deployments_with_stages ON deployments (number) WHERE stages = 1;
CREATE INDEX deployments_unfinished ON deployments (number) WHERE finished = 0;

-- Releases whose image may be gone: nobody can go back to them.
ALTER TABLE releases ADD COLUMN collected INTEGER NOT NULL DEFAULT 0;
