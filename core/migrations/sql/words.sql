-- The list by words of a hybrid search: BM25 over the words of a query, the rarest first, within bounded work.

-- How common words are -----------------------------------------------------------------------------------------

-- Counted in a sample whenever the collection has doubled, so that writers share no row. The newest one counts.
CREATE TABLE :schema.word_statistics (
    id bigserial PRIMARY KEY,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    chunks bigint NOT NULL CHECK (chunks >= 0),
    last_chunk_id bigint NOT NULL,
    average_length double precision NOT NULL CHECK (average_length > 0)
);

-- Only words in many chunks: all others are rare, and a search counts those by the index.
CREATE TABLE :schema.word_counts (
    statistics_id bigint NOT NULL REFERENCES :schema.word_statistics ON DELETE CASCADE,
    word text NOT NULL,
    chunks bigint NOT NULL CHECK (chunks > 0),
    PRIMARY KEY (statistics_id, word)
);

-- With the owner's rights: nobody who writes chunks writes counts. One session at a time, without waiting; those that
-- find it busy leave it to the next.
CREATE FUNCTION :schema.count_words() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    newest bigint := coalesce((SELECT max(id) FROM new_chunks), (SELECT max(id) FROM :schema.document_chunks));
    before :schema.word_statistics;
    total bigint;
    share double precision;
    sampled bigint;
    average double precision;
    taken bigint;
BEGIN
    SELECT * INTO before FROM :schema.word_statistics ORDER BY id DESC LIMIT 1;
    IF newest IS NULL OR newest - coalesce(before.last_chunk_id, 0) < greatest(1000, before.chunks)
       OR NOT pg_try_advisory_xact_lock(2003788915, (to_regclass(format('%I.document_chunks', :'schema'))::oid::bigint
                                                     & 2147483647)::int) THEN
        RETURN NULL;
    END IF;
    total := (SELECT greatest(coalesce(sum(delta), 0), 1) FROM :schema.row_counts WHERE scope = 0);
    share := least(100, 100 * greatest(500, least(50000, total / 20)) / total::double precision);
    SELECT count(*), avg(length(content_tsv)) INTO sampled, average
    FROM :schema.document_chunks TABLESAMPLE SYSTEM (share) REPEATABLE (1);
    INSERT INTO :schema.word_statistics (chunks, last_chunk_id, average_length)
    VALUES (total, newest, greatest(coalesce(average, 1), 1)) RETURNING id INTO taken;
    INSERT INTO :schema.word_counts (statistics_id, word, chunks)
    SELECT taken, word, ndoc * total / sampled
    FROM ts_stat(format('SELECT content_tsv FROM %I.document_chunks TABLESAMPLE SYSTEM (%s) REPEATABLE (1)',
                        :'schema', share))
    WHERE ndoc >= 3;
    DELETE FROM :schema.word_statistics WHERE id < taken;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.count_words() FROM PUBLIC;

CREATE TRIGGER words_counted AFTER INSERT ON :schema.document_chunks
    REFERENCING NEW TABLE AS new_chunks FOR EACH STATEMENT EXECUTE FUNCTION :schema.count_words();

-- What a query asks for ----------------------------------------------------------------------------------------

CREATE FUNCTION :schema.any_of(words text[]) RETURNS tsquery
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(string_agg('''' || replace(replace(word, '\', '\\'), '''', '''''') || '''', ' | '), '')::tsquery
    FROM unnest(words) AS word
$$;

-- The words of a text, each once. Of a hyphenated word its parts, which the configuration yields beside the whole:
-- otherwise it would count twice.
CREATE FUNCTION :schema.words_of(content text) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH found AS (
        SELECT lexeme, positions[1] AS place FROM unnest(to_tsvector(:'configuration'::regconfig, content)))
    SELECT coalesce(array_agg(f.lexeme ORDER BY f.place), '{}') FROM found f
    WHERE NOT (f.lexeme ~ '^[^./@:-]+(-[^./@:-]+)+$'
               AND EXISTS (SELECT FROM found part WHERE part.place = f.place + 1))
$$;

-- What is read of a query: about as much as a chunk has. Postgres' parser takes quadratic time for a run like a_a_a_,
-- and for <!-- that nothing closes.
CREATE FUNCTION :schema.readable(query text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT regexp_replace(replace(left(query, 2000), '<!', ' '), '([^\s"!&|()]{100})[^\s"!&|()]+', '\1', 'g')
$$;

-- `words` are ranked by. `wanted` is what "phrases" and the alternatives to them ask for, `condition` that without the
-- -words, and `excluded` finds what no hit may contain; each is NULL when the query has nothing of the kind. Read as
-- websearch_to_tsquery does, except that one of the words is enough, that a dash before a blank is only a dash, and that
-- operators beyond the first `most_operators` are ignored; the words of such a phrase are ranked by.
CREATE FUNCTION :schema.read_query(query text, OUT words text[], OUT wanted tsquery, OUT condition tsquery,
                                   OUT excluded tsquery)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET client_min_messages = error AS $$
DECLARE
    configuration CONSTANT regconfig := :'configuration'::regconfig;
    most_operators CONSTANT int := 16;
    most_wanted CONSTANT int := 16;  -- plain words of an OR beside phrases
    side record;
    asked text;
    positive tsquery;
    negative tsquery;
    has_phrases boolean := false;
    has_exclusions boolean := false;
    only_excludes boolean := false;
    each_excludes boolean := true;
BEGIN
    query := :schema.readable(query);
    IF query !~ '"|(^|[\s!&|()])-' THEN
        words := :schema.words_of(query);
        RETURN;
    END IF;
    words := '{}';
    wanted := '';
    condition := '';
    excluded := '';
    FOR side IN  -- of each OR
        WITH tokens AS (
            SELECT number, coalesce(part[1], part[3], '') = '-' AS excludes, part[2] AS phrase, part[4] AS word,
                   coalesce(lower(part[4]) = 'or' AND part[3] = '', false) AS alternative
            FROM regexp_matches(query, '(-?)"([^"]*)"?|(-?)([^\s"!&|()-][^\s"!&|()]*)|-+', 'g')
                 WITH ORDINALITY AS found (part, number)),
        counted AS (
            SELECT *, count(*) FILTER (WHERE excludes OR phrase <> '' OR alternative) OVER (ORDER BY number)
                      <= most_operators AS counts FROM tokens),
        sides AS (
            SELECT *, count(*) FILTER (WHERE alternative AND counts) OVER (ORDER BY number) AS side FROM counted
            WHERE counts OR NOT (excludes OR alternative))
        SELECT coalesce(string_agg(word, ' ' ORDER BY number) FILTER (WHERE NOT excludes), '') AS plain,
               coalesce(string_agg(phrase, ' ') FILTER (WHERE NOT excludes), '') AS quoted,
               coalesce(array_agg(phrase) FILTER (WHERE counts AND NOT excludes AND phrase <> ''), '{}') AS phrases,
               coalesce(array_agg(coalesce(phrase, word)) FILTER (WHERE excludes), '{}') AS excluded
        FROM sides s WHERE NOT s.alternative GROUP BY s.side
    LOOP
        words := words || :schema.words_of(side.plain || ' ' || side.quoted);
        positive := '';
        negative := '';
        FOREACH asked IN ARRAY side.phrases LOOP
            positive := positive && phraseto_tsquery(configuration, asked);
        END LOOP;
        FOREACH asked IN ARRAY side.excluded LOOP
            negative := negative || phraseto_tsquery(configuration, asked);
        END LOOP;
        has_phrases := has_phrases OR numnode(positive) > 0;
        has_exclusions := has_exclusions OR numnode(negative) > 0;
        only_excludes := only_excludes OR (numnode(negative) > 0 AND side.plain = '' AND side.phrases = '{}');
        IF numnode(positive) = 0 THEN
            positive := :schema.any_of((:schema.words_of(side.plain))[1:most_wanted]);
        END IF;
        CONTINUE WHEN numnode(positive) + numnode(negative) = 0;
        wanted := wanted || positive;
        condition := condition || (positive && !! negative);
        excluded := excluded && negative;
        each_excludes := each_excludes AND numnode(negative) > 0;
    END LOOP;
    words := ARRAY(SELECT DISTINCT word FROM unnest(words) AS word);
    wanted := CASE WHEN has_phrases AND NOT only_excludes THEN wanted END;
    condition := CASE WHEN has_phrases OR has_exclusions THEN condition END;
    excluded := CASE WHEN has_exclusions AND each_excludes THEN excluded END;
END $$;

-- BM25 -----------------------------------------------------------------------------------------------------------

-- Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009): how much a word counts in a
-- chunk, from 0 to 1. A chunk's length is the number of its different words. ts_rank of one word is 0.1 · 6/π² · Σ 1/i²
-- for i up to the number of its occurrences, which is had from it much faster than by reading the tsvector as rows.
CREATE FUNCTION :schema.bm25(content tsvector, word tsquery, norm double precision)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 1 - norm / (norm + round(1::double precision / (1.6449340668482264::double precision
    - 16.449340668482264::double precision * ts_rank(content, word)) - 0.5::double precision));

-- The best chunks for the words of a query, at most `most`, best first. The rarest words are looked up, as far as `budget`
-- chunks go, and the next one together with those that follow it; the best of what that finds are then ranked by the
-- other words too. So the time does not depend on how many words there are, nor on how common. `filter` is what
-- a chunk's metadata must satisfy. Where `among` is given, these chunks are ranked and no others.
CREATE FUNCTION :schema.chunks_by_words(query text, most int, filter jsonb DEFAULT NULL, among bigint[] DEFAULT NULL)
RETURNS TABLE (chunk_id bigint, score double precision)
LANGUAGE plpgsql STABLE ROWS 100
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    k1 CONSTANT double precision := 1.2;
    b CONSTANT double precision := 0.75;
    budget bigint;                       -- how many chunks the words looked up may be in
    few CONSTANT bigint := 300;          -- of one of them, where its count is not known or the budget is used up
    many CONSTANT bigint := 200000;      -- words in more chunks are not looked up
    asked record;
    statistics :schema.word_statistics;
    collection bigint;
    average double precision;
    words tsquery[];
    counts bigint[];
    weights double precision[];
    alone int;
    together tsquery;
    scans tsquery[];
    scanned tsquery[];
    limits bigint[];
    path CONSTANT jsonpath := :schema.filter_path(filter);
    candidates bigint[];
    parts double precision[];
BEGIN
    SELECT * INTO asked FROM :schema.read_query(query);
    SELECT * INTO statistics FROM :schema.word_statistics ORDER BY id DESC LIMIT 1;
    IF statistics.id IS NULL THEN
        SELECT count(*), avg(length(c.content_tsv)) INTO collection, average FROM :schema.document_chunks c;
    ELSE
        collection := greatest(statistics.chunks + coalesce((SELECT max(c.id) FROM :schema.document_chunks c), 0)
                               - statistics.last_chunk_id, 1);
        average := statistics.average_length;
    END IF;

    -- In a large collection each of them lies in a page of its own.
    budget := greatest(600, least(2500, 5000000 / greatest(collection, 1)));

    -- The rarest words: first those that are too rare to be in the statistics, then the others.
    WITH asked_words AS (
        SELECT ('''' || replace(replace(w.word, '\', '\\'), '''', '''''') || '''')::tsquery AS word, w.number,
               (SELECT k.chunks * collection / statistics.chunks FROM :schema.word_counts k
                WHERE k.statistics_id = statistics.id AND k.word = w.word) AS chunks
        FROM unnest(asked.words) WITH ORDINALITY AS w (word, number) OFFSET 0),
    rarest AS (
        (SELECT * FROM asked_words WHERE chunks IS NULL ORDER BY number LIMIT 20)
        UNION ALL (SELECT * FROM asked_words WHERE chunks IS NOT NULL ORDER BY chunks, number LIMIT 16))
    SELECT array_agg(word ORDER BY chunks NULLS FIRST, number), array_agg(chunks ORDER BY chunks NULLS FIRST, number)
    INTO words, counts FROM rarest;
    IF words IS NULL THEN
        RETURN;
    END IF;
    IF among IS NOT NULL OR asked.wanted IS NOT NULL THEN  -- no word is looked up by itself
        counts := ARRAY(SELECT coalesce(n, (SELECT count(*) FROM (
                            SELECT FROM :schema.document_chunks c WHERE c.content_tsv @@ words[place] LIMIT few) AS found))
                        FROM unnest(counts) WITH ORDINALITY AS c (n, place) ORDER BY place);
        alone := 0;
    ELSE
        alone := (SELECT count(*) FROM (SELECT n, sum(coalesce(n, 30)) OVER (ORDER BY place) AS so_far
                                        FROM unnest(counts) WITH ORDINALITY AS c (n, place)) AS sums
                  WHERE n IS NULL OR so_far <= budget);
    END IF;
    weights := ARRAY(SELECT (k1 + 1) * ln(1 + (greatest(collection, n) - n + 0.5) / (n + 0.5))
                     FROM unnest(counts) WITH ORDINALITY AS c (n, place) ORDER BY place);

    IF among IS NOT NULL THEN
        candidates := among;
        parts := array_fill(0::double precision, ARRAY[cardinality(among)]);
    ELSE
        IF asked.condition = asked.wanted THEN
            asked.condition := NULL;
        END IF;
        scans := words[1:alone];
        scanned := words[1:alone + 1];
        limits := ARRAY(SELECT CASE WHEN n IS NULL THEN few ELSE budget END
                        FROM unnest(counts[1:alone]) WITH ORDINALITY AS c (n, place) ORDER BY place);
        IF asked.wanted IS NOT NULL THEN
            scans := ARRAY[asked.wanted];
            limits := ARRAY[budget];
        ELSIF alone < cardinality(words) THEN
            together := (SELECT string_agg(word::text, ' | ') FROM unnest(words) WITH ORDINALITY AS w (word, place)
                         WHERE place BETWEEN alone + 2 AND alone + 4 AND counts[place] <= many)::tsquery;
            IF together IS NOT NULL AND counts[alone + 1] <= many THEN
                scans := scans || (words[alone + 1] && together);
                limits := limits || few;
            END IF;
            IF alone = 0 AND counts[1] <= many THEN
                scans := scans || words[1];
                scanned := array_fill(words[1], ARRAY[cardinality(scans)]);
                limits := limits || budget;
            END IF;
        END IF;
        -- `part` is what the words count that were looked up, `likely` also what the next one does where it was.
        WITH postings AS MATERIALIZED (
            SELECT s.place, c.id, c.fits, :schema.bm25(c.content_tsv, s.word, c.norm) AS part
            FROM unnest(scans, scanned, limits) WITH ORDINALITY AS s (scan, word, most, place)
            CROSS JOIN LATERAL (
                SELECT d.id, d.content_tsv, k1 * (1 - b + b * length(d.content_tsv) / average) AS norm,
                       (path IS NULL OR d.metadata @? path)
                       AND (asked.condition IS NULL OR d.content_tsv @@ asked.condition) AS fits
                FROM :schema.document_chunks d WHERE d.content_tsv @@ s.scan LIMIT s.most) AS c),
        weighed AS (
            SELECT place, coalesce(weights[place], (k1 + 1) * ln(1 + (greatest(collection, count(*)) - count(*) + 0.5)
                                                                     / (count(*) + 0.5))) AS weight
            FROM postings GROUP BY place),
        found AS (
            SELECT p.id, sum(p.part * w.weight) FILTER (WHERE place <= alone) AS part, sum(p.part * w.weight) AS likely
            FROM postings p JOIN weighed w USING (place) WHERE p.fits
            GROUP BY p.id ORDER BY likely DESC, p.id LIMIT greatest(most, 400 - 40 * (cardinality(words) - alone)))
        SELECT array_agg(id), array_agg(coalesce(part, 0)) INTO candidates, parts FROM found;
        asked.condition := NULL;
    END IF;
    IF alone = cardinality(words) THEN
        RETURN QUERY SELECT * FROM unnest(candidates, parts) LIMIT most;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT f.id, min(f.part) + sum(f.more) AS total
        FROM (
            SELECT c.id, c.part, w.weight * :schema.bm25(c.content_tsv, w.word, c.norm) AS more
            FROM (SELECT d.id, d.content_tsv, k.part, k1 * (1 - b + b * length(d.content_tsv) / average) AS norm
                  FROM unnest(candidates, parts) AS k (id, part) JOIN :schema.document_chunks d ON d.id = k.id
                  WHERE asked.condition IS NULL OR d.content_tsv @@ asked.condition OFFSET 0) AS c
            CROSS JOIN unnest(words[alone + 1:], weights[alone + 1:]) AS w (word, weight) OFFSET 0) AS f
        GROUP BY f.id HAVING min(f.part) + sum(f.more) > 0
        ORDER BY total DESC, f.id LIMIT most;
END $$;
