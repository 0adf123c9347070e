//! Do-not-call lists: each user's own, and the one for all that admins keep.

use actix_web::http::{Method, header};
use async_trait::async_trait;
use callq_domain::*;
use chrono::Utc;
use serde_json::{Value, json};

use crate::fake::{Fake, page_of};
use crate::world::{Answered, World, request};

const OWN: &str = "/api/do-not-call";
const GLOBAL: &str = "/api/admin/do-not-call";
const NUMBER: &str = "+14155552671";

#[async_trait]
impl DoNotCallStore for Fake {
    async fn list_numbers(
        &self,
        list: DoNotCallList,
        numbers: Vec<PhoneNumber>,
        reason: Option<String>,
    ) -> Result<Listed, StoreError> {
        let mut state = self.up()?;
        let mut listed = Listed::default();
        for phone_number in numbers {
            let is_it = |it: &(DoNotCallList, DoNotCallEntry)| {
                it.0 == list && it.1.phone_number == phone_number
            };
            if state.do_not_call.iter().any(is_it) {
                continue;
            }
            let entry = DoNotCallEntry {
                phone_number,
                reason: reason.clone(),
                created_at: Utc::now(),
            };
            state.do_not_call.push((list, entry));
            listed.added += 1;
        }
        listed.withdrawn = std::mem::take(&mut state.waiting_for_listed);
        Ok(listed)
    }
    async fn do_not_call_entries(
        &self,
        list: DoNotCallList,
        page: PageRequest,
    ) -> Result<Page<DoNotCallEntry>, StoreError> {
        let state = self.up()?;
        let on_it = state.do_not_call.iter().rev().filter(|it| it.0 == list);
        page_of(on_it.map(|it| it.1.clone()).collect(), &page)
    }
    async fn listing(
        &self,
        user: Option<UserId>,
        number: PhoneNumber,
    ) -> Result<Listing, StoreError> {
        let state = self.up()?;
        let on = |list| {
            let entries = state.do_not_call.iter().filter(|it| it.0 == list);
            entries
                .map(|it| &it.1)
                .find(|it| it.phone_number == number)
                .cloned()
        };
        Ok(Listing {
            global: on(DoNotCallList::Global),
            own: user.map(DoNotCallList::Of).and_then(on),
        })
    }
    async fn unlist_number(
        &self,
        list: DoNotCallList,
        number: PhoneNumber,
    ) -> Result<(), StoreError> {
        let mut state = self.up()?;
        let before = state.do_not_call.len();
        let is_it =
            |it: &(DoNotCallList, DoNotCallEntry)| it.0 == list && it.1.phone_number == number;
        state.do_not_call.retain(|it| !is_it(it));
        match before - state.do_not_call.len() {
            0 => Err(StoreError::NotFound),
            _ => Ok(()),
        }
    }
}

/// Both lists, each with the token of who may change it.
fn lists(world: &World) -> [(&'static str, &str); 2] {
    [(OWN, &world.ada.1), (GLOBAL, &world.admin.1)]
}

async fn upload(world: &World, path: &str, token: &str, kind: &str, file: &str) -> Answered {
    let post = request(token).method(Method::POST);
    let post = post.uri(&format!("{path}/upload-csv"));
    let post = post.insert_header((header::CONTENT_TYPE, kind));
    world.send(post.set_payload(file.to_owned())).await
}

#[actix_web::test]
async fn adding_is_idempotent_and_says_how_many_were_new() {
    let world = World::new();
    for (path, token) in lists(&world) {
        let add = |numbers: Value| {
            let body = json!({"phone_numbers": numbers, "reason": "asked us to stop"});
            world.ask(token, "POST", path, Some(body))
        };
        let once = add(json!([NUMBER, "+1 (415) 555-2671", "+442079460958"])).await;
        assert_eq!(once.status, 200, "{}", once.text);
        assert_eq!(
            once.json(),
            json!({"added": 2, "already_listed": 0, "withdrawn": 0})
        );
        let again = add(json!([NUMBER])).await.json();
        assert_eq!(
            again,
            json!({"added": 0, "already_listed": 1, "withdrawn": 0})
        );
    }
    assert_eq!(world.fake.state().wakes, 0);
}

#[actix_web::test]
async fn withdrawn_calls_are_told_counted_and_wake_the_engine() {
    let world = World::new();
    world.fake.state().waiting_for_listed = 3;

    let added = world.post(OWN, json!({"phone_numbers": [NUMBER]})).await;

    assert_eq!(added.json()["withdrawn"], 3);
    assert_eq!(world.fake.state().wakes, 1);
    let metrics = world.get("/metrics").await.text;
    assert!(
        metrics.contains("callq_do_not_call_withdrawn_total 3"),
        "{metrics}"
    );
}

#[actix_web::test]
async fn a_bad_number_is_named_by_its_place_and_nothing_is_added() {
    let world = World::new();
    for (path, token) in lists(&world) {
        for (body, field) in [
            (
                json!({"phone_numbers": [NUMBER, "911"]}),
                "phone_numbers[1]",
            ),
            (json!({"phone_numbers": []}), "phone_numbers"),
            (json!({"phone_numbers": NUMBER}), "phone_numbers"),
            (json!({}), "phone_numbers"),
            (
                json!({"phone_numbers": [NUMBER], "reason": "x".repeat(201)}),
                "reason",
            ),
        ] {
            let answered = world.ask(token, "POST", path, Some(body)).await;
            assert_eq!(answered.problem(400)["field"], field);
        }
    }
    assert!(world.fake.state().do_not_call.is_empty());
}

#[actix_web::test]
async fn a_list_is_paged_newest_first() {
    let world = World::new();
    for (path, token) in lists(&world) {
        for number in [NUMBER, "+442079460958", "+919876543210"] {
            let body = json!({"phone_numbers": [number]});
            world.ask(token, "POST", path, Some(body)).await;
        }
        let first = world
            .ask(token, "GET", &format!("{path}?limit=2"), None)
            .await;
        let first = first.json();
        assert_eq!(first["items"][0]["phone_number"], "+919876543210");
        assert_eq!(first["items"][1]["reason"], Value::Null);
        let cursor = first["next_cursor"].as_str().expect("a cursor");
        let last = format!("{path}?limit=2&cursor={cursor}");
        let last = world.ask(token, "GET", &last, None).await.json();
        assert_eq!(last["items"][0]["phone_number"], NUMBER);
        assert_eq!(
            (&last["items"][1], &last["next_cursor"]),
            (&Value::Null, &Value::Null)
        );
        let bad = world
            .ask(token, "GET", &format!("{path}?limit=0"), None)
            .await;
        assert_eq!(bad.problem(400)["field"], "limit");
    }
}

#[actix_web::test]
async fn a_number_is_looked_up_and_taken_off_by_its_path() {
    let world = World::new();
    let look = |path: &'static str, token: String| {
        let world = &world;
        async move {
            let path = format!("{path}/%2B14155552671");
            world.ask(&token, "GET", &path, None).await.json()
        }
    };
    let (ada, admin) = (world.ada.1.clone(), world.admin.1.clone());
    let nowhere = look(OWN, ada.clone()).await;
    assert_eq!(
        (&nowhere["listed"], &nowhere["list"]),
        (&json!(false), &Value::Null)
    );

    world
        .post(OWN, json!({"phone_numbers": [NUMBER], "reason": "asked"}))
        .await;
    let own = look(OWN, ada.clone()).await;
    assert_eq!(
        (&own["listed"], &own["list"]),
        (&json!(true), &json!("own"))
    );
    assert_eq!(own["own"]["reason"], "asked");
    assert_eq!(look(OWN, world.bob.1.clone()).await["listed"], false);
    assert_eq!(look(GLOBAL, admin.clone()).await["listed"], false);

    world
        .ask(
            &admin,
            "POST",
            GLOBAL,
            Some(json!({"phone_numbers": [NUMBER]})),
        )
        .await;
    let both = look(OWN, ada.clone()).await;
    assert_eq!(both["list"], "global");
    assert!(both["own"].is_object() && both["global"].is_object());
    assert_eq!(look(OWN, world.bob.1.clone()).await["list"], "global");
    assert_eq!(look(GLOBAL, admin.clone()).await["own"], Value::Null);

    for (path, token) in lists(&world) {
        // The plus sign may also stand as it is.
        let number = format!("{path}/{NUMBER}");
        let gone = world.ask(token, "DELETE", &number, None).await;
        assert_eq!((gone.status, gone.text.as_str()), (204, ""));
        world.ask(token, "DELETE", &number, None).await.problem(404);
    }
    assert_eq!(look(OWN, ada).await["listed"], false);
}

#[actix_web::test]
async fn a_path_that_is_no_number_is_400() {
    let world = World::new();
    for (path, token) in lists(&world) {
        for method in ["GET", "DELETE"] {
            for text in ["911", "upload-csv", "%2B1415555267", "+14155552671%2C"] {
                let asked = world
                    .ask(token, method, &format!("{path}/{text}"), None)
                    .await;
                assert_eq!(asked.problem(400)["field"], "phone_number", "{text}");
            }
        }
    }
}

#[actix_web::test]
async fn a_csv_file_is_added_whole_or_not_at_all() {
    let world = World::new();
    for (path, token) in lists(&world) {
        let bad = "phone_number\n+14155552671\n911\n";
        let refused = upload(&world, path, token, "text/csv", bad).await;
        let problem = refused.problem(400);
        assert_eq!(
            (&problem["line"], &problem["field"]),
            (&json!(3), &json!("phone_number"))
        );
        let message = problem["message"].as_str().unwrap_or_default();
        assert!(message.contains("on line 3") && message.contains("nothing was added"));

        let good = "phone_number\n+14155552671\n+1 415 555 2671\n+442079460958\n";
        let added = upload(&world, path, token, "text/csv; charset=utf-8", good).await;
        assert_eq!(added.status, 200, "{}", added.text);
        assert_eq!(
            added.json(),
            json!({"added": 2, "already_listed": 0, "withdrawn": 0})
        );
    }
    assert_eq!(world.fake.state().do_not_call.len(), 4);
}

#[actix_web::test]
async fn a_file_that_is_too_large_or_of_another_kind_is_refused() {
    let world = World::new();
    for (path, token) in lists(&world) {
        let json = upload(&world, path, token, "application/json", "[]").await;
        assert_eq!(json.problem(415)["type"], "/problems/not-csv");
        let large = format!("phone_number\n{}", "\n".repeat(8 * 1024 * 1024));
        let large = upload(&world, path, token, "text/csv", &large).await;
        large.problem(413);
        let bare = request(token).method(Method::POST).uri(path);
        world
            .send(bare.set_payload("phone_number\n"))
            .await
            .problem(415);
    }
    assert!(world.fake.state().do_not_call.is_empty());
}

#[actix_web::test]
async fn a_database_that_is_away_is_503_on_every_route() {
    let world = World::new();
    let (ada, admin) = (world.ada.1.clone(), world.admin.1.clone());
    // Known from before.
    world.get(OWN).await;
    world.ask(&admin, "GET", GLOBAL, None).await;
    world.fake.state().is_down = true;
    for (path, token) in [(OWN, &ada), (GLOBAL, &admin)] {
        let number = format!("{path}/{NUMBER}");
        for (method, path, body) in [
            ("GET", path, None),
            ("POST", path, Some(json!({"phone_numbers": [NUMBER]}))),
            ("GET", number.as_str(), None),
            ("DELETE", number.as_str(), None),
        ] {
            world.ask(token, method, path, body).await.problem(503);
        }
        let file = "phone_number\n+14155552671\n";
        upload(&world, path, token, "text/csv", file)
            .await
            .problem(503);
    }
}
