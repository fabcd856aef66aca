//! Numbers as people read them.

use crate::document::Estimate;

/// `0.934` as `93.4 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1}\u{a0}%", 100.0 * share)
}

/// At most four decimals, no trailing zeros; from a million up and below 1e-4 as `1.0e-6`.
pub fn number(value: f64) -> String {
    if value != 0.0 && !(1e-4..1e6).contains(&value.abs()) {
        return format!("{value:.1e}");
    }
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// One decimal, none where it is 0.
pub fn decimal(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// `1234567` as `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count that may be missing.
pub fn optional(value: Option<u64>) -> String {
    value.map_or("–".into(), count)
}

/// The mean of cosines and its interval: `0.95 (0.93 to 0.97)`.
pub fn cosine(estimate: Option<Estimate>) -> String {
    estimate.map_or("–".into(), |e| {
        format!(
            "{:.3} ({:.3} to {:.3})",
            e.mean, e.interval[0], e.interval[1]
        )
    })
}

/// The mean of shares and its interval: `93.4 % (92.1 to 94.7)`.
pub fn mean_percent(estimate: Option<Estimate>) -> String {
    estimate.map_or("–".into(), |e| {
        let [low, high] = e.interval.map(|share| 100.0 * share);
        format!("{} ({low:.1} to {high:.1})", percent(e.mean))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        assert_eq!(percent(0.9345), "93.5\u{a0}%");
        assert_eq!(
            [0.25, 8.0 / 255.0, 0.0, 1e-6, 3.0, 0.00003, 3e38, 999.5].map(number),
            [
                "0.25", "0.0314", "0", "1.0e-6", "3", "3.0e-5", "3.0e38", "999.5"
            ]
        );
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
    }
}
