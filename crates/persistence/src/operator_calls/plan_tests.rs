//! What an operator asks at 3 am is found by keys, however much there is.

use callq_testing::TestDatabase;
use diesel::connection::SimpleConnection;

use super::*;

#[derive(QueryableByName)]
struct PlanRow {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

#[test]
fn a_call_and_its_story_and_calls_in_doubt_are_found_by_keys() {
    let database = TestDatabase::new();
    let mut conn = crate::connect(database.url()).unwrap();
    // A table is then read from end to end only where no key leads to its rows.
    conn.batch_execute("SET enable_seqscan = off").unwrap();
    let id = format!("'{}'::uuid", Uuid::now_v7());
    let parked = held_sql(Some(CallStatus::Unknown));
    for (sql, values) in [
        (find_sql(), [id.as_str(), ""]),
        (HISTORY_OF_CALL.to_owned(), [&id, &id]),
        (HISTORY_WITHOUT_CALL.to_owned(), [&id, ""]),
        (parked, ["'unknown'", "10"]),
    ] {
        let sql = sql.replace("$1", values[0]).replace("$2", values[1]);
        let plan: Vec<PlanRow> = sql_query(format!("EXPLAIN {sql}")).load(&mut conn).unwrap();
        let read_whole: Vec<&str> = plan
            .iter()
            .map(|row| row.line.trim())
            .filter(|line| {
                line.contains("Seq Scan on call_queue") || line.contains("Seq Scan on active_calls")
            })
            .collect();
        assert!(read_whole.is_empty(), "{sql}: {read_whole:?}");
        assert!(plan.iter().any(|row| row.line.contains("Index")), "{sql}");
    }
}
