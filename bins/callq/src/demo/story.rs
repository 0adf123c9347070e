//! The scenario: two campaigns work through their lists while people click "call".

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{bail, ensure};
use callq_domain::{CallId, CampaignId, ItemStatus, OperatorStore, QueueItemId};
use futures_util::future::try_join_all;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::demo::client::{Answer, Ticket};
use crate::demo::people::{CONTACTS, Cast, PATIENTS, Person, rows};
use crate::demo::screen::{Load, Screen, Snapshot, Stretch};

/// A scenario that has not ended by then never will.
const LONGEST: Duration = Duration::from_secs(120);

/// Between two looks at the queue, and at a call that waits.
const LOOK: Duration = Duration::from_millis(150);
const GLANCE: Duration = Duration::from_millis(40);

/// Whom the users call by hand.
const CALLEES: [(&str, &str); 14] = [
    ("Noor", "+14155550170"),
    ("Emil", "+12125550171"),
    ("Ines", "+13125550172"),
    ("Teo", "+15035550173"),
    ("Maya", "+16175550174"),
    ("Luka", "+17025550175"),
    ("Sana", "+12065550176"),
    ("Otto", "+13035550177"),
    ("Lena", "+14045550178"),
    ("Ravi", "+15125550179"),
    ("June", "+14155550180"),
    ("Piet", "+12125550181"),
    ("Dara", "+13125550182"),
    ("Cleo", "+15035550183"),
];

/// What callq promised and showed while the scenario ran, to be held against its database.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Direct calls that were answered 200.
    pub(super) started: HashSet<CallId>,
    /// Direct calls that were answered 202.
    pub(super) queued: HashSet<QueueItemId>,
    /// Contacts of the campaigns that were started.
    pub(super) contacts: usize,
    /// Looks at the view `priority_violations`, and the most rows it had.
    pub(super) looks: u64,
    pub(super) violations: u64,
}

impl Seen {
    fn count_look(&mut self, violations: u64) {
        self.looks += 1;
        self.violations = self.violations.max(violations);
    }
}

/// Plays the scenario to its end: every call that was accepted is over.
pub(super) async fn tell(
    cast: &Cast,
    store: &impl OperatorStore,
    screen: &Screen,
) -> anyhow::Result<Seen> {
    let stage = Stage {
        cast,
        screen,
        curtain: Barrier::new(cast.all().len()),
        running: Mutex::default(),
        waiting: AtomicU64::new(0),
        told: AtomicBool::new(false),
        seen: Mutex::default(),
    };
    let scripts = async {
        tokio::try_join!(stage.ada(), stage.grace(), stage.alan())?;
        stage.told.store(true, Ordering::Release);
        Ok(())
    };
    match timeout(LONGEST, async {
        tokio::try_join!(scripts, stage.watch(store))
    })
    .await
    {
        Ok(played) => played.map(drop)?,
        Err(_) => bail!("calls still wait or talk after {} s", LONGEST.as_secs()),
    }
    Ok(stage
        .seen
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

struct Stage<'a> {
    cast: &'a Cast,
    screen: &'a Screen,
    curtain: Barrier,
    running: Mutex<Vec<Running<'a>>>,
    /// Campaign calls that waited at the last look.
    waiting: AtomicU64,
    /// Nobody will ask for another call.
    told: AtomicBool,
    seen: Mutex<Seen>,
}

/// A user's script runs by it.
struct Clock(Instant);

impl Clock {
    async fn at(&self, seconds: f64) {
        sleep_until(self.0 + Duration::from_secs_f64(seconds)).await;
    }
}

/// A campaign that was started.
#[derive(Clone, Copy)]
struct Running<'a> {
    owner: &'a Person,
    id: CampaignId,
    name: &'static str,
}

impl<'a> Stage<'a> {
    async fn ada(&self) -> anyhow::Result<()> {
        let ada = &self.cast.ada;
        self.campaign(ada, "Ada's renewals", "contacts.csv", CONTACTS)
            .await?;
        let clock = self.both_run().await;
        clock.at(7.0).await;
        self.burst(ada, &CALLEES[6..8]).await?;
        clock.at(14.0).await;
        self.burst(ada, &CALLEES[12..13]).await
    }

    async fn grace(&self) -> anyhow::Result<()> {
        let grace = &self.cast.grace;
        sleep(Duration::from_secs(1)).await;
        self.campaign(grace, "Grace's reminders", "patients.csv", PATIENTS)
            .await?;
        let clock = self.both_run().await;
        clock.at(1.5).await;
        self.burst(grace, &CALLEES[0..1]).await?;
        clock.at(5.5).await;
        self.click_twice(grace, CALLEES[1]).await
    }

    async fn alan(&self) -> anyhow::Result<()> {
        let alan = &self.cast.alan;
        let clock = self.both_run().await;
        clock.at(3.5).await;
        self.burst(alan, &CALLEES[2..6]).await?;
        clock.at(11.0).await;
        self.burst(alan, &CALLEES[8..12]).await?;
        clock.at(16.0).await;
        self.burst(alan, &CALLEES[13..14]).await
    }

    /// The time since both campaigns run: before, a click would find slots that they have yet to
    /// take.
    async fn both_run(&self) -> Clock {
        self.curtain.wait().await;
        Clock(Instant::now())
    }

    /// Imports a list and starts a campaign over it.
    async fn campaign(
        &self,
        owner: &'a Person,
        name: &'static str,
        file: &str,
        csv: &str,
    ) -> anyhow::Result<()> {
        let rows = rows(csv)?;
        let contacts = rows
            .iter()
            .map(|row| owner.client.create_contact(&row.name, &row.phone));
        let contacts = try_join_all(contacts).await?;
        let id = owner
            .client
            .create_campaign(name, owner.agent, &contacts)
            .await?;
        owner.client.start_campaign(id).await?;
        self.seen().contacts += contacts.len();
        self.running().push(Running { owner, id, name });
        let (who, count) = (owner.name, contacts.len());
        self.screen.note(&format!(
            "{who} imports {file} and starts a campaign over its {count} contacts"
        ));
        Ok(())
    }

    /// Clicks "call" for each of these at once, and waits until all have started.
    async fn burst(&self, person: &Person, callees: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut waiting = Vec::new();
        for (name, phone) in callees {
            let answer = person
                .client
                .initiate(person.agent, name, phone, None)
                .await?;
            waiting.extend(
                self.take(person, name, answer)
                    .map(|ticket| (*name, ticket)),
            );
        }
        let starts = waiting
            .iter()
            .map(|(name, ticket)| self.see_start(person, name, ticket));
        try_join_all(starts).await.map(drop)
    }

    /// A click whose request is sent again, as after a lost answer.
    async fn click_twice(&self, person: &Person, callee: (&str, &str)) -> anyhow::Result<()> {
        let (name, phone) = callee;
        let key = Some("a-click-sent-twice");
        let answer = person
            .client
            .initiate(person.agent, name, phone, key)
            .await?;
        let again = person
            .client
            .initiate(person.agent, name, phone, key)
            .await?;
        ensure!(
            answer == again,
            "one Idempotency-Key got two answers: {answer:?}, then {again:?}"
        );
        let ticket = self.take(person, name, answer);
        self.screen.note(&format!(
            "{} > {name}: sent twice (Idempotency-Key): same answer, no second call",
            person.name
        ));
        match ticket {
            Some(ticket) => self.see_start(person, name, &ticket).await,
            None => Ok(()),
        }
    }

    /// Notes what callq answered; a ticket if the call waits.
    fn take(&self, person: &Person, callee: &str, answer: Answer) -> Option<Ticket> {
        let who = person.name;
        match answer {
            Answer::Started(call) => {
                self.seen().started.insert(call);
                self.screen
                    .note(&format!("{who} > {callee}: 200, a slot is free, dialling"));
                None
            }
            Answer::Queued(ticket) => {
                self.seen().queued.insert(ticket.item);
                let (position, reason) = (ticket.position, &ticket.reason);
                let wait = ticket.wait.map_or_else(String::new, |(p50, p90)| {
                    format!(", estimated wait {p50} s (9 in 10 within {p90} s)")
                });
                self.screen.note(&format!(
                    "{who} > {callee}: 202, position {position}{wait}\n         {reason}"
                ));
                Some(ticket)
            }
        }
    }

    /// Waits until a call has a slot, and notes how long that took.
    async fn see_start(
        &self,
        person: &Person,
        callee: &str,
        ticket: &Ticket,
    ) -> anyhow::Result<()> {
        loop {
            let item = person.client.item(ticket.item).await?;
            if let Some(started) = item.started_at {
                let waited = (started - item.queued_at).as_seconds_f64();
                let passed = self.waiting.load(Ordering::Relaxed);
                let ahead = match passed {
                    0 => String::new(),
                    count => format!(", ahead of {count} waiting campaign calls"),
                };
                self.screen.note(&format!(
                    "{} > {callee}: started after {waited:.1} s{ahead}",
                    person.name
                ));
                return Ok(());
            }
            ensure!(
                item.status == ItemStatus::Queued.as_str(),
                "a direct call became {}",
                item.status
            );
            sleep(GLANCE).await;
        }
    }

    /// Shows where everything stands until nothing waits or talks and nobody will ask for more.
    async fn watch(&self, store: &impl OperatorStore) -> anyhow::Result<()> {
        loop {
            let told = self.told.load(Ordering::Acquire);
            let now = self.look().await?;
            let violations = store.gauges().await?.priority_violations;
            self.seen().count_look(violations);
            self.screen.show(&now);
            let quiet = now
                .users
                .iter()
                .all(|user| user.direct.total + user.campaign.total == 0);
            if told && quiet {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self) -> anyhow::Result<Snapshot> {
        let people = self.cast.all();
        let running = self.running().clone();
        let (queues, progress) = tokio::try_join!(
            try_join_all(people.iter().map(|person| person.client.queue())),
            try_join_all(
                running
                    .iter()
                    .map(|campaign| campaign.owner.client.progress(campaign.id))
            ),
        )?;
        let waiting = queues.iter().map(|queue| queue.campaign_calls.queued).sum();
        self.waiting.store(waiting, Ordering::Relaxed);
        Ok(Snapshot {
            system: queues
                .first()
                .map(|queue| queue.limits.system)
                .unwrap_or_default(),
            users: std::iter::zip(people, &queues)
                .map(|(person, queue)| Load {
                    name: person.name,
                    slots: queue.limits.user,
                    direct: queue.direct_calls,
                    campaign: queue.campaign_calls,
                })
                .collect(),
            campaigns: std::iter::zip(&running, &progress)
                .map(|(campaign, progress)| Stretch {
                    name: campaign.name,
                    done: progress.done(),
                    total: progress.total,
                })
                .collect(),
        })
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running<'a>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use callq_domain::PhoneNumber;

    use super::*;

    #[test]
    fn every_number_called_by_hand_can_be_dialled_and_is_called_once() {
        let listed = [CONTACTS, PATIENTS].map(|list| rows(list).expect("readable"));
        let mut numbers: HashSet<_> = listed
            .iter()
            .flatten()
            .map(|row| row.phone.as_str())
            .collect();
        for (name, phone) in CALLEES {
            assert_eq!(phone.parse::<PhoneNumber>().expect(name).as_str(), phone);
            assert!(numbers.insert(phone), "{phone} is called twice");
        }
    }
}
