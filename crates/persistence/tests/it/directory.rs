//! Agents and contacts.

use callq_domain::{
    AgentId, CampaignStatus, CampaignStore, ContactId, DirectoryStore, PageRequest, ProviderName,
    StoreError, Target,
};
use serde_json::value::RawValue;

use crate::scene::{
    Scene, agent_fields, contact_fields, direct_call, first_page, new_campaign, page_after, parsed,
};

fn json(text: &str) -> Option<Box<RawValue>> {
    Some(RawValue::from_string(text.into()).unwrap())
}

fn conflict<T>(sentence: &str) -> Result<T, StoreError> {
    Err(StoreError::Conflict(sentence.into()))
}

#[tokio::test]
async fn an_agent_is_kept_as_it_was_described_and_changed_as_a_whole() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = AgentId::new();
    let mut fields = agent_fields("Ada");
    fields.provider = ProviderName::new("http");
    fields.provider_agent_id = Some("pa-1".into());
    fields.caller_id = Some("cid-1".into());
    fields.settings = json(r#"{"talk_ms": 5, "words": "é"}"#);

    let made = scene.store.create_agent(id, user, fields).await.unwrap();
    let read = scene.store.agent(user, id).await.unwrap().unwrap();

    for agent in [&made, &read] {
        assert_eq!((agent.id, agent.user_id), (id, user));
        assert_eq!(agent.fields.name, "Ada");
        assert_eq!(agent.fields.provider, ProviderName::new("http"));
        assert_eq!(agent.fields.provider_agent_id.as_deref(), Some("pa-1"));
        assert_eq!(agent.fields.caller_id.as_deref(), Some("cid-1"));
        let settings = agent.fields.settings.as_deref().unwrap().get();
        assert_eq!(settings, r#"{"words": "é", "talk_ms": 5}"#);
    }

    let changed = scene
        .store
        .update_agent(user, id, agent_fields("Eve"))
        .await
        .unwrap();

    assert_eq!(changed.fields.name, "Eve");
    assert_eq!(changed.fields.provider, None);
    assert!(changed.fields.settings.is_none() && changed.fields.caller_id.is_none());
    assert!(changed.updated_at > made.updated_at && changed.created_at == made.created_at);
}

#[tokio::test]
async fn a_contact_is_kept_as_it_was_described_and_changed_as_a_whole() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let id = ContactId::new();
    let mut fields = contact_fields("+14155552671");
    fields.name = Some("Bob".into());
    fields.time_zone = Some("America/New_York".into());
    fields.user_data = json(r#"{"n":1}"#);

    let made = scene.store.create_contact(id, user, fields).await.unwrap();
    let read = scene.store.contact(user, id).await.unwrap().unwrap();

    for contact in [&made, &read] {
        assert_eq!((contact.id, contact.user_id), (id, user));
        assert_eq!(contact.fields.phone_number, parsed("+14155552671"));
        assert_eq!(contact.fields.name.as_deref(), Some("Bob"));
        assert_eq!(
            contact.fields.time_zone.as_deref(),
            Some("America/New_York")
        );
        assert_eq!(
            contact.fields.user_data.as_deref().unwrap().get(),
            r#"{"n": 1}"#
        );
    }

    let fields = contact_fields("+14155552672");
    let changed = scene.store.update_contact(user, id, fields).await.unwrap();

    assert_eq!(changed.fields.phone_number, parsed("+14155552672"));
    assert_eq!(
        (changed.fields.name, changed.fields.time_zone),
        (None, None)
    );
}

#[tokio::test]
async fn another_users_agents_and_contacts_are_not_there() {
    let scene = Scene::new().await;
    let (user, other) = (scene.user().await, scene.user().await);
    let (agent, contact) = (scene.agent(user).await, scene.contact(user).await);
    let store = &scene.store;

    assert!(store.agent(other, agent).await.unwrap().is_none());
    assert!(store.contact(other, contact).await.unwrap().is_none());
    assert_eq!(
        store
            .agents(other, first_page(10))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    assert_eq!(
        store
            .contacts(other, first_page(10))
            .await
            .unwrap()
            .items
            .len(),
        0
    );
    let renamed = store.update_agent(other, agent, agent_fields("Eve")).await;
    assert_eq!(renamed.unwrap_err(), StoreError::NotFound);
    let moved = store
        .update_contact(other, contact, contact_fields("+14155552671"))
        .await;
    assert_eq!(moved.unwrap_err(), StoreError::NotFound);
    assert_eq!(
        store.delete_agent(other, agent).await,
        Err(StoreError::NotFound)
    );
    assert_eq!(
        store.delete_contact(other, contact).await,
        Err(StoreError::NotFound)
    );

    assert!(store.agent(user, agent).await.unwrap().is_some());
    assert_eq!(store.delete_agent(user, agent).await, Ok(()));
    assert_eq!(store.delete_contact(user, contact).await, Ok(()));
    assert!(store.agent(user, agent).await.unwrap().is_none());
    assert!(store.contact(user, contact).await.unwrap().is_none());
}

#[tokio::test]
async fn pages_run_through_everything_once_newest_first() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.agent(scene.user().await).await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(scene.agent(user).await);
    }
    agents.reverse();

    let mut seen = Vec::new();
    let mut request = first_page(2);
    let sizes = loop {
        let page = scene.store.agents(user, request).await.unwrap();
        seen.push(page.items.iter().map(|agent| agent.id).collect::<Vec<_>>());
        match page.next_cursor {
            Some(cursor) => request = page_after(2, Some(cursor)),
            None => break seen.iter().map(Vec::len).collect::<Vec<_>>(),
        }
    };

    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(seen.concat(), agents);
}

#[tokio::test]
async fn contacts_are_paged_and_a_strange_cursor_is_refused() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let contacts = scene.contacts(user, 3).await;
    scene.agent(user).await;
    scene.agent(user).await;

    let first = scene.store.contacts(user, first_page(2)).await.unwrap();
    let second = page_after(2, first.next_cursor);
    let second = scene.store.contacts(user, second).await.unwrap();

    assert_eq!(first.items[0].id, contacts[2]);
    assert_eq!(second.items[0].id, contacts[0]);
    let of_agents = scene
        .store
        .agents(user, first_page(1))
        .await
        .unwrap()
        .next_cursor;
    for cursor in [of_agents, Some("nonsense".into())] {
        let request = PageRequest { limit: 2, cursor };
        let refused = scene.store.contacts(user, request).await;
        assert_eq!(refused.unwrap_err(), StoreError::BadCursor);
    }
}

#[tokio::test]
async fn what_calls_still_need_is_not_deleted() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (agent, contact) = (scene.agent(user).await, scene.contact(user).await);
    let started = scene
        .admit(direct_call(user, agent, Target::Contact(contact)))
        .await;
    let callq_domain::Admission::Started(call) = started else {
        panic!("{started:?}");
    };

    let of_agent = scene.store.delete_agent(user, agent).await;
    let of_contact = scene.store.delete_contact(user, contact).await;

    assert_eq!(of_agent, conflict("calls of this agent are not over"));
    assert_eq!(of_contact, conflict("calls to this contact are not over"));

    scene
        .end(
            call.request.attempt.call_id,
            callq_domain::Outcome::Completed,
        )
        .await;
    assert_eq!(scene.store.delete_agent(user, agent).await, Ok(()));
    assert_eq!(scene.store.delete_contact(user, contact).await, Ok(()));
}

#[tokio::test]
async fn a_campaign_keeps_its_contacts_until_it_is_over_and_its_agent_for_ever() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (agent, contact) = (scene.agent(user).await, scene.contact(user).await);
    let kept = scene.contact(user).await;
    let campaign = new_campaign(user, agent, vec![contact, kept]);
    let id = scene.store.create_campaign(campaign).await.unwrap().id;
    scene.set_status(user, id, CampaignStatus::Active).await;
    let calls = scene.dispatch(10).await;
    scene
        .end(
            calls[0].request.attempt.call_id,
            callq_domain::Outcome::Completed,
        )
        .await;

    let while_active = scene.store.delete_contact(user, contact).await;
    assert_eq!(
        while_active,
        conflict("a campaign that is not over lists this contact")
    );

    scene
        .end(
            calls[1].request.attempt.call_id,
            callq_domain::Outcome::Busy,
        )
        .await;
    assert_eq!(scene.store.delete_contact(user, contact).await, Ok(()));
    let of_agent = scene.store.delete_agent(user, agent).await;
    assert_eq!(
        of_agent,
        conflict("campaigns use this agent, and keep it when they are over")
    );
    let finished = scene.store.campaign(user, id).await.unwrap().unwrap();
    assert_eq!(
        (finished.status, finished.progress.total),
        (CampaignStatus::Completed, 2)
    );
}

#[tokio::test]
async fn a_foreign_key_that_refuses_late_reads_as_a_conflict() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    let (agent, contact) = (scene.agent(user).await, scene.contact(user).await);
    // A call that the look before the deletion does not see, because it comes up in between.
    scene.sql(&format!(
        "CREATE FUNCTION call_in_between() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO call_queue (user_id, agent_id, contact_id, call_type, phone_number) \
             VALUES ('{user}', '{agent}', '{contact}', 'direct', '+14155552671'); \
             RETURN OLD; \
         END $$; \
         CREATE TRIGGER late BEFORE DELETE ON agents FOR EACH ROW EXECUTE FUNCTION call_in_between(); \
         CREATE TRIGGER late BEFORE DELETE ON contacts FOR EACH ROW EXECUTE FUNCTION call_in_between();"
    ));

    let of_agent = scene.store.delete_agent(user, agent).await;
    let of_contact = scene.store.delete_contact(user, contact).await;

    assert_eq!(of_agent, conflict("calls that need it are not over"));
    assert_eq!(of_contact, conflict("calls that need it are not over"));
}

#[tokio::test]
async fn waiting_calls_follow_a_contact_and_running_ones_do_not() {
    let scene = Scene::new().await;
    let user = scene.user().await;
    scene.limit(user, 1).await;
    let agent = scene.agent(user).await;
    let contact = scene.contact(user).await;
    let mut running = direct_call(user, agent, Target::Contact(contact));
    let waiting = direct_call(user, agent, Target::Contact(contact));
    let mut named = direct_call(user, agent, Target::Contact(contact));
    named.contact_name = Some("Doctor Bob".into());
    running.contact_name = Some("first".into());
    for call in [&running, &waiting, &named] {
        scene.admit(call.clone()).await;
    }

    let mut fields = contact_fields("+442079460958");
    fields.name = Some("Bob".into());
    scene
        .store
        .update_contact(user, contact, fields)
        .await
        .unwrap();

    let number_and_name = |id: callq_domain::QueueItemId| {
        let query = format!(
            "SELECT phone_number || ' ' || coalesce(contact_name, '-') FROM call_queue WHERE id = '{id}'"
        );
        crate::scene::texts(&mut scene.connection(), &query).concat()
    };
    assert!(!number_and_name(running.item_id).contains("+442079460958"));
    assert_eq!(number_and_name(waiting.item_id), "+442079460958 Bob");
    assert_eq!(number_and_name(named.item_id), "+442079460958 Doctor Bob");
    scene.assert_counters_equal_rows().await;
}
