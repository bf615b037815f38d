-- The rules that hold whoever writes: revector, psql or an application.
-- Functions keep the search path of the upgrade, so that they find this collection's tables from any session.

-- A chunk never changes, and its vectors follow it ------------------------------------------------------

CREATE FUNCTION refuse_chunk_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'A chunk never changes: chunk % has vectors of its present text.', OLD.id
        USING HINT = 'Insert the new text as a new chunk and delete this one (revector ingest does both).';
END $$;

CREATE TRIGGER chunk_never_changes BEFORE UPDATE ON document_chunks FOR EACH ROW
    WHEN (OLD.id <> NEW.id OR OLD.content <> NEW.content OR OLD.content_sha256 <> NEW.content_sha256
          OR OLD.semantic_key <> NEW.semantic_key)
    EXECUTE FUNCTION refuse_chunk_change();

CREATE FUNCTION refuse_chunk_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'document_chunks cannot be truncated: the vectors of its chunks would stay behind.'
        USING HINT = 'Use DELETE, which takes the vectors along.';
END $$;

CREATE TRIGGER chunks_not_truncated BEFORE TRUNCATE ON document_chunks
    EXECUTE FUNCTION refuse_chunk_truncate();

-- For each statement and not for each row: a row trigger would slow every COPY.
CREATE FUNCTION chunks_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO row_counts (scope, delta) SELECT 0, count(*) FROM new_chunks HAVING count(*) > 0;
    INSERT INTO chunk_outbox (embedding_version_id, chunk_id)
    SELECT v.id, n.id
    FROM embedding_versions v CROSS JOIN new_chunks n
    WHERE v.state IN ('backfilling', 'loaded', 'ready', 'active', 'previous');
    RETURN NULL;
END $$;

CREATE TRIGGER chunks_inserted AFTER INSERT ON document_chunks
    REFERENCING NEW TABLE AS new_chunks FOR EACH STATEMENT EXECUTE FUNCTION chunks_inserted();

-- A version's table gets its foreign key only with the proof (loading with it takes twice as long), so that
-- until then this trigger takes deleted chunks out of it; afterwards there is nothing left for it to delete.
CREATE FUNCTION chunks_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    version_id bigint;
BEGIN
    INSERT INTO row_counts (scope, delta) SELECT 0, -count(*) FROM old_chunks HAVING count(*) > 0;
    FOR version_id IN SELECT id FROM embedding_versions LOOP
        DELETE FROM chunk_outbox o USING old_chunks d
        WHERE o.embedding_version_id = version_id AND o.chunk_id = d.id;
        IF to_regclass('chunk_embeddings_' || version_id) IS NOT NULL THEN
            EXECUTE format('DELETE FROM %I e USING old_chunks d WHERE e.chunk_id = d.id',
                           'chunk_embeddings_' || version_id);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER chunks_deleted AFTER DELETE ON document_chunks
    REFERENCING OLD TABLE AS old_chunks FOR EACH STATEMENT EXECUTE FUNCTION chunks_deleted();

-- Attached to every version table, with the version's id as argument. Loaders count what they insert
-- themselves: a transition table of all inserted vectors would be written to disk once more.
CREATE FUNCTION embeddings_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM row_counts WHERE scope = TG_ARGV[0]::bigint;
    ELSE
        INSERT INTO row_counts (scope, delta)
        SELECT TG_ARGV[0]::bigint, -count(*) FROM old_embeddings HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END $$;

-- The view that unions the version tables -----------------------------------------------------------------

-- Ad-hoc SQL such as "which chunks lack version X" reads chunk_embeddings as people write it. It is a view
-- over one table a version, because a partition cannot have another dimension than its parent.
CREATE FUNCTION rebuild_chunk_embeddings(without bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    branches text;
BEGIN
    SELECT string_agg(format('SELECT chunk_id, %s::bigint AS embedding_version_id, embedding::vector AS embedding FROM %I',
                             id, 'chunk_embeddings_' || id), ' UNION ALL ' ORDER BY id)
    INTO branches
    FROM embedding_versions
    WHERE to_regclass('chunk_embeddings_' || id) IS NOT NULL AND id IS DISTINCT FROM without;
    EXECUTE 'CREATE OR REPLACE VIEW chunk_embeddings AS '
        || coalesce(branches, 'SELECT NULL::bigint AS chunk_id, NULL::bigint AS embedding_version_id, '
                              'NULL::vector AS embedding WHERE false');
END $$;

SELECT rebuild_chunk_embeddings();

-- Which version is active ---------------------------------------------------------------------------------

CREATE FUNCTION check_version() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.active OR NEW.state <> 'registered' THEN
            RAISE EXCEPTION 'A new embedding version starts as registered; % cannot start as %.',
                NEW.version_key, CASE WHEN NEW.active THEN 'active' ELSE NEW.state END
                USING HINT = 'Insert it, backfill it, then cut over to it.';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.state <> 'registered' AND (NEW.id, NEW.dimensions, NEW.distance_metric, NEW.storage)
                       IS DISTINCT FROM (OLD.id, OLD.dimensions, OLD.distance_metric, OLD.storage) THEN
        RAISE EXCEPTION 'Version % has vectors: its dimensions, metric and storage cannot change.', OLD.version_key
            USING HINT = 'Register another version.';
    END IF;
    IF NEW.active AND NOT OLD.active THEN
        IF NEW.completed_at IS NULL OR to_regclass('chunk_embeddings_' || NEW.id) IS NULL THEN
            RAISE EXCEPTION 'Version % was never complete and cannot become active.', NEW.version_key
                USING HINT = format('Backfill it first: revector backfill run %s', NEW.version_key);
        END IF;
        NEW.activated_at := clock_timestamp();
        NEW.deactivated_at := NULL;
        NEW.state := 'active';
    ELSIF OLD.active AND NOT NEW.active THEN
        NEW.deactivated_at := clock_timestamp();
        NEW.state := 'previous';
    ELSIF NEW.active <> (NEW.state = 'active') THEN
        RAISE EXCEPTION 'Version % cannot be in state % while active is %.', NEW.version_key, NEW.state, NEW.active
            USING HINT = 'Change the column active (a cutover does); the state follows it.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_version BEFORE INSERT OR UPDATE ON embedding_versions
    FOR EACH ROW EXECUTE FUNCTION check_version();

-- Settings of the transaction that flips: revector.action, revector.reason, revector.detail (jsonb).
-- A flip from psql sets none of them and is logged all the same.
CREATE FUNCTION active_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    before text := (SELECT version_key FROM old_versions WHERE active);
    after text := (SELECT version_key FROM embedding_versions WHERE active);
BEGIN
    IF before IS NOT NULL AND after IS NULL THEN
        RAISE EXCEPTION 'No embedding version would be active: % is, and this statement names no other.', before
            USING HINT = format('Known versions: %s.',
                                (SELECT string_agg(version_key, ', ' ORDER BY id) FROM embedding_versions));
    END IF;
    IF after IS DISTINCT FROM before
       AND (TG_OP <> 'UPDATE' OR EXISTS (SELECT FROM embedding_versions v JOIN old_versions o USING (id)
                                         WHERE v.active AND NOT o.active)) THEN
        INSERT INTO audit_log (action, version_key, outcome, reason, detail)
        VALUES (coalesce(nullif(current_setting('revector.action', true), ''), 'flip'), after, 'done',
                coalesce(current_setting('revector.reason', true), ''),
                jsonb_build_object('from', before, 'to', after)
                || coalesce(nullif(current_setting('revector.detail', true), '')::jsonb, '{}'::jsonb));
        PERFORM pg_notify('revector', json_build_object('schema', TG_TABLE_SCHEMA, 'active', after)::text);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER active_changed AFTER UPDATE ON embedding_versions
    REFERENCING OLD TABLE AS old_versions FOR EACH STATEMENT EXECUTE FUNCTION active_changed();

CREATE TRIGGER active_deleted AFTER DELETE ON embedding_versions
    REFERENCING OLD TABLE AS old_versions FOR EACH STATEMENT EXECUTE FUNCTION active_changed();

-- The log ---------------------------------------------------------------------------------------------------

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append only: % is refused.', TG_OP;
END $$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
