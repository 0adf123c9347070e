//! A highly available PostgreSQL for a drill: two nodes under Patroni, one etcd, all on this
//! machine, with synchronous replication and an end that leaves nothing behind.
//!
//! It differs from production in what one machine cannot give: etcd is a single member, both nodes
//! share a disk, and the time-outs are as short as Patroni allows, so that a drill takes seconds.
//! `docs/operations.md` says what to set elsewhere.

mod etcd;
mod guardian;
mod node;
mod ports;
mod process;
mod settings;

use std::fmt;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use callq_embedded_postgres::{Account, server_binaries};
use diesel::connection::SimpleConnection;

use self::etcd::Etcd;
use self::guardian::Guardian;
use self::node::Node;
use self::settings::Settings;

/// How long the first start may take: `initdb`, a base backup, and Patroni's own pace.
const PATIENCE_WITH_START: Duration = Duration::from_secs(120);

/// Between looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// One of the two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeName {
    /// The first.
    A,
    /// The second.
    B,
}

impl NodeName {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    /// The other one.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As Patroni, files and people call it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Two running nodes and their etcd, stopped and removed with this value; should this process be
/// killed, by a guardian.
pub(crate) struct HaCluster {
    nodes: [Node; 2],
    // Stopped after the nodes.
    etcd: Etcd,
    http: reqwest::blocking::Client,
    url: String,
    admin_url: String,
    folder: PathBuf,
    // Last: it watches over all of the above.
    _guardian: Guardian,
}

impl HaCluster {
    /// Starts etcd and both nodes in `folder`, makes the role and the database `callq`, and waits
    /// until one node leads and the other is its synchronous standby.
    ///
    /// `folder` is a temporary one, made for this. If this process is root, the account that runs
    /// PostgreSQL is let through it, to a folder of its own.
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let account = Account::for_new_cluster()?;
        let folder = own_folder(folder, account)?;
        let guardian = Guardian::over(&folder)?;
        let [client, peer, ports @ ..] = ports::free::<6>()?;
        let settings = Settings {
            binaries: server_binaries()?,
            folder: folder.clone(),
            etcd: client,
            password: format!("{:032x}", rand::random::<u128>()),
        };
        let etcd = Etcd::start(&folder, account, client, peer)?;
        let [a_port, a_api, b_port, b_api] = ports;
        let nodes = [
            Node::prepare(NodeName::A, account, a_port, a_api, &settings)?,
            Node::prepare(NodeName::B, account, b_port, b_api, &settings)?,
        ];
        let hosts = format!(
            "host=127.0.0.1,127.0.0.1&port={a_port},{b_port}&target_session_attrs=read-write&connect_timeout=2"
        );
        let password = &settings.password;
        let mut cluster = Self {
            nodes,
            etcd,
            http: reqwest::blocking::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(2))
                .build()?,
            url: format!("postgresql://callq:{password}@/callq?{hosts}"),
            admin_url: format!("postgresql://postgres:{password}@/postgres?{hosts}"),
            folder,
            _guardian: guardian,
        };
        cluster.start_nodes()?;
        cluster.create_database(password)?;
        Ok(cluster)
    }

    fn start_nodes(&mut self) -> anyhow::Result<()> {
        self.etcd.wait_until_healthy(&self.http)?;
        // One after the other, so that the second need not wait for the first's `initdb`.
        self.nodes[0].start()?;
        self.wait_for_leader(PATIENCE_WITH_START)?;
        self.nodes[1].start()?;
        self.wait_for_synchronous_standby(PATIENCE_WITH_START)
    }

    fn create_database(&self, password: &str) -> anyhow::Result<()> {
        let mut conn = callq_persistence::connect(&self.admin_url)?;
        conn.batch_execute(&format!("CREATE ROLE callq LOGIN PASSWORD '{password}'"))?;
        conn.batch_execute("CREATE DATABASE callq OWNER callq")?;
        Ok(())
    }

    /// The database for callq: both nodes, of which libpq takes the one that accepts writes.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// As [`HaCluster::url`], for the superuser and the database `postgres`.
    pub(crate) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// The node that holds Patroni's lock and accepts writes, if one does at this moment.
    pub(crate) fn leader(&self) -> anyhow::Result<Option<NodeName>> {
        let leads = |name: &NodeName| self.node(*name).answers_yes(&self.http, "primary");
        Ok(NodeName::ALL.into_iter().find(leads))
    }

    /// The node that does not lead, while one does.
    fn standby(&self) -> anyhow::Result<NodeName> {
        Ok(self.leader()?.context("no node leads")?.other())
    }

    /// Kills the leading node, its PostgreSQL with all its processes and its Patroni, at one
    /// instant and without a word, as when its machine dies. Returns which it was.
    pub(crate) fn kill_leader(&mut self) -> anyhow::Result<NodeName> {
        let name = self.leader()?.context("no node leads")?;
        self.nodes[name as usize].kill()?;
        Ok(name)
    }

    /// As [`HaCluster::kill_leader`], once the standby has received nothing for so long: what the
    /// leader wrote meanwhile dies with it. Returns which it was.
    pub(crate) fn kill_leader_ahead(&mut self, ahead: Duration) -> anyhow::Result<NodeName> {
        let standby = self.standby()?;
        self.node(standby).hold_receiver()?;
        sleep(ahead);
        self.nodes[standby.other() as usize].kill()?;
        self.node(standby).drop_receiver()?;
        Ok(standby.other())
    }

    /// Stops every process of the leading node where it is, without ending it, as when its machine
    /// hangs or its network is cut: connections to it stay open, and nothing comes back. Returns
    /// which it was. [`HaCluster::revive`] kills it before it starts it again.
    pub(crate) fn freeze_leader(&mut self) -> anyhow::Result<NodeName> {
        let name = self.leader()?.context("no node leads")?;
        self.nodes[name as usize].freeze()?;
        Ok(name)
    }

    /// As [`HaCluster::kill_leader`], the other node.
    pub(crate) fn kill_standby(&mut self) -> anyhow::Result<NodeName> {
        let name = self.standby()?;
        self.nodes[name as usize].kill()?;
        Ok(name)
    }

    /// As [`HaCluster::freeze_leader`], the other node.
    pub(crate) fn freeze_standby(&mut self) -> anyhow::Result<NodeName> {
        let name = self.standby()?;
        self.nodes[name as usize].freeze()?;
        Ok(name)
    }

    /// Starts a killed node again. It follows the new leader, after `pg_rewind` if it had written
    /// what nobody else has; [`HaCluster::wait_for_synchronous_standby`] waits for that.
    pub(crate) fn revive(&mut self, name: NodeName) -> anyhow::Result<()> {
        self.nodes[name as usize].kill()?;
        self.nodes[name as usize].start()
    }

    /// Lets a frozen node go on, which may still believe that it leads.
    pub(crate) fn thaw(&self, name: NodeName) {
        self.node(name).thaw();
    }

    /// Waits until one node leads.
    pub(crate) fn wait_for_leader(&self, timeout: Duration) -> anyhow::Result<NodeName> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(name) = self.leader()? {
                return Ok(name);
            }
            self.look_again(deadline, "no node leads")?;
        }
    }

    /// Waits until one node leads and the other is its synchronous standby.
    pub(crate) fn wait_for_synchronous_standby(&self, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(leader) = self.leader()? {
                let standby = self.node(leader.other());
                if standby.answers_yes(&self.http, "synchronous") {
                    return Ok(());
                }
            }
            self.look_again(deadline, "there is no synchronous standby")?;
        }
    }

    /// Has what the standby receives no longer acknowledged, until [`HaCluster::resume_standby`]:
    /// its receiver of the log is stopped where it is.
    pub(crate) fn hold_standby(&self) -> anyhow::Result<()> {
        self.node(self.standby()?).hold_receiver()
    }

    /// Lets the standby go on.
    pub(crate) fn resume_standby(&self) -> anyhow::Result<()> {
        self.node(self.standby()?).resume_receiver()
    }

    /// Copies what both Patronis and etcd said to a folder that outlives this value.
    pub(crate) fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        fs::copy(self.folder.join("etcd.log"), folder.join("etcd.log"))?;
        for name in NodeName::ALL {
            let log = self.folder.join(name.as_str()).join("patroni.log");
            fs::copy(log, folder.join(format!("patroni-{name}.log")))?;
        }
        Ok(())
    }

    fn node(&self, name: NodeName) -> &Node {
        &self.nodes[name as usize]
    }

    fn look_again(&self, deadline: Instant, what: &str) -> anyhow::Result<()> {
        if Instant::now() < deadline && !self.nodes.iter().any(Node::has_failed) {
            sleep(LOOK);
            return Ok(());
        }
        let words = self.nodes.iter().map(Node::last_words);
        bail!(
            "{what}; {}; {}",
            self.etcd.last_words(),
            words.collect::<Vec<_>>().join("; ")
        );
    }
}

impl Drop for HaCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.stop();
        }
        self.etcd.stop();
        if let Err(cause) = fs::remove_dir_all(&self.folder) {
            log::warn!("{} could not be removed: {cause}", self.folder.display());
        }
    }
}

/// A folder within `folder` that belongs to `account`, and a way for it to get there.
fn own_folder(folder: &Path, account: Account) -> anyhow::Result<PathBuf> {
    let folder = folder.canonicalize()?;
    let own = folder.join("ha");
    fs::create_dir(&own).with_context(|| format!("{} cannot be made", own.display()))?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700))?;
    if account.dropped {
        chown(&own, Some(account.uid), Some(account.gid))?;
        let mode = fs::metadata(&folder)?.permissions().mode();
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode | 0o011))?;
    }
    let mut look = account.command("/bin/sh");
    look.args(["-c", r#"cd "$0" 2>/dev/null"#]).arg(&own);
    ensure!(
        look.current_dir("/").status()?.success(),
        "the account that runs PostgreSQL (user id {}) cannot get to {}; name a folder that it can reach",
        account.uid,
        own.display()
    );
    Ok(own)
}
