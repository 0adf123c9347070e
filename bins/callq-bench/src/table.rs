//! The report for people: a table in the terminal, and one in Markdown for the documents.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;

use crate::report::{Figure, Report};

/// Prints the report.
pub(crate) fn print(report: &Report) {
    say!("\n{}\n{}\n", surroundings(report), settings(report));
    let name = |figure: &Figure| {
        let indent = if figure.detail { "  " } else { "" };
        format!("{indent}{}", figure.words)
    };
    let widths = report.figures.iter().map(|it| name(it).chars().count());
    let width = widths.max().unwrap_or(0).max(6);
    say!(
        "{:<width$}  {:>12} {:<5}  {:>21}  {:>7}  target",
        "figure",
        "median",
        "",
        "min to max",
        "floor"
    );
    for figure in &report.figures {
        let line = format!(
            "{:<width$}  {:>12} {:<5}  {:>21}  {:>7}  {}",
            name(figure),
            digits(figure.median),
            figure.unit,
            range(figure),
            ratio(figure),
            target(figure)
        );
        say!("{}", line.trim_end());
    }
    say!("\n{}", verdicts(report).join("\n"));
}

/// Writes the report as Markdown to `folder/results.md`, and says so.
pub(crate) fn write_markdown(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let path = folder.join("results.md");
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    std::fs::write(&path, markdown(report))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    say!("written to {}", path.display());
    Ok(())
}

fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Results\n\nWritten by `callq-bench` at {}, commit {}. \
         [What the figures mean](../benchmarks.md).\n\n{}.\n\n`{}`\n\n",
        report.began.format("%Y-%m-%d %H:%M UTC"),
        report.machine.commit,
        surroundings(report),
        settings(report)
    );
    text.push_str("| figure | median | min to max | of the floor | target |\n");
    text.push_str("| --- | ---: | ---: | ---: | --- |\n");
    for figure in &report.figures {
        let indent = if figure.detail { "&emsp;" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {indent}{} | {} | {} | {} | {} |",
            figure.words,
            format!("{} {}", digits(figure.median), figure.unit).trim_end(),
            range(figure),
            ratio(figure),
            target(figure)
        );
    }
    text.push('\n');
    for verdict in verdicts(report) {
        let _ = writeln!(text, "- {verdict}");
    }
    text
}

fn surroundings(report: &Report) -> String {
    let machine = &report.machine;
    format!(
        "{} cores of {}, {} MiB, {}, PostgreSQL {}; load before {}; {} runs, {} engines{}",
        machine.cores,
        machine.processor,
        machine.memory_mib,
        machine.system,
        machine.postgres,
        machine.load_before,
        report.runs,
        report.engines,
        if report.quick { ", quick" } else { "" }
    )
}

fn settings(report: &Report) -> String {
    let settings = &report.machine.settings;
    let settings: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    settings.join(", ")
}

fn range(figure: &Figure) -> String {
    if figure.runs.len() < 2 {
        return String::new();
    }
    format!("{} to {}", digits(figure.min), digits(figure.max))
}

fn ratio(figure: &Figure) -> String {
    let ratio = figure.floor_ratio;
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}x"))
}

fn target(figure: &Figure) -> String {
    figure.target.as_ref().map_or_else(String::new, |target| {
        let mark = if target.reached { "reached" } else { "missed" };
        format!("{}: {mark}", target.words)
    })
}

fn verdicts(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report
        .verdicts
        .iter()
        .map(|(part, verdict)| {
            let words = match verdict.total() {
                0 => "all correct",
                _ => "NOT CORRECT",
            };
            format!("{part}: {} calls watched, {words}", verdict.calls)
        })
        .collect();
    lines.extend(report.failure.iter().map(|it| format!("ended early: {it}")));
    lines
}

/// About four significant digits.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        big if big >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_only_of_several_runs() {
        let one = Figure::rate("a", "a", &[5.0]);
        let two = Figure::rate("a", "a", &[5.0, 7.0]);
        assert_eq!(range(&one), "");
        assert_eq!(range(&two), "5.000 to 7.000");
    }

    #[test]
    fn numbers_keep_about_four_digits() {
        assert_eq!(digits(12_345.6), "12346");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(0.1234), "0.123");
    }
}
