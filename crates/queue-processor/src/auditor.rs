//! The auditor: recounts every kept counter from its rows, again and again, says what differs and
//! repairs nothing. A counter that is wrong is a defect, and what hides it makes it worse.

use std::future::Future;
use std::time::{Duration, Instant};

use callq_domain::{AuditDifference, StoreError};
use log::{debug, error, warn};
use tokio::task::JoinHandle;

use crate::processor::watched;

/// What one recount found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Each kept counter that differs from its rows; none is the only good answer.
    pub differences: Vec<AuditDifference>,
    /// How long the recount took.
    pub took: Duration,
}

/// Differences that are logged one by one; of more, only the number is.
const LOGGED: usize = 20;

/// Starts an auditor in the present tokio runtime: `recount` is run every `pause`, each difference
/// is logged as an error, and `tell` is given what was found, for a metric. It runs until the handle
/// is aborted. A recount that fails is tried again at the next turn.
pub fn spawn_auditor<R, F, T>(pause: Duration, recount: R, tell: T) -> JoinHandle<()>
where
    R: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Vec<AuditDifference>, StoreError>> + Send + 'static,
    T: Fn(&AuditReport) + Clone + Send + Sync + 'static,
{
    watched("auditor", move || {
        audit(pause, recount.clone(), tell.clone())
    })
}

async fn audit<R, F, T>(pause: Duration, recount: R, tell: T)
where
    R: Fn() -> F,
    F: Future<Output = Result<Vec<AuditDifference>, StoreError>>,
    T: Fn(&AuditReport),
{
    loop {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        match recount().await {
            Ok(differences) => {
                let report = AuditReport {
                    differences,
                    took: begun.elapsed(),
                };
                log_report(&report);
                tell(&report);
            }
            Err(cause) => warn!("the counters could not be audited: {cause}"),
        }
    }
}

fn log_report(report: &AuditReport) {
    let found = report.differences.len();
    for one in report.differences.iter().take(LOGGED) {
        error!(
            counter = one.counter.as_str(), subject = one.subject.as_str(), kept = one.kept, counted = one.counted;
            "a counter differs from its rows"
        );
    }
    if found > LOGGED {
        error!(differences = found; "more counters differ from their rows");
    }
    debug!(differences = found, took_ms = report.took.as_millis() as u64; "counters audited");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    fn difference() -> AuditDifference {
        AuditDifference {
            counter: "system_state.active".into(),
            subject: String::new(),
            kept: 3,
            counted: 2,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_recount_is_told_and_one_that_fails_does_not_end_them() {
        let answers = Arc::new(Mutex::new(vec![
            Ok(vec![difference()]),
            Err(StoreError::Unavailable("gone".into())),
            Ok(Vec::new()),
        ]));
        let told = Arc::new(Mutex::new(Vec::new()));
        let (next, into) = (answers.clone(), told.clone());

        let auditor = spawn_auditor(
            Duration::from_secs(60),
            move || {
                let answer = next.lock().expect("no panic while held").pop();
                async move { answer.unwrap_or(Ok(Vec::new())) }
            },
            move |report| {
                let found = report.differences.clone();
                into.lock().expect("no panic while held").push(found);
            },
        );
        tokio::time::sleep(Duration::from_secs(185)).await;
        auditor.abort();

        let told = told.lock().expect("no panic while held").clone();
        assert_eq!(told, [Vec::new(), vec![difference()]]);
    }
}
