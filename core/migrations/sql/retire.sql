-- Retiring and dropping versions: what a rollback may need stays.

-- Why a version may be neither retired nor dropped, and what to do; no row when it may.
CREATE FUNCTION :schema.removal_obstacle(version bigint, OUT problem text, OUT remedy text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.problem, format(o.remedy, v.version_key)
    FROM :schema.embedding_versions v
    -- Every role may see every session's application_name: see revector.core.serving for its parts.
    CROSS JOIN LATERAL (
        SELECT coalesce(string_agg(concat_ws(' ', split_part(a.application_name, ' ', 2),
                                             split_part(a.application_name, ' ', 4)), ', '), '') AS services
        FROM pg_stat_activity a JOIN pg_namespace n ON n.nspname = :'schema'
        WHERE a.datname = current_database()
          AND a.application_name ~ format('^revector \S+ v%s@%s .* pinned$', v.id, n.oid)) AS pinned
    CROSS JOIN LATERAL (VALUES
        (1, v.active, 'is active', 'Cut over to another version first.'),
        (2, EXISTS (SELECT FROM (SELECT * FROM :schema.cutovers ORDER BY id DESC LIMIT 1) AS newest
                    WHERE v.id = :schema.rollback_target() AND newest.watch_until > clock_timestamp()),
            format('is what a rollback needs until %s',
                   (SELECT date_trunc('minute', watch_until) FROM :schema.cutovers ORDER BY id DESC LIMIT 1)),
            'Wait until the watch ends.'),
        (3, EXISTS (SELECT FROM :schema.cutover_requests r
                    WHERE r.embedding_version_id = v.id AND r.ended IS NULL AND :schema.request_obstacle(r) IS NULL),
            'has an open request for a cutover', 'Withdraw it: revector cutover withdraw %s'),
        (4, EXISTS (SELECT FROM :schema.backfill_jobs j JOIN :schema.backfill_workers w ON w.job_id = j.id
                    WHERE j.embedding_version_id = v.id AND j.state IN ('running', 'pausing', 'proving')
                      AND w.ended_at IS NULL AND w.seen_at > clock_timestamp() - interval '1 minute'),
            'is being backfilled', 'Cancel it: revector backfill cancel %s'),
        (5, pinned.services <> '', format('is what a search service is pinned to: %s', pinned.services),
            'Restart it without RETRIEVAL_ROLLBACK_VERSION, or with another version. All of them: revector serving')
    ) AS o (place, holds, problem, remedy)
    WHERE v.id = version AND o.holds
    ORDER BY o.place LIMIT 1
$$;

-- Refuses to retire or drop a version. The owner of the schema can force it with a reason, which the log keeps together
-- with what is returned here; the active version stays in any case.
CREATE FUNCTION :schema.check_removal(version :schema.embedding_versions, deed text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    obstacle record;
    forced boolean := coalesce(current_setting('revector.force', true), '') ~ '[^[:space:]]' AND :schema.owner_asks();
BEGIN
    SELECT * INTO obstacle FROM :schema.removal_obstacle(version.id);
    IF version.active OR (obstacle.problem IS NOT NULL AND NOT forced) THEN
        RAISE EXCEPTION 'Version % %: it cannot be %.', version.version_key, obstacle.problem, deed
            USING HINT = rtrim(obstacle.remedy, '.') || CASE WHEN version.active THEN '.' ELSE
                '. The owner of the schema can force it, with a reason that is logged.' END;
    END IF;
    IF deed = 'dropped' AND version.state NOT IN ('registered', 'retired') THEN
        RAISE EXCEPTION 'Version % is %: only a retired version can be dropped.', version.version_key, version.state
            USING HINT = format('Retire it first: revector versions retire %s', version.version_key);
    END IF;
    RETURN jsonb_strip_nulls(jsonb_build_object('encoder', version.encoder_spec, 'forced', obstacle.problem));
END $$;

-- Runs last, by its name, for statements from psql too. With the owner's rights, as the history is read.
CREATE FUNCTION :schema.removal_checked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    detail jsonb;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.state <> OLD.state AND NEW.state <> 'retired' AND 'previous' IN (OLD.state, NEW.state)
           OR NEW.completed_at IS NULL AND OLD.completed_at IS NOT NULL AND NEW.state <> 'retired' THEN
            RAISE EXCEPTION 'Version % cannot go from % to %.', OLD.version_key, OLD.state, NEW.state
                USING HINT = 'Only another cutover makes it previous; it is complete until it is retired.';
        END IF;
        IF NEW.state = OLD.state OR NEW.state <> 'retired' THEN
            RETURN NEW;
        END IF;
    END IF;
    detail := :schema.check_removal(OLD, CASE TG_OP WHEN 'DELETE' THEN 'dropped' ELSE 'retired' END);
    IF TG_OP = 'DELETE' AND to_regclass(:schema.version_table(OLD.id)) IS NOT NULL THEN
        RAISE EXCEPTION 'The vectors of version % would stay behind.', OLD.version_key
            USING HINT = format('Drop it: revector versions drop %s', OLD.version_key);
    END IF;
    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    VALUES (CASE TG_OP WHEN 'DELETE' THEN 'versions drop' ELSE 'versions retire' END, OLD.version_key, 'done',
            coalesce(nullif(current_setting('revector.force', true), ''), current_setting('revector.reason', true), ''),
            detail);
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    NEW.completed_at := NULL;
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.removal_checked() FROM PUBLIC;

CREATE TRIGGER removal_checked BEFORE UPDATE ON :schema.embedding_versions FOR EACH ROW
    WHEN (OLD.active = NEW.active AND (OLD.state, OLD.completed_at) IS DISTINCT FROM (NEW.state, NEW.completed_at))
    EXECUTE FUNCTION :schema.removal_checked();

CREATE TRIGGER removal_checked_too BEFORE DELETE ON :schema.embedding_versions
    FOR EACH ROW EXECUTE FUNCTION :schema.removal_checked();

-- What `versions retire` and `versions drop` call. The triggers check and log; no force outlasts the call.

CREATE FUNCTION :schema.begin_removal(key text, reason text, force boolean) RETURNS :schema.embedding_versions
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version :schema.embedding_versions;
BEGIN
    IF force AND coalesce(reason, '') !~ '[^[:space:]]' THEN
        RAISE EXCEPTION 'To force it takes a reason.' USING HINT = 'Give one: it is logged.';
    END IF;
    PERFORM set_config('revector.force', CASE WHEN force THEN reason ELSE '' END, true),
            set_config('revector.reason', coalesce(reason, ''), true);
    SELECT * INTO version FROM :schema.embedding_versions WHERE version_key = key FOR UPDATE;
    IF version.id IS NULL THEN
        RAISE EXCEPTION 'There is no embedding version %.', key;
    END IF;
    RETURN version;
END $$;

CREATE FUNCTION :schema.retire_version(key text, reason text DEFAULT '', force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version :schema.embedding_versions := :schema.begin_removal(key, reason, force);
BEGIN
    PERFORM :schema.check_removal(version, 'retired');
    UPDATE :schema.embedding_versions SET state = 'retired' WHERE id = version.id;
    DELETE FROM :schema.chunk_outbox WHERE embedding_version_id = version.id;
    PERFORM set_config('revector.force', '', true), set_config('revector.reason', '', true);
END $$;

CREATE FUNCTION :schema.drop_version(key text, reason text DEFAULT '', force boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version :schema.embedding_versions;
BEGIN
    PERFORM :schema.lock_version_tables();
    version := :schema.begin_removal(key, reason, force);
    -- Before the table is locked: nobody waits for a drop that is refused.
    PERFORM :schema.check_removal(version, 'dropped');
    PERFORM :schema.rebuild_chunk_embeddings(version.id);
    EXECUTE format('DROP TABLE IF EXISTS %s', :schema.version_table(version.id));
    DELETE FROM :schema.embedding_versions WHERE id = version.id;
    DELETE FROM :schema.vector_losses WHERE embedding_version_id = version.id;
    -- Last, since deleting the version empties its outbox, which updates the counts.
    DELETE FROM :schema.row_counts WHERE scope IN (version.id, -version.id);
    PERFORM set_config('revector.force', '', true), set_config('revector.reason', '', true);
END $$;

REVOKE EXECUTE ON FUNCTION :schema.retire_version(text, text, boolean) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION :schema.drop_version(text, text, boolean) FROM PUBLIC;
