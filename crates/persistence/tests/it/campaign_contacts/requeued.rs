//! Contacts that were not reached are queued again, and each still counts once.

use super::*;

#[tokio::test]
async fn those_not_reached_are_queued_again_once_and_count_as_waiting() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 5).await;
    scene.run(1, Outcome::Completed).await;
    scene.run(2, Outcome::NoAnswer).await;
    let last = These(vec![contacts[4]]);
    let withdrawn = scene.store.cancel_campaign_contacts(user, id, last).await;
    withdrawn.unwrap();
    scene.assert_each_contact_counts_once(user, id).await;

    let failed = vec![ContactStatus::Failed, ContactStatus::Completed];
    let store = &scene.store;
    let requeued = store.requeue_campaign_contacts(user, id, All, failed).await;

    assert_eq!(requeued, Ok(2));
    scene.assert_each_contact_counts_once(user, id).await;
    let waiting = scene
        .listed(user, id, Some(ContactStatus::Queued), 10)
        .await;
    assert_eq!(ids(&waiting), [contacts[3], contacts[1], contacts[2]]);
    assert_eq!(
        (waiting[1].attempts, waiting[1].outcome),
        (1, Some(Outcome::NoAnswer))
    );
    assert_eq!(scene.requeue(user, id, All).await, 1, "the one withdrawn");
    assert_eq!(scene.requeue(user, id, All).await, 0);
    assert_eq!(scene.run(4, Outcome::Completed).await, 4);
    scene.assert_each_contact_counts_once(user, id).await;
    let all = scene.listed(user, id, None, 10).await;
    assert_eq!((all[1].attempts, all[3].attempts), (2, 1));
    let progress = scene.progress(user, id).await;
    assert_eq!((progress.total, progress.completed), (5, 5));
    // Each call that was made is kept.
    let calls = "SELECT count(*) FROM call_records";
    assert_eq!(scene.count(calls), 7);
}

#[tokio::test]
async fn a_completed_campaign_goes_on_with_those_queued_again_and_a_cancelled_one_does_not() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 3).await;
    scene.run(3, Outcome::Busy).await;
    let over = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    assert_eq!(
        scene.requeue(user, id, These(vec![ContactId::new()])).await,
        0
    );
    assert_eq!(scene.status(user, id).await, CampaignStatus::Completed);

    assert_eq!(scene.requeue(user, id, These(vec![contacts[1]])).await, 1);

    let again = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(
        (again.status, again.finished_at),
        (CampaignStatus::Active, None)
    );
    assert_eq!(again.started_at, over.started_at);
    assert_eq!((again.progress.queued, again.progress.failed), (1, 2));
    scene.assert_each_contact_counts_once(user, id).await;
    assert_eq!(scene.run(5, Outcome::Completed).await, 1);
    let over = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    assert!(over.finished_at.is_some());
    scene.assert_each_contact_counts_once(user, id).await;

    assert_eq!(scene.requeue(user, id, All).await, 2);
    scene.set_status(user, id, CampaignStatus::Cancelled).await;
    let ended = ContactStatus::REPEATABLE.to_vec();
    let refused = scene.store.requeue_campaign_contacts(user, id, All, ended);
    let sentence = StoreError::Conflict("campaign is cancelled".into());
    assert_eq!(refused.await, Err(sentence));
    scene.assert_each_contact_counts_once(user, id).await;
}

#[tokio::test]
async fn every_contact_counts_once_whatever_happens_while_calls_are_up() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 4).await;
    let (id, contacts) = scene.campaign_of(user, 12).await;
    // In progress, and tallied but not folded: what is counted lies in several places.
    let up = scene.dispatch(4).await;
    let call = |nth: usize| up[nth].request.attempt.call_id;
    scene.assert_each_contact_counts_once(user, id).await;

    scene.end(call(0), Outcome::Failed).await;
    assert_eq!(scene.requeue(user, id, All).await, 1);
    scene.assert_each_contact_counts_once(user, id).await;
    scene.set_status(user, id, CampaignStatus::Paused).await;
    scene.end(call(1), Outcome::Busy).await;
    scene.assert_each_contact_counts_once(user, id).await;
    assert_eq!(scene.requeue(user, id, These(vec![contacts[1]])).await, 1);
    scene.assert_each_contact_counts_once(user, id).await;
    let withdrawn = scene.store.cancel_campaign_contacts(user, id, All).await;
    assert_eq!(withdrawn, Ok(10));
    scene.assert_each_contact_counts_once(user, id).await;
    // One comes back while all others are withdrawn; the campaign is not over before it is.
    scene.give_back(up[2].request.attempt).await;
    scene.end(call(3), Outcome::Completed).await;
    assert_eq!(scene.status(user, id).await, CampaignStatus::Paused);
    scene.assert_each_contact_counts_once(user, id).await;
    let more = scene.contacts(user, 2).await;
    let added = scene.store.add_campaign_contacts(user, id, more).await;
    added.unwrap();
    scene.assert_each_contact_counts_once(user, id).await;
    assert_eq!(scene.requeue(user, id, All).await, 10);
    scene.assert_each_contact_counts_once(user, id).await;

    scene.set_status(user, id, CampaignStatus::Active).await;
    scene.sql("UPDATE user_slots SET held_campaign = NULL; SELECT refile_lanes(ARRAY(SELECT user_id FROM user_slots))");
    let mut left = scene.dispatch(4).await;
    scene
        .end(left[0].request.attempt.call_id, Outcome::NoAnswer)
        .await;
    scene.assert_each_contact_counts_once(user, id).await;
    let cancelled = scene.set_status(user, id, CampaignStatus::Cancelled).await;
    assert_eq!(cancelled.progress.processing, 3);
    scene.assert_each_contact_counts_once(user, id).await;
    for call in left.drain(1..) {
        scene
            .end(call.request.attempt.call_id, Outcome::Completed)
            .await;
        scene.assert_each_contact_counts_once(user, id).await;
    }
    let progress = scene.progress(user, id).await;
    assert_eq!((progress.total, progress.completed), (14, 4));
    assert_eq!((progress.failed, progress.cancelled), (1, 9));
}

#[tokio::test]
async fn a_requeue_that_comes_too_late_or_breaks_changes_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, _) = scene.campaign_of(user, 3).await;
    scene.run(1, Outcome::Busy).await;
    let mut other = scene.connection();
    use diesel::connection::SimpleConnection;
    // Someone cancels after the requeue has laid out its rows.
    other.batch_execute("BEGIN; SELECT lock_engine()").unwrap();
    let store = scene.store.clone();
    let ended = ContactStatus::REPEATABLE.to_vec();
    let late =
        tokio::spawn(async move { store.requeue_campaign_contacts(user, id, All, ended).await });
    scene.until_waiting_for_lock(1).await;
    let cancel = format!(
        "UPDATE campaigns SET status = 'cancelled', finished_at = now() WHERE id = '{id}'; \
         SELECT set_campaign_open('{id}', false); COMMIT"
    );
    other.batch_execute(&cancel).unwrap();

    let sentence = StoreError::Conflict("campaign is cancelled".into());
    assert_eq!(late.await.unwrap(), Err(sentence));
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 2);
    scene.assert_each_contact_counts_once(user, id).await;
}
