//! What the demo shows: bars that move, with a log above them, or plain lines where nothing can.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::demo::client::{Count, Slots};
use crate::demo::people::Cast;

/// Between two lines of figures where there are no bars.
const PLAIN_PAUSE: Duration = Duration::from_secs(4);

/// Cells a slot takes in a bar of slots.
const CELLS: u64 = 2;

/// The users and campaigns at one moment.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) system: Slots,
    /// In the order of [`Cast::all`].
    pub(super) users: Vec<Load>,
    pub(super) campaigns: Vec<Stretch>,
}

/// A user's slots and what waits for them.
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) slots: Slots,
    pub(super) direct: Count,
    pub(super) campaign: Count,
}

/// How far a campaign is.
pub(super) struct Stretch {
    pub(super) name: &'static str,
    pub(super) done: u64,
    pub(super) total: u64,
}

/// Where the demo is shown: standard output.
pub(super) struct Screen {
    began: Instant,
    kind: Kind,
}

enum Kind {
    Bars {
        all: MultiProgress,
        lines: Mutex<Vec<ProgressBar>>,
    },
    Plain {
        last: Mutex<Option<Instant>>,
    },
}

impl Screen {
    /// Bars, unless plain lines are asked for or standard output is no terminal.
    pub(super) fn open(plain: bool) -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let kind = if plain || !std::io::stdout().is_terminal() || all.is_hidden() {
            Kind::Plain {
                last: Mutex::default(),
            }
        } else {
            Kind::Bars {
                all,
                lines: Mutex::default(),
            }
        };
        Self {
            began: Instant::now(),
            kind,
        }
    }

    pub(super) fn title(&self) {
        self.print(
            "\ncallq decides whose phone call goes next.\n\n\
             Starting a server on a fresh private database. Only the carrier is simulated.",
        );
        self.print("");
    }

    /// Says who is there and which limits hold.
    pub(super) fn introduce(&self, cast: &Cast, system_limit: u32) {
        let people: Vec<_> = cast
            .all()
            .iter()
            .map(|person| format!("{} {}", person.name, person.limit))
            .collect();
        let sum: u32 = cast.all().iter().map(|person| person.limit).sum();
        self.print(&format!(
            "Calls at once: {}, which makes {sum}; the whole system, {system_limit}.\n\
             A direct call is a person waiting. It goes before any campaign call.",
            people.join(", "),
        ));
        self.print("");
    }

    /// Notes something that happened just now.
    pub(super) fn note(&self, line: &str) {
        self.print(&format!(
            "{:>5.1} s  {line}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    /// Shows where everything stands.
    pub(super) fn show(&self, now: &Snapshot) {
        match &self.kind {
            Kind::Bars { all, lines } => {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                draw(all, &mut lines, now);
            }
            Kind::Plain { last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.is_none_or(|last| last.elapsed() >= PLAIN_PAUSE) {
                    *last = Some(Instant::now());
                    self.note(&figures(now));
                }
            }
        }
    }

    /// Shows the last figures, whatever was passed over lately to spare the terminal.
    pub(super) fn settle(&self) {
        if let Kind::Bars { lines, .. } = &self.kind {
            for line in lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                line.abandon();
            }
        }
    }

    /// Lets the bars stand as they are; what follows is printed below them. Draws nothing: after
    /// Ctrl-C the cursor is not where it was left.
    pub(super) fn close(&self) {
        if let Kind::Bars { all, .. } = &self.kind {
            all.set_draw_target(ProgressDrawTarget::hidden());
        }
        print_line("");
    }

    fn print(&self, text: &str) {
        match &self.kind {
            // A terminal that is gone cannot be told so.
            Kind::Bars { all, .. } => drop(all.println(text)),
            Kind::Plain { .. } => print_line(text),
        }
    }
}

/// A line below everything. A reader that has gone away is no reason to leave a database behind.
pub(super) fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn draw(all: &MultiProgress, lines: &mut Vec<ProgressBar>, now: &Snapshot) {
    // Lines only ever join at the end: users are there from the start, campaigns come later.
    if lines.is_empty() {
        lines.push(slot_bar(all, "all slots", now.system));
        let users = now.users.iter();
        lines.extend(users.map(|user| slot_bar(all, user.name, user.slots)));
    }
    let known = lines.len() - 1 - now.users.len();
    let new = now.campaigns.iter().skip(known);
    lines.extend(new.map(|campaign| campaign_bar(all, campaign.name)));
    let slots = std::iter::once((now.system, String::new()))
        .chain(now.users.iter().map(|user| (user.slots, waiting(user))))
        .map(|(slots, waiting)| (slots.active, slots.limit, waiting));
    let campaigns = now
        .campaigns
        .iter()
        .map(|campaign| (campaign.done, campaign.total, String::new()));
    for (line, (done, of, message)) in lines.iter().zip(slots.chain(campaigns)) {
        line.set_length(of);
        line.set_position(done);
        line.set_message(message);
    }
}

fn slot_bar(all: &MultiProgress, name: &'static str, slots: Slots) -> ProgressBar {
    let template = format!(
        "{{prefix:<24}} {{bar:{}.cyan}} {{pos}}/{{len}}  {{msg}}",
        slots.limit * CELLS
    );
    bar(all, name, slots.limit, &template)
}

fn campaign_bar(all: &MultiProgress, name: &'static str) -> ProgressBar {
    bar(all, name, 1, "{prefix:<24} {bar:30.green} {pos}/{len}")
}

fn bar(all: &MultiProgress, name: &'static str, length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█░");
    all.add(ProgressBar::new(length))
        .with_style(style)
        .with_prefix(name)
}

/// What waits for a user's slots, in words.
fn waiting(user: &Load) -> String {
    let parts: Vec<_> = [
        (user.direct.queued, "direct"),
        (user.campaign.queued, "campaign"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, kind)| format!("{count} {kind}"))
    .collect();
    if parts.is_empty() {
        String::new()
    } else {
        format!("waiting: {}", parts.join(", "))
    }
}

/// Everything on one line.
fn figures(now: &Snapshot) -> String {
    let mut parts = vec![format!("slots {}/{}", now.system.active, now.system.limit)];
    parts.extend(now.users.iter().map(|user| {
        let waiting = waiting(user);
        let (gap, waiting) = if waiting.is_empty() {
            ("", "")
        } else {
            (" ", waiting.as_str())
        };
        format!(
            "{} {}/{}{gap}{waiting}",
            user.name, user.slots.active, user.slots.limit
        )
    }));
    parts.extend(
        now.campaigns
            .iter()
            .map(|campaign| format!("{} {}/{}", campaign.name, campaign.done, campaign.total)),
    );
    format!("[{}]", parts.join(" | "))
}
