//! The promises of [`TestDatabase`]: isolation, migrations, and nothing left behind.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use callq_testing::TestDatabase;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};

const VICTIM: &str = "CALLQ_TEST_VICTIM";

#[derive(QueryableByName)]
struct Exists {
    #[diesel(sql_type = Bool)]
    there: bool,
}

fn execute(url: &str, sql: &str) {
    let mut connection = PgConnection::establish(url).unwrap();
    diesel::sql_query(sql).execute(&mut connection).unwrap();
}

fn has_table(url: &str, table: &str) -> bool {
    let mut connection = PgConnection::establish(url).unwrap();
    let row: Exists = diesel::sql_query("SELECT to_regclass($1) IS NOT NULL AS there")
        .bind::<Text, _>(table)
        .get_result(&mut connection)
        .unwrap();
    row.there
}

#[test]
fn two_databases_see_nothing_of_each_other() {
    let (one, other) = (TestDatabase::new(), TestDatabase::new());

    execute(one.url(), "CREATE TABLE only_here ()");

    assert!(has_table(one.url(), "only_here"));
    assert!(!has_table(other.url(), "only_here"));
    assert!(!has_table(TestDatabase::new().url(), "only_here"));
}

#[test]
fn a_new_database_is_migrated_and_an_empty_one_is_not() {
    let (migrated, empty) = (TestDatabase::new(), TestDatabase::empty());

    assert!(has_table(migrated.url(), "call_queue"));
    assert!(!has_table(empty.url(), "call_queue"));
}

#[test]
fn databases_can_be_made_from_many_threads_at_once() {
    let barrier = Barrier::new(8);

    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                let database = TestDatabase::new();
                // Would collide in a database that two of them share.
                execute(database.url(), "CREATE TABLE mine ()");
            });
        }
    });
}

#[test]
fn a_database_goes_with_its_value_even_while_someone_is_connected() {
    let database = TestDatabase::empty();
    let url = database.url().to_owned();
    let _held = PgConnection::establish(&url).unwrap();

    drop(database);

    assert!(PgConnection::establish(&url).is_err());
}

#[test]
#[ignore = "not a test: the process that another test kills"]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let database = TestDatabase::empty();
    println!("runs on {}", database.url());
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_killed_test_process_leaves_neither_a_server_nor_files() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(VICTIM, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let url = BufReader::new(victim.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.split_once("runs on ").map(|(_, url)| url.to_owned()))
        .expect("the victim should have got its database");
    let data_dir = data_dir_of(&url);
    assert!(data_dir.exists());

    victim.kill().unwrap();
    victim.wait().unwrap();

    assert!(vanishes(&data_dir), "{} is still there", data_dir.display());
    assert!(PgConnection::establish(&url).is_err());
}

/// From `...?host=<data directory>/postgres&...`.
fn data_dir_of(url: &str) -> PathBuf {
    let host = url
        .split_once("host=")
        .unwrap()
        .1
        .split('&')
        .next()
        .unwrap();
    let cluster = PathBuf::from(host.replace("%2F", "/"));
    cluster.parent().unwrap().to_owned()
}

/// There is no event to wait for: whoever removes it is nobody's child any more.
fn vanishes(path: &Path) -> bool {
    let began = Instant::now();
    while path.exists() && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(20));
    }
    !path.exists()
}
