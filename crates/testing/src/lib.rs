//! What tests of the other crates stand on: a real PostgreSQL database for each test, thrown away
//! afterwards. Nothing that is shipped names it: it is a dev-dependency, and what `callq-chaos` stands
//! on.
//!
//! ```
//! use callq_testing::TestDatabase;
//! use diesel::prelude::*;
//!
//! let database = TestDatabase::new();
//! let mut connection = PgConnection::establish(database.url())?;
//! diesel::sql_query("SELECT 1").execute(&mut connection)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cluster;
mod database;
mod dialer;
mod link;
mod own_cluster;

pub use database::TestDatabase;
pub use dialer::{
    Behaviour, Course, Deed, Dial, DialerOptions, FakeDialer, Ledger, LedgerEntry, LookUps, Telling,
};
pub use link::Link;
pub use own_cluster::OwnCluster;
