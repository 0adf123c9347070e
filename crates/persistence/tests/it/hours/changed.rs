//! What is said anew of a campaign's hours holds at once.

use callq_domain::{
    CampaignContactStore, ContactSelection, ContactStatus, ContactsAdded, RetryCause, RetryRule,
    Weekdays,
};

use super::*;

impl Play {
    async fn change(
        &self,
        id: CampaignId,
        change: impl FnOnce(&mut CampaignFields),
    ) -> Result<Campaign, StoreError> {
        let mut fields = self.campaign(id).await.fields;
        change(&mut fields);
        self.scene
            .store
            .update_campaign(self.user, id, fields)
            .await
    }

    fn windows(&self) -> Vec<String> {
        let query = "SELECT opens_at || ' ' || closes_at || ' ' || opened FROM campaign_windows \
            ORDER BY opens_at";
        texts(&mut self.scene.connection(), query)
    }
}

#[tokio::test]
async fn new_hours_open_and_close_a_campaign_under_way_at_once() {
    let play = Play::new().await;
    let id = play.draft(9, |_| {}).await;
    assert_eq!(play.start(id).await.status, CampaignStatus::Scheduled);
    assert_eq!(play.started().await, 0);

    let change = |fields: &mut CampaignFields| {
        fields.first_call_time = "08:00:00".parse().unwrap();
    };
    let opened = play.change(id, change).await.unwrap();

    assert_eq!(
        (opened.status, opened.is_open),
        (CampaignStatus::Active, true)
    );
    assert_eq!(play.started().await, 2);
    let change = |fields: &mut CampaignFields| {
        fields.weekdays = Weekdays::from_names(["wed", "fri"]).unwrap();
        fields.holidays = ["2030-05-01".parse().unwrap()].into();
        fields.use_custom_timezone = true;
        fields.campaign_timezone = Some("America/New_York".into());
    };
    let closed = play.change(id, change).await.unwrap();
    assert_eq!(
        (closed.status, closed.is_open),
        (CampaignStatus::Active, false)
    );
    let opens_at = closed.window.unwrap().opens_at.to_rfc3339();
    assert_eq!(opens_at, "2030-05-03T12:00:00+00:00");
    assert_eq!(play.started().await, 0);
}

#[tokio::test]
async fn new_hours_that_leave_no_time_are_refused_and_change_nothing() {
    let mut play = Play::new().await;
    let id = play.draft(3, |_| {}).await;
    play.start(id).await;
    play.at("2030-05-02T12:00:00Z");
    play.scene.look().await;
    let (before, windows) = (play.campaign(id).await, play.windows());

    let change = |fields: &mut CampaignFields| {
        fields.end_date = Some("2030-05-01".parse().unwrap());
        fields.retries.max_retries = 4;
        let rule = RetryRule::new(1, vec![2]).unwrap();
        fields.retries.rules.insert(RetryCause::Busy, rule);
    };
    let refused = play.change(id, change).await;

    assert!(
        matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("no hours left")),
        "{refused:?}"
    );
    assert_eq!(play.campaign(id).await, before);
    assert_eq!(play.windows(), windows);
    assert_eq!(play.started().await, 2);
}

#[tokio::test]
async fn a_paused_campaign_gets_its_new_hours_when_it_is_resumed_and_a_draft_when_it_is_started() {
    let mut play = Play::new().await;
    let id = play.draft(3, |_| {}).await;
    play.at("2030-05-01T12:00:00Z");
    let later = |fields: &mut CampaignFields| {
        fields.start_date = "2030-05-06".parse().unwrap();
    };
    let changed = play.change(id, later).await.unwrap();
    assert_eq!((changed.window, play.windows().len()), (None, 0));
    play.start(id).await;
    play.scene
        .set_status(play.user, id, CampaignStatus::Paused)
        .await;
    assert!(!play.windows().is_empty());

    let sooner = |fields: &mut CampaignFields| {
        fields.start_date = "2030-05-01".parse().unwrap();
    };
    let changed = play.change(id, sooner).await.unwrap();

    assert_eq!(changed.status, CampaignStatus::Paused);
    assert_eq!(play.windows().len(), 0);
    assert_eq!(
        play.scene
            .count("SELECT count(*) FROM campaign_slots WHERE keeps_hours AND NOT open"),
        1
    );
    assert_eq!(play.started().await, 0);
    let resumed = play.start(id).await;
    assert_eq!(
        (resumed.status, resumed.is_open),
        (CampaignStatus::Active, true)
    );
    assert_eq!(play.started().await, 2);
}

#[tokio::test]
async fn a_scheduled_campaign_is_under_way_and_counted_apart() {
    let mut play = Play::new().await;
    let id = play.draft(3, |_| {}).await;
    play.start(id).await;
    let store = &play.scene.store;

    let summary = store.campaign_summary(play.user).await.unwrap();
    assert_eq!(summary.by_status, [(CampaignStatus::Scheduled, 1)]);
    assert_eq!(summary.progress.queued, 3);
    let conflict = StoreError::Conflict("campaign is scheduled".into());
    let deleted = store.delete_campaign(play.user, id).await;
    assert_eq!(deleted, Err(conflict));
    let more = play.scene.contacts(play.user, 1).await;
    let added = store.add_campaign_contacts(play.user, id, more.clone());
    let one = ContactsAdded::Added {
        added: 1,
        skipped: vec![],
    };
    assert_eq!(added.await, Ok(one));
    let these = ContactSelection::These(more);
    let withdrawn = store
        .cancel_campaign_contacts(play.user, id, these.clone())
        .await;
    assert_eq!(withdrawn, Ok(1));
    let ended = vec![ContactStatus::Cancelled];
    let requeued = store.requeue_campaign_contacts(play.user, id, these, ended);
    assert_eq!(requeued.await, Ok(1));
    let now = play.campaign(id).await;
    assert_eq!(
        (now.status, now.progress.queued),
        (CampaignStatus::Scheduled, 4)
    );
    assert_eq!(play.started().await, 0);

    play.at("2030-05-01T07:00:00Z");
    assert_eq!(play.started().await, 2);
    let summary = play.scene.store.campaign_summary(play.user).await.unwrap();
    assert_eq!(summary.by_status, [(CampaignStatus::Active, 1)]);
}

#[tokio::test]
async fn a_completed_campaign_is_repeated_within_its_hours_alone() {
    let mut play = Play::new().await;
    let change = |fields: &mut CampaignFields| {
        fields.end_date = Some("2030-05-02".parse().unwrap());
    };
    let id = play.draft(1, change).await;
    play.start(id).await;
    play.at("2030-05-01T14:59:59Z");
    let up = play.scene.dispatch(1).await.remove(0);
    play.at("2030-05-01T16:00:00Z");
    play.scene
        .end(up.request.attempt.call_id, Outcome::Busy)
        .await;
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
    let failed = vec![ContactStatus::Failed];

    let again = play.scene.store.requeue_campaign_contacts(
        play.user,
        id,
        ContactSelection::All,
        failed.clone(),
    );
    assert_eq!(again.await, Ok(1));

    assert_eq!(play.started().await, 0);
    assert!(!play.campaign(id).await.is_open);
    play.at("2030-05-02T07:00:00Z");
    let up = play.scene.dispatch(1).await.remove(0);
    play.scene
        .end(up.request.attempt.call_id, Outcome::Busy)
        .await;
    play.at("2030-05-02T15:00:00Z");
    let late =
        play.scene
            .store
            .requeue_campaign_contacts(play.user, id, ContactSelection::All, failed);
    assert!(matches!(late.await, Err(StoreError::Conflict(why)) if why.contains("no hours left")));
    let now = play.campaign(id).await;
    assert_eq!(
        (now.status, now.progress.failed),
        (CampaignStatus::Completed, 1)
    );
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn hours_that_change_while_more_are_worked_out_are_the_ones_that_hold() {
    let play = Play::new().await;
    let id = play.draft(9, |_| {}).await;
    play.start(id).await;
    play.scene.sql(
        "DELETE FROM campaign_windows WHERE opens_at > (SELECT min(opens_at) FROM campaign_windows)",
    );
    let mut other = play.scene.connection();
    let mut run = |sql: &str| diesel::connection::SimpleConnection::batch_execute(&mut other, sql);
    run("BEGIN; SELECT lock_engine()").unwrap();
    let store = play.scene.store.clone();
    let keeping = tokio::spawn(async move { store.withdraw_left_over().await });
    play.scene.until_waiting_for_lock(1).await;

    // As a change to Fridays does it, which had the lock before.
    run("UPDATE campaigns SET weekdays = '{fri}'; \
         SELECT lay_out_windows(id, ARRAY['2030-05-03T07:00:00Z'::timestamptz], \
             ARRAY['2030-05-03T15:00:00Z'::timestamptz], true, '2030-05-01T06:00:00Z') FROM campaigns; \
         COMMIT")
    .unwrap();
    keeping.await.unwrap().unwrap();

    let windows = |which: &str| {
        let query = format!("SELECT count(*) FROM campaign_windows WHERE {which}");
        play.scene.count(&query)
    };
    assert_eq!(windows("extract(isodow FROM opens_at) <> 5"), 0);
    assert_eq!(windows("opens_at < '2030-05-25'"), 4, "every Friday");
}
