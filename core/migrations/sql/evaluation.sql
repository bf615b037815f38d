-- Query sets, judges and their judgements, runs and evaluations.

CREATE TABLE :schema.query_sets (
    id bigserial PRIMARY KEY,
    name text NOT NULL UNIQUE,
    revision text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    updated_at timestamptz NOT NULL DEFAULT now()
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
    created_by text NOT NULL DEFAULT session_user
);

CREATE TABLE :schema.judgements (
    query bigint NOT NULL REFERENCES :schema.queries ON DELETE CASCADE,
    judge_id bigint NOT NULL REFERENCES :schema.judges ON DELETE CASCADE,
    target_kind text NOT NULL CHECK (target_kind IN ('document', 'chunk')),
    target text NOT NULL,
    grade integer NOT NULL,
    score double precision,
    judged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (query, judge_id, target_kind, target)
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
    ef_search integer,
    index_settings jsonb NOT NULL,
    sample jsonb,
    chunks bigint NOT NULL,
    queries bigint NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done')),
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    seconds double precision NOT NULL DEFAULT 0,
    created_by text NOT NULL DEFAULT session_user
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
    PRIMARY KEY (run_id, query_id)
);

CREATE TABLE :schema.evaluations (
    id bigserial PRIMARY KEY,
    query_set_id bigint NOT NULL REFERENCES :schema.query_sets ON DELETE CASCADE,
    primary_run_id bigint NOT NULL REFERENCES :schema.evaluation_runs ON DELETE CASCADE,
    candidate_run_id bigint NOT NULL REFERENCES :schema.evaluation_runs ON DELETE CASCADE,
    primary_version text NOT NULL,
    candidate_version text NOT NULL,
    verdict text CHECK (verdict IN ('pass', 'fail', 'inconclusive')),
    report jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL DEFAULT session_user
);
CREATE INDEX ON :schema.evaluations (query_set_id);
CREATE INDEX ON :schema.evaluations (primary_run_id);
CREATE INDEX ON :schema.evaluations (candidate_run_id);
