//! What is judged after a run, from callq's own records: nothing lost, nothing leaked, counters
//! equal to rows, turns in order. The witness judges while it runs.

use anyhow::{Context, bail, ensure};
use callq_domain::{AuditDifference, OperatorStore};
use callq_persistence::{PostgresStore, connect};
use serde::Serialize;

use crate::cluster::BenchDatabase;
use crate::sql;
use crate::witness::{Counts, Witness};

/// Everything that must be zero, over all runs of a part.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Verdict {
    /// Calls that were watched.
    pub calls: u64,
    #[serde(flatten)]
    pub witnessed: Counts,
    pub over_user_limit_on_record: u64,
    pub over_system_limit_on_record: u64,
    pub inversions_on_record: u64,
    pub priority_violations: u64,
    pub lost_calls: u64,
    pub leaked_slots: u64,
    pub audit_differences: u64,
}

impl Verdict {
    fn faults(&self) -> [(&'static str, u64); 13] {
        let seen = &self.witnessed;
        [
            ("starts over a user's limit", seen.over_user_limit),
            ("starts over the system's limit", seen.over_system_limit),
            ("priority inversions seen", seen.inversions),
            ("double dials", seen.double_dials),
            ("calls nobody queued", seen.strangers),
            ("ends that came too late", seen.ends_ignored),
            (
                "starts over a user's limit on record",
                self.over_user_limit_on_record,
            ),
            (
                "starts over the system's limit on record",
                self.over_system_limit_on_record,
            ),
            ("priority inversions on record", self.inversions_on_record),
            ("rows of priority_violations", self.priority_violations),
            ("lost calls", self.lost_calls),
            ("leaked slots", self.leaked_slots),
            ("audit differences", self.audit_differences),
        ]
    }

    /// The sum of all that must be zero.
    pub(crate) fn total(&self) -> u64 {
        self.faults().iter().map(|(_, count)| count).sum()
    }

    /// # Errors
    /// Names everything that is not zero.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let faults: Vec<String> = self
            .faults()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        ensure!(faults.is_empty(), "not correct: {}", faults.join(", "));
        Ok(())
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        let (mine, theirs) = (&mut self.witnessed, &other.witnessed);
        mine.over_user_limit += theirs.over_user_limit;
        mine.over_system_limit += theirs.over_system_limit;
        mine.inversions += theirs.inversions;
        mine.double_dials += theirs.double_dials;
        mine.strangers += theirs.strangers;
        mine.ends_ignored += theirs.ends_ignored;
        self.over_user_limit_on_record += other.over_user_limit_on_record;
        self.over_system_limit_on_record += other.over_system_limit_on_record;
        self.inversions_on_record += other.inversions_on_record;
        self.priority_violations += other.priority_violations;
        self.lost_calls += other.lost_calls;
        self.leaked_slots += other.leaked_slots;
        self.audit_differences += other.audit_differences;
    }
}

/// Judges a database on which nothing runs any more and no call is up. So many calls were cancelled
/// before they went.
pub(crate) async fn judge(
    database: &BenchDatabase,
    store: &PostgresStore,
    witness: &Witness,
    cancelled: u64,
) -> anyhow::Result<Verdict> {
    let (progress, limits) = (witness.progress(), witness.limits());
    let url = database.url.clone();
    let (over_limits, violations, inversions, completed, over, waiting) =
        tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let mut conn = connect(&url)?;
            Ok((
                sql::starts_over_limits(&mut conn, limits.user, limits.system)?,
                sql::priority_violations(&mut conn)?,
                sql::inversions(&mut conn)?,
                sql::completed_calls(&mut conn)?,
                sql::items(&mut conn, true)?,
                sql::items(&mut conn, false)?,
            ))
        })
        .await??;
    // Each call that went is on record once, as completed, and so is its item; those that did not
    // go still wait, or were cancelled.
    let lost = [
        progress.placed.abs_diff(progress.ended),
        progress.placed.abs_diff(completed.unsigned_abs()),
        (progress.placed + cancelled).abs_diff(over.unsigned_abs()),
        witness
            .missing()
            .abs_diff(waiting.unsigned_abs() + cancelled),
    ];
    Ok(Verdict {
        calls: progress.placed,
        witnessed: witness.counts(),
        over_user_limit_on_record: over_limits.0.unsigned_abs(),
        over_system_limit_on_record: over_limits.1.unsigned_abs(),
        inversions_on_record: inversions.unsigned_abs(),
        priority_violations: violations.unsigned_abs(),
        lost_calls: lost.into_iter().max().unwrap_or(0),
        leaked_slots: u64::from(store.system_state().await?.slots.active),
        audit_differences: audit(store).await?,
    })
}

/// How many counters differ from their rows; says which.
pub(crate) async fn audit(store: &PostgresStore) -> anyhow::Result<u64> {
    let differences: Vec<AuditDifference> = store
        .audit()
        .await
        .context("the counters cannot be audited")?;
    for it in differences.iter().take(5) {
        log::error!(
            "{} {}: kept {}, counted {}",
            it.counter,
            it.subject,
            it.kept,
            it.counted
        );
    }
    Ok(differences.len() as u64)
}

/// Looks at the view `priority_violations` once a second, for ever; ends only with an error, at the
/// first row in it.
pub(crate) async fn watch_priorities(database: &BenchDatabase) -> anyhow::Result<()> {
    let mut conn = connect(&database.url)?;
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let looked = tokio::task::spawn_blocking(move || {
            let count = sql::priority_violations(&mut conn);
            (conn, count)
        });
        let (again, count) = looked.await?;
        conn = again;
        let count = count?;
        if count > 0 {
            bail!("{count} rows in priority_violations while calls went");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_names_what_is_not_zero_and_passes_when_all_is() {
        assert!(
            Verdict {
                calls: 9,
                ..Verdict::default()
            }
            .check()
            .is_ok()
        );

        let bad = Verdict {
            lost_calls: 2,
            ..Verdict::default()
        };

        let error = bad.check().unwrap_err().to_string();
        assert!(error.contains("2 lost calls"), "{error}");
    }

    #[test]
    fn verdicts_add_up() {
        let mut sum = Verdict::default();
        let bad = Verdict {
            calls: 1,
            leaked_slots: 1,
            witnessed: Counts {
                double_dials: 2,
                ..Counts::default()
            },
            ..Verdict::default()
        };
        sum.add(&bad);
        sum.add(&bad);
        assert_eq!((sum.calls, sum.total()), (2, 6));
    }
}
