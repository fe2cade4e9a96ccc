-- Every statement the daemon uses on facts, by name. A line `-- name: what it does` begins one.

-- profiles: All profiles.
SELECT * FROM profile ORDER BY name;

-- profile: One profile.
SELECT * FROM profile WHERE name = ?;

-- set_complete: A scan or load was completed, or the revision is known.
UPDATE profile SET complete = max(complete, ?1), revision = CASE ?2 WHEN '' THEN revision ELSE ?2 END
WHERE id = ?3;

-- selection: A profile's selection.
SELECT entry FROM selection WHERE profile_id = ? ORDER BY position;

-- select_clear: Forgets a profile's selection.
DELETE FROM selection WHERE profile_id = ?;

-- select_add: One entry of a selection.
INSERT INTO selection (profile_id, position, entry) VALUES (?, ?, ?);

-- pkgpaths: Directories of a profile in scan order.
SELECT id, path, position, scanned_at, seconds, error, inputs_digest, revision, outdated_at,
    outdated_why
FROM pkgpath WHERE profile_id = ? ORDER BY position, path;

-- put_pkgpath: The scan of a pkgpath succeeded or failed.
INSERT INTO pkgpath (id, profile_id, path, position, scanned_at, seconds, revision, error,
    inputs_digest, files)
VALUES (:id, :profile_id, :path, :position, :scanned_at, :seconds, :revision, :error, :inputs_digest, :files)
ON CONFLICT (profile_id, path) DO UPDATE SET position = excluded.position,
    scanned_at = excluded.scanned_at, seconds = excluded.seconds,
    revision = excluded.revision, error = excluded.error,
    inputs_digest = CASE WHEN excluded.error = '' THEN excluded.inputs_digest
                         ELSE inputs_digest END,
    files = CASE WHEN excluded.error = '' THEN excluded.files ELSE files END,
    outdated_at = CASE WHEN outdated_at > :since THEN outdated_at END,
    outdated_why = CASE WHEN outdated_at > :since THEN outdated_why ELSE '' END;

-- pkgpath_id: The number of a pkgpath.
SELECT id FROM pkgpath WHERE profile_id = ? AND path = ?;

-- enumerate_pkgpath: A pkgpath that was never scanned.
INSERT INTO pkgpath (profile_id, path, position, scanned_at, outdated_at, outdated_why)
VALUES (:profile_id, :path, :position, 0, :now, 'was never scanned')
ON CONFLICT (profile_id, path) DO NOTHING;

-- mark_outdated: A pkgpath is to be scanned (again).
UPDATE pkgpath SET outdated_at = ?, outdated_why = ? WHERE id = ?;

-- place_pkgpath: A pkgpath's place in the enumeration.
UPDATE pkgpath SET position = ? WHERE id = ?;

-- drop_pkgpath: The tree has the pkgpath no more.
DELETE FROM pkgpath WHERE id = ?;

-- put_package: Makes a package's identity.
INSERT INTO package (id, profile_id, pkgpath, variant) VALUES (?, ?, ?, ?);

-- last_package: The greatest id of all packages.
SELECT id FROM package ORDER BY id DESC LIMIT 1;

-- last_pkgpath: The greatest id of all pkgpaths.
SELECT id FROM pkgpath ORDER BY id DESC LIMIT 1;

-- gone_packages: Identities of a profile that have no record.
SELECT id, pkgpath, variant, fence, held_at, held_why FROM package
WHERE profile_id = ? AND NOT EXISTS (SELECT 1 FROM record WHERE package_id = package.id);

-- package: One identity.
SELECT id, pkgpath, variant, fence, held_at, held_why FROM package
WHERE profile_id = ? AND pkgpath = ? AND variant = ?;

-- unsettle: A delivery is being written (1), or was written to its end (0).
UPDATE profile SET unsettled = ? WHERE id = ?;

-- put_record: A package's record, new or changed.
INSERT INTO record (package_id, pkgpath_id, number, pkgname, skip_reason, fail_reason, duplicate,
    weight, digest, text)
VALUES (:package_id, :pkgpath_id, :number, :pkgname, :skip_reason, :fail_reason, :duplicate,
    :weight, :digest, :text)
ON CONFLICT (package_id) DO UPDATE SET pkgpath_id = excluded.pkgpath_id, number = excluded.number,
    pkgname = excluded.pkgname, skip_reason = excluded.skip_reason,
    fail_reason = excluded.fail_reason, duplicate = excluded.duplicate, weight = excluded.weight,
    digest = excluded.digest, text = excluded.text;

-- drop_record: The tree has the package no more.
DELETE FROM record WHERE package_id = ?;

-- mark_duplicate: Whether an earlier record has the same PKGNAME.
UPDATE record SET duplicate = ? WHERE package_id = ?;

-- drop_requirements: Before a package's requirements are written anew.
DELETE FROM requirement WHERE package_id = ?;

-- put_requirement: One pattern of a package.
INSERT INTO requirement (package_id, position, pattern, location, required_id, problem)
VALUES (?, ?, ?, ?, ?, ?);

-- records: Records of a profile, without the long texts.
SELECT record.package_id, record.pkgpath_id, package.variant, record.number, record.pkgname,
    record.skip_reason, record.fail_reason, record.duplicate, record.weight, record.digest,
    package.fence, package.held_at, package.held_why
FROM record JOIN package ON package.id = record.package_id
WHERE package.profile_id = ?;

-- names: What is searched by a pattern, in scan order.
SELECT record.package_id, record.pkgname, pkgpath.path, x''
FROM pkgpath JOIN record ON record.pkgpath_id = pkgpath.id
WHERE pkgpath.profile_id = :profile_id ORDER BY pkgpath.position, record.number;

-- texts: Records that have all of the words (a JSON list, in lower case), in scan order.
SELECT record.package_id, record.pkgname, pkgpath.path, record.text
FROM pkgpath JOIN record ON record.pkgpath_id = pkgpath.id
WHERE pkgpath.profile_id = :profile_id AND NOT EXISTS (
    SELECT 1 FROM json_each(:words) WHERE instr(lower(CAST(record.text AS TEXT)), value) = 0
)
ORDER BY pkgpath.position, record.number;

-- record_text: One record, whole.
SELECT text FROM record WHERE package_id = ?;

-- requirement_ids: Resolved requirements of a profile, in order.
SELECT requirement.package_id, requirement.required_id
FROM requirement JOIN package ON package.id = requirement.package_id
WHERE package.profile_id = ? AND requirement.required_id IS NOT NULL
ORDER BY requirement.package_id, requirement.position;

-- unresolved: Patterns of a profile that nothing matches.
SELECT requirement.package_id, requirement.pattern, requirement.problem
FROM requirement JOIN package ON package.id = requirement.package_id
WHERE package.profile_id = ? AND requirement.required_id IS NULL
ORDER BY requirement.package_id, requirement.position;

-- requirements: Patterns of one package and what they were resolved to.
SELECT requirement.pattern, requirement.location, requirement.required_id, requirement.problem
FROM requirement WHERE package_id = ? ORDER BY position;

-- artifact_of: The newest artifact of a package that the repository has.
SELECT * FROM artifact WHERE package_id = ? AND missing_at IS NULL AND discarded_at IS NULL
ORDER BY id DESC LIMIT 1;

-- attempts_of: Attempts that may still count against a package, oldest first.
SELECT id, input_key, outcome, blame, stage, message, host, log FROM attempt
WHERE package_id = ? AND outcome IN ('failed', 'returned', 'built') AND retried_at IS NULL
ORDER BY ended_at;

-- artifacts: Newest artifact of each package of a profile that the repository has.
SELECT artifact.id, artifact.package_id, artifact.pkgname, artifact.sha256, artifact.size,
    artifact.suffix, artifact.content_digest, artifact.input_key, artifact.built_at,
    artifact.attempt_id, artifact.dispatcher, artifact.summary
FROM artifact
JOIN package ON package.id = artifact.package_id
WHERE package.profile_id = ? AND artifact.missing_at IS NULL AND artifact.discarded_at IS NULL
ORDER BY artifact.id;

-- discard_artifacts: The artifacts of a package are there, and count no more.
UPDATE artifact SET discarded_at = ?, discarded_why = ?
WHERE package_id = ? AND discarded_at IS NULL;

-- hold: The package is held by an operator, or not any more (NULL).
UPDATE package SET held_at = ?, held_why = ? WHERE id = ?;

-- add_artifact: A package file that is whole.
INSERT INTO artifact (package_id, attempt_id, pkgname, sha256, size, suffix, content_digest,
    input_key, summary, built_at, dispatcher, record, inputs_digest, toolchain, made_with)
VALUES (:package_id, :attempt_id, :pkgname, :sha256, :size, :suffix, :content_digest,
    :input_key, :summary, :built_at, :dispatcher, :record, :inputs_digest, :toolchain,
    :made_with);

-- rekey_artifact: An artifact that was taken over is taken for one of these files.
UPDATE artifact SET input_key = ?, inputs_digest = ?
WHERE package_id = ? AND sha256 = ? AND attempt_id IS NULL AND missing_at IS NULL;

-- newest_artifact: The newest artifact of a package that counts, or else that counted once.
SELECT pkgname, input_key, record, inputs_digest, toolchain, made_with, missing_at, discarded_at,
    discarded_why
FROM artifact WHERE package_id = ?
ORDER BY missing_at IS NULL AND discarded_at IS NULL DESC, id DESC LIMIT 1;

-- put_inputs: The files behind an inputs digest.
INSERT INTO inputs (digest, listing) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING;

-- inputs: The files behind an inputs digest.
SELECT listing FROM inputs WHERE digest = ?;

-- unused_inputs: Digests whose files nothing refers to.
SELECT digest FROM inputs WHERE digest NOT IN (
    SELECT inputs_digest FROM pkgpath UNION SELECT inputs_digest FROM artifact
    UNION SELECT inputs_digest FROM lease);

-- drop_inputs: Forgets the files behind a digest.
DELETE FROM inputs WHERE digest = ?;

-- lose_artifact: The repository does not have it any more.
UPDATE artifact SET missing_at = ? WHERE sha256 = ? AND missing_at IS NULL
    AND package_id IN (SELECT id FROM package WHERE profile_id = ?);

-- ended_attempts: Attempts that may still count against their package, oldest first.
SELECT attempt.package_id, attempt.id, attempt.input_key, attempt.outcome, attempt.blame,
    attempt.stage, attempt.message, attempt.host, attempt.log
FROM attempt JOIN package ON package.id = attempt.package_id
WHERE package.profile_id = ? AND attempt.outcome IN ('failed', 'returned', 'built')
    AND attempt.retried_at IS NULL
ORDER BY attempt.ended_at;

-- stage_totals: Wall seconds of the newest successful attempts, for predictions.
SELECT attempt.package_id, sum(stage.wall) AS seconds
FROM attempt JOIN stage ON stage.attempt_id = attempt.id
JOIN package ON package.id = attempt.package_id
WHERE package.profile_id = ? AND attempt.outcome = 'built'
GROUP BY attempt.id ORDER BY attempt.ended_at;

-- leases: All leases, with what their attempts say.
SELECT lease.package_id, lease.attempt_id, lease.fence, lease.dispatcher, lease.host,
    lease.granted_at, attempt.input_key, package.profile_id
FROM lease JOIN attempt ON attempt.id = lease.attempt_id
JOIN package ON package.id = lease.package_id;

-- add_attempt: A job was granted.
INSERT INTO attempt (id, package_id, pkgname, fence, input_key, dispatcher, host, granted_at,
    make_jobs)
VALUES (:attempt, :package_id, :pkgname, :fence, :input_key, :dispatcher, :host, :granted_at,
    :make_jobs);

-- add_lease: The lease of that attempt.
INSERT INTO lease (package_id, attempt_id, fence, dispatcher, host, granted_at, record,
    inputs_digest, toolchain, made_with)
VALUES (:package_id, :attempt, :fence, :dispatcher, :host, :granted_at, :record,
    :inputs_digest, :toolchain, :made_with);

-- lease_origin: What a leased build makes its artifact of.
SELECT record, inputs_digest, toolchain, made_with FROM lease WHERE attempt_id = ?;

-- set_fence: The fence of the newest lease.
UPDATE package SET fence = ? WHERE id = ? AND fence < ?;

-- drop_lease: Ends a lease, if it is the one that is meant.
DELETE FROM lease WHERE package_id = ? AND attempt_id = ? AND fence = ?;

-- end_attempt: How an attempt ended.
UPDATE attempt SET ended_at = :ended_at, outcome = :outcome, blame = :blame, stage = :stage,
    message = :message, make_jobs = max(make_jobs, :make_jobs), peak_memory = :peak_memory,
    disk = :disk, log = :log
WHERE id = :attempt;

-- resume_attempt: A lapsed attempt is held after all.
UPDATE attempt SET ended_at = NULL, outcome = NULL, message = '' WHERE id = ?
    AND outcome = 'lapsed';

-- add_stage: One stage of an attempt.
INSERT OR REPLACE INTO stage (attempt_id, position, stage, wall, cpu, exit)
VALUES (?, ?, ?, ?, ?, ?);

-- attempt: One attempt.
SELECT * FROM attempt WHERE id = ?;

-- retry: Its failures count no more.
UPDATE attempt SET retried_at = ?
WHERE package_id = ? AND retried_at IS NULL AND outcome IN ('failed', 'returned');

-- add_event: What changed.
INSERT INTO event (time, profile, kind, subject, cause, detail) VALUES (?, ?, ?, ?, ?, ?);

-- events: Events after a sequence number.
SELECT sequence, time, profile, kind, subject, cause, detail FROM event
WHERE sequence > ? ORDER BY sequence LIMIT ?;

-- event_bounds: First and last sequence number that are kept.
SELECT coalesce((SELECT min(sequence) FROM event), 0),
    coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0);

-- events_to_prune: The last event that is too old, or one too many.
SELECT max(sequence) FROM (
    SELECT * FROM (SELECT sequence FROM event WHERE time < :before ORDER BY time DESC LIMIT 1)
    UNION ALL
    SELECT * FROM (SELECT sequence FROM event ORDER BY sequence DESC LIMIT 1 OFFSET :most)
) HAVING max(sequence) IS NOT NULL;

-- prune_events: Forgets all events up to a sequence number.
DELETE FROM event WHERE sequence <= ?;

-- history: Attempts of a profile or of one package, newest first.
SELECT attempt.*, package.pkgpath, package.variant, profile.name AS profile
FROM attempt JOIN package ON package.id = attempt.package_id
JOIN profile ON profile.id = package.profile_id
WHERE (:profile_id = 0 OR package.profile_id = :profile_id)
    AND (:package_id = 0 OR attempt.package_id = :package_id)
ORDER BY attempt.granted_at DESC, attempt.fence DESC LIMIT :limit;

-- stages: Stages of an attempt.
SELECT stage, wall, cpu, exit FROM stage WHERE attempt_id = ? ORDER BY position;

-- files: Paths that scans read, in slices by id.
SELECT id, path FROM file WHERE id > ?1 ORDER BY id LIMIT ?2;

-- file_sets: Sets of files below mk/ that are read together, in slices by id.
SELECT id, files FROM file_set WHERE id > ?1 ORDER BY id LIMIT ?2;

-- put_file: A path that no scan had read before.
INSERT INTO file (id, path) VALUES (?, ?);

-- put_file_set: Files that had not been read together before.
INSERT INTO file_set (id, files) VALUES (?, ?);

-- pkgpath_files: What pkgpaths of a profile read, in slices by id.
SELECT id, files FROM pkgpath WHERE profile_id = ?1 AND id > ?2 ORDER BY id LIMIT ?3;

-- overlays: Trees that are laid over a profile's tree.
SELECT at, tree, follow, followed FROM overlay WHERE profile_id = ? ORDER BY at;

-- put_overlay: A tree is laid over a profile's tree.
INSERT INTO overlay (profile_id, at, tree, follow) VALUES (?, ?, ?, ?)
ON CONFLICT (profile_id, at) DO UPDATE SET tree = excluded.tree, follow = excluded.follow;

-- drop_overlay: A tree is not laid over it any more.
DELETE FROM overlay WHERE profile_id = ? AND at = ?;

-- tree_followed: The revision up to which changes of a profile's own tree were taken in.
UPDATE profile SET followed = ?1 WHERE id = ?2 AND ?3 = '';

-- overlay_followed: The same of a tree that is laid over it.
UPDATE overlay SET followed = ?1 WHERE profile_id = ?2 AND at = ?3;

-- waiting_files: Changed files that wait for more.
SELECT path, kind, first_at, last_at FROM waiting_file WHERE profile_id = ? ORDER BY path;

-- wait_file: A file that many read changed, or changed again.
INSERT INTO waiting_file (profile_id, path, kind, first_at, last_at) VALUES (?1, ?2, ?3, ?4, ?4)
ON CONFLICT (profile_id, path) DO UPDATE SET kind = excluded.kind, last_at = excluded.last_at;

-- settle_file: What a changed file led to is marked.
DELETE FROM waiting_file WHERE profile_id = ? AND path = ?;

-- tokens: All tokens.
SELECT name, role, digest, created_at, expires_at, revoked_at FROM token ORDER BY name;

-- token: The token of a name.
SELECT role, expires_at, revoked_at FROM token WHERE name = ?;

-- put_token: Makes a token, in the place of one of that name that counts no more.
INSERT OR REPLACE INTO token (name, role, digest, created_at, expires_at) VALUES (?, ?, ?, ?, ?);

-- revoke_token: A token counts no more.
UPDATE token SET revoked_at = ? WHERE name = ?;

-- scan_leases: Scans that are leased.
SELECT * FROM scan_attempt WHERE ended_at IS NULL ORDER BY fence;

-- scan_returns: Scans that were lost or given back, oldest first.
SELECT * FROM scan_attempt WHERE outcome = 'lapsed'
    OR (outcome = 'returned' AND blame IN ('host', 'infrastructure'))
ORDER BY ended_at;

-- scan_fence: The newest fence of all scans.
SELECT coalesce(max(fence), 0) AS fence FROM scan_attempt;

-- scan_attempt: One try at scanning.
SELECT * FROM scan_attempt WHERE id = ?;

-- add_scan_attempt: A scan was granted.
INSERT INTO scan_attempt (id, profile_id, fence, dispatcher, host, granted_at, generation,
    enumerate, pkgpaths)
VALUES (:attempt, :profile_id, :fence, :dispatcher, :host, :granted_at, :generation, :enumerate,
    :pkgpaths);

-- end_scan_attempt: How it ended.
UPDATE scan_attempt SET ended_at = ?, outcome = ?, blame = ?, message = ? WHERE id = ?;

-- resume_scan_attempt: A lapsed scan is held after all.
UPDATE scan_attempt SET ended_at = NULL, outcome = NULL, message = '' WHERE id = ?
    AND outcome = 'lapsed';

-- lists: How it stands with the lists of a profile's tree.
SELECT lists_outdated_at, lists_outdated_why, lists_error FROM profile WHERE id = ?;

-- outdate_lists: The lists of the tree are to be looked at again.
UPDATE profile SET lists_outdated_at = ?, lists_outdated_why = ? WHERE id = ?;

-- lists_done: They were, and what is wrong with them.
UPDATE profile SET lists_outdated_at = NULL, lists_outdated_why = '', lists_error = ?
WHERE id = ?;

-- leased: Something of a profile that is leased, if there is.
SELECT attempt.pkgname AS what FROM lease JOIN attempt ON attempt.id = lease.attempt_id
JOIN package ON package.id = lease.package_id WHERE package.profile_id = :profile_id
UNION ALL
SELECT 'a scan' FROM scan_attempt WHERE profile_id = :profile_id AND ended_at IS NULL
LIMIT 1;

-- count_packages: Packages of a profile, also those the tree has no more.
SELECT count(*) FROM package WHERE profile_id = ?;

-- strike_profile: The profile is being forgotten: it has a name that none can have.
UPDATE profile SET name = '/' || id WHERE id = ?;

-- stricken_profiles: Profiles that are being forgotten.
SELECT id FROM profile WHERE name LIKE '/%';

-- forget_requirements: Some requirements of a profile.
DELETE FROM requirement WHERE package_id IN (
    SELECT DISTINCT requirement.package_id FROM package
    JOIN requirement ON requirement.package_id = package.id
    WHERE package.profile_id = ? LIMIT ?
);

-- forget_packages: Some packages of a profile, with all that is known of them.
DELETE FROM package WHERE id IN (SELECT id FROM package WHERE profile_id = ? LIMIT ?);

-- forget_pkgpaths: Some pkgpaths of a profile.
DELETE FROM pkgpath WHERE id IN (SELECT id FROM pkgpath WHERE profile_id = ? LIMIT ?);

-- forget_scan_attempts: Some scans of a profile.
DELETE FROM scan_attempt WHERE id IN (SELECT id FROM scan_attempt WHERE profile_id = ? LIMIT ?);

-- forget_profile: The profile itself.
DELETE FROM profile WHERE id = ? AND name LIKE '/%';

-- forget_gone: Some packages that have no record any more, and no lease.
DELETE FROM package WHERE id IN (
    SELECT id FROM package WHERE profile_id = ?
        AND NOT EXISTS (SELECT 1 FROM record WHERE package_id = package.id)
        AND NOT EXISTS (SELECT 1 FROM lease WHERE package_id = package.id)
    LIMIT ?
);

-- count_gone: How many of those there are.
SELECT count(*) FROM package WHERE profile_id = ?
    AND NOT EXISTS (SELECT 1 FROM record WHERE package_id = package.id)
    AND NOT EXISTS (SELECT 1 FROM lease WHERE package_id = package.id);

-- old_attempts: Attempts that ended before a time, but for the newest of each package.
SELECT id, package_id, log FROM (
    SELECT attempt.id, attempt.package_id, attempt.log, attempt.ended_at,
        row_number() OVER (PARTITION BY attempt.package_id
                           ORDER BY attempt.granted_at DESC, attempt.fence DESC) AS place
    FROM attempt JOIN package ON package.id = attempt.package_id
    WHERE package.profile_id = :profile_id
)
WHERE place > :keep AND ended_at < :before;

-- forget_attempt: An attempt that has ended, with its stages.
DELETE FROM attempt WHERE id = ? AND ended_at IS NOT NULL;

-- seconds_of: Wall seconds of the successful attempts of a package, oldest first.
SELECT sum(stage.wall) AS seconds
FROM attempt JOIN stage ON stage.attempt_id = attempt.id
WHERE attempt.package_id = ? AND attempt.outcome = 'built'
GROUP BY attempt.id ORDER BY attempt.ended_at;

-- old_artifacts: Artifacts that a newer one of their package replaced, or whose package is gone.
SELECT artifact.id, artifact.sha256, artifact.size, artifact.missing_at
FROM artifact JOIN package ON package.id = artifact.package_id
WHERE package.profile_id = ? AND (
    NOT EXISTS (SELECT 1 FROM record WHERE record.package_id = package.id)
    OR EXISTS (SELECT 1 FROM artifact AS newer WHERE newer.package_id = artifact.package_id
        AND newer.id > artifact.id AND newer.missing_at IS NULL)
);

-- forget_artifact: One of those, if it still is.
DELETE FROM artifact WHERE id = ?1 AND (
    NOT EXISTS (SELECT 1 FROM record WHERE record.package_id = artifact.package_id)
    OR EXISTS (SELECT 1 FROM artifact AS newer WHERE newer.package_id = artifact.package_id
        AND newer.id > ?1 AND newer.missing_at IS NULL)
);

-- artifact_named: Whether any record names a file.
SELECT 1 FROM artifact WHERE sha256 = ? LIMIT 1;
