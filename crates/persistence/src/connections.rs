//! How a connection is made and thrown away: its time-outs, its set-up, and the rehearsal of the
//! engine's.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use callq_domain::StoreError;
use diesel::connection::CacheSize;
use diesel::r2d2::{
    ConnectionManager, CustomizeConnection, Error as PoolError, HandleError, PooledConnection,
};
use diesel::{Connection, PgConnection};

use crate::failure::one_line;

/// A connection of a pool.
pub(crate) type Pooled = PooledConnection<ConnectionManager<PgConnection>>;

/// Has the query builder's statements sent unnamed, like those written as SQL: a named one lives on
/// one server connection, and PgBouncer in transaction mode hands out another each time.
#[derive(Debug)]
pub(crate) struct UnnamedStatements;

impl CustomizeConnection<PgConnection, PoolError> for UnnamedStatements {
    fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), PoolError> {
        without_names(connection);
        Ok(())
    }
}

fn without_names(connection: &mut PgConnection) {
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
}

/// Rehearses on each new connection.
#[derive(Debug)]
pub(crate) struct Rehearsed;

impl CustomizeConnection<PgConnection, PoolError> for Rehearsed {
    fn on_acquire(&self, conn: &mut PgConnection) -> Result<(), PoolError> {
        UnnamedStatements.on_acquire(conn)?;
        if let Err(cause) = crate::rehearsal::rehearse(conn) {
            // Only the first batches are slower for it.
            log::debug!("no rehearsal on a new connection: {cause}");
        }
        Ok(())
    }
}

/// Says that no connection can be made, once a second at most: every place of a pool tries for itself,
/// for as long as the database is away.
#[derive(Debug, Default)]
pub(crate) struct SaysOnce(Mutex<Option<Instant>>);

impl HandleError<PoolError> for SaysOnce {
    fn handle_error(&self, error: PoolError) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            *said = Some(Instant::now());
            let cause = one_line(&error.to_string());
            log::warn!("no connection to the database: {cause}");
        }
    }
}

/// Takes a connection that can no longer be trusted out of the pool: r2d2 drops what it finds
/// broken, and a transaction manager told of a broken transaction says so.
pub(crate) fn discard(mut connection: Pooled) {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    let status = <AnsiTransactionManager as TransactionManager<PgConnection>>::transaction_manager_status_mut(
        &mut *connection,
    );
    status.set_in_error();
}

/// Bounds the time to connect and the time a silent network is believed in, unless the URL does.
pub(crate) fn with_time_outs(url: &str) -> String {
    let mut url = url.to_owned();
    let is_uri = url.starts_with("postgres://") || url.starts_with("postgresql://");
    for (name, value) in [
        ("connect_timeout", "5"),
        ("tcp_user_timeout", "15000"),
        // A host that dies after it has acknowledged a query says nothing more.
        ("keepalives_idle", "5"),
        ("keepalives_interval", "3"),
        ("keepalives_count", "3"),
    ] {
        if !url.contains(name) {
            let separator = match (is_uri, url.contains('?')) {
                (true, true) => "&",
                (true, false) => "?",
                (false, _) => " ",
            };
            url.push_str(&format!("{separator}{name}={value}"));
        }
    }
    url
}

/// A connection outside any pool, for migrations.
///
/// # Errors
/// [`StoreError::Unavailable`] if the database cannot be reached.
pub fn connect(url: &str) -> Result<PgConnection, StoreError> {
    let mut connection = PgConnection::establish(&with_time_outs(url))
        .map_err(|error| StoreError::Unavailable(one_line(&error.to_string())))?;
    without_names(&mut connection);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_added_only_where_the_url_has_none() {
        let keep =
            |sign| format!("keepalives_idle=5{sign}keepalives_interval=3{sign}keepalives_count=3");
        assert_eq!(
            with_time_outs("postgresql:///callq?host=%2Ftmp"),
            format!(
                "postgresql:///callq?host=%2Ftmp&connect_timeout=5&tcp_user_timeout=15000&{}",
                keep('&')
            )
        );
        assert_eq!(
            with_time_outs("postgres://h/db?connect_timeout=2"),
            format!(
                "postgres://h/db?connect_timeout=2&tcp_user_timeout=15000&{}",
                keep('&')
            )
        );
        assert_eq!(
            with_time_outs("host=/tmp dbname=callq"),
            format!(
                "host=/tmp dbname=callq connect_timeout=5 tcp_user_timeout=15000 {}",
                keep(' ')
            )
        );
        assert!(with_time_outs("postgres://h/db").starts_with("postgres://h/db?connect_timeout"));
    }
}
