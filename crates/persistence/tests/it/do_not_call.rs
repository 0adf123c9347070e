//! Do-not-call lists: nothing that is on one waits, whoever comes first.

use std::cell::Cell;
use std::collections::BTreeSet;

use callq_domain::{
    Admission, CampaignStatus, CampaignStore, ContactId, DirectoryStore, DoNotCallList,
    DoNotCallStore, Listed, ListedOn, Listing, QueueItemId, Refusal, StoreError, Target, UserId,
};
use callq_persistence::connect;
use chrono::{TimeDelta, Utc};
use diesel::connection::SimpleConnection;
use diesel::sql_types::Text;
use diesel::{QueryableByName, RunQueryDsl, sql_query};

use crate::scene::{
    Scene, contact_fields, direct_call, first_page, new_campaign, page_after, parsed, phone_number,
    texts,
};

const NUMBER: &str = "+14155552671";
const OTHER: &str = "+442079460958";

impl Scene {
    async fn list(&self, list: DoNotCallList, numbers: &[&str]) -> Listed {
        let numbers = numbers.iter().map(|number| parsed(number)).collect();
        let listed = self.store.list_numbers(list, numbers, None);
        listed.await.unwrap()
    }

    async fn contact_at(&self, user: UserId, number: &str) -> ContactId {
        let made = self
            .store
            .create_contact(ContactId::new(), user, contact_fields(number));
        made.await.unwrap().id
    }

    /// A direct call to this number that finds no slot.
    async fn wait_for(&self, user: UserId, number: &str) -> QueueItemId {
        let call = direct_call(user, self.agent(user).await, Target::Number(parsed(number)));
        match self.admit(call).await {
            Admission::Queued(queued) => queued.item_id,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    /// Status and reason of every item, in order.
    fn items_told(&self) -> Vec<String> {
        let query = "SELECT concat_ws(' ', call_type, phone_number, status, reason) FROM queue_items \
            ORDER BY position";
        texts(&mut self.connection(), query)
    }
}

fn refused_by(admission: &Admission) -> Option<ListedOn> {
    match admission {
        Admission::Refused(Refusal::DoNotCall(list)) => Some(*list),
        _ => None,
    }
}

#[tokio::test]
async fn a_listed_number_is_refused_at_the_door_and_nothing_is_written() {
    let scene = Scene::new().await;
    let (ada, bob) = (scene.user().await, scene.user().await);
    let (agent, bobs_agent) = (scene.agent(ada).await, scene.agent(bob).await);
    let contact = scene.contact_at(ada, OTHER).await;
    scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;
    scene.list(DoNotCallList::Global, &[OTHER]).await;
    // Asked for before credits are looked at, and after what is not there.
    scene.sql(&format!("UPDATE users SET credits = 0 WHERE id = '{ada}'"));

    let number = |number| Target::Number(parsed(number));
    let own = scene.admit(direct_call(ada, agent, number(NUMBER))).await;
    let global = scene.admit(direct_call(ada, agent, number(OTHER))).await;
    let by_contact = direct_call(ada, agent, Target::Contact(contact));
    let by_contact = scene.admit(by_contact).await;
    let nobodys = scene
        .admit(direct_call(ada, bobs_agent, number(OTHER)))
        .await;
    let unpaid = scene
        .admit(direct_call(ada, agent, number("+919876543210")))
        .await;

    assert_eq!(refused_by(&own), Some(ListedOn::Own));
    assert_eq!(refused_by(&global), Some(ListedOn::Global));
    assert_eq!(refused_by(&by_contact), Some(ListedOn::Global));
    assert!(matches!(nobodys, Admission::Refused(Refusal::UnknownAgent)));
    assert!(matches!(
        unpaid,
        Admission::Refused(Refusal::NoCredits { credits: 0 })
    ));
    assert_eq!(scene.items_told(), Vec::<String>::new());
    let bobs = scene
        .admit(direct_call(bob, bobs_agent, number(NUMBER)))
        .await;
    assert!(matches!(bobs, Admission::Started(_)), "{bobs:?}");
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_refused_call_does_not_use_up_its_idempotency_key() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;
    let mut call = direct_call(ada, scene.agent(ada).await, Target::Number(parsed(NUMBER)));
    call.idempotency = Some(callq_domain::IdempotencyKey {
        key: "k".into(),
        request_hash: [7; 32],
    });

    let refused = scene.admit(call.clone()).await;
    assert_eq!(refused_by(&refused), Some(ListedOn::Own));
    let off = scene
        .store
        .unlist_number(DoNotCallList::Of(ada), parsed(NUMBER));
    off.await.unwrap();

    assert!(matches!(scene.admit(call).await, Admission::Started(_)));
}

#[tokio::test]
async fn what_waits_for_a_number_is_withdrawn_when_it_is_listed() {
    let scene = Scene::new().await;
    let (ada, bob) = (scene.user().await, scene.user().await);
    for user in [ada, bob] {
        scene.limit(user, 0).await;
        scene.wait_for(user, OTHER).await;
        scene.wait_for(user, NUMBER).await;
    }
    let mut later = direct_call(ada, scene.agent(ada).await, Target::Number(parsed(NUMBER)));
    later.scheduled_for = Some(Utc::now() + TimeDelta::hours(1));
    scene.admit(later).await;
    let contacts = vec![
        scene.contact_at(ada, NUMBER).await,
        scene.contact_at(ada, OTHER).await,
    ];
    let campaign = new_campaign(ada, scene.agent(ada).await, contacts);
    let campaign = scene.store.create_campaign(campaign).await.unwrap().id;
    scene
        .set_status(ada, campaign, CampaignStatus::Active)
        .await;

    let own = scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;
    assert_eq!((own.added, own.withdrawn), (1, 3));
    assert_eq!(
        scene.items_told(),
        [
            "direct +442079460958 queued",
            "direct +14155552671 cancelled do-not-call",
            "direct +442079460958 queued",
            "direct +14155552671 queued",
            "direct +14155552671 cancelled do-not-call",
            "campaign +14155552671 cancelled do-not-call",
            "campaign +442079460958 queued",
        ]
    );
    scene.assert_counters_equal_rows().await;

    let global = scene.list(DoNotCallList::Global, &[NUMBER, OTHER]).await;
    assert_eq!((global.added, global.withdrawn), (2, 4));
    assert!(
        scene
            .items_told()
            .iter()
            .all(|told| told.ends_with("cancelled do-not-call"))
    );
    let over = scene.store.campaign(ada, campaign).await.unwrap().unwrap();
    assert_eq!(over.status, CampaignStatus::Completed);
    assert_eq!((over.progress.total, over.progress.cancelled), (2, 2));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_that_holds_a_slot_goes_on_when_its_number_is_listed() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    let call = direct_call(ada, scene.agent(ada).await, Target::Number(parsed(NUMBER)));
    let Admission::Started(call) = scene.admit(call).await else {
        panic!("there is room");
    };

    let listed = scene.list(DoNotCallList::Global, &[NUMBER]).await;

    assert_eq!(listed.withdrawn, 0);
    scene.place(call.request.attempt).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn what_very_many_wait_for_is_withdrawn_in_parts() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.limit(ada, 0).await;
    let campaign = scene.draft(ada, 1_100).await;
    scene.sql(&format!("UPDATE call_queue SET phone_number = '{NUMBER}'"));
    scene
        .set_status(ada, campaign, CampaignStatus::Active)
        .await;

    let listed = scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;

    assert_eq!((listed.added, listed.withdrawn), (1, 1_100));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn adding_twice_says_how_many_were_new_and_many_go_in_parts() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    let numbers: Vec<String> = (0..1_200).map(phone_number).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let own = DoNotCallList::Of(ada);

    assert_eq!(scene.list(own, &[NUMBER, NUMBER]).await.added, 1);
    assert_eq!(scene.list(own, &[NUMBER, OTHER]).await.added, 1);
    assert_eq!(scene.list(own, &numbers).await.added, 1_200);
    assert_eq!(scene.list(own, &numbers).await.added, 0);
    assert_eq!(scene.list(DoNotCallList::Global, &[NUMBER]).await.added, 1);
}

#[tokio::test]
async fn lists_are_paged_looked_up_and_thinned_each_by_itself() {
    let scene = Scene::new().await;
    let (ada, bob) = (scene.user().await, scene.user().await);
    let own = DoNotCallList::Of(ada);
    let reason = Some("asked us to stop".to_owned());
    let added = scene
        .store
        .list_numbers(own, vec![parsed(NUMBER)], reason.clone());
    added.await.unwrap();
    let numbers: Vec<String> = (0..4).map(phone_number).collect();
    for number in &numbers {
        scene.list(own, &[number]).await;
    }
    scene.list(DoNotCallList::Global, &[NUMBER]).await;

    let first = scene
        .store
        .do_not_call_entries(own, first_page(3))
        .await
        .unwrap();
    let rest = page_after(3, first.next_cursor.clone());
    let last = scene
        .store
        .do_not_call_entries(own, rest.clone())
        .await
        .unwrap();
    assert_eq!(
        (first.items.len(), last.items.len(), last.next_cursor),
        (3, 2, None)
    );
    let listed: BTreeSet<_> = first
        .items
        .iter()
        .chain(&last.items)
        .collect::<Vec<_>>()
        .iter()
        .map(|entry| entry.phone_number.to_string())
        .collect();
    let mut all: BTreeSet<_> = numbers.iter().cloned().collect();
    all.insert(NUMBER.into());
    assert_eq!(listed, all);
    let of_another_list = scene
        .store
        .do_not_call_entries(DoNotCallList::Global, rest)
        .await;
    assert_eq!(of_another_list, Err(StoreError::BadCursor));
    let bobs = scene
        .store
        .do_not_call_entries(DoNotCallList::Of(bob), first_page(3))
        .await;
    assert_eq!(bobs.unwrap().items, []);

    let both = scene
        .store
        .listing(Some(ada), parsed(NUMBER))
        .await
        .unwrap();
    assert_eq!(both.own.unwrap().reason, reason);
    assert_eq!(both.global.unwrap().reason, None);
    let bobs = scene
        .store
        .listing(Some(bob), parsed(NUMBER))
        .await
        .unwrap();
    assert!(bobs.own.is_none() && bobs.global.is_some());
    scene
        .store
        .unlist_number(DoNotCallList::Global, parsed(NUMBER))
        .await
        .unwrap();
    let gone = scene
        .store
        .unlist_number(DoNotCallList::Global, parsed(NUMBER))
        .await;
    assert_eq!(gone, Err(StoreError::NotFound));
    let bobs = scene
        .store
        .listing(Some(bob), parsed(NUMBER))
        .await
        .unwrap();
    assert_eq!(bobs, Listing::default());
    let nobody = scene.store.listing(None, parsed(NUMBER)).await.unwrap();
    assert_eq!(nobody, Listing::default());
    assert!(
        scene
            .store
            .listing(Some(ada), parsed(NUMBER))
            .await
            .unwrap()
            .own
            .is_some()
    );
}

#[tokio::test]
async fn the_list_of_a_user_who_is_gone_cannot_grow_and_goes_too() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;

    scene.sql(&format!("DELETE FROM users WHERE id = '{ada}'"));

    assert_eq!(scene.count("SELECT count(*) FROM do_not_call"), 0);
    let late = scene
        .store
        .list_numbers(DoNotCallList::Of(ada), vec![parsed(NUMBER)], None);
    assert_eq!(late.await, Err(StoreError::NotFound));
}

#[tokio::test]
async fn a_campaign_counts_contacts_who_must_not_be_called_as_cancelled() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.limit(ada, 0).await;
    scene.list(DoNotCallList::Global, &[NUMBER]).await;
    let mut contacts = scene.contacts(ada, 4).await;
    contacts.insert(2, scene.contact_at(ada, NUMBER).await);
    let campaign = new_campaign(ada, scene.agent(ada).await, contacts);

    let made = scene.store.create_campaign(campaign).await.unwrap();

    let progress = made.progress;
    assert_eq!(
        (progress.total, progress.pending, progress.cancelled),
        (5, 4, 1)
    );
    let refused = format!("campaign {NUMBER} cancelled do-not-call");
    let told = scene.items_told();
    assert_eq!(told.iter().filter(|told| **told == refused).count(), 1);
    scene.set_status(ada, made.id, CampaignStatus::Active).await;
    let places = "SELECT get_call_queue_position(id)::text FROM call_queue ORDER BY position";
    assert_eq!(texts(&mut scene.connection(), places), ["1", "2", "3", "4"]);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_campaign_of_nobody_who_may_be_called_is_over_when_it_starts() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;
    let contact = scene.contact_at(ada, NUMBER).await;
    let campaign = new_campaign(ada, scene.agent(ada).await, vec![contact]);
    let made = scene.store.create_campaign(campaign).await.unwrap();

    let started = scene.set_status(ada, made.id, CampaignStatus::Active).await;

    assert_eq!(started.status, CampaignStatus::Completed);
    assert_eq!(started.progress.cancelled, 1);
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_number_listed_while_a_call_to_it_is_admitted_is_not_waited_for() {
    for admission_first in [true, false] {
        let scene = Scene::new().await;
        let ada = scene.user().await;
        let call = direct_call(ada, scene.agent(ada).await, Target::Number(parsed(NUMBER)));
        scene.limit(ada, 0).await;
        let mut gate = scene.connection();
        gate.batch_execute("BEGIN; SELECT lock_engine()").unwrap();
        let admit = async {
            if !admission_first {
                scene.until_waiting_for_lock(1).await;
            }
            scene.admit(call).await
        };
        let list = async {
            if admission_first {
                scene.until_waiting_for_lock(1).await;
            }
            scene.list(DoNotCallList::Of(ada), &[NUMBER]).await
        };
        let open = async {
            scene.until_waiting_for_lock(2).await;
            gate.batch_execute("COMMIT").unwrap();
        };

        let (admitted, listed, ()) = tokio::join!(admit, list, open);

        // The lock is had in the order in which it was asked for.
        if admission_first {
            assert!(matches!(admitted, Admission::Queued(_)), "{admitted:?}");
            assert_eq!(listed.withdrawn, 1);
        } else {
            assert_eq!(refused_by(&admitted), Some(ListedOn::Own));
            assert_eq!(listed.withdrawn, 0);
        }
        assert_eq!(scene.count("SELECT count(*) FROM call_queue"), 0);
        scene.assert_counters_equal_rows().await;
    }
}

#[tokio::test]
async fn a_number_listed_while_a_campaign_with_it_is_laid_out_is_not_called() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    let mut contacts = scene.contacts(ada, 3).await;
    contacts.push(scene.contact_at(ada, NUMBER).await);
    let campaign = new_campaign(ada, scene.agent(ada).await, contacts);
    let mut gate = scene.connection();
    gate.batch_execute("BEGIN; SELECT lock_engine()").unwrap();
    let is_made = Cell::new(false);
    let create = async {
        let made = scene.store.create_campaign(campaign).await;
        is_made.set(true);
        made
    };
    let list = async {
        // It is laid out, and nobody else can see it.
        let waits = scene.until_waiting_for_lock(1);
        let over = async {
            while !is_made.get() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = waits => {}
            () = over => panic!("it was made without a look under the engine's lock"),
        }
        let list = format!("SELECT list_do_not_call(NULL, ARRAY['{NUMBER}'], NULL, 500); COMMIT");
        gate.batch_execute(&list).unwrap();
    };

    let (made, ()) = tokio::join!(create, list);

    let made = made.unwrap();
    let progress = made.progress;
    assert_eq!(
        (progress.total, progress.pending, progress.cancelled),
        (4, 3, 1)
    );
    let waiting = format!("SELECT count(*) FROM call_queue WHERE phone_number = '{NUMBER}'");
    assert_eq!(scene.count(&waiting), 0);
    scene.assert_counters_equal_rows().await;
    scene.set_status(ada, made.id, CampaignStatus::Active).await;
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_call_that_follows_its_contact_to_a_listed_number_is_withdrawn() {
    let scene = Scene::new().await;
    let ada = scene.user().await;
    scene.limit(ada, 0).await;
    let contact = scene.contact_at(ada, OTHER).await;
    let call = direct_call(ada, scene.agent(ada).await, Target::Contact(contact));
    scene.admit(call).await;
    scene.list(DoNotCallList::Of(ada), &[NUMBER]).await;

    let moved = scene
        .store
        .update_contact(ada, contact, contact_fields(NUMBER));
    moved.await.unwrap();

    assert_eq!(
        scene.items_told(),
        [format!("direct {NUMBER} cancelled do-not-call")]
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn of_items_that_enter_the_queue_only_those_listed_are_withdrawn() {
    let scene = Scene::new().await;
    let (ada, bob) = (scene.user().await, scene.user().await);
    let mut waiting = Vec::new();
    for user in [ada, bob] {
        scene.limit(user, 0).await;
        for number in [NUMBER, OTHER] {
            waiting.push(format!("'{}'", scene.wait_for(user, number).await));
        }
    }
    // As for calls that were up when their number was listed.
    scene.sql(&format!(
        "INSERT INTO do_not_call (user_id, phone_number) VALUES ('{ada}', '{NUMBER}'), (NULL, '{OTHER}')"
    ));
    let withdraw = |items: &[String]| {
        let mut connection = scene.connection();
        connection
            .batch_execute("BEGIN; SELECT lock_engine()")
            .unwrap();
        let query = format!(
            "SELECT withdraw_listed(ARRAY[{}]::uuid[], NULL, engine_now())::text",
            items.join(", ")
        );
        let withdrawn = texts(&mut connection, &query);
        connection.batch_execute("COMMIT").unwrap();
        withdrawn
    };

    assert_eq!(withdraw(&[]), ["0"]);
    assert_eq!(withdraw(&waiting[..3]), ["2"]);
    assert_eq!(withdraw(&waiting), ["1"]);

    assert_eq!(
        scene.items_told(),
        [
            "direct +14155552671 cancelled do-not-call",
            "direct +442079460958 cancelled do-not-call",
            "direct +14155552671 queued",
            "direct +442079460958 cancelled do-not-call",
        ]
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn listing_reads_what_waits_for_the_number_and_no_more() {
    let scene = Scene::new().await;
    let (ada, bob) = (scene.user().await, scene.user().await);
    let mut planned_empty = connect(scene.database.url()).unwrap();
    let mut pages = |owner: &str, number: &str| {
        #[derive(QueryableByName)]
        struct PlanRow {
            #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
            line: String,
        }
        let explain = format!(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) \
             SELECT * FROM list_do_not_call({owner}, ARRAY['{number}'], NULL, 500)"
        );
        let lines: Vec<PlanRow> = sql_query(explain).load(&mut planned_empty).unwrap();
        let buffers = lines
            .iter()
            .find(|row| row.line.contains("Buffers: "))
            .unwrap();
        let words = buffers.line.split([' ', '=']).collect::<Vec<_>>();
        let at = words.iter().position(|word| *word == "hit").unwrap();
        words[at + 1].parse::<u64>().unwrap()
    };
    pages("NULL", &phone_number(1));
    pages(&format!("'{ada}'"), &phone_number(1));
    scene.draft(bob, 5_000).await;
    scene.sql(&format!(
        "UPDATE call_queue SET phone_number = '{NUMBER}' WHERE position % 2 = 0; \
         INSERT INTO do_not_call (user_id, phone_number) \
             SELECT '{bob}', '+1416' || (1000000 + n) FROM generate_series(1, 20000) n"
    ));

    // Not even what another user has waiting for the same number.
    let own = pages(&format!("'{ada}'"), NUMBER);
    let global = pages("NULL", OTHER);

    assert!(own < 60 && global < 60, "{own} and {global} pages");
}
