-- A look-up by text for every chunk that is read costs more the larger the collection is: its index is touched at
-- random. Nearly no text is repeated, and those that are fit a table that stays small.

CREATE OR REPLACE FUNCTION chunks_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO row_counts (scope, delta) SELECT 0, count(*) FROM new_chunks HAVING count(*) > 0;
    -- No unique key, on purpose: two that write the same texts in another order would wait for each other on it.
    -- Each chunk is looked up by itself, since a plan that is kept knows one size of new_chunks only.
    INSERT INTO repeated_texts (content_sha256)
    SELECT DISTINCT n.content_sha256
    FROM new_chunks n
    CROSS JOIN LATERAL (SELECT FROM document_chunks c
                        WHERE c.content_sha256 = n.content_sha256 AND c.id <> n.id LIMIT 1) AS twin
    WHERE NOT EXISTS (SELECT FROM repeated_texts r WHERE r.content_sha256 = n.content_sha256);
    INSERT INTO chunk_outbox (embedding_version_id, chunk_id)
    SELECT v.id, n.id
    FROM embedding_versions v CROSS JOIN new_chunks n
    WHERE v.state IN ('backfilling', 'loaded', 'ready', 'active', 'previous');
    RETURN NULL;
END $$;

INSERT INTO repeated_texts (content_sha256)
SELECT content_sha256 FROM document_chunks GROUP BY content_sha256 HAVING count(*) > 1;
