-- How many copies of a process its owner wants, where that is not what the source says (`trackbed scale`).
CREATE TABLE process_counts (
    service TEXT NOT NULL REFERENCES services (id),
    process TEXT NOT NULL,
    count   INTEGER NOT NULL,
    PRIMARY KEY (service, process)
) STRICT;
