-- Shadow traffic: what is mirrored to a candidate, and the results. Applications and operators write them: the checks
-- keep out what nobody can have measured, and readers could not read.

CREATE TABLE :schema.shadows (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    sample double precision NOT NULL CHECK (sample > 0 AND sample <= 1),
    query_text text NOT NULL DEFAULT 'hashed' CHECK (query_text IN ('stored', 'hashed', 'omitted')),
    retention_days double precision NOT NULL DEFAULT 14 CHECK (retention_days > 0 AND retention_days <= 3650),
    started_at timestamptz NOT NULL DEFAULT now()
        CHECK (started_at BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    started_by text NOT NULL DEFAULT session_user,
    reason text NOT NULL DEFAULT '',
    stopped_at timestamptz CHECK (stopped_at BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00')
);
CREATE INDEX ON :schema.shadows (embedding_version_id);
CREATE UNIQUE INDEX shadows_one_runs ON :schema.shadows ((stopped_at IS NULL)) WHERE stopped_at IS NULL;

CREATE TABLE :schema.shadow_queries (
    id bigserial PRIMARY KEY,
    shadow_id bigint NOT NULL REFERENCES :schema.shadows ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
        CHECK (at BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
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
    error text NOT NULL DEFAULT '',
    CONSTRAINT shadow_queries_keys_check CHECK (
        coalesce(array_ndims(primary_keys), 1) = 1 AND array_position(primary_keys, NULL) IS NULL
        AND coalesce(array_ndims(candidate_keys), 1) = 1 AND array_position(candidate_keys, NULL) IS NULL),
    CONSTRAINT shadow_queries_figures_check CHECK (  -- NaN is more than any number
        k BETWEEN 1 AND 1000 AND greatest(overlap, jaccard, rbo, abs(kendall_tau), 0) <= 1
        AND least(overlap, jaccard, rbo, primary_ms, candidate_ms) >= 0
        AND greatest(primary_ms, candidate_ms) <= 1000000000)
);
CREATE INDEX ON :schema.shadow_queries (at);
CREATE INDEX ON :schema.shadow_queries (shadow_id, at);

-- Deletes queries past their shadow's retention, at most so many of each shadow; returns how many. For applications and
-- operators. They may not delete rows themselves: that right would let them lock the table.
CREATE FUNCTION :schema.forget_shadow_queries(most int) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    DELETE FROM :schema.shadow_queries WHERE id IN (
        SELECT q.id FROM :schema.shadows s CROSS JOIN LATERAL (
            SELECT id FROM :schema.shadow_queries
            WHERE shadow_id = s.id AND at < clock_timestamp() - make_interval(secs => s.retention_days * 86400)
            LIMIT most) q);
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.forget_shadow_queries(int) FROM PUBLIC;

-- The key of the hashes that queries are kept by: the owner's alone, so that nobody else can tell a query by trying
-- what it may have been. Kept as the two pads of HMAC (RFC 2104): the key XOR 0x36 and XOR 0x5c, filled up to 64 bytes.
CREATE TABLE :schema.query_key (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    inner_pad bytea NOT NULL CHECK (octet_length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (octet_length(outer_pad) = 64)
);

-- A new key, of random bytes: 32 as a hash of two random UUIDs, which come from the server's source of keys.
CREATE FUNCTION :schema.new_query_key() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    random_key bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
    inner_one bytea := decode(repeat('36', 64), 'hex');
    outer_one bytea := decode(repeat('5c', 64), 'hex');
BEGIN
    FOR place IN 0 .. 31 LOOP
        inner_one := set_byte(inner_one, place, get_byte(inner_one, place) # get_byte(random_key, place));
        outer_one := set_byte(outer_one, place, get_byte(outer_one, place) # get_byte(random_key, place));
    END LOOP;
    INSERT INTO :schema.query_key (inner_pad, outer_pad) VALUES (inner_one, outer_one)
    ON CONFLICT (id) DO UPDATE SET inner_pad = excluded.inner_pad, outer_pad = excluded.outer_pad;
END $$;

SELECT :schema.new_query_key();

-- HMAC-SHA256 of a query's SHA-256: the text itself stays in the process that mirrors it. With the owner's rights, so
-- that nobody reads the key; only applications may call it, which see queries anyway.
CREATE FUNCTION :schema.hash_query(digest bytea) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF octet_length(digest) <> 32 THEN
        RAISE EXCEPTION 'The digest has % bytes; expected the 32 of a SHA-256.', octet_length(digest)
            USING ERRCODE = '22023';
    END IF;
    RETURN (SELECT sha256(k.outer_pad || sha256(k.inner_pad || digest)) FROM :schema.query_key k);
END $$;

REVOKE EXECUTE ON FUNCTION :schema.new_query_key(), :schema.hash_query(bytea) FROM PUBLIC;

CREATE TABLE :schema.shadow_counts (
    shadow_id bigint NOT NULL REFERENCES :schema.shadows ON DELETE CASCADE,
    process text NOT NULL,
    seen bigint NOT NULL DEFAULT 0,
    drawn bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    dropped bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    open_since timestamptz CHECK (open_since BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    error text NOT NULL DEFAULT '',
    updated_at timestamptz NOT NULL DEFAULT now()
        CHECK (updated_at BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    PRIMARY KEY (shadow_id, process),
    CONSTRAINT shadow_counts_counts_check CHECK (
        least(seen, drawn, done, dropped, failed) >= 0
        AND greatest(seen, drawn, done, dropped, failed) <= 1000000000000)
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
