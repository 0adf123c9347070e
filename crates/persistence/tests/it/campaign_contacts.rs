//! The contacts of a campaign: listed, added, withdrawn and called again, each counted once.

use callq_domain::{
    CampaignContact, CampaignContactStore, CampaignId, CampaignStatus, CampaignStore, ContactId,
    ContactSelection, ContactStatus, ContactsAdded, DirectoryStore, DoNotCallList, DoNotCallStore,
    Outcome, Page, StoreError, UserId,
};

use crate::scene::{Scene, first_page, new_campaign, page_after, parsed, texts};

use ContactSelection::{All, These};

mod requeued;

impl Scene {
    /// Every contact of a campaign, page by page.
    async fn listed(
        &self,
        user: UserId,
        id: CampaignId,
        status: Option<ContactStatus>,
        limit: u16,
    ) -> Vec<CampaignContact> {
        let mut found = Vec::new();
        let mut page = first_page(limit);
        loop {
            let Page { items, next_cursor } = self
                .store
                .campaign_contacts(user, id, status, page)
                .await
                .unwrap();
            assert!(items.len() <= usize::from(limit));
            found.extend(items);
            if next_cursor.is_none() {
                return found;
            }
            page = page_after(limit, next_cursor);
        }
    }

    /// Checks that each contact stands in one place, and that as many stand there as the figures
    /// say; that counters equal rows, and places their numbers.
    pub(crate) async fn assert_each_contact_counts_once(&self, user: UserId, id: CampaignId) {
        self.assert_counters_equal_rows().await;
        let misplaced = "SELECT count(*) FROM audit_places() WHERE kept <> counted";
        assert_eq!(self.count(misplaced), 0);
        let campaign = self.store.campaign(user, id).await.unwrap().unwrap();
        let progress = campaign.progress;
        let all = self.listed(user, id, None, 7).await;
        assert_eq!(progress.total, all.len() as u64, "{progress:?}");
        for (status, counted) in [
            (ContactStatus::Pending, progress.pending),
            (ContactStatus::Queued, progress.queued),
            (ContactStatus::Processing, progress.processing),
            (ContactStatus::Completed, progress.completed),
            (ContactStatus::Failed, progress.failed),
            (ContactStatus::Cancelled, progress.cancelled),
            (ContactStatus::Expired, progress.expired),
        ] {
            let mut alike: Vec<_> = all.iter().filter(|it| it.status == status).collect();
            assert_eq!(alike.len() as u64, counted, "{status:?} of {progress:?}");
            let listed = self.listed(user, id, Some(status), 3).await;
            let mut listed: Vec<_> = listed.iter().collect();
            alike.sort_by_key(|it| it.contact_id.as_uuid());
            listed.sort_by_key(|it| it.contact_id.as_uuid());
            assert_eq!(listed, alike, "{status:?}");
        }
    }

    async fn requeue(&self, user: UserId, id: CampaignId, which: ContactSelection) -> u64 {
        let ended = ContactStatus::REPEATABLE.to_vec();
        self.store
            .requeue_campaign_contacts(user, id, which, ended)
            .await
            .unwrap()
    }

    async fn status(&self, user: UserId, id: CampaignId) -> CampaignStatus {
        self.store.campaign(user, id).await.unwrap().unwrap().status
    }

    /// A campaign under way, and its contacts in order.
    async fn campaign_of(&self, user: UserId, contacts: usize) -> (CampaignId, Vec<ContactId>) {
        let contacts = self.contacts(user, contacts).await;
        let campaign = new_campaign(user, self.agent(user).await, contacts.clone());
        let id = self.store.create_campaign(campaign).await.unwrap().id;
        self.set_status(user, id, CampaignStatus::Active).await;
        (id, contacts)
    }

    /// Starts at most so many calls and ends each so.
    async fn run(&self, calls: u32, outcome: Outcome) -> usize {
        let mut done = 0;
        while done < calls {
            let started = self.dispatch(calls - done).await;
            if started.is_empty() {
                break;
            }
            for call in &started {
                self.place(call.request.attempt).await;
                self.end(call.request.attempt.call_id, outcome).await;
            }
            done += u32::try_from(started.len()).unwrap();
        }
        usize::try_from(done).unwrap()
    }
}

fn ids(contacts: &[CampaignContact]) -> Vec<ContactId> {
    contacts.iter().map(|contact| contact.contact_id).collect()
}

#[tokio::test]
async fn contacts_are_listed_with_where_they_stand_all_in_order_or_of_one_status() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 8).await;
    scene.run(2, Outcome::Completed).await;
    scene.run(1, Outcome::Busy).await;
    let up = scene.dispatch(2).await;
    scene.give_back(up[1].request.attempt).await;
    let last = These(vec![contacts[7]]);
    let withdrawn = scene.store.cancel_campaign_contacts(user, id, last).await;
    assert_eq!(withdrawn, Ok(1));

    let all = scene.listed(user, id, None, 3).await;

    assert_eq!(ids(&all), contacts);
    let stand: Vec<ContactStatus> = all.iter().map(|contact| contact.status).collect();
    use ContactStatus::{Cancelled, Completed, Failed, Processing, Queued};
    assert_eq!(
        stand,
        [
            Completed, Completed, Failed, Processing, Queued, Queued, Queued, Cancelled
        ]
    );
    assert_eq!(all[2].outcome, Some(Outcome::Busy));
    assert_eq!((all[2].attempts, all[5].attempts), (1, 0));
    assert!(all[2].call_id.is_some() && all[2].finished_at.is_some());
    assert_eq!(all[4].reason.as_deref(), Some("provider is busy"));
    assert_eq!(all[4].attempts, 1);
    assert_eq!(all[7].reason.as_deref(), Some("cancelled by its owner"));
    scene.assert_each_contact_counts_once(user, id).await;

    let other = scene.user().await;
    let store = &scene.store;
    let foreign = store
        .campaign_contacts(other, id, None, first_page(5))
        .await;
    assert_eq!(foreign, Err(StoreError::NotFound));
    let page = store.campaign_contacts(user, id, None, first_page(1)).await;
    let of_all = page_after(1, page.unwrap().next_cursor);
    let taken = store
        .campaign_contacts(user, id, Some(Queued), of_all)
        .await;
    assert_eq!(taken, Err(StoreError::BadCursor));
}

#[tokio::test]
async fn those_that_wait_are_listed_as_they_go_and_sleepers_as_they_wake() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 7).await;
    scene.sql(
        "UPDATE call_queue SET wakes_at = now() + position * interval '1 hour' WHERE id IN \
             (SELECT id FROM call_queue ORDER BY position LIMIT 2); \
         UPDATE campaign_slots SET due = due - 2, later = 2; \
         UPDATE user_slots SET due_campaign = due_campaign - 2; \
         UPDATE call_queue SET priority = 3 WHERE id = \
             (SELECT id FROM call_queue ORDER BY position DESC LIMIT 1)",
    );

    let waiting = scene.listed(user, id, Some(ContactStatus::Queued), 2).await;

    let expected = [6, 2, 3, 4, 5, 0, 1].map(|nth| contacts[nth]);
    assert_eq!(ids(&waiting), expected);
    assert!(waiting[5].next_attempt_at < waiting[6].next_attempt_at);
    assert_eq!(waiting[0].next_attempt_at, None);
    scene.assert_each_contact_counts_once(user, id).await;
}

#[tokio::test]
async fn contacts_are_added_behind_the_others_each_once_and_go_in_their_turn() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, first) = scene.campaign_of(user, 3).await;
    scene.run(1, Outcome::Completed).await;
    let up = scene.dispatch(1).await;
    let more = scene.contacts(user, 4).await;
    let asked = [more.clone(), vec![first[0], more[1]]].concat();

    let added = scene.store.add_campaign_contacts(user, id, asked).await;

    let skipped = vec![first[0]];
    assert_eq!(added, Ok(ContactsAdded::Added { added: 4, skipped }));
    let all = scene.listed(user, id, None, 10).await;
    assert_eq!(ids(&all), [first.clone(), more.clone()].concat());
    scene.assert_each_contact_counts_once(user, id).await;
    let places = "SELECT get_call_queue_position(id)::text FROM call_queue ORDER BY position";
    let places = texts(&mut scene.connection(), places);
    assert_eq!(places, ["1", "2", "3", "4", "5"]);

    // What comes back goes before what was added.
    scene.give_back(up[0].request.attempt).await;
    scene.assert_each_contact_counts_once(user, id).await;
    scene.sql("UPDATE user_slots SET held_campaign = NULL; SELECT refile_lanes(ARRAY(SELECT user_id FROM user_slots))");
    let waiting = scene
        .listed(user, id, Some(ContactStatus::Queued), 10)
        .await;
    assert_eq!(ids(&waiting), [first[1..].to_vec(), more].concat());
    assert_eq!(scene.run(6, Outcome::Completed).await, 6);
    assert_eq!(scene.status(user, id).await, CampaignStatus::Completed);
    scene.assert_each_contact_counts_once(user, id).await;
}

#[tokio::test]
async fn adding_to_a_draft_or_a_paused_campaign_starts_nobody_and_to_one_that_is_over_is_refused() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let draft = scene.draft(user, 2).await;
    let paused = scene.campaign(user, 2).await;
    scene.set_status(user, paused, CampaignStatus::Paused).await;
    let over = scene.draft(user, 2).await;
    scene
        .set_status(user, over, CampaignStatus::Cancelled)
        .await;
    let more = scene.contacts(user, 2).await;

    for id in [draft, paused] {
        let store = &scene.store;
        let added = store.add_campaign_contacts(user, id, more.clone()).await;
        let none = Vec::new();
        assert_eq!(
            added,
            Ok(ContactsAdded::Added {
                added: 2,
                skipped: none
            })
        );
        scene.assert_each_contact_counts_once(user, id).await;
    }
    let refused = scene.store.add_campaign_contacts(user, over, more.clone());
    let sentence = StoreError::Conflict("campaign is cancelled".into());
    assert_eq!(refused.await, Err(sentence));
    let foreign = scene.contact(scene.user().await).await;
    let mixed = vec![more[0], scene.contact(user).await, foreign];
    let refused = scene.store.add_campaign_contacts(user, draft, mixed).await;
    assert_eq!(refused, Ok(ContactsAdded::UnknownContact(foreign)));

    assert_eq!(scene.dispatch(10).await.len(), 0);
    scene.set_status(user, paused, CampaignStatus::Active).await;
    scene.set_status(user, draft, CampaignStatus::Active).await;
    scene.limit(user, 20).await;
    assert_eq!(scene.dispatch(20).await.len(), 8);
    scene.assert_each_contact_counts_once(user, draft).await;
}

#[tokio::test]
async fn two_who_add_at_once_come_one_after_the_other_and_calls_go_on_meanwhile() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = scene.campaign(user, 2).await;
    let (one, two) = (
        scene.contacts(user, 20).await,
        scene.contacts(user, 20).await,
    );
    let mut other = scene.connection();
    use diesel::connection::SimpleConnection;
    let held = "BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('callq campaign list ";
    other.batch_execute(&format!("{held}{id}', 0))")).unwrap();
    let adding = [one, two].map(|contacts| {
        let store = scene.store.clone();
        tokio::spawn(async move { store.add_campaign_contacts(user, id, contacts).await })
    });
    scene.until_waiting_for_lock(2).await;

    // Neither holds what dispatch needs.
    assert_eq!(scene.run(1, Outcome::Completed).await, 1);
    let paused = scene.set_status(user, id, CampaignStatus::Paused).await;
    assert_eq!(paused.progress.queued, 1);
    other.batch_execute("COMMIT").unwrap();
    for added in adding {
        let none = Vec::new();
        let expected = ContactsAdded::Added {
            added: 20,
            skipped: none,
        };
        assert_eq!(added.await.unwrap(), Ok(expected));
    }

    scene.assert_each_contact_counts_once(user, id).await;
    let apart = "SELECT count(*) - count(DISTINCT ordinal) FROM call_queue";
    assert_eq!(scene.count(apart), 0);
}

#[tokio::test]
async fn withdrawing_takes_what_waits_and_leaves_what_is_up() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 1_200).await;
    let up = scene.dispatch(2).await;
    let some = These(vec![
        contacts[0],
        contacts[5],
        contacts[9],
        ContactId::new(),
    ]);

    let withdrawn = scene.store.cancel_campaign_contacts(user, id, some).await;
    assert_eq!(withdrawn, Ok(2));
    scene.assert_counters_equal_rows().await;
    let withdrawn = scene.store.cancel_campaign_contacts(user, id, All).await;
    assert_eq!(withdrawn, Ok(1_196));

    let campaign = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(campaign.status, CampaignStatus::Active);
    assert_eq!(
        (campaign.progress.cancelled, campaign.progress.processing),
        (1_198, 2)
    );
    for call in up {
        scene
            .end(call.request.attempt.call_id, Outcome::Completed)
            .await;
    }
    assert_eq!(scene.status(user, id).await, CampaignStatus::Completed);
    let over = scene.store.cancel_campaign_contacts(user, id, All).await;
    let sentence = StoreError::Conflict("campaign is completed".into());
    assert_eq!(over, Err(sentence));
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn contacts_listed_by_a_server_of_the_version_before_are_found() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 6).await;
    scene.run(2, Outcome::Failed).await;
    scene.dispatch(1).await;
    scene.sql(
        "UPDATE campaign_contacts SET item_id = NULL; \
         UPDATE call_queue SET wakes_at = now() + interval '1 hour' WHERE id = \
             (SELECT id FROM call_queue ORDER BY position LIMIT 1); \
         UPDATE campaign_slots SET due = due - 1, later = 1; \
         UPDATE user_slots SET due_campaign = due_campaign - 1",
    );
    scene.sql("SELECT fold_campaign_tallies()");

    assert_eq!(scene.requeue(user, id, These(vec![contacts[0]])).await, 1);

    assert_eq!(ids(&scene.listed(user, id, None, 4).await), contacts);
    scene.assert_each_contact_counts_once(user, id).await;
    scene.sql("UPDATE campaign_contacts SET item_id = NULL WHERE earlier_item_id IS NULL");
    scene.assert_each_contact_counts_once(user, id).await;
    scene.sql("UPDATE campaign_contacts SET item_id = NULL WHERE earlier_item_id IS NULL");
    let withdrawn = scene
        .store
        .cancel_campaign_contacts(user, id, These(vec![contacts[4], contacts[3]]))
        .await;
    assert_eq!(withdrawn, Ok(2));
}

#[tokio::test]
async fn a_contact_deleted_after_its_campaign_is_not_called_again() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 3).await;
    scene.run(3, Outcome::Busy).await;
    scene.store.delete_contact(user, contacts[1]).await.unwrap();

    let failed = scene.listed(user, id, Some(ContactStatus::Failed), 1).await;
    assert_eq!(ids(&failed), [contacts[2], contacts[0]]);
    assert_eq!(scene.requeue(user, id, All).await, 2);

    let progress = scene.progress(user, id).await;
    assert_eq!(
        (progress.total, progress.queued, progress.failed),
        (3, 2, 1)
    );
    scene.assert_counters_equal_rows().await;
}

#[tokio::test]
async fn a_contact_that_waits_for_another_call_is_queued_and_counted_once() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let contacts = scene.contacts(user, 4).await;
    let mut campaign = new_campaign(user, scene.agent(user).await, contacts.clone());
    campaign.fields.retries.max_retries = 2;
    campaign.fields.retries.interval_minutes = 5;
    let id = scene.store.create_campaign(campaign).await.unwrap().id;
    scene.set_status(user, id, CampaignStatus::Active).await;
    scene.run(1, Outcome::Busy).await;

    let waits = scene.listed(user, id, None, 2).await.remove(0);

    assert_eq!(waits.status, ContactStatus::Queued);
    assert_eq!((waits.attempts, waits.outcome), (1, Some(Outcome::Busy)));
    assert_eq!(waits.reason.as_deref(), Some("retry 1 of 2, after busy"));
    assert!(waits.next_attempt_at.is_some() && waits.finished_at.is_none());
    let failed = scene.listed(user, id, Some(ContactStatus::Failed), 2).await;
    assert_eq!(failed, []);
    assert_eq!(scene.requeue(user, id, All).await, 0);
    scene.assert_each_contact_counts_once(user, id).await;

    // Its second call is up, then over; then the third, which is the last.
    for (nth, outcome) in [(2, Outcome::NoAnswer), (3, Outcome::Busy)] {
        wake(&scene);
        let again = scene.dispatch(1).await.remove(0);
        let is_up = scene.listed(user, id, Some(ContactStatus::Processing), 2);
        assert_eq!(ids(&is_up.await), contacts[..1]);
        scene.assert_each_contact_counts_once(user, id).await;
        scene.place(again.request.attempt).await;
        scene.end(again.request.attempt.call_id, outcome).await;
        let now = scene.listed(user, id, None, 2).await.remove(0);
        assert_eq!((now.attempts, now.outcome), (nth, Some(outcome)));
        scene.assert_each_contact_counts_once(user, id).await;
    }
    let failed = scene.listed(user, id, Some(ContactStatus::Failed), 1).await;
    assert_eq!(ids(&failed), contacts[..1]);
    let statistics = scene.store.campaign_statistics(user, id).await.unwrap();
    let calls = statistics.unwrap().calls.unwrap();
    // Every call counts, those made again too, and each attempt once.
    assert_eq!((calls.ended, calls.attempts), (3, 3));
    assert_eq!(calls.by_outcome, [0, 2, 1, 0, 0]);
    assert_eq!(scene.requeue(user, id, All).await, 1);
    scene.assert_each_contact_counts_once(user, id).await;
}

/// Has what sleeps be due, as if the time had come.
fn wake(scene: &Scene) {
    scene.sql("UPDATE call_queue SET wakes_at = engine_now() WHERE wakes_at IS NOT NULL");
}

#[tokio::test]
async fn a_contact_on_a_do_not_call_list_is_added_as_cancelled_and_never_queued_again() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, contacts) = scene.campaign_of(user, 4).await;
    let more = scene.contacts(user, 3).await;
    scene.run(2, Outcome::Busy).await;
    let numbers = [contacts[0], more[1]].map(|contact| {
        let query = format!("SELECT phone_number FROM contacts WHERE id = '{contact}'");
        parsed(&texts(&mut scene.connection(), &query)[0])
    });
    let listed = scene
        .store
        .list_numbers(DoNotCallList::Of(user), numbers.to_vec(), None);
    listed.await.unwrap();

    let added = scene.store.add_campaign_contacts(user, id, more.clone());

    let all = ContactsAdded::Added {
        added: 3,
        skipped: vec![],
    };
    assert_eq!(added.await, Ok(all));
    let cancelled = scene
        .listed(user, id, Some(ContactStatus::Cancelled), 2)
        .await;
    assert_eq!(ids(&cancelled), [more[1]]);
    assert_eq!(cancelled[0].reason.as_deref(), Some("do-not-call"));
    scene.assert_each_contact_counts_once(user, id).await;
    // One of the two that were busy, and not the one added.
    assert_eq!(scene.requeue(user, id, All).await, 1);
    assert_eq!(scene.run(9, Outcome::Completed).await, 5);
    scene.assert_each_contact_counts_once(user, id).await;
    let progress = scene.progress(user, id).await;
    assert_eq!((progress.completed, progress.failed), (5, 1));
}

#[tokio::test]
async fn a_number_listed_while_its_contact_is_added_or_queued_again_is_withdrawn() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (id, _) = scene.campaign_of(user, 3).await;
    scene.run(1, Outcome::Busy).await;
    let more = scene.contacts(user, 2).await;
    for adds in [true, false] {
        let mut other = scene.connection();
        use diesel::connection::SimpleConnection;
        // Someone lists every number once all is laid out.
        other.batch_execute("BEGIN; SELECT lock_engine()").unwrap();
        let (store, more, added) = (scene.store.clone(), more.clone(), more.clone());
        let late = tokio::spawn(async move {
            if adds {
                let added = store.add_campaign_contacts(user, id, more).await;
                return added.map(|_| 0);
            }
            let failed = vec![ContactStatus::Failed];
            store.requeue_campaign_contacts(user, id, All, failed).await
        });
        scene.until_waiting_for_lock(1).await;
        let whose = if adds { "IN" } else { "NOT IN" };
        let list = format!(
            "INSERT INTO do_not_call (user_id, phone_number) \
             SELECT user_id, phone_number FROM contacts WHERE id {whose} ('{}', '{}') \
             AND id NOT IN (SELECT contact_id FROM call_queue WHERE campaign_id = '{id}'); COMMIT",
            added[0], added[1],
        );
        other.batch_execute(&list).unwrap();

        assert_eq!(late.await.unwrap(), Ok(0));
        scene.assert_each_contact_counts_once(user, id).await;
    }
    let progress = scene.progress(user, id).await;
    assert_eq!((progress.queued, progress.cancelled), (2, 3));
}
