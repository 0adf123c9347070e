//! What Patroni is told. It reads YAML, of which JSON is a part.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::NodeName;

/// Seconds that a leader's lock outlives its last sign of life. Production wants 30; see
/// `docs/operations.md`.
const TTL: u32 = 5;
/// Seconds between two signs of life.
const LOOP_WAIT: u32 = 1;
/// Seconds that etcd or PostgreSQL may take to answer before a leader gives up its place. A leader
/// must have given up before another takes over: `LOOP_WAIT + 2 * RETRY_TIMEOUT` is at most `TTL`.
const RETRY_TIMEOUT: u32 = 2;

/// What both nodes have in common.
pub(super) struct Settings {
    /// PostgreSQL's server binaries.
    pub binaries: PathBuf,
    /// Where everything lies.
    pub folder: PathBuf,
    /// etcd's port.
    pub etcd: u16,
    /// Of every role: other users of this machine reach the ports too.
    pub password: String,
}

impl Settings {
    /// Patroni's settings for a node that lies in `folder`.
    pub(super) fn of_node(&self, name: NodeName, port: u16, api: u16, folder: &Path) -> Value {
        let listen = format!("127.0.0.1:{port}");
        let api = format!("127.0.0.1:{api}");
        let role = |name: &str| json!({"username": name, "password": self.password});
        json!({
            "scope": "callq",
            "name": name.as_str(),
            "restapi": {"listen": api, "connect_address": api},
            // By etcd's second protocol. By the third, Patroni before 3.0.3 writes its lock without
            // looking whose it is: a leader that was frozen and goes on takes it from its successor.
            "etcd": {"host": format!("127.0.0.1:{}", self.etcd)},
            "bootstrap": {
                "dcs": shared(),
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": listen,
                "connect_address": listen,
                "data_dir": folder.join("data"),
                "bin_dir": self.binaries,
                "pgpass": folder.join("pgpass"),
                "authentication": {
                    "superuser": role("postgres"),
                    "replication": role("replicator"),
                    "rewind": role("rewinder"),
                },
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication replicator 127.0.0.1/32 scram-sha-256",
                ],
                // A node that cannot be rewound is made anew.
                "remove_data_directory_on_rewind_failure": true,
                "remove_data_directory_on_diverged_timelines": true,
            },
        })
    }
}

/// What the cluster as a whole goes by, kept in etcd.
fn shared() -> Value {
    json!({
        "ttl": TTL,
        "loop_wait": LOOP_WAIT,
        "retry_timeout": RETRY_TIMEOUT,
        "maximum_lag_on_failover": 1_048_576,
        // A commit waits for the standby, and only a standby that has every commit takes over.
        "synchronous_mode": true,
        // With two nodes, strict would mean that either's death stops all writes.
        "synchronous_mode_strict": false,
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": {
                "synchronous_commit": "on",
                "wal_level": "replica",
                "wal_log_hints": "on",
                "max_connections": 200,
                "max_wal_senders": 10,
                "max_replication_slots": 10,
                "wal_keep_size": "256MB",
                // The standby tries again soon when the leader it followed is gone.
                "wal_retrieve_retry_interval": "500ms",
                // Within the folder, where the clean-up reaches.
                "dynamic_shared_memory_type": "mmap",
                "unix_socket_directories": "",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_gives_up_before_another_takes_over() {
        const { assert!(LOOP_WAIT + 2 * RETRY_TIMEOUT <= TTL) };
    }

    #[test]
    fn commits_wait_for_the_standby() {
        let shared = shared();

        assert_eq!(shared["synchronous_mode"], true);
        assert_eq!(
            shared["postgresql"]["parameters"]["synchronous_commit"],
            "on"
        );
    }
}
