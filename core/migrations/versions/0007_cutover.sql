-- The rules that hold whoever writes: revector, psql or an application.

-- What a cutover requires, and what approvers sign --------------------------------------------------------

-- The defaults are those of core.cutover.policy: only what differs from them is stored.
CREATE FUNCTION cutover_setting(name text, otherwise numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT (settings ->> name)::numeric FROM cutover_policy), otherwise)
$$;

CREATE FUNCTION policy_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    NEW.updated_by := session_user;
    RETURN NEW;
END $$;

CREATE TRIGGER policy_changed BEFORE INSERT OR UPDATE ON cutover_policy
    FOR EACH ROW EXECUTE FUNCTION policy_changed();

-- By psql too: a policy that could be changed in silence would bind nobody.
CREATE FUNCTION policy_logged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.settings IS DISTINCT FROM (CASE WHEN TG_OP = 'UPDATE' THEN OLD.settings ELSE '{}' END) THEN
        INSERT INTO audit_log (action, outcome, reason, detail)
        VALUES ('cutover policy', 'done', coalesce(current_setting('revector.reason', true), ''),
                coalesce(nullif(current_setting('revector.detail', true), '')::jsonb,
                         jsonb_build_object('settings', NEW.settings)));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER policy_logged AFTER INSERT OR UPDATE ON cutover_policy
    FOR EACH ROW EXECUTE FUNCTION policy_logged();

CREATE FUNCTION refuse_policy_removal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The policy of cutovers cannot be removed: % is refused.', TG_OP
        USING HINT = 'Change it: revector cutover policy NAME=VALUE --reason TEXT';
END $$;

CREATE TRIGGER policy_stays BEFORE DELETE OR TRUNCATE ON cutover_policy
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_policy_removal();

-- Whatever is in here voids a request when it changes. New chunks do not. The newest gates of each query set count.
CREATE FUNCTION cutover_basis(version bigint) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object(
        'version key', v.version_key,
        'encoder', v.encoder_spec,
        'encoder name', v.encoder_name,
        'encoder revision', v.encoder_revision,
        'complete since', extract(epoch FROM v.completed_at),
        'index settings', v.index_settings,
        'index', (SELECT pg_get_indexdef(indexrelid) FROM pg_index
                  WHERE indexrelid = to_regclass('chunk_embeddings_' || v.id || '_hnsw')),
        'gates', (SELECT jsonb_object_agg(newest.name, newest.gates) FROM (
                      SELECT DISTINCT ON (s.id) s.name,
                             (SELECT jsonb_agg(jsonb_build_object('name', gate -> 'name', 'measure', gate -> 'measure',
                                               'segment', gate -> 'segment', 'kind', gate -> 'kind',
                                               'bound', gate -> 'bound', 'confidence', gate -> 'confidence'))
                              FROM jsonb_array_elements(e.report -> 'gates') AS gate) AS gates
                      FROM evaluations e
                      JOIN evaluation_runs r ON r.id = e.candidate_run_id
                      JOIN query_sets s ON s.id = e.query_set_id
                      WHERE r.embedding_version_id = v.id AND e.verdict IS NOT NULL
                      ORDER BY s.id, e.id DESC) AS newest),
        'policy', coalesce((SELECT settings FROM cutover_policy), '{}'))
    FROM embedding_versions v WHERE v.id = version
$$;

-- Requests and approvals: who is the database role, whatever the statement says ------------------------------

CREATE FUNCTION check_request() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wanted embedding_versions;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM embedding_versions WHERE id = OLD.embedding_version_id) THEN
            RAISE EXCEPTION 'Request % stays in the history.', OLD.id
                USING HINT = 'Withdraw it: revector cutover withdraw KEY';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.ended IS NOT NULL OR NEW.ended IS NULL
           OR to_jsonb(NEW) - '{ended,ended_at,ended_why}'::text[]
              <> to_jsonb(OLD) - '{ended,ended_at,ended_why}'::text[] THEN
            RAISE EXCEPTION 'Request % never changes: it can only end, once.', OLD.id
                USING HINT = 'Withdraw it and request anew.';
        END IF;
        NEW.ended_at := clock_timestamp();
        RETURN NEW;
    END IF;
    SELECT * INTO wanted FROM embedding_versions WHERE id = NEW.embedding_version_id;
    IF wanted.active THEN
        RAISE EXCEPTION 'Version % is active already.', wanted.version_key;
    END IF;
    IF wanted.completed_at IS NULL THEN
        RAISE EXCEPTION 'Version % was never complete: there is nothing to approve yet.', wanted.version_key
            USING HINT = format('Backfill it first: revector backfill run %s', wanted.version_key);
    END IF;
    IF btrim(NEW.reason) = '' THEN
        RAISE EXCEPTION 'A request for a cutover needs a reason.';
    END IF;
    IF jsonb_typeof(NEW.waivers) <> 'object'
       OR jsonb_path_exists(NEW.waivers, '$.* ? (@.type() != "string" || @ like_regex "^\\s*$")') THEN
        RAISE EXCEPTION 'Each waiver names a guard and gives a reason.';
    END IF;
    NEW.requested_by := session_user;
    NEW.requested_at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    NEW.expires_at := NEW.requested_at + make_interval(secs => 3600 * cutover_setting('request_hours', 72));
    NEW.basis := cutover_basis(NEW.embedding_version_id);
    NEW.ended := NULL;
    NEW.ended_at := NULL;
    NEW.ended_why := '';
    RETURN NEW;
END $$;

CREATE TRIGGER check_request BEFORE INSERT OR UPDATE OR DELETE ON cutover_requests
    FOR EACH ROW EXECUTE FUNCTION check_request();

-- What stands between a request and the flip, the number of approvals aside; NULL when nothing does.
CREATE FUNCTION request_obstacle(request cutover_requests) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN request.id IS NULL THEN 'nobody has requested it'
        WHEN request.ended IS NOT NULL THEN 'the request of ' || request.requested_by || ' has ended: ' || request.ended
        WHEN request.expires_at <= clock_timestamp() THEN 'the request of ' || request.requested_by || ' has expired'
        ELSE (SELECT 'void, since these changed after the request: ' || string_agg(key, ', ' ORDER BY key)
              FROM jsonb_each(request.basis) AS was
              FULL JOIN jsonb_each(cutover_basis(request.embedding_version_id)) AS found USING (key)
              WHERE was.value IS DISTINCT FROM found.value)
        END
$$;

-- Why the version may not become active by its approvals; NULL when it may.
CREATE FUNCTION approval_obstacle(version bigint) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    needed bigint := cutover_setting('approvals', 0);
    request cutover_requests;
    given bigint;
BEGIN
    IF needed = 0 THEN
        RETURN NULL;
    END IF;
    SELECT * INTO request FROM cutover_requests WHERE embedding_version_id = version AND ended IS NULL;
    IF request_obstacle(request) IS NOT NULL THEN
        RETURN request_obstacle(request);
    END IF;
    SELECT count(*) INTO given FROM cutover_approvals
    WHERE request_id = request.id AND approved_by <> request.requested_by;
    RETURN CASE WHEN given < needed THEN format('%s of %s approvals', given, needed) END;
END $$;

CREATE FUNCTION check_approval() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    request cutover_requests;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM cutover_requests WHERE id = OLD.request_id) THEN
            RAISE EXCEPTION 'An approval stays: that of request % by %.', OLD.request_id, OLD.approved_by
                USING HINT = 'Withdraw the request: revector cutover withdraw KEY';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'An approval never changes: that of request % by %.', OLD.request_id, OLD.approved_by;
    END IF;
    SELECT * INTO request FROM cutover_requests WHERE id = NEW.request_id;
    IF request_obstacle(request) IS NOT NULL THEN
        RAISE EXCEPTION 'Request % cannot be approved: %.', NEW.request_id, request_obstacle(request)
            USING HINT = 'Request the cutover anew.';
    END IF;
    IF request.requested_by = session_user THEN
        RAISE EXCEPTION 'Nobody approves their own request: % made request %.', session_user, request.id
            USING HINT = 'Another role has to approve it.';
    END IF;
    NEW.approved_by := session_user;
    NEW.approved_at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    RETURN NEW;
END $$;

CREATE TRIGGER check_approval BEFORE INSERT OR UPDATE OR DELETE ON cutover_approvals
    FOR EACH ROW EXECUTE FUNCTION check_approval();

-- The history of flips ------------------------------------------------------------------------------------

CREATE FUNCTION refuse_cutover_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- How a watch ended is added; what a row refers to may be dropped.
    IF TG_OP = 'UPDATE'
       AND to_jsonb(NEW) - '{watch_ended_at,watch_ended_why,request_id,embedding_version_id}'::text[]
           = to_jsonb(OLD) - '{watch_ended_at,watch_ended_why,request_id,embedding_version_id}'::text[]
       AND coalesce(NEW.request_id = OLD.request_id, NEW.request_id IS NULL)
       AND coalesce(NEW.embedding_version_id = OLD.embedding_version_id, NEW.embedding_version_id IS NULL) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The history of cutovers is append only: % is refused.', TG_OP;
END $$;

CREATE TRIGGER cutovers_append_only BEFORE UPDATE OR DELETE ON cutovers
    FOR EACH ROW EXECUTE FUNCTION refuse_cutover_change();

CREATE FUNCTION refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only: TRUNCATE is refused.', TG_TABLE_NAME;
END $$;

CREATE TRIGGER requests_not_truncated BEFORE TRUNCATE ON cutover_requests EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER approvals_not_truncated BEFORE TRUNCATE ON cutover_approvals EXECUTE FUNCTION refuse_truncate();
CREATE TRIGGER cutovers_not_truncated BEFORE TRUNCATE ON cutovers EXECUTE FUNCTION refuse_truncate();

-- The flips so far are in the log.
INSERT INTO cutovers (at, action, from_version, to_version, embedding_version_id, made_by, reason, detail)
SELECT l.at, l.action, l.detail ->> 'from', l.version_key, v.id, l.actor, l.reason, l.detail - '{from,to}'::text[]
FROM audit_log l LEFT JOIN embedding_versions v ON v.version_key = l.version_key AND v.created_at <= l.at
WHERE l.outcome = 'done' AND l.action IN ('cutover', 'rollback', 'flip') AND l.detail ? 'to'
ORDER BY l.id;

-- The flip ------------------------------------------------------------------------------------------------

-- Whoever flips, by whatever means, queues behind who flips at that moment. Freed with the transaction.
CREATE FUNCTION lock_flip() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtext('flip ' || 'embedding_versions'::regclass::oid), 0)
$$;

CREATE FUNCTION flips_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM lock_flip();
    RETURN NULL;
END $$;

CREATE TRIGGER flips_queue BEFORE UPDATE OF active ON embedding_versions
    FOR EACH STATEMENT EXECUTE FUNCTION flips_queue();

-- After check_version, by its name. With the owner's rights, since whoever flips need not be able to read or write
-- what a flip is judged by.
CREATE FUNCTION flip_approved() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    IF (NEW.version_key, NEW.encoder_name, NEW.encoder_revision, NEW.encoder_spec, NEW.index_settings)
       IS DISTINCT FROM (OLD.version_key, OLD.encoder_name, OLD.encoder_revision, OLD.encoder_spec, OLD.index_settings)
    THEN
        RAISE EXCEPTION 'The statement that makes version % active changes other things of it too.', OLD.version_key;
    END IF;
    -- The way back is always free.
    IF approval_obstacle(OLD.id) IS NOT NULL AND NOT EXISTS (SELECT FROM cutovers WHERE embedding_version_id = OLD.id)
    THEN
        RAISE EXCEPTION 'Version % is not approved: %.', OLD.version_key, approval_obstacle(OLD.id)
            USING HINT = format('Request the cutover and have it approved: revector cutover request %s',
                                OLD.version_key);
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER flip_approved BEFORE UPDATE ON embedding_versions
    FOR EACH ROW WHEN (NEW.active AND NOT OLD.active) EXECUTE FUNCTION flip_approved();

-- Settings of the transaction that flips: revector.action, revector.reason, revector.detail (jsonb).
-- A flip from psql sets none of them and is logged all the same. With the owner's rights: nobody else writes the history.
CREATE OR REPLACE FUNCTION active_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    before record;
    after record;
    deed text := current_setting('revector.action', true);
    why text := coalesce(current_setting('revector.reason', true), '');
    details jsonb := coalesce(nullif(current_setting('revector.detail', true), '')::jsonb, '{}'::jsonb);
    request cutover_requests;
    turned shadows;
BEGIN
    SELECT id, version_key INTO before FROM old_versions WHERE active;
    SELECT id, version_key INTO after FROM embedding_versions WHERE active;
    IF before.id IS NOT NULL AND after.id IS NULL THEN
        RAISE EXCEPTION 'No embedding version would be active: % is, and this statement names no other.',
            before.version_key
            USING HINT = format('Known versions: %s.',
                                (SELECT string_agg(version_key, ', ' ORDER BY id) FROM embedding_versions));
    END IF;
    IF after.id IS NULL OR NOT EXISTS (SELECT FROM old_versions WHERE id = after.id AND NOT active) THEN
        RETURN NULL;
    END IF;
    IF deed IS NULL OR deed NOT IN ('cutover', 'rollback') THEN
        deed := 'flip';
    END IF;

    INSERT INTO audit_log (action, version_key, outcome, reason, detail)
    VALUES (deed, after.version_key, 'done', why,
            details || jsonb_build_object('from', before.version_key, 'to', after.version_key));

    UPDATE cutovers SET watch_ended_at = clock_timestamp(),
                        watch_ended_why = format('%s: %s became active', deed, after.version_key)
    WHERE watch_ended_at IS NULL AND watch_until > clock_timestamp();

    SELECT * INTO request FROM cutover_requests WHERE embedding_version_id = after.id AND ended IS NULL;
    IF request_obstacle(request) IS NOT NULL THEN
        request := NULL;
    END IF;
    UPDATE cutover_requests SET ended = 'done' WHERE id = request.id;
    -- After a rollback there is nothing to go back to that anybody would want.
    INSERT INTO cutovers (action, from_version, to_version, embedding_version_id, reason, request_id, detail, watch_until)
    VALUES (deed, before.version_key, after.version_key, after.id, why, request.id, details,
            CASE WHEN before.id IS NOT NULL AND deed <> 'rollback' AND cutover_setting('watch_hours', 24) > 0
                 THEN clock_timestamp() + make_interval(secs => 3600 * cutover_setting('watch_hours', 24)) END);

    -- A shadow of the version that answers users now runs the other way round, as a run of its own: figures of the
    -- one way are not added to those of the other.
    UPDATE shadows SET stopped_at = clock_timestamp() WHERE stopped_at IS NULL AND embedding_version_id = after.id
    RETURNING * INTO turned;
    IF turned.id IS NOT NULL AND before.id IS NOT NULL THEN
        INSERT INTO shadows (embedding_version_id, sample, query_text, retention_days, reason)
        VALUES (before.id, turned.sample, turned.query_text, turned.retention_days,
                format('turned round: %s became active', after.version_key));
    END IF;

    PERFORM pg_notify('revector', json_build_object('schema', TG_TABLE_SCHEMA, 'active', after.version_key)::text);
    RETURN NULL;
END $$;

-- All of them find this collection's tables from any session, and never a temporary one of the same name.
DO $$
DECLARE
    function regprocedure;
BEGIN
    FOR function IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = quote_ident(current_schema())::regnamespace
          AND proname IN ('cutover_setting', 'cutover_basis', 'check_request', 'request_obstacle', 'approval_obstacle',
                          'check_approval', 'lock_flip', 'flips_queue', 'flip_approved', 'check_version',
                          'active_changed')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s, pg_temp', function, current_setting('search_path'));
    END LOOP;
END $$;
