//! The one door to PostgreSQL: a pooled connection and the transaction on it run together on a
//! blocking thread, never on an actix worker.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use callq_domain::StoreError;
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::connections::discard;
use crate::failure::{Failure, unavailable};
use crate::generation::{Course, Generation, Recipe};
use crate::patience::Patience;

/// A pool of connections to one database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    recipe: Arc<Recipe>,
    generation: Arc<Mutex<Arc<Generation>>>,
    bound: Duration,
    failures: Arc<AtomicU64>,
}

/// Opens a transaction whose statements and pauses are bounded. One round trip, and `SET LOCAL`
/// rather than a session setting, so that it holds through PgBouncer in transaction mode too. Such
/// transactions may hold the engine's lock, and between two statements of one lie microseconds: a
/// server that is put to sleep in between must not stop all others for long.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";

/// As [`BEGIN`], for work that writes many rows and holds no lock others wait for.
const BEGIN_LONG_WRITE: &str = "BEGIN; SET LOCAL statement_timeout = '60s'; \
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// The bounds of [`BEGIN`] for the rest of a [`BEGIN_LONG_WRITE`], before it takes a lock that others
/// wait for after all.
pub(crate) const BRIEF_FROM_HERE: &str = "SET LOCAL statement_timeout = '6s'; \
    SET LOCAL idle_in_transaction_session_timeout = '2s'";
/// As [`BEGIN_LONG_WRITE`], for work that reads a file meanwhile and may sort all of it at once.
const BEGIN_IMPORT: &str = "BEGIN; SET LOCAL statement_timeout = '120s'; \
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

    /// The same for an import.
    const IMPORT_BOUND: Duration = Duration::from_secs(900);

    /// A pool of at most `size` connections. Connects lazily: an unreachable database shows at the
    /// first use, not here.
    ///
    /// # Errors
    /// [`StoreError::Internal`] if `size` is 0.
    pub fn new(url: &str, size: u32) -> Result<Self, StoreError> {
        Self::build(url, size, Self::CHECK_OUT_TIMEOUT, Self::BOUND, false)
    }

    /// As [`Database::new`], for the engine: each new connection first rehearses a call's life, so
    /// that the first real one does not wait for PostgreSQL to plan the engine's functions. All
    /// `size` connections are made at once, in the background.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn for_engine(url: &str, size: u32) -> Result<Self, StoreError> {
        let (check_out, bound) = (Self::ENGINE_CHECK_OUT_TIMEOUT, Self::ENGINE_BOUND);
        Self::build(url, size, check_out, bound, true)
    }

    fn build(
        url: &str,
        size: u32,
        check_out: Duration,
        bound: Duration,
        rehearsed: bool,
    ) -> Result<Self, StoreError> {
        if size == 0 {
            return Err(StoreError::Internal(
                "the pool needs at least one connection".into(),
            ));
        }
        let recipe = Arc::new(Recipe {
            url: url.to_owned(),
            size,
            check_out,
            rehearsed,
            stuck: AtomicU32::new(0),
        });
        Ok(Self {
            generation: Arc::new(Mutex::new(Arc::new(Generation::of(&recipe)))),
            recipe,
            bound,
            failures: Arc::default(),
        })
    }

    /// The connections there are, or new ones if all of those are lost.
    fn generation(&self) -> Arc<Generation> {
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if generation.is_lost() {
            log::error!(
                "a connection to the database says nothing any more: all {} are made anew",
                self.recipe.size
            );
            *generation = Arc::new(Generation::of(&self.recipe));
        }
        Arc::clone(&generation)
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
        self.bounded(self.bound, move |generation, patience| {
            let mut connection = generation.checked_out(patience)?;
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
        self.bounded(Self::BRIEF, move |generation, patience| {
            let mut tries = generation.size();
            loop {
                let mut connection = generation.checked_out(patience)?;
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
        self.run_long(BEGIN_LONG_WRITE, Self::LONG_BOUND, work)
            .await
    }

    /// As [`Database::run`], with a quarter of an hour once it has begun.
    ///
    /// # Errors
    /// As [`Database::run`].
    pub async fn run_import<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        self.run_long(BEGIN_IMPORT, Self::IMPORT_BOUND, work).await
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
        self.run_long(BEGIN_LONG_READ, Self::LONG_BOUND, work).await
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
        self.bounded(bound, move |generation, patience| {
            run_blocking(generation, begin, patience, work)
        })
        .await
    }

    /// Long work is waited for once it is under way; a database that lets nothing begin is not.
    async fn run_long<T, F>(
        &self,
        begin: &'static str,
        bound: Duration,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut PgConnection) -> Result<T, Failure> + Send + 'static,
    {
        let (tell, begun) = oneshot::channel();
        let working = self.run_with(begin, bound, move |conn| {
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
        work: impl FnOnce(&Generation, &Patience) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let generation = self.generation();
        let (patience, _over) = Patience::of(bound);
        let course = Course::on(&generation);
        let _waiting = course.waited_for(Instant::now() + bound);
        let working = async {
            let place = Arc::clone(&generation.places).acquire_owned();
            let Ok(Ok(place)) = timeout(self.recipe.check_out, place).await else {
                return Err(StoreError::Unavailable("no connection became free".into()));
            };
            let (course, generation) = (Arc::clone(&course), Arc::clone(&generation));
            let thread = tokio::task::spawn_blocking(move || {
                let _place = place;
                let _begun = course.begin();
                patience.lasts()?;
                work(&generation, &patience)
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

    /// How often the database could not be reached or did not do what it was asked in time, so far.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Connections now open, and those of them not in use.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        self.generation().connections()
    }
}

/// Does nothing, and commits nothing, that its caller has given up on: it was told that there is no
/// answer. A `COMMIT` that was sent before may still succeed.
fn run_blocking<T, F>(
    generation: &Generation,
    begin: &str,
    patience: &Patience,
    work: F,
) -> Result<T, StoreError>
where
    F: FnOnce(&mut PgConnection) -> Result<T, Failure>,
{
    let mut connection = generation.begun(begin, patience)?;
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
            // A node that no longer takes writes never will again: the next connection is to the one
            // that does.
            if failure.is_read_only() || connection.batch_execute("ROLLBACK").is_err() {
                discard(connection);
            }
            Err(failure.0)
        }
    }
}
