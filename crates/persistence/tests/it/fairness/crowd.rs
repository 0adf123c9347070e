//! Many users with campaigns of their own, and slots for few of their calls.

use std::sync::Arc;

use callq_domain::fairness::Turns;
use callq_domain::{
    Admission, AgentId, CallId, CampaignStatus, CampaignStore, ConcurrencyLimit, ContactId, Ending,
    EngineStore, NewDirectCall, OperatorStore, Outcome, QueueItemId, ReservedCall, SlotBatch,
    Target, UserChange, UserId, Weight,
};
use uuid::Uuid;

use crate::scene::{Scene, direct_call, new_campaign, phone_number};

/// How many things are made at a time.
const AT_ONCE: usize = 6;

pub(super) struct Crowd {
    scene: Arc<Scene>,
    /// By id, which is also the order in which they were made.
    pub(super) users: Vec<UserId>,
    agents: Vec<AgentId>,
}

impl Crowd {
    /// So many users, each with room for all the slots there are.
    pub(super) async fn new(users: usize, slots: u32) -> Self {
        let scene = Arc::new(Scene::new().await);
        let slots = ConcurrencyLimit::new(slots.into()).unwrap();
        scene.store.set_system_limit(slots).await.unwrap();
        let mut made = in_turns(0..users, |_| {
            let scene = scene.clone();
            async move {
                let user = scene.user().await;
                let change = UserChange {
                    concurrent_calls_limit: Some(slots),
                    ..UserChange::default()
                };
                scene.store.update_user(user, change).await.unwrap();
                (user, scene.agent(user).await)
            }
        })
        .await;
        made.sort_unstable();
        let (users, agents) = made.into_iter().unzip();
        Self {
            scene,
            users,
            agents,
        }
    }

    pub(super) async fn set_weight(&self, user: UserId, weight: Weight) {
        let change = UserChange {
            weight: Some(weight),
            ..UserChange::default()
        };
        self.scene.store.update_user(user, change).await.unwrap();
    }

    /// Gives each user a campaign under way with so many calls, but none for 0.
    pub(super) async fn start_campaigns(&self, calls: &[usize]) {
        let contacts: Vec<Vec<ContactId>> =
            calls.iter().map(|calls| new_contacts(*calls)).collect();
        for (of, contacts) in self.users.iter().zip(&contacts) {
            self.insert_contacts(*of, contacts);
        }
        let campaigns = self.users.iter().zip(&self.agents).zip(contacts);
        let campaigns: Vec<_> = campaigns
            .filter(|(_, contacts)| !contacts.is_empty())
            .map(|((user, agent), contacts)| new_campaign(*user, *agent, contacts))
            .collect();
        in_turns(campaigns, |campaign| {
            let scene = self.scene.clone();
            async move {
                let made = scene.store.create_campaign(campaign).await.unwrap();
                scene
                    .set_status(made.user_id, made.id, CampaignStatus::Active)
                    .await;
            }
        })
        .await;
        // As the housekeeping of a busy database would have done by now.
        self.scene.sql("ANALYZE");
    }

    fn insert_contacts(&self, user: UserId, contacts: &[ContactId]) {
        if contacts.is_empty() {
            return;
        }
        let ids: Vec<String> = contacts.iter().map(|id| format!("'{id}'")).collect();
        self.scene.sql(&format!(
            "INSERT INTO contacts (id, user_id, phone_number) \
             SELECT id, '{user}', '+14155551234' FROM unnest(ARRAY[{}]::uuid[]) id",
            ids.join(", ")
        ));
    }

    /// Direct calls, one for each of these users.
    pub(super) fn direct_calls(&self, of: impl Iterator<Item = usize>) -> Vec<NewDirectCall> {
        of.map(|nth| {
            let number = phone_number(self.scene.number()).parse().unwrap();
            direct_call(self.users[nth], self.agents[nth], Target::Number(number))
        })
        .collect()
    }

    /// So many direct calls of each user that all wait, in order of their arrival.
    pub(super) async fn line_up_direct_calls(&self, each: usize) -> Vec<QueueItemId> {
        let store = &self.scene.store;
        store.set_dispatch_paused(true).await.unwrap();
        let all = (0..each).flat_map(|_| 0..self.users.len());
        let calls = self.direct_calls(all);
        let ids = calls.iter().map(|call| call.item_id).collect();
        assert!(self.step(&[], calls).await.is_empty());
        store.set_dispatch_paused(false).await.unwrap();
        ids
    }

    /// Ends these calls, lets some newcomers in, and starts what can be; what started, in order.
    pub(super) async fn step(
        &self,
        up: &[CallId],
        admissions: Vec<NewDirectCall>,
    ) -> Vec<ReservedCall> {
        let batch = SlotBatch {
            endings: up.iter().map(|call| completed(*call)).collect(),
            admissions,
            reserve: 1_000,
            ..SlotBatch::default()
        };
        let outcome = self
            .scene
            .store
            .settle(self.scene.server, &batch)
            .await
            .unwrap();
        let at_the_door = outcome
            .admissions
            .into_iter()
            .filter_map(|admission| match admission {
                Admission::Started(call) => Some(*call),
                _ => None,
            });
        // Direct calls that waited, newcomers, campaign calls: as they go.
        let is_direct = |call: &ReservedCall| call.request.origin.campaign_id().is_none();
        let (waited, campaign): (Vec<_>, Vec<_>) =
            outcome.reserved.into_iter().partition(is_direct);
        waited
            .into_iter()
            .chain(at_the_door)
            .chain(campaign)
            .collect()
    }

    /// Ends all that is up and starts the next, until so many calls were started.
    pub(super) async fn serve(&self, services: u64) -> Turns {
        let mut turns = Turns::default();
        let mut up = Vec::new();
        while turns.total() < services {
            let started = self.step(&up, Vec::new()).await;
            assert!(!started.is_empty(), "nothing waits any more");
            for call in &started {
                turns.record(call.request.user_id);
            }
            up = started
                .iter()
                .map(|call| call.request.attempt.call_id)
                .collect();
        }
        turns
    }

    pub(super) async fn assert_counters_equal_rows(&self) {
        self.scene.assert_counters_equal_rows().await;
    }
}

fn completed(call_id: CallId) -> Ending {
    Ending {
        call_id,
        attempt: None,
        outcome: Outcome::Completed,
        execution_id: None,
        reason: None,
        duration_seconds: None,
    }
}

fn new_contacts(count: usize) -> Vec<ContactId> {
    (0..count)
        .map(|_| ContactId::from(Uuid::now_v7()))
        .collect()
}

/// Does something for each of many, a few at a time.
async fn in_turns<T, R, F>(of: impl IntoIterator<Item = T>, work: impl Fn(T) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let mut working = tokio::task::JoinSet::new();
    let mut done = Vec::new();
    for one in of {
        if working.len() >= AT_ONCE {
            done.extend(working.join_next().await.map(Result::unwrap));
        }
        working.spawn(work(one));
    }
    while let Some(one) = working.join_next().await {
        done.push(one.unwrap());
    }
    done
}
