//! What `bench` measured, as text.

use super::format::percent;
use super::terminal::{right, table};
use crate::document::{Bench, BenchRow, Document};
use comfy_table::Cell;

/// A table of all rows, and what stands out.
pub fn render(document: &Document) -> String {
    let Some(bench) = &document.bench else {
        return String::new();
    };
    let mut parts = Vec::new();
    if let Some(model) = &document.model {
        parts.push(format!("{} ({})", model.path, model.numerics));
    }
    parts.push(rows(bench).to_string());
    parts.extend(fgsm_cost(bench));
    parts.extend(shares_of_peak(bench));
    if let Some(bits) = bench.bits {
        parts.push(format!(
            "{} of {} random inputs got other bits than from the scalar kernels.",
            bits.different, bits.inputs
        ));
    }
    parts.join("\n")
}

fn rows(bench: &Bench) -> comfy_table::Table {
    let mut table = table(&[
        "work",
        "kernels",
        "batch",
        "threads",
        "a run's median",
        "half of runs in",
        "runs",
        "a second",
    ]);
    for row in &bench.rows {
        let spread = row.seconds;
        table.add_row(vec![
            Cell::new(&row.work),
            Cell::new(&row.kernels),
            right(row.batch),
            right(row.threads),
            right(duration(spread.median)),
            right(format!(
                "{} to {}",
                duration(spread.quarter),
                duration(spread.three_quarters)
            )),
            right(row.runs),
            right(rate(bench, row)),
        ]);
    }
    table
}

/// Three digits and a unit.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    format!("{}\u{a0}{unit}", three_digits(value))
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Images, and of forward runs the multiply-accumulates beside them; or bytes.
fn rate(bench: &Bench, row: &BenchRow) -> String {
    let per_second = row.per_second;
    match (row.unit.as_str(), bench.macs) {
        ("bytes", _) => format!("{} GB", three_digits(per_second / 1e9)),
        ("flop", _) => format!("{} GFLOP", three_digits(per_second / 1e9)),
        (unit, Some(macs)) if row.work == "infer" => format!(
            "{} {unit}, {} GMAC",
            three_digits(per_second),
            three_digits(per_second * macs as f64 / 1e9)
        ),
        (unit, _) => format!("{} {unit}", three_digits(per_second)),
    }
}

/// Per second, by the run that was disturbed least: what ratios are made of.
fn undisturbed(row: &BenchRow) -> f64 {
    row.amount / row.seconds.least.max(f64::MIN_POSITIVE)
}

/// FGSM beside a forward run at the same batch, one thread.
fn fgsm_cost(bench: &Bench) -> Option<String> {
    let find = |work: &str, batch: usize| {
        bench
            .rows
            .iter()
            .find(|row| row.work == work && row.batch == batch && row.threads == 1)
    };
    let batch = bench.rows.iter().map(|row| row.batch).max()?;
    let (fgsm, infer) = (find("fgsm", batch)?, find("infer", batch)?);
    Some(format!(
        "FGSM takes {:.2} times as long as a forward run (batch {batch}, one thread).",
        undisturbed(infer) / undisturbed(fgsm)
    ))
}

/// Products of matrices beside the peak of one thread.
fn shares_of_peak(bench: &Bench) -> Vec<String> {
    let peak = |row: &&BenchRow| row.work == "peak-fma" && row.threads == 1;
    let Some(peak) = bench.rows.iter().find(peak) else {
        return Vec::new();
    };
    let products = bench.rows.iter().filter(|row| row.work.starts_with("gemm"));
    let share = |row: &BenchRow| percent(undisturbed(row) / undisturbed(peak));
    let line = |row: &BenchRow| format!("{} reaches {} of peak-fma.", row.work, share(row));
    products.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Quantiles;

    fn row(work: &str, batch: usize, threads: usize, seconds: f64) -> BenchRow {
        BenchRow {
            work: work.into(),
            kernels: "scalar".into(),
            batch,
            threads,
            unit: "images".into(),
            amount: (batch * threads) as f64,
            runs: 3,
            seconds: Quantiles {
                least: seconds,
                quarter: seconds,
                median: seconds,
                three_quarters: seconds,
                most: seconds,
            },
            per_second: (batch * threads) as f64 / seconds,
        }
    }

    #[test]
    fn fgsm_stands_beside_the_forward_run_of_the_largest_batch_on_one_thread() {
        let mut document = Document::new("bench");
        document.bench = Some(Bench {
            macs: Some(1_000_000),
            bits: None,
            rows: vec![
                row("infer", 8, 1, 0.004),
                row("infer", 8, 2, 0.005),
                row("infer", 1, 1, 0.001),
                row("fgsm", 8, 1, 0.010),
                row("fgsm", 8, 2, 0.010),
            ],
        });
        let text = render(&document);
        assert!(text.contains("FGSM takes 2.50 times"), "{text}");
        assert!(text.contains("2000 images, 2.00 GMAC"), "{text}");
        assert!(text.contains("4.00\u{a0}ms"), "{text}");
    }
}
