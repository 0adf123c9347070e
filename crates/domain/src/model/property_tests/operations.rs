//! Random operations: what they are, how they are drawn, and how they are put to the queue.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::scene::*;
use crate::model::{Batch, CampaignItem, Item, Newcomer, Queue, Settled};
use crate::{CallId, CallStatus, ItemStatus, Priority};

pub(super) const USERS: u128 = 4;
pub(super) const CAMPAIGNS_EACH: u128 = 2;

/// One random operation. Indexes into what there is wrap around.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Settle(Vec<Act>, u32),
    Enqueue {
        campaign: u128,
        priorities: Vec<i32>,
        wakes_in: Option<i64>,
        expires_in: Option<i64>,
    },
    Cancel(usize),
    Progress(usize, CallStatus),
    UserLimit(u128, u32),
    DirectReserved(u128, u32),
    Weight(u128, u16),
    MaxQueued(u128, Option<u32>),
    SystemLimit(u32),
    Paused(bool),
    Open(u128, bool),
    CampaignLimit(u128, Option<u32>),
    CampaignWeight(u128, u16),
    Advance(i64),
}

/// One entry of a batch.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Admit {
        of: u128,
        starts_in: Option<i64>,
        expires_in: Option<i64>,
    },
    End(usize),
    Return(usize, u64),
}

pub(super) fn maybe_soon() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![3 => Just(None), 1 => (0..2_000_i64).prop_map(Some)]
}

pub(super) fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1..=USERS, maybe_soon(), maybe_soon())
            .prop_map(|(of, starts_in, expires_in)| Act::Admit { of, starts_in, expires_in }),
        4 => any::<usize>().prop_map(Act::End),
        2 => (any::<usize>(), prop_oneof![Just(0), 1..1_000_u64])
            .prop_map(|(nth, delay)| Act::Return(nth, delay)),
    ]
}

pub(super) fn any_op() -> impl Strategy<Value = Op> {
    let campaign = || 1..=USERS * CAMPAIGNS_EACH;
    let reserve = prop_oneof![2 => Just(u32::MAX), 1 => 0..3_u32];
    prop_oneof![
        12 => (vec(any_act(), 0..5), reserve).prop_map(|(acts, n)| Op::Settle(acts, n)),
        3 => (campaign(), vec(-1..=1, 1..4), maybe_soon(), maybe_soon()).prop_map(
            |(campaign, priorities, wakes_in, expires_in)| Op::Enqueue {
                campaign, priorities, wakes_in, expires_in,
            }
        ),
        2 => any::<usize>().prop_map(Op::Cancel),
        2 => (any::<usize>(), proptest::sample::select(CallStatus::ALL.to_vec()))
            .prop_map(|(nth, status)| Op::Progress(nth, status)),
        1 => (1..=USERS, 0..4_u32).prop_map(|(of, n)| Op::UserLimit(of, n)),
        1 => (1..=USERS, 0..3_u32).prop_map(|(of, n)| Op::DirectReserved(of, n)),
        1 => (1..=USERS, 1..=5_u16).prop_map(|(of, n)| Op::Weight(of, n)),
        1 => (1..=USERS, proptest::option::of(0..4_u32)).prop_map(|(of, most)| Op::MaxQueued(of, most)),
        1 => (0..8_u32).prop_map(Op::SystemLimit),
        1 => any::<bool>().prop_map(Op::Paused),
        1 => (campaign(), any::<bool>()).prop_map(|(id, open)| Op::Open(id, open)),
        1 => (campaign(), proptest::option::of(1..3_u32)).prop_map(|(id, n)| Op::CampaignLimit(id, n)),
        1 => (campaign(), 1..=5_u16).prop_map(|(id, n)| Op::CampaignWeight(id, n)),
        2 => (1..800_i64).prop_map(Op::Advance),
    ]
}

/// Four users with two campaigns each, as random operations find them.
pub(super) fn stage() -> Scene {
    let mut scene = Scene::new(5, &[2; USERS as usize]);
    for id in 0..USERS * CAMPAIGNS_EACH {
        let owner = user(id / CAMPAIGNS_EACH + 1);
        scene
            .queue
            .add_campaign(owner, campaign(id + 1), true)
            .expect("new");
    }
    scene
}

/// The nth item, wrapping around, of those that `which` picks.
pub(super) fn nth(queue: &Queue, n: usize, which: impl Fn(&Item) -> bool) -> Option<&Item> {
    let picked: Vec<_> = queue.items().filter(|item| which(item)).collect();
    (!picked.is_empty()).then(|| picked[n % picked.len()])
}

pub(super) fn is_up(item: &Item) -> bool {
    item.status == ItemStatus::Processing
}

/// Applies an operation; what a settlement answered, with the batch it was given.
pub(super) fn apply(scene: &mut Scene, op: &Op) -> Option<(Batch, Settled)> {
    match op.clone() {
        Op::Settle(acts, reserve) => {
            let batch = batch_of(scene, &acts, reserve);
            let settled = scene.queue.settle(scene.now, &batch);
            return Some((batch, settled));
        }
        Op::Enqueue {
            campaign: id,
            priorities,
            wakes_in,
            expires_in,
        } => {
            let items: Vec<_> = priorities
                .into_iter()
                .map(|priority| CampaignItem {
                    priority: Priority::new(priority),
                    wakes_at: wakes_in.map(|ms| scene.now + ms),
                    expires_at: expires_in.map(|ms| scene.now + ms),
                    id: scene.newcomer(1).item_id,
                })
                .collect();
            scene
                .queue
                .enqueue_campaign_items(campaign(id), &items)
                .expect("there");
        }
        Op::Cancel(n) => {
            if let Some(id) = nth(&scene.queue, n, |_| true).map(|item| item.id) {
                scene.queue.cancel(id);
            }
        }
        Op::Progress(n, status) => {
            if let Some(id) = nth(&scene.queue, n, is_up).map(|item| item.id) {
                scene.queue.progress(CallId::from(id.as_uuid()), status);
            }
        }
        Op::UserLimit(of, n) => scene
            .queue
            .set_user_limit(user(of), limit(n))
            .expect("there"),
        Op::DirectReserved(of, n) => scene.queue.set_direct_reserved(user(of), n).expect("there"),
        Op::Weight(of, n) => scene.queue.set_weight(user(of), weight(n)).expect("there"),
        Op::MaxQueued(of, most) => scene
            .queue
            .set_max_queued_direct(user(of), most)
            .expect("there"),
        Op::SystemLimit(n) => scene.queue.set_system_limit(limit(n)),
        Op::Paused(paused) => scene.queue.set_paused(paused),
        Op::CampaignLimit(id, n) => scene
            .queue
            .set_campaign_limit(campaign(id), n)
            .expect("there"),
        Op::CampaignWeight(id, n) => scene
            .queue
            .set_campaign_weight(campaign(id), weight(n))
            .expect("there"),
        Op::Open(id, open) => scene
            .queue
            .set_campaign_open(campaign(id), open)
            .expect("there"),
        Op::Advance(ms) => scene.now += ms,
    }
    None
}

pub(super) fn batch_of(scene: &mut Scene, acts: &[Act], reserve: u32) -> Batch {
    let mut batch = Batch {
        reserve,
        ..Batch::default()
    };
    for act in acts {
        match *act {
            Act::Admit {
                of,
                starts_in,
                expires_in,
            } => {
                let now = scene.now;
                batch.admissions.push(Newcomer {
                    scheduled_for: starts_in.map(|ms| now + ms),
                    expires_at: expires_in.map(|ms| now + ms),
                    ..scene.newcomer(of)
                });
            }
            Act::End(n) => {
                let call = nth(&scene.queue, n, |item| item.call_id.is_some());
                batch.endings.extend(call.map(|item| ending(item.id, None)));
            }
            Act::Return(n, delay) => {
                let call = nth(&scene.queue, n, is_up);
                batch
                    .returns
                    .extend(call.map(|item| back(item.id, item.attempts, delay)));
            }
        }
    }
    batch
}
