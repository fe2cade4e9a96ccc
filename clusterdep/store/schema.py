"""The schema, as migrations that are never changed once released: a new one is added.

docs/database.md describes the tables for people who open the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from sqlite_utils.db import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("clusterdep")

_FIRST = """
-- Tree x platform x configuration that packages are built for.
CREATE TABLE profile (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    tree TEXT NOT NULL DEFAULT '',
    prefix TEXT NOT NULL DEFAULT '',
    pkgdb TEXT NOT NULL DEFAULT '',
    kit TEXT NOT NULL DEFAULT '',
    make TEXT NOT NULL DEFAULT '',
    opsys TEXT NOT NULL DEFAULT '',
    os_version TEXT NOT NULL DEFAULT '',
    machine_arch TEXT NOT NULL DEFAULT '',
    distdir TEXT NOT NULL DEFAULT '',
    policy TEXT NOT NULL DEFAULT 'inputs' CHECK (policy IN ('inputs', 'version', 'exists')),
    parent TEXT NOT NULL DEFAULT '',
    toolchain TEXT NOT NULL DEFAULT '',
    revision TEXT NOT NULL DEFAULT '',
    complete INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What somebody wants built: pkgpaths, categories or patterns. No row: everything.
CREATE TABLE selection (
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (profile_id, position)
) STRICT, WITHOUT ROWID;

-- A directory of the tree and what came of its last scan.
CREATE TABLE pkgpath (
    id INTEGER PRIMARY KEY,
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    position INTEGER NOT NULL,           -- in the enumeration of the tree
    scanned_at REAL NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    revision TEXT NOT NULL DEFAULT '',   -- of the tree then; empty: unknown
    error TEXT NOT NULL DEFAULT '',      -- what make said, if the last scan failed
    inputs_digest TEXT NOT NULL DEFAULT '',
    UNIQUE (profile_id, path)
) STRICT;

-- The identity of a package: outlives its record, so that history keeps its meaning.
CREATE TABLE package (
    id INTEGER PRIMARY KEY,
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    pkgpath TEXT NOT NULL,
    variant TEXT NOT NULL DEFAULT '',
    fence INTEGER NOT NULL DEFAULT 0,    -- of the newest lease
    UNIQUE (profile_id, pkgpath, variant)
) STRICT;

-- What the last good scan said of a package. No row: the tree has it no more.
CREATE TABLE record (
    package_id INTEGER PRIMARY KEY REFERENCES package (id) ON DELETE CASCADE,
    pkgpath_id INTEGER NOT NULL REFERENCES pkgpath (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,             -- of the record in the scan of its pkgpath
    pkgname TEXT NOT NULL,
    skip_reason TEXT NOT NULL DEFAULT '',
    fail_reason TEXT NOT NULL DEFAULT '',
    duplicate INTEGER NOT NULL DEFAULT 0,-- an earlier record has this PKGNAME
    weight INTEGER NOT NULL DEFAULT 100, -- PBULK_WEIGHT
    digest BLOB NOT NULL,                -- of what a build depends on
    text BLOB NOT NULL,                  -- the record without its SCAN_DEPENDS line
    scan_depends BLOB NOT NULL           -- that line's value, zstd
) STRICT;
CREATE INDEX record_pkgpath ON record (pkgpath_id, number);
CREATE INDEX record_pkgname ON record (pkgname);

-- Each pattern a package asks for, and what it was resolved to.
CREATE TABLE requirement (
    package_id INTEGER NOT NULL REFERENCES package (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    location TEXT NOT NULL,
    required_id INTEGER REFERENCES package (id),  -- NULL: nothing matches
    problem TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (package_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX requirement_required ON requirement (required_id);

-- Every try at a job, for ever.
CREATE TABLE attempt (
    id TEXT PRIMARY KEY,
    package_id INTEGER NOT NULL REFERENCES package (id) ON DELETE CASCADE,
    pkgname TEXT NOT NULL,
    fence INTEGER NOT NULL,
    input_key TEXT NOT NULL,
    dispatcher TEXT NOT NULL,
    host TEXT NOT NULL,
    granted_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT CHECK (outcome IN ('built', 'failed', 'returned', 'lapsed', 'cancelled')),
    blame TEXT NOT NULL DEFAULT '',
    stage TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    make_jobs INTEGER NOT NULL DEFAULT 0,
    peak_memory INTEGER NOT NULL DEFAULT 0,
    disk INTEGER NOT NULL DEFAULT 0,
    log TEXT NOT NULL DEFAULT '',
    retried_at REAL                      -- somebody asked to try again: it counts no more
) STRICT;
CREATE INDEX attempt_package ON attempt (package_id, granted_at);

CREATE TABLE stage (
    attempt_id TEXT NOT NULL REFERENCES attempt (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    stage TEXT NOT NULL,
    wall REAL NOT NULL,                  -- seconds
    cpu REAL NOT NULL,                   -- seconds
    exit INTEGER NOT NULL,
    PRIMARY KEY (attempt_id, position)
) STRICT, WITHOUT ROWID;

-- The right to do a job. At most one for a package.
CREATE TABLE lease (
    package_id INTEGER PRIMARY KEY REFERENCES package (id) ON DELETE CASCADE,
    attempt_id TEXT NOT NULL UNIQUE REFERENCES attempt (id) ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    dispatcher TEXT NOT NULL,
    host TEXT NOT NULL,
    granted_at REAL NOT NULL
) STRICT;

-- Package files that are whole.
CREATE TABLE artifact (
    id INTEGER PRIMARY KEY,
    package_id INTEGER NOT NULL REFERENCES package (id) ON DELETE CASCADE,
    attempt_id TEXT REFERENCES attempt (id) ON DELETE SET NULL,
    pkgname TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    suffix TEXT NOT NULL,
    content_digest TEXT NOT NULL,
    input_key TEXT NOT NULL,
    summary BLOB NOT NULL,               -- its pkg_summary entry
    built_at REAL NOT NULL,
    missing_at REAL                      -- the repository lost it
) STRICT;
CREATE INDEX artifact_package ON artifact (package_id, built_at);
CREATE INDEX artifact_sha256 ON artifact (sha256);

-- What changed, in order. Written in the transaction of the change.
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    profile TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    cause TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX event_time ON event (time);

-- For people.
CREATE VIEW packages AS
SELECT profile.name AS profile, package.pkgpath, package.variant, record.pkgname,
       record.skip_reason, record.fail_reason, record.duplicate, record.weight,
       package.id AS package_id
FROM record
JOIN package ON package.id = record.package_id
JOIN profile ON profile.id = package.profile_id;

CREATE VIEW requirements AS
SELECT profile.name AS profile, record.pkgname, requirement.position, requirement.pattern,
       requirement.location, needed.pkgname AS required, requirement.problem
FROM requirement
JOIN record ON record.package_id = requirement.package_id
JOIN package ON package.id = requirement.package_id
JOIN profile ON profile.id = package.profile_id
LEFT JOIN record AS needed ON needed.package_id = requirement.required_id;

CREATE VIEW attempts AS
SELECT profile.name AS profile, attempt.pkgname, package.pkgpath, package.variant, attempt.id,
       attempt.host, attempt.dispatcher, attempt.outcome, attempt.blame, attempt.stage,
       attempt.message, attempt.granted_at, attempt.ended_at,
       attempt.ended_at - attempt.granted_at AS seconds
FROM attempt
JOIN package ON package.id = attempt.package_id
JOIN profile ON profile.id = package.profile_id;
"""


_FOLLOWED = """
ALTER TABLE profile ADD COLUMN resolver TEXT NOT NULL DEFAULT 'pbulk'
    CHECK (resolver IN ('pbulk', 'prefer-buildable'));
ALTER TABLE profile ADD COLUMN follow TEXT NOT NULL DEFAULT 'none'
    CHECK (follow IN ('none', 'git', 'cvs', 'hg', 'files'));
ALTER TABLE profile ADD COLUMN follow_seconds REAL NOT NULL DEFAULT 0;
ALTER TABLE profile ADD COLUMN followed TEXT NOT NULL DEFAULT '';
-- A delivery was not written to its end: requirements are made anew.
ALTER TABLE profile ADD COLUMN unsettled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE profile ADD COLUMN scans TEXT NOT NULL DEFAULT 'helper'
    CHECK (scans IN ('helper', 'hosts'));

-- Since when the lists of the tree are to be looked at again by hosts; NULL: they are known.
ALTER TABLE profile ADD COLUMN lists_outdated_at REAL DEFAULT 0;
ALTER TABLE profile ADD COLUMN lists_outdated_why TEXT NOT NULL DEFAULT 'was never listed';
ALTER TABLE profile ADD COLUMN lists_error TEXT NOT NULL DEFAULT '';

-- Trees that are laid over the tree of a profile.
CREATE TABLE overlay (
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    at TEXT NOT NULL,                    -- name in the top directory
    tree TEXT NOT NULL,
    follow TEXT NOT NULL DEFAULT '',     -- empty: as the profile
    followed TEXT NOT NULL DEFAULT '',   -- its revision up to which changes were taken in
    PRIMARY KEY (profile_id, at)
) STRICT, WITHOUT ROWID;

-- Changed files that many pkgpaths read: these are marked when no more change for a while.
CREATE TABLE waiting_file (
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    kind TEXT NOT NULL,
    first_at REAL NOT NULL,
    last_at REAL NOT NULL,
    PRIMARY KEY (profile_id, path)
) STRICT, WITHOUT ROWID;

-- A pkgpath that is to be scanned (again); scanned_at is 0 before the first scan.
ALTER TABLE pkgpath ADD COLUMN outdated_at REAL;
ALTER TABLE pkgpath ADD COLUMN outdated_why TEXT NOT NULL DEFAULT '';
-- What its records read: how many ids of file_set follow, these, and then ids of file,
-- each 32 bits, little-endian.
ALTER TABLE pkgpath ADD COLUMN files BLOB NOT NULL DEFAULT x'';
ALTER TABLE record DROP COLUMN scan_depends;

-- Its column required_id is looked up by hand only: an index, and the check that there is
-- such a package, take half the time of loading a tree.
DROP VIEW requirements;
ALTER TABLE requirement RENAME TO old_requirement;
CREATE TABLE requirement (
    package_id INTEGER NOT NULL REFERENCES package (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    pattern TEXT NOT NULL,
    location TEXT NOT NULL,
    required_id INTEGER,                 -- a package; NULL: nothing matches
    problem TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (package_id, position)
) STRICT, WITHOUT ROWID;
INSERT INTO requirement SELECT * FROM old_requirement;
DROP TABLE old_requirement;
CREATE VIEW requirements AS
SELECT profile.name AS profile, record.pkgname, requirement.position, requirement.pattern,
       requirement.location, needed.pkgname AS required, requirement.problem
FROM requirement
JOIN record ON record.package_id = requirement.package_id
JOIN package ON package.id = requirement.package_id
JOIN profile ON profile.id = package.profile_id
LEFT JOIN record AS needed ON needed.package_id = requirement.required_id;

-- Paths that scans read, relative to the tree where they are in it.
CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE
) STRICT;

-- Files below mk/ that are read together: ids of file, 32 bits each, little-endian.
CREATE TABLE file_set (
    id INTEGER PRIMARY KEY,
    files BLOB NOT NULL
) STRICT;

-- What an inputs_digest was made of: lines "DIGEST<tab>PATH", each digest cut short, zstd.
CREATE TABLE inputs (
    digest TEXT PRIMARY KEY,
    listing BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- A try at scanning some pkgpaths; leased as long as it has not ended.
CREATE TABLE scan_attempt (
    id TEXT PRIMARY KEY,
    profile_id INTEGER NOT NULL REFERENCES profile (id) ON DELETE CASCADE,
    fence INTEGER NOT NULL,
    dispatcher TEXT NOT NULL,
    host TEXT NOT NULL,
    granted_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT CHECK (outcome IN ('done', 'returned', 'lapsed', 'cancelled')),
    blame TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    generation TEXT NOT NULL,            -- scans of one may share an option cache
    enumerate INTEGER NOT NULL DEFAULT 0,
    pkgpaths TEXT NOT NULL               -- JSON
) STRICT;
CREATE INDEX scan_attempt_open ON scan_attempt (profile_id) WHERE ended_at IS NULL;

CREATE INDEX artifact_attempt ON artifact (attempt_id);

-- Held packages are not granted.
ALTER TABLE package ADD COLUMN held_at REAL;
ALTER TABLE package ADD COLUMN held_why TEXT NOT NULL DEFAULT '';

-- What an artifact was made of, to say what has changed since.
ALTER TABLE artifact ADD COLUMN record BLOB NOT NULL DEFAULT x'';        -- its text then, zstd
ALTER TABLE artifact ADD COLUMN inputs_digest TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN toolchain TEXT NOT NULL DEFAULT '';
ALTER TABLE artifact ADD COLUMN made_with TEXT NOT NULL DEFAULT '[]';    -- JSON [[pkgname, digest]]
-- What a build that is leased makes its artifact of.
ALTER TABLE lease ADD COLUMN record BLOB NOT NULL DEFAULT x'';
ALTER TABLE lease ADD COLUMN inputs_digest TEXT NOT NULL DEFAULT '';
ALTER TABLE lease ADD COLUMN toolchain TEXT NOT NULL DEFAULT '';
ALTER TABLE lease ADD COLUMN made_with TEXT NOT NULL DEFAULT '[]';
-- In whose repository it is; empty: unknown.
ALTER TABLE artifact ADD COLUMN dispatcher TEXT NOT NULL DEFAULT '';
UPDATE artifact SET dispatcher = coalesce(
    (SELECT attempt.dispatcher FROM attempt WHERE attempt.id = artifact.attempt_id), '');
-- Somebody ordered a rebuild: the file is there, and counts no more.
ALTER TABLE artifact ADD COLUMN discarded_at REAL;
ALTER TABLE artifact ADD COLUMN discarded_why TEXT NOT NULL DEFAULT '';

-- Bearer tokens: only a digest of each is kept.
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'feeder', 'builder', 'admin')),
    digest TEXT NOT NULL UNIQUE,
    created_at REAL NOT NULL,
    expires_at REAL,
    revoked_at REAL
) STRICT, WITHOUT ROWID;
"""


@migrations()
def first(db: Database) -> None:
    """The schema of version 0.1."""
    # Statement by statement: executescript would commit the migration's transaction.
    for statement in _statements(_FIRST):
        db.execute(statement)


@migrations()
def followed(db: Database) -> None:
    """Trees that are followed, scans as jobs, reasons why an artifact is stale, tokens."""
    for statement in _statements(_FOLLOWED):
        db.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
