//! The server's configuration: who may connect, and the settings of a small private cluster.
//!
//! `initdb`'s own `postgresql.conf` stays, because it holds what it found out about the machine;
//! ours is included from it and written anew at each start. What an operator sets with
//! `ALTER SYSTEM` is read after both and wins.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::Path;

use crate::account::Account;
use crate::data_dir::SocketFolder;
use crate::server::Options;
use crate::{EmbeddedError, PORT, ROLE};

const FILE: &str = "callq.conf";
/// What `initdb`'s configuration needs at its end.
pub(crate) const INCLUDE: &str = "\ninclude_if_exists = 'callq.conf'\n";

/// The settings, in the form of a configuration file.
pub(crate) fn render(options: &Options, socket: &SocketFolder) -> Result<String, EmbeddedError> {
    let port = PORT.to_string();
    let connections = options.max_connections.to_string();
    let mut settings = vec![
        ("cluster_name", "callq"),
        ("listen_addresses", ""),
        ("port", &port),
        ("unix_socket_directories", &socket.setting),
        ("unix_socket_permissions", "0700"),
        ("max_connections", &connections),
        ("shared_buffers", "128MB"),
        // callq's statements are short; compiling them costs more than it saves.
        ("jit", "off"),
        ("timezone", "UTC"),
        // The hot tables are to be vacuumed small and often, but are looked at only this often.
        ("autovacuum_naptime", "10s"),
        // A client that died in a transaction must not keep its locks.
        ("idle_in_transaction_session_timeout", "60s"),
        ("log_destination", "stderr"),
        ("logging_collector", "off"),
        ("log_timezone", "UTC"),
        ("log_line_prefix", "%m [%p] "),
        ("log_checkpoints", "off"),
        // Statements and details of an error quote data, telephone numbers among it.
        ("log_error_verbosity", "terse"),
        ("log_min_error_statement", "panic"),
    ];
    if !options.durable {
        settings.extend([
            ("fsync", "off"),
            ("synchronous_commit", "off"),
            ("full_page_writes", "off"),
        ]);
    }
    settings.extend(
        options
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    let mut text =
        String::from("# Written by callq at each start. Use ALTER SYSTEM to change a setting.\n");
    for (name, value) in settings {
        let plausible = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if name.is_empty() || !name.chars().all(plausible) {
            return Err(EmbeddedError::Setting {
                name: name.to_owned(),
            });
        }
        let value = value
            .replace('\\', "\\\\")
            .replace('\'', "''")
            .replace('\n', "\\n");
        text.push_str(&format!("{name} = '{value}'\n"));
    }
    Ok(text)
}

/// The settings the cluster was last started with; empty if that is not known.
pub(crate) fn read(cluster: &Path) -> String {
    fs::read_to_string(cluster.join(FILE)).unwrap_or_default()
}

/// Writes the settings and the rule that `user`, and nobody else, connects as callq's role.
pub(crate) fn write(
    cluster: &Path,
    account: Account,
    settings: &str,
    user: &str,
) -> Result<(), EmbeddedError> {
    let user = user.replace('"', "\"\"");
    for (name, text) in [
        (FILE, settings),
        ("pg_hba.conf", "local all all peer map=callq\n"),
        ("pg_ident.conf", &format!("callq \"{user}\" {ROLE}\n")),
    ] {
        let path = cluster.join(name);
        replace(&path, account, text).map_err(EmbeddedError::data_dir("write", &path))?;
    }
    Ok(())
}

/// Replaces the file at `path` as a whole.
///
/// Never through whatever is there: the folder belongs to the server's account, and root must not
/// be led along a link that account could have planted.
fn replace(path: &Path, account: Account, text: &str) -> io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    let written = (|| {
        if account.dropped {
            fchown(&file, Some(account.uid), Some(account.gid))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> SocketFolder {
        SocketFolder::reported(".", Path::new("/x"))
    }

    #[test]
    fn a_cluster_keeps_its_durability_unless_told_otherwise() {
        let durable = render(&Options::new("x"), &socket()).unwrap();
        let throwaway = Options {
            durable: false,
            ..Options::new("x")
        };
        let throwaway = render(&throwaway, &socket()).unwrap();

        assert!(!durable.contains("fsync"), "{durable}");
        assert!(throwaway.contains("fsync = 'off'\n"), "{throwaway}");
    }

    #[test]
    fn further_settings_come_last_and_are_quoted() {
        let mut options = Options::new("x");
        options.settings = vec![("shared_buffers".into(), r"a'b\".into())];

        let text = render(&options, &socket()).unwrap();

        assert!(text.ends_with("shared_buffers = 'a''b\\\\'\n"), "{text}");
    }

    #[test]
    fn a_setting_name_cannot_smuggle_in_another_line() {
        let mut options = Options::new("x");
        options.settings = vec![("fsync = off\nx".into(), "1".into())];

        let refused = render(&options, &socket());

        assert!(matches!(refused, Err(EmbeddedError::Setting { .. })));
    }
}
