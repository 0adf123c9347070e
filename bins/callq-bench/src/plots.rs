//! Which figures are drawn, and how they are put together.

use std::path::Path;

use anyhow::Context;

use crate::plot::{Bar, Bars, Lines};
use crate::report::Report;

/// Draws what was measured into `folder`, and says what it wrote.
pub(crate) fn write(report: &Report, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    let charts = [
        ("drain", drain(report)),
        ("door", door(report)),
        ("handoff", hand_off(report)),
        ("status", status(report)),
        (
            "endurance-rate",
            over_time(report, "Endurance: calls a second", &[("rate", "")]),
        ),
        (
            "endurance-latency",
            over_time(
                report,
                "Endurance: until an end or a direct call is durable and answered",
                &[
                    ("end_p50", "end, p50"),
                    ("end_p99", "end, p99"),
                    ("door_p50", "direct call, p50"),
                    ("door_p99", "direct call, p99"),
                ],
            ),
        ),
        (
            "endurance-size",
            over_time(
                report,
                "Endurance: what could grow",
                &[
                    ("tables", "hot tables"),
                    ("indexes", "their indexes"),
                    ("memory", "memory of the server"),
                ],
            ),
        ),
    ];
    for (name, chart) in charts {
        if let Some(svg) = chart {
            let path = folder.join(format!("{name}.svg"));
            std::fs::write(&path, svg)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            say!("drawn to {}", path.display());
        }
    }
    Ok(())
}

fn bar(report: &Report, id: &str) -> Option<Bar> {
    let figure = report.figures.iter().find(|figure| figure.id == id)?;
    Some(Bar {
        value: figure.median,
        min: figure.min,
        max: figure.max,
    })
}

/// Groups of bars, each bar by the id of its figure; none where nothing of it was measured.
fn bars(
    report: &Report,
    title: &str,
    unit: &str,
    groups: &[&str],
    series: &[(&str, Vec<String>)],
) -> Option<String> {
    let series: Vec<(String, Vec<Option<Bar>>)> = series
        .iter()
        .map(|(name, ids)| {
            let bars = ids.iter().map(|id| bar(report, id)).collect();
            ((*name).to_owned(), bars)
        })
        .collect();
    series
        .iter()
        .any(|(_, bars)| bars.iter().any(Option::is_some))
        .then(|| {
            Bars {
                title: title.into(),
                unit: unit.into(),
                groups: groups.iter().map(|it| (*it).to_owned()).collect(),
                series,
            }
            .draw()
        })
}

fn drain(report: &Report) -> Option<String> {
    let rates: Vec<(String, String)> = report
        .figures
        .iter()
        .filter_map(|figure| {
            let case = figure.id.strip_prefix("drain.")?.strip_suffix(".rate")?;
            Some((case.to_owned(), figure.id.clone()))
        })
        .collect();
    let groups: Vec<String> = rates.iter().map(|(case, _)| short_case(case)).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let ids = rates.iter().map(|(_, id)| id.clone()).collect();
    let title = "Drain: calls a second by users x waiting calls";
    bars(report, title, "/s", &groups, &[("", ids)])
}

/// `10000x1000000` as `10k x 1M`.
fn short_case(case: &str) -> String {
    let Some((users, waiting)) = case.split_once('x') else {
        return case.to_owned();
    };
    let short = |number: &str| {
        let cut = |zeros: &str, letter: &str| {
            let digits = number.strip_suffix(zeros)?;
            Some(format!("{digits}{letter}"))
        };
        cut("000000", "M")
            .or_else(|| cut("000", "k"))
            .unwrap_or_else(|| number.to_owned())
    };
    format!("{} x {}", short(users), short(waiting))
}

fn door(report: &Report) -> Option<String> {
    let ids = |slots: &str| {
        [1, 32, 256]
            .iter()
            .map(|connections| format!("door.{slots}.{connections}.rate"))
            .collect()
    };
    bars(
        report,
        "Door: direct calls a second by connections",
        "/s",
        &["1", "32", "256"],
        &[
            ("at the limit (202)", ids("limit")),
            ("free slots (200)", ids("free")),
        ],
    )
}

fn hand_off(report: &Report) -> Option<String> {
    let ids = |load: &str| {
        ["p50", "p95", "p99"]
            .iter()
            .map(|it| format!("handoff.{load}.{it}"))
            .collect()
    };
    bars(
        report,
        "Hand-off over HTTP: from a call's end to the next placement",
        "ms",
        &["p50", "p95", "p99"],
        &[("idle", ids("idle")), ("half load", ids("half"))],
    )
}

fn status(report: &Report) -> Option<String> {
    let mut depths: Vec<u64> = report
        .figures
        .iter()
        .filter_map(|it| {
            it.id
                .strip_prefix("status.")?
                .strip_suffix(".p99")?
                .parse()
                .ok()
        })
        .collect();
    depths.sort_unstable();
    let ids = |what: &str| {
        depths
            .iter()
            .map(|depth| format!("{what}.{depth}.p99"))
            .collect()
    };
    let groups: Vec<String> = depths.iter().map(|it| format!("{it} waiting")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    bars(
        report,
        "What a user sees, p99 by how many of its calls wait",
        "ms",
        &groups,
        &[
            ("queue status", ids("status")),
            ("position of an item", ids("position")),
        ],
    )
}

/// Series of the endurance by their names, each with a word for it.
fn over_time(report: &Report, title: &str, which: &[(&str, &str)]) -> Option<String> {
    let find = |name: &str| {
        let id = format!("endurance.{name}");
        report.series.iter().find(|series| series.id == id)
    };
    let unit = find(which.first()?.0)?.unit.clone();
    let series = which
        .iter()
        .filter_map(|(name, words)| Some(((*words).to_owned(), find(name)?.values.clone())))
        .collect();
    let title = title.to_owned();
    Some(
        Lines {
            title,
            unit,
            series,
        }
        .draw(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_short() {
        assert_eq!(short_case("100000x1000000"), "100k x 1M");
        assert_eq!(short_case("100x10000"), "100 x 10k");
        assert_eq!(short_case("limited"), "limited");
    }
}
