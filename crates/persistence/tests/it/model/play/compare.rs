//! Holds what the database answered, and what stands written in it, against the reference.

use std::fmt;

use super::{Fault, Game};
use crate::model::answers::{Door, Settled};
use crate::model::known_differences as known;
use crate::model::reference::Leeway;

impl Game<'_> {
    /// Compares all that stands written.
    pub(super) async fn compare_states(&mut self, step: usize) -> Result<(), Fault> {
        let broken = self.reference.queue.check();
        if !broken.is_empty() {
            return Err(Fault(format!("the model itself is broken: {broken:?}")));
        }
        let expected = self.reference.state();
        let observed = self.stage.state(&self.reference).await?;
        same(
            "the number of items",
            &expected.items.len(),
            &observed.items.len(),
        )?;
        for (expected, observed) in expected.items.iter().zip(&observed.items) {
            same("an item", expected, observed)?;
        }
        for (of, (expected, observed)) in expected.users.iter().zip(&observed.users).enumerate() {
            same(
                &format!("calls of user {of} (waiting, up)"),
                expected,
                observed,
            )?;
        }
        same("the system's slots", &expected.system, &observed.system)?;
        same(
            "the pause",
            &expected.dispatch_paused,
            &observed.dispatch_paused,
        )?;
        for (expected, observed) in expected.campaigns.iter().zip(&observed.campaigns) {
            same("a campaign", expected, observed)?;
        }
        same("what the audit finds", &Vec::new(), &self.stage.faults())?;
        // One item a step is looked at as its owner does.
        if !self.reference.items.is_empty() {
            let id = self.reference.items[step % self.reference.items.len()];
            let observed = self.stage.seen(&self.reference, id).await?;
            same(
                "an item as its owner sees it",
                &Some(self.reference.seen(id)),
                &observed,
            )?;
        }
        Ok(())
    }
}

/// Takes the right answer where several are.
pub(super) fn forgive(expected: &Settled, leeway: &Leeway, observed: &mut Settled) {
    for (nth, in_the_end) in &leeway.places_in_the_end {
        if let (Some(Door::Waits(told)), Door::Waits(right)) = (
            observed.admissions.get_mut(*nth),
            &expected.admissions[*nth],
        ) && told.place == *in_the_end
        {
            told.place = right.place;
        }
    }
    if known::GIVES_REASONS_AS_OF_THE_WHOLE_BATCH {
        for (nth, in_the_end) in &leeway.reasons_in_the_end {
            if let (Some(Door::Waits(told)), Door::Waits(right)) = (
                observed.admissions.get_mut(*nth),
                &expected.admissions[*nth],
            ) && told.reason == *in_the_end
            {
                told.reason.clone_from(&right.reason);
            }
        }
    }
    for nth in &leeway.repeated {
        if let (Some(Door::Waits(told)), Door::Waits(right)) = (
            observed.admissions.get_mut(*nth),
            &expected.admissions[*nth],
        ) {
            told.reason.clone_from(&right.reason);
        }
    }
}

pub(super) fn same<T: fmt::Debug + PartialEq>(
    what: &str,
    expected: &T,
    observed: &T,
) -> Result<(), Fault> {
    if expected == observed {
        return Ok(());
    }
    Err(Fault(format!(
        "{what}\n  model:    {expected:?}\n  database: {observed:?}"
    )))
}
