//! The private cluster everything is measured on, and the databases in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use callq_embedded_postgres::{EmbeddedPostgres, Options};
use callq_persistence::{connect, migrations};
use diesel::connection::SimpleConnection;
use tempfile::TempDir;

use crate::cli::Cli;

/// What differs from PostgreSQL's defaults. Durability does not: `fsync`, `synchronous_commit` and
/// `full_page_writes` are on. The floor is measured on the same settings.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("shared_buffers", "1GB"),
    // Room between checkpoints: one that falls into a run is the luck of the run.
    ("max_wal_size", "4GB"),
    ("checkpoint_timeout", "15min"),
];

/// A running cluster, gone with this value.
pub(crate) struct Cluster {
    server: EmbeddedPostgres,
    // Dropped after the server.
    directory: TempDir,
}

/// A database of the cluster with callq's schema.
#[derive(Debug, Clone)]
pub(crate) struct BenchDatabase {
    pub url: String,
}

impl Cluster {
    pub(crate) fn start(cli: &Cli) -> anyhow::Result<Self> {
        let scratch = cli.scratch.clone().unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&scratch)?;
        if in_memory(&scratch) {
            bail!(
                "{} lies in memory, where a commit costs nothing; name a folder on a disk with --scratch",
                scratch.display()
            );
        }
        let directory = tempfile::Builder::new()
            .prefix("callq-bench-")
            .tempdir_in(&scratch)
            .with_context(|| format!("no folder can be made in {}", scratch.display()))?;
        let server = EmbeddedPostgres::start(Options {
            max_connections: 200,
            database: "postgres".into(),
            settings: SETTINGS
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..Options::new(directory.path())
        })?;
        Ok(Self { server, directory })
    }

    /// The URL of the database `name`.
    pub(crate) fn url(&self, name: &str) -> String {
        let parameters = self.server.url().split_once('?').map_or("", |(_, it)| it);
        format!("postgresql:///{name}?{parameters}")
    }

    /// An empty database, in the place of one of the same name.
    pub(crate) fn plain_database(&self, name: &str) -> anyhow::Result<String> {
        let mut conn = connect(&self.url("postgres"))?;
        conn.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        conn.batch_execute(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    /// A database with callq's schema and nothing in it, in the place of one of the same name.
    pub(crate) fn database(&self, name: &str) -> anyhow::Result<BenchDatabase> {
        let url = self.plain_database(name)?;
        migrations::up(&url)?;
        Ok(BenchDatabase { url })
    }

    pub(crate) fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        let mut conn = connect(&self.url("postgres"))?;
        conn.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        Ok(())
    }

    /// The process whose children are the server's backends.
    pub(crate) fn postmaster(&self) -> anyhow::Result<u32> {
        let file: PathBuf = self.directory.path().join("postgres/postmaster.pid");
        let text = std::fs::read_to_string(&file)?;
        let pid = text.lines().next().context("an empty postmaster.pid")?;
        Ok(pid.trim().parse()?)
    }
}

impl BenchDatabase {
    /// The same database for preparations: commits are not waited for.
    pub(crate) fn hasty_url(&self) -> String {
        format!("{}&options=-c%20synchronous_commit%3Doff", self.url)
    }
}

/// Whether a folder lies in memory, as far as the kernel tells.
fn in_memory(folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    file_system_of(&folder, &mounts).is_some_and(|it| it == "tmpfs" || it == "ramfs")
}

/// The type of the innermost file system that holds `folder`.
fn file_system_of<'a>(folder: &Path, mounts: &'a str) -> Option<&'a str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| folder.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_says_where_a_folder_lies() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n";

        let on_disk = file_system_of(Path::new("/dev/shmoo"), mounts);
        let in_memory = file_system_of(Path::new("/dev/shm/bench"), mounts);

        assert_eq!(on_disk, Some("ext4"));
        assert_eq!(in_memory, Some("tmpfs"));
    }
}
