//! Every operation at the same moment as every other, from two servers, on one user, one call and
//! the system's row. Whatever comes first: no limit is exceeded, no attempt is authorised twice,
//! nothing is lost, no slot stays taken or idle, counters equal rows.

use std::env;

use tokio::sync::Barrier;

use operations::{Does, Operation};
use world::World;

mod operations;
mod world;

/// Rounds of each pair with `CALLQ_LONG_TESTS=1`. By default there is one, and which of the two is
/// on which server falls out as it may.
const ROUNDS_OF_A_LONG_TEST: u32 = 25;

/// Plays a pair in a world made for it; what is wrong then.
async fn meet(world: &mut World, one: Operation, other: Operation) -> Vec<String> {
    world.set_up().await;
    let barrier = Barrier::new(2);
    let at_once = |server, operation: Operation| {
        let (world, barrier) = (&*world, &barrier);
        async move {
            barrier.wait().await;
            operation.perform(world, server).await
        }
    };
    let (one_did, other_did) = tokio::join!(at_once(0, one), at_once(1, other));

    let mut faults = Vec::new();
    let mut started = world.started.clone();
    let mut accepted = world.accepted.clone();
    for did in [one_did, other_did] {
        let Does {
            starts,
            accepts,
            fault,
        } = did;
        for attempt in starts {
            if started.contains(&attempt) {
                faults.push(format!("{attempt:?} was authorised twice"));
            }
            started.push(attempt);
        }
        accepted.extend(accepts);
        faults.extend(fault);
    }
    faults.extend(world.faults(&accepted).await);
    faults.extend(world.wind_up().await);
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pair_of_operations_at_once_on_two_servers_keeps_every_rule() {
    let is_long = env::var("CALLQ_LONG_TESTS").is_ok_and(|value| value == "1");
    let rounds = if is_long { ROUNDS_OF_A_LONG_TEST } else { 1 };
    let mut world = World::new().await;
    let mut broken = Vec::new();
    for _ in 0..rounds {
        for (nth, one) in Operation::ALL.into_iter().enumerate() {
            for (other_nth, other) in Operation::ALL.into_iter().enumerate() {
                // Each pair this way or the other way round.
                let this_way = (nth < other_nth) == ((nth + other_nth) % 2 == 0);
                if !is_long && nth != other_nth && !this_way {
                    continue;
                }
                let faults = meet(&mut world, one, other).await.into_iter();
                broken.extend(faults.map(|fault| format!("{one:?}, {other:?}: {fault}")));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}
