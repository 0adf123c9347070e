//! A private PostgreSQL that callq starts and stops itself.
//!
//! Without `DATABASE_URL` a first-time user should get a working callq from one command, and what
//! it accepted must survive restarts and `kill -9`. So this crate runs the PostgreSQL server
//! binaries already on the machine on a directory of its own, reachable over a Unix socket by the
//! user who runs callq and by nobody else. It downloads nothing and needs no root; run as root, it
//! drops the server to an unprivileged account. `docs/adr/0002-embedded-postgres.md` says why it
//! is our own code.
//!
//! What lies in the data directory:
//!
//! | entry | is |
//! | --- | --- |
//! | `callq.lock` | held by the one process that owns the cluster; holds its pid |
//! | `postgres/` | the cluster, and normally its socket |
//! | `postgres.log` | the server's log, rotated once at start when it has grown |
//! | `postgres.new-*` | an `initdb` under way; leftovers are cleared at the next start |
//!
//! A service that wants its own database does this:
//!
//! ```no_run
//! use callq_embedded_postgres::{EmbeddedPostgres, Options};
//!
//! # fn main() -> Result<(), callq_embedded_postgres::EmbeddedError> {
//! let postgres = EmbeddedPostgres::start(Options::new("data"))?;
//! println!("connect to {}", postgres.url());
//! postgres.stop()?;
//! # Ok(())
//! # }
//! ```

mod account;
mod binaries;
mod data_dir;
mod error;
mod initdb;
mod launch;
mod owner_lock;
mod postmaster;
mod server;
mod settings;
mod start;
mod wire;

pub use account::Account;
pub use binaries::server_binaries;
pub use error::EmbeddedError;
pub use server::{EmbeddedPostgres, Options};

/// The database role that owns everything in the cluster.
pub(crate) const ROLE: &str = "callq";
/// The database made at the first start unless [`Options::database`] says otherwise.
pub(crate) const DATABASE: &str = "callq";
/// There is no TCP port; the number only names the socket file.
pub(crate) const PORT: u16 = 5432;
/// The oldest PostgreSQL major version callq's SQL runs on.
pub(crate) const OLDEST_MAJOR: u32 = 14;
