-- When a service was last stopped on purpose: a deployment asked for before that must not bring it back.

ALTER TABLE services ADD COLUMN stopped_at INTEGER NOT NULL DEFAULT 0;
