-- One run. `calls` is the memo of every model call; the rest is rebuilt from it at no cost.
--
-- `checksum` is that of the other columns of its row (`cai.store.checksums`): it tells a flipped byte from what was written.
-- What it leaves out (all of the ledger, the sequence of records) stands in an index too: SQLite's integrity check compares.
-- The rules of the ledger stand in triggers besides the foreign keys, since another program's connection does not know these.

CREATE TABLE calls (
    key TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('generate', 'score')),
    stage TEXT NOT NULL,
    result TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),
    completion_tokens INTEGER NOT NULL CHECK (completion_tokens >= 0),
    seconds REAL NOT NULL,
    failed INTEGER NOT NULL CHECK (failed IN (0, 1)),
    checksum BLOB NOT NULL CHECK (length(checksum) = 8)
) STRICT;

-- What a run has cost is added up without reading its texts.
CREATE INDEX cost_of_calls ON calls (stage, failed, prompt_tokens, completion_tokens, seconds);

-- Every input row, readable or not: body is an Item, or the FailureRecord of a row that could not be read.
CREATE TABLE items (
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL CHECK (replica >= 0),
    position INTEGER NOT NULL CHECK (position >= 0),
    readable INTEGER NOT NULL CHECK (readable IN (0, 1)),
    body TEXT NOT NULL,
    checksum BLOB NOT NULL CHECK (length(checksum) = 8),
    PRIMARY KEY (uid, replica),
    UNIQUE (position, replica),
    CONSTRAINT an_unreadable_row_has_stage_and_cause CHECK (
        readable
        OR (
            json_valid(body)
            AND coalesce(json_extract(body, '$.stage'), '') <> ''
            AND coalesce(json_extract(body, '$.cause'), '') <> ''
        )
    )
) STRICT;

CREATE TABLE ledger (
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (uid, replica),
    FOREIGN KEY (uid, replica) REFERENCES items (uid, replica) ON DELETE CASCADE,
    CONSTRAINT one_outcome_with_its_reason CHECK (
        CASE outcome
            WHEN 'pair' THEN reason = ''
            WHEN 'kept' THEN TRUE -- why there is no pair, where there is something to say
            WHEN 'filtered' THEN reason <> '' -- the rule
            WHEN 'failed' THEN reason GLOB '?*: ?*' -- stage: cause
            WHEN 'pending' THEN reason = ''
            ELSE FALSE
        END
    )
) STRICT, WITHOUT ROWID;

CREATE INDEX outcomes_of_ledger ON ledger (outcome, reason);

-- Exactly one outcome each: a line is born with its item, keeps its name, and lives as long as the item.
CREATE TRIGGER item_is_born_with_its_line AFTER INSERT ON items
BEGIN
    INSERT INTO ledger (uid, replica, outcome, reason) VALUES (
        NEW.uid,
        NEW.replica,
        CASE WHEN NEW.readable THEN 'pending' ELSE 'failed' END,
        CASE WHEN NEW.readable THEN ''
            ELSE json_extract(NEW.body, '$.stage') || ': ' || json_extract(NEW.body, '$.cause') END
    );
END;

-- INSERT OR REPLACE would take away the other item without a word to its line.
CREATE TRIGGER item_takes_no_others_place BEFORE INSERT ON items
WHEN EXISTS (SELECT 1 FROM items WHERE position = NEW.position AND replica = NEW.replica AND uid <> NEW.uid)
BEGIN
    SELECT RAISE(ABORT, 'another input row has this position');
END;

CREATE TRIGGER item_never_changes BEFORE UPDATE ON items
BEGIN
    SELECT RAISE(ABORT, 'an input row never changes; delete it and insert another');
END;

CREATE TRIGGER item_takes_its_line_along AFTER DELETE ON items
BEGIN
    DELETE FROM ledger WHERE uid = OLD.uid AND replica = OLD.replica;
    DELETE FROM records WHERE uid = OLD.uid AND replica = OLD.replica;
END;

CREATE TRIGGER ledger_has_lines_of_items_only BEFORE INSERT ON ledger
WHEN NOT EXISTS (SELECT 1 FROM items WHERE uid = NEW.uid AND replica = NEW.replica)
BEGIN
    SELECT RAISE(ABORT, 'the ledger has lines of input rows only');
END;

CREATE TRIGGER ledger_line_keeps_its_name BEFORE UPDATE OF uid, replica ON ledger
WHEN NEW.uid <> OLD.uid OR NEW.replica <> OLD.replica
BEGIN
    SELECT RAISE(ABORT, 'a line of the ledger stays with its input row');
END;

CREATE TRIGGER ledger_keeps_every_item BEFORE DELETE ON ledger
WHEN EXISTS (SELECT 1 FROM items WHERE uid = OLD.uid AND replica = OLD.replica)
BEGIN
    SELECT RAISE(ABORT, 'the ledger keeps a line for every item');
END;

CREATE TRIGGER unreadable_row_has_failed BEFORE UPDATE ON ledger
WHEN NEW.outcome <> 'failed' AND EXISTS (SELECT 1 FROM items WHERE uid = NEW.uid AND replica = NEW.replica AND NOT readable)
BEGIN
    SELECT RAISE(ABORT, 'an input row that could not be read has failed');
END;

CREATE TRIGGER unreadable_row_was_born_failed BEFORE INSERT ON ledger
WHEN NEW.outcome <> 'failed' AND EXISTS (SELECT 1 FROM items WHERE uid = NEW.uid AND replica = NEW.replica AND NOT readable)
BEGIN
    SELECT RAISE(ABORT, 'an input row that could not be read has failed');
END;

CREATE TABLE records (
    kind TEXT NOT NULL,
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL CHECK (length(checksum) = 8),
    PRIMARY KEY (kind, uid, replica, sequence),
    FOREIGN KEY (uid, replica) REFERENCES items (uid, replica) ON DELETE CASCADE
) STRICT;

-- Needed by the cascade: without it, replacing n items scans the records n times.
CREATE INDEX records_of_item ON records (uid, replica);

-- What was measured (evaluation, training curves): rows that belong to no item of this run.
CREATE TABLE measurements (
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    checksum BLOB NOT NULL CHECK (length(checksum) = 8),
    PRIMARY KEY (kind, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE stages (
    name TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    summary TEXT NOT NULL,
    checksum BLOB NOT NULL CHECK (length(checksum) = 8)
) STRICT, WITHOUT ROWID;

-- The files that a finished stage left in the run folder, as they were written.
CREATE TABLE files (
    path TEXT NOT NULL PRIMARY KEY,
    stage TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    checksum BLOB NOT NULL CHECK (length(checksum) = 8),
    FOREIGN KEY (stage) REFERENCES stages (name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
