-- Deployments have an order that no clock can change, an order to cancel one is kept beside it, and what a service was
-- stopped after is a place in that order.

ALTER TABLE deployments ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
UPDATE deployments SET number =
    (SELECT count(*) FROM deployments d WHERE (d.created_at, d.rowid) <= (deployments.created_at, deployments.rowid));
CREATE UNIQUE INDEX deployments_by_number ON deployments (number);
CREATE INDEX deployments_in_order ON deployments (service, number);
DROP INDEX deployments_of_service;

ALTER TABLE deployments ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;

-- What came before the stop, by the clock of then; `stopped_at` is read by nobody any more.
ALTER TABLE services ADD COLUMN stopped_after INTEGER NOT NULL DEFAULT 0;
UPDATE services SET stopped_after =
    (SELECT coalesce(max(number), 0) FROM deployments d WHERE d.service = services.id AND d.created_at < services.stopped_at);
