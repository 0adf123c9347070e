//! Saying something else of a campaign, deleting it, and campaigns in figures; what starting and
//! pausing cost.

use callq_domain::{
    AgentId, CampaignCalls, CampaignFields, CampaignStatus, CampaignStore, DirectoryStore, Outcome,
    RetryCause, RetryPolicy, RetryRule, StoreError,
};
use chrono::NaiveTime;
use diesel::connection::SimpleConnection;

use crate::scene::{Scene, first_page, new_campaign, texts};

fn conflict<T>(sentence: &str) -> Result<T, StoreError> {
    Err(StoreError::Conflict(sentence.into()))
}

/// Other words for the campaign that `of` describes.
fn other_words(of: &CampaignFields) -> CampaignFields {
    CampaignFields {
        name: "Autumn".into(),
        next_action: "ask".into(),
        // At any time, still.
        first_call_time: NaiveTime::from_hms_opt(10, 15, 0).unwrap(),
        last_call_time: NaiveTime::from_hms_opt(10, 15, 0).unwrap(),
        end_date: None,
        campaign_timezone: None,
        use_custom_timezone: false,
        use_contact_timezone: false,
        retries: RetryPolicy {
            max_retries: 3,
            interval_minutes: 7,
            rules: [(RetryCause::Busy, RetryRule::new(2, vec![5]).unwrap())].into(),
        },
        ..of.clone()
    }
}

#[tokio::test]
async fn what_is_said_of_a_campaign_is_replaced_until_it_is_over() {
    use CampaignStatus::{Active, Cancelled, Draft, Paused};
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let agent = scene.agent(user).await;
    let contacts = scene.contacts(user, 2).await;
    let new = new_campaign(user, agent, contacts);
    let fields = other_words(&new.fields);
    let id = scene.store.create_campaign(new).await.unwrap().id;

    for status in [Draft, Active, Paused] {
        if status != Draft {
            scene.set_status(user, id, status).await;
        }
        let mut fields = fields.clone();
        fields.name = format!("while {}", status.as_str());
        let changed = scene.store.update_campaign(user, id, fields.clone()).await;
        let changed = changed.unwrap();
        assert_eq!((changed.status, &changed.fields), (status, &fields));
        assert_eq!(changed.progress.total, 2);
        assert_eq!(scene.store.campaign(user, id).await, Ok(Some(changed)));
    }
    let foreign = scene.store.update_campaign(other, id, fields.clone()).await;
    assert_eq!(foreign, Err(StoreError::NotFound));
    scene.set_status(user, id, Cancelled).await;
    let refused = scene.store.update_campaign(user, id, fields).await;
    assert_eq!(refused, conflict("campaign is cancelled"));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_draft_gets_another_agent_with_all_its_calls_and_nothing_else_does() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let id = scene.draft(user, 30).await;
    scene.sql(
        "UPDATE call_queue SET wakes_at = now() + interval '1 hour' WHERE id = \
             (SELECT id FROM call_queue ORDER BY position LIMIT 1); \
         UPDATE campaign_slots SET due = due - 1, later = 1",
    );
    let present = scene.store.campaign(user, id).await.unwrap().unwrap();
    let with = |agent: AgentId| CampaignFields {
        agent_id: agent,
        ..present.fields.clone()
    };
    for agent in [scene.agent(other).await, AgentId::new()] {
        let refused = scene.store.update_campaign(user, id, with(agent)).await;
        assert_eq!(refused, Err(StoreError::NotFound));
    }
    let agent = scene.agent(user).await;

    let changed = scene.store.update_campaign(user, id, with(agent)).await;

    assert_eq!(changed.unwrap().fields.agent_id, agent);
    let agents = texts(
        &mut scene.connection(),
        "SELECT DISTINCT agent_id::text FROM call_queue",
    );
    assert_eq!(agents, [agent.to_string()]);
    scene.assert_counters_equal_rows().await;
    // The one before is free to go.
    let before = present.fields.agent_id;
    assert_eq!(scene.store.delete_agent(user, before).await, Ok(()));
    scene.set_status(user, id, CampaignStatus::Active).await;
    let later = with(scene.agent(user).await);
    let refused = scene.store.update_campaign(user, id, later).await;
    assert_eq!(refused, conflict("campaign is active"));
}

#[tokio::test]
async fn a_draft_is_not_started_while_it_gets_another_agent_and_nobody_waits_for_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.draft(user, 3).await;
    let others = scene.campaign(scene.user().await, 3).await;
    let mut other = scene.connection();
    // As a change of the agent holds it.
    let held = "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('callq campaign start ";
    other.batch_execute(&format!("{held}{id}', 0))")).unwrap();
    let store = scene.store.clone();
    let starting = tokio::spawn(async move {
        store
            .set_campaign_status(user, id, CampaignStatus::Active)
            .await
    });
    scene.until_waiting_for_lock(1).await;

    let started = scene.dispatch(10).await;
    assert_eq!(started.len(), 2, "of {others}");

    other.batch_execute("COMMIT").unwrap();
    let started = starting.await.unwrap().unwrap();
    assert_eq!(started.status, CampaignStatus::Active);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_draft_that_is_deleted_is_found_no_more_and_its_calls_are_withdrawn() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (id, kept) = (scene.draft(user, 1_300).await, scene.draft(user, 2).await);
    let foreign = scene.store.delete_campaign(other, id).await;
    assert_eq!(foreign, Err(StoreError::NotFound));

    assert_eq!(scene.store.delete_campaign(user, id).await, Ok(()));

    assert_eq!(scene.store.campaign(user, id).await, Ok(None));
    let listed = scene.store.campaigns(user, first_page(10)).await.unwrap();
    assert_eq!(
        listed.items.iter().map(|it| it.id).collect::<Vec<_>>(),
        [kept]
    );
    let again = scene.store.delete_campaign(user, id).await;
    assert_eq!(again, Err(StoreError::NotFound));
    let started = scene
        .store
        .set_campaign_status(user, id, CampaignStatus::Active);
    assert_eq!(started.await, Err(StoreError::NotFound));
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 2);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_is_deleted_only_when_it_is_over_and_its_calls_and_figures_stay() {
    use CampaignStatus::{Cancelled, Paused};
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.campaign(user, 4).await;
    let up = scene.dispatch(2).await;
    let refused = scene.store.delete_campaign(user, id).await;
    assert_eq!(refused, conflict("campaign is active"));
    scene.set_status(user, id, Paused).await;
    let refused = scene.store.delete_campaign(user, id).await;
    assert_eq!(refused, conflict("campaign is paused"));
    scene
        .end(up[0].request.attempt.call_id, Outcome::Busy)
        .await;
    scene.set_status(user, id, Cancelled).await;

    // A call of it is still up, and goes on.
    assert_eq!(scene.store.delete_campaign(user, id).await, Ok(()));
    let last = up[1].request.attempt.call_id;
    scene.end(last, Outcome::Completed).await;

    assert_eq!(scene.store.campaign(user, id).await, Ok(None));
    let statistics = scene.store.campaign_statistics(user, id).await.unwrap();
    let statistics = statistics.unwrap();
    assert!(statistics.deleted_at.is_some());
    let progress = statistics.campaign.progress;
    assert_eq!((progress.total, progress.completed), (4, 1));
    assert_eq!((progress.failed, progress.cancelled), (1, 2));
    let calls = CampaignCalls {
        ended: 2,
        by_outcome: [1, 1, 0, 0, 0],
        attempts: 2,
        talk_seconds: 14,
    };
    assert_eq!(statistics.calls, Some(calls));
    assert_eq!(scene.count("SELECT count(*) FROM call_records"), 2);
    assert!(scene.count("SELECT count(*) FROM call_events") > 8);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn housekeeping_withdraws_what_a_deleted_draft_left() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.draft(user, 5).await;
    // What a server leaves that dies after the first transaction.
    scene.sql(&format!(
        "UPDATE campaigns SET status = 'cancelled', finished_at = now(), deleted_at = now() \
         WHERE id = '{id}'"
    ));

    use callq_domain::OwnershipStore;
    scene.store.maintain().await.unwrap();

    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 0);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn the_summary_adds_up_what_there_is_and_tells_what_was_deleted_apart() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let empty = scene.store.campaign_summary(other).await.unwrap();
    assert_eq!(empty, callq_domain::CampaignSummary::default());
    scene.draft(user, 3).await;
    scene.campaign(user, 5).await;
    let calls = scene.dispatch(2).await;
    scene
        .end(calls[0].request.attempt.call_id, Outcome::NoAnswer)
        .await;
    scene.draft(user, 2).await;
    let gone = scene.draft(user, 4).await;
    scene.store.delete_campaign(user, gone).await.unwrap();

    let summary = scene.store.campaign_summary(user).await.unwrap();

    let by_status = [(CampaignStatus::Active, 1), (CampaignStatus::Draft, 2)];
    assert_eq!(summary.by_status, by_status);
    let progress = summary.progress;
    assert_eq!((progress.total, progress.pending), (10, 5));
    assert_eq!((progress.queued, progress.processing), (3, 1));
    assert_eq!((progress.failed, progress.completed), (1, 0));
    assert_eq!(summary.deleted, 1);
    assert_eq!(summary.deleted_progress.cancelled, 4);
    assert_eq!(summary.deleted_progress.total, 4);
}

/// Which versions of rows there are, and how many of them: a row that is written gets another.
fn versions(scene: &Scene, table: &str) -> Vec<String> {
    let query = format!("SELECT ctid || ' ' || xmin FROM {table} ORDER BY 1");
    texts(&mut scene.connection(), &query)
}

#[tokio::test]
async fn starting_and_pausing_write_one_row_of_the_campaign_and_none_of_its_calls() {
    let contacts = if crate::is_long() { 100_000 } else { 3_000 };
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.draft(user, 1).await;
    let id = scene.draft(user, contacts).await;
    scene.draft(scene.user().await, 1).await;

    for status in [
        CampaignStatus::Active,
        CampaignStatus::Paused,
        CampaignStatus::Active,
    ] {
        let calls = versions(&scene, "call_queue");
        let campaigns = versions(&scene, "campaign_slots");
        let users = versions(&scene, "user_slots");

        scene.set_status(user, id, status).await;

        assert_eq!(versions(&scene, "call_queue"), calls, "{status:?}");
        for (table, before) in [("campaign_slots", campaigns), ("user_slots", users)] {
            let after = versions(&scene, table);
            let new = after.iter().filter(|one| !before.contains(one)).count();
            assert_eq!((after.len(), new), (before.len(), 1), "{status:?}: {table}");
        }
    }
    assert_eq!(scene.dispatch(1).await.len(), 1);
    scene.assert_counters_equal_rows().await;
}
