//! Whether what callq answered is what became of it: its answers, held against the dialer's ledger
//! and what it says of the calls afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use callq_testing::{Deed, Ledger};
use serde_json::Value;
use uuid::Uuid;

use super::load::{Answer, Request};
use super::servers::{Caller, client};
use super::{SYSTEM_LIMIT, Scene, USER_LIMIT};

/// How long all that was accepted may take to end once nothing new comes.
const PATIENCE: Duration = Duration::from_secs(90);

/// How a call can have ended.
const ENDS: [&str; 2] = ["completed", "failed"];

/// How none can: nobody cancels a call here, and none expires.
const NOBODYS_WISH: [&str; 2] = ["cancelled", "expired"];

/// The promises that were broken, one line each. Says what was counted.
pub(super) fn of(scene: &Scene, requests: &[Request]) -> anyhow::Result<Vec<String>> {
    let mut faults = ends_of_accepted(scene, requests)?;
    let ledger = scene.dialer.ledger();
    faults.extend(by_the_ledger(&ledger, requests, &scene.callers));
    if let Some(differences) = scene.servers.audit()? {
        faults.push(format!("the audit found {differences}"));
    }
    let count = |wanted: fn(&Answer) -> bool| requests.iter().filter(|r| wanted(&r.answer)).count();
    say!(
        "{} calls asked for: {} accepted, {} refused, {} without an answer; {} dials, {} calls put up, at most {} at once",
        requests.len(),
        count(|answer| answer.accepted().is_some()),
        count(|answer| matches!(answer, Answer::Refused(_))),
        count(|answer| matches!(answer, Answer::Silence(_))),
        ledger.count(Deed::Dial),
        ledger.count(Deed::Start),
        ledger.max_overlap()
    );
    Ok(faults)
}

/// Waits until every accepted call has ended; those that do not, or are gone, are faults.
fn ends_of_accepted(scene: &Scene, requests: &[Request]) -> anyhow::Result<Vec<String>> {
    let addresses = scene.servers.addresses();
    let http = client()?;
    let deadline = Instant::now() + PATIENCE;
    let mut open: Vec<(&Caller, Uuid)> = requests
        .iter()
        .filter_map(|request| {
            let id = request.answer.accepted()?;
            Some((&scene.callers[request.user], id))
        })
        .collect();
    let mut faults = Vec::new();
    loop {
        let mut still_open = Vec::new();
        for (nth, (caller, id)) in open.into_iter().enumerate() {
            let address = &addresses[nth % addresses.len()];
            let answer = http
                .get(format!("{address}/api/queue/{id}"))
                .bearer_auth(&caller.token)
                .send()?;
            if answer.status().as_u16() == 404 {
                faults.push(format!("call {id} was accepted and is gone"));
                continue;
            }
            let item: Value = answer.error_for_status()?.json()?;
            let status = item["status"].as_str().unwrap_or_default();
            if NOBODYS_WISH.contains(&status) {
                faults.push(format!("call {id} was accepted and is {status}"));
            } else if !ENDS.contains(&status) {
                still_open.push((caller, id));
            }
        }
        open = still_open;
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        sleep(Duration::from_millis(500));
    }
    faults.extend(
        open.iter()
            .map(|(_, id)| format!("call {id} was accepted and does not end")),
    );
    Ok(faults)
}

fn by_the_ledger(ledger: &Ledger, requests: &[Request], callers: &[Caller]) -> Vec<String> {
    let mut faults = Vec::new();
    for ((call, attempt), dials) in ledger.dials_per_attempt() {
        if dials > 1 {
            faults.push(format!(
                "attempt {attempt} of call {call} was sent {dials} times"
            ));
        }
    }
    for (call, starts) in ledger.starts_per_call() {
        if starts > 1 {
            faults.push(format!("call {call} was put up {starts} times"));
        }
    }
    let started = starts_per_number(ledger);
    for (number, starts) in &started {
        if *starts > 1 {
            faults.push(format!("{number} was called {starts} times"));
        }
    }
    // A 502 tells that the provider refused it. A 503, and everything else, that nothing was accepted.
    let refused: BTreeSet<&str> = requests
        .iter()
        .filter(|request| matches!(request.answer, Answer::Refused(_)))
        .map(|request| request.number.as_str())
        .collect();
    for number in refused {
        if started.contains_key(number) {
            faults.push(format!(
                "{number} was called, and its caller was told that it would not be"
            ));
        }
    }
    if ledger.max_overlap() > SYSTEM_LIMIT {
        faults.push(format!("{} calls were up at once", ledger.max_overlap()));
    }
    for (user, most) in ledger.max_overlap_per_user() {
        if most > USER_LIMIT {
            faults.push(format!("user {user} had {most} calls up at once"));
        }
    }
    let strangers = ledger
        .max_overlap_per_user()
        .into_keys()
        .filter(|user| !callers.iter().any(|caller| caller.id == user.to_string()));
    faults.extend(strangers.map(|user| format!("calls of an unknown user {user}")));
    faults
}

fn starts_per_number(ledger: &Ledger) -> BTreeMap<String, usize> {
    let mut starts = BTreeMap::new();
    for number in ledger.of(Deed::Start).filter_map(|entry| entry.to.clone()) {
        *starts.entry(number).or_default() += 1;
    }
    starts
}
