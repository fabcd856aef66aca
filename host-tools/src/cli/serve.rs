//! `foolproof serve`: a model as a black box on stdin and stdout, in the line protocol of [`crate::target`].

use super::Ended;
use super::args::ServeArgs;
use super::model::ModelFile;
use crate::classifier::{Classifier, Inputs};
use crate::error::{Error, Result};
use crate::target::PROTOCOL;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, Write};

#[derive(Deserialize)]
struct Line {
    hello: Option<u32>,
    x: Option<Vec<f32>>,
}

pub(crate) fn run(args: &ServeArgs) -> Result<Ended> {
    let file = ModelFile::read_for(
        &args.model.model,
        &args.model.input,
        args.model.runtime.numerics,
    )?;
    let classifier = Classifier::new(file.model()?, args.model.loops.kernels.fast());
    let gone = |error: std::io::Error| Error::new(error, "serve", "a reader and a writer");
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(gone)?;
        let answer = match serde_json::from_str::<Line>(&line) {
            Ok(Line {
                hello: Some(PROTOCOL),
                ..
            }) => introduction(args, &classifier, file.path()),
            Ok(Line {
                hello: Some(other), ..
            }) => {
                json!({ "error": format!("protocol {other} is asked for, this is protocol {PROTOCOL}") })
            }
            Ok(Line { x: Some(x), .. }) => {
                answer(args, &classifier, &x).unwrap_or_else(|error| json!({ "error": error }))
            }
            Ok(_) => json!({ "error": "neither hello nor x" }),
            Err(error) => json!({ "error": format!("not understood: {error}") }),
        };
        writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .map_err(gone)?;
    }
    Ok(Ended::Well)
}

fn introduction(args: &ServeArgs, classifier: &Classifier<'_>, name: &str) -> Value {
    let form = classifier.form();
    let mut said = json!({
        "protocol": PROTOCOL,
        "name": name,
        "shape": form.shape,
        "classes": classifier.model().classes(),
        "answers": if args.labels_only { "labels" } else { "scores" },
        "type": if form.grid.is_some() { "i8" } else { "f32" },
        "range": [form.range.0, form.range.1],
    });
    if let Some(grid) = form.grid {
        said["scale"] = json!(grid.scale);
        said["zero_point"] = json!(grid.zero_point);
    }
    said
}

fn answer(
    args: &ServeArgs,
    classifier: &Classifier<'_>,
    x: &[f32],
) -> std::result::Result<Value, String> {
    let n = classifier.input_len();
    if x.len() != n {
        return Err(format!("x has {} elements, the model takes {n}", x.len()));
    }
    if let Some(i) = x.iter().position(|v| !v.is_finite()) {
        return Err(format!("element {i} of x is out of range for an f32"));
    }
    let inputs = match classifier.is_quantized() {
        false => Inputs::F32(x.to_vec()),
        true => {
            let on_grid = |v: &f32| v.fract() == 0.0 && (-128.0..=127.0).contains(v);
            if let Some(v) = x.iter().find(|v| !on_grid(v)) {
                return Err(format!("{v} is no integer from -128 to 127"));
            }
            Inputs::I8(x.iter().map(|&v| v as i8).collect())
        }
    };
    let answers = classifier
        .answers(&inputs)
        .map_err(|error| error.to_string())?;
    let answer = answers.first().ok_or("no answer")?;
    if answer.logits.iter().any(|score| !score.is_finite()) {
        return Err("the scores of this x are not finite: the model overflows".into());
    }
    Ok(match args.labels_only {
        true => json!({ "label": answer.label }),
        false => json!({ "label": answer.label, "scores": answer.logits }),
    })
}
