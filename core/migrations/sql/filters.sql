-- Filters of searches: an object of names and values, as an SQL/JSON path that a chunk's metadata must satisfy. A path
-- looks into lists by itself, and the index of the metadata answers its equalities.

CREATE FUNCTION :schema.filter_comparison(place text, operator text, operand jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind text := jsonb_typeof(operand);
    ordered text := CASE operator WHEN '$gt' THEN '>' WHEN '$gte' THEN '>=' WHEN '$lt' THEN '<' WHEN '$lte' THEN '<=' END;
    expected text;
BEGIN
    CASE
        WHEN operator IN ('$eq', '$ne') THEN
            expected := 'a text, a number, true, false or null';
            IF kind NOT IN ('array', 'object') THEN
                RETURN format(CASE operator WHEN '$eq' THEN '%s == %s' ELSE '!exists(@ ? (%s == %s))' END, place, operand);
            END IF;
        WHEN ordered IS NOT NULL THEN
            expected := 'a number or a text';
            IF kind IN ('number', 'string') THEN
                RETURN format('%s %s %s', place, ordered, operand);
            END IF;
        WHEN operator IN ('$in', '$nin') THEN
            expected := 'a list of 1 to 200 texts, numbers, true, false or null';
            IF kind = 'array' AND jsonb_array_length(operand) BETWEEN 1 AND 200
               AND NOT operand @? 'strict $[*] ? (@.type() == "array" || @.type() == "object")' THEN
                RETURN format(CASE operator WHEN '$in' THEN '(%s)' ELSE '!exists(@ ? (%s))' END,
                    (SELECT string_agg(format('%s == %s', place, one), ' || ') FROM jsonb_array_elements(operand) AS one));
            END IF;
        WHEN operator = '$prefix' THEN
            expected := 'a text';
            IF kind = 'string' THEN
                RETURN format('%s starts with %s', place, operand);
            END IF;
        WHEN operator = '$exists' THEN
            expected := 'true or false';
            IF kind = 'boolean' THEN
                RETURN format('%sexists(%s)', CASE WHEN operand = 'false' THEN '!' END, place);
            END IF;
        ELSE
            RAISE EXCEPTION 'The filter has %, which is no comparison.', quote_literal(operator)
                USING HINT = 'Comparisons: $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $prefix, $exists.', ERRCODE = '22023';
    END CASE;
    RAISE EXCEPTION 'The filter compares by % with %.', operator, left(operand::text, 100)
        USING HINT = format('%s takes %s.', operator, expected), ERRCODE = '22023';
END $$;

CREATE FUNCTION :schema.filter_condition(place text, value jsonb, depth int) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF depth > 20 THEN
        RAISE EXCEPTION 'The filter is nested more than 20 deep.' USING ERRCODE = '22023';
    END IF;
    CASE jsonb_typeof(value)
        WHEN 'object' THEN
            IF value = '{}' THEN
                RETURN format('exists(%s ? (@.type() == "object"))', place);
            ELSIF EXISTS (SELECT FROM jsonb_object_keys(value) AS name WHERE starts_with(name, '$')) THEN
                RETURN (SELECT string_agg(:schema.filter_comparison(place, name, operand), ' && ')
                        FROM jsonb_each(value) AS compared (name, operand));
            END IF;
            RETURN format('exists(%s ? (@.type() == "object" && %s))', place,
                (SELECT string_agg(:schema.filter_condition('@.' || to_jsonb(name)::text, member, depth + 1), ' && ')
                 FROM jsonb_each(value) AS members (name, member)));
        WHEN 'array' THEN
            IF value = '[]' THEN
                RETURN format('%s.type() == "array"', place);
            END IF;
            RETURN (SELECT string_agg(format('exists(%s ? (%s))', place, :schema.filter_condition('@', one, depth + 1)), ' && ')
                    FROM jsonb_array_elements(value) AS one);
        ELSE
            RETURN format('%s == %s', place, value);
    END CASE;
END $$;

-- {"kind": "function", "year": {"$gte": 2020}}: all of it holds. A list asks for each of its values.
CREATE FUNCTION :schema.filter_path(filter jsonb) RETURNS jsonpath
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF jsonb_typeof(filter) <> 'object' THEN
        RAISE EXCEPTION 'The filter is no JSON object.'
            USING HINT = 'Expected such as {"language": "en", "year": {"$gte": 2020}}.', ERRCODE = '22023';
    END IF;
    IF EXISTS (SELECT FROM jsonb_object_keys(filter) AS name WHERE starts_with(name, '$')) THEN
        RAISE EXCEPTION 'The filter begins with %, which is no name.',
            (SELECT quote_literal(min(name)) FROM jsonb_object_keys(filter) AS name WHERE starts_with(name, '$'))
            USING HINT = 'Comparisons stand in the value of a name: {"year": {"$gte": 2020}}. All that is given must hold.',
                  ERRCODE = '22023';
    END IF;
    RETURN CASE WHEN filter = '{}' THEN '$' ELSE '$ ? (' || (
        SELECT string_agg(:schema.filter_condition('@.' || to_jsonb(name)::text, value, 1), ' && ')
        FROM jsonb_each(filter) AS given (name, value)) || ')' END::jsonpath;
END $$;
