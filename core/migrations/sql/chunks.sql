-- Chunks, the vectors that follow them, and the counts of both.

-- A chunk's text and words lie in its row, uncompressed, and not beside it: to rank by words, many rows are read.
CREATE TABLE :schema.document_chunks (
    id bigserial PRIMARY KEY,
    semantic_key text NOT NULL UNIQUE,
    document_id uuid NOT NULL,
    chunk_no integer NOT NULL,
    content text NOT NULL,
    content_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    source_id text NOT NULL DEFAULT '',
    metadata jsonb NOT NULL DEFAULT '{}',
    origin_id bigint,
    content_tsv tsvector GENERATED ALWAYS AS (to_tsvector(:'configuration'::regconfig, content)) STORED
) WITH (toast_tuple_target = 8160);
CREATE INDEX ON :schema.document_chunks (document_id);
-- Used for every chunk that is read: a hash index costs half as much as a b-tree, at any size.
CREATE INDEX ON :schema.document_chunks USING hash (content_sha256);
CREATE INDEX ON :schema.document_chunks USING gin (content_tsv);
-- Filters of searches: chunks with a rare value are found without reading every chunk.
CREATE INDEX ON :schema.document_chunks USING gin (metadata jsonb_path_ops);

-- Where documents were read: the folder that their ids are relative to, as it was named and in full. A few rows; ingests
-- take turns, so that none is there twice. Chunks refer to it without a foreign key, which would slow down every insert.
CREATE TABLE :schema.ingest_origins (
    id bigserial PRIMARY KEY,
    given text NOT NULL,
    path text NOT NULL,
    prefix text NOT NULL DEFAULT ''
);

-- Looking up the text of every chunk that is read costs more in a larger collection, since its index is read at
-- random. Few texts are repeated, and those fit a small table.
CREATE TABLE :schema.repeated_texts (
    id bigserial PRIMARY KEY,
    content_sha256 bytea NOT NULL
);
CREATE INDEX ON :schema.repeated_texts USING hash (content_sha256);

CREATE TABLE :schema.row_counts (
    id bigserial PRIMARY KEY,
    scope bigint NOT NULL,
    delta bigint NOT NULL CHECK (delta BETWEEN -1000000000000 AND 1000000000000)  -- no sum of them leaves a bigint
);
CREATE INDEX ON :schema.row_counts (scope);

CREATE TABLE :schema.chunk_outbox (
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    chunk_id bigint NOT NULL,
    queued_at timestamptz NOT NULL DEFAULT now(),
    leased_until timestamptz,
    lease_worker bigint,
    PRIMARY KEY (embedding_version_id, chunk_id),
    CONSTRAINT chunk_outbox_times_check CHECK (
        least(queued_at, leased_until) >= '2000-01-01 00:00+00'
        AND greatest(queued_at, leased_until) <= '3000-01-01 00:00+00')
);

-- A chunk never changes -----------------------------------------------------------------------------------

CREATE FUNCTION :schema.refuse_chunk_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'A chunk never changes: chunk % has vectors of its present text.', OLD.id
        USING HINT = 'Insert the new text as a new chunk and delete this one. Both at once: revector ingest PATH';
END $$;

CREATE TRIGGER chunk_never_changes BEFORE UPDATE ON :schema.document_chunks FOR EACH ROW
    WHEN (OLD.id <> NEW.id OR OLD.content <> NEW.content OR OLD.content_sha256 <> NEW.content_sha256
          OR OLD.semantic_key <> NEW.semantic_key)
    EXECUTE FUNCTION :schema.refuse_chunk_change();

CREATE FUNCTION :schema.refuse_chunk_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'document_chunks cannot be truncated: the vectors of its chunks would stay behind.'
        USING HINT = 'Use DELETE, which takes the vectors along.';
END $$;

CREATE TRIGGER chunks_not_truncated BEFORE TRUNCATE ON :schema.document_chunks
    EXECUTE FUNCTION :schema.refuse_chunk_truncate();

-- Ingests take turns. Gives up after two seconds, so that the session can say who it waits for; released at the end of the
-- transaction.
CREATE FUNCTION :schema.lock_ingest() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
    SELECT FROM :schema.locks WHERE name = 'ingest' FOR UPDATE
$$;

REVOKE EXECUTE ON FUNCTION :schema.lock_ingest() FROM PUBLIC;

-- Its vectors are kept up to date -------------------------------------------------------------------------

-- For each statement and not for each row: a row trigger would slow every COPY.
CREATE FUNCTION :schema.chunks_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.row_counts (scope, delta) SELECT 0, count(*) FROM new_chunks HAVING count(*) > 0;
    -- No unique key, on purpose: two writers of the same texts in different order would deadlock on it.
    -- Each chunk is looked up separately, since a cached plan knows only one size of new_chunks.
    INSERT INTO :schema.repeated_texts (content_sha256)
    SELECT DISTINCT n.content_sha256
    FROM new_chunks n
    CROSS JOIN LATERAL (SELECT FROM :schema.document_chunks c
                        WHERE c.content_sha256 = n.content_sha256 AND c.id <> n.id LIMIT 1) AS twin
    WHERE NOT EXISTS (SELECT FROM :schema.repeated_texts r WHERE r.content_sha256 = n.content_sha256);
    INSERT INTO :schema.chunk_outbox (embedding_version_id, chunk_id)
    SELECT v.id, n.id
    FROM :schema.embedding_versions v CROSS JOIN new_chunks n
    WHERE v.state IN ('backfilling', 'loaded', 'ready', 'active', 'previous');
    RETURN NULL;
END $$;

CREATE TRIGGER chunks_inserted AFTER INSERT ON :schema.document_chunks
    REFERENCING NEW TABLE AS new_chunks FOR EACH STATEMENT EXECUTE FUNCTION :schema.chunks_inserted();

-- A version's table gets its foreign key, which takes vectors away with their chunks, only with the proof (loading with it
-- takes twice as long), and has none while an operator builds its index: no deletion of a chunk may wait for that, so the
-- vectors are then queued to be deleted. With the owner's rights: no other role deletes vectors.
CREATE FUNCTION :schema.chunks_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version_id bigint;
BEGIN
    INSERT INTO :schema.row_counts (scope, delta) SELECT 0, -count(*) FROM old_chunks HAVING count(*) > 0;
    FOR version_id IN SELECT id FROM :schema.embedding_versions LOOP
        DELETE FROM :schema.chunk_outbox o USING old_chunks d
        WHERE o.embedding_version_id = version_id AND o.chunk_id = d.id;
        IF to_regclass(:schema.version_table(version_id)) IS NOT NULL AND NOT :schema.is_keyed(version_id) THEN
            BEGIN
                EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE NOWAIT', :schema.version_table(version_id));
                EXECUTE format('DELETE FROM %s e USING old_chunks d WHERE e.chunk_id = d.id',
                               :schema.version_table(version_id));
            EXCEPTION WHEN lock_not_available THEN
                EXECUTE format('INSERT INTO %I.chunk_outbox (embedding_version_id, chunk_id) '
                               'SELECT $1, d.id FROM old_chunks d '
                               'WHERE EXISTS (SELECT FROM %s e WHERE e.chunk_id = d.id) ON CONFLICT DO NOTHING',
                               :'schema', :schema.version_table(version_id)) USING version_id;
            END;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.chunks_deleted() FROM PUBLIC;

CREATE TRIGGER chunks_deleted AFTER DELETE ON :schema.document_chunks
    REFERENCING OLD TABLE AS old_chunks FOR EACH STATEMENT EXECUTE FUNCTION :schema.chunks_deleted();

-- A bulk insert of chunks puts as many rows into the outbox: a status that counted them would take longer with each.
-- It is also what a proof builds on, so that nobody else takes a chunk out of it that lacks its vector.
CREATE FUNCTION :schema.outbox_counted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version bigint;
    lacking bigint;
BEGIN
    IF TG_OP = 'DELETE' AND NOT :schema.is_owner() THEN
        FOR version IN SELECT DISTINCT embedding_version_id FROM changed LOOP
            EXECUTE format('SELECT o.chunk_id FROM changed o JOIN %1$I.document_chunks c ON c.id = o.chunk_id '
                           'WHERE o.embedding_version_id = $1 '
                           'AND NOT EXISTS (SELECT FROM %2$s e WHERE e.chunk_id = o.chunk_id) '
                           'AND NOT EXISTS (SELECT FROM %1$I.dead_letters d '
                           'WHERE d.embedding_version_id = $1 AND d.chunk_id = o.chunk_id) LIMIT 1',
                           :'schema', :schema.version_table(version)) INTO lacking USING version;
            IF lacking IS NOT NULL THEN
                RAISE EXCEPTION 'Chunk % has no vector of version % yet: it stays queued.', lacking, version;
            END IF;
        END LOOP;
    END IF;
    INSERT INTO :schema.row_counts (scope, delta)
    SELECT -embedding_version_id, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY embedding_version_id;
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_inserted AFTER INSERT ON :schema.chunk_outbox
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION :schema.outbox_counted();

CREATE TRIGGER outbox_deleted AFTER DELETE ON :schema.chunk_outbox
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION :schema.outbox_counted();
