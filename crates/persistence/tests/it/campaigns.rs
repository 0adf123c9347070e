//! Campaigns.

use callq_domain::{
    AgentId, CampaignId, CampaignProgress, CampaignStatus, CampaignStore, ContactId, ItemFilter,
    Outcome, OwnershipStore, QueueStore, StoreError,
};

use crate::scene::{Scene, first_page, new_campaign, page_after, texts};

fn conflict<T>(sentence: &str) -> Result<T, StoreError> {
    Err(StoreError::Conflict(sentence.into()))
}

#[tokio::test]
async fn a_draft_is_kept_as_described_with_each_contact_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let contacts = scene.contacts(user, 3).await;
    let listed = [contacts.clone(), vec![contacts[0], contacts[2]]].concat();
    let new = new_campaign(user, agent, listed);

    let made = scene.store.create_campaign(new.clone()).await.unwrap();

    assert_eq!(
        (made.id, made.user_id, &made.fields),
        (new.id, user, &new.fields)
    );
    assert_eq!(made.status, CampaignStatus::Draft);
    let pending = CampaignProgress {
        total: 3,
        pending: 3,
        ..CampaignProgress::default()
    };
    assert_eq!(made.progress, pending);
    assert_eq!((made.started_at, made.finished_at), (None, None));
    assert_eq!(scene.store.campaign(user, new.id).await, Ok(Some(made)));
    let queued = "SELECT contact_id::text FROM call_queue WHERE call_type = 'campaign' \
        AND priority = 0 ORDER BY position";
    let expected: Vec<String> = contacts.iter().map(ContactId::to_string).collect();
    assert_eq!(texts(&mut scene.connection(), queued), expected);
    let listed = "SELECT contact_id::text FROM campaign_contacts ORDER BY ordinal";
    assert_eq!(texts(&mut scene.connection(), listed), expected);
    assert_eq!(
        scene.count("SELECT count(*) FROM call_events WHERE status = 'queued'"),
        3
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_takes_what_the_contact_says() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let contact = scene.contact(user).await;
    scene.sql(
        "UPDATE contacts SET name = 'Bob', user_data = '{\"n\": 1}', phone_number = '+14155552671'",
    );

    let campaign = new_campaign(user, scene.agent(user).await, vec![contact]);
    scene.store.create_campaign(campaign).await.unwrap();

    let told = "SELECT concat_ws(' ', phone_number, contact_name, user_data::text) FROM call_queue";
    assert_eq!(
        texts(&mut scene.connection(), told),
        ["+14155552671 Bob {\"n\": 1}"]
    );
}

#[tokio::test]
async fn a_campaign_needs_an_agent_and_contacts_of_its_own_user() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (agent, foreign_agent) = (scene.agent(user).await, scene.agent(other).await);
    let (contact, foreign) = (scene.contact(user).await, scene.contact(other).await);
    let unknown = ContactId::new();

    for agent in [foreign_agent, AgentId::new()] {
        let refused = scene
            .store
            .create_campaign(new_campaign(user, agent, vec![contact]))
            .await;
        assert_eq!(refused, Err(StoreError::NotFound));
    }
    for missing in [foreign, unknown] {
        let listed = vec![contact, missing, ContactId::new()];
        let refused = scene
            .store
            .create_campaign(new_campaign(user, agent, listed))
            .await;
        assert_eq!(
            refused,
            conflict(&format!("contact {missing} does not exist"))
        );
    }

    let left = "SELECT (SELECT count(*) FROM campaigns) + (SELECT count(*) FROM call_queue) \
        + (SELECT count(*) FROM campaign_slots) + (SELECT count(*) FROM call_events)";
    assert_eq!(scene.count(left), 0);
}

#[tokio::test]
async fn campaigns_are_listed_newest_first_to_their_user_only() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let foreign = scene.draft(other, 1).await;
    let first = scene.draft(user, 1).await;
    let second = scene.draft(user, 1).await;

    let page = scene.store.campaigns(user, first_page(1)).await.unwrap();
    let rest = page_after(1, page.next_cursor.clone());
    let rest = scene.store.campaigns(user, rest).await.unwrap();

    assert_eq!((page.items[0].id, rest.items[0].id), (second, first));
    assert_eq!(
        (page.items.len(), rest.items.len(), rest.next_cursor),
        (1, 1, None)
    );
    assert_eq!(scene.store.campaign(user, foreign).await, Ok(None));
    let taken = scene
        .store
        .set_campaign_status(user, foreign, CampaignStatus::Active)
        .await;
    assert_eq!(taken, Err(StoreError::NotFound));
    let unknown = CampaignId::new();
    let taken = scene
        .store
        .set_campaign_status(user, unknown, CampaignStatus::Active)
        .await;
    assert_eq!(taken, Err(StoreError::NotFound));
}

#[tokio::test]
async fn a_drafts_calls_wait_for_its_start_and_are_not_in_the_queue_before() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.draft(user, 3).await;

    assert_eq!(scene.dispatch(10).await.len(), 0);
    let queue = scene.store.queue_status(user).await.unwrap();
    assert_eq!((queue.campaign.queued, queue.campaign.processing), (0, 0));
    let items = scene
        .store
        .items(user, ItemFilter::default(), first_page(10))
        .await
        .unwrap();
    assert_eq!(items.items, []);

    let started = scene.set_status(user, id, CampaignStatus::Active).await;

    assert_eq!(started.status, CampaignStatus::Active);
    assert!(started.started_at.is_some() && started.finished_at.is_none());
    assert_eq!((started.progress.pending, started.progress.queued), (0, 3));
    let items = scene
        .store
        .items(user, ItemFilter::default(), first_page(10))
        .await
        .unwrap();
    assert_eq!(items.items.len(), 3);
    assert_eq!(scene.dispatch(10).await.len(), 2);
    let queue = scene.store.queue_status(user).await.unwrap();
    assert_eq!((queue.campaign.queued, queue.campaign.processing), (1, 2));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn progress_adds_up_to_the_end() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 4).await;
    let id = scene.campaign(user, 5).await;
    let calls = scene.dispatch(4).await;
    for (call, outcome) in calls
        .iter()
        .zip([Outcome::Completed, Outcome::Busy, Outcome::Cancelled])
    {
        scene.end(call.request.attempt.call_id, outcome).await;
    }

    let half = scene.store.campaign(user, id).await.unwrap().unwrap();
    let progress = CampaignProgress {
        total: 5,
        pending: 0,
        queued: 1,
        processing: 1,
        completed: 1,
        failed: 1,
        cancelled: 1,
        expired: 0,
    };
    assert_eq!(
        (half.status, half.progress),
        (CampaignStatus::Active, progress)
    );

    let last = scene.dispatch(1).await;
    for call in [&calls[3], &last[0]] {
        scene
            .end(call.request.attempt.call_id, Outcome::NoAnswer)
            .await;
    }

    let over = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(
        (over.status, over.progress.failed),
        (CampaignStatus::Completed, 3)
    );
    assert!(over.finished_at.is_some());
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn pausing_holds_waiting_calls_and_leaves_running_ones_alone() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.campaign(user, 3).await;
    let running = scene.dispatch(1).await;

    let paused = scene.set_status(user, id, CampaignStatus::Paused).await;

    assert_eq!(
        (paused.status, paused.progress.queued),
        (CampaignStatus::Paused, 2)
    );
    assert_eq!(paused.progress.processing, 1);
    assert_eq!(scene.dispatch(10).await.len(), 0);
    scene.assert_counters_equal_rows().await;

    let resumed = scene.set_status(user, id, CampaignStatus::Active).await;

    assert_eq!(resumed.started_at, paused.started_at);
    assert_eq!(scene.dispatch(10).await.len(), 1);
    scene
        .end(running[0].request.attempt.call_id, Outcome::Completed)
        .await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_that_may_not_change_says_where_it_stands() {
    use CampaignStatus as S;
    let scene = Scene::new().await;
    let user = scene.user().await;
    let draft = scene.draft(user, 1).await;
    let active = scene.campaign(user, 1).await;
    let cancelled = scene.draft(user, 1).await;
    scene.set_status(user, cancelled, S::Cancelled).await;

    for (id, asked, sentence) in [
        (draft, S::Paused, "campaign is draft"),
        (draft, S::Draft, "campaign is draft"),
        (active, S::Active, "campaign is active"),
        (active, S::Completed, "campaign is active"),
        (cancelled, S::Active, "campaign is cancelled"),
        (cancelled, S::Cancelled, "campaign is cancelled"),
    ] {
        let refused = scene.store.set_campaign_status(user, id, asked).await;
        assert_eq!(refused, conflict(sentence), "{asked:?}");
    }
}

#[tokio::test]
async fn a_campaign_with_nobody_to_call_is_over_when_it_starts() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.draft(user, 0).await;

    let started = scene.set_status(user, id, CampaignStatus::Active).await;

    assert_eq!(started.status, CampaignStatus::Completed);
    assert!(started.started_at.is_some() && started.finished_at.is_some());
}

#[tokio::test]
async fn cancelling_withdraws_what_waits_whatever_its_number() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.campaign(user, 4_500).await;
    let running = scene.dispatch(1).await;
    scene.sql(
        "UPDATE call_queue SET wakes_at = now() + interval '1 hour' WHERE id IN \
            (SELECT id FROM call_queue WHERE status = 'queued' ORDER BY position LIMIT 2); \
         UPDATE campaign_slots SET due = due - 2, later = 2; \
         UPDATE user_slots SET due_campaign = due_campaign - 2",
    );

    let cancelled = scene.set_status(user, id, CampaignStatus::Cancelled).await;

    assert_eq!(cancelled.status, CampaignStatus::Cancelled);
    assert!(cancelled.finished_at.is_some());
    let progress = cancelled.progress;
    assert_eq!((progress.total, progress.cancelled), (4_500, 4_499));
    assert_eq!((progress.queued, progress.processing), (0, 1));
    let reasons = "SELECT DISTINCT reason FROM call_queue_history WHERE status = 'cancelled'";
    assert_eq!(
        texts(&mut scene.connection(), reasons),
        ["campaign cancelled"]
    );
    scene.assert_counters_equal_rows().await;

    scene
        .end(running[0].request.attempt.call_id, Outcome::Completed)
        .await;
    let after = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(after.status, CampaignStatus::Cancelled);
    assert_eq!(
        (after.progress.completed, after.progress.cancelled),
        (1, 4_499)
    );
}

#[tokio::test]
async fn housekeeping_finishes_a_cancellation_that_was_cut_short() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (one, two) = (scene.draft(user, 2_500).await, scene.draft(user, 3).await);
    let untouched = scene.campaign(user, 2).await;
    // What a server leaves that dies after its first transaction.
    scene.sql(&format!(
        "UPDATE campaigns SET status = 'cancelled', finished_at = now() WHERE id IN ('{one}', '{two}')"
    ));

    scene.store.maintain().await.unwrap();

    for (id, cancelled, queued) in [(one, 2_500, 0), (two, 3, 0), (untouched, 0, 2)] {
        let progress = scene
            .store
            .campaign(user, id)
            .await
            .unwrap()
            .unwrap()
            .progress;
        assert_eq!((progress.cancelled, progress.queued), (cancelled, queued));
    }
    scene.assert_counters_equal_rows().await;
}
