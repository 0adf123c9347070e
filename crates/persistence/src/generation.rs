//! The connections that a pool makes together, and how it is noticed that one of them says nothing
//! any more while its far end neither answers nor ends: the others may be as dead, and those that are
//! waited on fill the pool for as long as the kernel believes in them. So all are left to themselves,
//! and others are made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use callq_domain::StoreError;
use diesel::PgConnection;
use diesel::connection::SimpleConnection;
use diesel::r2d2::{ConnectionManager, Pool};
use tokio::sync::Semaphore;

use crate::connections::{Pooled, Rehearsed, SaysOnce, UnnamedStatements, discard, with_defaults};
use crate::failure::one_line;
use crate::patience::Patience;

/// How long work goes on unanswered after it was given up, which is after three seconds at least,
/// before its connection counts as lost. What a living server does to long statements is over by then.
const LEFT_ALONE: Duration = Duration::from_secs(6);

/// Between two attempts to make a connection: what a failed-over database waits for us at most.
const CONNECT_AGAIN: Duration = Duration::from_millis(200);

/// How connections are made.
pub(crate) struct Recipe {
    pub(crate) url: String,
    pub(crate) size: u32,
    pub(crate) check_out: Duration,
    pub(crate) rehearsed: bool,
    /// Threads whose work was given up and goes on, of all generations.
    pub(crate) stuck: AtomicU32,
}

/// Connections made together.
pub(crate) struct Generation {
    pool: Pool<ConnectionManager<PgConnection>>,
    /// One for each connection: who has none yet waits here rather than on a thread. Whatever is asked
    /// while the database is away, there are no more threads than connections.
    pub(crate) places: Arc<Semaphore>,
    recipe: Arc<Recipe>,
    /// Work that was given up and goes on, and since when.
    stuck: Mutex<BTreeMap<u64, Instant>>,
}

impl Generation {
    pub(crate) fn of(recipe: &Arc<Recipe>) -> Self {
        let builder = Pool::builder();
        let builder = if recipe.rehearsed {
            builder.connection_customizer(Box::new(Rehearsed))
        } else {
            builder
                .min_idle(Some(0))
                .connection_customizer(Box::new(UnnamedStatements))
        };
        let pool = builder
            .max_size(recipe.size)
            // Half of it is the longest pause between two attempts to connect. Check-outs have
            // their own time-out.
            .connection_timeout(2 * CONNECT_AGAIN)
            // A broken connection is noticed by BEGIN, which costs nothing extra.
            .test_on_check_out(false)
            .error_handler(Box::new(SaysOnce::default()))
            .build_unchecked(ConnectionManager::new(with_defaults(&recipe.url)));
        Self {
            pool,
            places: Arc::new(Semaphore::new(recipe.size as usize)),
            recipe: Arc::clone(recipe),
            stuck: Mutex::default(),
        }
    }

    pub(crate) fn size(&self) -> u32 {
        self.recipe.size
    }

    /// Connections now open, and those of them not in use.
    pub(crate) fn connections(&self) -> (u32, u32) {
        let state = self.pool.state();
        (state.connections, state.idle_connections)
    }

    /// Whether a connection has been lost, and so few before that others may be made: there are never
    /// more than three times the pool's size.
    pub(crate) fn is_lost(&self) -> bool {
        let stuck = self.lock_stuck();
        stuck.values().any(|since| since.elapsed() >= LEFT_ALONE)
            && self.recipe.stuck.load(Ordering::Acquire) <= 2 * self.recipe.size
    }

    fn lock_stuck(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn checked_out(&self, patience: &Patience) -> Result<Pooled, StoreError> {
        patience.lasts()?;
        self.pool
            .get_timeout(patience.left().min(self.recipe.check_out))
            .map_err(|error| StoreError::Unavailable(one_line(&error.to_string())))
    }

    /// A connection with a transaction begun. Connections that broke while idle are passed over:
    /// nothing was sent on them yet.
    pub(crate) fn begun(&self, begin: &str, patience: &Patience) -> Result<Pooled, StoreError> {
        for _ in 0..=self.recipe.size {
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
}

/// Work on a thread, as seen by whoever waits for it.
pub(crate) struct Course {
    generation: Arc<Generation>,
    number: u64,
    state: AtomicU8,
}

const AHEAD: u8 = 0;
const GOING_ON: u8 = 1;
const OVER: u8 = 2;
const STUCK: u8 = 3;

impl Course {
    pub(crate) fn on(generation: &Arc<Generation>) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Arc::new(Self {
            generation: Arc::clone(generation),
            number: LAST.fetch_add(1, Ordering::Relaxed),
            state: AtomicU8::new(AHEAD),
        })
    }

    /// The work begins; it is over when this is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Begun {
        self.state.store(GOING_ON, Ordering::Release);
        Begun(Arc::clone(self))
    }

    /// Whoever waits for it waits until `due` at most, and is told by dropping this.
    pub(crate) fn waited_for(self: &Arc<Self>, due: Instant) -> Waiting {
        Waiting {
            course: Arc::clone(self),
            due,
        }
    }
}

/// Somebody who waits for work, for so long or until they go away.
pub(crate) struct Waiting {
    course: Arc<Course>,
    due: Instant,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let (course, generation) = (&self.course, &self.course.generation);
        // Held over both, so that the end of the work comes before or after.
        let mut stuck = generation.lock_stuck();
        let goes_on =
            course
                .state
                .compare_exchange(GOING_ON, STUCK, Ordering::AcqRel, Ordering::Acquire);
        if goes_on.is_ok() {
            generation.recipe.stuck.fetch_add(1, Ordering::AcqRel);
            stuck.insert(course.number, self.due.max(Instant::now()));
        }
    }
}

/// Work that has begun.
pub(crate) struct Begun(Arc<Course>);

impl Drop for Begun {
    fn drop(&mut self) {
        let generation = &self.0.generation;
        let mut stuck = generation.lock_stuck();
        if self.0.state.swap(OVER, Ordering::AcqRel) == STUCK {
            stuck.remove(&self.0.number);
            generation.recipe.stuck.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
