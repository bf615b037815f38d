-- The log of a backfill's states, and the outbox counted without counting it.

CREATE FUNCTION backfill_moved() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO backfill_transitions (job_id, from_state, to_state, reason)
    VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state,
            coalesce(nullif(current_setting('revector.reason', true), ''),
                     CASE WHEN NEW.state IN ('failed', 'interrupted') THEN NEW.error END));
    RETURN NULL;
END $$;

CREATE TRIGGER backfill_planned AFTER INSERT ON backfill_jobs
    FOR EACH ROW EXECUTE FUNCTION backfill_moved();

CREATE TRIGGER backfill_moved AFTER UPDATE OF state ON backfill_jobs
    FOR EACH ROW WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION backfill_moved();

-- A bulk insert of chunks puts as many rows into the outbox: a status that counted them would take longer with each.
CREATE FUNCTION outbox_counted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO row_counts (scope, delta)
    SELECT -embedding_version_id, CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
    FROM changed GROUP BY embedding_version_id;
    RETURN NULL;
END $$;

CREATE TRIGGER outbox_inserted AFTER INSERT ON chunk_outbox
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION outbox_counted();

CREATE TRIGGER outbox_deleted AFTER DELETE ON chunk_outbox
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION outbox_counted();

INSERT INTO row_counts (scope, delta)
SELECT -embedding_version_id, count(*) FROM chunk_outbox GROUP BY embedding_version_id;
