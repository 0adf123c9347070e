//! What the operations meet on, made anew for each pair.

use std::collections::BTreeSet;
use std::time::Duration;

use callq_domain::{
    AgentId, Attempt, CallId, CampaignId, CampaignStatus, Ending, EngineStore, OperatorStore,
    Outcome, OwnershipStore, QueueItemId, ServerId, SlotBatch, UserId,
};
use uuid::Uuid;

use crate::scene::{Scene, texts};

/// A user with room for two calls under a system with room for three: one call up from each of the
/// two servers' point of view, the first's and a dead server's; one that waits; a campaign.
pub(crate) struct World {
    pub(crate) scene: Scene,
    pub(crate) servers: [ServerId; 2],
    pub(crate) user: UserId,
    pub(crate) agent: AgentId,
    pub(crate) campaign: CampaignId,
    /// The first server's call, and the number of its settlement before.
    pub(crate) call: Attempt,
    pub(crate) before: u64,
    pub(crate) waiting: QueueItemId,
    /// Every item that must be found again, and every attempt that was authorised.
    pub(crate) accepted: BTreeSet<QueueItemId>,
    pub(crate) started: Vec<Attempt>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let scene = Scene::new().await;
        let user = scene.user().await;
        let agent = scene.agent(user).await;
        let lease = Duration::from_secs(3_600);
        let other = ServerId::new();
        scene.store.renew_lease(other, lease).await.unwrap();
        scene.watch();
        let nobody = QueueItemId::new();
        Self {
            servers: [scene.server, other],
            user,
            agent,
            campaign: CampaignId::new(),
            call: Attempt {
                call_id: CallId::from(nobody.as_uuid()),
                number: 0,
            },
            before: 0,
            waiting: nobody,
            accepted: BTreeSet::new(),
            started: Vec::new(),
            scene,
        }
    }

    pub(crate) async fn set_up(&mut self) {
        let scene = &self.scene;
        scene.sql(&format!(
            "UPDATE system_state SET dispatch_paused = false, concurrent_calls_limit = 3; \
             UPDATE users SET concurrent_calls_limit = 2 WHERE id = '{}'",
            self.user
        ));
        self.campaign = scene.campaign(self.user, 2).await;
        self.before = scene.look().await.number;
        let call = scene.started_call(self.user, self.agent).await;
        let orphan = scene.started_call(self.user, self.agent).await;
        self.call = call.request.attempt;
        self.waiting = scene.waiting_call(self.user, self.agent).await;
        let dead = ServerId::new();
        scene.sql(&format!(
            "INSERT INTO servers (id, lease_until) VALUES ('{dead}', clock_timestamp()); \
             UPDATE active_calls SET owner = '{dead}' WHERE call_id = '{}'",
            orphan.request.attempt.call_id
        ));
        self.started = vec![call.request.attempt, orphan.request.attempt];
        self.accepted = self.found().into_iter().collect();
    }

    /// Every item of this round, wherever it stands.
    fn found(&self) -> Vec<QueueItemId> {
        let found = "SELECT id::text FROM call_queue UNION ALL SELECT item_id::text FROM active_calls \
             UNION ALL SELECT id::text FROM call_queue_history";
        texts(&mut self.scene.connection(), found)
            .iter()
            .map(|id| QueueItemId::from(Uuid::parse_str(id).unwrap()))
            .collect()
    }

    /// What is wrong as things stand.
    pub(crate) async fn faults(&self, accepted: &BTreeSet<QueueItemId>) -> Vec<String> {
        let mut faults = self.scene.witnessed();
        let found = self.found();
        let once: BTreeSet<QueueItemId> = found.iter().copied().collect();
        if found.len() != once.len() {
            faults.push("an item stands in two places".into());
        }
        if once != *accepted {
            faults.push(format!("accepted {accepted:?}, found {once:?}"));
        }
        let audit = self.scene.store.audit().await.unwrap();
        faults.extend(audit.iter().map(|difference| format!("{difference:?}")));
        let passed = "SELECT v::text FROM priority_violations v";
        faults.extend(texts(&mut self.scene.connection(), passed));
        faults
    }

    /// Lets everything that may go go, ends all, and clears the table; what is wrong then.
    pub(crate) async fn wind_up(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let look = SlotBatch {
            reserve: 10,
            ..SlotBatch::default()
        };
        let store = &self.scene.store;
        let outcome = store.settle(self.servers[1], &look).await.unwrap();
        if outcome.more {
            faults.push("a slot stays idle".into());
        }
        let live = "SELECT call_id::text FROM active_calls";
        let live = texts(&mut self.scene.connection(), live);
        let endings = live.iter().map(|id| Ending {
            call_id: CallId::from(Uuid::parse_str(id).unwrap()),
            attempt: None,
            outcome: Outcome::Completed,
            execution_id: None,
            reason: None,
            duration_seconds: None,
        });
        let all = SlotBatch {
            endings: endings.collect(),
            ..SlotBatch::default()
        };
        store.settle(self.servers[1], &all).await.unwrap();
        // Over already where its calls were the last.
        let cancelled = CampaignStatus::Cancelled;
        let _ = callq_domain::CampaignStore::set_campaign_status(
            store,
            self.user,
            self.campaign,
            cancelled,
        )
        .await;
        self.scene.sql(
            "BEGIN; SELECT lock_engine(); \
             SELECT withdraw_items(ARRAY(SELECT id FROM call_queue), 'cancelled', 'wound up', NULL, engine_now()); \
             COMMIT; DELETE FROM call_queue_history; DELETE FROM witness.seen; \
             DELETE FROM servers WHERE lease_until < clock_timestamp(); \
             UPDATE user_slots SET held_direct = NULL, held_campaign = NULL",
        );
        let audit = store.audit().await.unwrap();
        faults.extend(
            audit
                .iter()
                .map(|difference| format!("in the end {difference:?}")),
        );
        if store.system_state().await.unwrap().slots.active != 0 {
            faults.push("a slot stays taken".into());
        }
        faults
    }
}
