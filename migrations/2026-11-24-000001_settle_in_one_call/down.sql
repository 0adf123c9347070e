DROP FUNCTION admit_direct_calls(uuid, bigint, bigint, text, uuid[], uuid[], uuid[], uuid[], text[], text[], text[],
    text[], timestamptz[], bigint[], text[], bytea[], timestamptz);
DROP FUNCTION adopt_orphans(uuid);
DROP FUNCTION close_calls(uuid, uuid[], integer[], text[], text[], text[], integer[], timestamptz);
DROP FUNCTION lock_calls(uuid[]);
DROP FUNCTION count_ended(uuid[], integer[], integer[], integer[], timestamptz);
DROP FUNCTION engine_outlook(timestamptz);
DROP FUNCTION hand_out(uuid, bigint, text, integer, boolean, boolean, uuid[], integer[], integer[], integer[], double
    precision[], timestamptz);
DROP FUNCTION judge_admissions(uuid, bigint, bigint, uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[],
    timestamptz[], bigint[], text[], bytea[], timestamptz);
DROP FUNCTION record_progress(uuid, uuid[], integer[], text[], uuid[], text[], text[], text[], uuid[], integer[],
    text[]);
DROP FUNCTION return_calls(uuid, uuid[], integer[], bigint[], text[], boolean[], timestamptz);
DROP FUNCTION settle(uuid, bigint, bigint, text, integer, uuid[], uuid[], integer[], text[], text[], text[],
    integer[], uuid[], integer[], bigint[], text[], boolean[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[],
    text[], timestamptz[], bigint[], text[], bytea[]);
DROP FUNCTION was_call(uuid);
DROP TYPE verdict;
DROP TYPE admission;
DROP TYPE reserved_call;
