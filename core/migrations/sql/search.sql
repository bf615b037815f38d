-- Counts of searches, and the functions for services in any language that encode themselves: they ask which version
-- is active and how to encode for it, search the version that they encoded for, and read in every row whether it is
-- still active.

-- Applications write what they count: the checks keep out what nobody can have counted, and readers could not read.
-- A row covers the time from `at`: a second right after the version became active, a minute later on.
CREATE TABLE :schema.search_counts (
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    at timestamptz NOT NULL CHECK (at BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    process text NOT NULL,
    searches bigint NOT NULL,
    empty bigint NOT NULL,
    errors bigint NOT NULL,
    latencies integer[] NOT NULL CHECK (
        coalesce(array_dims(latencies), '') = '[1:160]' AND array_position(latencies, NULL) IS NULL
        AND 0 <= ALL (latencies)),
    cached_latencies integer[] NOT NULL DEFAULT array_fill(0, '{160}') CHECK (
        coalesce(array_dims(cached_latencies), '') = '[1:160]' AND array_position(cached_latencies, NULL) IS NULL
        AND 0 <= ALL (cached_latencies)),
    first_error timestamptz CHECK (first_error BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    last_error timestamptz CHECK (last_error BETWEEN '2000-01-01 00:00+00' AND '3000-01-01 00:00+00'),
    PRIMARY KEY (embedding_version_id, at, process),
    CONSTRAINT search_counts_counts_check CHECK (
        empty >= 0 AND errors >= 0 AND searches BETWEEN empty + errors AND 1000000000000)
);
CREATE INDEX ON :schema.search_counts (at);

-- A time that is far ahead would stay for ever, and be in the figures of every watch.
CREATE FUNCTION :schema.check_counted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF greatest(NEW.at, NEW.first_error, NEW.last_error) > clock_timestamp() + interval '1 hour' THEN
        RAISE EXCEPTION 'Nobody has searched at % yet.', greatest(NEW.at, NEW.first_error, NEW.last_error)
            USING HINT = 'Set the clock of the machine that searches.', ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER check_counted BEFORE INSERT OR UPDATE ON :schema.search_counts
    FOR EACH ROW EXECUTE FUNCTION :schema.check_counted();

-- For applications and operators. They may not delete rows themselves: that right would let them lock the table.
CREATE FUNCTION :schema.forget_search_counts() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM :schema.search_counts WHERE at < now() - interval '14 days'
$$;

REVOKE EXECUTE ON FUNCTION :schema.forget_search_counts() FROM PUBLIC;

-- A setting of an encoder's spec (PROVIDER:MODEL?NAME=VALUE&…, percent-encoded as in a query string); '' names the
-- model. NULL for what is no UTF-8: every service reads the active version's settings.
CREATE FUNCTION :schema.encoder_setting(spec text, setting text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH quoted AS (
            SELECT CASE WHEN setting = '' THEN nullif(substr(split_part(spec, '?', 1), strpos(spec, ':') + 1), '')
                        ELSE (SELECT replace(substr(pair, strpos(pair, '=') + 1), '+', ' ')
                              FROM regexp_split_to_table(substr(spec, nullif(strpos(spec, '?'), 0) + 1), '&') AS pair
                              WHERE split_part(pair, '=', 1) = setting LIMIT 1) END AS whole)
        SELECT convert_from(string_agg(CASE WHEN part[1] ~ '^%[0-9A-Fa-f]{2}$' THEN decode(substr(part[1], 2), 'hex')
                                            ELSE convert_to(part[1], 'UTF8') END, ''::bytea ORDER BY number), 'UTF8')
        FROM quoted, regexp_matches(whole, '%[0-9A-Fa-f]{2}|[^%]+|%', 'g') WITH ORDINALITY AS parts (part, number));
EXCEPTION WHEN character_not_in_repertoire THEN
    RETURN NULL;
END $$;

-- No row before the first cutover. base_url is NULL for the provider's own address; normalise says that vectors are
-- scaled to length one. Of a spec's settings only these are shown: others concern the machine that revector runs on.
CREATE FUNCTION :schema.active_version() RETURNS TABLE (
    version_key text, encoder_name text, encoder_revision text, dimensions int, distance_metric text, storage text,
    provider text, model text, base_url text, query_prefix text, normalise boolean, max_tokens int,
    activated_at timestamptz)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.version_key, v.encoder_name, v.encoder_revision, v.dimensions, v.distance_metric, v.storage,
           nullif(split_part(v.encoder_spec, ':', 1), ''), :schema.encoder_setting(v.encoder_spec, ''),
           :schema.encoder_setting(v.encoder_spec, 'base_url'),
           coalesce(:schema.encoder_setting(v.encoder_spec, 'query_prefix'), ''),
           coalesce(:schema.encoder_setting(v.encoder_spec, 'normalise'), 'true') <> 'false',
           substring(:schema.encoder_setting(v.encoder_spec, 'max_tokens') FROM '^[1-9][0-9]{0,8}$')::int, v.activated_at
    FROM :schema.embedding_versions v WHERE v.active
$$;

-- The versions whose encoders a search service opens ahead of a flip, so that no search waits for them: the one that a
-- rollback returns to, and the newest ready one that may go live. What an operator alone put into a row is not among
-- them where cutovers need approval: opening it would mean reading the files that it names. With the owner's rights,
-- since applications read neither requests nor approvals.
CREATE FUNCTION :schema.next_versions() RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN NEXT :schema.rollback_target();
    RETURN QUERY SELECT v.id FROM :schema.embedding_versions v
                 WHERE v.state = 'ready' AND :schema.approval_obstacle(v.id) IS NULL ORDER BY v.id DESC LIMIT 1;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.next_versions() FROM PUBLIC;

-- STABLE, so that the search and the check of the active version use the same snapshot. The statement is that of
-- core.retrieval.statements, which says what filters (`filter`) and fusion with a list by words (`text`) do; core.index
-- says why it orders by the indexed expression. pgvector's settings are set for the call, and not in the definition (SET
-- hnsw.ef_search): a role that restores a dump would need a right on them, and lose the function without it.
CREATE FUNCTION :schema.search_chunks(query :pgvector.vector, k int, version text, filter jsonb DEFAULT NULL,
                                      text text DEFAULT NULL) RETURNS TABLE (
    rank int, chunk_id bigint, semantic_key text, source_id text, chunk_no int, distance double precision, content text,
    version_key text, active boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    asked :schema.embedding_versions;
    now_active text := (SELECT v.version_key FROM :schema.embedding_versions v WHERE v.active);
    vectors text;
    metric text;
    distance text;
    typed text;
    path CONSTANT jsonpath := :schema.filter_path(filter);
    excluded CONSTANT tsquery := CASE WHEN text IS NOT NULL THEN (SELECT r.excluded FROM :schema.read_query(text) r) END;
    filtered CONSTANT boolean := path IS NOT NULL OR excluded IS NOT NULL;
    condition CONSTANT text := '($4 IS NULL OR c.metadata @? $4) AND (c.content_tsv @@ $5) IS NOT TRUE';
    depth int := CASE WHEN text IS NULL THEN k ELSE least(1000, greatest(100, 2 * k)) END;
    candidates int := depth + CASE WHEN path IS NOT NULL THEN least(3 * depth, 90) ELSE 0 END;
    wanted text := '';
    nearest text;
    compared text;
    ef_search text;
    iterative text;
BEGIN
    IF query IS NULL OR k IS NULL OR version IS NULL THEN
        RAISE EXCEPTION 'search_chunks takes a query vector, k and the key of the version that it was encoded for.'
            USING HINT = 'The active one and how to encode for it: SELECT * FROM active_version()', ERRCODE = '22004';
    END IF;
    IF k NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'k is %; expected 1 to 1000.', k USING ERRCODE = '22023';
    END IF;
    SELECT * INTO asked FROM :schema.embedding_versions v WHERE v.version_key = version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no embedding version %.', quote_literal(version)
            USING HINT = coalesce(format('%s is active: encode the query for it.', now_active), 'None is active yet.'),
                  ERRCODE = '42704';
    END IF;
    vectors := format('%I.%I', :'schema', 'chunk_embeddings_' || asked.id);
    IF to_regclass(vectors) IS NULL THEN
        RAISE EXCEPTION 'Version % has no vectors yet.', asked.version_key
            USING HINT = format('Backfill it: revector backfill run %s', asked.version_key), ERRCODE = '42P01';
    END IF;
    IF :pgvector.vector_dims(query) <> asked.dimensions THEN
        RAISE EXCEPTION 'The query has % dimensions; version % has %.',
            :pgvector.vector_dims(query), asked.version_key, asked.dimensions
            USING HINT = 'Encode a query with the version''s own encoder: SELECT * FROM active_version()',
                  ERRCODE = '22000';
    END IF;
    IF asked.distance_metric = 'cosine' AND (query OPERATOR(:pgvector.<=>) query) = 'NaN' THEN
        RAISE EXCEPTION 'The query is zero, or too long or too short for cosine.'
            USING HINT = 'Encode a query with the version''s own encoder: SELECT * FROM active_version()',
                  ERRCODE = '22000';
    END IF;
    -- Known by now: the query's type has loaded pgvector.
    ef_search := current_setting('hnsw.ef_search', true);
    iterative := current_setting('hnsw.iterative_scan', true);
    PERFORM set_config('hnsw.ef_search', least(1000, greatest(
                           depth, coalesce((asked.index_settings ->> 'ef_search')::int, 100)))::text, true);
    metric := format('OPERATOR(%I.%s)', :'pgvector',
                     CASE asked.distance_metric WHEN 'cosine' THEN '<=>' WHEN 'l2' THEN '<->' ELSE '<#>' END);
    typed := format('$1::%I.%s(%s)', :'pgvector', asked.storage, asked.dimensions);
    distance := format('embedding %s %s', metric, typed);
    IF filtered THEN
        wanted := format('WHERE NOT (SELECT few FROM rare) AND EXISTS '
                         '(SELECT FROM %I.document_chunks c WHERE c.id = chunk_id AND %s OFFSET 0) ', :'schema', condition);
    END IF;
    IF asked.dimensions > 4000 THEN
        nearest := format('SELECT chunk_id, %1$s AS distance FROM (SELECT chunk_id, embedding FROM %3$s %8$s'
                          'ORDER BY (%4$I.binary_quantize(embedding)::bit(%5$s)) '
                          'OPERATOR(%4$I.<~>) %4$I.binary_quantize(%2$s)::bit(%5$s) LIMIT %6$s) AS found '
                          'ORDER BY distance, chunk_id LIMIT %7$s',
                          distance, typed, vectors, :'pgvector', asked.dimensions, candidates * 20, candidates, wanted);
    ELSE
        nearest := format('SELECT chunk_id, %1$s AS distance FROM %3$s %7$sORDER BY %4$s %2$s %5$s LIMIT %6$s',
                          distance, metric, vectors,
                          CASE WHEN asked.storage = 'vector' AND asked.dimensions > 2000
                               THEN format('(embedding::%I.halfvec(%s))', :'pgvector', asked.dimensions)
                               ELSE 'embedding' END,
                          CASE WHEN asked.storage = 'vector' AND asked.dimensions > 2000
                               THEN format('%s::%I.halfvec(%s)', typed, :'pgvector', asked.dimensions)
                               ELSE typed END, candidates, wanted);
    END IF;
    IF filtered THEN
        compared := format('(SELECT chunk_id, distance FROM (SELECT e.chunk_id, %s AS distance FROM %%s c '
                           'JOIN %s e ON e.chunk_id = c.id WHERE %%s OFFSET 0) AS compared '
                           'ORDER BY distance, chunk_id LIMIT %s)', distance, vectors, depth);
        nearest := format(
            'matching AS MATERIALIZED (SELECT c.id FROM %1$I.document_chunks c WHERE %7$s LIMIT 2501), '
            'rare AS MATERIALIZED (SELECT count(*) BETWEEN %8$s AND 2500 AS few FROM matching), '
            'by_index AS MATERIALIZED (%3$s), '
            'enough AS MATERIALIZED (SELECT count(*) >= %4$s AS so FROM by_index), nearest AS MATERIALIZED (%5$s UNION ALL '
            '(SELECT * FROM by_index WHERE (SELECT so FROM enough) ORDER BY distance, chunk_id LIMIT %4$s) UNION ALL %6$s)',
            :'schema', condition, nearest, depth, format(compared, 'matching', '(SELECT few FROM rare)'),
            format(compared, format('%I.document_chunks', :'schema'),
                   condition || ' AND NOT (SELECT few FROM rare) AND NOT (SELECT so FROM enough)'),
            -- What a -word leaves is not counted: it is nearly always most of the collection.
            CASE WHEN path IS NULL THEN 'false' ELSE condition END, CASE WHEN path IS NULL THEN 1 ELSE 0 END);
        IF iterative IS NOT NULL THEN  -- since pgvector 0.8
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true);
        END IF;
    ELSE
        nearest := format('nearest AS MATERIALIZED (%s)', nearest);
    END IF;
    IF text IS NULL THEN
        nearest := nearest || ', hits AS (SELECT chunk_id, distance, row_number() OVER (ORDER BY distance, chunk_id) AS '
                              'place FROM nearest)';
    ELSE
        nearest := nearest || format(
            ', by_vector AS (SELECT chunk_id, row_number() OVER (ORDER BY distance, chunk_id) AS place FROM nearest), '
            'by_words AS (SELECT w.chunk_id, row_number() OVER (ORDER BY w.score DESC, w.chunk_id) AS place '
            'FROM %1$I.chunks_by_words($6, %2$s, $7, %3$s) w '
            'WHERE EXISTS (SELECT FROM %4$s e WHERE e.chunk_id = w.chunk_id) ORDER BY place LIMIT %5$s), '
            'scores AS (SELECT chunk_id, coalesce(1.0 / (60 + v.place), 0) + coalesce(1.0 / (60 + w.place), 0) AS score '
            'FROM by_vector v FULL JOIN by_words w USING (chunk_id) ORDER BY score DESC, chunk_id LIMIT %6$s), '
            'hits AS (SELECT chunk_id, %7$s AS distance, row_number() OVER (ORDER BY score DESC, chunk_id) AS place '
            'FROM scores JOIN %4$s e USING (chunk_id))',
            :'schema', depth * 5 / 4,
            CASE WHEN filtered THEN 'CASE WHEN (SELECT few FROM rare) THEN ARRAY(SELECT id FROM matching) END'
                 ELSE 'NULL' END, vectors, depth, k, distance);
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH %s SELECT n.place::int, n.chunk_id, c.semantic_key, c.source_id, c.chunk_no, n.distance, c.content, $2, $3 '
        'FROM hits n JOIN %I.document_chunks c ON c.id = n.chunk_id ORDER BY n.place', nearest, :'schema')
        USING query, asked.version_key, asked.active, path, excluded, text, filter;
    PERFORM set_config('hnsw.ef_search', ef_search, true);
    IF filtered AND iterative IS NOT NULL THEN
        PERFORM set_config('hnsw.iterative_scan', iterative, true);
    END IF;
END $$;
