//! Campaigns' counts, of which some are tallied and not yet folded into their rows.

use callq_domain::{CampaignStatus, CampaignStore, Outcome};

use crate::scene::Scene;

async fn sole_campaign(scene: &Scene) -> Vec<String> {
    scene.assert_counters_equal_rows().await;
    crate::scene::texts(
        &mut scene.connection(),
        "SELECT coalesce(sole_campaign::text, 'none') FROM user_slots",
    )
}

#[tokio::test]
async fn a_campaigns_figures_are_the_same_before_and_after_folding() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 4).await;
    let id = scene.campaign(user, 9).await;
    scene.sql("SELECT fold_campaign_tallies()");
    let calls = scene.dispatch(4).await;
    for (call, outcome) in calls
        .iter()
        .zip([Outcome::Completed, Outcome::Busy, Outcome::Cancelled])
    {
        scene.end(call.request.attempt.call_id, outcome).await;
    }

    let told = scene.progress(user, id).await;
    scene.assert_counters_equal_rows().await;
    scene.sql("SELECT fold_campaign_tallies()");

    assert_eq!(scene.progress(user, id).await, told);
    assert_eq!((told.total, told.queued, told.processing), (9, 5, 1));
    assert_eq!((told.completed, told.failed, told.cancelled), (1, 1, 1));
    scene.assert_counters_equal_rows().await;
    let left = "SELECT count(*) FROM campaign_tallies";
    assert_eq!(scene.count(left), 0);
    let rows = "SELECT due + 10 * completed + 100 * failed + 1000 * cancelled FROM campaign_slots";
    assert_eq!(scene.count(rows), 1115);
}

#[tokio::test]
async fn settlements_fold_by_themselves_before_tallies_are_many() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.campaign(user, 100).await;
    let mut most = 0;
    for _ in 0..100 {
        let call = scene.dispatch(1).await.remove(0);
        scene
            .end(call.request.attempt.call_id, Outcome::Completed)
            .await;
        most = most.max(scene.count("SELECT count(*) FROM campaign_tallies"));
    }

    assert!((2..=32).contains(&most), "{most} tallies at one time");
    let over = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    assert_eq!((over.progress.total, over.progress.completed), (100, 100));
}

#[tokio::test]
async fn the_only_open_campaign_is_noted_as_campaigns_open_close_and_complete() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    assert_eq!(sole_campaign(&scene).await, ["none"]);
    let one = scene.campaign(user, 1).await;
    assert_eq!(sole_campaign(&scene).await, [one.to_string()]);
    let two = scene.campaign(user, 2).await;
    assert_eq!(sole_campaign(&scene).await, ["none"]);

    // With two open their calls go in the order in which they were queued.
    let first = scene.dispatch(1).await.remove(0);
    assert_eq!(first.request.origin.campaign_id(), Some(one));
    let second = scene.dispatch(1).await.remove(0);
    assert_eq!(second.request.origin.campaign_id(), Some(two));

    scene
        .end(first.request.attempt.call_id, Outcome::Completed)
        .await;
    let over = scene.store.campaign(user, one).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    assert_eq!(sole_campaign(&scene).await, [two.to_string()]);

    scene.set_status(user, two, CampaignStatus::Paused).await;
    assert_eq!(sole_campaign(&scene).await, ["none"]);
    scene.set_status(user, two, CampaignStatus::Active).await;
    assert_eq!(sole_campaign(&scene).await, [two.to_string()]);
}

#[tokio::test]
async fn a_paused_campaign_whose_last_call_ends_is_completed_while_another_goes_on() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let one = scene.campaign(user, 1).await;
    let last = scene.dispatch(1).await.remove(0);
    scene.set_status(user, one, CampaignStatus::Paused).await;
    let two = scene.campaign(user, 5).await;

    scene
        .end(last.request.attempt.call_id, Outcome::Completed)
        .await;

    let over = scene.store.campaign(user, one).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    let other = scene.store.campaign(user, two).await.unwrap().unwrap();
    assert_eq!(other.status, CampaignStatus::Active);
}
