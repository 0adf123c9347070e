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

/// Bounds the time to connect and the time a silent network is believed in, and asks for a node
/// that takes writes, unless the URL says otherwise.
pub(crate) fn with_defaults(url: &str) -> String {
    let mut url = url.to_owned();
    let is_uri = url.starts_with("postgres://") || url.starts_with("postgresql://");
    // A host that is gone is waited for once for each connection, before the next is tried.
    let connect_timeout = if url.contains(',') { "2" } else { "5" };
    for (name, value) in [
        ("connect_timeout", connect_timeout),
        ("tcp_user_timeout", "15000"),
        // A host that dies after it has acknowledged a query says nothing more.
        ("keepalives_idle", "5"),
        ("keepalives_interval", "3"),
        ("keepalives_count", "3"),
        ("target_session_attrs", "read-write"),
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
    let mut connection = PgConnection::establish(&with_defaults(url))
        .map_err(|error| StoreError::Unavailable(one_line(&error.to_string())))?;
    without_names(&mut connection);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_added_only_where_the_url_says_nothing() {
        let more = |sign| {
            format!(
                "keepalives_idle=5{sign}keepalives_interval=3{sign}keepalives_count=3{sign}target_session_attrs=read-write"
            )
        };
        assert_eq!(
            with_defaults("postgresql:///callq?host=%2Ftmp"),
            format!(
                "postgresql:///callq?host=%2Ftmp&connect_timeout=5&tcp_user_timeout=15000&{}",
                more('&')
            )
        );
        assert_eq!(
            with_defaults("postgres://h/db?connect_timeout=2"),
            format!(
                "postgres://h/db?connect_timeout=2&tcp_user_timeout=15000&{}",
                more('&')
            )
        );
        assert_eq!(
            with_defaults("host=/tmp dbname=callq"),
            format!(
                "host=/tmp dbname=callq connect_timeout=5 tcp_user_timeout=15000 {}",
                more(' ')
            )
        );
        assert!(with_defaults("postgres://h/db").starts_with("postgres://h/db?connect_timeout"));
        let any = with_defaults("postgres://h/db?target_session_attrs=any");
        assert!(!any.contains("read-write"), "{any}");
    }

    #[test]
    fn of_several_hosts_none_is_waited_for_as_long_as_a_single_one() {
        let url = with_defaults("postgres://a,b/db");
        assert!(url.contains("connect_timeout=2"), "{url}");
    }

    #[test]
    fn migrations_leave_no_named_statement_behind_for_the_next_client_of_a_pooler() {
        #[derive(diesel::QueryableByName)]
        struct CountRow {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            count: i64,
        }
        use diesel::prelude::*;
        let scratch = callq_testing::TestDatabase::new();
        let mut connection = connect(scratch.url()).unwrap();
        let users = crate::schema::users::table.count();

        users.get_result::<i64>(&mut connection).unwrap();

        let named: CountRow = diesel::sql_query("SELECT count(*) FROM pg_prepared_statements")
            .get_result(&mut connection)
            .unwrap();
        assert_eq!(named.count, 0);
    }
}
