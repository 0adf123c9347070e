//! Calls, live and ended.

use callq_domain::{
    Call, CallId, CallStatus, CallStore, CallTransition, DirectoryStore, OperatorStore, Origin,
    Outcome, ProviderName, QueueStore, UserId,
};

use crate::scene::{Scene, agent_fields, first_page, page_after};

async fn read(scene: &Scene, user: UserId, id: CallId) -> (Call, Vec<String>) {
    let (call, history) = scene.store.call(user, id).await.unwrap().unwrap();
    (call, words(&history))
}

fn words(history: &[CallTransition]) -> Vec<String> {
    history.iter().map(|entry| entry.status.clone()).collect()
}

#[tokio::test]
async fn a_call_is_read_live_and_ended_with_all_that_happened_to_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.limit(user, 0).await;
    let item = scene.waiting_call(user, agent).await;
    scene.limit(user, 1).await;
    let reserved = scene.dispatch(1).await.remove(0);
    let id = reserved.request.attempt.call_id;

    let (call, history) = read(&scene, user, id).await;
    assert_eq!(
        (call.id, call.item_id, call.user_id, call.agent_id),
        (id, item, user, agent)
    );
    assert_eq!(
        (call.status, call.origin, call.attempts),
        (CallStatus::Dialing, Origin::Direct, 1)
    );
    assert_eq!(call.provider, ProviderName::new("simulator").unwrap());
    assert_eq!((call.execution_id, call.ended_at), (None, None));
    assert_eq!(history, ["queued", "reserved", "dialing"]);

    scene.place(reserved.request.attempt).await;
    scene.end(id, Outcome::Busy).await;

    let (call, history) = read(&scene, user, id).await;
    assert_eq!(call.status, CallStatus::Ended(Outcome::Busy));
    assert_eq!(call.execution_id.unwrap().as_str(), "execution");
    assert!(call.ended_at.is_some());
    assert_eq!(call.duration_seconds, Some(7));
    assert_eq!(history, ["queued", "reserved", "dialing", "placed", "busy"]);
    let (_, history) = scene.store.call(user, id).await.unwrap().unwrap();
    assert_eq!(history[1].attempt, Some(1));
    assert_eq!(history[1].server, Some(scene.server));
    assert!(history.is_sorted_by_key(|entry| entry.at));
}

#[tokio::test]
async fn calls_are_listed_those_that_are_up_first_then_newest_first_to_their_user_only() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (agent, foreign) = (scene.agent(user).await, scene.agent(other).await);
    scene.limit(user, 9).await;
    let hidden = scene
        .started_call(other, foreign)
        .await
        .request
        .attempt
        .call_id;
    let (mut up, mut over) = (Vec::new(), Vec::new());
    for nth in 0..5 {
        let id = scene
            .started_call(user, agent)
            .await
            .request
            .attempt
            .call_id;
        if nth % 2 == 0 {
            scene.end(id, Outcome::Completed).await;
            over.insert(0, id);
        } else {
            up.insert(0, id);
        }
    }

    let mut seen = Vec::new();
    let mut request = first_page(2);
    loop {
        let page = scene.store.calls(user, request).await.unwrap();
        seen.extend(page.items.iter().map(|call| call.id));
        match page.next_cursor {
            Some(cursor) => request = page_after(2, Some(cursor)),
            None => break,
        }
    }

    assert_eq!(seen, [up, over].concat());
    assert!(scene.store.call(user, hidden).await.unwrap().is_none());
    assert!(
        scene
            .store
            .call(user, CallId::new())
            .await
            .unwrap()
            .is_none()
    );
    let live = scene.store.held_calls(None, None).await.unwrap().items;
    assert_eq!(live.len(), 3);
    assert_eq!(live[0].call.id, hidden);
    assert!(live.is_sorted_by_key(|held| held.call.reserved_at));
}

#[tokio::test]
async fn a_call_that_went_back_to_the_queue_is_still_found() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let mut fields = agent_fields("Ada");
    fields.provider = ProviderName::new("http");
    scene.store.update_agent(user, agent, fields).await.unwrap();
    let reserved = scene.started_call(user, agent).await;
    let attempt = reserved.request.attempt;
    let (before, _) = read(&scene, user, attempt.call_id).await;
    scene.give_back(attempt).await;

    let (call, history) = read(&scene, user, attempt.call_id).await;

    assert_eq!((call.id, call.item_id), (attempt.call_id, reserved.item_id));
    assert_eq!(call.status, CallStatus::Reserved);
    assert_eq!(call.reason.as_deref(), Some("provider is busy"));
    assert_eq!(call.provider, ProviderName::new("http").unwrap());
    assert_eq!((call.attempts, call.reserved_at), (1, before.reserved_at));
    assert_eq!(history, ["reserved", "dialing", "queued"]);
    assert_eq!(
        scene.store.calls(user, first_page(9)).await.unwrap().items,
        []
    );
    let other = scene.user().await;
    assert!(
        scene
            .store
            .call(other, attempt.call_id)
            .await
            .unwrap()
            .is_none()
    );

    scene
        .store
        .cancel_item(user, reserved.item_id)
        .await
        .unwrap()
        .unwrap();

    let (call, history) = read(&scene, user, attempt.call_id).await;
    assert_eq!(call.status, CallStatus::Ended(Outcome::Cancelled));
    assert_eq!(call.reason.as_deref(), Some("cancelled by its owner"));
    assert!(call.ended_at.is_some());
    assert_eq!(history, ["reserved", "dialing", "queued", "cancelled"]);
}

#[tokio::test]
async fn a_campaigns_call_names_its_campaign_and_contact() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let id = scene.dispatch(1).await[0].request.attempt.call_id;

    let (call, history) = read(&scene, user, id).await;

    assert_eq!(call.origin, Origin::Campaign(campaign));
    assert!(call.contact_id.is_some());
    assert_eq!(history, ["queued", "reserved", "dialing"]);
}
