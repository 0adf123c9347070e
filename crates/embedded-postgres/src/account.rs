//! Which operating-system account runs the server, and what PostgreSQL knows callq's own as.
//!
//! PostgreSQL refuses to run as root. When callq is root (a container, a fresh machine) the server
//! is dropped to an unprivileged account; otherwise it runs as callq does.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::{EmbeddedError, launch};

/// The account a PostgreSQL server runs as.
///
/// Public for programs that start PostgreSQL by other means than this crate, such as a drill of
/// failover, and face the same question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether it differs from this process's own.
    pub dropped: bool,
}

impl Account {
    /// The account for a cluster that is yet to be made: this process's own, or if that is root an
    /// unprivileged one.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::NoAccount`] if there is none to drop to.
    pub fn for_new_cluster() -> Result<Self, EmbeddedError> {
        // What does not exist has no owner.
        Self::choose(Path::new(""))
    }

    /// A command that runs `program` as this account, with hardly anything of this process's
    /// environment: that may hold secrets.
    #[must_use]
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        launch::as_account(program.as_ref(), self)
    }

    /// Chooses the account for the cluster at `cluster`, which need not exist yet.
    ///
    /// An existing cluster keeps its owner, so that installing a `postgres` account later, or
    /// running once as root, does not strand data that is already there.
    pub(crate) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        let me = rustix::process::geteuid().as_raw();
        let Ok(owner) = fs::metadata(cluster) else {
            return if me == 0 {
                unprivileged(&passwd()).ok_or(EmbeddedError::NoAccount)
            } else {
                Ok(Self {
                    uid: me,
                    gid: rustix::process::getegid().as_raw(),
                    dropped: false,
                })
            };
        };
        // Root may run anybody's cluster but its own; everybody else only their own.
        if (me == 0) == (owner.uid() == me) {
            return Err(EmbeddedError::WrongOwner {
                path: cluster.to_owned(),
                owner: name_of(owner.uid(), &passwd()),
            });
        }
        Ok(Self {
            uid: owner.uid(),
            gid: owner.gid(),
            dropped: me == 0,
        })
    }
}

/// The name PostgreSQL's peer authentication sees for callq's own user.
///
/// Asked of `id`, not of `/etc/passwd`, because the server resolves it through the name service
/// too, where directory users live.
pub(crate) fn own_user_name() -> Result<String, EmbeddedError> {
    let output = Command::new("id").arg("-un").output();
    let name = output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty());
    name.ok_or_else(|| EmbeddedError::NamelessUser {
        uid: rustix::process::geteuid().as_raw(),
    })
}

fn passwd() -> String {
    fs::read_to_string("/etc/passwd").unwrap_or_default()
}

/// The account the distribution made for PostgreSQL if there is one, else the one made for owning
/// nothing.
fn unprivileged(passwd: &str) -> Option<Account> {
    ["postgres", "nobody"].iter().find_map(|wanted| {
        entries(passwd).find_map(|(name, uid, gid)| {
            (name == *wanted && uid != 0).then_some(Account {
                uid,
                gid,
                dropped: true,
            })
        })
    })
}

fn name_of(uid: u32, passwd: &str) -> String {
    entries(passwd)
        .find(|(_, id, _)| *id == uid)
        .map_or_else(|| format!("user id {uid}"), |(name, ..)| name.to_owned())
}

fn entries(passwd: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = id(fields.nth(1)?)?;
        let gid = id(fields.next()?)?;
        Some((name, uid, gid))
    })
}

/// Some systems write the id of `nobody` as -2.
fn id(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &str = "# comment\nroot:x:0:0:root:/root:/bin/sh\nnobody:*:-2:-2::/:/bin/false\n";

    #[test]
    fn root_drops_to_postgres_where_that_account_exists() {
        let passwd = format!("{BARE}postgres:x:101:104:PostgreSQL:/var/lib:/bin/bash\n");

        let account = unprivileged(&passwd).unwrap();

        assert_eq!(
            (account.uid, account.gid, account.dropped),
            (101, 104, true)
        );
    }

    #[test]
    fn root_drops_to_nobody_on_a_bare_machine_even_where_its_id_is_negative() {
        let account = unprivileged(BARE).unwrap();

        assert_eq!((account.uid, account.gid), (u32::MAX - 1, u32::MAX - 1));
    }

    #[test]
    fn a_cluster_that_is_yet_to_be_made_never_runs_as_root() {
        let account = Account::for_new_cluster().unwrap();

        assert_ne!(account.uid, 0);
        assert_eq!(
            account.dropped,
            rustix::process::geteuid().as_raw() != account.uid
        );
    }

    #[test]
    fn an_account_called_postgres_with_the_id_of_root_is_no_place_to_drop_to() {
        assert_eq!(unprivileged("postgres:x:0:0::/:/bin/sh\n"), None);
    }

    #[test]
    fn an_owner_without_a_name_is_given_as_an_id() {
        assert_eq!(name_of(0, BARE), "root");
        assert_eq!(name_of(4711, BARE), "user id 4711");
    }
}
