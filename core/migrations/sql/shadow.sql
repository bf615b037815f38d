-- Shadow traffic: what is mirrored to a candidate, and the results.

CREATE TABLE :schema.shadows (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    sample double precision NOT NULL CHECK (sample > 0 AND sample <= 1),
    query_text text NOT NULL DEFAULT 'hashed' CHECK (query_text IN ('stored', 'hashed', 'omitted')),
    retention_days double precision NOT NULL DEFAULT 14 CHECK (retention_days > 0),
    started_at timestamptz NOT NULL DEFAULT now(),
    started_by text NOT NULL DEFAULT session_user,
    reason text NOT NULL DEFAULT '',
    stopped_at timestamptz
);
CREATE INDEX ON :schema.shadows (embedding_version_id);
CREATE UNIQUE INDEX shadows_one_runs ON :schema.shadows ((stopped_at IS NULL)) WHERE stopped_at IS NULL;

CREATE TABLE :schema.shadow_queries (
    id bigserial PRIMARY KEY,
    shadow_id bigint NOT NULL REFERENCES :schema.shadows ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    primary_version text NOT NULL,
    query text,
    query_sha256 bytea,
    segment text NOT NULL DEFAULT '',
    k integer NOT NULL,
    primary_keys text[] NOT NULL,
    candidate_keys text[] NOT NULL,
    overlap real,
    jaccard real,
    rbo real,
    kendall_tau real,
    primary_ms real NOT NULL,
    candidate_ms real,
    error text NOT NULL DEFAULT ''
);
CREATE INDEX ON :schema.shadow_queries (at);
CREATE INDEX ON :schema.shadow_queries (shadow_id, at);

CREATE TABLE :schema.shadow_counts (
    shadow_id bigint NOT NULL REFERENCES :schema.shadows ON DELETE CASCADE,
    process text NOT NULL,
    seen bigint NOT NULL DEFAULT 0,
    drawn bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    open_since timestamptz,
    error text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shadow_id, process)
);

-- Every process with a mirror follows the row of the running shadow.
CREATE FUNCTION :schema.shadow_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('revector_shadow', json_build_object('schema', TG_TABLE_SCHEMA)::text);
    RETURN NULL;
END $$;

CREATE TRIGGER shadow_changed AFTER INSERT OR UPDATE OR DELETE ON :schema.shadows
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.shadow_changed();

-- Who started it, whatever the statement says. A flip turns a shadow round in the name of the role that flips.
CREATE FUNCTION :schema.shadow_started() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.started_by := CASE WHEN TG_OP = 'UPDATE' THEN OLD.started_by ELSE session_user END;
    RETURN NEW;
END $$;

CREATE TRIGGER shadow_started BEFORE INSERT OR UPDATE ON :schema.shadows
    FOR EACH ROW EXECUTE FUNCTION :schema.shadow_started();
