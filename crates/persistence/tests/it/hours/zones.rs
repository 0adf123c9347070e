//! Campaigns that go by the clock of each contact.

use std::collections::{BTreeMap, BTreeSet};

use callq_domain::{
    CampaignContactStore, ContactId, ContactSelection, ContactStatus, ContactsAdded, ImportId,
    ImportStore, ImportTarget, ListRow, NewImport, PhoneNumber, ReservedCall, RetryPolicy,
    zone_of_contact,
};

use super::*;

/// Nobody's place.
const TOLL_FREE: &str = "+18005552";
const NEW_YORK: &str = "+1212555";
const LOS_ANGELES: &str = "+1213555";
const BERLIN: &str = "+4930901";

impl Play {
    /// A contact for each of these numbers' beginnings.
    fn contacts_of(&self, beginnings: &[&str]) -> Vec<ContactId> {
        let ids: Vec<ContactId> = beginnings.iter().map(|_| ContactId::new()).collect();
        let rows = ids.iter().zip(beginnings).zip(1_000..);
        let rows: Vec<String> = rows
            .map(|((id, number), nth)| format!("('{id}', '{}', '{number}{nth:04}')", self.user))
            .collect();
        self.scene.sql(&format!(
            "INSERT INTO contacts (id, user_id, phone_number) VALUES {}",
            rows.join(", ")
        ));
        ids
    }

    /// A draft that goes by its contacts' clocks.
    async fn draft_of(
        &self,
        contacts: Vec<ContactId>,
        change: impl FnOnce(&mut CampaignFields),
    ) -> CampaignId {
        let agent = self.scene.agent(self.user).await;
        let mut campaign = new_campaign(self.user, agent, contacts);
        campaign.fields.use_custom_timezone = false;
        campaign.fields.use_contact_timezone = true;
        campaign.fields.first_call_time = "09:00:00".parse().unwrap();
        campaign.fields.last_call_time = "17:00:00".parse().unwrap();
        campaign.fields.start_date = "2030-05-01".parse().unwrap();
        change(&mut campaign.fields);
        let made = self.scene.store.create_campaign(campaign);
        made.await.unwrap().id
    }

    /// Who is called now, by the beginnings of their numbers; each call ends at once.
    async fn called(&self) -> Vec<String> {
        let started = self.scene.dispatch(9).await;
        self.scene.assert_counters_equal_rows().await;
        for call in &started {
            let id = call.request.attempt.call_id;
            self.scene.end(id, Outcome::Completed).await;
        }
        self.scene.assert_counters_equal_rows().await;
        let mut numbers: Vec<String> = started.iter().map(beginning).collect();
        numbers.sort();
        numbers
    }

    fn zones_of_calls(&self) -> Vec<String> {
        let query = "SELECT phone_number || ' ' || coalesce(zone, 'none') FROM call_queue \
            ORDER BY position";
        texts(&mut self.scene.connection(), query)
    }

    fn known(&self, zone: &str) -> i64 {
        self.scene.count(&format!(
            "SELECT count(*) FROM campaign_windows WHERE zone = '{zone}'"
        ))
    }

    async fn next_timer(&self) -> Option<Duration> {
        self.scene.look().await.next_timer
    }
}

fn beginning(call: &ReservedCall) -> String {
    let number = call.request.to.as_str();
    number[..number.len() - 4].to_owned()
}

#[tokio::test]
async fn each_contact_is_called_in_its_own_hours_to_the_millisecond() {
    let mut play = Play::new().await;
    play.scene.limit(play.user, 9).await;
    let contacts = play.contacts_of(&[NEW_YORK, BERLIN, TOLL_FREE, NEW_YORK, LOS_ANGELES]);
    play.scene.sql(&format!(
        "UPDATE contacts SET time_zone = 'Asia/Tokyo' WHERE id = '{}'",
        contacts[3]
    ));
    // The user's zone, for whoever's is not known, and nobody knows that of 800 numbers.
    play.scene
        .sql("UPDATE users SET time_zone = 'Europe/London'");
    let id = play.draft_of(contacts, |_| {}).await;
    let zones = [
        "+12125551000 America/New_York",
        "+49309011001 Europe/Berlin",
        "+180055521002 ",
        "+12125551003 Asia/Tokyo",
        "+12135551004 America/Los_Angeles",
    ];
    assert_eq!(play.zones_of_calls(), zones);
    play.at("2030-04-30T22:00:00Z");
    assert_eq!(play.start(id).await.status, CampaignStatus::Scheduled);

    // Nine o'clock, there.
    for (opens, before, who) in [
        ("2030-05-01T00:00:00Z", "2030-04-30T23:59:59.999Z", NEW_YORK),
        ("2030-05-01T07:00:00Z", "2030-05-01T06:59:59.999Z", BERLIN),
        (
            "2030-05-01T08:00:00Z",
            "2030-05-01T07:59:59.999Z",
            TOLL_FREE,
        ),
        ("2030-05-01T13:00:00Z", "2030-05-01T12:59:59.999Z", NEW_YORK),
        (
            "2030-05-01T16:00:00Z",
            "2030-05-01T15:59:59.999Z",
            LOS_ANGELES,
        ),
    ] {
        play.at(before);
        assert_eq!(play.called().await, [""; 0], "before {opens}");
        assert_eq!(play.next_timer().await, Some(Duration::from_millis(1)));
        play.at(opens);
        assert_eq!(play.called().await, [who], "at {opens}");
    }
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
    assert_eq!(play.scene.count("SELECT count(*) FROM campaign_windows"), 0);
}

#[tokio::test]
async fn each_zone_closes_on_time_and_the_others_go_on() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, BERLIN, NEW_YORK, NEW_YORK, NEW_YORK]);
    let id = play.draft_of(contacts, |_| {}).await;
    play.start(id).await;

    play.scene.limit(play.user, 1).await;
    play.at("2030-05-01T14:59:59.999Z");
    assert_eq!(play.called().await, [BERLIN], "the order of the list");
    play.at("2030-05-01T15:00:00Z");
    assert_eq!(play.called().await, [NEW_YORK]);
    let now = play.campaign(id).await;
    assert!(now.is_open);
    play.at("2030-05-01T20:59:59.999Z");
    assert_eq!(play.called().await, [NEW_YORK]);
    play.at("2030-05-01T21:00:00Z");
    assert_eq!(play.called().await, [""; 0]);
    let closed = play.campaign(id).await;
    assert_eq!(
        (closed.status, closed.is_open),
        (CampaignStatus::Active, false)
    );
    let opens_at = closed.window.unwrap().opens_at.to_rfc3339();
    assert_eq!(opens_at, "2030-05-02T07:00:00+00:00", "in Berlin, next");
    assert_eq!(play.next_timer().await, Some(Duration::from_secs(36_000)));
}

#[tokio::test]
async fn a_zone_that_is_open_with_nobody_left_in_it_keeps_the_engine_from_nothing() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK]);
    let id = play.draft_of(contacts, |_| {}).await;
    play.start(id).await;
    play.at("2030-05-01T08:00:00Z");
    assert_eq!(play.called().await, [BERLIN]);

    let look = play.scene.look().await;

    // It sleeps until New York opens, and says so.
    assert_eq!(look.next_timer, Some(Duration::from_secs(5 * 3_600)));
    assert!(!look.more);
    let now = play.campaign(id).await;
    assert_eq!((now.status, now.is_open), (CampaignStatus::Active, false));
    let opens_at = now.window.unwrap().opens_at;
    assert_eq!(opens_at.to_rfc3339(), "2030-05-01T13:00:00+00:00");
    let items = play
        .scene
        .store
        .items(play.user, ItemFilter::default(), first_page(1));
    let item = items.await.unwrap().items.remove(0).id;
    let placed = play.scene.store.item(play.user, item).await;
    let reason = placed.unwrap().unwrap().waiting_reason;
    assert_eq!(reason, Some(QueueReason::OutsideHours(Some(opens_at))));
    let next = "SELECT count(*) FROM user_slots, get_next_queued(user_id)";
    assert_eq!(play.scene.count(next), 0);
    // A direct call is not held by it.
    let agent = play.scene.agent(play.user).await;
    play.scene.started_call(play.user, agent).await;
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn opening_and_closing_a_zone_change_one_row_however_many_wait() {
    let mut play = Play::new().await;
    let mut numbers = vec![NEW_YORK; 1_000];
    numbers.extend([BERLIN; 1_000]);
    let contacts = play.contacts_of(&numbers);
    let id = play.draft_of(contacts, |_| {}).await;
    play.start(id).await;
    let changed = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables \
        WHERE schemaname = 'public'";
    for (at, most) in [
        // With Berlin the campaign opens, and with New York it closes: its row, its user's counters.
        ("2030-05-01T07:00:00Z", 6),
        ("2030-05-01T13:00:00Z", 2),
        ("2030-05-01T15:00:00Z", 2),
        ("2030-05-01T21:00:00Z", 6),
    ] {
        play.at(at);
        let mut connection = play.scene.connection();
        let rows = diesel::Connection::transaction(&mut connection, |conn| {
            let turn = format!("SELECT turn_windows('{at}')");
            diesel::RunQueryDsl::execute(diesel::sql_query(turn), conn)?;
            Ok::<_, diesel::result::Error>(crate::scene::count(conn, changed))
        });
        let rows = rows.unwrap();
        assert!((1..=most).contains(&rows), "{rows} rows changed at {at}");
    }
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn what_waits_in_a_zone_without_hours_left_expires_and_the_others_go_on() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, BERLIN, BERLIN, LOS_ANGELES, LOS_ANGELES]);
    let change = |fields: &mut CampaignFields| {
        fields.end_date = Some("2030-05-01".parse().unwrap());
    };
    let id = play.draft_of(contacts, change).await;
    play.start(id).await;
    play.at("2030-05-01T14:59:00Z");
    assert_eq!(play.called().await, [BERLIN; 2]);

    play.at("2030-05-01T15:00:00Z");
    play.scene.look().await;
    play.scene.store.withdraw_left_over().await.unwrap();

    let now = play.campaign(id).await;
    assert_eq!((now.progress.expired, now.progress.queued), (1, 2));
    assert_eq!(now.status, CampaignStatus::Active);
    play.scene.limit(play.user, 1).await;
    play.at("2030-05-01T16:00:00Z");
    assert_eq!(play.called().await, [LOS_ANGELES]);
    play.at("2030-05-02T00:00:00Z");
    play.scene.look().await;
    play.scene.store.withdraw_left_over().await.unwrap();
    let over = play.campaign(id).await;
    assert_eq!((over.progress.expired, over.progress.completed), (2, 3));
    assert_eq!(over.status, CampaignStatus::Completed);
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_whose_hours_are_over_in_some_zones_is_started_and_in_all_is_not() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, LOS_ANGELES]);
    let change = |fields: &mut CampaignFields| {
        fields.end_date = Some("2030-05-01".parse().unwrap());
    };
    let ids = [
        play.draft_of(contacts.clone(), change).await,
        play.draft_of(contacts, change).await,
    ];
    play.at("2030-05-01T20:00:00Z");
    let started = play.start(ids[0]).await;
    assert!(started.is_open);
    play.scene.store.withdraw_left_over().await.unwrap();
    assert_eq!(play.campaign(ids[0]).await.progress.expired, 1);
    assert_eq!(play.called().await, [LOS_ANGELES]);

    play.at("2030-05-02T00:00:00Z");
    let refused = play
        .scene
        .store
        .set_campaign_status(play.user, ids[1], CampaignStatus::Active)
        .await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict(words)) if words.contains("no hours left")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn retries_and_calls_that_come_back_keep_their_zone() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[NEW_YORK, BERLIN]);
    let change = |fields: &mut CampaignFields| {
        fields.retries = RetryPolicy {
            max_retries: 1,
            interval_minutes: 60,
            rules: BTreeMap::new(),
        };
    };
    let id = play.draft_of(contacts, change).await;
    play.start(id).await;
    // A quarter of an hour before New York closes, when Berlin has long been.
    play.at("2030-05-01T20:45:00Z");
    let up = play.scene.dispatch(9).await.remove(0);
    assert_eq!(beginning(&up), NEW_YORK);
    // What its contact says now holds for calls laid out from now on.
    play.scene
        .sql("UPDATE contacts SET time_zone = 'Asia/Tokyo'");
    play.scene.give_back(up.request.attempt).await;
    let zones = [
        "+12125551000 America/New_York",
        "+49309011001 Europe/Berlin",
    ];
    assert_eq!(play.zones_of_calls(), zones);
    play.at("2030-05-01T20:56:00Z");
    let up = play.scene.dispatch(9).await.remove(0);
    play.scene
        .end(up.request.attempt.call_id, Outcome::Busy)
        .await;
    assert_eq!(play.zones_of_calls(), zones);

    // The hour is over, and so are New York's.
    play.at("2030-05-01T22:00:00Z");
    assert_eq!(play.called().await, [""; 0]);
    play.at("2030-05-02T07:00:00Z");
    assert_eq!(play.called().await, [BERLIN]);
    play.at("2030-05-02T12:59:59.999Z");
    assert_eq!(play.called().await, [""; 0]);
    play.at("2030-05-02T13:00:00Z");
    assert_eq!(play.called().await, [NEW_YORK]);
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn contacts_that_are_added_or_queued_again_go_by_their_clocks_at_once() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK]);
    let id = play.draft_of(vec![contacts[0]], |_| {}).await;
    play.start(id).await;
    assert_eq!(play.known("America/New_York"), 0);
    let store = &play.scene.store;

    let added = store.add_campaign_contacts(play.user, id, vec![contacts[1]]);
    let one = ContactsAdded::Added {
        added: 1,
        skipped: vec![],
    };
    assert_eq!(added.await, Ok(one));

    assert!(play.known("America/New_York") > 2);
    play.at("2030-05-01T12:59:59.999Z");
    assert_eq!(play.called().await, [BERLIN]);
    play.at("2030-05-01T13:00:00Z");
    let up = play.scene.dispatch(1).await.remove(0);
    play.scene
        .end(up.request.attempt.call_id, Outcome::Busy)
        .await;
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);

    play.scene.sql(&format!(
        "UPDATE contacts SET time_zone = 'Pacific/Honolulu' WHERE id = '{}'",
        contacts[1]
    ));
    let failed = vec![ContactStatus::Failed];
    let store = &play.scene.store;
    let again =
        store.requeue_campaign_contacts(play.user, id, ContactSelection::All, failed.clone());
    assert_eq!(again.await, Ok(1));
    assert_eq!(play.zones_of_calls(), ["+12125551001 Pacific/Honolulu"]);
    assert_eq!(play.called().await, [""; 0]);
    play.at("2030-05-01T19:00:00Z");
    assert_eq!(play.called().await, [NEW_YORK]);
}

#[tokio::test]
async fn a_draft_may_change_its_clock_and_a_campaign_under_way_may_not() {
    let play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK]);
    let id = play.draft_of(contacts, |_| {}).await;
    let zones = play.zones_of_calls();
    let with = async |by_contact| {
        let mut fields = play.campaign(id).await.fields;
        fields.use_contact_timezone = by_contact;
        let store = &play.scene.store;
        store.update_campaign(play.user, id, fields).await
    };

    let changed = with(false).await.unwrap();
    assert!(!changed.fields.use_contact_timezone);
    assert_eq!(
        play.zones_of_calls(),
        ["+49309011000 none", "+12125551001 none"]
    );
    let known = "SELECT count(*) FROM campaign_zones";
    assert_eq!(play.scene.count(known), 0);

    with(true).await.unwrap();
    assert_eq!(play.zones_of_calls(), zones);
    assert_eq!(play.scene.count(known), 2);
    play.start(id).await;
    assert!(play.known("Europe/Berlin") > 2 && play.known("") == 0);
    let refused = with(false).await;
    assert_eq!(
        refused,
        Err(StoreError::Conflict("campaign is scheduled".into()))
    );
    assert_eq!(play.zones_of_calls(), zones);
}

#[tokio::test]
async fn new_hours_hold_in_every_zone_at_once() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK, TOLL_FREE]);
    let id = play.draft_of(contacts, |_| {}).await;
    play.start(id).await;
    play.at("2030-05-01T07:30:00Z");
    let mut fields = play.campaign(id).await.fields;
    fields.first_call_time = "03:00:00".parse().unwrap();
    fields.last_call_time = "04:00:00".parse().unwrap();
    fields.use_custom_timezone = true;
    fields.campaign_timezone = Some("Asia/Tokyo".into());

    let store = &play.scene.store;
    store.update_campaign(play.user, id, fields).await.unwrap();

    // It is half past three in New York, and whose zone is not known goes by Tokyo's.
    assert_eq!(play.called().await, [NEW_YORK]);
    play.at("2030-05-01T17:59:59.999Z");
    assert_eq!(play.called().await, [""; 0]);
    play.at("2030-05-01T18:00:00Z");
    assert_eq!(play.called().await, [TOLL_FREE]);
    play.at("2030-05-02T01:00:00Z");
    assert_eq!(play.called().await, [BERLIN]);
}

#[tokio::test]
async fn a_server_of_the_version_before_cannot_lay_out_calls_without_a_zone() {
    let play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK]);
    let id = play.draft_of(vec![contacts[0]], |_| {}).await;
    play.start(id).await;
    let mut connection = play.scene.connection();

    let refused = diesel::connection::SimpleConnection::batch_execute(
        &mut connection,
        &format!(
            "BEGIN; INSERT INTO call_queue (user_id, agent_id, contact_id, campaign_id, call_type, \
                 priority, phone_number, ordinal) \
             SELECT user_id, agent_id, '{}', campaign_id, call_type, 0, phone_number, 2 FROM call_queue; \
             SELECT lock_engine(); SELECT count_laid_out('{id}', 1, 0, 0, 0); COMMIT",
            contacts[1]
        ),
    );

    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("carry no zone"), "{refused}");
}

#[tokio::test]
async fn a_campaign_that_a_server_of_the_version_before_resumes_opens_its_zones_within_a_look() {
    let mut play = Play::new().await;
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK]);
    let id = play.draft_of(contacts, |_| {}).await;
    play.start(id).await;
    play.at("2030-05-01T08:00:00Z");
    // It knows one zone only.
    play.scene.sql(&format!(
        "BEGIN; SELECT lock_engine(); SELECT lay_out_windows('{id}', ARRAY['2030-05-01T07:00:00Z'::timestamptz], \
             ARRAY['2030-05-01T15:00:00Z'::timestamptz], true, '2030-05-01T08:00:00Z'); COMMIT"
    ));
    assert_eq!(play.called().await, [""; 0]);

    play.scene.store.withdraw_left_over().await.unwrap();

    assert_eq!(play.called().await, [BERLIN]);
    play.at("2030-05-01T13:00:00Z");
    assert_eq!(play.called().await, [NEW_YORK]);
}

/// Each quarter of an hour and the last millisecond before it, or each minute, against the calendar.
#[tokio::test]
async fn over_a_week_with_a_change_of_the_clock_no_call_is_outside_its_hours() {
    let mut play = Play::new().await;
    play.scene.limit(play.user, 50).await;
    // Clocks change in Europe on 31 March, in Santiago on 6 April at midnight.
    let zones = [
        "America/New_York",
        "Europe/Berlin",
        "America/Santiago",
        "Asia/Kathmandu",
        "Pacific/Auckland",
    ]
    .map(|name| zone_of_contact(Some(name), &crate::scene::parsed("+18005552671")).unwrap());
    let contacts = play.contacts_of(&[TOLL_FREE; 5]);
    for (contact, zone) in contacts.iter().zip(zones) {
        play.scene.sql(&format!(
            "UPDATE contacts SET time_zone = '{zone}' WHERE id = '{contact}'"
        ));
    }
    let change = |fields: &mut CampaignFields| {
        fields.first_call_time = "22:15:00".parse().unwrap();
        fields.last_call_time = "02:30:00".parse().unwrap();
        fields.start_date = "2030-03-30".parse().unwrap();
        fields.end_date = Some("2030-04-06".parse().unwrap());
        fields.holidays = ["2030-04-03".parse().unwrap()].into();
    };
    let id = play.draft_of(contacts, change).await;
    let hours = play.campaign(id).await.fields.hours().unwrap();
    play.at("2030-03-29T00:00:00Z");
    play.start(id).await;
    let opened = "SELECT zone FROM campaign_windows WHERE opened ORDER BY zone";
    let mut connection = play.scene.connection();
    let begin: DateTime<Utc> = "2030-03-29T00:00:00Z".parse().unwrap();
    let (mut open_times, mut nth_call) = (0, 0);
    let minutes = if crate::is_long() { 1 } else { 15 };
    for step in 1..=(10 * 24 * 60 / minutes) {
        let at = begin + chrono::TimeDelta::minutes(step * minutes);
        for at in [at - chrono::TimeDelta::milliseconds(1), at] {
            play.clock.set(at.timestamp_millis());
            let started = play.scene.dispatch(9).await;

            let expected: BTreeSet<String> = zones
                .iter()
                .filter(|zone| hours.is_open(**zone, at))
                .map(|zone| zone.name().to_owned())
                .collect();
            let open: BTreeSet<String> = texts(&mut connection, opened).into_iter().collect();
            assert_eq!(open, expected, "at {at}");
            // Each call comes back at once, so one waits in every zone at any time.
            assert_eq!(started.len(), expected.len(), "at {at}");
            for call in started {
                nth_call += 1;
                let zone = zone_of_call(&mut connection, &call);
                assert!(expected.contains(&zone), "{zone} was called at {at}");
                give_back_at_once(&play.scene, &call).await;
            }
            open_times += usize::from(!expected.is_empty());
        }
        if step % 96 == 0 {
            play.scene.store.withdraw_left_over().await.unwrap();
            play.scene.assert_counters_equal_rows().await;
        }
    }
    assert!(
        open_times > 100 && nth_call > 100,
        "{open_times} {nth_call}"
    );
    play.scene.assert_counters_equal_rows().await;
    play.scene.store.withdraw_left_over().await.unwrap();
    let over = play.campaign(id).await;
    assert_eq!(
        (over.status, over.progress.expired),
        (CampaignStatus::Completed, 5)
    );
}

fn zone_of_call(connection: &mut diesel::PgConnection, call: &ReservedCall) -> String {
    let query = format!(
        "SELECT zone FROM campaign_contacts WHERE item_id = '{}'",
        call.item_id
    );
    texts(connection, &query).remove(0)
}

async fn give_back_at_once(scene: &Scene, call: &ReservedCall) {
    let batch = callq_domain::SlotBatch {
        returns: vec![callq_domain::Return {
            attempt: call.request.attempt,
            delay: Duration::ZERO,
            reason: "it comes back".into(),
            if_unknown: false,
        }],
        ..Default::default()
    };
    let settled = callq_domain::EngineStore::settle(&scene.store, scene.server, &batch).await;
    settled.unwrap();
}

/// When waiting calls give up, by the beginnings of their numbers.
fn expiries(play: &Play) -> Vec<String> {
    let query = "SELECT left(phone_number, -4) || ' ' || to_char(expires_at AT TIME ZONE 'UTC', 'DD HH24:MI') \
        FROM call_queue ORDER BY position";
    texts(&mut play.scene.connection(), query)
}

fn list(user: UserId, target: ImportTarget) -> NewImport {
    NewImport {
        id: ImportId::new(),
        user_id: user,
        target,
        country: None,
        partial: false,
        dry_run: false,
    }
}

/// A list of these numbers.
fn rows(numbers: &[&str]) -> callq_domain::ListRows {
    let rows = (2..).zip(numbers.to_vec()).map(|(row, number)| {
        Ok(Ok(ListRow {
            row,
            phone_number: PhoneNumber::from_trusted(number),
            name: None,
            time_zone: None,
            user_data: None,
        }))
    });
    Box::new(rows.collect::<Vec<_>>().into_iter())
}

#[tokio::test]
async fn nobody_expires_before_its_own_hours_however_it_came_to_be_called() {
    let mut play = Play::new().await;
    play.scene
        .sql("UPDATE system_state SET campaign_call_ttl_seconds = 3600");
    // Nine o'clock in Berlin, whose zone is the user's, is two in New York and eleven at night in Los Angeles.
    play.scene
        .sql("UPDATE users SET time_zone = 'Europe/Berlin'");
    play.at("2030-05-01T07:30:00Z");
    let contacts = play.contacts_of(&[BERLIN, NEW_YORK, TOLL_FREE]);
    let id = play.draft_of(contacts, |_| {}).await;
    let made = [
        "+4930901 01 08:30",
        "+1212555 01 14:00",
        "+18005552 01 08:30",
    ];
    assert_eq!(expiries(&play), made);

    play.start(id).await;
    let later = [ContactId::new()];
    play.scene.sql(&format!(
        "INSERT INTO contacts (id, user_id, phone_number) VALUES ('{}', '{}', '{LOS_ANGELES}7777')",
        later[0], play.user
    ));
    let store = &play.scene.store;
    store
        .add_campaign_contacts(play.user, id, later.to_vec())
        .await
        .unwrap();
    let there = list(play.user, ImportTarget::Existing(id));
    let numbers = ["+12125558001", "+49309018002"];
    store.import_list(there, rows(&numbers)).await.unwrap();

    let added = [
        "+1213555 01 17:00",
        "+1212555 01 14:00",
        "+4930901 01 08:30",
    ];
    assert_eq!(expiries(&play), [&made[..], &added[..]].concat());
    play.scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_imported_list_is_called_by_each_contacts_clock() {
    let mut play = Play::new().await;
    let agent = play.scene.agent(play.user).await;
    let mut campaign = new_campaign(play.user, agent, Vec::new());
    campaign.fields.use_custom_timezone = false;
    campaign.fields.use_contact_timezone = true;
    campaign.fields.first_call_time = "09:00:00".parse().unwrap();
    campaign.fields.last_call_time = "17:00:00".parse().unwrap();
    campaign.fields.start_date = "2030-05-01".parse().unwrap();
    let id = campaign.id;
    let new = list(play.user, ImportTarget::New(Box::new(campaign)));
    let store = &play.scene.store;
    let numbers = ["+12125558001", "+49309018002"];
    store.import_list(new, rows(&numbers)).await.unwrap();
    play.start(id).await;
    // Into one that is under way, with a zone that it had no calls in.
    let more = list(play.user, ImportTarget::Existing(id));
    store
        .import_list(more, rows(&["+12135558003"]))
        .await
        .unwrap();

    let zones = [
        "+12125558001 America/New_York",
        "+49309018002 Europe/Berlin",
        "+12135558003 America/Los_Angeles",
    ];
    assert_eq!(play.zones_of_calls(), zones);
    for (opens, who) in [
        ("2030-05-01T07:00:00Z", BERLIN),
        ("2030-05-01T13:00:00Z", NEW_YORK),
        ("2030-05-01T16:00:00Z", LOS_ANGELES),
    ] {
        play.at(opens);
        assert_eq!(play.called().await, [who], "at {opens}");
    }
    assert_eq!(play.campaign(id).await.status, CampaignStatus::Completed);
}
