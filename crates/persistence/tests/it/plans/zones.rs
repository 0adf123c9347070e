//! What campaigns that go by their contacts' clocks read.

use super::*;

/// A user whose campaign has so many calls waiting, one in four in New York, at the end of its list,
/// and its windows: Berlin's is open, New York's is to open.
fn fill_two_zones(connection: &mut PgConnection, waiting: u32) {
    let sql = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         UPDATE system_state SET concurrent_calls_limit = 1000; \
         CREATE TEMPORARY TABLE person ON COMMIT DROP AS \
             SELECT uuid_v7() AS user_id, uuid_v7() AS agent_id, uuid_v7() AS campaign_id; \
         INSERT INTO users (id, email, concurrent_calls_limit) \
             SELECT user_id, 'far@example.com', 1000 FROM person; \
         INSERT INTO user_slots (user_id, slots, campaign_slots, due_campaign) \
             SELECT user_id, 1000, 1000, {waiting} FROM person; \
         INSERT INTO agents (id, user_id, name) SELECT agent_id, user_id, 'Ada' FROM person; \
         INSERT INTO campaigns (id, user_id, agent_id, name, next_action, first_call_time, \
                 last_call_time, start_date, status, use_contact_timezone) \
             SELECT campaign_id, user_id, agent_id, 'Spring', 'call', '09:00', '17:00', '2026-01-01', \
                 'active', true \
             FROM person; \
         INSERT INTO campaign_slots (campaign_id, user_id, open, keeps_hours, due, tail) \
             SELECT campaign_id, user_id, true, true, {waiting}, {waiting} FROM person; \
         INSERT INTO campaign_windows (campaign_id, zone, opens_at, closes_at, opened) \
             SELECT campaign_id, w.zone, now() - interval '1 hour', now() + interval '1 day', w.opened \
             FROM person, (VALUES ('Europe/Berlin', true), ('America/New_York', false)) w (zone, opened); \
         INSERT INTO call_queue (user_id, agent_id, campaign_id, call_type, priority, phone_number, \
                 ordinal, zone) \
             SELECT p.user_id, p.agent_id, p.campaign_id, 'campaign', 0, '+14155550100', n, \
                 CASE WHEN n > {waiting} * 3 / 4 THEN 'America/New_York' ELSE 'Europe/Berlin' END \
             FROM generate_series(1, {waiting}) n CROSS JOIN person p ORDER BY n; \
         SELECT find_sole_campaign(ARRAY(SELECT user_id FROM user_slots)); \
         SELECT refile_lanes(ARRAY(SELECT user_id FROM user_slots)); \
         COMMIT"
    );
    connection.batch_execute(&sql).unwrap();
}

#[test]
fn a_zone_opens_and_its_calls_are_handed_out_in_as_many_pages_whatever_waits() {
    let measured = [1_000, if crate::is_long() { 1_000_000 } else { 100_000 }].map(|waiting| {
        let database = TestDatabase::new();
        let mut desk = Desk {
            connection: connect(database.url()).unwrap(),
            settled: 0,
            _database: database,
        };
        desk.run(&format!(
            "INSERT INTO servers (id, lease_until) VALUES ('{SERVER}', now() + interval '1 day')"
        ));
        // Planned while nothing waits, as on a new database.
        desk.settle("reserve", &[], 1);
        let mut other = connect(desk._database.url()).unwrap();
        fill_two_zones(&mut other, waiting);
        desk.run(
            "UPDATE campaign_windows SET opens_at = opens_at + interval '2 hours' WHERE NOT opened",
        );
        desk.settle("reserve", &[], 2);

        let berlin = desk.settle("reserve in one zone", &[], BATCH);
        // From the end of the list: Berlin closes, and New York opens.
        desk.run(
            "UPDATE campaign_windows SET closes_at = now() WHERE opened; \
             UPDATE campaign_windows SET opens_at = now() WHERE NOT opened",
        );
        let turned = desk.settle("turn", &[], 0);
        let new_york = desk.settle("reserve in the other", &[], BATCH);

        let of = "SELECT count(*) FROM call_queue WHERE zone = 'America/New_York'";
        let left = count(&mut desk.connection, of);
        assert_eq!(left, i64::from(waiting / 4) - i64::try_from(BATCH).unwrap());
        let differences = "SELECT count(*) FROM audit_counters()";
        assert_eq!(count(&mut desk.connection, differences), 0);
        [berlin, turned, new_york]
    });

    let [small, large] = measured;
    let names = ["reserve in one zone", "turn", "reserve in the other"];
    for ((what, small), large) in names.iter().zip(small).zip(large) {
        assert_alike(what, small, large);
    }
}
