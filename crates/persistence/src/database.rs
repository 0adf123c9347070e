//! The one door to PostgreSQL: a pooled connection and the transaction on it run together on a
//! blocking thread, never on an actix worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use callq_domain::StoreError;
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::connections::{Pooled, Rehearsed, SaysOnce, UnnamedStatements, discard, with_time_outs};
use crate::failure::{Failure, one_line, unavailable};

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    pool: Pool<ConnectionManager<PgConnection>>,
    /// One for each connection: who has none yet waits here rather than on a thread. Whatever is asked
    /// while the database is away, there are no more threads than connections.
    places: Arc<Semaphore>,
    bound: Duration,
    check_out: Duration,
    failures: Arc<AtomicU64>,
}

/// Opens a transaction whose statements and pauses are bounded. One round trip, and `SET LOCAL`
/// rather than a session setting, so that it holds through PgBouncer in transaction mode too.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

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
    const BOUND: Duration = Duration::from_secs(8);

    /// The same for what every request waits for.
    pub(crate) const BRIEF: Duration = Duration::from_secs(3);

    /// The same for what a load balancer asks. On a slow network a connection takes seconds to make.
    const SOON: Duration = Duration::from_secs(5);

    /// The same for the engine, whose callers wait for a batch before theirs as well.
    const ENGINE_CHECK_OUT_TIMEOUT: Duration = Duration::from_secs(3);
    const ENGINE_BOUND: Duration = Duration::from_secs(4);

    /// How long a long read or write may take once its transaction has begun.
    const LONG_BOUND: Duration = Duration::from_secs(130);

    /// A pool of at most `size` connections. Connects lazily: an unreachable database shows at the
    /// first use, not here.
    ///
    /// # Errors
    /// [`StoreError::Internal`] if `size` is 0.
    pub fn new(url: &str, size: u32) -> Result<Self, StoreError> {
        Self::build(
            url,
            size,
            Pool::builder()
                .min_idle(Some(0))
                .connection_timeout(Self::CHECK_OUT_TIMEOUT)
                .connection_customizer(Box::new(UnnamedStatements)),
            Self::BOUND,
        )
    }

    /// As [`Database::new`], for the engine: each new connection first rehearses a call's life, so
    /// that the first real one does not wait for PostgreSQL to plan the engine's functions. All
    /// `size` connections are made at once, in the background.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn for_engine(url: &str, size: u32) -> Result<Self, StoreError> {
        Self::build(
            url,
            size,
            Pool::builder()
                .connection_timeout(Self::ENGINE_CHECK_OUT_TIMEOUT)
                .connection_customizer(Box::new(Rehearsed)),
            Self::ENGINE_BOUND,
        )
    }

    fn build(
        url: &str,
        size: u32,
        builder: r2d2::Builder<ConnectionManager<PgConnection>>,
        bound: Duration,
    ) -> Result<Self, StoreError> {
        if size == 0 {
            return Err(StoreError::Internal(
                "the pool needs at least one connection".into(),
            ));
        }
        let pool = builder
            .max_size(size)
            // A broken connection is noticed by BEGIN, which costs nothing extra.
            .test_on_check_out(false)
            .error_handler(Box::new(SaysOnce::default()))
            .build_unchecked(ConnectionManager::new(with_time_outs(url)));
        Ok(Self {
            check_out: pool.connection_timeout(),
            pool,
            places: Arc::new(Semaphore::new(size as usize)),
            bound,
            failures: Arc::default(),
        })
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
        self.run_with(BEGIN, self.bound, work).await
    }

    /// As [`Database::run`], for what must be known soon or not at all.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_soon<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_with(BEGIN, Self::SOON, work).await
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
        self.bounded(self.bound, move |patience| {
            let mut connection = database.checked_out(patience)?;
            // Its caller may have been told that there is no answer, and have sent it again.
            patience.lasts()?;
            let worked = work(&mut connection);
            if matches!(worked, Err(Failure(StoreError::Unavailable(_)))) {
                discard(connection);
            }
            worked.map_err(|failure| failure.0)
        })
        .await
    }

    /// Runs `work`, a read that is one statement and is wanted soon or not at all, outside any
    /// transaction of ours. On connections that broke while idle it is tried again on the next.
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
        self.bounded(Self::BRIEF, move |patience| {
            let mut tries = database.pool.max_size();
            loop {
                let mut connection = database.checked_out(patience)?;
                match work(&mut connection) {
                    Err(Failure(StoreError::Unavailable(cause))) => {
                        discard(connection);
                        if tries == 0 || patience.lasts().is_err() {
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

    /// As [`Database::run`], with two minutes once it has begun.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_long_write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_long(BEGIN_LONG_WRITE, work).await
    }

    /// As [`Database::run`], read-only, in one snapshot, with two minutes once it has begun.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_long_read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_long(BEGIN_LONG_READ, work).await
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
        self.bounded(bound, move |patience| {
            database.run_blocking(begin, patience, work)
        })
        .await
    }

    /// Long work is waited for once it is under way; a database that lets nothing begin is not.
    async fn run_long<T, F>(&self, begin: &'static str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let (tell, begun) = oneshot::channel();
        let working = self.run_with(begin, Self::LONG_BOUND, move |conn| {
            // Nobody may wait for it any more; that is found out before the commit.
            let _ = tell.send(());
            work(conn)
        });
        tokio::pin!(working);
        tokio::select! {
            done = &mut working => return done,
            begun = timeout(self.bound, begun) => if begun.is_err() {
                return Err(self.no_answer(self.bound));
            }
        }
        working.await
    }

    /// Runs `work` on a blocking thread once a connection is free, and waits no longer than `bound`
    /// for it. The server ends long statements itself; this is for a connection on which nothing comes
    /// back at all. The thread then waits on; only a commit already under way may still happen.
    async fn bounded<T: Send + 'static>(
        &self,
        bound: Duration,
        work: impl FnOnce(&Patience) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let patience = Patience {
            end: Instant::now() + bound,
            is_over: Arc::default(),
        };
        // Set however this ends, by its caller going away too.
        let _over = Over(Arc::clone(&patience.is_over));
        let working = async {
            let place = timeout(self.check_out, Arc::clone(&self.places).acquire_owned()).await;
            let Ok(Ok(place)) = place else {
                return Err(StoreError::Unavailable("no connection became free".into()));
            };
            let thread = tokio::task::spawn_blocking(move || {
                let _place = place;
                patience.lasts()?;
                work(&patience)
            });
            let done = thread.await;
            done.unwrap_or_else(|panic| Err(StoreError::Internal(panic.to_string())))
        };
        match timeout(bound, working).await {
            Ok(done) => done.inspect_err(|error| self.note(error)),
            Err(_) => Err(self.no_answer(bound)),
        }
    }

    fn no_answer(&self, bound: Duration) -> StoreError {
        let error = StoreError::Unavailable(format!("no answer within {} s", bound.as_secs()));
        self.note(&error);
        error
    }

    fn note(&self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_)) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does nothing, and commits nothing, that its caller has given up on: it was told that there is
    /// no answer. A `COMMIT` that was sent before may still succeed.
    fn run_blocking<T, F>(&self, begin: &str, patience: &Patience, work: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut PgConnection) -> Result<T, Failure>,
    {
        let mut connection = self.begun(begin, patience)?;
        let worked = patience
            .lasts()
            .map_err(Failure::from)
            .and_then(|()| work(&mut connection))
            .and_then(|value| Ok(patience.lasts().map(|()| value)?));
        match worked {
            Ok(value) => {
                connection
                    .batch_execute("COMMIT")
                    .map_err(|error| unavailable(&error))?;
                Ok(value)
            }
            Err(failure) => {
                if connection.batch_execute("ROLLBACK").is_err() {
                    discard(connection);
                }
                Err(failure.0)
            }
        }
    }

    /// A connection with a transaction begun. Connections that broke while idle are passed over:
    /// nothing was sent on them yet.
    fn begun(&self, begin: &str, patience: &Patience) -> Result<Pooled, StoreError> {
        for _ in 0..=self.pool.max_size() {
            let mut connection = self.checked_out(patience)?;
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

    fn checked_out(&self, patience: &Patience) -> Result<Pooled, StoreError> {
        patience.lasts()?;
        self.pool
            .get_timeout(patience.left().min(self.check_out))
            .map_err(|error| StoreError::Unavailable(one_line(&error.to_string())))
    }

    /// How often the database could not be reached or did not do what it was asked in time, so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Connections now open, and those of them not in use.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }
}

/// How long somebody still waits for what is being done.
struct Patience {
    end: Instant,
    is_over: Arc<AtomicBool>,
}

impl Patience {
    fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// # Errors
    /// [`StoreError::Unavailable`] if nobody waits any more.
    fn lasts(&self) -> Result<(), StoreError> {
        if self.left().is_zero() || self.is_over.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable(
                "given up before it was done".into(),
            ));
        }
        Ok(())
    }
}

/// Says that nobody waits any more when it is dropped.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
