-- What people said of a run's answers. Verdicts are never changed and never deleted: the newest of a person on a pair counts,
-- and one that is taken back is followed by a row that says so.
--
-- `pair` names the prompt with both answers by their fingerprints: a verdict speaks of texts, whatever a run makes of its rows.

CREATE TABLE verdicts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    pair TEXT NOT NULL CHECK (pair <> ''),
    reviewer TEXT NOT NULL CHECK (reviewer <> ''),
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL CHECK (replica >= 0),
    body TEXT NOT NULL CHECK (json_valid(body)),
    checksum BLOB NOT NULL CHECK (length(checksum) = 8)
) STRICT;

CREATE INDEX verdicts_of_reviewer ON verdicts (reviewer, number);

CREATE TRIGGER verdict_never_changes BEFORE UPDATE ON verdicts
BEGIN
    SELECT RAISE(ABORT, 'a verdict never changes; add another');
END;

CREATE TRIGGER verdict_is_never_deleted BEFORE DELETE ON verdicts
BEGIN
    SELECT RAISE(ABORT, 'a verdict is never deleted; take it back with another');
END;
