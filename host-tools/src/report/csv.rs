//! One line per attack, for spreadsheets (RFC 4180).

use crate::document::Document;

/// The document's attacks as CSV, a header line first.
pub fn csv(document: &Document) -> String {
    let mut out = String::from(
        "attack,numerics,norm,eps,targeted,n,robust_accuracy,low,high,success_rate,mean_l2,mean_linf,queries_mean,gradients_mean,queries_to_success_median,queries_to_success_most\r\n",
    );
    for attack in &document.attacks {
        let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        let norms = attack.mean_norm;
        let fields = [
            quoted(&attack.name),
            quoted(&attack.numerics),
            quoted(&attack.norm),
            optional(attack.eps),
            attack.targeted.to_string(),
            attack.fooled.len().to_string(),
            attack.robust_accuracy.to_string(),
            attack.interval[0].to_string(),
            attack.interval[1].to_string(),
            optional(attack.success_rate),
            optional(norms.map(|n| n.l2)),
            optional(norms.map(|n| n.linf)),
            attack.queries_mean.to_string(),
            attack.gradients_mean.to_string(),
            optional(attack.queries_to_success.map(|q| q.median)),
            optional(attack.queries_to_success.map(|q| q.most)),
        ];
        out.push_str(&fields.join(","));
        out.push_str("\r\n");
    }
    out
}

fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn every_line_has_as_many_fields_as_the_header() {
        let text = csv(&sample::data().document);
        let counts: Vec<usize> = text.lines().map(|line| line.split(',').count()).collect();
        assert!(counts.len() > 2 && counts.iter().all(|&count| count == counts[0]));
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
