-- Hosts that encoders may send texts to, each with the environment variable whose key they may send. The owner's alone: a
-- version's row, which operators write, could else send a service's secrets and its users' queries anywhere.

CREATE TABLE :schema.encoder_hosts (
    host text NOT NULL CHECK (host <> ''),
    key_env text NOT NULL DEFAULT '',
    added_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL DEFAULT session_user,
    PRIMARY KEY (host, key_env)
);

CREATE TRIGGER made_by BEFORE INSERT OR UPDATE ON :schema.encoder_hosts
    FOR EACH ROW EXECUTE FUNCTION :schema.made_by();

CREATE FUNCTION :schema.encoder_host_logged() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO :schema.audit_log (action, outcome, reason, detail)
    SELECT CASE TG_OP WHEN 'DELETE' THEN 'encoders deny' ELSE 'encoders allow' END, 'done',
           coalesce(current_setting('revector.reason', true), ''), jsonb_build_object('host', c.host, 'key', c.key_env)
    FROM changed c;
    RETURN NULL;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.encoder_host_logged() FROM PUBLIC;

CREATE TRIGGER encoder_host_allowed AFTER INSERT ON :schema.encoder_hosts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION :schema.encoder_host_logged();
CREATE TRIGGER encoder_host_changed AFTER UPDATE ON :schema.encoder_hosts
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION :schema.encoder_host_logged();
CREATE TRIGGER encoder_host_denied AFTER DELETE ON :schema.encoder_hosts
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION :schema.encoder_host_logged();
CREATE TRIGGER encoder_hosts_not_truncated BEFORE TRUNCATE ON :schema.encoder_hosts
    EXECUTE FUNCTION :schema.refuse_truncate();

-- What a spec says of the way to the encoder, and not of its vectors: these settings may change.
CREATE FUNCTION :schema.encoder_meaning(spec text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT split_part(spec, '?', 1) || '?' || coalesce(string_agg(pair, '&' ORDER BY pair), '')
    FROM regexp_split_to_table(substr(spec, nullif(strpos(spec, '?'), 0) + 1), '&') AS pair
    WHERE split_part(pair, '=', 1) NOT IN (
        'base_url', 'key_env', 'batch_size', 'encoding', 'max_request_tokens', 'max_retries', 'parallel', 'price',
        'requests_per_minute', 'timeout_s', 'tokens_per_minute', 'key_header')
      AND split_part(pair, '=', 1) !~ '^(header|header_env|param)[.][A-Za-z][A-Za-z0-9_.-]*$'
$$;

-- Whether each of those settings is there once, and a number where one is expected.
CREATE FUNCTION :schema.encoder_settings_readable(spec text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) = count(DISTINCT split_part(pair, '=', 1))
           AND bool_and(CASE
               WHEN pair ~ '^(price|timeout_s)=' THEN pair ~ '=\d+(\.\d+)?(e-?\d+)?$'
               WHEN pair ~ '^encoding=' THEN pair ~ '=(base64|float)$'
               WHEN pair ~* '^header(_env)?[.](host|forwarded|x-forwarded|content-|transfer-|connection|te=|upgrade|expect)'
                   THEN false
               WHEN pair ~ '^header_env[.]' THEN pair ~ '=[A-Z][A-Z0-9_]*$'
               WHEN pair ~ '^(base_url|key_env|key_header|header[.].*|param[.].*)=' THEN pair ~ '=([^%=&]|%[0-7][0-9A-Fa-f])+$'
               WHEN :schema.encoder_meaning('x?' || pair) = 'x?' THEN pair ~ '=\d+$'
               ELSE true END)
    FROM regexp_split_to_table(nullif(substr(spec, nullif(strpos(spec, '?'), 0) + 1), ''), '&') AS pair
$$;

CREATE FUNCTION :schema.check_encoder() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.encoder_spec <> ''
       AND :schema.encoder_meaning(NEW.encoder_spec) <> :schema.encoder_meaning(OLD.encoder_spec) THEN
        RAISE EXCEPTION 'Version % is of %: its encoder cannot change.', OLD.version_key, OLD.encoder_spec
            USING HINT = 'Only the address, the key''s name, price and pace can. Register another version.';
    END IF;
    -- Users get it at once, and no approval is asked for.
    IF :schema.in_service(OLD.id) AND NOT :schema.owner_asks()
       AND (OLD.encoder_spec = '' OR :schema.cutover_setting('approvals', 0) > 0) THEN
        RAISE EXCEPTION 'Version % is active, or what a rollback makes active: its encoder stays.', OLD.version_key
            USING HINT = 'The owner of the schema can change it.';
    END IF;
    IF OLD.encoder_spec <> '' AND NOT :schema.encoder_settings_readable(NEW.encoder_spec) THEN
        RAISE EXCEPTION 'No encoder can be opened with the settings of %.', NEW.encoder_spec
            USING HINT = 'Change it by: revector versions change KEY';
    END IF;
    INSERT INTO :schema.audit_log (action, version_key, outcome, reason, detail)
    VALUES (CASE WHEN OLD.encoder_spec = '' THEN 'versions adopt' ELSE 'versions change' END, NEW.version_key, 'done',
             coalesce(current_setting('revector.reason', true), ''),
            jsonb_build_object('from', OLD.encoder_spec, 'to', NEW.encoder_spec));
    RETURN NEW;
END $$;

REVOKE EXECUTE ON FUNCTION :schema.check_encoder() FROM PUBLIC;

CREATE TRIGGER check_encoder BEFORE UPDATE ON :schema.embedding_versions
    FOR EACH ROW WHEN (NEW.encoder_spec <> OLD.encoder_spec) EXECUTE FUNCTION :schema.check_encoder();
