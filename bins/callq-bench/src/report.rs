//! What was found: figures with their runs, their ratio to the floor, and the verdicts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cli::Cli;
use crate::cluster::Cluster;
use crate::judge::Verdict;
use crate::latency::{Percentiles, median};
use crate::machine::Machine;

/// Everything a run of the bench found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub began: DateTime<Utc>,
    pub machine: Machine,
    pub quick: bool,
    pub runs: usize,
    pub engines: u8,
    pub floor: Option<Floor>,
    pub figures: Vec<Figure>,
    /// What was followed over time.
    pub series: Vec<Series>,
    /// What must be zero, by part.
    pub verdicts: BTreeMap<String, Verdict>,
    /// Why it ended early, if it did.
    pub failure: Option<String>,
}

/// What other figures are compared with.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Floor {
    /// Transactions a second of `pgbench -N -M prepared -c 32`.
    pub rate: f64,
    /// Milliseconds of one commit alone.
    pub commit_ms: f64,
}

/// One thing followed minute by minute.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Series {
    pub id: String,
    pub words: String,
    pub unit: String,
    pub values: Vec<f64>,
}

/// One measured thing.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    pub id: String,
    pub words: String,
    pub unit: String,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    pub runs: Vec<f64>,
    /// To the floor's rate, for rates.
    pub floor_ratio: Option<f64>,
    pub target: Option<Target>,
    /// Whether it says more about the figure before it.
    pub detail: bool,
    #[serde(skip)]
    goal: Option<Goal>,
}

/// What a figure should reach, and whether it does.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Target {
    pub words: String,
    pub reached: bool,
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// So many times the floor's rate.
    Floors(f64),
    /// No more than this.
    Most(f64),
    /// No more than so many commits and so many milliseconds.
    Commits { commits: f64, and_ms: f64 },
    /// No less than this.
    Least(f64),
}

impl Floor {
    /// From the runs at each number of clients, the last the most, and of single commits.
    pub(crate) fn of(rates: &[Vec<f64>], commits: &[f64]) -> Self {
        Self {
            rate: rates.last().map_or(0.0, |rates| median(rates)),
            commit_ms: median(commits),
        }
    }
}

impl Figure {
    /// A figure from its runs.
    pub(crate) fn plain(id: &str, words: &str, unit: &str, runs: &[f64]) -> Self {
        Self {
            id: id.into(),
            words: words.into(),
            unit: unit.into(),
            median: median(runs),
            min: runs.iter().copied().fold(f64::INFINITY, f64::min),
            max: runs.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            runs: runs.to_vec(),
            floor_ratio: None,
            target: None,
            detail: false,
            goal: None,
        }
    }

    /// Says more about the figure before it.
    pub(crate) fn detail(mut self) -> Self {
        self.detail = true;
        self
    }

    /// Something a second.
    pub(crate) fn rate(id: &str, words: &str, runs: &[f64]) -> Self {
        Self::plain(id, words, "/s", runs)
    }

    pub(crate) fn milliseconds(id: &str, words: &str, runs: &[f64]) -> Self {
        Self::plain(id, words, "ms", runs)
    }

    /// The p50, p95 and p99 of runs. Without words all of them say more about the figure before.
    pub(crate) fn latency(id: &str, words: &str, runs: &[Percentiles]) -> [Self; 3] {
        let figure = |name: &str, words: &str, of: fn(&Percentiles) -> f64| {
            let values: Vec<f64> = runs.iter().map(of).collect();
            Self::milliseconds(&format!("{id}.{name}"), words, &values)
        };
        let p50 = match words {
            "" => figure("p50", "p50", |it| it.p50).detail(),
            words => figure("p50", &format!("{words}, p50"), |it| it.p50),
        };
        let p95 = figure("p95", "p95", |it| it.p95).detail();
        let p99 = figure("p99", "p99", |it| it.p99).detail();
        [p50, p95, p99]
    }

    pub(crate) fn at_least_floors(mut self, times: f64) -> Self {
        self.goal = Some(Goal::Floors(times));
        self
    }

    pub(crate) fn at_most(mut self, most: f64) -> Self {
        self.goal = Some(Goal::Most(most));
        self
    }

    /// So many commits of this disk, and so many milliseconds.
    pub(crate) fn at_most_commits(mut self, commits: f64, and_ms: f64) -> Self {
        self.goal = Some(Goal::Commits { commits, and_ms });
        self
    }

    /// At least this, in its own unit.
    pub(crate) fn at_least(mut self, least: f64) -> Self {
        self.goal = Some(Goal::Least(least));
        self
    }

    fn measure_against(&mut self, floor: Floor) {
        if self.unit == "/s" && floor.rate > 0.0 {
            self.floor_ratio = Some(self.median / floor.rate);
        }
        self.target = self.goal.map(|goal| {
            let (words, reached) = match goal {
                Goal::Floors(times) => (
                    format!("≥ {times} x floor"),
                    self.floor_ratio.is_some_and(|ratio| ratio >= times),
                ),
                Goal::Most(most) => (format!("≤ {most} {}", self.unit), self.median <= most),
                Goal::Commits { commits, and_ms } => {
                    let most = commits * floor.commit_ms + and_ms;
                    (format!("≤ {most:.2} {}", self.unit), self.median <= most)
                }
                Goal::Least(least) => (format!("≥ {least} {}", self.unit), self.median >= least),
            };
            Target { words, reached }
        });
    }
}

impl Report {
    pub(crate) fn new(cli: &Cli, cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            began: Utc::now(),
            machine: Machine::look(cluster)?,
            quick: cli.quick,
            runs: cli.runs(),
            engines: cli.engines,
            floor: None,
            figures: Vec::new(),
            series: Vec::new(),
            verdicts: BTreeMap::new(),
            failure: None,
        })
    }

    pub(crate) fn set_floor(&mut self, floor: Floor) {
        self.floor = Some(floor);
        for figure in &mut self.figures {
            figure.measure_against(floor);
        }
    }

    pub(crate) fn add_all(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            self.add(figure);
        }
    }

    pub(crate) fn add(&mut self, mut figure: Figure) {
        if let Some(floor) = self.floor {
            figure.measure_against(floor);
        }
        self.figures.push(figure);
    }

    /// The median of a figure, if it was measured.
    pub(crate) fn median(&self, id: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.id == id)?;
        Some(figure.median)
    }

    /// Keeps a verdict.
    ///
    /// # Errors
    /// If anything in it is not zero: nothing more is measured then.
    pub(crate) fn judge(&mut self, part: &str, verdict: &Verdict) -> anyhow::Result<()> {
        self.verdicts.entry(part.into()).or_default().add(verdict);
        verdict.check()
    }

    /// Writes the JSON, and says where.
    pub(crate) fn write_json(&self, cli: &Cli) -> anyhow::Result<()> {
        let path = cli.json.clone().unwrap_or_else(|| {
            PathBuf::from(format!(
                "target/bench/{}.json",
                self.began.format("%Y%m%dT%H%M%SZ")
            ))
        });
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        say!("written to {}", path.display());
        Ok(())
    }
}
