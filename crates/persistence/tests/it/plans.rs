//! What the hot statements read: pages in proportion to the batch, whatever waits and however many
//! users there are. Each is measured on a connection that planned it while every table was empty,
//! as a server does that starts on a new database, and no statistics are gathered in between.

use callq_testing::TestDatabase;
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{PgConnection, QueryableByName, RunQueryDsl, sql_query};

use crate::scene::{count, texts};
use callq_persistence::connect;

mod zones;

const SERVER: &str = "00000000-0000-0000-0000-000000000001";

/// Calls settled, ended and asked for at once.
const BATCH: usize = 50;

/// How much waits, and for how many users.
#[derive(Clone, Copy)]
struct Size {
    users: u32,
    waiting: u32,
}

const SMALL: Size = Size {
    users: 100,
    waiting: 2_000,
};

/// A hundred times as much; a thousand in the long run.
fn large() -> Size {
    if crate::is_long() {
        Size {
            users: 100_000,
            waiting: 1_000_000,
        }
    } else {
        Size {
            users: 5_000,
            waiting: 100_000,
        }
    }
}

/// A database seen by one connection, whose plans were made before anything was in it.
struct Desk {
    connection: PgConnection,
    settled: u32,
    _database: TestDatabase,
}

impl Desk {
    fn set(size: Size) -> Self {
        let database = TestDatabase::new();
        let mut desk = Self {
            connection: connect(database.url()).unwrap(),
            settled: 0,
            _database: database,
        };
        desk.run(&format!(
            "INSERT INTO servers (id, lease_until) VALUES ('{SERVER}', now() + interval '1 day')"
        ));
        desk.settle("reserve", &[], 1);
        desk.pages("SELECT * FROM record_progress", &progress(&[]));
        let other = connect(desk._database.url()).unwrap();
        fill(other, size);
        // Once more, so that what a first look warms up is warm.
        desk.settle("reserve", &[], 2);
        desk
    }

    fn run(&mut self, sql: &str) {
        self.connection.batch_execute(sql).unwrap();
    }

    /// Settles the ends of these calls, and reserves at most so many. Returns the pages it read.
    fn settle(&mut self, what: &str, ends: &[String], reserve: usize) -> u64 {
        self.settle_with(what, ends, reserve, &[])
    }

    /// As [`Desk::settle`], with direct calls of these users, each with an agent.
    fn settle_with(
        &mut self,
        what: &str,
        ends: &[String],
        reserve: usize,
        asking: &[(String, String)],
    ) -> u64 {
        self.settled += 1;
        let all = |value: &str, of: usize| array(&vec![value.to_owned(); of]);
        let (n, a) = (ends.len(), asking.len());
        let users: Vec<String> = asking.iter().map(|(user, _)| user.clone()).collect();
        let agents: Vec<String> = asking.iter().map(|(_, agent)| agent.clone()).collect();
        let items: Vec<String> = (0..a).map(|_| uuid::Uuid::now_v7().to_string()).collect();
        let none = |kind: &str| format!("ARRAY(SELECT NULL::{kind} FROM generate_series(1, {a}))");
        let arguments = format!(
            "'{SERVER}', {number}, NULL, 'simulator', {reserve}, '{{}}', \
             {ends}, {attempts}, {outcomes}, {texts}, {texts}, {attempts}, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', \
             {items}, {users}, {agents}, {ids}, {numbers}, {words}, {words}, {words}, {times}, {longs}, {words}, {bytes}",
            number = self.settled,
            ends = array(ends),
            attempts = format!("ARRAY(SELECT NULL::integer FROM generate_series(1, {n}))"),
            texts = format!("ARRAY(SELECT NULL::text FROM generate_series(1, {n}))"),
            outcomes = all("completed", n),
            items = array(&items),
            users = array(&users),
            agents = array(&agents),
            numbers = all("+14155550100", a),
            ids = none("uuid"),
            words = none("text"),
            times = none("timestamptz"),
            longs = none("bigint"),
            bytes = none("bytea"),
        );
        let read = self.pages("SELECT * FROM settle", &arguments);
        println!("{what}: {read} pages");
        read
    }

    /// The pages that a function call reads, those its own statements read among them.
    fn pages(&mut self, call: &str, arguments: &str) -> u64 {
        #[derive(QueryableByName)]
        struct PlanRow {
            #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
            line: String,
        }
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {call}({arguments})");
        let lines: Vec<PlanRow> = sql_query(explain).load(&mut self.connection).unwrap();
        // The first line of buffers is that of the whole.
        let buffers = lines.iter().find(|row| row.line.contains("Buffers: "));
        let words = buffers
            .map_or("", |row| row.line.as_str())
            .split([' ', '=']);
        let words: Vec<&str> = words.collect();
        let after = |word: &str| {
            let at = words.iter().position(|one| *one == word);
            at.and_then(|at| words[at + 1].parse::<u64>().ok())
                .unwrap_or(0)
        };
        after("hit") + after("read")
    }

    fn active(&mut self) -> Vec<String> {
        texts(
            &mut self.connection,
            "SELECT call_id::text FROM active_calls ORDER BY 1",
        )
    }
}

fn array(values: &[String]) -> String {
    format!("'{{{}}}'", values.join(","))
}

fn progress(calls: &[String]) -> String {
    let attempts = vec!["1".to_owned(); calls.len()];
    format!(
        "'{SERVER}', {}, {}, {}, '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}'",
        array(calls),
        array(&attempts),
        array(calls)
    )
}

/// Every user with a campaign and, of the waiting calls, a fifth direct ones.
fn fill(mut connection: PgConnection, Size { users, waiting }: Size) {
    let sql = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         UPDATE system_state SET concurrent_calls_limit = 100; \
         CREATE TEMPORARY TABLE people ON COMMIT DROP AS \
             SELECT n, uuid_v7() AS user_id, uuid_v7() AS agent_id, uuid_v7() AS campaign_id \
             FROM generate_series(0, {users} - 1) n; \
         INSERT INTO users (id, email, concurrent_calls_limit) \
             SELECT user_id, n || '@example.com', 2 FROM people; \
         INSERT INTO user_slots (user_id, slots, campaign_slots) SELECT user_id, 2, 2 FROM people; \
         INSERT INTO agents (id, user_id, name) SELECT agent_id, user_id, 'Ada' FROM people; \
         INSERT INTO campaigns (id, user_id, agent_id, name, next_action, first_call_time, \
                 last_call_time, start_date, status) \
             SELECT campaign_id, user_id, agent_id, 'Spring', 'call', '00:00', '23:59', '2026-01-01', 'active' \
             FROM people; \
         INSERT INTO campaign_slots (campaign_id, user_id, open) \
             SELECT campaign_id, user_id, true FROM people; \
         INSERT INTO call_queue (user_id, agent_id, campaign_id, call_type, priority, phone_number) \
             SELECT p.user_id, p.agent_id, CASE WHEN i % 5 > 0 THEN p.campaign_id END, \
                 (CASE WHEN i % 5 > 0 THEN 'campaign' ELSE 'direct' END)::call_type, \
                 CASE WHEN i % 5 > 0 THEN 0 ELSE 100 END, '+14155550100' \
             FROM generate_series(0, {waiting} - 1) i JOIN people p ON p.n = (i / 5) % {users}; \
         UPDATE campaign_slots s SET due = q.due \
             FROM (SELECT campaign_id, count(*) AS due FROM call_queue GROUP BY 1) q \
             WHERE q.campaign_id = s.campaign_id; \
         UPDATE user_slots s SET due_direct = q.direct, due_campaign = q.campaign \
             FROM (SELECT user_id, count(*) FILTER (WHERE call_type = 'direct') AS direct, \
                     count(*) FILTER (WHERE call_type = 'campaign') AS campaign \
                 FROM call_queue GROUP BY 1) q \
             WHERE q.user_id = s.user_id; \
         SELECT find_sole_campaign(ARRAY(SELECT user_id FROM user_slots)); \
         SELECT refile_lanes(ARRAY(SELECT user_id FROM user_slots)); \
         COMMIT"
    );
    connection.batch_execute(&sql).unwrap();
    let different = count(&mut connection, "SELECT count(*) FROM audit_counters()");
    assert_eq!(different, 0);
}

/// A hundredfold of waiting calls and users may make an index a level or two deeper, and no more:
/// so many pages at most for each page that the small database read.
const DEEPER: u64 = 2;

fn assert_alike(what: &str, small: u64, large: u64) {
    assert!(
        small > 0 && large <= small * DEEPER,
        "{what}: {small} pages read of the small database, {large} of the large"
    );
}

#[test]
fn a_settlement_reads_in_proportion_to_its_batch_whatever_waits() {
    let measured = [SMALL, large()].map(|size| {
        let mut desk = Desk::set(size);
        let before = desk.active();
        let reserved = desk.settle("reserve", &[], BATCH);
        let calls: Vec<String> = desk
            .active()
            .into_iter()
            .filter(|call| !before.contains(call))
            .collect();
        assert_eq!(calls.len(), BATCH);
        let placed = desk.pages("SELECT * FROM record_progress", &progress(&calls));
        let handed_on = desk.settle("end and reserve", &calls, BATCH);
        // The system's slots are all taken now: newcomers wait.
        desk.settle("fill up", &[], 100);
        let asking: Vec<(String, String)> = texts(
            &mut desk.connection,
            &format!("SELECT user_id || ' ' || id FROM agents ORDER BY id LIMIT {BATCH}"),
        )
        .iter()
        .filter_map(|pair| pair.split_once(' '))
        .map(|(user, agent)| (user.to_owned(), agent.to_owned()))
        .collect();
        let admitted = desk.settle_with("admit", &[], 0, &asking);
        let idle = desk.settle("nothing", &[], 0);
        assert_eq!(
            count(
                &mut desk.connection,
                "SELECT count(*) FROM audit_counters()"
            ),
            0
        );
        [reserved, placed, handed_on, admitted, idle]
    });

    let [small, large] = measured;
    let names = ["reserve", "placed", "end and reserve", "admit", "nothing"];
    for ((what, small), large) in names.iter().zip(small).zip(large) {
        assert_alike(what, small, large);
    }
}

#[test]
fn dead_rows_that_no_vacuum_has_taken_away_are_not_read_again() {
    let mut desk = Desk::set(Size {
        users: 500,
        waiting: 20_000,
    });
    for table in ["call_queue", "active_calls", "ready_lanes", "user_slots"] {
        desk.run(&format!(
            "ALTER TABLE {table} SET (autovacuum_enabled = off)"
        ));
    }
    let mut reads = Vec::new();
    let mut calls = desk.active();
    for _ in 0..200 {
        reads.push(desk.settle("hand on", &calls, BATCH));
        calls = desk.active();
    }

    let median = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    // The first rounds end fewer calls than they start.
    assert_alike(
        "after 10,000 calls",
        median(&reads[10..40]),
        median(&reads[160..]),
    );
}

/// One user with so many direct calls and as many of a campaign, a tenth of each withdrawn from the
/// middle: each lane has a gap for every ten of its numbers.
fn fill_two_lanes(connection: &mut PgConnection, depth: u32) {
    let sql = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         CREATE TEMPORARY TABLE person ON COMMIT DROP AS \
             SELECT uuid_v7() AS user_id, uuid_v7() AS agent_id, uuid_v7() AS campaign_id; \
         INSERT INTO users (id, email) SELECT user_id, 'deep@example.com' FROM person; \
         INSERT INTO user_slots (user_id, direct_tail) SELECT user_id, {depth} FROM person; \
         INSERT INTO agents (id, user_id, name) SELECT agent_id, user_id, 'Ada' FROM person; \
         INSERT INTO campaigns (id, user_id, agent_id, name, next_action, first_call_time, \
                 last_call_time, start_date, status) \
             SELECT campaign_id, user_id, agent_id, 'Spring', 'call', '00:00', '23:59', '2026-01-01', 'active' \
             FROM person; \
         INSERT INTO campaign_slots (campaign_id, user_id, open, tail) \
             SELECT campaign_id, user_id, true, {depth} FROM person; \
         INSERT INTO call_queue (user_id, agent_id, campaign_id, call_type, priority, phone_number, ordinal) \
             SELECT p.user_id, p.agent_id, CASE t.call_type WHEN 'campaign' THEN p.campaign_id END, \
                 t.call_type::call_type, t.priority, '+14155550100', n \
             FROM generate_series(1, {depth}) n \
             CROSS JOIN (VALUES ('direct', 100), ('campaign', 0)) t (call_type, priority) \
             CROSS JOIN person p WHERE n % 10 > 0 ORDER BY n; \
         SELECT open_gaps(array_agg(t.call_type::call_type), \
                 array_agg(CASE t.call_type WHEN 'direct' THEN p.user_id ELSE p.campaign_id END), \
                 array_agg(n::bigint)) \
             FROM generate_series(10, {depth}, 10) n CROSS JOIN (VALUES ('direct'), ('campaign')) t (call_type) \
             CROSS JOIN person p; \
         COMMIT"
    );
    connection.batch_execute(&sql).unwrap();
}

/// What a place may read, at any depth: look-ups in few indexes, and sums of gaps.
const PAGES_OF_A_PLACE: u64 = 60;

#[test]
fn a_place_is_found_in_as_many_pages_at_any_depth() {
    for depth in [100, if crate::is_long() { 1_000_000 } else { 100_000 }] {
        let database = TestDatabase::new();
        let mut desk = Desk {
            connection: connect(database.url()).unwrap(),
            settled: 0,
            _database: database,
        };
        let of = |call_type: &str, which: &str| {
            format!(
                "SELECT id::text FROM call_queue WHERE call_type = '{call_type}' \
                 ORDER BY position {which} LIMIT 1"
            )
        };
        // Planned while next to nothing waits, as on a new database.
        fill_two_lanes(&mut desk.connection, 3);
        for call_type in ["direct", "campaign"] {
            let id = &texts(&mut desk.connection, &of(call_type, ""))[0];
            desk.run(&format!("SELECT get_call_queue_position('{id}')"));
        }
        desk.run(
            "DELETE FROM call_queue; DELETE FROM lane_gaps; DELETE FROM campaigns; \
             DELETE FROM agents; DELETE FROM users",
        );
        let mut other = connect(desk._database.url()).unwrap();
        fill_two_lanes(&mut other, depth);

        for call_type in ["direct", "campaign"] {
            for nth in [0, depth / 2, depth * 9 / 10 - 1] {
                let query = of(call_type, &format!("OFFSET {nth}"));
                let id = &texts(&mut desk.connection, &query)[0];
                let argument = format!("'{id}'");
                desk.pages("SELECT get_call_queue_position", &argument);
                let read = desk.pages("SELECT get_call_queue_position", &argument);
                println!("{call_type}, {nth} of {depth}: {read} pages");
                assert!(read > 0 && read <= PAGES_OF_A_PLACE, "{read} pages");
            }
            let last = &texts(&mut desk.connection, &of(call_type, "DESC"))[0];
            let place = count(
                &mut desk.connection,
                &format!("SELECT get_call_queue_position('{last}')"),
            );
            assert_eq!(place, i64::from(depth) * 9 / 10);
        }
    }
}
