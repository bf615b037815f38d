-- Query sets, judges and their judgements, runs and evaluations.

CREATE TABLE :schema.query_sets (
    id bigserial PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name NOT LIKE '% (hybrid)'),  -- which names evidence in cutover_basis()
    revision text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT query_sets_times_check CHECK (
        least(created_at, updated_at) >= '2000-01-01 00:00+00'
        AND greatest(created_at, updated_at) <= '3000-01-01 00:00+00')
);

CREATE TABLE :schema.queries (
    id bigserial PRIMARY KEY,
    query_set_id bigint NOT NULL REFERENCES :schema.query_sets ON DELETE CASCADE,
    query_id text NOT NULL,
    text text NOT NULL,
    segment text NOT NULL,
    UNIQUE (query_set_id, query_id)
);

CREATE TABLE :schema.judges (
    id bigserial PRIMARY KEY,
    name text NOT NULL UNIQUE,
    kind text NOT NULL CHECK (kind IN ('person', 'model')),
    spec text NOT NULL DEFAULT '',
    revision text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT judges_times_check CHECK (
        created_at >= '2000-01-01 00:00+00'
        AND created_at <= '3000-01-01 00:00+00')
);

CREATE TABLE :schema.judgements (
    query bigint NOT NULL REFERENCES :schema.queries ON DELETE CASCADE,
    judge_id bigint NOT NULL REFERENCES :schema.judges ON DELETE CASCADE,
    target_kind text NOT NULL CHECK (target_kind IN ('document', 'chunk')),
    target text NOT NULL,
    grade integer NOT NULL,
    score double precision,
    judged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (query, judge_id, target_kind, target),
    CONSTRAINT judgements_times_check CHECK (
        judged_at >= '2000-01-01 00:00+00'
        AND judged_at <= '3000-01-01 00:00+00'),
    CONSTRAINT judgements_amounts_check CHECK (score >= -1000000000000 AND score <= 1000000000000)
);
CREATE INDEX ON :schema.judgements (judge_id);

CREATE TABLE :schema.evaluation_runs (
    id bigserial PRIMARY KEY,
    query_set_id bigint NOT NULL REFERENCES :schema.query_sets ON DELETE CASCADE,
    query_set_revision text NOT NULL,
    embedding_version_id bigint REFERENCES :schema.embedding_versions ON DELETE SET NULL,
    version_key text NOT NULL,
    encoder text NOT NULL,
    encoder_revision text NOT NULL,
    k integer NOT NULL,
    exact boolean NOT NULL,
    hybrid boolean NOT NULL DEFAULT false,
    ef_search integer,
    index_settings jsonb NOT NULL,
    sample jsonb,
    chunks bigint NOT NULL,
    queries bigint NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    seconds double precision NOT NULL DEFAULT 0,
    created_by text NOT NULL DEFAULT session_user,
    CONSTRAINT evaluation_runs_times_check CHECK (
        least(started_at, finished_at) >= '2000-01-01 00:00+00'
        AND greatest(started_at, finished_at) <= '3000-01-01 00:00+00'),
    CONSTRAINT evaluation_runs_amounts_check CHECK (seconds >= -1000000000000 AND seconds <= 1000000000000)
);
CREATE INDEX ON :schema.evaluation_runs (query_set_id);
CREATE INDEX ON :schema.evaluation_runs (embedding_version_id);

CREATE TABLE :schema.evaluation_results (
    run_id bigint NOT NULL REFERENCES :schema.evaluation_runs ON DELETE CASCADE,
    query_id text NOT NULL,
    chunk_ids bigint[] NOT NULL,
    document_ids uuid[] NOT NULL,
    distances real[] NOT NULL,
    encode_ms real NOT NULL,
    search_ms real NOT NULL,
    PRIMARY KEY (run_id, query_id),
    CONSTRAINT evaluation_results_amounts_check CHECK (least(encode_ms, search_ms) >= -1000000000000 AND greatest(encode_ms, search_ms) <= 1000000000000)
);

CREATE TABLE :schema.evaluations (
    id bigserial PRIMARY KEY,
    query_set_id bigint NOT NULL REFERENCES :schema.query_sets ON DELETE CASCADE,
    primary_run_id bigint NOT NULL REFERENCES :schema.evaluation_runs ON DELETE CASCADE,
    candidate_run_id bigint NOT NULL REFERENCES :schema.evaluation_runs ON DELETE CASCADE,
    primary_version text NOT NULL,
    candidate_version text NOT NULL,
    verdict text CHECK (verdict IN ('pass', 'fail', 'inconclusive')),
    report jsonb NOT NULL CHECK (jsonb_typeof(report) = 'object' AND jsonb_typeof(report -> 'gates') = 'array'),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user
);
CREATE INDEX ON :schema.evaluations (query_set_id);
CREATE INDEX ON :schema.evaluations (primary_run_id);
CREATE INDEX ON :schema.evaluations (candidate_run_id);

-- Evidence ------------------------------------------------------------------------------------------------------

CREATE TRIGGER made_by BEFORE INSERT OR UPDATE ON :schema.query_sets
    FOR EACH ROW EXECUTE FUNCTION :schema.made_by();
CREATE TRIGGER made_by BEFORE INSERT OR UPDATE ON :schema.judges
    FOR EACH ROW EXECUTE FUNCTION :schema.made_by();
CREATE TRIGGER made_by BEFORE INSERT OR UPDATE ON :schema.evaluation_runs
    FOR EACH ROW EXECUTE FUNCTION :schema.made_by();

-- A finished run never changes, and goes only with its query set.
CREATE FUNCTION :schema.check_run() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.state = 'done' THEN
        IF TG_OP = 'UPDATE' AND NEW.embedding_version_id IS NULL
           AND to_jsonb(NEW) - 'embedding_version_id' = to_jsonb(OLD) - 'embedding_version_id' THEN
            RETURN NEW;  -- its version was dropped
        END IF;
        IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM :schema.query_sets WHERE id = OLD.query_set_id) THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'Run % is finished: % is refused.', OLD.id, TG_OP USING HINT = 'Evaluate again.';
    END IF;
    IF TG_OP = 'UPDATE' AND OLD.created_by <> session_user AND NOT :schema.is_owner() THEN
        RAISE EXCEPTION 'Run % is of %: nobody else continues it.', OLD.id, OLD.created_by USING HINT = 'Evaluate again.';
    END IF;
    RETURN CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
END $$;

CREATE TRIGGER check_run BEFORE UPDATE OR DELETE ON :schema.evaluation_runs
    FOR EACH ROW EXECUTE FUNCTION :schema.check_run();

CREATE FUNCTION :schema.check_results() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed bigint := (SELECT r.id FROM new_results n JOIN :schema.evaluation_runs r ON r.id = n.run_id
                      WHERE r.state = 'done' OR r.created_by <> session_user LIMIT 1);
BEGIN
    IF closed IS NOT NULL THEN
        RAISE EXCEPTION 'Run % is finished, or of another role: no results are added.', closed
            USING HINT = 'Evaluate again.';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER check_results AFTER INSERT ON :schema.evaluation_results
    REFERENCING NEW TABLE AS new_results FOR EACH STATEMENT EXECUTE FUNCTION :schema.check_results();

-- Evidence of others does not go with a query set.
CREATE FUNCTION :schema.check_set_removal() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept :schema.evaluations;
BEGIN
    SELECT * INTO kept FROM :schema.evaluations
    WHERE query_set_id = OLD.id AND created_by <> session_user LIMIT 1;
    IF kept.id IS NOT NULL AND NOT :schema.is_owner() THEN
        RAISE EXCEPTION 'Query set % has evaluation % of %: it stays.', OLD.name, kept.id, kept.created_by
            USING HINT = 'The owner of the schema can drop it.';
    END IF;
    RETURN OLD;
END $$;

CREATE TRIGGER check_set_removal BEFORE DELETE ON :schema.query_sets
    FOR EACH ROW EXECUTE FUNCTION :schema.check_set_removal();

-- An evaluation is of two finished runs, by the role that saves it, and never changes. It goes with its runs.
CREATE FUNCTION :schema.check_evaluation() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    finished boolean := (SELECT count(*) = CASE WHEN NEW.primary_run_id = NEW.candidate_run_id THEN 1 ELSE 2 END
                         FROM :schema.evaluation_runs
                         WHERE id IN (NEW.primary_run_id, NEW.candidate_run_id) AND state = 'done');
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NOT finished THEN
            RAISE EXCEPTION 'An evaluation is of finished runs; % or % is not.',
                NEW.primary_run_id, NEW.candidate_run_id;
        END IF;
        NEW.created_by := session_user;
        NEW.created_at := clock_timestamp();
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' AND EXISTS (
           SELECT FROM unnest(ARRAY[OLD.primary_run_id, OLD.candidate_run_id]) AS run
           WHERE NOT EXISTS (SELECT FROM :schema.evaluation_runs r WHERE r.id = run)
              OR NOT EXISTS (SELECT FROM :schema.query_sets s WHERE s.id = OLD.query_set_id)) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'Evaluation % never changes: % is refused.', OLD.id, TG_OP USING HINT = 'Evaluate again.';
END $$;

CREATE TRIGGER check_evaluation BEFORE INSERT OR UPDATE OR DELETE ON :schema.evaluations
    FOR EACH ROW EXECUTE FUNCTION :schema.check_evaluation();
