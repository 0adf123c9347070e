//! Limits and paces of campaigns, users and providers, and the turns of a user's campaigns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use callq_domain::{
    Admission, AgentFields, AgentId, CallRate, CampaignId, CampaignStatus, CampaignStore,
    ConcurrencyLimit, DirectoryStore, Ending, EngineStore, ItemFilter, OperatorStore, Outcome,
    OwnershipStore, PacedBy, Pacing, ProviderName, QueueReason, QueueStore, ReservedCall, ServerId,
    SlotBatch, SlotOutcome, SlotUse, UserChange, UserId, Weight,
};
use chrono::{DateTime, Utc};

use crate::model::database_clock::DatabaseClock;
use crate::scene::{Scene, agent_fields, first_page, new_campaign, texts};

mod providers;

/// One user with many slots, and the time in the test's hands.
struct Play {
    scene: Scene,
    clock: DatabaseClock,
    user: UserId,
    now: i64,
}

impl Play {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let slots = ConcurrencyLimit::new(1_000).unwrap();
        scene.store.set_system_limit(slots).await.unwrap();
        let user = scene.user().await;
        scene.limit(user, 200).await;
        let opening: DateTime<Utc> = "2030-05-01T06:00:00Z".parse().unwrap();
        let mut play = Self {
            clock: DatabaseClock::take(scene.database.url()),
            scene,
            user,
            now: opening.timestamp_millis(),
        };
        play.pass(0);
        play
    }

    fn pass(&mut self, ms: i64) {
        self.now += ms;
        self.clock.set(self.now);
    }

    async fn draft(&self, contacts: usize, pacing: Pacing) -> CampaignId {
        let agent = self.scene.agent(self.user).await;
        self.draft_by(agent, contacts, pacing).await
    }

    async fn draft_by(&self, agent: AgentId, contacts: usize, pacing: Pacing) -> CampaignId {
        let contacts = self.scene.contacts(self.user, contacts).await;
        let mut campaign = new_campaign(self.user, agent, contacts);
        campaign.fields.pacing = pacing;
        self.scene.store.create_campaign(campaign).await.unwrap().id
    }

    async fn start(&self, id: CampaignId) {
        let active = CampaignStatus::Active;
        self.scene.set_status(self.user, id, active).await;
    }

    async fn campaign(&self, contacts: usize, pacing: Pacing) -> CampaignId {
        let id = self.draft(contacts, pacing).await;
        self.start(id).await;
        id
    }

    async fn repace(&self, id: CampaignId, pacing: Pacing) {
        let found = self.scene.store.campaign(self.user, id).await.unwrap();
        let mut fields = found.unwrap().fields;
        fields.pacing = pacing;
        let store = &self.scene.store;
        store.update_campaign(self.user, id, fields).await.unwrap();
    }

    async fn change_user(&self, change: UserChange) {
        self.scene
            .store
            .update_user(self.user, change)
            .await
            .unwrap();
    }

    /// All that may start now.
    async fn settle(&self) -> SlotOutcome {
        let batch = SlotBatch {
            reserve: 500,
            ..SlotBatch::default()
        };
        let store = &self.scene.store;
        let settled = store.settle(self.scene.server, &batch).await.unwrap();
        self.scene.assert_counters_equal_rows().await;
        settled
    }

    /// The campaigns of all calls that start now, one settlement after the other, each call ended
    /// before the next is let go.
    async fn one_by_one(&self, calls: usize) -> Vec<CampaignId> {
        let mut order = Vec::new();
        for _ in 0..calls {
            let started = self.scene.dispatch(1).await;
            for call in started {
                order.extend(call.request.origin.campaign_id());
                let id = call.request.attempt.call_id;
                self.scene.end(id, Outcome::Completed).await;
            }
        }
        self.scene.assert_counters_equal_rows().await;
        order
    }

    async fn reason(&self, campaign: CampaignId) -> Option<QueueReason> {
        let filter = ItemFilter {
            campaign_id: Some(campaign),
            status: Some(callq_domain::ItemStatus::Queued),
            ..ItemFilter::default()
        };
        let store = &self.scene.store;
        let page = store.items(self.user, filter, first_page(1)).await.unwrap();
        let item = page.items.first().unwrap().id;
        let placed = store.item(self.user, item).await.unwrap().unwrap();
        placed.waiting_reason
    }
}

fn at_most(calls: i64) -> Pacing {
    Pacing {
        max_concurrent_calls: Some(ConcurrencyLimit::new(calls).unwrap()),
        ..Pacing::FREE
    }
}

fn per_second(calls: f64) -> Pacing {
    Pacing {
        calls_per_second: CallRate::per_second(calls),
        ..Pacing::FREE
    }
}

fn weighing(turns: i64) -> Pacing {
    Pacing {
        weight: Weight::new(turns).unwrap(),
        ..Pacing::FREE
    }
}

fn ending(call: &ReservedCall) -> Ending {
    Ending {
        call_id: call.request.attempt.call_id,
        attempt: None,
        outcome: Outcome::Completed,
        execution_id: None,
        reason: None,
        duration_seconds: None,
    }
}

#[tokio::test]
async fn a_campaign_has_no_more_calls_up_than_its_limit_and_each_end_lets_the_next_go() {
    let play = Play::new().await;
    let id = play.campaign(10, at_most(2)).await;

    let first = play.settle().await;

    assert_eq!(first.reserved.len(), 2);
    assert!(!first.more, "nothing is left that could go");
    let limit = SlotUse {
        limit: 2,
        active: 2,
    };
    assert_eq!(
        play.reason(id).await,
        Some(QueueReason::CampaignLimit(limit))
    );
    assert_eq!(play.settle().await.reserved.len(), 0);
    let end_one = SlotBatch {
        endings: vec![ending(&first.reserved[0])],
        reserve: 500,
        ..SlotBatch::default()
    };
    let store = &play.scene.store;
    let settled = store.settle(play.scene.server, &end_one).await.unwrap();
    assert_eq!(settled.reserved.len(), 1, "in the settlement that ends one");
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_at_its_limit_holds_up_no_other() {
    let play = Play::new().await;
    let narrow = play.campaign(10, at_most(1)).await;
    let wide = play.campaign(10, Pacing::FREE).await;

    let started = play.settle().await.reserved;

    let of = |id: CampaignId| {
        let calls = started.iter().map(|call| call.request.origin.campaign_id());
        calls.filter(|campaign| *campaign == Some(id)).count()
    };
    assert_eq!((of(narrow), of(wide)), (1, 10));
}

#[tokio::test]
async fn a_changed_limit_holds_at_once_and_ends_no_call() {
    let play = Play::new().await;
    let id = play.campaign(10, Pacing::FREE).await;
    play.scene.dispatch(4).await;

    play.repace(id, at_most(3)).await;
    assert_eq!(play.settle().await.reserved.len(), 0);
    play.repace(id, at_most(5)).await;
    assert_eq!(play.settle().await.reserved.len(), 1);
    play.scene
        .sql("UPDATE campaigns SET max_concurrent_calls = NULL");
    assert_eq!(play.settle().await.reserved.len(), 5);
}

#[tokio::test]
async fn a_paced_campaign_starts_its_calls_apart_by_timer() {
    let mut play = Play::new().await;
    let id = play.campaign(10, per_second(4.0)).await;

    let first = play.settle().await;

    assert_eq!((first.reserved.len(), first.more), (1, false));
    // A full bucket holds one call and what a tenth of a second allows.
    assert_eq!(first.next_timer, Some(Duration::from_millis(150)));
    let paced = QueueReason::Paced(PacedBy::Campaign);
    assert_eq!(play.reason(id).await, Some(paced));
    play.pass(149);
    assert_eq!(play.settle().await.reserved.len(), 0);
    play.pass(1);
    assert_eq!(play.settle().await.reserved.len(), 1);
    play.pass(249);
    assert_eq!(play.settle().await.reserved.len(), 0);
    play.pass(1);
    assert_eq!(play.settle().await.reserved.len(), 1);
    // A minute without a look is not caught up with.
    play.pass(60_000);
    assert_eq!(play.settle().await.reserved.len(), 1);
}

#[tokio::test]
async fn late_timers_cost_no_calls_and_no_second_has_more_than_the_pace_and_a_tenth() {
    for rate in [0.5, 3.0, 20.0, 37.0] {
        let mut play = Play::new().await;
        play.campaign(1_000, per_second(rate)).await;
        let mut started: Vec<i64> = Vec::new();
        let (opened, mut lateness) = (play.now, 7);
        while play.now < opened + 20_000 {
            let settled = play.settle().await;
            started.extend(settled.reserved.iter().map(|_| play.now));
            let endings = settled.reserved.iter().map(ending).collect();
            let batch = SlotBatch {
                endings,
                ..SlotBatch::default()
            };
            let store = &play.scene.store;
            store.settle(play.scene.server, &batch).await.unwrap();
            let next = settled.next_timer.unwrap();
            lateness = lateness * 31 % 97;
            play.pass(i64::try_from(next.as_millis()).unwrap() + lateness);
        }
        let whole = started.len() as f64;
        let due = rate * (play.now - opened) as f64 / 1_000.0;
        assert!(
            (due - 2.0..=due + rate / 10.0 + 1.0).contains(&whole),
            "{whole} of {due} at {rate}"
        );
        for from in &started {
            let second = started
                .iter()
                .filter(|at| (*from..from + 1_000).contains(*at));
            let most = (rate * 1.1 + 1.0).ceil() as usize;
            let calls = second.count();
            assert!(calls <= most, "{calls} in one second at {rate}");
        }
    }
}

#[tokio::test]
async fn a_users_pace_is_shared_by_its_campaigns_and_holds_back_no_direct_call() {
    let mut play = Play::new().await;
    let pace = UserChange {
        campaign_calls_per_second: Some(CallRate::per_second(2.0)),
        ..UserChange::default()
    };
    play.change_user(pace).await;
    let one = play.campaign(5, Pacing::FREE).await;
    let two = play.campaign(5, Pacing::FREE).await;

    let mut went = Vec::new();
    for _ in 0..4 {
        let started = play.settle().await.reserved;
        assert_eq!(started.len(), 1);
        went.extend(started[0].request.origin.campaign_id());
        play.pass(500);
    }

    assert_eq!(went, [one, two, one, two]);
    assert_eq!(play.settle().await.reserved.len(), 1);
    let paced = QueueReason::Paced(PacedBy::User);
    assert_eq!(play.reason(one).await, Some(paced));
    let agent = play.scene.agent(play.user).await;
    for _ in 0..5 {
        play.scene.started_call(play.user, agent).await;
    }
    let free = UserChange {
        campaign_calls_per_second: Some(None),
        ..UserChange::default()
    };
    play.change_user(free).await;
    assert_eq!(play.settle().await.reserved.len(), 5);
}

#[tokio::test]
async fn a_users_campaigns_take_turns_by_weight_and_one_that_comes_late_does_not_catch_up() {
    let play = Play::new().await;
    let one = play.campaign(40, Pacing::FREE).await;
    let two = play.campaign(40, weighing(3)).await;

    let order = play.one_by_one(12).await;

    let of = |id: CampaignId, order: &[CampaignId]| order.iter().filter(|it| **it == id).count();
    assert_eq!((of(one, &order), of(two, &order)), (3, 9));
    let late = play.campaign(40, Pacing::FREE).await;
    let order = play.one_by_one(10).await;
    assert_eq!(
        (of(one, &order), of(two, &order), of(late, &order)),
        (2, 6, 2)
    );
}

#[tokio::test]
async fn who_goes_next_is_told_as_it_comes() {
    let play = Play::new().await;
    for weight in [1, 2, 1] {
        play.campaign(6, weighing(weight)).await;
    }
    let mut connection = play.scene.connection();
    let user = play.user;
    for _ in 0..18 {
        let next = format!("SELECT id::text FROM get_next_queued('{user}')");
        let told = texts(&mut connection, &next);
        let first = "SELECT id::text FROM call_queue WHERE get_call_queue_position(id) = 1";
        let first = texts(&mut connection, first);
        let started = play.scene.dispatch(1).await;
        let went = vec![started[0].item_id.to_string()];
        assert_eq!((&told, &first), (&went, &went));
        let id = started[0].request.attempt.call_id;
        play.scene.end(id, Outcome::Completed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_settle_at_once_keep_one_pace_and_one_limit() {
    let scene = Arc::new(Scene::new().await);
    let slots = ConcurrencyLimit::new(1_000).unwrap();
    scene.store.set_system_limit(slots).await.unwrap();
    let user = scene.user().await;
    scene.limit(user, 1_000).await;
    let agent = scene.agent(user).await;
    let contacts = scene.contacts(user, 300).await;
    let mut campaign = new_campaign(user, agent, contacts);
    campaign.fields.pacing = Pacing {
        max_concurrent_calls: Some(ConcurrencyLimit::new(7).unwrap()),
        ..per_second(50.0)
    };
    let id = scene.store.create_campaign(campaign).await.unwrap().id;
    let opened = Instant::now();
    scene.set_status(user, id, CampaignStatus::Active).await;

    let together = Arc::new(tokio::sync::Barrier::new(4));
    let servers = (0..4).map(|_| {
        let (scene, together) = (scene.clone(), together.clone());
        tokio::spawn(async move {
            let server = ServerId::new();
            let lease = Duration::from_secs(600);
            scene.store.renew_lease(server, lease).await.unwrap();
            together.wait().await;
            let mut started = 0;
            for _ in 0..40 {
                let batch = SlotBatch {
                    reserve: 100,
                    ..SlotBatch::default()
                };
                let reserved = scene.store.settle(server, &batch).await.unwrap().reserved;
                let up = scene.count("SELECT count(*) FROM active_calls");
                assert!(up <= 7, "{up} are up");
                started += reserved.len();
                let batch = SlotBatch {
                    endings: reserved.iter().map(ending).collect(),
                    ..SlotBatch::default()
                };
                scene.store.settle(server, &batch).await.unwrap();
            }
            started
        })
    });
    let mut started = 0;
    for server in servers.collect::<Vec<_>>() {
        started += server.await.unwrap();
    }

    let most = 1.0 + 50.0 * (opened.elapsed().as_secs_f64() + 0.1);
    assert!(
        started > 0 && (started as f64) <= most,
        "{started} of {most}"
    );
    scene.assert_counters_equal_rows().await;
}
