//! What users and operators change beside the batches, on both sides.

use callq_domain::{
    CampaignStatus, ConcurrencyLimit, OperatorStore, OwnershipStore, UserChange, Weight,
};

use diesel::connection::SimpleConnection;

use super::compare::same;
use super::{Fault, Game};
use crate::model::operations::{CAMPAIGNS, Op};

impl Game<'_> {
    pub(super) async fn cancel(&mut self, op: Op) -> Result<(), Fault> {
        let (Op::Cancel(pick) | Op::CancelAnothers(pick)) = op else {
            unreachable!("it cancels");
        };
        let id = self.pick(pick);
        let owner = self.reference.queue.item(id).map(|item| item.user_id);
        let users = &self.stage.universe.users;
        let own = matches!(op, Op::Cancel(_));
        let asks = match owner {
            Some(owner) if own => owner,
            owner => users
                .iter()
                .copied()
                .find(|user| Some(*user) != owner)
                .unwrap(),
        };
        let observed = self.stage.cancel(asks, id).await?;
        let expected = if own { self.reference.cancel(id) } else { None };
        same("the cancellation", &expected, &observed)
    }

    pub(super) async fn change(&mut self, op: Op) -> Result<(), Fault> {
        let queue = &mut self.reference.queue;
        let user = |of: usize| self.stage.universe.users[of];
        let store = &self.stage.store;
        let limit = |slots: u32| ConcurrencyLimit::new(slots.into()).unwrap();
        let mut change = UserChange::default();
        let of = match op {
            Op::SystemLimit(slots) => {
                queue.set_system_limit(limit(slots));
                store.set_system_limit(limit(slots)).await?;
                return Ok(());
            }
            Op::Paused(paused) => {
                queue.set_paused(paused);
                store.set_dispatch_paused(paused).await?;
                return Ok(());
            }
            Op::UserLimit { of, slots } => {
                queue.set_user_limit(user(of), limit(slots)).unwrap();
                change.concurrent_calls_limit = Some(limit(slots));
                of
            }
            Op::Weight { of, turns } => {
                let weight = Weight::new(turns.into()).unwrap();
                queue.set_weight(user(of), weight).unwrap();
                change.weight = Some(weight);
                of
            }
            Op::DirectReserved { of, slots } => {
                queue.set_direct_reserved(user(of), slots).unwrap();
                change.direct_reserved_slots = Some(slots);
                of
            }
            Op::Credits { of, left } => {
                queue.set_credits(user(of), left).unwrap();
                change.credits = Some(left);
                of
            }
            Op::MaxQueued { of, most } => {
                queue.set_max_queued_direct(user(of), most).unwrap();
                change.max_queued_direct_calls = Some(most);
                of
            }
            other => unreachable!("{other:?} changes nothing"),
        };
        store.update_user(user(of), change).await?;
        Ok(())
    }

    /// Said in SQL: whoever says it, it holds at once.
    pub(super) fn change_campaign(&mut self, op: Op, nth: usize) {
        let campaigns = self.reference.campaigns.len();
        if campaigns == 0 {
            return;
        }
        let id = self.reference.campaigns[nth % campaigns].id;
        let queue = &mut self.reference.queue;
        let said = match op {
            Op::CampaignLimit { slots, .. } => {
                queue.set_campaign_limit(id, slots).unwrap();
                let slots = slots.map_or("NULL".into(), |slots| slots.to_string());
                format!("max_concurrent_calls = {slots}")
            }
            Op::CampaignWeight { turns, .. } => {
                queue
                    .set_campaign_weight(id, Weight::new(i64::from(turns)).unwrap())
                    .unwrap();
                format!("weight = {turns}")
            }
            other => unreachable!("{other:?} changes no campaign"),
        };
        let change = format!("UPDATE campaigns SET {said} WHERE id = '{id}'");
        self.stage
            .clock
            .connection()
            .batch_execute(&change)
            .unwrap();
    }

    pub(super) async fn campaign(&mut self, op: Op) -> Result<(), Fault> {
        let (nth, status) = match op {
            Op::Draft { of, contacts } => {
                if self.reference.campaigns.len() < CAMPAIGNS {
                    self.stage.draft(of, contacts, &mut self.reference).await?;
                }
                return Ok(());
            }
            Op::Maintain => {
                self.reference.maintain();
                self.stage.store.maintain().await?;
                return Ok(());
            }
            Op::Start(nth) => (nth, CampaignStatus::Active),
            Op::Pause(nth) => (nth, CampaignStatus::Paused),
            Op::Withdraw(nth) => (nth, CampaignStatus::Cancelled),
            other => unreachable!("{other:?} is about no campaign"),
        };
        let campaigns = self.reference.campaigns.len();
        if campaigns == 0 {
            return Ok(());
        }
        let nth = nth % campaigns;
        let observed = self
            .stage
            .set_campaign_status(&self.reference, nth, status)
            .await?;
        let expected = self.reference.set_campaign_status(nth, status);
        same("whether the campaign may", &expected, &observed)
    }
}
