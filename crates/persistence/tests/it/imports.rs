//! Lists into campaigns: at once or not at all, beside the engine and under its counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Sender};
use std::time::Instant;

use callq_domain::{
    CallId, CampaignContactStore, CampaignId, CampaignStatus, CampaignStore, ContactFields,
    ContactId, DirectoryStore, ImportError, ImportId, ImportReport, ImportStore, ImportTarget,
    LegalHours, ListFault, ListRow, ListRows, NewImport, Outcome, PhoneNumber, QueueDefaults,
    ReservedCall, RetryCause, RetryRule, RowFault, SkippedRows, StoreError, UserId, Weekdays,
};
use chrono::NaiveDate;
use diesel::connection::SimpleConnection;
use serde_json::value::RawValue;

use crate::scene::{Scene, contact_fields, new_campaign, phone_number, texts};

type Entry = Result<Result<ListRow, RowFault>, ListFault>;

fn row(row: u64, number: &str) -> ListRow {
    ListRow {
        row,
        phone_number: PhoneNumber::from_trusted(number),
        name: None,
        time_zone: None,
        user_data: None,
    }
}

fn bad(row: u64) -> Entry {
    Ok(Err(RowFault {
        row,
        field: "phone".into(),
        error: "is not a valid telephone number".into(),
    }))
}

/// Rows with numbers of their own, from row 2 on.
fn people(scene: &Scene, count: u64) -> Vec<Entry> {
    let number = || phone_number(scene.number());
    (0..count).map(|n| Ok(Ok(row(n + 2, &number())))).collect()
}

fn rows(entries: Vec<Entry>) -> ListRows {
    Box::new(entries.into_iter())
}

/// A list whose rows come when they are sent, and that ends when the sender is dropped.
fn slow_rows() -> (Sender<Entry>, ListRows) {
    let (sender, receiver) = mpsc::channel();
    (sender, Box::new(receiver.into_iter()))
}

fn import(user_id: UserId, target: ImportTarget) -> NewImport {
    NewImport {
        id: ImportId::new(),
        user_id,
        target,
        country: None,
        partial: false,
        dry_run: false,
    }
}

fn into(user: UserId, campaign: CampaignId) -> NewImport {
    import(user, ImportTarget::Existing(campaign))
}

impl Scene {
    async fn import(&self, import: NewImport, entries: Vec<Entry>) -> ImportReport {
        let imported = self.store.import_list(import, rows(entries)).await;
        imported.unwrap()
    }

    /// Everything that an import may leave behind.
    fn left(&self) -> Vec<i64> {
        ["campaigns", "contacts", "campaign_contacts", "call_queue"]
            .map(|table| self.count(&format!("SELECT count(*) FROM {table}")))
            .to_vec()
    }

    async fn end_all(&self, calls: Vec<ReservedCall>) {
        for call in calls {
            self.end(call.request.attempt.call_id, Outcome::Completed)
                .await;
        }
    }
}

#[tokio::test]
async fn a_list_is_called_in_its_order_behind_those_who_are_there() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.draft(user, 2).await;
    let mut entries = people(&scene, 3);
    entries[1] = Ok(Ok(ListRow {
        name: Some("Zoë".into()),
        time_zone: Some("Europe/Berlin".into()),
        user_data: Some(RawValue::from_string(r#"{"order": "17"}"#.into()).unwrap()),
        ..row(3, &phone_number(500))
    }));
    let mut asked = into(user, campaign);
    asked.country = Some("DE".parse().unwrap());
    let report = scene.import(asked, entries).await;

    assert_eq!(
        (report.total_rows, report.imported, report.failed),
        (3, 3, 0)
    );
    assert_eq!((report.campaign_id, report.made), (Some(campaign), false));
    scene.assert_counters_equal_rows().await;
    let shown = scene.store.campaign(user, campaign).await.unwrap().unwrap();
    assert_eq!(shown.progress.pending, 5);
    assert_eq!(shown.fields.country.unwrap().to_string(), "DE");
    let order = "SELECT string_agg(ordinal::text, ' ' ORDER BY position) FROM call_queue";
    assert_eq!(texts(&mut scene.connection(), order), ["1 2 3 4 5"]);
    let zoe = "SELECT concat_ws(' ', c.name, c.time_zone, c.user_data, q.contact_name, q.user_data, \
        m.ordinal) FROM call_queue q JOIN contacts c ON c.id = q.contact_id \
        JOIN campaign_contacts m ON m.contact_id = c.id WHERE q.ordinal = 4";
    // Each stands for its call, as if it had been added by its id.
    let unnamed = "SELECT count(*) FROM campaign_contacts m WHERE NOT EXISTS \
        (SELECT FROM call_queue q WHERE q.id = m.item_id AND q.contact_id = m.contact_id)";
    assert_eq!(scene.count(unnamed), 0);
    let expected = r#"Zoë Europe/Berlin {"order": "17"} Zoë {"order": "17"} 4"#;
    assert_eq!(texts(&mut scene.connection(), zoe), [expected]);

    scene
        .set_status(user, campaign, CampaignStatus::Active)
        .await;
    let mut called = Vec::new();
    for _ in 0..5 {
        let calls = scene.dispatch(1).await;
        called.push(calls[0].request.to.to_string());
        scene.end_all(calls).await;
    }
    assert_eq!(called[3], phone_number(500));
    let shown = scene.store.campaign(user, campaign).await.unwrap().unwrap();
    assert_eq!(shown.status, CampaignStatus::Completed);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_is_made_with_its_list_and_none_for_a_list_of_nobody() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let mut campaign = new_campaign(user, agent, vec![]);
    let busy = RetryRule::new(2, vec![5]).unwrap();
    campaign.fields.retries.rules = BTreeMap::from([(RetryCause::Busy, busy)]);
    campaign.fields.weekdays = Weekdays::from_names(["mon", "tue"]).unwrap();
    campaign.fields.holidays = BTreeSet::from([NaiveDate::from_ymd_opt(2030, 12, 25).unwrap()]);
    campaign.fields.legal_hours = Some(LegalHours::Tcpa);
    campaign.fields.country = Some("IN".parse().unwrap());
    let new = || ImportTarget::New(Box::new(campaign.clone()));
    let report = scene.import(import(user, new()), people(&scene, 3)).await;
    let id = report.campaign_id.unwrap();
    assert!(report.made);
    let made = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(
        (made.status, made.progress.pending),
        (CampaignStatus::Draft, 3)
    );
    assert_eq!(made.fields, campaign.fields, "all that was said of it");
    scene.assert_counters_equal_rows().await;

    let before = scene.left();
    let mut partial = import(user, new());
    partial.partial = true;
    let report = scene.import(partial, vec![bad(2)]).await;
    assert_eq!(
        (report.campaign_id, report.failed, report.refused),
        (None, 1, false)
    );
    assert_eq!(scene.left(), before);
}

#[tokio::test]
async fn a_contact_that_is_there_is_called_and_stays_as_it_is() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.draft(user, 0).await;
    let number = phone_number(700);
    let known = ContactFields {
        name: Some("Ada".into()),
        user_data: Some(RawValue::from_string(r#"{"tier": 1}"#.into()).unwrap()),
        ..contact_fields(&number)
    };
    let id = ContactId::new();
    scene.store.create_contact(id, user, known).await.unwrap();
    // Somebody else's contact of the same number is nobody here.
    let other = scene.user().await;
    let theirs = contact_fields(&phone_number(701));
    let made = scene.store.create_contact(ContactId::new(), other, theirs);
    made.await.unwrap();

    let named = ListRow {
        name: Some("Countess".into()),
        ..row(2, &number)
    };
    let entries = vec![Ok(Ok(named)), Ok(Ok(row(3, &phone_number(701))))];
    scene.import(into(user, campaign), entries).await;

    let contact = scene.store.contact(user, id).await.unwrap().unwrap();
    assert_eq!(contact.fields.name.as_deref(), Some("Ada"));
    let calls = "SELECT concat_ws(' ', (q.contact_id = (SELECT c.id FROM contacts c \
        WHERE c.user_id = q.user_id AND c.name = 'Ada'))::text, q.contact_name, q.user_data) \
        FROM call_queue q ORDER BY q.ordinal";
    let told = texts(&mut scene.connection(), calls);
    assert_eq!(told, [r#"true Countess {"tier": 1}"#, "false"]);
    assert_eq!(scene.count("SELECT count(*) FROM contacts"), 3);
}

#[tokio::test]
async fn a_list_that_there_is_no_room_for_leaves_nothing_and_a_draft_takes_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (draft, active) = (scene.draft(user, 1).await, scene.campaign(user, 2).await);
    let defaults = QueueDefaults {
        max_queued_campaign_calls: Some(4),
        ..QueueDefaults::default()
    };
    scene.store.adopt_queue_defaults(defaults).await.unwrap();
    let before = scene.left();

    let refused = scene
        .store
        .import_list(into(user, active), rows(people(&scene, 3)))
        .await;

    let Err(ImportError::Store(StoreError::QueueFull(full))) = refused else {
        panic!("five would wait: {refused:?}");
    };
    assert_eq!((full.limit, full.waiting, full.asked), (4, 2, 3));
    assert_eq!(scene.left(), before);
    let report = scene.import(into(user, active), people(&scene, 2)).await;
    assert_eq!(report.imported, 2);
    assert_eq!(
        scene
            .import(into(user, draft), people(&scene, 9))
            .await
            .imported,
        9
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn an_import_into_an_active_campaign_wakes_its_lane() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let up = scene.dispatch(10).await;
    assert_eq!(up.len(), 1);
    assert_eq!(scene.count("SELECT count(*) FROM ready_lanes"), 0);

    scene.import(into(user, campaign), people(&scene, 3)).await;

    assert_eq!(scene.count("SELECT count(*) FROM ready_lanes"), 1);
    scene.assert_counters_equal_rows().await;
    assert_eq!(scene.dispatch(10).await.len(), 1, "the user has two slots");
    scene.end_all(up).await;
    assert_eq!(scene.dispatch(10).await.len(), 1);
    scene.assert_counters_equal_rows().await;
    // A paused one holds its calls, old and new.
    scene
        .set_status(user, campaign, CampaignStatus::Paused)
        .await;
    scene.import(into(user, campaign), people(&scene, 2)).await;
    assert_eq!(scene.count("SELECT count(*) FROM ready_lanes"), 0);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn what_is_listed_in_the_campaign_or_twice_is_skipped_and_told() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let campaign = scene.draft(user, 0).await;
    let number = |n: u32| phone_number(800 + n);
    scene
        .import(into(user, campaign), vec![Ok(Ok(row(2, &number(1))))])
        .await;
    scene.sql(&format!(
        "INSERT INTO do_not_call (user_id, phone_number) VALUES (NULL, '{}'), ('{user}', '{}'), ('{other}', '{}')",
        number(2), number(3), number(4)
    ));

    let numbers = [1, 2, 3, 4, 4, 5, 2].map(number);
    let entries = (2..).zip(&numbers);
    let entries = entries
        .map(|(nth, number)| Ok(Ok(row(nth, number))))
        .collect();
    let report = scene.import(into(user, campaign), entries).await;

    let skipped = SkippedRows {
        do_not_call: 3,
        in_campaign: 1,
        duplicate: 1,
    };
    assert_eq!((report.imported, report.skipped), (2, skipped));
    assert_eq!(
        (report.total_rows, report.failed, report.refused),
        (7, 0, false)
    );
    let told: Vec<_> = report.errors.iter().map(|skip| skip.row).collect();
    assert_eq!(told, [2, 3, 4, 6, 8]);
    let file = scene.store.import_errors(user, report.id).await.unwrap();
    let last = "8,phone_number,is on a do-not-call list\n";
    assert!(report.has_file && file.unwrap().ends_with(last));
    let waiting = "SELECT phone_number FROM call_queue ORDER BY ordinal";
    let waiting = texts(&mut scene.connection(), waiting);
    assert_eq!(waiting, [number(1), number(4), number(5)]);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn one_bad_row_keeps_all_others_out_unless_it_is_partial() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let campaign = scene.campaign(user, 1).await;
    let before = scene.left();
    let list = || {
        let mut entries = people(&scene, 3);
        entries.push(bad(5));
        entries
    };
    let refused = into(user, campaign);
    let id = refused.id;
    let report = scene.import(refused, list()).await;

    assert!(report.refused);
    assert_eq!(
        (report.total_rows, report.imported, report.failed),
        (4, 0, 1)
    );
    assert_eq!(report.errors[0].row, 5);
    assert_eq!(scene.left(), before, "nothing of it is left");
    let file = scene.store.import_errors(user, id).await.unwrap().unwrap();
    assert_eq!(
        file,
        "row,field,error\n5,phone,is not a valid telephone number\n"
    );
    assert_eq!(scene.store.import_errors(other, id).await, Ok(None));

    let mut partial = into(user, campaign);
    partial.partial = true;
    let report = scene.import(partial, list()).await;
    assert_eq!(
        (report.imported, report.failed, report.refused),
        (3, 1, false)
    );
    scene.assert_counters_equal_rows().await;
    for _ in 0..25 {
        scene.import(into(user, campaign), vec![bad(2)]).await;
    }
    assert_eq!(scene.count("SELECT count(*) FROM import_errors"), 20);
    assert_eq!(scene.store.import_errors(user, id).await, Ok(None));
}

#[tokio::test]
async fn a_dry_run_tells_all_and_changes_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let agent = scene.agent(user).await;
    let campaign = scene.campaign(user, 2).await;
    let before = scene.left();
    let new = ImportTarget::New(Box::new(new_campaign(user, agent, vec![])));
    for target in [ImportTarget::Existing(campaign), new] {
        let mut dry = import(user, target);
        dry.dry_run = true;
        dry.country = Some("DE".parse().unwrap());
        let report = scene.import(dry, people(&scene, 4)).await;
        assert_eq!(
            (report.imported, report.made, report.dry_run),
            (4, false, true)
        );
    }
    assert_eq!(scene.left(), before);
    let country = "SELECT count(*) FROM campaigns WHERE country IS NOT NULL";
    assert_eq!(scene.count(country), 0);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_file_that_breaks_off_leaves_nothing() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let before = scene.left();
    // More than one statement copies.
    let number = |n: u64| format!("+1415{:07}", 2_000_000 + n);
    let mut entries: Vec<Entry> = (0..12_000)
        .map(|n| Ok(Ok(row(n + 2, &number(n)))))
        .collect();
    let fault = ListFault {
        row: Some(12_002),
        column: Some(1),
        error: "the quote that opens here is never closed".into(),
    };
    entries.push(Err(fault.clone()));
    let imported = scene.store.import_list(into(user, campaign), rows(entries));
    assert_eq!(imported.await, Err(ImportError::List(fault)));
    assert_eq!(scene.left(), before);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn another_users_campaign_or_agent_is_not_found_and_one_that_is_over_takes_nobody() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let campaign = scene.draft(user, 1).await;
    let agent = scene.agent(user).await;
    let new = ImportTarget::New(Box::new(new_campaign(other, agent, vec![])));
    for target in [ImportTarget::Existing(campaign), new] {
        let imported = scene
            .store
            .import_list(import(other, target), rows(people(&scene, 1)));
        assert_eq!(imported.await, Err(StoreError::NotFound.into()));
    }
    scene
        .set_status(user, campaign, CampaignStatus::Cancelled)
        .await;
    let imported = scene
        .store
        .import_list(into(user, campaign), rows(people(&scene, 1)));
    let over = StoreError::Conflict("campaign is cancelled".into());
    assert_eq!(imported.await, Err(over.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_campaign_that_ends_while_its_list_is_read_takes_nothing_of_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let before = scene.left();
    let (sender, slow) = slow_rows();
    let store = scene.store.clone();
    let importing =
        tokio::spawn(async move { store.import_list(into(user, campaign), slow).await });
    for entry in people(&scene, 3) {
        sender.send(entry).unwrap();
    }
    // Its only call is made and ends: it is over.
    let calls = scene.dispatch(1).await;
    scene.end_all(calls).await;
    drop(sender);

    let over = StoreError::Conflict("campaign is completed".into());
    assert_eq!(importing.await.unwrap(), Err(over.into()));
    assert_eq!(scene.left()[..3], before[..3]);
    assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 0);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_start_and_end_while_lists_are_imported_and_counters_equal_rows() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 20).await;
    let (mut made, mut turn) = (0, 0);
    for _ in 0..6 {
        let (sender, slow) = slow_rows();
        let store = scene.store.clone();
        let importing =
            tokio::spawn(async move { store.import_list(into(user, campaign), slow).await });
        for entry in people(&scene, 10) {
            sender.send(entry).unwrap();
            // Nobody waits for a list that is being read.
            let calls = scene.dispatch(1).await;
            turn += 1;
            if turn % 7 == 3 {
                // Some come back, and go again at once.
                for call in calls {
                    scene.give_back(call.request.attempt).await;
                }
                scene.sql(
                    "BEGIN; SELECT lock_engine(); UPDATE user_slots SET held_campaign = NULL; \
                     SELECT refile_lanes(ARRAY(SELECT user_id FROM user_slots)); COMMIT",
                );
            } else {
                made += calls.len();
                scene.end_all(calls).await;
            }
        }
        drop(sender);
        let ends = async {
            let calls = scene.dispatch(2).await;
            let n = calls.len();
            scene.end_all(calls).await;
            n
        };
        let (imported, ended) = tokio::join!(importing, ends);
        assert_eq!(imported.unwrap().unwrap().imported, 10);
        made += ended;
        scene.assert_counters_equal_rows().await;
    }
    loop {
        let calls = scene.dispatch(2).await;
        if calls.is_empty() {
            break;
        }
        made += calls.len();
        scene.end_all(calls).await;
    }
    assert_eq!(made, 80);
    scene.assert_counters_equal_rows().await;
    let shown = scene.store.campaign(user, campaign).await.unwrap().unwrap();
    assert_eq!(shown.status, CampaignStatus::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_list_at_a_time_is_imported_into_a_campaign() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.draft(user, 1).await;
    let (sender, slow) = slow_rows();
    let store = scene.store.clone();
    let first = tokio::spawn(async move { store.import_list(into(user, campaign), slow).await });
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while scene.count(held) == 0 {
        tokio::task::yield_now().await;
    }

    let second = scene
        .store
        .import_list(into(user, campaign), rows(people(&scene, 1)));
    let Err(ImportError::Store(StoreError::Conflict(told))) = second.await else {
        panic!("two lists were imported at once");
    };
    assert!(told.contains("another list"), "{told}");
    for entry in people(&scene, 2) {
        sender.send(entry).unwrap();
    }
    drop(sender);
    assert_eq!(first.await.unwrap().unwrap().imported, 2);
    scene.import(into(user, campaign), people(&scene, 1)).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_added_while_a_list_is_read_stands_before_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.draft(user, 1).await;
    let contact = ContactId::new();
    let made = scene
        .store
        .create_contact(contact, user, contact_fields(&phone_number(950)));
    made.await.unwrap();
    let (sender, slow) = slow_rows();
    let store = scene.store.clone();
    let importing =
        tokio::spawn(async move { store.import_list(into(user, campaign), slow).await });
    for entry in people(&scene, 2) {
        sender.send(entry).unwrap();
    }
    // Neither waits for the other, and both know the numbers that were given.
    let added = scene
        .store
        .add_campaign_contacts(user, campaign, vec![contact]);
    added.await.unwrap();
    let agent = scene.agent(user).await;
    let mut fields = new_campaign(user, agent, vec![]).fields;
    fields.name = "Autumn".into();
    scene
        .store
        .update_campaign(user, campaign, fields)
        .await
        .unwrap();
    drop(sender);

    assert_eq!(importing.await.unwrap().unwrap().imported, 2);
    let order = "SELECT string_agg(m.ordinal || ':' || q.ordinal, ' ' ORDER BY q.position) \
        FROM call_queue q JOIN campaign_contacts m ON m.item_id = q.id";
    assert_eq!(texts(&mut scene.connection(), order), ["1:1 2:2 3:3 4:4"]);
    let agents = format!("SELECT count(*) FROM call_queue WHERE agent_id <> '{agent}'");
    assert_eq!(scene.count(&agents), 0, "its new agent calls them all");
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_added_while_a_list_is_laid_out_stands_behind_it() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let contact = ContactId::new();
    let fields = contact_fields(&phone_number(960));
    let made = scene.store.create_contact(contact, user, fields);
    made.await.unwrap();
    let mut holder = scene.connection();
    holder
        .batch_execute("BEGIN; LOCK TABLE call_queue IN SHARE MODE")
        .unwrap();
    let (store, list) = (scene.store.clone(), rows(people(&scene, 2)));
    let importing =
        tokio::spawn(async move { store.import_list(into(user, campaign), list).await });
    scene.until_waiting_for_lock(1).await;
    let store = scene.store.clone();
    let adding = tokio::spawn(async move {
        store
            .add_campaign_contacts(user, campaign, vec![contact])
            .await
    });
    scene.until_waiting_for_lock(2).await;
    holder.batch_execute("COMMIT").unwrap();

    assert_eq!(importing.await.unwrap().unwrap().imported, 2);
    adding.await.unwrap().unwrap();
    let last = format!("SELECT ordinal FROM call_queue WHERE contact_id = '{contact}'");
    assert_eq!(scene.count(&last), 4);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_listed_while_its_call_is_laid_out_is_not_called() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let entries = people(&scene, 3);
    let Ok(Ok(second)) = &entries[1] else {
        panic!()
    };
    let number = second.phone_number.to_string();
    // It has looked at the lists, and cannot lay out its calls yet.
    let mut holder = scene.connection();
    holder
        .batch_execute("BEGIN; LOCK TABLE call_queue IN SHARE MODE")
        .unwrap();
    let store = scene.store.clone();
    let importing =
        tokio::spawn(async move { store.import_list(into(user, campaign), rows(entries)).await });
    scene.until_waiting_for_lock(1).await;
    scene.sql(&format!(
        "SELECT list_do_not_call('{user}', ARRAY['{number}'], NULL, 100)"
    ));
    holder.batch_execute("COMMIT").unwrap();

    assert_eq!(importing.await.unwrap().unwrap().imported, 3);
    let called = texts(
        &mut scene.connection(),
        "SELECT phone_number FROM call_queue",
    );
    assert_eq!(called.len(), 3);
    assert!(!called.contains(&number));
    let told = format!("SELECT reason FROM call_queue_history WHERE phone_number = '{number}'");
    assert_eq!(texts(&mut scene.connection(), &told), ["do-not-call"]);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contact_that_is_changed_while_its_list_is_imported_is_called_at_its_new_number() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let (old, new) = (phone_number(900), phone_number(901));
    let contact = ContactId::new();
    let made = scene
        .store
        .create_contact(contact, user, contact_fields(&old));
    made.await.unwrap();
    let mut holder = scene.connection();
    holder
        .batch_execute("BEGIN; LOCK TABLE call_queue IN SHARE MODE")
        .unwrap();
    let store = scene.store.clone();
    let list = vec![Ok(Ok(row(2, &old)))];
    let importing =
        tokio::spawn(async move { store.import_list(into(user, campaign), rows(list)).await });
    scene.until_waiting_for_lock(1).await;
    let store = scene.store.clone();
    let fields = contact_fields(&new);
    let changing = tokio::spawn(async move { store.update_contact(user, contact, fields).await });
    // The change waits for the list, not the list for the change.
    scene.until_waiting_for_lock(2).await;
    holder.batch_execute("COMMIT").unwrap();

    assert_eq!(importing.await.unwrap().unwrap().imported, 1);
    changing.await.unwrap().unwrap();
    let called = format!("SELECT phone_number FROM call_queue WHERE contact_id = '{contact}'");
    assert_eq!(texts(&mut scene.connection(), &called), [new]);
    scene.assert_counters_equal_rows().await;
}

/// A million rows where there is time; the figures are printed.
#[tokio::test]
async fn a_long_list_is_laid_out_in_bounded_steps() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let campaign = scene.campaign(user, 1).await;
    let count: u64 = if crate::is_long() { 1_000_000 } else { 25_000 };
    let number = |n: u64| format!("+1{}", 2_000_000_000 + n);
    let entries = (0..count).map(move |n| Ok(Ok(row(n + 2, &number(n)))));
    let began = Instant::now();
    let imported = scene
        .store
        .import_list(into(user, campaign), Box::new(entries));
    assert_eq!(imported.await.unwrap().imported, count);
    println!("{count} rows in {:?}", began.elapsed());
    scene.assert_counters_equal_rows().await;
    let tail = format!("SELECT tail FROM campaign_slots WHERE campaign_id = '{campaign}'");
    assert_eq!(scene.count(&tail), i64::try_from(count).unwrap() + 1);
    let first: Vec<CallId> = scene
        .dispatch(2)
        .await
        .iter()
        .map(|call| call.request.attempt.call_id)
        .collect();
    assert_eq!(first.len(), 2);
}
