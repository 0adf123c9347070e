//! The schema's migrations, built into the program. They run only when asked for, never as a side
//! effect of connecting.
//!
//! All that one command applies is one transaction: a database is never left half way, and an
//! advisory lock held for that transaction makes servers that start together wait for each other,
//! through PgBouncer in transaction mode too.

use callq_domain::StoreError;
use diesel::migration::{Migration, MigrationSource};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Bool, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::connect;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../../migrations");

/// Why the schema could not be changed, or is not what this build needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MigrationError {
    /// The database cannot be reached.
    #[error(transparent)]
    Connection(#[from] StoreError),
    /// The schema is older than this build; these are to be applied.
    #[error("the schema is older than this build: {} not applied; run `callq migrate up`", .0.join(", "))]
    Older(Vec<String>),
    /// The schema was made by a build that knows more than this one; these it does not know.
    #[error("the schema is not known to this build: it holds {}; run a newer callq", .0.join(", "))]
    Unknown(Vec<String>),
    /// There is nothing to revert.
    #[error("no migration is applied")]
    NothingApplied,
    /// A migration failed; nothing was changed.
    #[error("{0}")]
    Failed(String),
}

/// A migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationStatus {
    /// Its name, or its version alone if this build does not know it.
    pub name: String,
    /// Whether it is applied.
    pub applied: bool,
    /// Whether this build knows it.
    pub known: bool,
    /// Whether this build can do without knowing it: it only adds, and says so.
    pub additive: bool,
}

/// Applies what is not applied yet, all or nothing, and returns the names. Servers may do so at
/// the same time: one does the work, the others wait and find it done.
///
/// # Errors
/// [`MigrationError::Unknown`] for a schema newer than this build, else
/// [`MigrationError::Connection`] or [`MigrationError::Failed`].
pub fn up(url: &str) -> Result<Vec<String>, MigrationError> {
    alone(url, |conn| {
        let status = status_on_conn(conn)?;
        check_known(&status)?;
        let pending = names(&status, |migration| !migration.applied);
        conn.run_pending_migrations(MIGRATIONS).map_err(failed)?;
        Ok(pending)
    })
}

/// As [`up`], for a caller that knows that no server uses the database, as with a private cluster:
/// the lease of one that was killed a moment ago does not stand in the way.
///
/// # Errors
/// As [`up`].
pub fn up_alone(url: &str) -> Result<Vec<String>, MigrationError> {
    sql_query(END_LEASES)
        .execute(&mut connect(url)?)
        .map_err(failed)?;
    up(url)
}

const END_LEASES: &str = "DO $$ BEGIN \
    IF to_regclass('servers') IS NOT NULL THEN \
        UPDATE servers SET lease_until = clock_timestamp() WHERE lease_until > clock_timestamp(); \
    END IF; \
    END $$";

/// Reverts the migration applied last and returns its name.
///
/// The engine's migration refuses while calls hold slots, or while there are call records, which
/// the older schema cannot hold; the setting `callq.discard_call_records = on`, given through the
/// URL's `options`, lets it drop the latter.
///
/// # Errors
/// [`MigrationError::NothingApplied`], else as [`up`].
pub fn down(url: &str) -> Result<String, MigrationError> {
    alone(url, |conn| {
        let applied = names(&status_on_conn(conn)?, |migration| migration.applied);
        let last = applied
            .last()
            .ok_or(MigrationError::NothingApplied)?
            .clone();
        conn.revert_last_migration(MIGRATIONS).map_err(failed)?;
        Ok(last)
    })
}

/// Every migration that this build or the database knows, oldest first. Changes nothing.
///
/// # Errors
/// [`MigrationError::Connection`] or [`MigrationError::Failed`].
pub fn status(url: &str) -> Result<Vec<MigrationStatus>, MigrationError> {
    status_on_conn(&mut connect(url)?)
}

/// Whether the schema is what this build needs: it holds all its migrations, and of later ones only
/// those that add. Changes nothing.
///
/// # Errors
/// [`MigrationError::Older`] or [`MigrationError::Unknown`] if it is not, else as [`status`].
pub fn check_current(url: &str) -> Result<(), MigrationError> {
    check_current_on_conn(&mut connect(url)?)
}

/// As [`check_current`].
pub(crate) fn check_current_on_conn(conn: &mut PgConnection) -> Result<(), MigrationError> {
    let status = status_on_conn(conn)?;
    check_known(&status)?;
    let pending = names(&status, |migration| !migration.applied);
    if !pending.is_empty() {
        return Err(MigrationError::Older(pending));
    }
    Ok(())
}

fn check_known(status: &[MigrationStatus]) -> Result<(), MigrationError> {
    let unknown = names(status, |migration| !migration.known && !migration.additive);
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(MigrationError::Unknown(unknown))
    }
}

/// Runs `work` in one transaction, while nobody else migrates this database.
fn alone<T>(
    url: &str,
    work: impl FnOnce(&mut PgConnection) -> Result<T, MigrationError>,
) -> Result<T, MigrationError> {
    connect(url)?
        .transaction(|conn| {
            sql_query("SELECT pg_advisory_xact_lock(hashtext('callq migrations'))")
                .execute(conn)?;
            work(conn).map_err(Rollback::Work)
        })
        .map_err(|rollback| match rollback {
            Rollback::Work(error) => error,
            Rollback::Diesel(error) => failed(error),
        })
}

/// What ends a transaction: an answer of ours, or Diesel's.
enum Rollback {
    Work(MigrationError),
    Diesel(diesel::result::Error),
}

impl From<diesel::result::Error> for Rollback {
    fn from(error: diesel::result::Error) -> Self {
        Self::Diesel(error)
    }
}

fn failed(error: impl std::fmt::Display) -> MigrationError {
    MigrationError::Failed(error.to_string())
}

fn names(status: &[MigrationStatus], pick: impl Fn(&MigrationStatus) -> bool) -> Vec<String> {
    let picked = status.iter().filter(|migration| pick(migration));
    picked.map(|migration| migration.name.clone()).collect()
}

fn status_on_conn(conn: &mut PgConnection) -> Result<Vec<MigrationStatus>, MigrationError> {
    let mut applied = applied_versions(conn).map_err(failed)?;
    let additive = additive_versions(conn).map_err(failed)?;
    let embedded: Vec<Box<dyn Migration<Pg>>> = MIGRATIONS.migrations().map_err(failed)?;
    let mut all: Vec<(String, MigrationStatus)> = embedded
        .iter()
        .map(|migration| {
            let version = migration.name().version().to_string();
            let before = applied.len();
            applied.retain(|other| *other != version);
            let status = MigrationStatus {
                name: migration.name().to_string(),
                applied: applied.len() < before,
                known: true,
                additive: additive.contains(&version),
            };
            (version, status)
        })
        .collect();
    all.extend(applied.into_iter().map(|version| {
        let status = MigrationStatus {
            name: version.clone(),
            applied: true,
            known: false,
            additive: additive.contains(&version),
        };
        (version, status)
    }));
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all.into_iter().map(|(_, status)| status).collect())
}

/// Read without making Diesel's table, so that asking changes nothing.
fn applied_versions(conn: &mut PgConnection) -> QueryResult<Vec<String>> {
    versions_in(conn, "__diesel_schema_migrations")
}

fn additive_versions(conn: &mut PgConnection) -> QueryResult<Vec<String>> {
    versions_in(conn, "additive_migrations")
}

/// The versions in a table, none if there is no such table.
fn versions_in(conn: &mut PgConnection, table: &'static str) -> QueryResult<Vec<String>> {
    #[derive(QueryableByName)]
    struct TableRow {
        #[diesel(sql_type = Bool)]
        exists: bool,
    }
    #[derive(QueryableByName)]
    struct VersionRow {
        #[diesel(sql_type = Text)]
        version: String,
    }
    let found: TableRow = sql_query("SELECT to_regclass($1) IS NOT NULL AS exists")
        .bind::<Text, _>(table)
        .get_result(conn)?;
    if !found.exists {
        return Ok(Vec::new());
    }
    let rows: Vec<VersionRow> =
        sql_query(format!("SELECT version::text AS version FROM {table}")).load(conn)?;
    Ok(rows.into_iter().map(|row| row.version).collect())
}
