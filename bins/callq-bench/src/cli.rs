//! The command line, as clap reads it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures callq on a private, durable PostgreSQL and counts what must be zero.
#[derive(Debug, Parser)]
#[command(name = "callq-bench", version, about)]
pub(crate) struct Cli {
    /// Only these parts, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    pub only: Vec<Part>,
    /// Smaller sizes and shorter times: about two minutes in all
    #[arg(long)]
    pub quick: bool,
    /// Runs of each figure, of which the median is reported [default: 3, quick 1]
    #[arg(long, value_name = "N")]
    pub runs: Option<usize>,
    /// Servers, each with an engine and connections of its own, that drain one database
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub engines: u8,
    /// Of the drains, only those whose name holds one of these
    #[arg(long, value_name = "TEXTS", value_delimiter = ',')]
    pub case: Vec<String>,
    /// Where the JSON goes [default: target/bench/TIME.json]
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
    /// Draw plots, and write the table as Markdown, into this folder
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Print ratios to an earlier run's JSON
    #[arg(long, value_name = "PATH")]
    pub compare: Option<PathBuf>,
    /// Where the cluster lies while it is measured [default: the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// A part of the benchmark. The floor is always measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The floor alone: what PostgreSQL does on this disk without callq
    Floor,
    /// Waiting calls reserved, marked, placed and ended
    Drain,
    /// Direct calls asked for over HTTP
    Door,
    /// From a call's end to the next placement, over HTTP
    HandOff,
    /// Queue status and one item's position, by how many calls wait
    Status,
    /// A great campaign beside direct calls, from its list to its being cancelled
    Campaign,
    /// Ten minutes at 80 % of the drain rate
    Endurance,
}

impl Cli {
    pub(crate) fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// One of two values: the full one, or the quick one.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}
