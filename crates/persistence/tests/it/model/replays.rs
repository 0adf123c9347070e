//! Scripts that once made the two sides part, or that show what random ones seldom reach.
//!
//! A failing test prints its script in the form in which it stands here.

use callq_domain::Outcome::Completed;
use callq_domain::ReportedStatus;

use super::operations::{By::*, Named::*, Op::*, Pick::*};
use super::replay;

#[test]
fn a_call_turned_away_a_fourth_time_steps_aside_only_if_it_is_to_wait() {
    let turned_away = |delay| {
        [
            Return {
                call: Up(0),
                stale: false,
                delay,
                if_unknown: false,
            },
            Settle {
                server: 0,
                reserve: 100,
            },
        ]
    };
    let ask = Ask {
        of: 0,
        starts_in: None,
        expires_in: None,
    };
    let mut script = vec![
        SystemLimit(1),
        ask,
        ask,
        Settle {
            server: 0,
            reserve: 0,
        },
    ];
    for _ in 0..3 {
        script.extend(turned_away(0));
    }
    script.extend([Return {
        call: Up(0),
        stale: false,
        delay: 0,
        if_unknown: false,
    }]);
    script.extend([
        Settle {
            server: 0,
            reserve: 0,
        },
        Settle {
            server: 0,
            reserve: 1,
        },
    ]);
    script.extend(turned_away(500));
    script.extend([
        Advance(500),
        Settle {
            server: 0,
            reserve: 100,
        },
    ]);
    script.extend([End {
        call: Up(0),
        by: TheCarrier,
        outcome: Completed,
        named: Unnamed,
    }]);
    script.extend([Settle {
        server: 0,
        reserve: 100,
    }]);
    replay(&script);
}

#[test]
fn a_scheduled_call_is_told_a_place_among_as_many_as_there_are() {
    let ask = |starts_in| Ask {
        of: 2,
        starts_in: Some(starts_in),
        expires_in: None,
    };
    replay(&[
        ask(549),
        ask(1),
        Settle {
            server: 0,
            reserve: 100,
        },
    ]);
}

#[test]
fn an_event_beside_one_of_another_execution_is_not_lost() {
    let tell = |status, named| Tell {
        call: Up(0),
        status,
        named,
    };
    replay(&[
        Ask {
            of: 0,
            starts_in: None,
            expires_in: None,
        },
        Settle {
            server: 0,
            reserve: 0,
        },
        Placed {
            call: Up(0),
            stale: false,
        },
        Record { server: 0 },
        tell(ReportedStatus::Ringing, ItsName),
        tell(ReportedStatus::InProgress, AnotherName),
        Record { server: 0 },
    ]);
}

#[test]
fn a_call_asked_for_again_that_another_server_started_meanwhile_is_not_placed_twice() {
    let ask = Ask {
        of: 0,
        starts_in: None,
        expires_in: None,
    };
    replay(&[
        Paused(true),
        ask,
        Settle {
            server: 0,
            reserve: 0,
        },
        Paused(false),
        Settle {
            server: 1,
            reserve: 1,
        },
        Resend(0),
    ]);
}
