//! Gathering requests into batches, and sending a batch again while the store is away.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use callq_domain::StoreError;
use tokio::sync::mpsc;

/// Takes everything that waits in `queue` already, up to `most` in all, without waiting for more.
pub(crate) fn gather<T>(queue: &mut mpsc::Receiver<T>, into: &mut Vec<T>, most: usize) {
    while into.len() < most {
        match queue.try_recv() {
            Ok(request) => into.push(request),
            Err(_) => return,
        }
    }
}

/// Runs `attempt` again while the store says it is unavailable, for about as long as `patience`.
///
/// Batches may be sent again as they are: the store recognises what it has settled before.
/// `attempt` is told whether it is a repeat.
pub(crate) async fn settle_patiently<T, F>(
    patience: Duration,
    what: &'static str,
    mut attempt: impl FnMut(bool) -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let deadline = tokio::time::Instant::now() + patience;
    let mut pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(500))
        .with_jitter()
        .without_max_times()
        .build();
    let mut resent = false;
    loop {
        match attempt(std::mem::replace(&mut resent, true)).await {
            Err(StoreError::Unavailable(cause)) => {
                let pause = pauses.next().unwrap_or(Duration::from_millis(500));
                if tokio::time::Instant::now() + pause >= deadline {
                    log::error!("{what} given up, the database is unavailable: {cause}");
                    return Err(StoreError::Unavailable(cause));
                }
                log::warn!("{what} tried again, the database is unavailable: {cause}");
                tokio::time::sleep(pause).await;
            }
            settled => return settled,
        }
    }
}
