-- A version's table: made, filled, proven and indexed by functions of the owner. The owner of a table decides what runs
-- in the session of its readers (policies, rules, index expressions), so operators own none and only insert rows.

-- A vector never changes. It leaves with its chunk, or with the whole version; before the version was ever complete its
-- owner may also empty the table.
CREATE FUNCTION :schema.refuse_vector_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v :schema.embedding_versions;
BEGIN
    SELECT * INTO v FROM :schema.embedding_versions WHERE id = TG_ARGV[0]::bigint;
    IF TG_OP = 'UPDATE' OR v.completed_at IS NOT NULL OR v.active THEN
        RAISE EXCEPTION 'A vector never changes: % of the vectors of version % is refused.', TG_OP, v.version_key
            USING HINT = 'Register another version.';
    END IF;
    RETURN NULL;
END $$;

-- Loaders count what they insert themselves: a transition table would write all inserted vectors to disk again. With the
-- owner's rights: no other role writes losses.
CREATE FUNCTION :schema.embeddings_deleted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v :schema.embedding_versions;
    gone bigint;
    loss bigint;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM :schema.row_counts WHERE scope = TG_ARGV[0]::bigint;
        RETURN NULL;
    END IF;
    SELECT * INTO v FROM :schema.embedding_versions WHERE id = TG_ARGV[0]::bigint;
    IF (v.completed_at IS NOT NULL OR v.active)
       AND EXISTS (SELECT FROM old_embeddings o JOIN :schema.document_chunks c ON c.id = o.chunk_id) THEN
        RAISE EXCEPTION 'A vector never changes: DELETE of the vectors of version % is refused.', v.version_key
            USING HINT = 'A vector leaves with its chunk. Delete the chunk, or register another version.';
    END IF;
    SELECT count(*) INTO gone FROM old_embeddings;
    IF gone > 0 THEN
        INSERT INTO :schema.row_counts (scope, delta) VALUES (v.id, -gone);
        INSERT INTO :schema.vector_losses (embedding_version_id, transaction, vectors)
        VALUES (v.id, pg_current_xact_id()::text::bigint, gone) RETURNING id INTO loss;
        -- Under any other isolation a row that was forgotten meanwhile would be an error.
        IF loss % 1000 = 0 AND current_setting('transaction_isolation') = 'read committed' THEN
            PERFORM :schema.forget_losses();
        END IF;
    END IF;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.embeddings_deleted() FROM PUBLIC;

CREATE FUNCTION :schema.version_table(version bigint) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('%I.%I', :'schema', 'chunk_embeddings_' || version)
$$;

-- Readers of the view over all version tables read each of them; roles that may queue chunks may insert vectors.
CREATE FUNCTION :schema.share_version_table(version bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT r.rolname, a.privilege_type AS privilege
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS a JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.relowner <> a.grantee
          AND (c.oid, a.privilege_type) IN ((to_regclass(format('%I.chunk_embeddings', :'schema')), 'SELECT'),
                                            (to_regclass(format('%I.chunk_outbox', :'schema')), 'INSERT'))
    LOOP
        EXECUTE format('GRANT %s ON %s TO %I', given.privilege, :schema.version_table(version), given.rolname);
        -- So that a proof reads the index and not every vector, and the planner knows the table's size.
        IF given.privilege = 'INSERT' AND current_setting('server_version_num')::int >= 170000 THEN
            EXECUTE format('GRANT MAINTAIN ON %s TO %I', :schema.version_table(version), given.rolname);
        END IF;
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.share_version_table(bigint) FROM PUBLIC;

-- One session at a time makes or drops a table, and rebuilds the view over them.
CREATE FUNCTION :schema.lock_version_tables() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT FROM :schema.locks WHERE name = 'version tables' FOR UPDATE
$$;

-- The triggers of a version's table: those that are there are replaced.
CREATE FUNCTION :schema.guard_version_table(version bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    made text := :schema.version_table(version);
    one text[];
BEGIN
    FOREACH one SLICE 1 IN ARRAY ARRAY[
        ['vectors_never_change_update', 'BEFORE UPDATE', '', 'refuse_vector_change'],
        ['vectors_never_change_truncate', 'BEFORE TRUNCATE', '', 'refuse_vector_change'],
        ['embeddings_deleted', 'AFTER DELETE', 'REFERENCING OLD TABLE AS old_embeddings', 'embeddings_deleted'],
        ['embeddings_truncated', 'AFTER TRUNCATE', '', 'embeddings_deleted']]
    LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', one[1], made);
        EXECUTE format('CREATE TRIGGER %I %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION %I.%I(%L)',
                       one[1], one[2], made, one[3], :'schema', one[4], version);
    END LOOP;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.guard_version_table(bigint) FROM PUBLIC;

-- True when it made the table, false when the version has one.
CREATE FUNCTION :schema.create_version_table(version bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v :schema.embedding_versions;
    made text := :schema.version_table(version);
BEGIN
    PERFORM :schema.lock_version_tables();
    SELECT * INTO STRICT v FROM :schema.embedding_versions e WHERE e.id = version;
    IF to_regclass(made) IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = to_regclass(made) AND tgname = 'embeddings_deleted') THEN
            RAISE EXCEPTION '% is not what revector would make: another program made it.', made
                USING HINT = 'Rename it, or drop it.';
        END IF;
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %s (chunk_id bigint PRIMARY KEY, embedding %I.%I(%s) NOT NULL) '
                   'WITH (parallel_workers = 4)', made, :'pgvector', v.storage, v.dimensions);
    -- A vector that fits a page stays there, not in TOAST: COPY and the index build then read and write it once. Others
    -- are not compressed: floats do not compress, and trying would cost a pass over each vector.
    EXECUTE format('ALTER TABLE %s ALTER COLUMN embedding SET STORAGE %s', made,
                   CASE WHEN v.dimensions <= CASE v.storage WHEN 'vector' THEN 2000 ELSE 4000 END
                        THEN 'PLAIN' ELSE 'EXTERNAL' END);
    PERFORM :schema.guard_version_table(version);
    PERFORM :schema.share_version_table(version);
    PERFORM :schema.rebuild_chunk_embeddings();
    RETURN true;
END $$;

-- From here on the trigger queues new chunks for this version.
CREATE FUNCTION :schema.begin_filling(version bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE :schema.embedding_versions SET state = 'backfilling'
    WHERE id = version AND state NOT IN ('active', 'previous')
$$;

-- Vectors whose chunk is gone. Returns how many there were.
CREATE FUNCTION :schema.delete_orphans(version bigint, chunk_ids bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    deleted bigint;
BEGIN
    EXECUTE format('DELETE FROM %s e WHERE ($1 IS NULL OR e.chunk_id = ANY($1)) '
                   'AND NOT EXISTS (SELECT FROM %I.document_chunks c WHERE c.id = e.chunk_id)',
                   :schema.version_table(version), :'schema') USING chunk_ids;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END $$;

-- The proof that a version lacks no chunk: an anti-join, whatever counters and queues say. Queues what is missing; marks
-- the version complete when nothing is. A chunk with a dead letter does not count as missing: the guards check those.
-- While chunks keep coming, some are always missing: the next proof looks only whether those of this one have a vector
-- by now, since no vector goes without its chunk.
CREATE FUNCTION :schema.prove_version(version bigint, OUT missing bigint, OUT embedded bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    began timestamptz := clock_timestamp();
    before bigint[] := (SELECT p.missing_chunks FROM :schema.backfill_proofs p
                        WHERE p.embedding_version_id = version ORDER BY p.id DESC LIMIT 1);
    found bigint[];
BEGIN
    IF (SELECT state FROM :schema.embedding_versions WHERE id = version) = 'registered' THEN
        RAISE EXCEPTION 'Version % is registered: nothing queues its new chunks yet, so that no proof would hold.', version
            USING HINT = 'Begin to fill it first: SELECT begin_filling(…). A backfill of revector does so.';
    END IF;
    EXECUTE format('SELECT coalesce(array_agg(c.id ORDER BY c.id), ARRAY[]::bigint[]) FROM %1$I.document_chunks c '
                   'WHERE ($2 IS NULL OR c.id = ANY($2)) '
                   'AND NOT EXISTS (SELECT FROM %2$s e WHERE e.chunk_id = c.id) '
                   'AND NOT EXISTS (SELECT FROM %1$I.dead_letters d '
                   'WHERE d.embedding_version_id = $1 AND d.chunk_id = c.id)',
                   :'schema', :schema.version_table(version)) INTO found USING version, before;
    missing := cardinality(found);
    INSERT INTO :schema.chunk_outbox (embedding_version_id, chunk_id)
    SELECT version, id FROM unnest(found) AS id ON CONFLICT DO NOTHING;
    -- A batch written while its chunk was deleted leaves a vector without a chunk.
    IF missing = 0 AND NOT :schema.is_keyed(version) THEN
        PERFORM :schema.delete_orphans(version);
    END IF;
    EXECUTE format('SELECT count(*) FROM %s', :schema.version_table(version)) INTO embedded;
    INSERT INTO :schema.backfill_proofs (embedding_version_id, missing, embedded, dead_letters, seconds, missing_chunks)
    VALUES (version, missing, embedded,
            (SELECT count(*) FROM :schema.dead_letters WHERE embedding_version_id = version),
            extract(epoch FROM clock_timestamp() - began),
            CASE WHEN missing BETWEEN 1 AND 10000 THEN found END);
    IF missing = 0 THEN
        UPDATE :schema.embedding_versions
        SET proven_at = clock_timestamp(), completed_at = coalesce(completed_at, clock_timestamp()),
            state = CASE WHEN state IN ('registered', 'backfilling') THEN 'loaded' ELSE state END
        WHERE id = version;
    END IF;
END $$;

-- The key takes vectors away with their chunks. It is added after the load, with the proof, and in two steps: the first needs
-- its lock for an instant, the second runs beside writes. While a version has none (before, and during the build of an
-- index) a trigger does the same, and never waits for a build.
CREATE FUNCTION :schema.key_version_table(version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
BEGIN
    IF NOT :schema.is_keyed(version) THEN
        EXECUTE format('ALTER TABLE %s ADD CONSTRAINT %I FOREIGN KEY (chunk_id) '
                       'REFERENCES %I.document_chunks (id) ON DELETE CASCADE NOT VALID',
                       :schema.version_table(version), 'chunk_embeddings_' || version || '_chunk_id_fkey', :'schema');
    END IF;
END $$;

CREATE FUNCTION :schema.is_keyed(version bigint, validated boolean DEFAULT false) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(:schema.version_table(version))
                                               AND confrelid = to_regclass(format('%I.document_chunks', :'schema'))
                                               AND (convalidated OR NOT validated))
$$;

CREATE FUNCTION :schema.validate_version_table(version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    validate text := format('ALTER TABLE %s VALIDATE CONSTRAINT %I', :schema.version_table(version),
                            'chunk_embeddings_' || version || '_chunk_id_fkey');
BEGIN
    EXECUTE validate;
EXCEPTION WHEN foreign_key_violation THEN
    PERFORM :schema.delete_orphans(version);
    EXECUTE validate;
END $$;

-- The index -------------------------------------------------------------------------------------------------

-- The statement that builds a version's index. core.index says why it indexes this expression.
CREATE FUNCTION :schema.index_statement(version bigint, how text DEFAULT 'CONCURRENTLY') RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('CREATE INDEX %s %I ON %s USING hnsw (%s %I.%I) WITH (m = %s, ef_construction = %s)',
                  CASE WHEN how = 'CONCURRENTLY' THEN how END, 'chunk_embeddings_' || version || '_hnsw',
                  :schema.version_table(version),
                  CASE WHEN v.dimensions > 4000
                       THEN format('(%I.binary_quantize(embedding)::bit(%s))', :'pgvector', v.dimensions)
                       WHEN v.dimensions > 2000 AND v.storage = 'vector'
                       THEN format('(embedding::%I.halfvec(%s))', :'pgvector', v.dimensions)
                       ELSE 'embedding' END,
                  :'pgvector',
                  CASE WHEN v.dimensions > 4000 THEN 'bit_hamming_ops'
                       ELSE CASE WHEN v.dimensions > 2000 THEN 'halfvec' ELSE v.storage END
                            || '_' || v.distance_metric || '_ops' END,
                  coalesce((v.index_settings ->> 'm')::int, 16),
                  coalesce((v.index_settings ->> 'ef_construction')::int, 64))
    FROM :schema.embedding_versions v WHERE v.id = version
$$;

CREATE FUNCTION :schema.version_index(version bigint) RETURNS regclass
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_regclass(format('%I.%I', :'schema', 'chunk_embeddings_' || version || '_hnsw'))
$$;

-- A build of this kind holds up writes to the version's table, never those of chunks: for a version without its key.
CREATE FUNCTION :schema.build_index(version bigint, memory text, workers int) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v :schema.embedding_versions;
BEGIN
    SELECT * INTO STRICT v FROM :schema.embedding_versions e WHERE e.id = version;
    IF v.completed_at IS NULL THEN
        RAISE EXCEPTION 'Version % is not complete.', v.version_key
            USING HINT = format('Backfill it first: revector backfill run %s', v.version_key);
    END IF;
    IF :schema.is_keyed(version) THEN
        RAISE EXCEPTION 'Version % follows its chunks at once: a build would hold up sessions that delete chunks.', v.version_key
            USING HINT = 'Take its key first: SELECT unkey_version_table(…). The build of revector does so, and gives it back.';
    END IF;
    IF :schema.version_index(version) IS NOT NULL THEN
        RAISE EXCEPTION 'Version % has an index: searches would wait for the build of another.', v.version_key
            USING HINT = 'Drop it first: SELECT drop_index(…). The build of revector drops the remains of an interrupted one.';
    END IF;
    PERFORM set_config('maintenance_work_mem', memory, true),
            set_config('max_parallel_maintenance_workers', workers::text, true);
    EXECUTE :schema.index_statement(version, '');
    EXECUTE format('ANALYZE %s', :schema.version_table(version));
END $$;

CREATE FUNCTION :schema.unkey_version_table(version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
BEGIN
    -- Its searches would find vectors of no chunk, which anybody could then add who may fill versions.
    IF :schema.in_service(version) AND NOT :schema.owner_asks() THEN
        RAISE EXCEPTION 'Version % is active, or what a rollback makes active: it keeps its foreign key.', version
            USING HINT = 'Have the owner of the schema build its index.';
    END IF;
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', :schema.version_table(version),
                   'chunk_embeddings_' || version || '_chunk_id_fkey');
END $$;

CREATE FUNCTION :schema.drop_index(version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    v :schema.embedding_versions;
BEGIN
    SELECT * INTO STRICT v FROM :schema.embedding_versions e WHERE e.id = version FOR NO KEY UPDATE;
    IF :schema.in_service(version) AND NOT (NOT v.active AND :schema.owner_asks())
       AND EXISTS (SELECT FROM pg_index WHERE indisvalid AND indexrelid = :schema.version_index(version)) THEN
        RAISE EXCEPTION 'Version % is %. Without its index every search scans the table.', v.version_key,
            CASE WHEN v.active THEN 'active' ELSE 'what a rollback makes active' END;
    END IF;
    EXECUTE format('DROP INDEX IF EXISTS %I.%I', :'schema', 'chunk_embeddings_' || version || '_hnsw');
    PERFORM :schema.note_index(version);
END $$;

-- A loaded version with a valid index is ready, and one without is not.
CREATE FUNCTION :schema.note_index(version bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE :schema.embedding_versions
    SET state = CASE WHEN EXISTS (SELECT FROM pg_index WHERE indisvalid AND indexrelid = :schema.version_index(version))
                     THEN 'ready' ELSE 'loaded' END
    WHERE id = version AND state IN ('loaded', 'ready')
$$;

-- For operators (core.roles).
REVOKE EXECUTE ON FUNCTION :schema.create_version_table(bigint), :schema.begin_filling(bigint),
                           :schema.delete_orphans(bigint, bigint[]), :schema.prove_version(bigint),
                           :schema.key_version_table(bigint), :schema.validate_version_table(bigint),
                           :schema.unkey_version_table(bigint), :schema.build_index(bigint, text, int),
                           :schema.drop_index(bigint), :schema.note_index(bigint)
FROM PUBLIC;
