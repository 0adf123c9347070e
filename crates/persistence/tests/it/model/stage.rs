//! The database's side of a script: a store with the same users, one server after the other, and
//! what they answer, told in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use callq_domain::{
    Admission, Attempt, CallId, CampaignStatus, CampaignStore, EndingEffect, EngineStore,
    OwnershipStore, ProgressBatch, ProviderName, QueueItemId, QueuePlace, QueueStore, Queued,
    Refusal, Repeat, ReservedCall, ServerId, SlotBatch, StoreError, UserId,
};
use callq_persistence::{Database, PostgresStore, connect};
use callq_testing::TestDatabase;
use diesel::connection::SimpleConnection;

use super::answers::{
    Cancelled, Door, Holds, Pace, Place, Progressed, Seen, Settled, Start, Wait, Who,
};
use super::database_clock::DatabaseClock;
use super::operations::SERVERS;
use super::reference::{Reference, Universe, call_of, item_of};
use crate::scene::new_campaign;

mod world;

/// When every script begins, in milliseconds since the Unix epoch: so late that nothing looks over
/// to the machine's own clock.
pub(crate) const OPENING: i64 = 4_102_444_800_000;

/// A lease that outlasts every script, whichever clock it is read by.
const LEASE: Duration = Duration::from_secs(200 * 365 * 24 * 3_600);

/// A database with the users of every script, put back to its beginning before each.
pub(crate) struct Stage {
    pub(crate) store: PostgresStore,
    pub(crate) universe: Universe,
    pub(crate) clock: DatabaseClock,
    pub(crate) servers: Vec<ServerId>,
    /// Each item's call, once it has had one.
    pub(super) calls: BTreeMap<QueueItemId, CallId>,
    /// The numbers of each server's settlements.
    numbers: Vec<Vec<u64>>,
    // Dropped last: with it goes the database.
    database: TestDatabase,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::new();
        let pool = Database::new(database.url(), 2).unwrap();
        let store = PostgresStore::new(pool, ProviderName::new("simulator").unwrap());
        let universe = world::make(&store).await;
        let mut servers: Vec<ServerId> = (0..SERVERS).map(|_| ServerId::new()).collect();
        servers.sort_unstable();
        for server in &servers {
            store.renew_lease(*server, LEASE).await.unwrap();
        }
        // A lane's numbers are summed up in blocks. Here some end soon behind where they begin.
        for (user, tail) in universe.users.iter().zip([0, 250, 65_530, 16_777_210]) {
            let sql =
                format!("UPDATE user_slots SET direct_tail = {tail} WHERE user_id = '{user}'");
            connect(database.url())
                .unwrap()
                .batch_execute(&sql)
                .unwrap();
        }
        let mut stage = Self {
            clock: DatabaseClock::take(database.url()),
            store,
            universe,
            servers,
            calls: BTreeMap::new(),
            numbers: vec![Vec::new(); SERVERS],
            database,
        };
        stage.prepare_snapshots();
        stage
    }

    /// Where its database is.
    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    /// Puts everything back to the beginning.
    pub(crate) fn go_back(&mut self) {
        self.clock.go_back();
        self.calls.clear();
        self.numbers.iter_mut().for_each(Vec::clear);
    }

    /// Settles a batch in which calls go by their items' ids, settlements by their place among
    /// those of their server.
    pub(crate) async fn settle(
        &mut self,
        engine: &dyn EngineStore,
        server: usize,
        asked: &SlotBatch,
        reference: &Reference,
    ) -> Result<Settled, StoreError> {
        let mut batch = asked.clone();
        for ending in &mut batch.endings {
            ending.call_id = self.call(ending.call_id);
        }
        for back in &mut batch.returns {
            back.attempt.call_id = self.call(back.attempt.call_id);
        }
        let numbers = &self.numbers[server];
        batch.answered = asked.answered.map(|nth| match nth {
            0 => 0,
            nth => numbers[usize::try_from(nth).unwrap() - 1],
        });
        let outcome = engine.settle(self.servers[server], &batch).await?;
        self.numbers[server].push(outcome.number);
        let mut admissions = Vec::new();
        for admission in &outcome.admissions {
            admissions.push(self.door(admission, reference));
        }
        let mut reserved = Vec::new();
        for call in &outcome.reserved {
            reserved.push(self.start(call, reference));
        }
        let returns = outcome
            .returns
            .iter()
            .map(|back| back.as_ref().map(|queued| wait(queued, reference)));
        Ok(Settled {
            returns: returns.collect(),
            endings: outcome.endings,
            admissions,
            reserved,
            more: outcome.more,
            next_timer: outcome.next_timer,
        })
    }

    fn door(&mut self, admission: &Admission, reference: &Reference) -> Door {
        match admission {
            Admission::Started(call) => Door::Started(self.start(call, reference)),
            Admission::Queued(queued) => Door::Waits(wait(queued, reference)),
            Admission::Refused(Refusal::QueueFull(full)) => {
                Door::full(full, pace(&full.pace).holds)
            }
            Admission::Refused(refusal) => Door::Refused(*refusal),
            Admission::Repeated(Repeat::Unanswered(item)) => Door::Before(reference.number(*item)),
            Admission::Repeated(known) => Door::Repeated(known.clone()),
        }
    }

    fn start(&mut self, call: &ReservedCall, reference: &Reference) -> Start {
        let attempt = call.request.attempt;
        // A call that comes back keeps its id; should it not, the next word of it goes astray.
        self.calls.entry(call.item_id).or_insert(attempt.call_id);
        Start {
            item: reference.number(call.item_id),
            of: reference.user_number(call.request.user_id),
            call_type: call.request.origin.call_type(),
            attempt: attempt.number,
            who: Who {
                number: call.request.to.to_string(),
                name: call.request.contact_name.clone(),
                data: call
                    .request
                    .user_data
                    .as_ref()
                    .map(|data| data.get().into()),
            },
            provider: call.provider.to_string(),
            from: call.request.from.clone(),
        }
    }

    /// The database's own id of a call that goes by its item's.
    pub(super) fn call(&self, call: CallId) -> CallId {
        self.calls.get(&item_of(call)).copied().unwrap_or(call)
    }

    fn attempt(&self, attempt: Attempt) -> Attempt {
        Attempt {
            call_id: self.call(attempt.call_id),
            ..attempt
        }
    }

    pub(crate) async fn record_progress(
        &mut self,
        engine: &dyn EngineStore,
        server: usize,
        asked: &ProgressBatch,
        reference: &Reference,
    ) -> Result<Progressed, StoreError> {
        let mut batch = asked.clone();
        for (attempt, _) in &mut batch.placed {
            *attempt = self.attempt(*attempt);
        }
        for (attempt, _) in &mut batch.unknown {
            *attempt = self.attempt(*attempt);
        }
        for event in &mut batch.events {
            event.call_id = self.call(event.call_id);
        }
        let outcome = engine.record_progress(self.servers[server], &batch).await?;
        let mut events: Vec<(Option<usize>, bool)> = Vec::new();
        for (event, effect) in asked.events.iter().zip(&outcome.events) {
            let call = match effect {
                EndingEffect::UnknownCall => None,
                _ => Some(reference.number(item_of(event.call_id))),
            };
            let moved = *effect == EndingEffect::Ended;
            match events.iter_mut().find(|(of, _)| *of == call) {
                Some((_, any)) => *any |= moved,
                None => events.push((call, moved)),
            }
        }
        Ok(Progressed {
            placed: outcome.placed,
            unknown: outcome.unknown,
            events,
        })
    }

    pub(crate) async fn give_up(&self, server: usize, attempt: Attempt) -> Result<(), StoreError> {
        let attempt = self.attempt(attempt);
        self.store.mark_overdue(self.servers[server], attempt).await
    }

    /// A server stops, another takes over; the first comes back empty-handed. What the other holds
    /// now, by number.
    pub(crate) async fn die(
        &mut self,
        dead: usize,
        heir: usize,
        reference: &Reference,
    ) -> Result<Vec<usize>, StoreError> {
        let (dead, heir) = (self.servers[dead], self.servers[heir]);
        self.store.retire(dead).await?;
        let adopted = self.store.adopt_orphans(heir).await?;
        self.store.renew_lease(dead, LEASE).await?;
        // Only a settlement notices what time it is.
        self.store.settle(heir, &SlotBatch::default()).await?;
        let mut kept: Vec<usize> = adopted
            .iter()
            .map(|call| reference.number(call.item_id))
            .collect();
        kept.sort_unstable();
        Ok(kept)
    }

    pub(crate) async fn cancel(
        &self,
        user: UserId,
        id: QueueItemId,
    ) -> Result<Cancelled, StoreError> {
        match self.store.cancel_item(user, id).await {
            Ok(Ok(_)) => Ok(Some(Ok(()))),
            Ok(Err(status)) => Ok(Some(Err(status))),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a draft, and takes it into the reference with the ids that its calls have here.
    pub(crate) async fn draft(
        &mut self,
        of: usize,
        contacts: usize,
        reference: &mut Reference,
    ) -> Result<(), StoreError> {
        let contacts = &self.universe.contacts[of][..contacts];
        let contacts = contacts.iter().map(|(id, _)| *id).collect();
        let campaign = new_campaign(self.universe.users[of], self.universe.agents[of], contacts);
        let id = self.store.create_campaign(campaign).await?.id;
        let items = self.campaign_items(id);
        reference.draft(of, id, &items);
        Ok(())
    }

    /// Whether the campaign's present status allowed it.
    pub(crate) async fn set_campaign_status(
        &self,
        reference: &Reference,
        nth: usize,
        status: CampaignStatus,
    ) -> Result<bool, StoreError> {
        let campaign = &reference.campaigns[nth];
        let owner = self.universe.users[campaign.owner];
        match self
            .store
            .set_campaign_status(owner, campaign.id, status)
            .await
        {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One item as its owner sees it.
    pub(crate) async fn seen(
        &self,
        reference: &Reference,
        id: QueueItemId,
    ) -> Result<Option<Seen>, StoreError> {
        let owner = reference.queue.item(id).unwrap().user_id;
        let found = self.store.item(owner, id).await?;
        Ok(found.map(|placed| Seen {
            item: reference.number(placed.item.id),
            status: placed.item.status,
            place: placed.place.as_ref().map(place),
            waiting_reason: placed.waiting_reason,
        }))
    }

    /// Whether a call, which goes by its item's id, is on record under its own.
    pub(super) fn knows(&self, item: QueueItemId, call: CallId) -> bool {
        self.call(call_of(item)) == call
    }
}

fn wait(queued: &Queued, reference: &Reference) -> Wait {
    Wait {
        item: reference.number(queued.item_id),
        reason: queued.reason.to_string(),
        place: place(&queued.place),
        expires_at: queued.expires_at.map(|at| at.timestamp_millis()),
    }
}

fn place(place: &QueuePlace) -> Place {
    Place {
        position: place.position,
        total: place.total_in_queue,
        pace: pace(&place.pace),
    }
}

fn pace(pace: &callq_domain::Pace) -> Pace {
    Pace {
        slots: pace.slots,
        holds: Holds {
            samples: pace.samples,
            mean_ms: pace.mean_hold.as_secs_f64() * 1_000.0,
        },
    }
}
