//! The dialer as a process of its own: it survives every server and PostgreSQL, and its ledger is
//! on disk before callq hears of anything.

use std::io::BufRead;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use callq_testing::{Behaviour, Course, Dial, DialerOptions, FakeDialer, Telling};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cli::Dialer;

/// What it prints before its address.
pub(crate) const ANNOUNCEMENT: &str = "dialing on ";

/// What it is told on its standard input when the storm is over.
pub(crate) const CALM: &str = "calm";

/// Serves until its standard input ends. Misbehaves until it is told to be calm.
pub(crate) fn run(options: &Dialer) -> anyhow::Result<()> {
    let dialer = FakeDialer::start_with(DialerOptions {
        listen: options.listen,
        secret: options.secret.clone(),
        ledger_file: Some(options.ledger.clone()),
        servers: options.servers.clone(),
    })
    .context("the dialer cannot start")?;
    misbehave(&dialer, options);
    say!("{ANNOUNCEMENT}{}", dialer.url());
    let mut commands = std::io::stdin().lock().lines();
    // Look-ups fail for a while now and then: told by whoever conducts the storm.
    while let Some(command) = commands.next().transpose()? {
        match command.as_str() {
            CALM => {
                dialer.behave(|_| Behaviour::Accept);
                dialer.answer_look_ups_with(None);
            }
            "forget" => dialer.answer_look_ups_with(Some(503)),
            "remember" => dialer.answer_look_ups_with(None),
            _ => {}
        }
    }
    Ok(())
}

fn misbehave(dialer: &FakeDialer, options: &Dialer) {
    let (seed, slow) = (options.seed, options.slow);
    let dice = Mutex::new(StdRng::seed_from_u64(seed));
    dialer.behave(move |_| {
        let mut dice = dice.lock().unwrap_or_else(|it| it.into_inner());
        match behaviour(&mut *dice) {
            Behaviour::Accept if slow => Behaviour::SlowAccept(slowness(&mut *dice)),
            other => other,
        }
    });
    let dice = Mutex::new(StdRng::seed_from_u64(seed.wrapping_add(1)));
    dialer.go_on_by(move |dial| {
        let mut dice = dice.lock().unwrap_or_else(|it| it.into_inner());
        let mut course = course(dial, &mut *dice);
        if slow {
            // An event is proof that the call is up: none comes before the lease is over.
            course.on_the_way.clear();
            course.ends_after += if dice.random() { LEASE } else { SLOWEST };
        }
        Some(course)
    });
}

/// Longer than a server's lease.
const LEASE: Duration = Duration::from_secs(13);

/// Less than callq waits for an answer.
const SLOWEST: Duration = Duration::from_millis(900);

fn slowness(dice: &mut impl Rng) -> Duration {
    SLOWEST.mul_f64(dice.random_range(0.05..1.0))
}

/// Two thirds of the placements go as they should; each of the others goes wrong in a way of its
/// own. callq waits a second for an answer.
fn behaviour(dice: &mut impl Rng) -> Behaviour {
    match dice.random_range(0..100) {
        0..64 => Behaviour::Accept,
        64..78 => Behaviour::SlowAccept(slowness(dice)),
        78..81 => Behaviour::AcceptThenMute,
        81..84 => Behaviour::AcceptThenReset,
        84..86 => Behaviour::AcceptThenFail(500),
        86..89 => Behaviour::EventFirst { status: "busy" },
        89..91 => Behaviour::Mute,
        91..93 => Behaviour::Reset,
        93..94 => Behaviour::Garbage,
        94..95 => Behaviour::Refuse(500),
        95..97 => Behaviour::Refuse(422),
        _ => Behaviour::Busy {
            status: if dice.random() { 429 } else { 503 },
            retry_after: Some("1".into()),
        },
    }
}

/// Most calls are short, some outlive the lease of the server that placed them, and one in twenty
/// ends without a word.
fn course(_: &Dial, dice: &mut impl Rng) -> Course {
    let ring = Duration::from_millis(dice.random_range(20..200));
    let talk = Duration::from_millis(match dice.random_range(0..100) {
        0..75 => dice.random_range(100..1_200),
        75..94 => dice.random_range(1_000..4_000),
        _ => dice.random_range(12_000..20_000),
    });
    let answered = dice.random_bool(0.85);
    let outcome = if answered {
        "completed"
    } else {
        ["busy", "no-answer", "failed"][dice.random_range(0..3)]
    };
    let mut on_the_way = vec![(ring / 2, "ringing")];
    if answered {
        on_the_way.push((ring, "in-progress"));
    }
    Course {
        on_the_way,
        ends_after: ring + talk,
        outcome,
        telling: match dice.random_range(0..100) {
            0..90 => Telling::Once,
            90..95 => Telling::Twice,
            _ => Telling::Never,
        },
    }
}
