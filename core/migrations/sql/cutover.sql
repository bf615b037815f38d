-- What a cutover requires, requests with their approvals, and the history of flips.

-- The policy ------------------------------------------------------------------------------------------------

CREATE TABLE :schema.cutover_policy (
    id boolean PRIMARY KEY DEFAULT true CONSTRAINT cutover_policy_one_row_check CHECK (id),
    settings jsonb NOT NULL DEFAULT '{}',
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text NOT NULL DEFAULT session_user
);

-- The defaults are those of core.cutover.policy: only what differs from them is stored.
CREATE FUNCTION :schema.cutover_setting(name text, otherwise numeric) RETURNS numeric
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT (settings ->> name)::numeric FROM :schema.cutover_policy), otherwise)
$$;

CREATE FUNCTION :schema.policy_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' OR NEW.settings IS DISTINCT FROM OLD.settings THEN
        NEW.updated_at := clock_timestamp();
        NEW.updated_by := session_user;
    ELSE
        NEW.updated_at := OLD.updated_at;
        NEW.updated_by := OLD.updated_by;
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER policy_changed BEFORE INSERT OR UPDATE ON :schema.cutover_policy
    FOR EACH ROW EXECUTE FUNCTION :schema.policy_changed();

-- Also for changes by psql: a policy that could be changed without an entry would be worthless.
CREATE FUNCTION :schema.policy_logged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP = 'UPDATE' THEN OLD.settings ELSE '{}' END;
BEGIN
    IF NEW.settings IS DISTINCT FROM before THEN
        INSERT INTO :schema.audit_log (action, outcome, reason, detail)
        SELECT 'cutover policy', 'done', coalesce(current_setting('revector.reason', true), ''),
               jsonb_build_object('changes', jsonb_object_agg(
                   name, jsonb_build_object('from', coalesce(was.value, '"default"'),
                                            'to', coalesce(now.value, '"default"'))))
        FROM jsonb_each(before) AS was (name, value)
        FULL JOIN jsonb_each(NEW.settings) AS now (name, value) USING (name)
        WHERE was.value IS DISTINCT FROM now.value;
    END IF;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.policy_logged() FROM PUBLIC;

CREATE TRIGGER policy_logged AFTER INSERT OR UPDATE ON :schema.cutover_policy
    FOR EACH ROW EXECUTE FUNCTION :schema.policy_logged();

CREATE FUNCTION :schema.refuse_policy_removal() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'The policy of cutovers cannot be removed: % is refused.', TG_OP
        USING HINT = 'Change it: revector cutover policy NAME=VALUE --reason TEXT';
END $$;

CREATE TRIGGER policy_stays BEFORE DELETE OR TRUNCATE ON :schema.cutover_policy
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.refuse_policy_removal();

-- A change of anything in here voids a request. New chunks do not. The newest evaluation and the newest gates of each query
-- set count, of hybrid searches and of others each. The time of the policy is in it, so that a policy that was changed and
-- changed back voids it too.
CREATE FUNCTION :schema.cutover_basis(version bigint) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'version key', v.version_key,
        'encoder', v.encoder_spec,
        'encoder name', v.encoder_name,
        'encoder revision', v.encoder_revision,
        'dimensions', v.dimensions,
        'metric', v.distance_metric,
        'storage', v.storage,
        'complete since', to_char(v.completed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || ' UTC',
        'chunks that failed', (SELECT count(*) FROM :schema.dead_letters d WHERE d.embedding_version_id = v.id),
        'index settings', v.index_settings,
        'index', (SELECT pg_get_indexdef(indexrelid) FROM pg_index
                  WHERE indexrelid = to_regclass(format('%I.%I', :'schema', 'chunk_embeddings_' || v.id || '_hnsw'))),
        'evaluations', (SELECT jsonb_object_agg(newest.name, newest.evaluation) FROM (
                            SELECT DISTINCT ON (s.id, r.hybrid)
                                   s.name || CASE WHEN r.hybrid THEN ' (hybrid)' ELSE '' END AS name, jsonb_build_object(
                                       'number', e.id, 'verdict', e.verdict, 'by', e.created_by) AS evaluation
                            FROM :schema.evaluations e
                            JOIN :schema.evaluation_runs r ON r.id = e.candidate_run_id
                            JOIN :schema.query_sets s ON s.id = e.query_set_id
                            WHERE r.embedding_version_id = v.id
                            ORDER BY s.id, r.hybrid, e.id DESC) AS newest),
        'gates', (SELECT jsonb_object_agg(newest.name, newest.gates) FROM (
                      SELECT DISTINCT ON (s.id, r.hybrid)
                             s.name || CASE WHEN r.hybrid THEN ' (hybrid)' ELSE '' END AS name,
                             (SELECT jsonb_agg(jsonb_build_object('name', gate -> 'name', 'measure', gate -> 'measure',
                                               'segment', gate -> 'segment', 'kind', gate -> 'kind',
                                               'bound', gate -> 'bound', 'confidence', gate -> 'confidence'))
                              FROM jsonb_array_elements(e.report -> 'gates') AS gate) AS gates
                      FROM :schema.evaluations e
                      JOIN :schema.evaluation_runs r ON r.id = e.candidate_run_id
                      JOIN :schema.query_sets s ON s.id = e.query_set_id
                      WHERE r.embedding_version_id = v.id AND e.verdict IS NOT NULL
                      ORDER BY s.id, r.hybrid, e.id DESC) AS newest),
        'policy', coalesce((SELECT settings FROM :schema.cutover_policy), '{}'),
        'policy since', (SELECT to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || ' UTC'
                           FROM :schema.cutover_policy))
    FROM :schema.embedding_versions v WHERE v.id = version
$$;

-- Requests: made by the database role, whatever the statement says ------------------------------------------

CREATE TABLE :schema.cutover_requests (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL REFERENCES :schema.embedding_versions ON DELETE CASCADE,
    requested_by text NOT NULL DEFAULT session_user,
    requested_at timestamptz NOT NULL DEFAULT now(),
    client text NOT NULL DEFAULT coalesce(current_setting('revector.client', true), ''),
    reason text NOT NULL,
    expires_at timestamptz NOT NULL,
    basis jsonb NOT NULL,
    waivers jsonb NOT NULL DEFAULT '{}',
    guards jsonb NOT NULL DEFAULT '{}',
    vectors bigint NOT NULL DEFAULT 0,
    snapshot text NOT NULL DEFAULT pg_current_snapshot()::text,
    ended text CHECK (ended IN ('done', 'void', 'withdrawn', 'expired')),
    ended_at timestamptz,
    ended_why text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX cutover_requests_one_open ON :schema.cutover_requests (embedding_version_id) WHERE ended IS NULL;

-- Each deletion of vectors, by transaction: a request was made with a snapshot, and has lost what that did not see deleted.
-- What the deleting session sees of requests decides nothing: it may be older than they are, or be open while they are made.
-- No foreign key, which would have every deletion of chunks lock its version's row.
CREATE TABLE :schema.vector_losses (
    id bigserial PRIMARY KEY,
    embedding_version_id bigint NOT NULL,
    transaction bigint NOT NULL,
    vectors bigint NOT NULL
);
CREATE INDEX ON :schema.vector_losses (embedding_version_id);

-- Deletes losses that no open request can need. One that is being made becomes visible later than these, and so do its
-- approvals.
CREATE FUNCTION :schema.forget_losses() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM :schema.vector_losses WHERE id IN (
        SELECT l.id FROM :schema.vector_losses l
        WHERE pg_visible_in_snapshot(l.transaction::text::xid8, pg_current_snapshot())
          AND NOT EXISTS (SELECT FROM :schema.cutover_requests r
                          WHERE r.embedding_version_id = l.embedding_version_id AND r.ended IS NULL
                            AND NOT pg_visible_in_snapshot(l.transaction::text::xid8, r.snapshot::pg_snapshot))
        FOR UPDATE SKIP LOCKED)
$$;

REVOKE EXECUTE ON FUNCTION :schema.forget_losses() FROM PUBLIC;

-- Where the policy asks for the evidence of others: which of these newest evaluations the session's role made itself, or
-- that there are none; NULL when nothing is in the way. Asked once, since a request is void when its evaluations change.
CREATE FUNCTION :schema.own_evidence(evaluations jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE count(*) WHEN 0 THEN 'there is none'
                         ELSE format('number %s is its own', min(e.value ->> 'number')
                                     FILTER (WHERE e.value ->> 'by' = session_user)) END
    FROM jsonb_each(CASE jsonb_typeof(evaluations) WHEN 'object' THEN evaluations ELSE '{}' END) AS e
    HAVING (SELECT settings ->> 'evidence_by' FROM :schema.cutover_policy) = 'another'
       AND (count(*) = 0 OR bool_or(e.value ->> 'by' = session_user))
$$;

-- With the owner's rights: nobody else updates a request, and so nobody else locks one.
CREATE FUNCTION :schema.check_request() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted :schema.embedding_versions;
    before :schema.cutover_requests;
    chunks bigint;
    never_waived CONSTANT text[] := ARRAY['complete', 'dimensions', 'index valid', 'approvals'];
    evidence text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM :schema.embedding_versions WHERE id = OLD.embedding_version_id) THEN
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
                USING HINT = 'Withdraw it and request it again.';
        END IF;
        NEW.ended_at := clock_timestamp();
        RETURN NEW;
    END IF;
    SELECT * INTO wanted FROM :schema.embedding_versions WHERE id = NEW.embedding_version_id;
    IF wanted.active THEN
        RAISE EXCEPTION 'Version % is already active.', wanted.version_key;
    END IF;
    SELECT * INTO before FROM :schema.cutover_requests
    WHERE embedding_version_id = wanted.id AND ended IS NULL FOR NO KEY UPDATE;
    IF before.id IS NOT NULL AND :schema.request_obstacle(before) IS NULL THEN
        RAISE EXCEPTION '% has already requested a cutover to %.', before.requested_by, wanted.version_key
            USING HINT = format('Get it approved (revector cutover approve %1$s) or withdraw it '
                                '(revector cutover withdraw %1$s).', wanted.version_key);
    END IF;
    UPDATE :schema.cutover_requests
    SET ended = CASE WHEN expires_at <= clock_timestamp() THEN 'expired' ELSE 'void' END,
        ended_why = CASE WHEN expires_at <= clock_timestamp() THEN '' ELSE :schema.request_void(before) END
    WHERE id = before.id;
    IF wanted.completed_at IS NULL THEN
        RAISE EXCEPTION 'Version % was never complete: there is nothing to approve yet.', wanted.version_key
            USING HINT = format('Backfill it first: revector backfill run %s', wanted.version_key);
    END IF;
    -- Counted here: the figures of the guards are the word of the client. What lacks a vector, waived or not, can get any
    -- vector after the approval. A few chunks may be on their way. Before the count, so that no loss is between them.
    NEW.snapshot := pg_current_snapshot()::text;
    EXECUTE format('SELECT count(e.chunk_id), count(*) FROM %I.document_chunks c LEFT JOIN %s e ON e.chunk_id = c.id',
                   :'schema', :schema.version_table(wanted.id)) INTO NEW.vectors, chunks;
    IF NEW.vectors < 0.95 * chunks THEN
        RAISE EXCEPTION 'Version % has vectors of % of % chunks: there is nothing to approve yet.',
            wanted.version_key, NEW.vectors, chunks
            USING HINT = format('At least 95%% need one, waived chunks included. Backfill it: revector backfill run %s',
                                wanted.version_key);
    END IF;
    IF NEW.reason !~ '[^[:space:]]' THEN
        RAISE EXCEPTION 'A request for a cutover needs a reason.';
    END IF;
    IF jsonb_typeof(NEW.waivers) <> 'object'
       OR jsonb_path_exists(NEW.waivers, '$.* ? (@.type() != "string" || @ like_regex "^\\s*$")') THEN
        RAISE EXCEPTION 'Each waiver names a guard and gives a reason.';
    END IF;
    IF NEW.waivers ?| never_waived THEN
        RAISE EXCEPTION 'A cutover without the guard % cannot be requested.',
            (SELECT min(name) FROM jsonb_object_keys(NEW.waivers) AS name WHERE name = ANY(never_waived));
    END IF;
    NEW.requested_by := session_user;
    NEW.requested_at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    NEW.expires_at := NEW.requested_at
        + make_interval(secs => 3600 * :schema.cutover_setting('request_hours', 72));
    NEW.basis := :schema.cutover_basis(NEW.embedding_version_id);
    evidence := :schema.own_evidence(NEW.basis -> 'evaluations');
    IF evidence IS NOT NULL THEN
        RAISE EXCEPTION 'A cutover to % needs an evaluation by another role than %: %.', wanted.version_key, session_user,
            evidence USING HINT = format('Have another role evaluate it first: revector evaluate NAME --candidate %s. '
                                'A later evaluation voids the request.', wanted.version_key);
    END IF;
    NEW.ended := NULL;
    NEW.ended_at := NULL;
    NEW.ended_why := '';
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.check_request() FROM PUBLIC;

CREATE TRIGGER check_request BEFORE INSERT OR UPDATE OR DELETE ON :schema.cutover_requests
    FOR EACH ROW EXECUTE FUNCTION :schema.check_request();

-- For operators and approvers: who disagrees ends a request, and the log says who.
CREATE FUNCTION :schema.withdraw_request(request bigint, why text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE :schema.cutover_requests SET ended = 'withdrawn', ended_why = coalesce(why, '')
    WHERE id = request AND ended IS NULL;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no open request %.', request USING HINT = 'See which there are: revector cutover requests';
    END IF;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.withdraw_request(bigint, text) FROM PUBLIC;

-- Also for requests by psql.
CREATE FUNCTION :schema.request_logged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    SELECT CASE WHEN TG_OP = 'INSERT' THEN 'cutover request' WHEN NEW.ended = 'withdrawn' THEN 'cutover withdraw'
                ELSE 'cutover ' || NEW.ended END, v.version_key, 'done',
           CASE WHEN TG_OP = 'INSERT' THEN NEW.reason ELSE NEW.ended_why END,
           jsonb_build_object('request', NEW.id)
           || CASE WHEN TG_OP = 'INSERT' THEN jsonb_build_object('waived', NEW.waivers) ELSE '{}' END
    FROM :schema.embedding_versions v WHERE v.id = NEW.embedding_version_id;
    PERFORM :schema.forget_losses();
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.request_logged() FROM PUBLIC;

CREATE TRIGGER request_made AFTER INSERT ON :schema.cutover_requests
    FOR EACH ROW EXECUTE FUNCTION :schema.request_logged();

CREATE TRIGGER request_ended AFTER UPDATE ON :schema.cutover_requests
    FOR EACH ROW WHEN (NEW.ended <> 'done') EXECUTE FUNCTION :schema.request_logged();

CREATE FUNCTION :schema.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is append only: TRUNCATE is refused.', TG_TABLE_NAME;
END $$;

CREATE TRIGGER requests_not_truncated BEFORE TRUNCATE ON :schema.cutover_requests
    EXECUTE FUNCTION :schema.refuse_truncate();

-- A value of a basis, for people.
CREATE FUNCTION :schema.in_words(value jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN coalesce(value, 'null') IN ('null', '""', '{}', '[]') THEN 'none'
        WHEN jsonb_typeof(value) = 'object' THEN (
            SELECT string_agg(format(CASE WHEN jsonb_typeof(of) IN ('object', 'array') AND of NOT IN ('{}', '[]')
                                          THEN '%s (%s)' ELSE '%s %s' END, name, :schema.in_words(of)), ', ')
            FROM jsonb_each(value) AS part (name, of))
        WHEN jsonb_typeof(value) = 'array' THEN (
            SELECT string_agg(:schema.in_words(of), '; ') FROM jsonb_array_elements(value) AS part (of))
        ELSE value #>> '{}' END;
END $$;

-- What differs between the basis of a request and what it would be now, with both values.
CREATE FUNCTION :schema.basis_changes(signed jsonb, present jsonb, place text DEFAULT '') RETURNS SETOF text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT key, was.value AS was, now.value AS now
               FROM jsonb_each(signed) AS was FULL JOIN jsonb_each(present) AS now USING (key)
               WHERE was.value IS DISTINCT FROM now.value ORDER BY key
    LOOP
        CONTINUE WHEN one.key = 'policy since' AND signed -> 'policy' <> present -> 'policy';  -- what changed says more
        IF jsonb_typeof(one.was) = 'object' AND jsonb_typeof(one.now) = 'object' THEN
            RETURN QUERY SELECT * FROM :schema.basis_changes(one.was, one.now, place || one.key || ' ');
        ELSE
            RETURN NEXT format('%s%s changed from %s to %s', place, one.key,
                               :schema.in_words(one.was), :schema.in_words(one.now));
        END IF;
    END LOOP;
END $$;

-- Why a request is no longer what was approved; NULL when it is. Chunks that left may have come back as others, whose vectors
-- nobody approved. A flip of the version carried it out, or was a rollback, which waits for no request to end.
CREATE FUNCTION :schema.request_void(request :schema.cutover_requests) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE
        WHEN EXISTS (SELECT FROM :schema.cutovers c
                     WHERE c.embedding_version_id = request.embedding_version_id AND c.at > request.requested_at)
            THEN 'the version became active after the request'
        WHEN (SELECT sum(l.vectors) FROM :schema.vector_losses l
              WHERE l.embedding_version_id = request.embedding_version_id
                AND NOT pg_visible_in_snapshot(l.transaction::text::xid8, request.snapshot::pg_snapshot))
             > 0.05 * request.vectors
            THEN 'more than 5% of its vectors left with their chunks after the request'
        ELSE (SELECT string_agg(change, '; ')
              FROM :schema.basis_changes(request.basis, :schema.cutover_basis(request.embedding_version_id)) AS change)
        END;
END $$;

-- What blocks the flip of a request, except the number of approvals; NULL when nothing does.
CREATE FUNCTION :schema.request_obstacle(request :schema.cutover_requests) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN request.id IS NULL THEN 'nobody has requested it'
        WHEN request.ended IS NOT NULL THEN 'the request of ' || request.requested_by || ' has ended: ' || request.ended
        WHEN request.expires_at <= clock_timestamp() THEN 'the request of ' || request.requested_by || ' has expired'
        ELSE 'void, since ' || :schema.request_void(request)
        END
$$;

-- Approvals -------------------------------------------------------------------------------------------------

CREATE TABLE :schema.cutover_approvals (
    request_id bigint NOT NULL REFERENCES :schema.cutover_requests ON DELETE CASCADE,
    approved_by text NOT NULL DEFAULT session_user,
    approved_at timestamptz NOT NULL DEFAULT now(),
    client text NOT NULL DEFAULT coalesce(current_setting('revector.client', true), ''),
    comment text NOT NULL DEFAULT '',
    approver oid NOT NULL DEFAULT 0,  -- another role of the name, made later, has approved nothing
    PRIMARY KEY (request_id, approved_by)
);

-- Whether a role could still approve: a right that was revoked since takes its approvals along.
CREATE FUNCTION :schema.may_approve(approver text, role oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT has_column_privilege(r.oid, to_regclass(format('%I.cutover_approvals', :'schema')),
                                                 'request_id', 'INSERT')
                     FROM pg_roles r WHERE r.oid = role AND r.rolname = approver), false)
$$;

-- Why the version may not become active by its approvals; NULL when it may.
CREATE FUNCTION :schema.approval_obstacle(version bigint) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed bigint := :schema.cutover_setting('approvals', 0);
    request :schema.cutover_requests;
    given bigint;
BEGIN
    IF needed = 0 THEN
        RETURN NULL;
    END IF;
    SELECT * INTO request FROM :schema.cutover_requests WHERE embedding_version_id = version AND ended IS NULL;
    IF :schema.request_obstacle(request) IS NOT NULL THEN
        RETURN :schema.request_obstacle(request);
    END IF;
    SELECT count(*) INTO given FROM :schema.cutover_approvals a
    WHERE a.request_id = request.id AND a.approved_by <> request.requested_by AND :schema.may_approve(a.approved_by, a.approver);
    RETURN CASE WHEN given < needed THEN format('%s of %s approvals', given, needed) END;
END $$;

CREATE FUNCTION :schema.check_approval() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    request :schema.cutover_requests;
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM :schema.cutover_requests WHERE id = OLD.request_id) THEN
            RAISE EXCEPTION 'An approval cannot be deleted: that of request % by %.', OLD.request_id, OLD.approved_by
                USING HINT = 'Withdraw the request: revector cutover withdraw KEY';
        END IF;
        RETURN OLD;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'An approval never changes: that of request % by %.', OLD.request_id, OLD.approved_by;
    END IF;
    SELECT * INTO request FROM :schema.cutover_requests WHERE id = NEW.request_id;
    IF :schema.request_obstacle(request) IS NOT NULL THEN
        RAISE EXCEPTION 'Request % cannot be approved: %.', NEW.request_id, :schema.request_obstacle(request)
            USING HINT = 'Request the cutover again.';
    END IF;
    IF request.requested_by = session_user THEN
        RAISE EXCEPTION 'Nobody approves their own request: % made request %.', session_user, request.id
            USING HINT = 'Another role has to approve it.';
    END IF;
    NEW.approved_by := session_user;
    NEW.approver := (SELECT oid FROM pg_roles WHERE rolname = session_user);
    NEW.approved_at := clock_timestamp();
    NEW.client := coalesce(current_setting('revector.client', true), '');
    RETURN NEW;
END $$;

CREATE TRIGGER check_approval BEFORE INSERT OR UPDATE OR DELETE ON :schema.cutover_approvals
    FOR EACH ROW EXECUTE FUNCTION :schema.check_approval();

CREATE TRIGGER approvals_not_truncated BEFORE TRUNCATE ON :schema.cutover_approvals
    EXECUTE FUNCTION :schema.refuse_truncate();

-- Also for approvals by psql.
CREATE FUNCTION :schema.approval_logged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    SELECT 'cutover approve', v.version_key, 'done', NEW.comment, jsonb_build_object('request', NEW.request_id)
    FROM :schema.cutover_requests r JOIN :schema.embedding_versions v ON v.id = r.embedding_version_id
    WHERE r.id = NEW.request_id;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.approval_logged() FROM PUBLIC;

CREATE TRIGGER approval_logged AFTER INSERT ON :schema.cutover_approvals
    FOR EACH ROW EXECUTE FUNCTION :schema.approval_logged();

-- A role that can create code in the schema could have it run in an approver's session, and so approve in their name.
CREATE FUNCTION :schema.refuse_foreign_code() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found text := (
        WITH made AS (
            SELECT 'function ' || proname AS what, proowner AS maker, pronamespace AS place FROM pg_proc
            UNION ALL
            SELECT 'operator ' || oprname, oprowner, oprnamespace FROM pg_operator)
        SELECT string_agg(format('%s of %s', what, rolname), ', ' ORDER BY what)
        FROM made JOIN pg_namespace n ON n.oid = place JOIN pg_roles r ON r.oid = maker
        WHERE nspname = :'schema' AND NOT rolsuper AND NOT pg_has_role(r.oid, nspowner, 'MEMBER'));
BEGIN
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'Nothing is approved while there is code in the schema that its owner did not make: %.', found
            USING HINT = 'Have the owner of the schema look at it, and drop it.';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER approved_by_own_hand AFTER INSERT ON :schema.cutover_approvals
    FOR EACH STATEMENT EXECUTE FUNCTION :schema.refuse_foreign_code();
