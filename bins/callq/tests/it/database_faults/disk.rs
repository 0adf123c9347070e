//! A disk without room: PostgreSQL cannot write its log and gives up altogether, the hard case, until
//! there is room again. On the private cluster, which callq has to start again itself.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tempfile::TempDir;

use super::storm::{Storm, TALK};
use crate::harness::{PATIENCE, World};

/// A small file system of its own, in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount() -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=200m,mode=0755", "callq-small"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self(folder))
    }

    /// Takes all the room that is left, and returns what holds it.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = File::create(&path).expect("a file");
        for size in [1 << 20, 1 << 12] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the server's last process may still be on its way out.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_everything_until_there_is_room_again() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: a small file system cannot be mounted here");
        return;
    };
    let data = disk.0.path().join("data");
    let mut world = World::on(&private_url(&data), 10).with(
        "CALLQ_DATA_DIR",
        data.to_str().expect("a path that is text"),
    );
    world.settings.remove("DATABASE_URL");
    world.dialer.auto_end_after(TALK);
    let server = world.serve();
    let (ada, eve) = (
        world.user(&server, "ada", 6).await,
        world.user(&server, "eve", 6).await,
    );
    let storm = Storm::of(&[&ada, &eve]);
    storm.until_accepted(20).await;

    let filler = disk.fill();
    use_up_the_log(&world.database_url);
    let refused = storm.until_refused(6).await;
    let unready = server.until_ready(false).await;
    assert_eq!(server.open_page("/healthz").await, 200);
    // Long enough for a restart that finds no room either.
    storm.until_refused(1).await;
    std::fs::remove_file(filler).expect("removed");
    let room = Instant::now();
    storm.until_accepted(1).await;
    println!(
        "six refused after {refused:?}, not ready {unready:?} later, well again {:?} after there was room",
        room.elapsed()
    );
    server.until_ready(true).await;
    storm.until_accepted(20).await;

    storm.end(&world, &server, 10).await;
    let log = tokio::task::spawn_blocking(move || server.terminate().1).await;
    let log = log.expect("no panic");
    assert!(log.contains("PostgreSQL has died"), "{log}");
}

/// The URL of the private cluster in a data directory.
fn private_url(data: &Path) -> String {
    let socket = data.join("postgres");
    format!(
        "postgresql:///callq?host={}&port=5432&user=callq",
        socket.display()
    )
}

/// Goes through the segments of the log that there are, until a new one is needed and cannot be made.
fn use_up_the_log(url: &str) {
    let begun = Instant::now();
    let next = "SELECT pg_switch_wal(); SELECT pg_logical_emit_message(true, 'test', 'x')";
    while let Ok(mut conn) = PgConnection::establish(url) {
        while conn.batch_execute(next).is_ok() {
            assert!(begun.elapsed() < PATIENCE, "the log finds room for ever");
        }
        assert!(begun.elapsed() < PATIENCE, "the server finds room for ever");
    }
}
