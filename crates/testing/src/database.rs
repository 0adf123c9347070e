//! One database for one test.

use crate::cluster::Cluster;

/// A database that no other test sees, dropped with this value.
///
/// All databases of a test process live in one cluster without durability, started at the first
/// use and gone when the process ends, however it ends. Tests may run side by side in any number.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
}

impl TestDatabase {
    /// A database with every migration applied and nothing in it, cloned from a template in a few
    /// tens of milliseconds.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL to run, or a migration fails.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "a default that starts a server would surprise"
    )]
    pub fn new() -> Self {
        Self::from_template(Cluster::get().migrated_template())
    }

    /// A database as PostgreSQL makes it, without any migration: for tests of the migrations.
    ///
    /// # Panics
    ///
    /// If there is no PostgreSQL to run.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_template("template1")
    }

    /// The libpq URL of the database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn from_template(template: &str) -> Self {
        let cluster = Cluster::get();
        let name = format!("t_{}", uuid::Uuid::now_v7().simple());
        cluster.execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"));
        Self {
            url: cluster.url(&name),
            name,
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // FORCE: pools and servers under test may still hold connections. Should it fail, the
        // database goes with the cluster; a second panic would hide the first.
        let _ = Cluster::get().try_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}
