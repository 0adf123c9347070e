//! callq, broken on purpose: what a judge does not notice, it does not judge.

use clap::ValueEnum;

use crate::notes::Promise;

/// A way to break callq that looks well until a server dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Twin {
    /// What a dead server was dialling goes back to the queue without a look-up
    Redial,
    /// The calls of a dead server are taken for ended when its lease is over
    FreeSlot,
}

impl Twin {
    pub(crate) const ALL: [Self; 2] = [Self::Redial, Self::FreeSlot];

    /// The promises of which at least one must be seen broken.
    pub(crate) const fn breaks(self) -> &'static [Promise] {
        match self {
            Self::Redial => &[Promise::OneStartPerCall],
            Self::FreeSlot => &[Promise::SlotUntilTheEnd],
        }
    }

    /// What breaks callq's database.
    pub(crate) fn sql(self) -> String {
        let (calls, settled) = match self {
            Self::Redial => (
                "a.status = 'unknown' AND a.execution_id IS NULL",
                "NULL, 'http', 0, '{}', '{}', '{}', '{}', '{}', '{}', '{}', \
                 v_calls, v_attempts, array_fill(0::bigint, ARRAY[v_n]), \
                 array_fill('its server is gone'::text, ARRAY[v_n]), array_fill(true, ARRAY[v_n])",
            ),
            Self::FreeSlot => (
                "true",
                "NULL, 'http', 0, '{}', v_calls, v_attempts, array_fill('failed'::text, ARRAY[v_n]), \
                 array_fill(NULL::text, ARRAY[v_n]), \
                 array_fill('its server is gone'::text, ARRAY[v_n]), \
                 array_fill(NULL::integer, ARRAY[v_n]), '{}', '{}', '{}', '{}', '{}'",
            ),
        };
        format!(
            "ALTER FUNCTION adopt_orphans(uuid) RENAME TO adopt_orphans_unbroken;
             CREATE FUNCTION adopt_orphans(p_server uuid) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
             DECLARE
                 v_adopted uuid[] := ARRAY(SELECT adopt_orphans_unbroken(p_server));
                 v_calls uuid[];
                 v_attempts integer[];
                 v_n integer;
             BEGIN
                 SELECT array_agg(a.call_id), array_agg(a.attempt::integer), count(*)
                 INTO v_calls, v_attempts, v_n
                 FROM active_calls a WHERE a.call_id = ANY (v_adopted) AND {calls};
                 IF v_n > 0 THEN
                     PERFORM settle(p_server, 9000000000000000000, {settled},
                         '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}');
                 END IF;
                 RETURN QUERY SELECT unnest(v_adopted);
             END
             $$;"
        )
    }
}
