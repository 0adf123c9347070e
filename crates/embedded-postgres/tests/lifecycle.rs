//! The private cluster through everything that happens to it: first start, restart, `kill -9` of
//! its owner, a second owner, files left by the dead, and folders its account may not enter.
//!
//! Each test has a data directory of its own, so they run side by side. A process that is to be
//! killed is this test binary again, running only [`owner_to_be_killed`].
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up fails"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use callq_embedded_postgres::{EmbeddedError, EmbeddedPostgres, Options};
use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};
use rustix::process::{Pid, Signal, geteuid, getpgid, kill_process};
use tempfile::TempDir;

const OWNER_DATA_DIR: &str = "CALLQ_TEST_OWNER_DATA_DIR";

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

/// Quick to start: most of these tests are not about surviving the loss of power.
fn options(data_dir: &Path) -> Options {
    Options {
        durable: false,
        max_connections: 20,
        ..Options::new(data_dir)
    }
}

fn start(data_dir: &Path) -> EmbeddedPostgres {
    EmbeddedPostgres::start(options(data_dir)).unwrap()
}

fn connect(url: &str) -> PgConnection {
    PgConnection::establish(url).unwrap()
}

fn note(url: &str, n: i32) {
    let mut connection = connect(url);
    diesel::sql_query("CREATE TABLE IF NOT EXISTS noted (n int)")
        .execute(&mut connection)
        .unwrap();
    diesel::sql_query(format!("INSERT INTO noted VALUES ({n})"))
        .execute(&mut connection)
        .unwrap();
}

fn noted(url: &str) -> Vec<i32> {
    let rows: Vec<Number> = diesel::sql_query("SELECT n FROM noted ORDER BY n")
        .load(&mut connect(url))
        .unwrap();
    rows.into_iter().map(|row| row.n).collect()
}

fn setting(url: &str, name: &str) -> String {
    let row: Setting = diesel::sql_query(format!("SELECT current_setting('{name}') AS value"))
        .get_result(&mut connect(url))
        .unwrap();
    row.value
}

fn postmaster(data_dir: &Path) -> u32 {
    let file = fs::read_to_string(data_dir.join("postgres/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// A process that starts the cluster in `data_dir` and holds on to it.
struct Owner {
    process: Child,
    url: String,
}

impl Owner {
    fn of(data_dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "owner_to_be_killed", "--ignored", "--nocapture"])
            .env(OWNER_DATA_DIR, data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let url = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .find_map(|line| line.split_once("owns ").map(|(_, url)| url.to_owned()))
            .expect("the owner should have started the cluster");
        Self { process, url }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
#[ignore = "not a test: the process that other tests kill"]
fn owner_to_be_killed() {
    let Some(data_dir) = std::env::var_os(OWNER_DATA_DIR) else {
        return;
    };
    let postgres = start(Path::new(&data_dir));
    println!("owns {}", postgres.url());
    // Until killed, or until the test that started us is gone.
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn the_first_start_makes_a_cluster_that_only_a_socket_of_this_user_reaches() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("not/there/yet");

    let postgres = start(&data_dir);

    assert!(!postgres.adopted());
    note(postgres.url(), 1);
    assert_eq!(setting(postgres.url(), "listen_addresses"), "");
    let cluster = fs::metadata(data_dir.join("postgres")).unwrap();
    assert_eq!(cluster.mode() & 0o777, 0o700);
    let rules = fs::read_to_string(data_dir.join("postgres/pg_hba.conf")).unwrap();
    assert_eq!(rules, "local all all peer map=callq\n");
    assert_ne!(cluster.uid(), 0, "PostgreSQL does not run as root");
    postgres.stop().unwrap();
}

#[test]
fn a_restart_keeps_the_data_and_takes_new_settings() {
    let folder = TempDir::new().unwrap();
    let postgres = start(folder.path());
    note(postgres.url(), 7);
    postgres.stop().unwrap();

    let mut changed = options(folder.path());
    changed.max_connections = 33;
    changed.settings = vec![("work_mem".into(), "5MB".into())];
    let postgres = EmbeddedPostgres::start(changed).unwrap();

    assert_eq!(noted(postgres.url()), [7]);
    assert_eq!(setting(postgres.url(), "max_connections"), "33");
    assert_eq!(setting(postgres.url(), "work_mem"), "5MB");
}

#[test]
fn a_durable_cluster_keeps_postgresqls_own_durability() {
    let folder = TempDir::new().unwrap();

    let postgres = EmbeddedPostgres::start(Options::new(folder.path())).unwrap();

    for name in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(setting(postgres.url(), name), "on", "{name}");
    }
}

#[test]
fn a_cluster_whose_owner_was_killed_is_adopted_with_everything_in_it() {
    let folder = TempDir::new().unwrap();
    let owner = Owner::of(folder.path());
    note(&owner.url, 3);
    let pid = postmaster(folder.path());
    owner.kill();

    let postgres = start(folder.path());

    assert!(postgres.adopted());
    assert_eq!(postmaster(folder.path()), pid);
    assert_eq!(noted(postgres.url()), [3]);
    postgres.stop().unwrap();
    assert!(!folder.path().join("postgres/postmaster.pid").exists());
}

#[test]
fn an_adopted_cluster_with_other_settings_is_restarted_with_the_wanted_ones() {
    let folder = TempDir::new().unwrap();
    let owner = Owner::of(folder.path());
    note(&owner.url, 3);
    owner.kill();

    let mut wanted = options(folder.path());
    wanted.max_connections = 44;
    let postgres = EmbeddedPostgres::start(wanted).unwrap();

    assert!(!postgres.adopted());
    assert_eq!(setting(postgres.url(), "max_connections"), "44");
    assert_eq!(noted(postgres.url()), [3]);
}

#[test]
fn a_killed_server_recovers_from_what_it_left_behind() {
    let folder = TempDir::new().unwrap();
    let postgres = EmbeddedPostgres::start(Options::new(folder.path())).unwrap();
    note(postgres.url(), 5);
    kill_process(process(postmaster(folder.path())), Signal::KILL).unwrap();
    postgres.stop().unwrap();
    assert!(folder.path().join("postgres/postmaster.pid").exists());

    let postgres = EmbeddedPostgres::start(Options::new(folder.path())).unwrap();

    assert_eq!(noted(postgres.url()), [5]);
}

#[test]
fn a_pid_file_naming_a_living_stranger_is_not_fatal() {
    let folder = TempDir::new().unwrap();
    start(folder.path()).stop().unwrap();
    let cluster = folder.path().join("postgres");
    // Of the account that runs the server: PostgreSQL itself would take it for a server.
    let mut stranger = as_owner_of(&cluster, "sleep").arg("600").spawn().unwrap();
    let contents = format!(
        "{}\n{}\n1\n5432\n.\n\n1 1\nready   \n",
        stranger.id(),
        cluster.display()
    );
    fs::write(cluster.join("postmaster.pid"), &contents).unwrap();
    fs::write(cluster.join(".s.PGSQL.5432.lock"), &contents).unwrap();

    let started = EmbeddedPostgres::start(options(folder.path()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();

    assert!(!started.unwrap().adopted());
}

#[test]
fn a_pid_file_of_a_dead_process_or_with_nothing_in_it_is_not_fatal() {
    let folder = TempDir::new().unwrap();
    start(folder.path()).stop().unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();

    for contents in [format!("{}\n", gone.id()), String::new(), "rubbish".into()] {
        fs::write(folder.path().join("postgres/postmaster.pid"), contents).unwrap();
        start(folder.path()).stop().unwrap();
    }
}

#[test]
fn a_second_owner_is_refused_and_told_who_is_first() {
    let folder = TempDir::new().unwrap();
    let owner = Owner::of(folder.path());

    let refused = EmbeddedPostgres::start(options(folder.path())).unwrap_err();

    assert!(
        matches!(&refused, EmbeddedError::InUse { pid: Some(pid), .. } if *pid == owner.process.id()),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("CALLQ_DATA_DIR"), "{refused}");
    // And the refusal did no harm to the first.
    note(&owner.url, 1);
    owner.kill();
    start(folder.path()).stop().unwrap();
}

#[test]
fn a_command_finds_the_cluster_that_another_process_runs() {
    let folder = TempDir::new().unwrap();
    let before = EmbeddedPostgres::connect_existing(folder.path()).unwrap();
    let owner = Owner::of(folder.path());

    let during = EmbeddedPostgres::connect_existing(folder.path()).unwrap();

    assert_eq!(before, None);
    assert_eq!(during.as_deref(), Some(owner.url.as_str()));
    note(&during.unwrap(), 1);
    owner.kill();
    start(folder.path()).stop().unwrap();
    let after = EmbeddedPostgres::connect_existing(folder.path()).unwrap();
    assert_eq!(after, None);
}

#[test]
fn dropping_the_cluster_stops_the_server() {
    let folder = TempDir::new().unwrap();
    let postgres = start(folder.path());

    drop(postgres);

    assert!(!folder.path().join("postgres/postmaster.pid").exists());
}

#[test]
fn an_interrupted_initdb_leaves_nothing_that_stops_the_next() {
    let folder = TempDir::new().unwrap();
    let unfinished = folder.path().join("postgres.new-1");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("PG_VERSION"), "15\n").unwrap();

    start(folder.path()).stop().unwrap();

    assert!(!unfinished.exists());
}

#[test]
fn a_folder_with_something_else_in_it_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let cluster = folder.path().join("postgres");
    fs::create_dir(&cluster).unwrap();
    fs::write(cluster.join("thesis.txt"), "years of work").unwrap();

    let refused = EmbeddedPostgres::start(options(folder.path())).unwrap_err();

    assert!(
        matches!(refused, EmbeddedError::NotACluster { .. }),
        "{refused}"
    );
    assert!(cluster.join("thesis.txt").exists());
}

#[test]
fn a_cluster_of_a_version_that_is_not_installed_names_that_version() {
    let folder = TempDir::new().unwrap();
    start(folder.path()).stop().unwrap();
    fs::write(folder.path().join("postgres/PG_VERSION"), "14000\n").unwrap();

    let refused = EmbeddedPostgres::start(options(folder.path())).unwrap_err();

    let line = refused.to_string();
    assert!(line.contains("PostgreSQL 14000"), "{line}");
    assert!(line.contains("CALLQ_PG_BIN"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn a_setting_the_server_refuses_is_told_with_the_servers_own_words() {
    let folder = TempDir::new().unwrap();
    let mut wrong = options(folder.path());
    wrong.settings = vec![("shared_buffers".into(), "a lot".into())];

    let refused = EmbeddedPostgres::start(wrong).unwrap_err().to_string();

    assert!(refused.contains("shared_buffers"), "{refused}");
    assert!(!refused.contains('\n'), "{refused}");
    // The directory is none the worse for it.
    start(folder.path()).stop().unwrap();
}

#[test]
fn a_path_too_long_for_a_socket_works_and_leaves_no_socket_folder_behind() {
    let folder = TempDir::new().unwrap();
    let data_dir = folder.path().join("long".repeat(30)).join("er");

    let postgres = start(&data_dir);

    note(postgres.url(), 2);
    let found = EmbeddedPostgres::connect_existing(&data_dir).unwrap();
    assert_eq!(found.as_deref(), Some(postgres.url()));
    let host = postgres.url().split_once("host=").unwrap().1;
    let socket_folder = PathBuf::from(host.split_once('&').unwrap().0.replace("%2F", "/"));
    assert_eq!(fs::metadata(&socket_folder).unwrap().mode() & 0o777, 0o700);
    postgres.stop().unwrap();
    assert!(!socket_folder.exists());
}

#[test]
fn a_data_directory_that_cannot_be_made_is_one_line_naming_the_variable() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();

    let refused = EmbeddedPostgres::start(options(&folder.path().join("file/data"))).unwrap_err();

    let line = refused.to_string();
    assert!(line.starts_with("CALLQ_DATA_DIR"), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn root_may_keep_its_data_below_a_folder_the_servers_account_cannot_enter() {
    if !is_root() {
        eprintln!("skipped: only root drops to another account");
        return;
    }
    let folder = TempDir::new().unwrap();
    let private = folder.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
    let data_dir = private.join("data");

    for n in [1, 2] {
        let postgres = start(&data_dir);
        note(postgres.url(), n);
        postgres.stop().unwrap();
    }

    assert_eq!(noted(start(&data_dir).url()), [1, 2]);
    assert_eq!(fs::metadata(&private).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_server_outlives_the_keyboard_interrupt_meant_for_its_owner() {
    let folder = TempDir::new().unwrap();
    let postgres = start(folder.path());

    let group = getpgid(Some(process(postmaster(folder.path())))).unwrap();

    assert_ne!(group, getpgid(None).unwrap());
    postgres.stop().unwrap();
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed()).unwrap()
}

fn as_owner_of(path: &Path, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if is_root() {
        let owner = fs::metadata(path).unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir("/");
    command
}

#[test]
fn a_server_that_died_is_started_again_with_its_data_and_its_url() {
    let folder = tempfile::tempdir().unwrap();
    let mut postgres = EmbeddedPostgres::start(Options::new(folder.path())).unwrap();
    note(postgres.url(), 7);
    assert!(!postgres.revive().unwrap(), "it lives");
    let (url, first) = (postgres.url().to_owned(), postmaster(folder.path()));

    kill_process(process(first), Signal::KILL).unwrap();
    // It is gone once it can be reaped, which is for revive to find out.
    while !postgres.revive().unwrap() {
        std::thread::yield_now();
    }

    assert_eq!(postgres.url(), url);
    assert_eq!(noted(&url), [7]);
    assert_ne!(postmaster(folder.path()), first);
}
