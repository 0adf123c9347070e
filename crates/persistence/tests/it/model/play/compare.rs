//! Holds what the database answered, and what stands written in it, against the reference.

use std::fmt;

use callq_domain::{QueueItemId, Repeat};

use super::{Fault, Game, Look};
use crate::model::answers::{Door, Settled};
use crate::model::known_differences as known;
use crate::model::operations::{SERVERS, USERS};
use crate::model::reference::Leeway;

impl Game<'_> {
    /// Compares all that stands written.
    pub(super) async fn compare_states(&mut self, step: usize, look: Look) -> Result<(), Fault> {
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
        let items = self.reference.items.clone();
        match look {
            Look::AtAll => {
                for id in items {
                    self.look_at(id).await?;
                }
            }
            Look::AtSome if step.is_multiple_of(6) && !items.is_empty() => {
                self.look_at(items[(step / 6) % items.len()]).await?;
            }
            Look::AtSome => {}
        }
        Ok(())
    }

    /// Looks at an item, and at the queue it is in, as its owner does.
    async fn look_at(&mut self, id: QueueItemId) -> Result<(), Fault> {
        let observed = self.stage.seen(&self.reference, id).await?;
        let expected = Some(self.reference.seen(id));
        same("an item as its owner sees it", &expected, &observed)?;
        let of = self.reference.queue.item(id).unwrap().user_id;
        let of = self.reference.user_number(of);
        let observed = self.stage.glance(&self.reference, of).await?;
        same("a queue at a glance", &self.reference.glance(of), &observed)
    }

    /// Compares what is on record: what happened to every item, and the lists of all users or of
    /// one.
    pub(super) async fn compare_records(&mut self, step: usize, look: Look) -> Result<(), Fault> {
        let reference = &self.reference;
        let mut stories = self.stage.stories();
        for id in &reference.items {
            let what = format!("what happened to item {}", reference.number(*id));
            let observed = stories.remove(id).unwrap_or_default();
            same(&what, &reference.story(*id), &observed)?;
        }
        let observed = self.stage.up(reference).await?;
        same("calls that are up", &reference.up(), &observed)?;
        for server in 0..SERVERS {
            let expected = reference.doubtful(self.stage.servers[server]);
            let observed = self.stage.doubtful(reference, server).await?;
            same("calls in doubt", &expected, &observed)?;
        }
        let (users, most) = match look {
            Look::AtAll => (0..USERS, usize::MAX),
            Look::AtSome => (step % USERS..step % USERS + 1, 3),
        };
        for of in users {
            let observed = self.stage.calls(reference, of).await?;
            same("a user's calls", &reference.calls(of), &observed)?;
            let observed = self.stage.figures(of).await?;
            same("a queue in figures", &reference.figures(of), &observed)?;
        }
        let on_record = |id: &QueueItemId| Some((*id, reference.on_record(*id)?));
        let latest = reference.items.iter().rev().filter_map(on_record);
        for (id, expected) in latest.take(most) {
            let observed = self.stage.on_record(reference, id).await?;
            same("a call on record", &Some(expected), &observed)?;
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
    if known::JUDGES_A_KEY_BY_ALL_OF_ITS_BATCH {
        for nth in &leeway.keys_of_three {
            let told = observed.admissions.get_mut(*nth);
            if let Some(told @ Door::Repeated(Repeat::Mismatch)) = told {
                told.clone_from(&expected.admissions[*nth]);
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
