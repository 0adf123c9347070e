//! Everything through PgBouncer in transaction mode, where each transaction may run on another
//! connection; and PgBouncer itself gone and back.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use callq_testing::OwnCluster;
use diesel::{Connection, PgConnection};
use serde_json::json;
use tempfile::TempDir;

use super::storm::{Storm, TALK};
use crate::harness::{PATIENCE, World, callq, number};

/// PgBouncer before a cluster, with fewer connections to it than callq has to PgBouncer.
struct Pooler {
    program: PathBuf,
    folder: TempDir,
    account: (u32, u32),
    child: Option<Child>,
}

impl Pooler {
    /// Where the program is, if it is here at all.
    fn program() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        // Where Debian has it, off an ordinary user's path.
        folders.push("/usr/sbin".into());
        let mut programs = folders.iter().map(|folder| folder.join("pgbouncer"));
        programs.find(|program| program.is_file())
    }

    /// Runs as whoever runs the cluster: PgBouncer refuses to be root.
    fn start(program: PathBuf, folder: TempDir, cluster: &OwnCluster) -> Self {
        let owner = fs::metadata(cluster.data_dir()).expect("a cluster");
        let account = (owner.uid(), owner.gid());
        let settings = format!(
            "[databases]\ncallq = host={} port=5432 dbname=callq user=callq\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = 5432\nunix_socket_dir = {}\n\
             auth_type = any\npool_mode = transaction\ndefault_pool_size = 6\nmax_client_conn = 100\n\
             server_login_retry = 1\n",
            cluster.data_dir().display(),
            folder.path().display()
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, settings).expect("written");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
        if chown(folder.path(), Some(account.0), Some(account.1)).is_err() {
            assert_eq!(
                owner.uid(),
                fs::metadata(folder.path()).expect("ours").uid()
            );
        }
        let mut pooler = Self {
            program,
            folder,
            account,
            child: None,
        };
        pooler.start_again();
        pooler
    }

    fn start_again(&mut self) {
        let mut command = Command::new(&self.program);
        command
            .arg(self.folder.path().join("pgbouncer.ini"))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if fs::metadata("/proc/self").map_or(0, |me| me.uid()) != self.account.0 {
            command.uid(self.account.0).gid(self.account.1);
        }
        self.child = Some(command.spawn().expect("pgbouncer starts"));
        let begun = Instant::now();
        while PgConnection::establish(&self.url()).is_err() {
            assert!(begun.elapsed() < PATIENCE, "pgbouncer does not answer");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn url(&self) -> String {
        url(self.folder.path())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.kill();
    }
}

fn url(socket: &Path) -> String {
    format!(
        "postgresql:///callq?host={}&port=5432&user=callq",
        socket.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_through_pgbouncer_in_transaction_mode_which_may_be_killed() {
    let Some(program) = Pooler::program() else {
        println!("skipped: pgbouncer is not installed; `make test` installs it");
        return;
    };
    let folder = TempDir::new().expect("a folder");
    // Whoever reaches the socket is callq: PgBouncer is another user of this machine.
    let trust = folder.path().join("pg_hba.conf");
    fs::write(&trust, "local all all trust\n").expect("written");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    let trust = trust.to_str().expect("a path that is text");
    let cluster = OwnCluster::start(&[("hba_file", trust)]);
    let mut pooler = Pooler::start(program, folder, &cluster);
    let mut world = World::on(cluster.url(), 10);
    world.settings.insert("DATABASE_URL", pooler.url());

    // Migrated through it too, and looked at by one after the other over the same few connections.
    let server = world.serve();
    for _ in 0..8 {
        let status = callq()
            .envs(&world.settings)
            .args(["migrate", "status"])
            .output()
            .expect("callq runs");
        let said = String::from_utf8_lossy(&status.stderr).into_owned();
        assert!(status.status.success(), "{said}");
    }
    let ada = world.user(&server, "ada", 1).await;
    assert_eq!(ada.call(1).await.status, 200);
    assert_eq!(ada.call(2).await.status, 202);
    let later = ada.call_with(3, json!({"expires_in": 600})).await;
    assert_eq!(later.body["queue"]["position"], json!(2));
    let campaign = ada.campaign(2).await;
    let (status, log) = tokio::task::spawn_blocking(move || server.terminate())
        .await
        .expect("no panic");
    assert!(status.success(), "{log}");
    let server = world.serve();
    let ada = ada.at(&server);
    let place = later.body["queue"]["id"].as_str().expect("an id");
    let place = ada.get(&format!("/api/queue/{place}")).await;
    assert_eq!(place.body["position"], json!(2));

    world.dialer.auto_end_after(TALK);
    // Its callback was the server's before.
    let first = world.dialer.dials()[0].clone();
    let event = json!({"event_id": "e", "call_id": first.call_id, "execution_id": first.execution_id,
        "status": "completed", "occurred_at": chrono::Utc::now().to_rfc3339()});
    assert_eq!(world.signed_event(&server, event).await, 200);
    let dials = world.dialer.wait_for_dials(5, PATIENCE);
    assert_eq!([&dials[1].to, &dials[2].to], [&number(2), &number(3)]);
    world
        .until_count(
            "SELECT count(*) FROM call_records WHERE status = 'completed'",
            5,
        )
        .await;
    let campaign = ada.get(&format!("/api/campaigns/{campaign}")).await;
    assert_eq!(campaign.body["status"], "completed", "{campaign:?}");

    let eve = world.user(&server, "eve", 6).await;
    let storm = Storm::of(&[&eve]);
    storm.until_accepted(10).await;
    pooler.kill();
    let refused = storm.until_refused(3).await;
    let unready = server.until_ready(false).await;
    pooler.start_again();
    let back = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "three refused after {refused:?}, not ready {unready:?} later, well again {:?} after pgbouncer",
        back.elapsed()
    );
    storm.until_accepted(20).await;
    cluster.crash();
    storm.until_refused(3).await;
    cluster.start_again();
    let back = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "behind it: well again {:?} after the database",
        back.elapsed()
    );
    storm.until_accepted(20).await;

    let before: Vec<String> = dials
        .iter()
        .filter(|dial| dial.call_type == "direct")
        .map(|dial| dial.call_id.to_string())
        .collect();
    storm.end_after(&world, &server, 10, &before).await;
}
