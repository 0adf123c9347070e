//! The far side's own words, made fit to store and to show: one line, bounded, no control
//! characters (PostgreSQL stores no NUL, and a log line must stay one line).

/// The first `max` characters of `text` on one line; an ellipsis tells that something is missing.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut chars = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = chars.by_ref().take(max).collect();
    if chars.next().is_some() {
        line.pop();
        line.push('…');
    }
    line
}

/// The last cause in an error's chain, which is the one that says what happened.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    one_line(&cause.to_string(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_to_the_bound_and_says_so() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcde…");
        assert_eq!(one_line("äöüäöüä", 3).chars().count(), 3);
    }

    #[test]
    fn control_characters_become_spaces() {
        assert_eq!(one_line("\n a\0b\r\nc\t", 20), "a b  c");
    }
}
