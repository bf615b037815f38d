-- The log: who did what, when, from where and why, and the outcome.

CREATE TABLE :schema.audit_log (
    id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL DEFAULT session_user,
    client text NOT NULL DEFAULT coalesce(current_setting('revector.client', true), ''),
    application text NOT NULL DEFAULT current_setting('application_name'),
    action text NOT NULL CHECK (action ~ '^[a-z-]+( [a-z0-9-]+)*$'),
    version_key text,
    outcome text NOT NULL CHECK (outcome IN ('done', 'refused', 'failed')),
    reason text NOT NULL DEFAULT '',
    detail jsonb NOT NULL DEFAULT '{}'
);

CREATE FUNCTION :schema.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append only: % is refused.', TG_OP;
END $$;

CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON :schema.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.refuse_audit_change();

-- Whether the code that runs now is the owner's: a function or trigger with the owner's rights, or a session of the owner.
-- Itself without the owner's rights: current_user is the role whose rights are in force.
CREATE FUNCTION :schema.is_owner() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(current_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = :'schema'
$$;

-- Whether the session, whatever function it is in, is the owner's.
CREATE FUNCTION :schema.owner_asks() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(session_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = :'schema'
$$;

-- What queues one behind another. Rows and not advisory locks, which any role of the database can hold.
CREATE TABLE :schema.locks (name text PRIMARY KEY);
INSERT INTO :schema.locks VALUES ('flip'), ('ingest'), ('rights'), ('version tables');

-- The database fills in who, when and from where. `client`, `application`, `reason` and most of `detail` are the word of
-- the role that wrote the entry; those of the actions named here are written by the owner's triggers and functions alone. The
-- entry for a new active version can only be written in the transaction that made it active.
CREATE FUNCTION :schema.audit_written() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.actor := session_user;
    NEW.at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    NEW.application := current_setting('application_name');
    IF NEW.outcome = 'done' AND NOT :schema.is_owner()
       AND NEW.action IN ('cutover', 'rollback', 'cutover request', 'cutover approve', 'cutover withdraw',
                          'cutover void', 'cutover expired', 'cutover policy', 'encoders allow', 'encoders deny', 'versions adopt', 'versions change',
                          'db grant', 'db revoke', 'index set', 'versions retire', 'versions drop') THEN
        RAISE EXCEPTION 'audit_log: the database itself writes each "%" that is done.', NEW.action;
    END IF;
    IF NEW.outcome = 'done' AND NEW.action IN ('cutover', 'rollback')
       AND NOT EXISTS (SELECT FROM :schema.embedding_versions v
                       WHERE v.active AND v.version_key = NEW.version_key
                         AND v.activated_at >= transaction_timestamp()) THEN
        RAISE EXCEPTION 'audit_log: % did not become active in this transaction.', NEW.version_key
            USING HINT = 'Cutovers and rollbacks are logged by the database itself.';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER audit_written BEFORE INSERT ON :schema.audit_log
    FOR EACH ROW EXECUTE FUNCTION :schema.audit_written();

-- Who made a row, whatever the statement says.
CREATE FUNCTION :schema.made_by() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.created_by := CASE WHEN TG_OP = 'UPDATE' THEN OLD.created_by ELSE session_user END;
    RETURN NEW;
END $$;

-- The only entry that a role without any other right to write may make: that it was refused something. At most ten a
-- minute, so that nobody can flood the log, which cannot be emptied.
CREATE FUNCTION :schema.record_refusal(action text, right_needed text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT count(*)
        FROM (SELECT l.actor, l.at, l.outcome FROM :schema.audit_log l ORDER BY l.id DESC LIMIT 500) AS newest
        WHERE newest.actor = session_user AND newest.outcome = 'refused'
          AND newest.at > clock_timestamp() - interval '1 minute') < 10 THEN
        INSERT INTO :schema.audit_log (action, outcome, reason, detail)
        VALUES (left(record_refusal.action, 100), 'refused', 'the role has not the right to do this',
                jsonb_build_object('right', left(right_needed, 20)));
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.record_refusal(text, text) FROM PUBLIC;
