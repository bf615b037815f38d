-- The flip: one at a time, approved, logged, notified, and kept in a history.

CREATE TABLE :schema.cutovers (
    id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    action text NOT NULL,
    from_version text,
    to_version text NOT NULL,
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

CREATE FUNCTION :schema.refuse_cutover_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Only the end of a watch is added, and references to dropped rows are cleared.
    IF TG_OP = 'UPDATE'
       AND to_jsonb(NEW) - '{watch_ended_at,watch_ended_why,request_id,embedding_version_id}'::text[]
           = to_jsonb(OLD) - '{watch_ended_at,watch_ended_why,request_id,embedding_version_id}'::text[]
       AND coalesce(NEW.request_id = OLD.request_id, NEW.request_id IS NULL)
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
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_advisory_xact_lock(
        hashtext('flip ' || to_regclass(format('%I.embedding_versions', :'schema'))::oid), 0)
$$;

CREATE FUNCTION :schema.flips_queue() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM :schema.lock_flip();
    RETURN NULL;
END $$;

CREATE TRIGGER flips_queue BEFORE UPDATE OF active ON :schema.embedding_versions
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.flips_queue();

-- Runs after check_version, by its name. With the owner's rights, since the flipping role may not be able to read or
-- write what decides a flip.
CREATE FUNCTION :schema.flip_approved() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.version_key, NEW.encoder_name, NEW.encoder_revision, NEW.encoder_spec, NEW.index_settings)
       IS DISTINCT FROM (OLD.version_key, OLD.encoder_name, OLD.encoder_revision, OLD.encoder_spec, OLD.index_settings)
    THEN
        RAISE EXCEPTION 'The statement that makes version % active changes other things of it too.', OLD.version_key;
    END IF;
    -- A rollback is always allowed.
    IF :schema.approval_obstacle(OLD.id) IS NOT NULL
       AND NOT EXISTS (SELECT FROM :schema.cutovers WHERE embedding_version_id = OLD.id) THEN
        RAISE EXCEPTION 'Version % is not approved: %.', OLD.version_key, :schema.approval_obstacle(OLD.id)
            USING HINT = format('Request the cutover and have it approved: revector cutover request %s',
                                OLD.version_key);
    END IF;
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.flip_approved() FROM PUBLIC;

CREATE TRIGGER flip_approved BEFORE UPDATE ON :schema.embedding_versions
    FOR EACH ROW WHEN (NEW.active AND NOT OLD.active) EXECUTE FUNCTION :schema.flip_approved();

-- Settings of the transaction that flips: revector.action, revector.reason, revector.detail (jsonb).
-- A flip from psql sets none of them and is logged too. With the owner's rights: no other role writes the history.
CREATE FUNCTION :schema.active_changed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before record;
    after record;
    deed text := current_setting('revector.action', true);
    why text := coalesce(current_setting('revector.reason', true), '');
    details jsonb := coalesce(nullif(current_setting('revector.detail', true), '')::jsonb, '{}'::jsonb);
    request :schema.cutover_requests;
    turned :schema.shadows;
BEGIN
    SELECT id, version_key INTO before FROM old_versions WHERE active;
    SELECT id, version_key INTO after FROM :schema.embedding_versions WHERE active;
    IF before.id IS NOT NULL AND after.id IS NULL THEN
        RAISE EXCEPTION 'No embedding version would be active: % is, and this statement names no other.',
            before.version_key
            USING HINT = format('Known versions: %s.',
                                (SELECT string_agg(version_key, ', ' ORDER BY id) FROM :schema.embedding_versions));
    END IF;
    IF after.id IS NULL OR NOT EXISTS (SELECT FROM old_versions WHERE id = after.id AND NOT active) THEN
        RETURN NULL;
    END IF;
    IF deed IS NULL OR deed NOT IN ('cutover', 'rollback') THEN
        deed := 'flip';
    END IF;

    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    VALUES (deed, after.version_key, 'done', why,
            details || jsonb_build_object('from', before.version_key, 'to', after.version_key));

    UPDATE :schema.cutovers SET watch_ended_at = clock_timestamp(),
                                watch_ended_why = format('%s: %s became active', deed, after.version_key)
    WHERE watch_ended_at IS NULL AND watch_until > clock_timestamp();

    SELECT * INTO request FROM :schema.cutover_requests WHERE embedding_version_id = after.id AND ended IS NULL;
    IF :schema.request_obstacle(request) IS NOT NULL THEN
        request := NULL;
    END IF;
    UPDATE :schema.cutover_requests SET ended = 'done' WHERE id = request.id;
    -- After a rollback there is no version worth watching.
    INSERT INTO :schema.cutovers
        (action, from_version, to_version, embedding_version_id, reason, request_id, detail, watch_until)
    VALUES (deed, before.version_key, after.version_key, after.id, why, request.id, details,
            CASE WHEN before.id IS NOT NULL AND deed <> 'rollback' AND :schema.cutover_setting('watch_hours', 24) > 0
                 THEN clock_timestamp() + make_interval(secs => 3600 * :schema.cutover_setting('watch_hours', 24)) END);

    -- A shadow whose candidate is now active continues with the roles swapped, as a new shadow: figures of the two
    -- directions are not added up.
    UPDATE :schema.shadows SET stopped_at = clock_timestamp()
    WHERE stopped_at IS NULL AND embedding_version_id = after.id
    RETURNING * INTO turned;
    IF turned.id IS NOT NULL AND before.id IS NOT NULL THEN
        INSERT INTO :schema.shadows (embedding_version_id, sample, query_text, retention_days, reason)
        VALUES (before.id, turned.sample, turned.query_text, turned.retention_days,
                format('turned round: %s became active', after.version_key));
    END IF;

    PERFORM pg_notify('revector', json_build_object('schema', TG_TABLE_SCHEMA, 'active', after.version_key)::text);
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.active_changed() FROM PUBLIC;

CREATE TRIGGER active_changed AFTER UPDATE ON :schema.embedding_versions
    REFERENCING OLD TABLE AS old_versions FOR EACH STATEMENT EXECUTE FUNCTION :schema.active_changed();

CREATE TRIGGER active_deleted AFTER DELETE ON :schema.embedding_versions
    REFERENCING OLD TABLE AS old_versions FOR EACH STATEMENT EXECUTE FUNCTION :schema.active_changed();
