//! A storm of direct calls whose callers never give up, and the judgement over what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use callq_testing::Deed;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::harness::{Answer, PATIENCE, Server, User, World, number};

/// Within this time the door says that it cannot, whatever is wrong.
pub(crate) const BOUND: Duration = Duration::from_secs(12);

/// How long a simulated conversation of the storm lasts.
pub(crate) const TALK: Duration = Duration::from_millis(100);

/// The storm's calls go to numbers of their own.
const FIRST_NUMBER: u32 = 1_000;

/// Callers of each user at once, each with the next call as soon as it is answered.
const CALLERS: usize = 3;

/// What the storm was told so far.
#[derive(Default)]
struct Tally {
    accepted: BTreeSet<String>,
    refused: usize,
    slowest_refusal: Duration,
    slowest: Duration,
}

/// Calls being asked for, from its start until its end.
pub(crate) struct Storm {
    tally: Arc<Mutex<Tally>>,
    is_over: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
}

impl Storm {
    /// Some callers for each user.
    pub(crate) fn of(users: &[&User]) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let next = Arc::new(AtomicU32::new(0));
        let callers = users
            .iter()
            .flat_map(|user| std::iter::repeat_n(*user, CALLERS))
            .map(|user| {
                let (user, tally) = (user.clone(), tally.clone());
                let (is_over, next) = (is_over.clone(), next.clone());
                tokio::spawn(async move {
                    while !is_over.load(Ordering::Relaxed) {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        // Refused ones are asked for again, by the same key, until they are accepted.
                        while !ask(&user, n, &tally).await && !is_over.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(60)).await;
                        }
                        tokio::time::sleep(Duration::from_millis(60)).await;
                    }
                })
            })
            .collect();
        Self {
            tally,
            is_over,
            callers,
        }
    }

    /// Waits until so many more were accepted, and returns how long that took.
    pub(crate) async fn until_accepted(&self, more: usize) -> Duration {
        let wanted = self.lock().accepted.len() + more;
        self.until(|tally| tally.accepted.len() >= wanted).await
    }

    /// Waits until so many more were refused, and returns how long that took.
    pub(crate) async fn until_refused(&self, more: usize) -> Duration {
        let wanted = self.lock().refused + more;
        self.until(|tally| tally.refused >= wanted).await
    }

    async fn until(&self, is_so: impl Fn(&Tally) -> bool) -> Duration {
        let begun = Instant::now();
        while !is_so(&self.lock()) {
            let failed = self.callers.iter().any(JoinHandle::is_finished);
            assert!(!failed, "a caller got an answer it should not have");
            assert!(begun.elapsed() < PATIENCE, "the storm stands still");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    /// Ends the storm, waits until everything accepted is over, and judges.
    pub(crate) async fn end(self, world: &World, server: &Server, limit: usize) {
        self.end_after(world, server, limit, &[]).await;
    }

    /// The same where these calls were accepted before the storm.
    pub(crate) async fn end_after(
        self,
        world: &World,
        server: &Server,
        limit: usize,
        before: &[String],
    ) {
        self.is_over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("no answer was wrong");
        }
        let mut tally = std::mem::take(&mut *self.tally.lock().expect("no panic while held"));
        println!(
            "{} accepted, {} refused, the slowest refusal after {:?}, the slowest answer after {:?}",
            tally.accepted.len(),
            tally.refused,
            tally.slowest_refusal,
            tally.slowest
        );
        world
            .until_count(
                "SELECT (SELECT count(*) FROM call_queue) + (SELECT count(*) FROM active_calls)",
                0,
            )
            .await;
        tally.accepted.extend(before.iter().cloned());
        judge(world, &tally.accepted, limit);
        if before.is_empty() {
            assert_eq!(world.dialer.ledger().up(), 0);
        }
        assert!(!server.log().contains("panicked"), "{}", server.log());
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no panic while held")
    }
}

/// Asks for the `n`-th call of the storm; whether it was accepted.
async fn ask(user: &User, n: u32, tally: &Mutex<Tally>) -> bool {
    let body = json!({"agentId": user.agent_id, "phoneNumber": number(FIRST_NUMBER + n)});
    let key = format!("storm-{n}");
    let asked = Instant::now();
    let answer = user
        .send(
            reqwest::Method::POST,
            "/api/calls/initiate",
            Some(body.to_string()),
            &[("idempotency-key", &key)],
        )
        .await;
    note(tally, &answer, asked.elapsed());
    matches!(answer.status, 200 | 202)
}

fn note(tally: &Mutex<Tally>, answer: &Answer, took: Duration) {
    let mut tally = tally.lock().expect("no panic while held");
    tally.slowest = tally.slowest.max(took);
    match answer.status {
        200 | 202 => {
            let ids = [&answer.body["callId"], &answer.body["queue"]["id"]];
            let id = ids.into_iter().find_map(|id| id.as_str());
            let id = id.unwrap_or_else(|| panic!("accepted without an id: {answer:?}"));
            tally.accepted.insert(id.to_owned());
        }
        // The first request with this key may have been kept, and is then undone or answered.
        409 if answer.body["type"] == "/problems/idempotency-key-in-progress" => tally.refused += 1,
        _ => {
            answer.assert_unavailable();
            assert!(took < BOUND, "refused only after {took:?}: {answer:?}");
            tally.refused += 1;
            tally.slowest_refusal = tally.slowest_refusal.max(took);
        }
    }
}

#[derive(QueryableByName)]
struct Ended {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = Nullable<Text>)]
    reason: Option<String>,
}

/// That everything accepted is over, and nothing else was dialled, or dialled twice, or beyond the
/// limit.
fn judge(world: &World, accepted: &BTreeSet<String>, limit: usize) {
    let mut conn = PgConnection::establish(&world.database_url).expect("the database is up");
    let ended: Vec<Ended> = diesel::sql_query(
        "SELECT id::text, status::text, reason FROM queue_items WHERE campaign_id IS NULL",
    )
    .load(&mut conn)
    .expect("what ended");
    let ended: BTreeMap<_, _> = ended.into_iter().map(|it| (it.id.clone(), it)).collect();
    for id in accepted {
        let fate = ended.get(id).map(|it| it.status.as_str());
        assert_eq!(fate, Some("completed"), "an accepted call: {id}");
    }
    for it in ended.values().filter(|it| !accepted.contains(&it.id)) {
        let disowned = Some("its caller was told that it was not accepted");
        assert_eq!(
            (it.status.as_str(), it.reason.as_deref()),
            ("cancelled", disowned),
            "a refused call: {}",
            it.id
        );
    }
    let ledger = world.dialer.ledger();
    for entry in ledger.of(Deed::Dial) {
        let is_direct = entry.call_type.as_deref() == Some("direct");
        let id = entry.call_id.expect("a call").to_string();
        assert!(
            !is_direct || accepted.contains(&id),
            "dialled though refused: {id}"
        );
    }
    let mut numbers = BTreeMap::new();
    for entry in ledger.of(Deed::Start) {
        *numbers.entry(entry.to.clone()).or_insert(0) += 1;
    }
    assert!(
        numbers.values().all(|starts| *starts == 1),
        "a key was asked for again and called twice: {numbers:?}"
    );
    assert!(ledger.dials_per_attempt().values().all(|dials| *dials == 1));
    assert!(ledger.starts_per_call().values().all(|starts| *starts == 1));
    assert!(ledger.max_overlap() <= limit, "{}", ledger.max_overlap());
    assert_eq!(world.count("SELECT count(*) FROM priority_violations"), 0);
    assert_eq!(world.audit(), "every counter equals its rows");
}
