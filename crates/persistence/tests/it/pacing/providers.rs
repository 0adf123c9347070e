//! What a provider takes in a second is shared by all users, direct calls first.

use super::*;

impl Play {
    async fn carried_by(&self, user: UserId, provider: &str) -> AgentId {
        let fields = AgentFields {
            provider: ProviderName::new(provider),
            ..agent_fields("Ada")
        };
        let made = self
            .scene
            .store
            .create_agent(AgentId::new(), user, fields)
            .await;
        made.unwrap().id
    }

    async fn provider_pace(&self, provider: &str, calls: f64) {
        let provider = ProviderName::new(provider).unwrap();
        let pace = CallRate::per_second(calls);
        let store = &self.scene.store;
        store.set_provider_pace(provider, pace).await.unwrap();
    }

    async fn started(&self) -> Vec<(UserId, Option<CampaignId>)> {
        let started = self.settle().await.reserved;
        let who = started.iter().map(|call| &call.request);
        who.map(|call| (call.user_id, call.origin.campaign_id()))
            .collect()
    }
}

#[tokio::test]
async fn a_providers_calls_start_apart_whosever_they_are_direct_ones_first() {
    let mut play = Play::new().await;
    play.provider_pace("http", 2.0).await;
    let other = play.scene.user().await;
    let (own, others) = (
        play.carried_by(play.user, "http").await,
        play.carried_by(other, "http").await,
    );
    let campaign = play.draft_by(own, 5, Pacing::FREE).await;
    play.start(campaign).await;
    assert_eq!(play.started().await, [(play.user, Some(campaign))]);

    // The door: the pace is used up, so they wait; what another provider carries does not.
    for agent in [(play.user, own), (other, others), (other, others)] {
        let Admission::Queued(queued) = play.scene.direct_call(agent.0, agent.1).await else {
            panic!("the provider takes two calls a second");
        };
        let ahead = |n| QueueReason::EarlierDirectCalls { ahead: n };
        let paced = QueueReason::Paced(PacedBy::Provider);
        assert!([paced, ahead(1)].contains(&queued.reason), "{queued:?}");
    }
    let third = play.scene.user().await;
    let free = play.carried_by(third, "simulator").await;
    play.scene.started_call(third, free).await;

    let mut went = Vec::new();
    for _ in 0..5 {
        assert_eq!(play.started().await, []);
        play.pass(500);
        went.extend(play.started().await);
    }
    let direct = |user| (user, None);
    let calls = (play.user, Some(campaign));
    assert_eq!(
        went,
        [
            direct(play.user),
            direct(other),
            direct(other),
            calls,
            calls
        ]
    );
}

#[tokio::test]
async fn the_default_providers_pace_holds_for_agents_that_name_none_and_a_null_ends_it() {
    let mut play = Play::new().await;
    play.provider_pace("simulator", 1.0).await;
    let campaign = play.campaign(9, Pacing::FREE).await;
    assert_eq!(play.started().await.len(), 1);
    assert_eq!(
        play.reason(campaign).await,
        Some(QueueReason::Paced(PacedBy::Provider))
    );
    play.pass(1_000);
    assert_eq!(play.started().await.len(), 1);

    play.provider_pace("simulator", f64::NAN).await;

    assert_eq!(play.started().await.len(), 7);
    assert_eq!(play.scene.store.provider_paces().await.unwrap(), []);
}

#[tokio::test]
async fn calls_at_the_door_of_one_batch_share_the_pace_and_none_overtakes() {
    let play = Play::new().await;
    play.provider_pace("http", 1.0).await;
    let slow = play.carried_by(play.user, "http").await;
    let fast = play.carried_by(play.user, "simulator").await;
    let calls = [slow, slow, fast].map(|agent| {
        let number = crate::scene::phone_number(play.scene.number());
        let target = callq_domain::Target::Number(number.parse().unwrap());
        crate::scene::direct_call(play.user, agent, target)
    });
    let batch = SlotBatch {
        admissions: calls.into(),
        ..SlotBatch::default()
    };

    let store = &play.scene.store;
    let settled = store.settle(play.scene.server, &batch).await.unwrap();

    let starts = settled.admissions.iter();
    let starts: Vec<bool> = starts
        .map(|it| matches!(it, Admission::Started(_)))
        .collect();
    assert_eq!(starts, [true, false, false]);
    play.scene.assert_counters_equal_rows().await;
}
