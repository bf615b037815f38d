-- The flip: one at a time, approved, logged, notified, and kept in a history.

CREATE TABLE :schema.cutovers (
    id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL CHECK (action IN ('cutover', 'rollback')),
    from_version text,
    to_version text NOT NULL,
    from_version_id bigint REFERENCES :schema.embedding_versions ON DELETE SET NULL,
    embedding_version_id bigint REFERENCES :schema.embedding_versions ON DELETE SET NULL,
    made_by text NOT NULL DEFAULT session_user,
    reason text NOT NULL DEFAULT '',
    request_id bigint REFERENCES :schema.cutover_requests ON DELETE SET NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    watch_until timestamptz,
    watch_ended_at timestamptz,
    watch_ended_why text NOT NULL DEFAULT ''
);
CREATE INDEX ON :schema.cutovers (at);
CREATE INDEX ON :schema.cutovers (embedding_version_id);
CREATE INDEX ON :schema.cutovers (from_version_id);

CREATE FUNCTION :schema.refuse_cutover_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changing text[] := '{watch_ended_at,watch_ended_why,request_id,from_version_id,embedding_version_id}';
BEGIN
    -- Only the end of a watch is added, and references to dropped rows are cleared.
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - changing = to_jsonb(OLD) - changing
       AND coalesce(NEW.request_id = OLD.request_id, NEW.request_id IS NULL)
       AND NOT EXISTS (SELECT FROM :schema.embedding_versions v
                       WHERE v.id = OLD.from_version_id AND NEW.from_version_id IS DISTINCT FROM v.id
                          OR v.id = OLD.embedding_version_id AND NEW.embedding_version_id IS DISTINCT FROM v.id)
       AND coalesce(NEW.from_version_id = OLD.from_version_id, NEW.from_version_id IS NULL)
       AND coalesce(NEW.embedding_version_id = OLD.embedding_version_id, NEW.embedding_version_id IS NULL) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The history of cutovers is append only: % is refused.', TG_OP;
END $$;

CREATE TRIGGER cutovers_append_only BEFORE UPDATE OR DELETE ON :schema.cutovers
    FOR EACH ROW EXECUTE FUNCTION :schema.refuse_cutover_change();

CREATE TRIGGER cutovers_not_truncated BEFORE TRUNCATE ON :schema.cutovers
    EXECUTE FUNCTION :schema.refuse_truncate();

-- Every flip, by whatever means, queues behind a running one. Released at the end of the transaction.
CREATE FUNCTION :schema.lock_flip() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT FROM :schema.locks WHERE name = 'flip' FOR UPDATE
$$;

REVOKE EXECUTE ON FUNCTION :schema.lock_flip() FROM PUBLIC;

CREATE FUNCTION :schema.flips_queue() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A snapshot from before a change of the policy or of an approval would not know of it.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'A flip is refused in a transaction that is %.', current_setting('transaction_isolation')
            USING HINT = 'Use one that is read committed: BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
    PERFORM :schema.lock_flip();
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.flips_queue() FROM PUBLIC;

CREATE TRIGGER flips_queue BEFORE UPDATE OF active ON :schema.embedding_versions
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.flips_queue();

-- The version that a rollback makes active: the one that the newest flip took out of use, if that went forward and the
-- version was not retired since. NULL after a rollback. Anything but a flip to this version goes forward.
CREATE FUNCTION :schema.rollback_target() RETURNS bigint
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.id
    FROM (SELECT action, from_version_id FROM :schema.cutovers ORDER BY id DESC LIMIT 1) AS newest
    JOIN :schema.embedding_versions v ON v.id = newest.from_version_id
    WHERE newest.action = 'cutover' AND v.state = 'previous'
$$;

-- Active, or what a rollback makes active.
CREATE FUNCTION :schema.in_service(version bigint) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.active OR v.id IS NOT DISTINCT FROM :schema.rollback_target()
    FROM :schema.embedding_versions v WHERE v.id = version
$$;

-- Runs after check_version, by its name. With the owner's rights, since the flipping role may not be able to read or
-- write what decides a flip.
CREATE FUNCTION :schema.flip_approved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changing text[] := '{active,state,activated_at,deactivated_at}';
BEGIN
    IF to_jsonb(NEW) - changing <> to_jsonb(OLD) - changing THEN
        RAISE EXCEPTION 'The statement that makes version % active changes other things of it too.', OLD.version_key;
    END IF;
    IF OLD.id IS DISTINCT FROM :schema.rollback_target() AND :schema.approval_obstacle(OLD.id) IS NOT NULL THEN
        RAISE EXCEPTION 'Version % is not approved: %.', OLD.version_key, :schema.approval_obstacle(OLD.id)
            USING HINT = format('Request the cutover and have it approved: revector cutover request %s',
                                OLD.version_key);
    END IF;
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.flip_approved() FROM PUBLIC;

CREATE TRIGGER flip_approved BEFORE UPDATE ON :schema.embedding_versions
    FOR EACH ROW WHEN (NEW.active AND NOT OLD.active) EXECUTE FUNCTION :schema.flip_approved();

-- Writes every flip to the history and the log. Settings of the transaction give the reason (revector.reason) and what
-- the program says of itself (revector.action, revector.detail as jsonb), which is believed in nothing: it is kept under
-- a key of its own. With the owner's rights: no other role writes the history.
CREATE FUNCTION :schema.active_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    actives bigint[];
    newest bigint;
    last :schema.cutovers;
    after :schema.embedding_versions;
    kind text;
    why text := coalesce(current_setting('revector.reason', true), '');
    word jsonb := coalesce(nullif(current_setting('revector.detail', true), '')::jsonb, '{}');
    facts jsonb;
    request :schema.cutover_requests;
    turned :schema.shadows;
BEGIN
    -- What was active is what the history says: a statement may touch some rows only, and a deferred constraint lets two
    -- be active for a while, so that neither statement would be a flip by itself. Read at once, since other flips commit.
    SELECT array_agg(v.id), (SELECT max(id) FROM :schema.cutovers) INTO actives, newest
    FROM :schema.embedding_versions v WHERE v.active;
    IF cardinality(actives) > 1 THEN
        RAISE EXCEPTION 'Two embedding versions would be active: one statement has to end the one and begin the other.';
    END IF;
    SELECT * INTO last FROM :schema.cutovers WHERE id = newest;
    SELECT * INTO after FROM :schema.embedding_versions WHERE id = actives[1];
    IF last.id IS NOT NULL AND after.id IS NULL THEN
        RAISE EXCEPTION 'No embedding version would be active: % is, and this statement names no other.',
            last.to_version
            USING HINT = format('Known versions: %s.',
                                (SELECT string_agg(version_key, ', ' ORDER BY id) FROM :schema.embedding_versions));
    END IF;
    IF after.id IS NOT DISTINCT FROM last.embedding_version_id THEN
        RETURN NULL;
    END IF;
    kind := CASE WHEN last.action = 'cutover' AND last.from_version_id = after.id
                      AND EXISTS (SELECT FROM old_versions WHERE id = after.id AND state = 'previous')
                 THEN 'rollback' ELSE 'cutover' END;

    UPDATE :schema.cutovers SET watch_ended_at = clock_timestamp(),
                                watch_ended_why = format('%s: %s became active', kind, after.version_key)
    WHERE watch_ended_at IS NULL AND watch_until > clock_timestamp();

    -- A rollback carries out no request, and waits for nobody who is ending one: it leaves them void.
    IF kind = 'cutover' THEN
        UPDATE :schema.cutover_requests r SET ended = 'done'
        WHERE r.embedding_version_id = after.id AND r.ended IS NULL AND :schema.request_obstacle(r) IS NULL
        RETURNING * INTO request;
    END IF;

    facts := jsonb_build_object(
        'from', last.to_version, 'to', after.version_key, 'request', request.id,
        'approvals', jsonb_build_object(
            'needed', CASE kind WHEN 'cutover' THEN :schema.cutover_setting('approvals', 0) ELSE 0 END,
            'given', (SELECT count(*) FROM :schema.cutover_approvals a
                      WHERE a.request_id = request.id AND a.approved_by <> request.requested_by)),
        'missing', (SELECT greatest(0, coalesce(sum(CASE scope WHEN 0 THEN delta ELSE -delta END), 0))
                    FROM :schema.row_counts WHERE scope IN (0, after.id)));
    word := jsonb_strip_nulls(jsonb_build_object('action', nullif(current_setting('revector.action', true), '')))
            || CASE jsonb_typeof(word) WHEN 'object' THEN word ELSE jsonb_build_object('detail', word) END;
    IF word <> '{}' THEN
        facts := facts || jsonb_build_object('client_says', word);
    END IF;
    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    VALUES (kind, after.version_key, 'done', why, facts);
    -- After a rollback there is no version worth watching.
    INSERT INTO :schema.cutovers (action, from_version, from_version_id, to_version, embedding_version_id, reason,
                                  request_id, detail, watch_until)
    VALUES (kind, last.to_version, last.embedding_version_id, after.version_key, after.id, why, request.id, facts,
            CASE WHEN last.id IS NOT NULL AND kind = 'cutover' AND :schema.cutover_setting('watch_hours', 24) > 0
                 THEN clock_timestamp() + make_interval(secs => 3600 * :schema.cutover_setting('watch_hours', 24)) END);

    -- A shadow whose candidate is now active continues with the roles swapped, as a new shadow: figures of the two
    -- directions are not added up.
    UPDATE :schema.shadows SET stopped_at = clock_timestamp()
    WHERE stopped_at IS NULL AND embedding_version_id = after.id
    RETURNING * INTO turned;
    IF turned.id IS NOT NULL AND last.embedding_version_id IS NOT NULL THEN
        INSERT INTO :schema.shadows (embedding_version_id, sample, query_text, retention_days, reason)
        VALUES (last.embedding_version_id, turned.sample, turned.query_text, turned.retention_days,
                format('turned round: %s became active', after.version_key));
    END IF;

    PERFORM pg_notify('revector', json_build_object('schema', TG_TABLE_SCHEMA, 'active', after.version_key)::text);
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.active_changed() FROM PUBLIC;

CREATE TRIGGER active_changed AFTER UPDATE ON :schema.embedding_versions
    REFERENCING OLD TABLE AS old_versions FOR EACH STATEMENT EXECUTE FUNCTION :schema.active_changed();
