-- Embedding versions: what may change in a row, and the view over all version tables.

CREATE TABLE :schema.embedding_versions (
    id bigserial PRIMARY KEY,
    version_key text NOT NULL UNIQUE CHECK (version_key ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    encoder_name text NOT NULL,
    encoder_revision text NOT NULL,
    dimensions integer NOT NULL CHECK (dimensions BETWEEN 1 AND 16000),
    distance_metric text NOT NULL CHECK (distance_metric IN ('cosine', 'l2', 'ip')),
    active boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    state text NOT NULL DEFAULT 'registered'
        CHECK (state IN ('registered', 'backfilling', 'loaded', 'ready', 'active', 'previous', 'retired')),
    encoder_spec text NOT NULL DEFAULT '',
    storage text NOT NULL DEFAULT 'vector' CHECK (storage IN ('vector', 'halfvec')),
    index_settings jsonb NOT NULL DEFAULT '{}' CHECK (  -- every search reads ef_search: what is no number fails here
        jsonb_typeof(index_settings) = 'object'
        AND NOT jsonb_path_exists(index_settings, '$.* ? (@.type() != "number")')
        AND coalesce((index_settings ->> 'ef_search')::int, 100) BETWEEN 1 AND 1000
        AND coalesce((index_settings ->> 'ef_construction')::int, 64) BETWEEN 4 AND 1000
        AND coalesce((index_settings ->> 'm')::int, 16) BETWEEN 2 AND 100),
    created_by text NOT NULL DEFAULT session_user,
    notes text NOT NULL DEFAULT '',
    completed_at timestamptz,
    proven_at timestamptz,
    activated_at timestamptz,
    deactivated_at timestamptz,
    -- Deferrable on purpose: a plain partial unique index is checked row by row, so that the flip
    -- UPDATE … SET active = CASE … END fails whenever the new row comes before the old one.
    CONSTRAINT embedding_versions_one_active
        EXCLUDE USING btree (active WITH =) WHERE (active) DEFERRABLE INITIALLY IMMEDIATE
);

CREATE FUNCTION :schema.check_version() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.active OR NEW.state <> 'registered' THEN
            RAISE EXCEPTION 'A new embedding version starts as registered; % cannot start as %.',
                NEW.version_key, CASE WHEN NEW.active THEN 'active' ELSE NEW.state END
                USING HINT = 'Insert it, backfill it, then cut over to it.';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.state <> 'registered'
       AND (NEW.id, NEW.version_key, NEW.encoder_name, NEW.encoder_revision, NEW.dimensions, NEW.distance_metric,
            NEW.storage)
           IS DISTINCT FROM (OLD.id, OLD.version_key, OLD.encoder_name, OLD.encoder_revision, OLD.dimensions,
                             OLD.distance_metric, OLD.storage) THEN
        RAISE EXCEPTION 'Version % has vectors: its key, encoder, dimensions, metric and storage cannot change.',
            OLD.version_key
            USING HINT = 'Register another version.';
    END IF;
    IF NEW.active AND NOT OLD.active THEN
        IF NEW.completed_at IS NULL
           OR to_regclass(format('%I.%I', :'schema', 'chunk_embeddings_' || NEW.id)) IS NULL THEN
            RAISE EXCEPTION 'Version % was never complete and cannot become active.', NEW.version_key
                USING HINT = format('Backfill it first: revector backfill run %s', NEW.version_key);
        END IF;
        -- Without it others could add vectors that are of no chunk. A rollback is never refused.
        IF NEW.id IS DISTINCT FROM :schema.rollback_target() AND NOT :schema.owner_asks()
           AND NOT :schema.is_keyed(NEW.id, validated => true) THEN
            RAISE EXCEPTION 'The vectors of version % do not follow their chunks: its table has no foreign key.',
                NEW.version_key
                USING HINT = format('Prove it again: revector backfill run %s', NEW.version_key);
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

CREATE TRIGGER made_by BEFORE INSERT OR UPDATE OF created_by ON :schema.embedding_versions
    FOR EACH ROW EXECUTE FUNCTION :schema.made_by();

CREATE TRIGGER check_version BEFORE INSERT OR UPDATE ON :schema.embedding_versions
    FOR EACH ROW EXECUTE FUNCTION :schema.check_version();

-- Settings of an index change what the users of the active version find.
CREATE FUNCTION :schema.index_set() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.audit_log (action, version_key, outcome, detail)
    VALUES ('index set', NEW.version_key, 'done',
            jsonb_build_object('from', OLD.index_settings, 'to', NEW.index_settings));
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.index_set() FROM PUBLIC;

CREATE TRIGGER index_set AFTER UPDATE ON :schema.embedding_versions
    FOR EACH ROW WHEN (NEW.index_settings <> OLD.index_settings) EXECUTE FUNCTION :schema.index_set();

-- Ad-hoc SQL such as "which chunks lack version X" reads chunk_embeddings as people write it. It is a view over one
-- table for each version, because a partition cannot have other dimensions than its parent. It belongs to the owner of
-- the schema, and is rebuilt when a version is registered or dropped.
CREATE FUNCTION :schema.rebuild_chunk_embeddings(without bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    vector text := (SELECT format('%I.vector', n.nspname) FROM pg_extension e
                    JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector');
    branches text;
BEGIN
    SELECT string_agg(format('SELECT chunk_id, %s::bigint AS embedding_version_id, embedding::%s AS embedding '
                             'FROM %I.%I', v.id, vector, n.nspname, c.relname), ' UNION ALL ' ORDER BY v.id)
    INTO branches
    FROM :schema.embedding_versions v
    JOIN pg_class c ON c.relname = 'chunk_embeddings_' || v.id AND c.relkind = 'r'
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = :'schema'
    WHERE v.id IS DISTINCT FROM without;
    EXECUTE format('CREATE OR REPLACE VIEW %I.chunk_embeddings AS ', :'schema')
        || coalesce(branches, format('SELECT NULL::bigint AS chunk_id, NULL::bigint AS embedding_version_id, '
                                     'NULL::%s AS embedding WHERE false', vector));
END $$;

REVOKE EXECUTE ON FUNCTION :schema.rebuild_chunk_embeddings(bigint) FROM PUBLIC;

SELECT :schema.rebuild_chunk_embeddings();
