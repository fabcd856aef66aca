//! The parsers of values: each refuses with one line that says what would be right.

use crate::attack::{Choice, catalog, suite};
use foolproof::attack::Norm;
use foolproof::kernels::Kernels;
use foolproof::ops::Numerics;

/// Sizes of balls, ascending.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Epsilons(pub Vec<f32>);

pub(super) fn choice(text: &str) -> Result<Choice, String> {
    Choice::find(text).ok_or_else(|| {
        let suites = suite::SUITES.iter().map(|suite| suite.name);
        let names: Vec<&str> = suites.chain(catalog::all().map(|e| e.name)).collect();
        format!(
            "no such attack or suite; one of these would be right: {}",
            names.join(", ")
        )
    })
}

pub(super) fn norm(text: &str) -> Result<Norm, String> {
    match text {
        "linf" => Ok(Norm::Linf),
        "l2" => Ok(Norm::L2),
        "l1" => Ok(Norm::L1),
        "l0" => Ok(Norm::L0),
        _ => Err("no such norm; linf, l2, l1 or l0 would be right".into()),
    }
}

pub(super) fn setting(text: &str) -> Result<(String, f64), String> {
    let right = "NAME=NUMBER would be right, for example kappa=5";
    let (name, value) = text.split_once('=').ok_or(right)?;
    match value.trim().parse::<f64>() {
        Ok(value) if value.is_finite() && !name.trim().is_empty() => {
            Ok((name.trim().into(), value))
        }
        _ => Err(right.into()),
    }
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

/// Which inner loops.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// The fastest that serve the purpose.
    Auto,
    /// These.
    These(Kernels),
}

impl Which {
    /// For what needs speed.
    pub fn fast(self) -> Kernels {
        match self {
            Which::Auto => Kernels::detect(),
            Which::These(kernels) => kernels,
        }
    }

    /// For what is compared with a chip.
    pub fn exact(self) -> Kernels {
        match self {
            Which::Auto => Kernels::detect_exact(),
            Which::These(kernels) => kernels,
        }
    }
}

pub(super) fn kernels(text: &str) -> Result<Which, String> {
    let all = [Kernels::Scalar, Kernels::detect_exact(), Kernels::detect()];
    match all.into_iter().find(|kernels| kernels.name() == text) {
        Some(kernels) => Ok(Which::These(kernels)),
        None if text == "auto" => Ok(Which::Auto),
        None => {
            let mut names = all.map(Kernels::name).to_vec();
            names.dedup();
            Err(format!(
                "no such kernels on this machine; auto, {} would be right",
                names.join(" or ")
            ))
        }
    }
}

pub(super) fn numerics(text: &str) -> Result<Numerics, String> {
    let found = Numerics::ALL.into_iter().find(|n| n.name() == text);
    found.ok_or_else(|| {
        let names = Numerics::ALL.map(Numerics::name);
        format!(
            "no such runtime; one of these would be right: {}",
            names.join(", ")
        )
    })
}

fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!(
            "a whole number from {least} to {most} would be right"
        )),
    }
}

pub(super) fn seed(text: &str) -> Result<u64, String> {
    whole(text, 0, u64::MAX)
}

pub(super) fn seconds(text: &str) -> Result<u64, String> {
    whole(text, 1, 86_400).map_err(|right| format!("seconds: {right}"))
}

pub(super) fn measured(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds from 0.001 to 3600 would be right".into()),
    }
}

pub(super) fn batch(text: &str) -> Result<usize, String> {
    whole(text, 1, 4096).map(|number| number as usize)
}

pub(super) fn steps(text: &str) -> Result<u16, String> {
    whole(text, 1, 10_000).map(|number| number as u16)
}

pub(super) fn pause(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=86_400.0).contains(&number) => Ok(number),
        _ => Err("seconds from 0 to 86400 would be right".into()),
    }
}

pub(super) fn starts(text: &str) -> Result<u16, String> {
    whole(text, 1, 1_000).map(|number| number as u16)
}

pub(super) fn queries(text: &str) -> Result<u32, String> {
    whole(text, 0, 1_000_000).map(|number| number as u32)
}

pub(super) fn class(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "the number of a class, from 0, would be right".into())
}

pub(super) fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=1024) => Ok(threads),
        _ => Err("a whole number from 1 to 1024 would be right".into()),
    }
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..) => Ok(number),
        _ => Err("a whole number from 1 would be right".into()),
    }
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share between 0 and 1 would be right, for example 0.5".into()),
    }
}

pub(super) fn range(text: &str) -> Result<(f32, f32), String> {
    let parse = |part: &str| {
        part.trim()
            .parse::<f32>()
            .ok()
            .filter(|value| value.is_finite())
    };
    text.split_once(',')
        .and_then(|(low, high)| Some((parse(low)?, parse(high)?)))
        .filter(|(low, high)| low < high)
        .ok_or_else(|| {
            "two finite numbers, the smaller first, would be right, for example 0,1".into()
        })
}

/// Sums of squares of such sizes still fit an f32.
const LARGEST_EPSILON: f32 = 1e9;

/// `0.1` or `8/255`.
pub(super) fn epsilon(text: &str) -> Result<f32, String> {
    let right = "a number from 0 such as 0.1 or 8/255 would be right";
    let number = |part: &str| part.trim().parse::<f64>().map_err(|_| right.to_string());
    let value = match text.split_once('/') {
        None => number(text)?,
        Some((above, below)) => {
            let below = number(below)?;
            if below == 0.0 {
                return Err(format!("division by zero; {right}"));
            }
            number(above)? / below
        }
    };
    match value as f32 {
        value if value > LARGEST_EPSILON => Err(format!(
            "larger than any input's range; a number from 0 to {LARGEST_EPSILON:e} would be right"
        )),
        value if value.is_finite() && value >= 0.0 && !value.is_sign_negative() => Ok(value),
        value => Err(format!("{value} is no size; {right}")),
    }
}

pub(super) fn threshold(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(value) if (f32::MIN_POSITIVE..=LARGEST_EPSILON).contains(&value) => Ok(value),
        _ => Err(format!(
            "a number above 0, at most {LARGEST_EPSILON:e}, would be right"
        )),
    }
}

/// How many sizes a range without a common denominator is cut into.
const RANGE_STEPS: u32 = 8;

/// `a`, `a,b`, `a..b`, and lists of those. A range of fractions over one denominator goes in steps of one numerator
/// (`1/255..8/255`: eight sizes), any other in eight equal steps. The result is ascending and has no size twice.
pub(super) fn epsilons(text: &str) -> Result<Epsilons, String> {
    let mut sizes = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => sizes.push(epsilon(part)?),
            Some((from, to)) => sizes.extend(epsilon_range(from.trim(), to.trim())?),
        }
    }
    sizes.sort_by(f32::total_cmp);
    sizes.dedup();
    if sizes.len() > 64 {
        return Err(format!("{} sizes; at most 64 would be right", sizes.len()));
    }
    Ok(Epsilons(sizes))
}

fn epsilon_range(from: &str, to: &str) -> Result<Vec<f32>, String> {
    let (low, high) = (epsilon(from)?, epsilon(to)?);
    if low >= high {
        return Err(format!(
            "{from}..{to} is empty; the smaller size first would be right"
        ));
    }
    let whole = |text: &str| {
        let (above, below) = text.split_once('/')?;
        Some((
            above.trim().parse::<u32>().ok()?,
            below.trim().parse::<u32>().ok()?,
        ))
    };
    if let (Some((a, below)), Some((b, below_too))) = (whole(from), whole(to))
        && below == below_too
    {
        if b - a > 64 {
            return Err(format!("{} sizes; at most 64 would be right", b - a + 1));
        }
        return Ok((a..=b)
            .map(|above| (f64::from(above) / f64::from(below)) as f32)
            .collect());
    }
    let step = |i: u32| low + (high - low) * i as f32 / (RANGE_STEPS - 1) as f32;
    Ok((0..RANGE_STEPS).map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_fractions_lists_and_ranges() {
        assert_eq!(epsilons("0.25").unwrap().0, [0.25]);
        assert_eq!(epsilons("8/255").unwrap().0, [(8.0f64 / 255.0) as f32]);
        assert_eq!(epsilons("0.2,0.1,0.2").unwrap().0, [0.1, 0.2]);
        let range = epsilons("1/255..8/255").unwrap().0;
        assert_eq!(
            (range.len(), range[0], range[7]),
            (8, (1.0f64 / 255.0) as f32, (8.0f64 / 255.0) as f32)
        );
        let range = epsilons("0..0.7").unwrap().0;
        assert_eq!((range.len(), range[0], range[7]), (8, 0.0, 0.7));
        for wrong in [
            "-0.1",
            "NaN",
            "inf",
            "1/0",
            "",
            "a",
            "0.1,",
            "8/255..1/255",
            "-1/255",
            "1/-255",
            "1e99",
            "3e38",
            "0/255..4000000000/255",
        ] {
            assert!(epsilons(wrong).is_err(), "{wrong:?} was taken");
        }
    }

    #[test]
    fn shares_threads_and_ranges() {
        assert_eq!(
            (share("0.5"), range("-1,1"), threads("4")),
            (Ok(0.5), Ok((-1.0, 1.0)), Ok(4))
        );
        assert!(
            ["50", "-0.1", "NaN"]
                .iter()
                .all(|text| share(text).is_err())
        );
        assert!(
            ["1,0", "0", "0,inf", "0,NaN"]
                .iter()
                .all(|text| range(text).is_err())
        );
        for wrong in ["-1", "18446744073709551616", "1.5", ""] {
            assert!(seed(wrong).unwrap_err().contains("from 0"), "{wrong}");
        }
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert!(
            ["nan", "0", "-1", "86401"]
                .iter()
                .all(|text| seconds(text).is_err())
        );
        assert!(class("-1").is_err() && steps("0").is_err() && starts("1001").is_err());
        assert_eq!(setting("kappa=5"), Ok(("kappa".into(), 5.0)));
        for wrong in ["kappa", "=5", "kappa=", "kappa=inf", "kappa=x"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
        assert!(choice("pgdd").unwrap_err().contains("fgsm, bim, pgd"));
        assert!(
            ["0", "-1", "1025", "x"]
                .iter()
                .all(|text| threads(text).is_err())
        );
    }
}
