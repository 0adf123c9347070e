//! Campaigns open and close by their hours, on time and whatever their size.

use std::time::Duration;

use callq_domain::{
    Campaign, CampaignFields, CampaignId, CampaignStatus, CampaignStore, ItemFilter, ItemStatus,
    Outcome, OwnershipStore, QueueReason, QueueStore, StoreError, UserId,
};
use chrono::{DateTime, Utc};

use crate::model::database_clock::DatabaseClock;
use crate::scene::{Scene, first_page, new_campaign, texts};

mod changed;
mod zones;

/// A Wednesday.
const MORNING: &str = "2030-05-01T06:00:00Z";

/// A user in Berlin (two hours ahead of UTC in May), and the time in the test's hands.
struct Play {
    scene: Scene,
    clock: DatabaseClock,
    user: UserId,
}

fn millis(time: &str) -> i64 {
    let time: DateTime<Utc> = time.parse().unwrap();
    time.timestamp_millis()
}

impl Play {
    async fn new() -> Self {
        let scene = Scene::new().await;
        let user = scene.user().await;
        let mut clock = DatabaseClock::take(scene.database.url());
        clock.set(millis(MORNING));
        Self { scene, clock, user }
    }

    fn at(&mut self, time: &str) {
        self.clock.set(millis(time));
    }

    async fn draft(&self, contacts: usize, change: impl FnOnce(&mut CampaignFields)) -> CampaignId {
        let agent = self.scene.agent(self.user).await;
        let contacts = self.scene.contacts(self.user, contacts).await;
        let mut campaign = new_campaign(self.user, agent, contacts);
        campaign.fields.use_custom_timezone = false;
        campaign.fields.first_call_time = "09:00:00".parse().unwrap();
        campaign.fields.last_call_time = "17:00:00".parse().unwrap();
        campaign.fields.start_date = "2030-05-01".parse().unwrap();
        change(&mut campaign.fields);
        let made = self.scene.store.create_campaign(campaign);
        made.await.unwrap().id
    }

    async fn start(&self, id: CampaignId) -> Campaign {
        self.scene
            .set_status(self.user, id, CampaignStatus::Active)
            .await
    }

    async fn campaign(&self, id: CampaignId) -> Campaign {
        let found = self.scene.store.campaign(self.user, id).await;
        found.unwrap().unwrap()
    }

    async fn started(&self) -> usize {
        let started = self.scene.dispatch(2).await;
        self.scene.assert_counters_equal_rows().await;
        for call in &started {
            let id = call.request.attempt.call_id;
            self.scene.end(id, Outcome::Completed).await;
        }
        started.len()
    }
}

#[tokio::test]
async fn a_campaign_that_is_started_before_its_hours_is_scheduled_and_opens_by_timer() {
    let mut play = Play::new().await;
    let id = play.draft(9, |_| {}).await;

    let started = play.start(id).await;

    assert_eq!(started.status, CampaignStatus::Scheduled);
    assert!(!started.is_open);
    let window = started.window.unwrap();
    assert_eq!(window.opens_at.to_rfc3339(), "2030-05-01T07:00:00+00:00");
    assert_eq!(play.started().await, 0);
    let next = play.scene.look().await.next_timer;
    assert_eq!(next, Some(Duration::from_secs(3_600)));
    let items = play
        .scene
        .store
        .items(play.user, ItemFilter::default(), first_page(1));
    let item = items.await.unwrap().items.remove(0).id;
    let placed = play
        .scene
        .store
        .item(play.user, item)
        .await
        .unwrap()
        .unwrap();
    let reason = QueueReason::OutsideHours(Some(window.opens_at));
    assert_eq!(placed.waiting_reason, Some(reason));
    play.at("2030-05-01T06:59:59.999Z");
    assert_eq!(play.started().await, 0);
    play.at("2030-05-01T07:00:00Z");
    assert_eq!(play.started().await, 2);
    let now = play.campaign(id).await;
    assert_eq!((now.status, now.is_open), (CampaignStatus::Active, true));
}

#[tokio::test]
async fn it_closes_on_time_and_opens_again_the_next_day_it_may() {
    let mut play = Play::new().await;
    let names = ["wed", "fri"];
    let change = |fields: &mut CampaignFields| {
        fields.weekdays = callq_domain::Weekdays::from_names(names).unwrap();
    };
    let id = play.draft(9, change).await;
    play.start(id).await;
    play.at("2030-05-01T14:59:59.999Z");
    assert_eq!(play.started().await, 2);

    play.at("2030-05-01T15:00:00Z");
    assert_eq!(play.started().await, 0);
    let closed = play.campaign(id).await;
    assert_eq!(
        (closed.status, closed.is_open),
        (CampaignStatus::Active, false)
    );
    play.at("2030-05-02T10:00:00Z");
    assert_eq!(play.started().await, 0);
    play.at("2030-05-03T07:00:00Z");
    assert_eq!(play.started().await, 2);
}

#[tokio::test]
async fn a_call_that_is_up_when_its_campaign_closes_goes_on() {
    let mut play = Play::new().await;
    let id = play.draft(2, |_| {}).await;
    play.start(id).await;
    play.at("2030-05-01T14:59:59Z");
    let up = play.scene.dispatch(1).await.remove(0);
    play.at("2030-05-01T16:00:00Z");
    play.scene.look().await;

    let item = play.scene.store.item(play.user, up.item_id).await;

    assert_eq!(item.unwrap().unwrap().item.status, ItemStatus::Processing);
    play.scene
        .end(up.request.attempt.call_id, Outcome::Completed)
        .await;
    assert_eq!(play.campaign(id).await.progress.completed, 1);
}

#[tokio::test]
async fn hours_that_run_out_are_worked_out_further() {
    let mut play = Play::new().await;
    let id = play.draft(30, |_| {}).await;
    play.start(id).await;

    for day in 1..=20 {
        play.at(&format!("2030-05-{day:02}T12:00:00Z"));
        assert_eq!(
            play.started().await,
            1 + usize::from(day <= 10),
            "day {day}"
        );
        play.at(&format!("2030-05-{day:02}T20:00:00Z"));
        assert_eq!(play.started().await, 0);
        // At any time, and more than once: it is housekeeping.
        play.scene.store.withdraw_left_over().await.unwrap();
        play.scene.store.withdraw_left_over().await.unwrap();
        if day > 9 {
            play.scene.limit(play.user, 1).await;
        }
        let known = play.scene.count("SELECT count(*) FROM campaign_windows");
        let expected = if day < 20 { 3..=8 } else { 0..=0 };
        assert!(expected.contains(&known), "{known} windows are known");
    }
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn what_has_not_been_called_when_the_last_day_is_over_expires_and_completes_the_campaign() {
    let mut play = Play::new().await;
    let change = |fields: &mut CampaignFields| {
        fields.end_date = Some("2030-05-02".parse().unwrap());
    };
    let id = play.draft(1_200, change).await;
    play.start(id).await;
    play.at("2030-05-02T14:59:00Z");
    let up = play.scene.dispatch(1).await.remove(0);
    play.scene.store.withdraw_left_over().await.unwrap();
    assert_eq!(play.campaign(id).await.progress.expired, 0);

    play.at("2030-05-02T15:00:00Z");
    play.scene.look().await;
    play.scene.store.withdraw_left_over().await.unwrap();

    let over = play.campaign(id).await;
    assert_eq!(over.progress.expired, 1_199);
    assert_eq!(over.status, CampaignStatus::Active);
    play.scene
        .end(up.request.attempt.call_id, Outcome::Completed)
        .await;
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_whose_hours_are_over_cannot_be_started_and_says_so() {
    let play = Play::new().await;
    let change = |fields: &mut CampaignFields| {
        fields.start_date = "2030-04-01".parse().unwrap();
        fields.end_date = Some("2030-04-30".parse().unwrap());
    };
    let id = play.draft(1, change).await;

    let refused = play
        .scene
        .store
        .set_campaign_status(play.user, id, CampaignStatus::Active)
        .await;

    assert!(
        matches!(&refused, Err(StoreError::Conflict(words)) if words.contains("no hours left")),
        "{refused:?}"
    );
    let after = play.campaign(id).await;
    assert_eq!(
        (after.status, after.is_open),
        (CampaignStatus::Draft, false)
    );
}

#[tokio::test]
async fn pausing_and_hours_hold_together_whichever_comes_first() {
    let mut play = Play::new().await;
    let id = play.draft(9, |_| {}).await;
    play.start(id).await;
    play.scene
        .set_status(play.user, id, CampaignStatus::Paused)
        .await;
    play.at("2030-05-01T12:00:00Z");
    assert_eq!(play.started().await, 0, "it opened while it was paused");

    let resumed = play.start(id).await;

    assert_eq!(
        (resumed.status, resumed.is_open),
        (CampaignStatus::Active, true)
    );
    assert_eq!(play.started().await, 2);
    play.scene
        .set_status(play.user, id, CampaignStatus::Paused)
        .await;
    play.at("2030-05-01T16:00:00Z");
    play.scene.look().await;
    let resumed = play.start(id).await;
    assert_eq!(
        (resumed.status, resumed.is_open),
        (CampaignStatus::Active, false)
    );
    assert_eq!(play.started().await, 0);
}

#[tokio::test]
async fn opening_and_closing_change_one_row_however_many_wait() {
    let mut play = Play::new().await;
    let id = play.draft(2_000, |_| {}).await;
    play.start(id).await;
    let changed = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables \
        WHERE relname IN ('call_queue', 'campaign_slots', 'user_slots', 'ready_lanes', 'campaign_windows')";
    for at in ["2030-05-01T07:00:00Z", "2030-05-01T15:00:00Z"] {
        play.at(at);
        let mut connection = play.scene.connection();
        let rows = diesel::Connection::transaction(&mut connection, |conn| {
            let turn = format!("SELECT turn_windows('{at}')");
            diesel::RunQueryDsl::execute(diesel::sql_query(turn), conn)?;
            Ok::<_, diesel::result::Error>(crate::scene::count(conn, changed))
        });
        let rows = rows.unwrap();
        // Its window, whether it is open, its user's counters (twice) and its lane.
        assert!(rows <= 6, "{rows} rows changed at {at}");
    }
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_from_before_hours_were_kept_keeps_them_within_a_look() {
    let mut play = Play::new().await;
    let id = play.draft(9, |_| {}).await;
    play.start(id).await;
    // As a server of the version before would have left it.
    play.scene.sql(
        "BEGIN; DELETE FROM campaign_windows; UPDATE campaign_slots SET keeps_hours = false; \
         SELECT lock_engine(); SELECT reopen_campaigns(ARRAY(SELECT id FROM campaigns)); COMMIT",
    );
    assert_eq!(play.started().await, 2);

    play.scene.store.withdraw_left_over().await.unwrap();

    assert_eq!(play.started().await, 0);
    // It has opened long ago, though not since hours were kept.
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Active);
    play.at("2030-05-01T07:00:00Z");
    assert_eq!(play.started().await, 2);
    assert!(play.campaign(id).await.is_open);
}

#[tokio::test]
async fn a_server_of_the_version_before_that_resumes_a_campaign_at_night_does_not_open_it() {
    let play = Play::new().await;
    let id = play.draft(9, |_| {}).await;
    play.start(id).await;

    play.scene.sql(&format!(
        "BEGIN; SELECT lock_engine(); SELECT set_campaign_open('{id}', true); COMMIT"
    ));

    assert_eq!(play.started().await, 0);
    assert!(!play.campaign(id).await.is_open);
}

#[tokio::test]
async fn a_campaign_whose_zone_nobody_knows_keeps_no_other_from_its_hours() {
    let mut play = Play::new().await;
    let (strange, other) = (play.draft(1, |_| {}).await, play.draft(9, |_| {}).await);
    for id in [strange, other] {
        play.start(id).await;
    }
    play.scene.sql(&format!(
        "UPDATE campaigns SET use_custom_timezone = true, campaign_timezone = 'Mars/Olympus' WHERE id = '{strange}'; \
         DELETE FROM campaign_windows"
    ));

    play.scene.store.withdraw_left_over().await.unwrap();

    play.at("2030-05-01T07:00:00Z");
    assert_eq!(play.started().await, 2);
}

#[tokio::test]
async fn hours_without_an_end_in_sight_go_on_and_end_when_they_do() {
    let mut play = Play::new().await;
    let change = |fields: &mut CampaignFields| {
        fields.last_call_time = fields.first_call_time;
        fields.start_date = "2020-01-01".parse().unwrap();
        fields.end_date = Some("2032-12-31".parse().unwrap());
    };
    let id = play.draft(40, change).await;
    let started = play.start(id).await;
    assert_eq!(started.status, CampaignStatus::Active);
    assert_eq!(started.window.unwrap().closes_at, None);

    for at in [
        "2031-05-01T06:00:00Z",
        "2032-01-01T06:00:00Z",
        "2032-12-31T22:59:59Z",
    ] {
        play.at(at);
        assert_eq!(play.started().await, 2, "at {at}");
        play.scene.store.withdraw_left_over().await.unwrap();
    }
    play.at("2032-12-31T23:00:00Z");
    assert_eq!(play.started().await, 0);
}

#[tokio::test]
async fn a_thousand_campaigns_open_at_once() {
    let mut play = Play::new().await;
    let first = play.draft(1, |_| {}).await;
    play.scene.sql(&format!(
        "INSERT INTO campaigns (id, user_id, agent_id, name, next_action, first_call_time, last_call_time, start_date, status) \
         SELECT uuid_v7(), user_id, agent_id, name, next_action, first_call_time, last_call_time, start_date, 'active' \
         FROM campaigns, generate_series(1, 1500) WHERE id = '{first}'; \
         INSERT INTO campaign_slots (campaign_id, user_id) SELECT id, user_id FROM campaigns WHERE id <> '{first}'"
    ));
    play.scene.store.withdraw_left_over().await.unwrap();
    let open = "SELECT count(*) FROM campaign_slots WHERE open";
    assert_eq!(play.scene.count(open), 0);

    play.at("2030-05-01T07:00:00Z");
    let next = play.scene.look().await.next_timer;
    assert_eq!(play.scene.count(open), 1_000);
    assert_eq!(next, Some(Duration::ZERO));
    play.scene.look().await;
    assert_eq!(play.scene.count(open), 1_500);
    play.at("2030-05-01T15:00:00Z");
    play.scene.look().await;
    play.scene.look().await;
    assert_eq!(play.scene.count(open), 0);
    play.scene.assert_counters_equal_rows().await;
}
