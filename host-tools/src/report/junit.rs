//! JUnit XML, which CI systems show: one test case per attack and size, failed where robust accuracy is below the
//! user's threshold or below the baseline's.

use super::title;
use crate::document::Document;
use std::fmt::Write;

/// The document as a test suite. `fail_under` is the threshold of every case; `regressions` are failures by the title of their
/// case, with what to say.
pub fn junit(
    document: &Document,
    fail_under: Option<f64>,
    regressions: &[(String, String)],
) -> String {
    let mut cases = String::new();
    let mut failures = 0;
    for attack in &document.attacks {
        let name = title(attack);
        let mut reasons = Vec::new();
        if let Some(threshold) = fail_under
            && attack.robust_accuracy < threshold
        {
            reasons.push(format!(
                "robust accuracy {:.4} is below {threshold}",
                attack.robust_accuracy
            ));
        }
        let worse = regressions.iter().filter(|(case, _)| *case == name);
        reasons.extend(worse.map(|(_, reason)| reason.clone()));
        let _ = write!(
            cases,
            "  <testcase classname=\"foolproof.{}\" name=\"{}\">",
            escape(&document.command),
            escape(&format!("{name} ({})", attack.numerics))
        );
        if !reasons.is_empty() {
            failures += 1;
            let _ = write!(
                cases,
                "<failure message=\"{}\"/>",
                escape(&reasons.join("; "))
            );
        }
        let _ = writeln!(
            cases,
            "<system-out>robust accuracy {:.4}, 95 % interval {:.4} to {:.4}, {:.1} queries and {:.1} gradients per sample</system-out></testcase>",
            attack.robust_accuracy,
            attack.interval[0],
            attack.interval[1],
            attack.queries_mean,
            attack.gradients_mean
        );
    }
    let model = document.model.as_ref().map_or("", |model| &model.path);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\">\n{cases}</testsuite>\n",
        escape(&format!("foolproof {} {model}", document.command)),
        document.attacks.len()
    )
}

fn escape(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .fold(String::new(), |mut out, c| {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                c => out.push(c),
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn every_attack_is_a_case_and_misses_are_failures() {
        let document = sample::data().document;
        let text = junit(&document, Some(1.0), &[]);
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("<testcase "), document.attacks.len());
        assert_eq!(count("<failure "), document.attacks.len());
        assert!(junit(&document, Some(0.0), &[]).contains("failures=\"0\""));
        let name = title(&document.attacks[0]);
        let text = junit(&document, None, &[(name, "was 0.9 & is <0.1".into())]);
        assert!(text.contains("was 0.9 &amp; is &lt;0.1"));
    }
}
