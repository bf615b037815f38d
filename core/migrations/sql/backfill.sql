-- Backfills, and vectors loaded from files. Operators write them: the checks keep out times that clients cannot read, and NaN.

CREATE TABLE :schema.backfill_jobs (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL UNIQUE REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    state text NOT NULL CHECK (
        state IN ('running', 'pausing', 'paused', 'interrupted', 'proving', 'done', 'failed', 'cancelled')),
    settings jsonb NOT NULL DEFAULT '{}',
    total bigint NOT NULL,
    outbox_done bigint NOT NULL DEFAULT 0,
    spent_usd double precision NOT NULL DEFAULT 0,
    throttle text,
    throttle_since timestamptz,
    error text,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    run_started_at timestamptz NOT NULL DEFAULT now(),
    run_done bigint NOT NULL DEFAULT 0,
    run_release text,
    probe_vector real[],
    probe_by text,
    checked_at timestamptz NOT NULL DEFAULT '-infinity',
    measured jsonb NOT NULL DEFAULT '{}',
    proving_worker bigint,
    CONSTRAINT backfill_jobs_times_check CHECK (
        least(throttle_since, started_at, finished_at, run_started_at) >= '2000-01-01 00:00+00'
        AND greatest(throttle_since, started_at, finished_at, run_started_at) <= '3000-01-01 00:00+00'),
    CONSTRAINT backfill_jobs_amounts_check CHECK (spent_usd >= -1000000000000 AND spent_usd <= 1000000000000)
);

CREATE TABLE :schema.backfill_ranges (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES :schema.backfill_jobs ON DELETE CASCADE,
    first_chunk_id bigint NOT NULL,
    last_chunk_id bigint NOT NULL,
    cursor bigint NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'leased', 'done')),
    done bigint NOT NULL DEFAULT 0,
    lease_token bigint NOT NULL DEFAULT 0,
    lease_worker bigint,
    lease_until timestamptz,
    CONSTRAINT backfill_ranges_times_check CHECK (
        lease_until >= '2000-01-01 00:00+00'
        AND lease_until <= '3000-01-01 00:00+00')
);
CREATE INDEX ON :schema.backfill_ranges (job_id, state);

CREATE TABLE :schema.backfill_workers (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES :schema.backfill_jobs ON DELETE CASCADE,
    client text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    engine text NOT NULL DEFAULT 'local',
    pid integer,
    sessions integer[] NOT NULL DEFAULT '{}',
    done bigint NOT NULL DEFAULT 0,
    batch_size integer,
    throttle text,
    throttle_since timestamptz,
    reserved_usd double precision NOT NULL DEFAULT 0,
    error text,
    CONSTRAINT backfill_workers_times_check CHECK (
        least(started_at, seen_at, ended_at, throttle_since) >= '2000-01-01 00:00+00'
        AND greatest(started_at, seen_at, ended_at, throttle_since) <= '3000-01-01 00:00+00'),
    CONSTRAINT backfill_workers_amounts_check CHECK (reserved_usd >= -1000000000000 AND reserved_usd <= 1000000000000)
);
CREATE INDEX ON :schema.backfill_workers (job_id);

CREATE TABLE :schema.backfill_samples (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES :schema.backfill_jobs ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    done bigint NOT NULL,
    seconds double precision NOT NULL,
    CONSTRAINT backfill_samples_times_check CHECK (
        at >= '2000-01-01 00:00+00'
        AND at <= '3000-01-01 00:00+00'),
    CONSTRAINT backfill_samples_amounts_check CHECK (seconds >= -1000000000000 AND seconds <= 1000000000000)
);
CREATE INDEX ON :schema.backfill_samples (job_id, at);

CREATE TABLE :schema.backfill_proofs (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    missing bigint NOT NULL,
    embedded bigint NOT NULL,
    dead_letters bigint NOT NULL,
    seconds double precision NOT NULL,
    missing_chunks bigint[]
);
CREATE INDEX ON :schema.backfill_proofs (embedding_version_id);

CREATE TABLE :schema.dead_letters (
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    chunk_id bigint NOT NULL REFERENCES :schema.document_chunks ON DELETE CASCADE,
    error text NOT NULL,
    attempts bigint NOT NULL DEFAULT 1,
    failed_at timestamptz NOT NULL DEFAULT now(),
    waived_by text,
    waived_reason text CHECK (waived_reason ~ '[^[:space:]]'),
    PRIMARY KEY (embedding_version_id, chunk_id),
    CONSTRAINT dead_letters_times_check CHECK (
        failed_at >= '2000-01-01 00:00+00'
        AND failed_at <= '3000-01-01 00:00+00')
);
CREATE INDEX ON :schema.dead_letters (chunk_id);

CREATE TABLE :schema.vector_loads (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    source text NOT NULL,
    fingerprint text NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    total bigint NOT NULL,
    cursor bigint NOT NULL DEFAULT 0,
    first_chunk_id bigint,
    last_chunk_id bigint,
    stored bigint NOT NULL DEFAULT 0,
    present bigint NOT NULL DEFAULT 0,
    unknown bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (embedding_version_id, fingerprint),
    CONSTRAINT vector_loads_times_check CHECK (
        least(started_at, updated_at, finished_at) >= '2000-01-01 00:00+00'
        AND greatest(started_at, updated_at, finished_at) <= '3000-01-01 00:00+00')
);

CREATE TABLE :schema.backfill_transitions (
    id bigserial PRIMARY KEY,
    job_id bigint NOT NULL REFERENCES :schema.backfill_jobs ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    from_state text,
    to_state text NOT NULL,
    reason text,
    client text NOT NULL DEFAULT coalesce(current_setting('revector.client', true), ''),
    CONSTRAINT backfill_transitions_times_check CHECK (
        at >= '2000-01-01 00:00+00'
        AND at <= '3000-01-01 00:00+00')
);
CREATE INDEX ON :schema.backfill_transitions (job_id);

CREATE FUNCTION :schema.backfill_moved() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.backfill_transitions (job_id, from_state, to_state, reason)
    VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state,
            coalesce(nullif(current_setting('revector.reason', true), ''),
                     CASE WHEN NEW.state IN ('failed', 'interrupted') THEN NEW.error END));
    RETURN NULL;
END $$;

CREATE TRIGGER backfill_planned AFTER INSERT ON :schema.backfill_jobs
    FOR EACH ROW EXECUTE FUNCTION :schema.backfill_moved();

CREATE TRIGGER backfill_moved AFTER UPDATE OF state ON :schema.backfill_jobs
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION :schema.backfill_moved();

-- Who accepted that a chunk has no vector, whatever the statement says.
CREATE FUNCTION :schema.dead_letter_waived() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.waived_by := CASE WHEN NEW.waived_reason IS NULL THEN NULL
                          WHEN TG_OP = 'UPDATE' AND NEW.waived_reason = OLD.waived_reason THEN OLD.waived_by
                          ELSE session_user END;
    RETURN NEW;
END $$;

-- A chunk that is no longer a dead letter has a vector, or waits for one.
CREATE FUNCTION :schema.dead_letters_deleted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version bigint;
BEGIN
    FOR version IN SELECT DISTINCT embedding_version_id FROM deleted LOOP
        IF to_regclass(:schema.version_table(version)) IS NOT NULL THEN
            EXECUTE format('INSERT INTO %1$I.chunk_outbox (embedding_version_id, chunk_id) '
                           'SELECT $1, d.chunk_id FROM deleted d JOIN %1$I.document_chunks c ON c.id = d.chunk_id '
                           'WHERE d.embedding_version_id = $1 '
                           'AND NOT EXISTS (SELECT FROM %2$s e WHERE e.chunk_id = d.chunk_id) ON CONFLICT DO NOTHING',
                           :'schema', :schema.version_table(version)) USING version;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE TRIGGER dead_letters_deleted AFTER DELETE ON :schema.dead_letters
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION :schema.dead_letters_deleted();

CREATE TRIGGER dead_letter_waived BEFORE INSERT OR UPDATE OF waived_by, waived_reason ON :schema.dead_letters
    FOR EACH ROW EXECUTE FUNCTION :schema.dead_letter_waived();
