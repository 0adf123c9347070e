//! A witness of every slot taken: it looks where nobody in the engine does, at the rows of calls
//! that hold a slot, at the one instant at which a transaction becomes true for all.

use crate::scene::{Scene, texts};

/// Commits that take a slot go one by one, and each looks at all that was committed before it: no
/// state that anybody can ever see goes unseen. What is done before the commit it does not slow.
const WITNESS: &str = "
    CREATE SCHEMA witness;
    CREATE TABLE witness.seen (what text NOT NULL);
    CREATE FUNCTION witness.look() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_advisory_xact_lock(4711);
        INSERT INTO witness.seen
        SELECT format('a user has %s calls up, %s are allowed', c.calls, u.concurrent_calls_limit)
        FROM users u, (SELECT count(*) AS calls FROM active_calls WHERE user_id = NEW.user_id) c
        WHERE u.id = NEW.user_id AND c.calls > u.concurrent_calls_limit;
        INSERT INTO witness.seen
        SELECT format('%s calls are up, the system allows %s', c.calls, s.concurrent_calls_limit)
        FROM system_state s, (SELECT count(*) AS calls FROM active_calls) c
        WHERE c.calls > s.concurrent_calls_limit;
        INSERT INTO witness.seen
        SELECT format('campaign call %s passed direct call %s', v.campaign_queue_id, v.direct_queue_id)
        FROM priority_violations v;
        RETURN NULL;
    END
    $$;
    CREATE CONSTRAINT TRIGGER witness AFTER INSERT ON active_calls
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION witness.look();";

impl Scene {
    /// From now on every commit that takes a slot is watched.
    pub(crate) fn watch(&self) {
        self.sql(WITNESS);
    }

    /// What was seen that must never be.
    pub(crate) fn witnessed(&self) -> Vec<String> {
        texts(&mut self.connection(), "SELECT what FROM witness.seen")
    }
}
