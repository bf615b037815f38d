-- What holds whichever role writes. Who may do what is granted by `revector db grant` (core/roles.py); here is what a
-- grant cannot say.
--
-- These functions look only into pg_catalog and name everything else in full, since an operator may create functions
-- in the schema (an index needs that right), and nothing of his may run with the rights of somebody else.

DO $do$
DECLARE
    here text := quote_ident(current_schema());
BEGIN

-- The log says who, when and from where by itself. That a version became active is written in the transaction in
-- which it did, and in no other.
EXECUTE replace($sql$
CREATE FUNCTION audit_written() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.actor := session_user;
    NEW.at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    NEW.application := current_setting('application_name');
    IF NEW.outcome = 'done' AND NEW.action IN ('cutover', 'rollback', 'flip')
       AND NOT EXISTS (SELECT FROM <schema>.embedding_versions v
                       WHERE v.active AND v.version_key = NEW.version_key
                         AND v.activated_at >= transaction_timestamp()) THEN
        RAISE EXCEPTION 'audit_log: % did not become active in this transaction.', NEW.version_key
            USING HINT = 'Cutovers and rollbacks are logged by the database itself.';
    END IF;
    RETURN NEW;
END $$
$sql$, '<schema>', here);

CREATE TRIGGER audit_written BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION audit_written();

-- The one entry that a role without any other right to write may make: that it was refused something. At most ten a
-- minute, so that nobody can fill the log, which nobody can empty.
EXECUTE replace($sql$
CREATE FUNCTION record_refusal(action text, right_needed text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT count(*) FROM (SELECT l.actor, l.at, l.outcome FROM <schema>.audit_log l ORDER BY l.id DESC LIMIT 500)
                             AS newest
        WHERE newest.actor = session_user AND newest.outcome = 'refused'
          AND newest.at > clock_timestamp() - interval '1 minute') < 10 THEN
        INSERT INTO <schema>.audit_log (action, outcome, reason, detail)
        VALUES (left(record_refusal.action, 100), 'refused', 'the role has not the right to do this',
                jsonb_build_object('right', left(right_needed, 20)));
    END IF;
END $$
$sql$, '<schema>', here);

REVOKE EXECUTE ON FUNCTION record_refusal(text, text) FROM PUBLIC;

-- Who may make code in the schema could have it run in the session of an approver, and so approve by his hand.
EXECUTE replace($sql$
CREATE FUNCTION refuse_foreign_code() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text := (
        WITH made AS (
            SELECT 'function ' || proname AS what, proowner AS maker FROM pg_proc
            WHERE pronamespace = '<schema>'::regnamespace
            UNION ALL
            SELECT 'operator ' || oprname, oprowner FROM pg_operator WHERE oprnamespace = '<schema>'::regnamespace)
        SELECT string_agg(format('%s of %s', what, rolname), ', ' ORDER BY what)
        FROM made JOIN pg_roles r ON r.oid = maker
        WHERE NOT rolsuper AND NOT pg_has_role(r.oid, (SELECT nspowner FROM pg_namespace
                                                       WHERE oid = '<schema>'::regnamespace), 'MEMBER'));
BEGIN
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'Nothing is approved while there is code in the schema that its owner did not make: %.', found
            USING HINT = 'Have the owner of the schema look at it, and drop it.';
    END IF;
    RETURN NULL;
END $$
$sql$, '<schema>', here);

CREATE TRIGGER approved_by_own_hand AFTER INSERT ON cutover_approvals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_foreign_code();

-- The view belongs to the owner of the schema; whoever registers or drops a version has it rebuilt.
EXECUTE replace($sql$
CREATE OR REPLACE FUNCTION rebuild_chunk_embeddings(without bigint DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    vector text := (SELECT format('%I.vector', n.nspname) FROM pg_extension e
                    JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector');
    branches text;
BEGIN
    SELECT string_agg(format('SELECT chunk_id, %s::bigint AS embedding_version_id, embedding::%s AS embedding '
                             'FROM <schema>.%I', v.id, vector, c.relname), ' UNION ALL ' ORDER BY v.id)
    INTO branches
    FROM <schema>.embedding_versions v
    JOIN pg_class c ON c.relname = 'chunk_embeddings_' || v.id AND c.relkind = 'r'
                   AND c.relnamespace = '<schema>'::regnamespace
    WHERE v.id IS DISTINCT FROM without;
    EXECUTE 'CREATE OR REPLACE VIEW <schema>.chunk_embeddings AS '
        || coalesce(branches, format('SELECT NULL::bigint AS chunk_id, NULL::bigint AS embedding_version_id, '
                                     'NULL::%s AS embedding WHERE false', vector));
END $$
$sql$, '<schema>', here);

REVOKE EXECUTE ON FUNCTION rebuild_chunk_embeddings(bigint) FROM PUBLIC;

END $do$;

-- The functions of the revisions before name the schema's tables and functions in full from here on, and look for
-- everything else in pg_catalog only. What a cutover is judged and logged by runs with the owner's rights: a function
-- of an operator's in the schema, with arguments that fit better than those of a built-in one, would be taken for it.
DO $do$
DECLARE
    here text := quote_ident(current_schema());
    tables text := (SELECT string_agg(relname, '|' ORDER BY length(relname) DESC) FROM pg_class
                    WHERE relnamespace = here::regnamespace AND relkind = 'r');
    functions text := (SELECT string_agg(proname, '|' ORDER BY length(proname) DESC) FROM pg_proc
                       WHERE pronamespace = here::regnamespace);
    function record;
    body text;
BEGIN
    FOR function IN
        SELECT oid::regprocedure AS name, prosrc, prosecdef, pg_get_functiondef(oid) AS definition
        FROM pg_proc
        WHERE pronamespace = here::regnamespace
          -- These search: they need pgvector's operators, and have no other rights than who calls them.
          AND proname NOT IN ('active_version', 'search_chunks')
          AND 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(proconfig, '{}'))
    LOOP
        body := function.prosrc;
        body := regexp_replace(body, '(\m(?:FROM|JOIN|INTO|UPDATE)\s+)(' || tables || ')\M', '\1' || here || '.\2', 'g');
        body := regexp_replace(body, '(\n\s+\w+\s+)(' || tables || ')(?=;)', '\1' || here || '.\2', 'g');
        body := regexp_replace(body, '''(' || tables || ')''(?=::regclass)', '''' || here || '.\1''', 'g');
        body := regexp_replace(body, '(?<![.\w])(' || functions || ')(?=\()', here || '.\1', 'g');
        body := replace(body, 'to_regclass(''chunk_embeddings_''', format('to_regclass(''%s.chunk_embeddings_''', here));
        body := replace(body, 'DELETE FROM %I', format('DELETE FROM %s.%%I', here));
        EXECUTE replace(function.definition, function.prosrc, body);
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp', function.name);
        IF function.prosecdef THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', function.name);
        END IF;
    END LOOP;
END $do$;
