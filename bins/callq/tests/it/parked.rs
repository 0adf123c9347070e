//! A call whose provider cannot say what became of it: shown, listed and settled from the command line
//! and over the API while the server runs.

use std::process::Output;

use callq_testing::{Behaviour, Deed};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, User, World, callq, number};

/// A server, a user with one slot, and her call in doubt that holds it. Look-ups lead nowhere.
async fn parked(by: Behaviour) -> (World, Server, User, String) {
    let world = World::new(10).with("PROVIDER_TIMEOUT_MS", "300");
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    world.dialer.answer_look_ups_with(Some(500));
    world.dialer.next(by);
    let answer = ada.call(1).await;
    assert_eq!(answer.body["status"], json!("unknown"), "{answer:?}");
    let id = answer.body["callId"].as_str().expect("an id").to_owned();
    (world, server, ada, id)
}

fn call(world: &World, arguments: &[&str]) -> Output {
    let command = callq()
        .envs(&world.settings)
        .arg("call")
        .args(arguments)
        .output();
    command.expect("callq runs")
}

/// What a command printed that must succeed.
fn said(world: &World, arguments: &[&str]) -> String {
    let output = call(world, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The record that it printed.
fn record(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&said(world, arguments)).expect("a record")
}

/// The exit code and the one line on stderr of a command that must fail.
fn refused(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let output = call(world, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(told.lines().count(), 1, "{told}");
    (output.status.code(), told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_call_is_shown_listed_and_ended_and_the_next_call_gets_its_slot() {
    let (world, _server, ada, id) = parked(Behaviour::AcceptThenMute).await;
    let second = ada.call(2).await;
    assert_eq!(second.status, 202, "its slot is taken");

    let list = said(&world, &["list", "--parked"]);
    for words in [
        id.as_str(),
        "unknown",
        "ada@example.com",
        "+14…01",
        "http",
        "alive",
    ] {
        assert!(list.contains(words), "no {words:?} in {list}");
    }
    let listed = record(&world, &["list", "--active", "--json"]);
    assert_eq!(listed["total"], 1);
    assert_eq!(listed["items"][0]["phone_number"], json!(number(1)));
    let story = said(&world, &["show", &id]);
    for words in ["unknown since", "in doubt", "callq call settle", "+14…01"] {
        assert!(story.contains(words), "no {words:?} in {story}");
    }
    let waits = said(
        &world,
        &["show", second.body["queue"]["id"].as_str().expect("an id")],
    );
    assert!(
        waits.contains("1 of 1 direct calls") && waits.contains("(1/1 active calls)"),
        "{waits}"
    );

    let why = ["--reason", "their console shows busy"];
    let settled = said(
        &world,
        &[&["settle", &id, "--outcome", "busy"][..], &why].concat(),
    );

    assert!(settled.contains("ended as busy"), "{settled}");
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(dials[1].to, number(2), "a running server gave the slot on");
    let before = record(&world, &["show", &id, "--json"]);
    assert_eq!(before["status"], "busy");
    assert_eq!(
        before["reason"],
        "settled by an operator: their console shows busy"
    );
    let last = before["history"]
        .as_array()
        .and_then(|all| all.last())
        .cloned();
    assert_eq!(last.expect("a change")["server_id"], Value::Null);
    // The carrier comes round after all.
    let late = world.dialer.send_event(dials[0].call_id, "completed");
    assert_eq!(late.expect("delivered"), 200);
    assert_eq!(record(&world, &["show", &id, "--json"]), before);
    assert_eq!(world.count("SELECT active FROM system_state"), 1);
    let told = said(&world, &["list", "--parked"]);
    assert_eq!(told.trim(), "no call is parked");
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_never_dialled_is_put_back_by_hand_and_tried_again() {
    let (world, _server, ada, id) = parked(Behaviour::Mute).await;
    assert_eq!(ada.call(2).await.status, 202);

    let back = record(
        &world,
        &["settle", &id, "--not-placed", "--attempt", "1", "--json"],
    );

    assert_eq!(back["id"], json!(id));
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(
        (dials[1].to.as_str(), dials[1].attempt),
        (number(1).as_str(), 2)
    );
    assert_eq!(dials[1].call_id.to_string(), id);
    let story = said(&world, &["show", &id]);
    assert!(
        story.contains("Attempt 1 reached nobody (an operator says that it was never dialled)"),
        "{story}"
    );
    let ledger = world.dialer.ledger();
    assert_eq!((ledger.count(Deed::Dial), ledger.up()), (2, 1));
    assert_eq!(world.audit(), "every counter equals its rows");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_settled_is_one_clear_line_and_what_makes_no_sense_is_exit_2() {
    let world = World::new(10);
    let server = world.serve();
    let ada = world.user(&server, "ada", 1).await;
    let answer = ada.call(1).await;
    let up = answer.body["callId"].as_str().expect("an id").to_owned();
    let nobody = "019ab0de-7c3f-7d21-9c53-52f1c2b06a4e";

    for (arguments, code, words) in [
        (&["show", nobody][..], 1, nobody),
        (&["settle", nobody, "--not-placed"], 1, nobody),
        (
            &["settle", &up, "--not-placed"],
            1,
            "only a call that is unknown",
        ),
        (
            &["settle", &up, "--outcome", "failed"],
            1,
            "use force: --force",
        ),
        (
            &[
                "settle",
                &up,
                "--outcome",
                "failed",
                "--force",
                "--attempt",
                "2",
            ],
            1,
            "at attempt 1 by now",
        ),
        (&["show", "no-uuid"], 2, "no-uuid"),
        (&["settle", "no-uuid", "--not-placed"], 2, "no-uuid"),
        (
            &["settle", &up, "--not-placed", "--reason", "two\nlines"],
            2,
            "--reason",
        ),
    ] {
        let (exit, told) = refused(&world, arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    for arguments in [
        &["settle", &up][..],
        &["settle", &up, "--outcome", "ringing"],
        &["settle", &up, "--outcome", "failed", "--not-placed"],
        &["settle", &up, "--not-placed", "--force"],
        &["list"],
        &["list", "--parked", "--active"],
        &["list", "--parked", "--limit", "0"],
    ] {
        assert_eq!(
            call(&world, arguments).status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    assert_eq!(world.count("SELECT active FROM system_state"), 1);

    said(&world, &["settle", &up, "--outcome", "failed", "--force"]);

    assert_eq!(world.count("SELECT active FROM system_state"), 0);
    let (exit, told) = refused(&world, &["settle", &up, "--outcome", "failed", "--force"]);
    assert_eq!(exit, Some(1));
    assert!(told.contains("over already: failed"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_settles_over_the_api_and_the_same_server_gives_the_slot_on_at_once() {
    let (world, _server, ada, id) = parked(Behaviour::AcceptThenMute).await;
    assert_eq!(ada.call(2).await.status, 202);
    let admin = world.admin(&ada);
    let path = format!("/api/admin/calls/{id}/settle");
    let parked = admin.get("/api/admin/calls?status=unknown").await;
    assert_eq!(parked.body["items"][0]["id"], json!(id), "{parked:?}");
    assert_eq!(
        ada.post(&path, json!({"outcome": "failed"})).await.status,
        403
    );

    let settled = admin
        .post(
            &path,
            json!({"outcome": "no-answer", "reason": "asked them"}),
        )
        .await;

    assert_eq!(
        (settled.status, &settled.body["status"]),
        (200, &json!("no-answer")),
        "{settled:?}"
    );
    let dials = world.dialer.wait_for_dials(2, PATIENCE);
    assert_eq!(dials[1].to, number(2));
    let again = admin.post(&path, json!({"outcome": "failed"})).await;
    assert_eq!(
        (again.status, &again.body["current_status"]),
        (409, &json!("no-answer"))
    );
    let told = admin.get(&format!("/api/admin/calls/{id}")).await;
    assert_eq!(told.body["reason"], "settled by an operator: asked them");
    assert_eq!(world.audit(), "every counter equals its rows");
}
