//! Whether callq kept its promises: counted from what the database holds when all is over.

use std::collections::{BTreeMap, HashMap, HashSet};

use callq_domain::{
    Call, CallId, CallStore, CallType, ItemFilter, OperatorStore, Page, PageRequest, QueueItem,
    QueueItemId, QueueStore, StoreError, UserId,
};
use chrono::TimeDelta;

use crate::demo::invariants::{Hold, Wait, most_at_once, overtakings};
use crate::demo::people::{Cast, Person};
use crate::demo::story::Seen;

/// One promise and what was counted.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) held: bool,
    pub(super) promise: &'static str,
    pub(super) counted: String,
}

fn finding(held: bool, promise: &'static str, counted: impl Into<String>) -> Finding {
    Finding {
        held,
        promise,
        counted: counted.into(),
    }
}

/// Every record of every user.
struct Records {
    calls: Vec<Call>,
    items: Vec<QueueItem>,
}

/// Judges each promise.
pub(super) async fn judge<Store: CallStore + QueueStore + OperatorStore>(
    store: &Store,
    cast: &Cast,
    system_limit: u32,
    seen: &Seen,
) -> Result<Vec<Finding>, StoreError> {
    let mut records = Records {
        calls: Vec::new(),
        items: Vec::new(),
    };
    for person in cast.all() {
        records
            .calls
            .extend(all(|page| store.calls(person.id, page)).await?);
        records
            .items
            .extend(all(|page| store.items(person.id, ItemFilter::default(), page)).await?);
    }
    let differences = store.audit().await?;
    let counters = match differences.first() {
        None => "0 differences".to_owned(),
        Some(first) => format!(
            "{} differences; {} {}: kept {}, counted {}",
            differences.len(),
            first.counter,
            first.subject,
            first.kept,
            first.counted
        ),
    };
    Ok(vec![
        records.nothing_lost(seen),
        records.user_limits(&cast.all()),
        records.system_limit(system_limit),
        records.direct_first(&cast.all()),
        finding(
            seen.violations == 0,
            "priority_violations is empty",
            format!("at most {} rows in {} looks", seen.violations, seen.looks),
        ),
        records.dialled_once(),
        finding(differences.is_empty(), "counters equal a recount", counters),
    ])
}

/// Every entry of a list that comes in pages.
async fn all<T, Answer>(mut page: impl FnMut(PageRequest) -> Answer) -> Result<Vec<T>, StoreError>
where
    Answer: Future<Output = Result<Page<T>, StoreError>>,
{
    let (mut entries, mut cursor) = (Vec::new(), None);
    loop {
        let next = page(PageRequest { limit: 200, cursor }).await?;
        entries.extend(next.items);
        cursor = next.next_cursor;
        if cursor.is_none() {
            return Ok(entries);
        }
    }
}

impl Records {
    fn nothing_lost(&self, seen: &Seen) -> Finding {
        let ended: Vec<_> = self
            .calls
            .iter()
            .filter(|call| call.status.is_terminal())
            .collect();
        let calls: HashSet<CallId> = ended.iter().map(|call| call.id).collect();
        let items: HashSet<QueueItemId> = ended.iter().map(|call| call.item_id).collect();
        let campaign = ended
            .iter()
            .filter(|call| call.origin.call_type() == CallType::Campaign)
            .count();
        let accepted = seen.started.len() + seen.queued.len() + seen.contacts;
        let held = seen.started.is_subset(&calls)
            && seen.queued.is_subset(&items)
            && campaign == seen.contacts
            && ended.len() == accepted
            && self.calls.len() == accepted
            && self.items.len() == accepted;
        let mut outcomes = BTreeMap::<_, u32>::new();
        for call in &ended {
            *outcomes.entry(call.status.as_str()).or_default() += 1;
        }
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let counted = format!("{} of {accepted}: {}", ended.len(), outcomes.join(", "));
        finding(held, "every accepted call ended", counted)
    }

    fn user_limits(&self, people: &[&Person]) -> Finding {
        let holds = self.holds();
        let most = people.iter().map(|person| {
            (
                person,
                most_at_once(holds.iter().filter(|hold| hold.user == person.id)),
            )
        });
        let (mut held, mut counted) = (true, Vec::new());
        for (person, most) in most {
            held &= most <= person.limit;
            counted.push(format!("{} {most}/{}", person.name, person.limit));
        }
        finding(
            held,
            "no user went over its limit",
            format!("at most {}", counted.join(", ")),
        )
    }

    fn system_limit(&self, limit: u32) -> Finding {
        let most = most_at_once(&self.holds());
        finding(
            most <= limit,
            "nor did the system",
            format!("at most {most}/{limit}"),
        )
    }

    fn direct_first(&self, people: &[&Person]) -> Finding {
        let limits: HashMap<_, _> = people
            .iter()
            .map(|person| (person.id, person.limit))
            .collect();
        let holds = self.holds();
        let overtaken = overtakings(&holds, &self.direct_waits(), |user| {
            limits.get(&user).copied().unwrap_or_default()
        });
        let campaign = holds.iter().filter(|hold| hold.is_campaign).count();
        finding(
            overtaken == 0,
            "direct calls went first",
            format!("{overtaken} of {campaign} campaign calls overtook one"),
        )
    }

    fn dialled_once(&self) -> Finding {
        let attempts: u32 = self.calls.iter().map(|call| call.attempts).sum();
        let numbers: HashSet<_> = self.calls.iter().map(|call| &call.phone_number).collect();
        let executions: HashSet<_> = self
            .calls
            .iter()
            .filter_map(|call| call.execution_id.as_ref())
            .collect();
        let count = self.calls.len();
        let held = self.calls.iter().all(|call| call.attempts == 1)
            && numbers.len() == count
            && executions.len() == count;
        let counted = format!(
            "{count} calls, {} numbers, {attempts} attempts",
            numbers.len()
        );
        finding(held, "nobody was dialled twice", counted)
    }

    fn holds(&self) -> Vec<Hold<UserId>> {
        self.calls
            .iter()
            .map(|call| Hold {
                user: call.user_id,
                is_campaign: call.origin.call_type() == CallType::Campaign,
                from: call.reserved_at,
                // Without an end it holds its slot still, for as long as anyone may look.
                until: call
                    .ended_at
                    .unwrap_or(call.reserved_at + TimeDelta::days(365)),
            })
            .collect()
    }

    fn direct_waits(&self) -> Vec<Wait<UserId>> {
        let direct = self
            .items
            .iter()
            .filter(|item| item.origin.call_type() == CallType::Direct);
        direct
            .filter_map(|item| {
                let until = item.started_at.or(item.finished_at)?;
                Some(Wait {
                    user: item.user_id,
                    from: item.queued_at,
                    until,
                })
            })
            .collect()
    }
}
