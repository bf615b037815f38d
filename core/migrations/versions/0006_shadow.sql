-- The rules that hold whoever writes: revector, psql or an application.

-- Every process with a mirror follows the row of the shadow that runs.
CREATE FUNCTION shadow_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('revector_shadow', json_build_object('schema', TG_TABLE_SCHEMA)::text);
    RETURN NULL;
END $$;

CREATE TRIGGER shadow_changed AFTER INSERT OR UPDATE OR DELETE ON shadows
    FOR EACH STATEMENT EXECUTE FUNCTION shadow_changed();
