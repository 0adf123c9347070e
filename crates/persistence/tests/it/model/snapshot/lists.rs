//! What users and servers find listed: pages of items, calls up and ended, a queue in figures.

use std::time::Duration;

use callq_domain::{
    CallStatus, CallStore, ItemFilter, ItemStatus, OperatorStore, OwnershipStore, PageRequest,
    QueueItemId, QueueStore, StoreError,
};

use super::in_script;
use crate::model::answers::{Figures, Glance, OnRecord, Record, UserState, Who};
use crate::model::reference::{Reference, call_of};
use crate::model::stage::Stage;

impl Stage {
    /// The items of one page, and where the next begins.
    pub(crate) async fn page(
        &self,
        reference: &Reference,
        of: usize,
        status: Option<ItemStatus>,
        page: PageRequest,
    ) -> Result<(Vec<usize>, Option<String>), StoreError> {
        let filter = ItemFilter {
            status,
            ..ItemFilter::default()
        };
        let page = self
            .store
            .items(self.universe.users[of], filter, page)
            .await?;
        let items = page.items.iter().map(|item| reference.number(item.id));
        Ok((items.collect(), page.next_cursor))
    }

    /// A user's calls, read page by page.
    pub(crate) async fn calls(
        &self,
        reference: &Reference,
        of: usize,
    ) -> Result<Vec<usize>, StoreError> {
        let mut calls = Vec::new();
        let mut cursor = None;
        loop {
            let request = PageRequest { limit: 5, cursor };
            let page = self.store.calls(self.universe.users[of], request).await?;
            calls.extend(page.items.iter().map(|call| reference.number(call.item_id)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(calls);
            }
        }
    }

    /// Calls that hold a slot, by number.
    pub(crate) async fn up(
        &self,
        reference: &Reference,
    ) -> Result<Vec<(usize, CallStatus)>, StoreError> {
        let held = self.store.held_calls(None, None).await?.items;
        let up = held
            .iter()
            .map(|held| (reference.number(held.call.item_id), held.call.status));
        let mut up: Vec<_> = up.collect();
        up.sort_unstable_by_key(|(item, _)| *item);
        Ok(up)
    }

    /// Those of a server that it has to ask about.
    pub(crate) async fn doubtful(
        &self,
        reference: &Reference,
        server: usize,
    ) -> Result<Vec<usize>, StoreError> {
        let server = self.servers[server];
        let doubtful = self.store.doubtful_calls(server, Duration::MAX).await?;
        let doubtful = doubtful.iter();
        let mut numbers: Vec<usize> = doubtful
            .map(|doubtful| reference.number(doubtful.call.item_id))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// A call as its owner finds it on record.
    pub(crate) async fn on_record(
        &self,
        reference: &Reference,
        id: QueueItemId,
    ) -> Result<Option<OnRecord>, StoreError> {
        let owner = reference.queue.item(id).unwrap().user_id;
        let found = self.store.call(owner, self.call(call_of(id))).await?;
        Ok(found.map(|(call, history)| OnRecord {
            item: reference.number(call.item_id),
            status: call.status,
            attempts: call.attempts,
            who: Who {
                number: call.phone_number.to_string(),
                name: call.contact_name,
                data: None,
            },
            provider: call.provider.to_string(),
            record: Record {
                execution: call.execution_id.map(|id| id.to_string()),
                reason: call.reason,
                duration: call.duration_seconds,
                reserved_at: in_script(call.reserved_at).unwrap_or(0),
                answered_at: call.answered_at.and_then(in_script),
                ended_at: call.ended_at.and_then(in_script),
            },
            history: history.len(),
        }))
    }

    /// A user's queue at a glance.
    pub(crate) async fn glance(
        &self,
        reference: &Reference,
        of: usize,
    ) -> Result<Glance, StoreError> {
        let status = self.store.queue_status(self.universe.users[of]).await?;
        Ok(Glance {
            counts: UserState {
                direct: (status.direct.queued, status.direct.processing),
                campaign: (status.campaign.queued, status.campaign.processing),
            },
            next_direct: status.next_direct.map(|item| reference.number(item.id)),
            own: status.concurrency.user,
            system: status.concurrency.system,
            direct_reserved_slots: status.concurrency.direct_reserved_slots,
        })
    }

    /// A user's queue in figures.
    pub(crate) async fn figures(&self, of: usize) -> Result<Figures, StoreError> {
        let figures = self.store.queue_statistics(self.universe.users[of]).await?;
        Ok(Figures {
            counts: figures.counts,
            started: of_an_hour(figures.started_per_minute),
            finished: of_an_hour(figures.finished_per_minute),
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the calls of a short script"
)]
fn of_an_hour(per_minute: f64) -> u64 {
    (per_minute * 60.0).round() as u64
}
