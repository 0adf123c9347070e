//! One settlement: everything that takes or frees slots, in the one order in which it happens.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::{
    Attempt, CallStatus, CallType, Ending, EndingEffect, ItemStatus, Origin, Pace, Priority,
    QueueFull, QueueItemId, QueueReason, Refusal, Return, SlotUse, UserId,
};

use super::{Item, Place, Queue, item_of};

/// From this attempt on, a call that could not be placed sleeps by itself as well as holding its lane.
const SLEEPS_FROM_ATTEMPT: u32 = 4;

/// What one settlement is given.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    /// Calls that are over.
    pub endings: Vec<Ending>,
    /// Attempts that provably reached nobody.
    pub returns: Vec<Return>,
    /// Direct calls at the door, in order of arrival.
    pub admissions: Vec<Newcomer>,
    /// The most waiting calls to start, over and above `admissions`.
    pub reserve: u32,
}

/// A direct call at the door. Agent, contact and number are outside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newcomer {
    /// The id its item will have.
    pub item_id: QueueItemId,
    /// Who asks.
    pub user_id: UserId,
    /// Not before this, in milliseconds.
    pub scheduled_for: Option<i64>,
    /// Becomes `expired` if it has not started by then, in milliseconds.
    pub expires_at: Option<i64>,
}

/// What became of a [`Batch`], each list in the order it was given.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Settled {
    /// One for each ending.
    pub endings: Vec<EndingEffect>,
    /// One for each return, placed as the line stood when all returns were back in it; none where
    /// the attempt was not current, or proven alive.
    pub returns: Vec<Option<Waiting>>,
    /// Items that gave up, by item id.
    pub expired: Vec<QueueItemId>,
    /// One for each admission.
    pub admissions: Vec<Admission>,
    /// Waiting calls that got a slot, in the order of their turns.
    pub reserved: Vec<Start>,
    /// Whether calls are left that could have gone had `reserve` been larger.
    pub more: bool,
    /// Milliseconds until something is due by itself.
    pub next_timer: Option<i64>,
}

/// What became of a [`Newcomer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// A slot was free.
    Started(Start),
    /// It waits.
    Queued(Waiting),
    /// It was refused. Nothing was changed.
    Refused(Refusal),
    /// Its item was there already, and stands so. Nothing was changed.
    Known(ItemStatus),
}

/// A slot given to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The item.
    pub item_id: QueueItemId,
    /// Its owner.
    pub user_id: UserId,
    /// Its call, and which try this is.
    pub attempt: Attempt,
}

/// An item that waits, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The item.
    pub item_id: QueueItemId,
    /// Why it waits.
    pub reason: QueueReason,
    /// Where it stands.
    pub place: Place,
}

impl Newcomer {
    /// A direct call for now, which waits as long as it must.
    #[must_use]
    pub const fn now(item_id: QueueItemId, user_id: UserId) -> Self {
        Self {
            item_id,
            user_id,
            scheduled_for: None,
            expires_at: None,
        }
    }
}

impl Queue {
    /// Settles a batch at one instant, in this order: endings and returns free their slots; what
    /// is due to expire, wake or be held no longer does so; waiting direct calls take slots; then
    /// newcomers, one by one; then campaign calls, while no direct lane is ready.
    pub fn settle(&mut self, now_ms: i64, batch: &Batch) -> Settled {
        let endings = batch.endings.iter().map(|end| self.end(end)).collect();
        let back: Vec<bool> = batch
            .returns
            .iter()
            .map(|back| self.put_back(back, now_ms))
            .collect();
        let returns = batch.returns.iter().zip(back);
        let returns = returns
            .map(|(back, took)| took.then(|| self.waiting_again(back)).flatten())
            .collect();
        let expired = self.let_time_pass(now_ms);
        self.file_ready_lanes();

        let mut budget = batch.reserve;
        let mut reserved = self.hand_out(CallType::Direct, &mut budget);
        let opened = self.system.vtime(CallType::Direct);
        let newcomers = batch.admissions.iter();
        let admissions = newcomers
            .map(|new| self.admit(new, now_ms, opened))
            .collect();
        reserved.extend(self.hand_out(CallType::Campaign, &mut budget));

        let more = self.has_free_slot() && CallType::ALL.into_iter().any(|c| self.any_ready(c));
        self.drained = budget > 0;
        Settled {
            endings,
            returns,
            expired,
            admissions,
            reserved,
            more,
            next_timer: self.next_timer(now_ms),
        }
    }

    /// Ends a call and frees its slot, once.
    fn end(&mut self, ending: &Ending) -> EndingEffect {
        let id = item_of(ending.call_id);
        let item = self.items.get_mut(&id);
        let Some(item) = item.filter(|item| item.call_id.is_some()) else {
            return EndingEffect::UnknownCall;
        };
        let current = ending.attempt.is_none_or(|number| number == item.attempts);
        if item.status != ItemStatus::Processing || !current {
            return EndingEffect::Ignored;
        }
        item.call_status = Some(CallStatus::Ended(ending.outcome));
        self.set_status(id, ItemStatus::from(ending.outcome));
        self.free_slot(id);
        EndingEffect::Ended
    }

    /// Puts an item whose attempt reached nobody back into its place and holds its lane. False,
    /// and no change, if the attempt is not current or its call is proven alive.
    fn put_back(&mut self, back: &Return, now_ms: i64) -> bool {
        let id = item_of(back.attempt.call_id);
        let Some(item) = self.items.get_mut(&id) else {
            return false;
        };
        let unproven = match item.call_status {
            Some(CallStatus::Unknown) => true,
            Some(CallStatus::Reserved | CallStatus::Dialing) => !back.if_unknown,
            _ => false,
        };
        if !unproven || item.attempts != back.attempt.number {
            return false;
        }
        let until = now_ms.saturating_add(whole_ms(back.delay));
        item.call_status = None;
        if item.attempts >= SLEEPS_FROM_ATTEMPT && until > now_ms {
            item.wakes_at = Some(until);
        }
        let (user_id, class) = (item.user_id, item.origin.call_type());
        self.set_status(id, ItemStatus::Queued);
        self.free_slot(id);
        self.join_line(id);
        if let Some(user) = self.users.get_mut(&user_id) {
            let lane = user.lane_mut(class);
            lane.hold_until = lane.hold_until.max(Some(until));
        }
        true
    }

    fn waiting_again(&self, back: &Return) -> Option<Waiting> {
        let item_id = item_of(back.attempt.call_id);
        Some(Waiting {
            item_id,
            reason: QueueReason::Provider(back.reason.clone()),
            place: self.place(item_id)?,
        })
    }

    /// Expires, then wakes, what is due to; lifts holds that are over. Returns what expired.
    fn let_time_pass(&mut self, now_ms: i64) -> Vec<QueueItemId> {
        let over = |at: Option<i64>| at.is_some_and(|at| at <= now_ms);
        let expired = self.waiting(|item| over(item.expires_at));
        for id in &expired {
            self.leave_line(*id);
            self.set_status(*id, ItemStatus::Expired);
        }
        for id in self.waiting(|item| over(item.wakes_at)) {
            if let Some(item) = self.items.get_mut(&id) {
                item.wakes_at = None;
            }
            self.join_line(id);
        }
        for user in self.users.values_mut() {
            for lane in [&mut user.direct, &mut user.campaign] {
                lane.hold_until = lane.hold_until.filter(|until| *until > now_ms);
            }
        }
        expired
    }

    /// The queued items that `which` picks.
    fn waiting(&self, which: impl Fn(&Item) -> bool) -> Vec<QueueItemId> {
        let queued = self
            .items
            .values()
            .filter(|item| item.status == ItemStatus::Queued);
        queued
            .filter(|item| which(item))
            .map(|item| item.id)
            .collect()
    }

    /// One direct call at the door, which opened at virtual time `opened`: it starts if nothing
    /// stands before it, and queues otherwise.
    fn admit(&mut self, new: &Newcomer, now_ms: i64, opened: i64) -> Admission {
        if let Some(item) = self.items.get(&new.item_id) {
            return Admission::Known(item.status);
        }
        match self.users.get(&new.user_id).map(|user| user.credits) {
            None => return Admission::Refused(Refusal::UnknownUser),
            Some(Some(credits)) if credits <= 0 => {
                return Admission::Refused(Refusal::NoCredits { credits });
            }
            Some(_) => {}
        }
        let wakes_at = new.scheduled_for.filter(|at| *at > now_ms);
        let obstacle = self.obstacle(new.user_id, wakes_at);
        if let Some(full) = obstacle.as_ref().and_then(|_| self.full_queue(new.user_id)) {
            return Admission::Refused(Refusal::QueueFull(full));
        }
        let position = self.system.hand_out_position();
        self.insert(Item {
            id: new.item_id,
            user_id: new.user_id,
            origin: Origin::Direct,
            priority: Priority::DIRECT,
            position,
            status: ItemStatus::Queued,
            wakes_at,
            expires_at: new.expires_at,
            attempts: 0,
            call_id: None,
            call_status: None,
        });
        let admission = match obstacle {
            None => {
                self.take_turn(new.user_id, CallType::Direct, opened);
                self.start(new.item_id).map(Admission::Started)
            }
            Some(reason) => self.place(new.item_id).map(|place| {
                Admission::Queued(Waiting {
                    item_id: new.item_id,
                    reason,
                    place,
                })
            }),
        };
        self.file_ready_lanes();
        admission.unwrap_or(Admission::Refused(Refusal::UnknownUser))
    }

    /// That one more of the user's direct calls may not wait, if so. Of its calls' pace the model
    /// knows the slots alone.
    fn full_queue(&self, user_id: UserId) -> Option<QueueFull> {
        let user = self.users.get(&user_id)?;
        let limit = user.max_queued_direct?;
        let waiting = self.waiting(|item| item.user_id == user_id && item.origin == Origin::Direct);
        let waiting = waiting.len() as u64;
        (waiting >= u64::from(limit)).then_some(QueueFull {
            call_type: CallType::Direct,
            limit,
            waiting,
            asked: 1,
            pace: Pace {
                slots: user.limit.min(self.system.limit),
                samples: 0,
                mean_hold: Duration::ZERO,
            },
        })
    }

    /// The first reason why a newcomer may not start at once.
    fn obstacle(&self, user_id: UserId, wakes_at: Option<i64>) -> Option<QueueReason> {
        let user = self.users.get(&user_id)?;
        let system = SlotUse {
            limit: self.system.limit,
            active: self.system.active,
        };
        if let Some(at) = wakes_at {
            Some(QueueReason::Scheduled(as_time(at)))
        } else if self.system.dispatch_paused {
            Some(QueueReason::DispatchPaused)
        } else if user.active() >= user.limit {
            Some(QueueReason::UserLimit(SlotUse {
                limit: user.limit,
                active: user.active(),
            }))
        } else if system.active >= system.limit {
            Some(QueueReason::SystemLimit(system))
        } else if !user.direct_line.is_empty() || self.any_ready(CallType::Direct) {
            // Another user's direct lane is still ready only where this settlement's budget ran
            // out. The slots that look free are its.
            Some(QueueReason::EarlierDirectCalls {
                ahead: user.direct_line.len() as u64,
            })
        } else {
            None
        }
    }
}

fn whole_ms(delay: Duration) -> i64 {
    i64::try_from(delay.as_millis()).unwrap_or(i64::MAX)
}

fn as_time(at_ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at_ms).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
