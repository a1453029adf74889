-- One run. `calls` is the memo of every model call; the rest is rebuilt from it at no cost.

CREATE TABLE calls (
    key TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('generate', 'score')),
    stage TEXT NOT NULL,
    result TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL
);

-- Every input row, readable or not: body is an Item, or the FailureRecord of a row that could not be read.
CREATE TABLE items (
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL CHECK (replica >= 0),
    position INTEGER NOT NULL,
    readable INTEGER NOT NULL CHECK (readable IN (0, 1)),
    body TEXT NOT NULL,
    PRIMARY KEY (uid, replica),
    UNIQUE (position, replica)
);

CREATE TABLE ledger (
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL,
    outcome TEXT NOT NULL DEFAULT 'pending' CHECK (outcome IN ('pair', 'kept', 'filtered', 'failed', 'pending')),
    reason TEXT NOT NULL DEFAULT '' CHECK (reason <> '' OR outcome IN ('pair', 'kept', 'pending')),
    PRIMARY KEY (uid, replica),
    FOREIGN KEY (uid, replica) REFERENCES items (uid, replica) ON DELETE CASCADE
);

-- Exactly one outcome each: an item is born pending, and its line in the ledger lives as long as the item.
CREATE TRIGGER item_is_born_pending AFTER INSERT ON items
BEGIN
    INSERT INTO ledger (uid, replica) VALUES (NEW.uid, NEW.replica);
END;

CREATE TRIGGER ledger_keeps_every_item BEFORE DELETE ON ledger
WHEN EXISTS (SELECT 1 FROM items WHERE uid = OLD.uid AND replica = OLD.replica)
BEGIN
    SELECT RAISE(ABORT, 'the ledger keeps a line for every item');
END;

CREATE TABLE records (
    kind TEXT NOT NULL,
    uid TEXT NOT NULL,
    replica INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, uid, replica, sequence),
    FOREIGN KEY (uid, replica) REFERENCES items (uid, replica) ON DELETE CASCADE
);

-- Needed by the cascade: without it, replacing n items scans the records n times.
CREATE INDEX records_of_item ON records (uid, replica);

-- What was measured (evaluation, training curves): rows that belong to no item of this run.
CREATE TABLE measurements (
    kind TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, sequence)
) WITHOUT ROWID;

CREATE TABLE stages (
    name TEXT NOT NULL PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    summary TEXT NOT NULL
) WITHOUT ROWID;
