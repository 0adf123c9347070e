//! An agent's settings as the simulator reads them, every fault named by its path.

use std::time::Duration;

use callq_domain::Outcome;
use rand::Rng;
use rand_distr::{Distribution as _, Exp, LogNormal, Normal, Uniform};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The longest time a simulated call rings or talks.
pub(super) const LONGEST_MS: f64 = 24.0 * 3_600.0 * 1_000.0;

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings{path} {problem}")]
pub(super) struct SettingsError {
    path: String,
    problem: String,
}

fn fault<T>(path: &str, problem: impl Into<String>) -> Result<T, SettingsError> {
    let (path, problem) = (path.to_owned(), problem.into());
    Err(SettingsError { path, problem })
}

/// How an agent's calls behave.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) manual: bool,
    pub(super) answer_after: Amount,
    pub(super) talk: Amount,
    pub(super) outcome: Choice<Outcome>,
    pub(super) place: Choice<PlaceAnswer>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            manual: false,
            answer_after: Amount::Fixed(1_000.0),
            talk: Amount::Fixed(10_000.0),
            outcome: Choice::only(Outcome::Completed),
            place: Choice::only(PlaceAnswer::Placed),
        }
    }
}

/// How the simulator answers a placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlaceAnswer {
    Placed,
    Refused,
    Busy,
    Unreachable,
    /// The call is up, but the answer is "lost".
    Unknown,
}

impl PlaceAnswer {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "placed" => Some(Self::Placed),
            "refused" => Some(Self::Refused),
            "busy" => Some(Self::Busy),
            "unreachable" => Some(Self::Unreachable),
            "unknown" => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl Settings {
    /// Reads an agent's settings; none, and what is left out, means the defaults.
    ///
    /// Names the simulator does not know are passed over: settings made for another provider
    /// should work here too.
    pub(super) fn read(settings: Option<&RawValue>) -> Result<Self, SettingsError> {
        let defaults = Self::default();
        let value = match settings.map(|raw| serde_json::from_str(raw.get())) {
            None | Some(Ok(Value::Null)) => return Ok(defaults),
            Some(Ok(Value::Object(fields))) => fields,
            _ => return fault("", "must be a JSON object"),
        };
        let amount = |name: &str, otherwise| match value.get(name) {
            None => Ok(otherwise),
            Some(value) => Amount::read(&format!(".{name}"), value),
        };
        Ok(Self {
            manual: match value.get("mode") {
                None => false,
                Some(Value::String(mode)) if mode == "manual" => true,
                Some(Value::String(mode)) if mode == "timed" => false,
                Some(_) => return fault(".mode", "must be \"timed\" or \"manual\""),
            },
            answer_after: amount("answer_after_ms", defaults.answer_after)?,
            talk: amount("talk_ms", defaults.talk)?,
            outcome: match value.get("outcome") {
                None => defaults.outcome,
                Some(value) => Choice::read(".outcome", value, OUTCOMES, Outcome::from_name)?,
            },
            place: match value.get("place") {
                None => defaults.place,
                Some(value) => Choice::read(".place", value, ANSWERS, PlaceAnswer::from_name)?,
            },
        })
    }
}

const OUTCOMES: &str = "completed, busy, no-answer, failed or cancelled";
const ANSWERS: &str = "placed, refused, busy, unreachable or unknown";

/// A time in milliseconds, or a distribution to draw one from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Fixed(f64),
    Uniform(Uniform<f64>),
    Normal(Normal<f64>),
    LogNormal(LogNormal<f64>),
    Exponential(Exp<f64>),
}

impl Amount {
    fn read(path: &str, value: &Value) -> Result<Self, SettingsError> {
        match value {
            Value::Number(_) => Ok(Self::Fixed(milliseconds(path, Some(value))?)),
            Value::Object(fields) => Self::read_distribution(path, fields),
            _ => fault(path, "must be a number of milliseconds or a distribution"),
        }
    }

    fn read_distribution(path: &str, fields: &Map<String, Value>) -> Result<Self, SettingsError> {
        let ms = |name: &str| milliseconds(&format!("{path}.{name}"), fields.get(name));
        let name = fields.get("distribution").and_then(Value::as_str);
        let drawn = match name {
            Some("fixed") => Some(Self::Fixed(ms("ms")?)),
            Some("uniform") => Uniform::new_inclusive(ms("min_ms")?, ms("max_ms")?)
                .ok()
                .map(Self::Uniform),
            Some("normal") => Normal::new(ms("mean_ms")?, ms("sd_ms")?)
                .ok()
                .map(Self::Normal),
            Some("lognormal") => {
                let sigma = number(
                    &format!("{path}.sigma"),
                    fields.get("sigma"),
                    10.0,
                    "a number",
                )?;
                LogNormal::new(ms("median_ms")?.ln(), sigma)
                    .ok()
                    .map(Self::LogNormal)
            }
            Some("exponential") => Exp::new(1.0 / ms("mean_ms")?).ok().map(Self::Exponential),
            _ => {
                return fault(
                    &format!("{path}.distribution"),
                    "must be fixed, uniform, normal, lognormal or exponential",
                );
            }
        };
        match drawn {
            Some(amount) => Ok(amount),
            None if name == Some("uniform") => fault(path, "must not have min_ms above max_ms"),
            None => fault(path, "is not a distribution of times"),
        }
    }

    /// A time drawn from it, between 0 and a day.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Duration {
        let ms = match self {
            Self::Fixed(ms) => *ms,
            Self::Uniform(range) => range.sample(rng),
            Self::Normal(normal) => normal.sample(rng),
            Self::LogNormal(normal) => normal.sample(rng),
            Self::Exponential(exponential) => exponential.sample(rng),
        };
        #[expect(
            clippy::manual_clamp,
            reason = "`max` turns a value that is not a number into 0, `clamp` keeps it"
        )]
        let ms = ms.max(0.0).min(LONGEST_MS);
        Duration::from_secs_f64(ms / 1_000.0)
    }
}

fn milliseconds(path: &str, value: Option<&Value>) -> Result<f64, SettingsError> {
    number(path, value, LONGEST_MS, "a number of milliseconds")
}

fn number(path: &str, value: Option<&Value>, max: f64, what: &str) -> Result<f64, SettingsError> {
    match value.and_then(Value::as_f64) {
        Some(number) if (0.0..=max).contains(&number) => Ok(number),
        _ => fault(path, format!("must be {what} from 0 to {max}")),
    }
}

/// One of several things, each as likely as its weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice<T>(Vec<(T, f64)>);

impl<T: Copy> Choice<T> {
    fn only(what: T) -> Self {
        Self(vec![(what, 1.0)])
    }

    fn read(
        path: &str,
        value: &Value,
        names: &str,
        from_name: impl Fn(&str) -> Option<T>,
    ) -> Result<Self, SettingsError> {
        let weights = match value {
            Value::String(name) => {
                return match from_name(name) {
                    Some(what) => Ok(Self::only(what)),
                    None => fault(path, format!("must be {names}")),
                };
            }
            Value::Object(weights) => weights,
            _ => return fault(path, format!("must be {names}, or weights of these")),
        };
        let mut options = Vec::with_capacity(weights.len());
        for (name, weight) in weights {
            let path = format!("{path}.{name}");
            let Some(what) = from_name(name) else {
                return fault(&path, format!("is unknown; use {names}"));
            };
            options.push((what, number(&path, Some(weight), 1e9, "a weight")?));
        }
        if options.iter().any(|(_, weight)| *weight > 0.0) {
            Ok(Self(options))
        } else {
            fault(path, "must give at least one of its names a weight above 0")
        }
    }

    /// One of them. `None` never happens for a choice that was read.
    pub(super) fn draw(&self, rng: &mut impl Rng) -> Option<T> {
        let total: f64 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = rng.random::<f64>() * total;
        let likely = self.0.iter().filter(|(_, weight)| *weight > 0.0);
        let drawn = likely.clone().find(|(_, weight)| {
            left -= weight;
            left < 0.0
        });
        // Rounding may leave a crumb after the last one.
        drawn.or(likely.last()).map(|(what, _)| *what)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use serde_json::json;

    use super::*;

    fn read(settings: &Value) -> Result<Settings, SettingsError> {
        let raw = serde_json::value::to_raw_value(settings).expect("JSON");
        Settings::read(Some(&raw))
    }

    fn mean_ms(amount: &Value) -> f64 {
        let settings = read(&json!({ "talk_ms": amount })).expect("settings");
        let mut rng = StdRng::seed_from_u64(7);
        let draws = 20_000;
        let sum: f64 = (0..draws)
            .map(|_| settings.talk.draw(&mut rng).as_secs_f64())
            .sum();
        sum * 1_000.0 / f64::from(draws)
    }

    #[test]
    fn nothing_null_and_an_empty_object_mean_the_defaults() {
        assert_eq!(Settings::read(None), Ok(Settings::default()));
        assert_eq!(read(&Value::Null), Ok(Settings::default()));
        assert_eq!(read(&json!({})), Ok(Settings::default()));
        assert_eq!(
            read(&json!({"voice": "made for another provider"})),
            Ok(Settings::default())
        );
    }

    #[test]
    fn every_fault_is_named_by_its_path() {
        let distribution = |value| json!({ "talk_ms": value });
        let faults = [
            (json!([]), "settings must"),
            (json!({"mode": "slow"}), "settings.mode "),
            (json!({"answer_after_ms": -1}), "settings.answer_after_ms "),
            (json!({"talk_ms": "10"}), "settings.talk_ms "),
            (json!({"talk_ms": null}), "settings.talk_ms "),
            (json!({"talk_ms": 86_400_001}), "settings.talk_ms "),
            (distribution(json!({})), "settings.talk_ms.distribution "),
            (
                distribution(json!({"distribution": "fixed"})),
                "settings.talk_ms.ms ",
            ),
            (
                distribution(json!({"distribution": "uniform", "min_ms": 1})),
                "settings.talk_ms.max_ms ",
            ),
            (
                distribution(json!({"distribution": "uniform", "min_ms": 2, "max_ms": 1})),
                "settings.talk_ms ",
            ),
            (
                distribution(json!({"distribution": "normal", "mean_ms": 2, "sd_ms": -1})),
                "settings.talk_ms.sd_ms ",
            ),
            (
                distribution(json!({"distribution": "lognormal", "median_ms": 2, "sigma": "x"})),
                "settings.talk_ms.sigma ",
            ),
            (
                distribution(json!({"distribution": "exponential", "mean_ms": "x"})),
                "settings.talk_ms.mean_ms ",
            ),
            (json!({"outcome": "answered"}), "settings.outcome "),
            (json!({"outcome": {}}), "settings.outcome "),
            (json!({"outcome": {"completed": 0}}), "settings.outcome "),
            (
                json!({"outcome": {"completed": -1}}),
                "settings.outcome.completed ",
            ),
            (
                json!({"outcome": {"answered": 1}}),
                "settings.outcome.answered ",
            ),
            (json!({"place": "never"}), "settings.place "),
        ];
        for (settings, start) in faults {
            let error = read(&settings).expect_err(start).to_string();
            assert!(error.starts_with(start), "{settings}: {error}");
        }
    }

    #[test]
    fn each_distribution_has_the_mean_it_should() {
        let cases = [
            (json!(500), 500.0),
            (json!({"distribution": "fixed", "ms": 500}), 500.0),
            (
                json!({"distribution": "uniform", "min_ms": 0, "max_ms": 1000}),
                500.0,
            ),
            (
                json!({"distribution": "uniform", "min_ms": 500, "max_ms": 500}),
                500.0,
            ),
            (
                json!({"distribution": "normal", "mean_ms": 500, "sd_ms": 50}),
                500.0,
            ),
            // The mean of a lognormal is its median times e^(sigma²/2).
            (
                json!({"distribution": "lognormal", "median_ms": 500, "sigma": 0.5}),
                566.6,
            ),
            (
                json!({"distribution": "exponential", "mean_ms": 500}),
                500.0,
            ),
        ];
        for (amount, mean) in cases {
            let drawn = mean_ms(&amount);
            assert!((drawn / mean - 1.0).abs() < 0.03, "{amount}: {drawn}");
        }
    }

    #[test]
    fn no_draw_is_negative_or_longer_than_a_day() {
        let extremes = [
            json!({"distribution": "normal", "mean_ms": 0, "sd_ms": 86_400_000}),
            json!({"distribution": "lognormal", "median_ms": 86_400_000, "sigma": 10}),
            json!({"distribution": "lognormal", "median_ms": 0, "sigma": 10}),
            json!({"distribution": "exponential", "mean_ms": 86_400_000}),
            json!({"distribution": "exponential", "mean_ms": 0}),
        ];
        let mut rng = StdRng::seed_from_u64(7);
        for amount in extremes {
            let Ok(settings) = read(&json!({ "talk_ms": amount })) else {
                continue;
            };
            for _ in 0..1_000 {
                assert!(
                    settings.talk.draw(&mut rng) <= Duration::from_secs(86_400),
                    "{amount}"
                );
            }
        }
    }

    #[test]
    fn outcomes_come_as_often_as_their_weights() {
        let settings = read(&json!({"outcome": {"completed": 3, "busy": 1, "failed": 0}}));
        let outcome = settings.expect("settings").outcome;
        let mut rng = StdRng::seed_from_u64(7);
        let draws: Vec<_> = (0..10_000).filter_map(|_| outcome.draw(&mut rng)).collect();
        let share = |what| draws.iter().filter(|drawn| **drawn == what).count();
        assert!((7_300..7_700).contains(&share(Outcome::Completed)));
        assert_eq!(share(Outcome::Completed) + share(Outcome::Busy), 10_000);
    }
}
