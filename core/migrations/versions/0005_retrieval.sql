-- The way in for services that encode by themselves, in whatever language: they ask which version is active and how to
-- encode for it, search the version that they encoded for, and read in every row whether it is still the active one.
-- Functions keep the search path of the upgrade, so that they find this collection's tables from any session.

-- A setting of an encoder's spec (PROVIDER:MODEL?NAME=VALUE&…, percent-encoded as in a query string); '' names the model.
CREATE FUNCTION encoder_setting(spec text, setting text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
    WITH quoted AS (
        SELECT CASE WHEN setting = '' THEN nullif(substr(split_part(spec, '?', 1), strpos(spec, ':') + 1), '')
                    ELSE (SELECT replace(substr(pair, strpos(pair, '=') + 1), '+', ' ')
                          FROM regexp_split_to_table(substr(spec, nullif(strpos(spec, '?'), 0) + 1), '&') AS pair
                          WHERE split_part(pair, '=', 1) = setting LIMIT 1) END AS whole)
    SELECT convert_from(string_agg(CASE WHEN part[1] ~ '^%[0-9A-Fa-f]{2}$' THEN decode(substr(part[1], 2), 'hex')
                                        ELSE convert_to(part[1], 'UTF8') END, ''::bytea ORDER BY number), 'UTF8')
    FROM quoted, regexp_matches(whole, '%[0-9A-Fa-f]{2}|[^%]+|%', 'g') WITH ORDINALITY AS parts (part, number)
$$;

-- No row before the first cutover. base_url is NULL for the provider's own address; normalise says that vectors are
-- scaled to length one. Of a spec's settings only these are shown: others concern the machine that revector runs on.
CREATE FUNCTION active_version() RETURNS TABLE (
    version_key text, encoder_name text, encoder_revision text, dimensions int, distance_metric text, storage text,
    provider text, model text, base_url text, query_prefix text, normalise boolean, max_tokens int,
    activated_at timestamptz)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT v.version_key, v.encoder_name, v.encoder_revision, v.dimensions, v.distance_metric, v.storage,
           nullif(split_part(v.encoder_spec, ':', 1), ''), encoder_setting(v.encoder_spec, ''),
           encoder_setting(v.encoder_spec, 'base_url'), coalesce(encoder_setting(v.encoder_spec, 'query_prefix'), ''),
           coalesce(encoder_setting(v.encoder_spec, 'normalise'), 'true') <> 'false',
           encoder_setting(v.encoder_spec, 'max_tokens')::int, v.activated_at
    FROM embedding_versions v WHERE v.active
$$;

-- pgvector's settings are known to the server only once its library is loaded.
SELECT '[1]'::vector;

-- STABLE, so that the search and the question which version is active see one and the same moment. The statement is
-- that of core.retrieval.statements, and core.index says why it orders by what the index holds.
CREATE FUNCTION search_chunks(query vector, k int, version text) RETURNS TABLE (
    rank int, chunk_id bigint, semantic_key text, source_id text, chunk_no int, distance double precision, content text,
    version_key text, active boolean)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET hnsw.ef_search = 100 AS $$
#variable_conflict use_column
DECLARE
    asked embedding_versions;
    now_active text := (SELECT v.version_key FROM embedding_versions v WHERE v.active);
    metric text;
    typed text;
    nearest text;
BEGIN
    IF query IS NULL OR k IS NULL OR version IS NULL THEN
        RAISE EXCEPTION 'search_chunks takes a query vector, k and the key of the version that it was encoded for.'
            USING HINT = 'The active one and how to encode for it: SELECT * FROM active_version()', ERRCODE = '22004';
    END IF;
    IF k NOT BETWEEN 1 AND 1000 THEN
        RAISE EXCEPTION 'k is %; expected 1 to 1000.', k USING ERRCODE = '22023';
    END IF;
    SELECT * INTO asked FROM embedding_versions v WHERE v.version_key = version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no embedding version %.', quote_literal(version)
            USING HINT = coalesce(format('%s is active: encode the query for it.', now_active), 'None is active yet.'),
                  ERRCODE = '42704';
    END IF;
    IF to_regclass('chunk_embeddings_' || asked.id) IS NULL THEN
        RAISE EXCEPTION 'Version % has no vectors yet.', asked.version_key
            USING HINT = format('Backfill it: revector backfill run %s', asked.version_key), ERRCODE = '42P01';
    END IF;
    IF vector_dims(query) <> asked.dimensions THEN
        RAISE EXCEPTION 'The query has % dimensions; version % has %.',
            vector_dims(query), asked.version_key, asked.dimensions
            USING HINT = 'Encode a query with the version''s own encoder: SELECT * FROM active_version()',
                  ERRCODE = '22000';
    END IF;
    PERFORM set_config('hnsw.ef_search',
                       least(1000, greatest(k, coalesce((asked.index_settings ->> 'ef_search')::int, 100)))::text, true);
    metric := CASE asked.distance_metric WHEN 'cosine' THEN '<=>' WHEN 'l2' THEN '<->' ELSE '<#>' END;
    typed := format('$1::%s(%s)', asked.storage, asked.dimensions);
    IF asked.dimensions > 4000 THEN
        nearest := format('SELECT chunk_id, embedding %1$s %2$s AS distance FROM '
                          '(SELECT chunk_id, embedding FROM %3$I ORDER BY (binary_quantize(embedding)::bit(%4$s)) '
                          '<~> binary_quantize(%2$s)::bit(%4$s) LIMIT %5$s) AS found '
                          'ORDER BY distance, chunk_id LIMIT %6$s',
                          metric, typed, 'chunk_embeddings_' || asked.id, asked.dimensions, k * 20, k);
    ELSE
        nearest := format('SELECT chunk_id, embedding %1$s %2$s AS distance FROM %3$I ORDER BY %4$s %1$s %5$s LIMIT %6$s',
                          metric, typed, 'chunk_embeddings_' || asked.id,
                          CASE WHEN asked.storage = 'vector' AND asked.dimensions > 2000
                               THEN format('(embedding::halfvec(%s))', asked.dimensions) ELSE 'embedding' END,
                          CASE WHEN asked.storage = 'vector' AND asked.dimensions > 2000
                               THEN format('%s::halfvec(%s)', typed, asked.dimensions) ELSE typed END, k);
    END IF;
    RETURN QUERY EXECUTE format(
        'WITH nearest AS MATERIALIZED (%s) '
        'SELECT (row_number() OVER (ORDER BY n.distance, n.chunk_id))::int, n.chunk_id, c.semantic_key, c.source_id, '
        'c.chunk_no, n.distance, c.content, $2, $3 '
        'FROM nearest n JOIN document_chunks c ON c.id = n.chunk_id ORDER BY n.distance, n.chunk_id', nearest)
        USING query, asked.version_key, asked.active;
END $$;
