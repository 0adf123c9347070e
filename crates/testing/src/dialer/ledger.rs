//! The ledger: everything that happened at the dialer, in order, and what follows from it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// callq asked for a call.
    Dial,
    /// The call is up.
    Start,
    /// The call is over.
    End,
    /// callq was answered; the status is in `detail`.
    Answer,
    /// callq asked what became of a call.
    LookUp,
    /// callq asked to end a call.
    HangUp,
    /// An event was delivered, or not; its status and callq's answer are in `detail`.
    Event,
    /// A request with a bad signature.
    Unauthentic,
    /// A request that breaks the contract; how is in `detail`.
    Malformed,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Counts from 0 over the dialer's life.
    pub sequence: u64,
    /// Microseconds since the dialer's start, by a clock that never goes back.
    pub elapsed_us: u64,
    /// The time of day.
    pub at: DateTime<Utc>,
    /// What happened.
    pub deed: Deed,
    /// The call it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_id: Option<Uuid>,
    /// The attempt it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
    /// Whose call it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<Uuid>,
    /// `direct` or `campaign`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_type: Option<String>,
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The dialer's name for the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub execution_id: Option<String>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

/// Everything that happened at a dialer, in order.
#[derive(Debug, Clone)]
pub struct Ledger {
    entries: Vec<LedgerEntry>,
    started: Instant,
    file: Option<Arc<File>>,
}

impl Ledger {
    /// An empty ledger that is also written to `file`, if there is one, after what it holds.
    pub(super) fn open(file: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let file = file.map(open).transpose()?.map(Arc::new);
        Ok(Self {
            entries: Vec::new(),
            started: Instant::now(),
            file,
        })
    }

    /// The ledger another process wrote, as far as it is whole: a last line that was cut off by a
    /// kill is left out.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let lines: Vec<String> = BufReader::new(File::open(path)?)
            .lines()
            .collect::<Result<_, _>>()?;
        let mut ledger = Self::open(None)?;
        for (index, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(entry) => ledger.entries.push(entry),
                Err(_) if index + 1 == lines.len() => {}
                Err(error) => return Err(io::Error::other(format!("line {}: {error}", index + 1))),
            }
        }
        Ok(ledger)
    }

    /// Everything, in order.
    #[must_use]
    pub fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }

    /// How often something happened.
    #[must_use]
    pub fn count(&self, deed: Deed) -> usize {
        self.of(deed).count()
    }

    /// Every time something happened, in order.
    pub fn of(&self, deed: Deed) -> impl Iterator<Item = &LedgerEntry> {
        self.entries.iter().filter(move |entry| entry.deed == deed)
    }

    /// Placements asked for, by call and attempt. Each should be 1.
    #[must_use]
    pub fn dials_per_attempt(&self) -> BTreeMap<(Uuid, u32), usize> {
        let mut dials = BTreeMap::new();
        for entry in self.of(Deed::Dial) {
            if let (Some(call_id), Some(attempt)) = (entry.call_id, entry.attempt) {
                *dials.entry((call_id, attempt)).or_default() += 1;
            }
        }
        dials
    }

    /// Calls put up, by call. Each should be 1 at most.
    #[must_use]
    pub fn starts_per_call(&self) -> BTreeMap<Uuid, usize> {
        let mut starts = BTreeMap::new();
        for call_id in self.of(Deed::Start).filter_map(|entry| entry.call_id) {
            *starts.entry(call_id).or_default() += 1;
        }
        starts
    }

    /// The most calls that were up at once.
    #[must_use]
    pub fn max_overlap(&self) -> usize {
        self.max_overlap_by(|_| ()).into_values().max().unwrap_or(0)
    }

    /// The most calls that were up at once, by user.
    #[must_use]
    pub fn max_overlap_per_user(&self) -> BTreeMap<Uuid, usize> {
        let of_users = self.max_overlap_by(|entry| entry.user_id);
        of_users
            .into_iter()
            .filter_map(|(user, most)| Some((user?, most)))
            .collect()
    }

    /// Calls that are up at the end.
    #[must_use]
    pub fn up(&self) -> usize {
        self.count(Deed::Start) - self.count(Deed::End)
    }

    fn max_overlap_by<K: Ord>(&self, key: impl Fn(&LedgerEntry) -> K) -> BTreeMap<K, usize> {
        // For each key, the calls up now and the most there ever were.
        let mut overlaps: BTreeMap<K, (usize, usize)> = BTreeMap::new();
        for entry in &self.entries {
            let (now, most) = overlaps.entry(key(entry)).or_default();
            match entry.deed {
                Deed::Start => *now += 1,
                Deed::End => *now -= 1,
                _ => {}
            }
            *most = (*most).max(*now);
        }
        let most = overlaps.into_iter().map(|(key, (_, most))| (key, most));
        most.collect()
    }

    /// Adds an entry, numbered and timed now.
    #[expect(
        clippy::expect_used,
        reason = "a ledger that cannot be written judges nothing"
    )]
    pub(super) fn add(&mut self, mut entry: LedgerEntry) {
        entry.sequence = self.entries.len() as u64;
        entry.elapsed_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        entry.at = Utc::now();
        if let Some(file) = &self.file {
            let mut line = serde_json::to_vec(&entry).expect("an entry is plain data");
            line.push(b'\n');
            // One write for one line: a kill leaves whole lines behind, or at worst half of the last.
            (&**file).write_all(&line).expect("a writable ledger");
        }
        self.entries.push(entry);
    }
}

impl LedgerEntry {
    /// An entry to be completed and given to [`Ledger::add`].
    pub(super) fn of(deed: Deed) -> Self {
        Self {
            sequence: 0,
            elapsed_us: 0,
            at: DateTime::UNIX_EPOCH,
            deed,
            call_id: None,
            attempt: None,
            user_id: None,
            call_type: None,
            to: None,
            execution_id: None,
            detail: String::new(),
        }
    }
}
