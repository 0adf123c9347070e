//! An earlier run beside this one.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::report::Report;
use crate::table::digits;

#[derive(Deserialize)]
struct Earlier {
    figures: Vec<EarlierFigure>,
}

#[derive(Deserialize)]
struct EarlierFigure {
    id: String,
    median: f64,
    floor_ratio: Option<f64>,
}

/// Prints every figure that both runs have, with the ratio of now to then; for rates also that of
/// their ratios to the floor, which holds better from day to day.
pub(crate) fn print(report: &Report, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let earlier: Earlier = serde_json::from_str(&text)
        .with_context(|| format!("{} is no report of this program", path.display()))?;
    let earlier: HashMap<&str, &EarlierFigure> = earlier
        .figures
        .iter()
        .map(|figure| (figure.id.as_str(), figure))
        .collect();
    say!(
        "\n{:<36} {:>12} {:>12} {:>9} {:>10}",
        "compared with before",
        "then",
        "now",
        "now/then",
        "to floors"
    );
    for figure in &report.figures {
        let Some(then) = earlier.get(figure.id.as_str()) else {
            continue;
        };
        let floors = ratio(figure.floor_ratio, then.floor_ratio);
        let line = format!(
            "{:<36} {:>12} {:>12} {:>9} {:>10}",
            figure.id,
            digits(then.median),
            digits(figure.median),
            ratio(Some(figure.median), Some(then.median)),
            floors
        );
        say!("{}", line.trim_end());
    }
    Ok(())
}

fn ratio(now: Option<f64>, then: Option<f64>) -> String {
    match (now, then) {
        (Some(now), Some(then)) if then != 0.0 => format!("{:.2}", now / then),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_both_sides() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50");
        assert_eq!(ratio(Some(3.0), Some(0.0)), "");
        assert_eq!(ratio(None, Some(2.0)), "");
    }
}
