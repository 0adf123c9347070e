//! The one door to PostgreSQL: a pooled connection and the transaction on it run together on a
//! blocking thread, never on an actix worker.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use callq_domain::StoreError;
use diesel::connection::{CacheSize, SimpleConnection};
use diesel::r2d2::{
    ConnectionManager, CustomizeConnection, Error as PoolError, HandleError, Pool, PooledConnection,
};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{Connection, PgConnection};

type Connections = Pool<ConnectionManager<PgConnection>>;

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    current: Arc<RwLock<Current>>,
    url: String,
    size: u32,
    kind: Kind,
}

/// The pool in use, and how many there were before it.
struct Current {
    pool: Connections,
    generation: u64,
}

/// What connections are made for.
#[derive(Debug, Clone, Copy)]
enum Kind {
    General,
    Engine,
}

/// Opens a transaction whose statements and pauses are bounded. One round trip, and `SET LOCAL`
/// rather than a session setting, so that it holds through PgBouncer in transaction mode too. Such
/// transactions may hold the engine's lock, and between two statements of one lie microseconds: a
/// server that is put to sleep in between must not stop all others for long.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '8s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// As [`BEGIN`], for work that writes many rows and holds no lock others wait for.
const BEGIN_LONG_WRITE: &str = "BEGIN; SET LOCAL statement_timeout = '60s'; \
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// As [`BEGIN`], for work that reads many rows and holds no lock.
const BEGIN_LONG_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
    SET LOCAL statement_timeout = '120s'; SET LOCAL idle_in_transaction_session_timeout = '15s'";

impl Database {
    /// How long a caller waits for a connection before it is told that there is none.
    const CHECK_OUT_TIMEOUT: Duration = Duration::from_secs(5);

    /// How long a transaction may take, its connection's check-out included.
    const BOUND: Duration = Duration::from_secs(10);
    /// The same for long reads and writes.
    const LONG_BOUND: Duration = Duration::from_secs(130);

    /// A pool of at most `size` connections. Connects lazily: an unreachable database shows at the
    /// first use, not here.
    ///
    /// # Errors
    /// [`StoreError::Internal`] if `size` is 0.
    pub fn new(url: &str, size: u32) -> Result<Self, StoreError> {
        Self::build(url, size, Kind::General)
    }

    /// As [`Database::new`], for the engine: each new connection first rehearses a call's life, so
    /// that the first real one does not wait for PostgreSQL to plan the engine's functions. All
    /// `size` connections are made at once, in the background.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn for_engine(url: &str, size: u32) -> Result<Self, StoreError> {
        Self::build(url, size, Kind::Engine)
    }

    fn build(url: &str, size: u32, kind: Kind) -> Result<Self, StoreError> {
        if size == 0 {
            return Err(StoreError::Internal(
                "the pool needs at least one connection".into(),
            ));
        }
        let url = with_defaults(url);
        Ok(Self {
            current: Arc::new(RwLock::new(Current {
                pool: pool(&url, size, kind),
                generation: 0,
            })),
            url,
            size,
            kind,
        })
    }

    fn pool(&self) -> Connections {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.pool.clone()
    }

    fn generation(&self) -> u64 {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.generation
    }

    /// Leaves the pool of this generation behind, for a new one: nothing came back on one of its
    /// connections, so the others may be as dead, and those that are waited on fill its places for
    /// as long as the kernel believes in them.
    fn leave_behind(&self, generation: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation == generation {
            log::warn!("a connection to the database is silent: all are made anew");
            current.pool = pool(&self.url, self.size, self.kind);
            current.generation += 1;
        }
    }

    /// Runs `work` in a transaction of its own and commits it.
    ///
    /// # Errors
    /// What `work` answers, after a rollback; [`StoreError::Unavailable`] if the database cannot
    /// be reached or does not confirm the commit, which then may or may not have happened.
    pub async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_with(BEGIN, Self::BOUND, work).await
    }

    /// Runs `work`, one statement or a few that each commit by themselves, outside any transaction
    /// of ours.
    ///
    /// # Errors
    /// What `work` answers; [`StoreError::Unavailable`] if the database cannot be reached or does
    /// not answer, in which case any of it may have happened.
    pub async fn run_statement<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let database = self.clone();
        let deadline = Instant::now() + Self::BOUND;
        self.bounded(Self::BOUND, move || {
            let mut connection = database.checked_out()?;
            if Instant::now() >= deadline {
                // Its caller was told that there is no answer, and may have sent it again.
                return Err(StoreError::Unavailable(
                    "given up before it was sent".into(),
                ));
            }
            let worked = work(&mut connection);
            if matches!(worked, Err(Failure(StoreError::Unavailable(_)))) {
                discard(connection);
            }
            worked.map_err(|failure| failure.0)
        })
        .await
    }

    /// Runs `work`, a read that is one statement, outside any transaction of ours. On connections
    /// that broke while idle it is tried again on the next.
    ///
    /// # Errors
    /// What `work` answers; [`StoreError::Unavailable`] if the database cannot be reached or does
    /// not answer.
    pub async fn run_read_statement<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let database = self.clone();
        let deadline = Instant::now() + Self::BOUND;
        self.bounded(Self::BOUND, move || {
            let mut tries = database.size;
            loop {
                let mut connection = database.checked_out()?;
                match work(&mut connection) {
                    Err(Failure(StoreError::Unavailable(cause))) => {
                        discard(connection);
                        if tries == 0 || Instant::now() >= deadline {
                            return Err(StoreError::Unavailable(cause));
                        }
                        log::debug!("passing over a broken connection: {cause}");
                        tries -= 1;
                    }
                    worked => return worked.map_err(|failure| failure.0),
                }
            }
        })
        .await
    }

    /// As [`Database::run`], with two minutes rather than ten seconds.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_long_write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_with(BEGIN_LONG_WRITE, Self::LONG_BOUND, work)
            .await
    }

    /// As [`Database::run`], read-only, in one snapshot, with two minutes rather than ten
    /// seconds.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_long_read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_with(BEGIN_LONG_READ, Self::LONG_BOUND, work).await
    }

    async fn run_with<T, F>(
        &self,
        begin: &'static str,
        bound: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let database = self.clone();
        let deadline = Instant::now() + bound;
        self.bounded(bound, move || database.run_blocking(begin, deadline, work))
            .await
    }

    /// Runs `work` on a blocking thread, and waits no longer than `bound` for it. The server ends
    /// long statements itself; this is for a connection on which nothing comes back at all. The
    /// thread then waits on; only a commit already under way may still happen.
    async fn bounded<T: Send + 'static>(
        &self,
        bound: Duration,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let generation = self.generation();
        match tokio::time::timeout(bound, tokio::task::spawn_blocking(work)).await {
            Ok(done) => done.unwrap_or_else(|panic| Err(StoreError::Internal(panic.to_string()))),
            Err(_) => {
                self.leave_behind(generation);
                let seconds = bound.as_secs();
                Err(StoreError::Unavailable(format!(
                    "no answer within {seconds} s"
                )))
            }
        }
    }

    /// Does nothing, and commits nothing, that its caller has given up on: past `deadline` it was
    /// told that there is no answer. A `COMMIT` that was sent before may still succeed.
    fn run_blocking<T, F>(&self, begin: &str, deadline: Instant, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut PgConnection) -> Result<T, Failure>,
    {
        let mut connection = self.begun(begin)?;
        let in_time = || {
            if Instant::now() < deadline {
                return Ok(());
            }
            let late = StoreError::Unavailable("given up before it was done".into());
            Err(Failure::from(late))
        };
        let worked = in_time()
            .and_then(|()| work(&mut connection))
            .and_then(|value| in_time().map(|()| value));
        match worked {
            Ok(value) => {
                connection
                    .batch_execute("COMMIT")
                    .map_err(|error| unavailable(&error))?;
                Ok(value)
            }
            Err(failure) => {
                // A node that no longer takes writes never will again: the next connection is to
                // the one that does.
                if failure.is_read_only() || connection.batch_execute("ROLLBACK").is_err() {
                    discard(connection);
                }
                Err(failure.0)
            }
        }
    }

    /// A connection with a transaction begun. Connections that broke while idle are passed over:
    /// nothing was sent on them yet.
    fn begun(
        &self,
        begin: &str,
    ) -> Result<PooledConnection<ConnectionManager<PgConnection>>, StoreError> {
        for _ in 0..=self.size {
            let mut connection = self.checked_out()?;
            match connection.batch_execute(begin) {
                Ok(()) => return Ok(connection),
                Err(error) => {
                    log::debug!("passing over a broken connection: {error}");
                    discard(connection);
                }
            }
        }
        Err(StoreError::Unavailable("every connection is broken".into()))
    }

    fn checked_out(&self) -> Result<PooledConnection<ConnectionManager<PgConnection>>, StoreError> {
        self.pool()
            .get_timeout(Self::CHECK_OUT_TIMEOUT)
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// Connections now open, and those of them not in use.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let state = self.pool().state();
        (state.connections, state.idle_connections)
    }
}

/// Connections of which at most `size` are open at once.
fn pool(url: &str, size: u32, kind: Kind) -> Connections {
    let builder = match kind {
        Kind::General => Pool::builder()
            .min_idle(Some(0))
            .connection_customizer(Box::new(UnnamedStatements)),
        Kind::Engine => Pool::builder().connection_customizer(Box::new(Rehearsed)),
    };
    builder
        .max_size(size)
        // Half of it is the longest pause between two attempts to connect. Check-outs have their
        // own time-out.
        .connection_timeout(2 * CONNECT_AGAIN)
        .error_handler(Box::new(Murmur))
        // A broken connection is noticed by BEGIN, which costs nothing extra.
        .test_on_check_out(false)
        .build_unchecked(ConnectionManager::new(url))
}

/// Between two attempts to make a connection: what a failed-over database waits for us at most.
const CONNECT_AGAIN: Duration = Duration::from_millis(200);

/// Each failure to connect is told to whoever waits for the connection; a line for each attempt
/// besides would be hundreds a second while the database is away.
#[derive(Debug)]
struct Murmur;

impl HandleError<PoolError> for Murmur {
    fn handle_error(&self, error: PoolError) {
        log::debug!("no new connection: {error}");
    }
}

/// Has the query builder's statements sent unnamed, like those written as SQL: a named one lives on
/// one server connection, and PgBouncer in transaction mode hands out another each time.
#[derive(Debug)]
struct UnnamedStatements;

impl CustomizeConnection<PgConnection, PoolError> for UnnamedStatements {
    fn on_acquire(&self, connection: &mut PgConnection) -> Result<(), PoolError> {
        connection.set_prepared_statement_cache_size(CacheSize::Disabled);
        Ok(())
    }
}

/// Rehearses on each new connection.
#[derive(Debug)]
struct Rehearsed;

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

/// Takes a connection that can no longer be trusted out of the pool: r2d2 drops what it finds
/// broken, and a transaction manager told of a broken transaction says so.
fn discard(mut connection: PooledConnection<ConnectionManager<PgConnection>>) {
    use diesel::connection::{AnsiTransactionManager, TransactionManager};
    let status = <AnsiTransactionManager as TransactionManager<PgConnection>>::transaction_manager_status_mut(
        &mut *connection,
    );
    status.set_in_error();
}

/// Bounds the time to connect and the time a silent network is believed in, and asks for a node
/// that takes writes, unless the URL says otherwise.
fn with_defaults(url: &str) -> String {
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
        .map_err(|error| StoreError::Unavailable(error.to_string()))?;
    connection.set_prepared_statement_cache_size(CacheSize::Disabled);
    Ok(connection)
}

/// Why a transaction is rolled back.
#[derive(Debug)]
pub struct Failure(StoreError);

/// What PostgreSQL says of a write where there are none: on a standby, or on what became one.
const READ_ONLY: &str = "read-only transaction";

impl Failure {
    fn is_read_only(&self) -> bool {
        matches!(&self.0, StoreError::Unavailable(cause) if cause.contains(READ_ONLY))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        Self(classify(&error))
    }
}

/// Tells faults of the database, which pass, from defects of ours, which do not.
fn classify(error: &DieselError) -> StoreError {
    match error {
        DieselError::NotFound => StoreError::NotFound,
        DieselError::DatabaseError(kind, information) => match kind {
            DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::SerializationFailure
            | DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::UnableToSendCommand => unavailable(error),
            DatabaseErrorKind::Unknown if is_passing(information.message()) => unavailable(error),
            _ => StoreError::Internal(error.to_string()),
        },
        DieselError::BrokenTransactionManager => unavailable(error),
        _ => StoreError::Internal(error.to_string()),
    }
}

/// Diesel does not hand on the SQLSTATE, so faults are told by PostgreSQL's message texts.
fn is_passing(message: &str) -> bool {
    const SIGNS: [&str; 15] = [
        "terminating connection",
        "shutting down",
        "starting up",
        "recovery",
        "deadlock detected",
        "statement timeout",
        "lock timeout",
        "the lease of server",
        // Somebody changes a waiting call by hand.
        "the counters promise",
        "could not extend file",
        "No space left on device",
        "out of shared memory",
        "too many clients",
        "server closed the connection",
        "connection",
    ];
    SIGNS.iter().any(|sign| message.contains(sign))
}

fn unavailable(error: &DieselError) -> StoreError {
    StoreError::Unavailable(error.to_string())
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

    #[tokio::test]
    async fn a_silent_connection_keeps_nobody_else_waiting() {
        let scratch = callq_testing::TestDatabase::new();
        let database = Database::new(scratch.url(), 1).unwrap();
        let asleep = {
            let database = database.clone();
            move || {
                let mut connection = database.checked_out()?;
                connection
                    .batch_execute("SELECT pg_sleep(5)")
                    .map_err(|error| unavailable(&error))
            }
        };

        let silent = database.bounded(Duration::from_millis(200), asleep).await;
        assert!(
            matches!(silent, Err(StoreError::Unavailable(_))),
            "{silent:?}"
        );
        let began = Instant::now();
        database.run(|_| Ok(())).await.unwrap();

        // The only place of the pool before is taken still.
        assert!(began.elapsed() < Duration::from_secs(3));
        assert_eq!(database.generation(), 1);
    }

    #[test]
    fn a_write_that_a_standby_refuses_is_worth_another_try_on_another_connection() {
        let refused = DieselError::DatabaseError(
            DatabaseErrorKind::ReadOnlyTransaction,
            Box::new("cannot execute UPDATE in a read-only transaction".to_owned()),
        );
        assert!(Failure::from(refused).is_read_only());
        let other = StoreError::Unavailable("deadlock detected".into());
        assert!(!Failure::from(other).is_read_only());
    }
}
