//! Gathering requests into batches, and sending a batch again while the store is away.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use callq_domain::StoreError;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::EngineOptions;

/// Takes everything that waits in `queue` already, up to `most` in all, without waiting for more.
pub(crate) fn gather<T>(queue: &mut mpsc::Receiver<T>, into: &mut Vec<T>, most: usize) {
    while into.len() < most {
        match queue.try_recv() {
            Ok(request) => into.push(request),
            Err(_) => return,
        }
    }
}

/// Runs `attempt` again while the store says it is unavailable, for about as long as the options'
/// patience, and cuts it off when the batch has taken the longest that it may.
///
/// Batches may be sent again as they are: the store recognises what it has settled before.
/// `attempt` is told whether it is a repeat. One that panics is a defect like any other: it must not
/// end the loop that runs it.
pub(crate) async fn settle_patiently<T, F>(
    options: &EngineOptions,
    what: &'static str,
    mut attempt: impl FnMut(bool) -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = Instant::now();
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .with_jitter()
        .without_max_times()
        .build();
    let mut resent = false;
    loop {
        let once = async { attempt(std::mem::replace(&mut resent, true)).await };
        let once = AssertUnwindSafe(once).catch_unwind();
        let cause = match timeout_at(begun + options.longest_batch, once).await {
            Ok(Ok(Err(StoreError::Unavailable(cause)))) => cause,
            Ok(Ok(settled)) => return settled,
            Ok(Err(_)) => return Err(StoreError::Internal(format!("{what} panicked"))),
            Err(_) => {
                let seconds = options.longest_batch.as_secs_f64();
                let cause = format!("no answer within {seconds} s");
                log::error!("{what} given up, the database is unavailable: {cause}");
                return Err(StoreError::Unavailable(cause));
            }
        };
        let pause = pauses.next().unwrap_or(Duration::from_millis(500));
        if begun.elapsed() + pause >= options.patience {
            log::error!("{what} given up, the database is unavailable: {cause}");
            return Err(StoreError::Unavailable(cause));
        }
        log::warn!("{what} tried again, the database is unavailable: {cause}");
        tokio::time::sleep(pause).await;
    }
}

/// Told to those whose turn did not come before a broken batch had been taken apart for too long.
pub(crate) fn too_long() -> StoreError {
    StoreError::Unavailable("the requests before it took too long".into())
}
