//! What happens to a call happens once, and in one direction.

use callq_domain::{
    CallId, Ending, EndingEffect, EngineStore, ExecutionId, OperatorStore, Outcome, ProgressBatch,
    ReportedStatus, ServerId, SlotBatch, StatusEvent,
};

use crate::scene::Scene;

pub(crate) fn ending(call_id: CallId, attempt: Option<u32>) -> Ending {
    Ending {
        call_id,
        attempt,
        outcome: Outcome::Completed,
        execution_id: ExecutionId::new("x"),
        reason: None,
        duration_seconds: None,
    }
}

pub(crate) async fn end(
    scene: &Scene,
    server: ServerId,
    endings: Vec<Ending>,
) -> Vec<EndingEffect> {
    let batch = SlotBatch {
        endings,
        ..SlotBatch::default()
    };
    scene.store.settle(server, &batch).await.unwrap().endings
}

pub(crate) fn event(call_id: CallId, status: ReportedStatus) -> StatusEvent {
    StatusEvent {
        event_id: "e".into(),
        call_id,
        execution_id: ExecutionId::new("from-the-event"),
        status,
        occurred_at: chrono::Utc::now(),
        duration_seconds: None,
        reason: None,
    }
}

#[tokio::test]
async fn a_call_ends_once_however_often_it_is_said() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let call = scene
        .started_call(user, agent)
        .await
        .request
        .attempt
        .call_id;

    let both = end(
        &scene,
        scene.server,
        vec![ending(call, None), ending(call, None)],
    )
    .await;
    let late = end(
        &scene,
        scene.server,
        vec![ending(call, None), ending(CallId::new(), None)],
    )
    .await;

    assert_eq!(both, [EndingEffect::Ended, EndingEffect::Ignored]);
    assert_eq!(late, [EndingEffect::Ignored, EndingEffect::UnknownCall]);
    assert_eq!(
        scene.count("SELECT count(*) FROM call_records WHERE ended_at IS NOT NULL"),
        1
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn statuses_only_move_forward_and_an_event_may_name_the_call_first() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    let told = |status| {
        let batch = ProgressBatch {
            events: vec![event(attempt.call_id, status)],
            ..ProgressBatch::default()
        };
        let scene = &scene;
        async move {
            scene
                .store
                .record_progress(scene.server, &batch)
                .await
                .unwrap()
                .events[0]
        }
    };

    assert_eq!(told(ReportedStatus::InProgress).await, EndingEffect::Ended);
    assert_eq!(told(ReportedStatus::Ringing).await, EndingEffect::Ignored);
    let late = ProgressBatch {
        placed: vec![(attempt, ExecutionId::new("from-the-answer").unwrap())],
        unknown: vec![(attempt, "late".into())],
        ..ProgressBatch::default()
    };
    let outcome = scene
        .store
        .record_progress(scene.server, &late)
        .await
        .unwrap();

    assert_eq!(
        (outcome.placed, outcome.unknown),
        (vec![false], vec![false])
    );
    assert_eq!(
        scene.count("SELECT count(*) FROM active_calls WHERE status = 'in-progress' AND execution_id = 'from-the-event'"),
        1
    );
}

#[tokio::test]
async fn an_audit_names_a_counter_that_differs_from_its_rows() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    scene.started_call(user, agent).await;
    scene.sql("UPDATE system_state SET active = 7");

    let differences = scene.store.audit().await.unwrap();

    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(
        (
            differences[0].counter.as_str(),
            differences[0].kept,
            differences[0].counted
        ),
        ("system_state.active", 7, 1)
    );
}

#[tokio::test]
async fn a_row_inserted_by_hand_has_the_priority_of_its_type_and_must_match_it() {
    use diesel::connection::SimpleConnection;
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let insert = |call_type: &str| {
        format!(
            "INSERT INTO call_queue (user_id, agent_id, phone_number, call_type) \
             VALUES ('{user}', '{agent}', '+14155552671', '{call_type}')"
        )
    };

    scene.sql(&insert("direct"));
    let refused = scene
        .connection()
        .batch_execute(&insert("campaign"))
        .unwrap_err();

    assert_eq!(scene.count("SELECT priority FROM call_queue"), 100);
    assert!(
        refused
            .to_string()
            .contains("call_queue_campaign_matches_type"),
        "{refused}"
    );
}

#[tokio::test]
async fn an_event_of_another_execution_changes_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let attempt = scene.started_call(user, agent).await.request.attempt;
    scene.place(attempt).await;

    let told = ProgressBatch {
        events: vec![event(attempt.call_id, ReportedStatus::Ringing)],
        ..ProgressBatch::default()
    };
    let effect = scene
        .store
        .record_progress(scene.server, &told)
        .await
        .unwrap()
        .events[0];
    let end_of_another = end(&scene, scene.server, vec![ending(attempt.call_id, None)]).await;

    assert_eq!(
        (effect, end_of_another[0]),
        (EndingEffect::Ignored, EndingEffect::Ignored)
    );
    assert_eq!(scene.count("SELECT active FROM system_state"), 1);
}
