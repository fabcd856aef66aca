//! `foolproof train surrogate`: a model that imitates a black box.

use super::super::Ended;
use super::super::args::SurrogateArgs;
use super::super::console::Console;
use super::super::model::{ModelFile, preprocess};
use super::{configuration, finish};
use crate::classifier::{Classifier, Inputs};
use crate::data::{self, Purpose};
use crate::document::{Data, Document, Train};
use crate::error::{Error, Result};
use crate::files;
use crate::graph::to_image;
use crate::networks;
use crate::target::{Local, Target};
use crate::train::classifier::{Config, Network};
use crate::train::surrogate::{Distillation, distill};
use foolproof::kernels::Kernels;
use std::time::{Duration, Instant};

pub(super) fn run(args: &SurrogateArgs, seed: u64, console: &Console) -> Result<Ended> {
    let config = configuration(&Config::default(), args.config.as_deref(), args.epochs)?;
    if config.network != Network::Default {
        return Err(Error::new(
            "a surrogate has the default network",
            "network",
            "a configuration without it",
        ));
    }
    let file = match &args.model {
        Some(path) => Some(ModelFile::read_for(path, &args.input, None)?),
        None => None,
    };
    let data = data::load(&args.data, Purpose::Learn)?;
    let data = data.take(args.limit.unwrap_or(usize::MAX))?;
    let mut target: Box<dyn Target + '_> = match (&args.target, &file) {
        (Some(spec), file) => {
            let patience = Duration::from_secs(args.timeout);
            super::super::target::open(spec, file.as_ref(), patience, console)?
        }
        (None, Some(file)) => {
            let classifier = Classifier::new(file.model()?, Kernels::detect());
            Box::new(Local::new(file.path(), classifier))
        }
        (None, None) => {
            return Err(Error::new(
                "no model",
                "train surrogate",
                "a model, or --target",
            ));
        }
    };
    let inputs = match &file {
        Some(file) => file.with_data(&args.input, Kernels::detect(), &data)?.1,
        None => preprocess(&args.input).inputs(&data, target.form())?,
    };
    let form = target.form().clone();
    let seeds = match &inputs {
        Inputs::F32(x) => x.clone(),
        Inputs::I8(x) => {
            let real = |&q: &i8| form.grid.map_or(f32::from(q), |grid| grid.dequantize(q));
            x.iter().map(real).collect()
        }
    };
    let refuse = |what: &dyn std::fmt::Display| {
        Error::new(what, data.name(), "samples of at most three axes")
    };
    let shape: Vec<u32> = form.shape.iter().map(|&size| size as u32).collect();
    let labels = (0..target.classes())
        .map(|class| class.to_string())
        .collect();
    let mut graph =
        networks::default_for(&shape, form.range, labels, seed).map_err(|error| refuse(&error))?;
    files::create_folder(&args.out)?;
    let how = Distillation {
        queries: args.queries,
        rounds: args.rounds,
        lambda: args.lambda as f32,
    };
    let progress = console.progress("training", (args.rounds * config.epochs) as u64);
    let started = Instant::now();
    let distilled = distill(
        target.as_mut(),
        &mut graph,
        &seeds,
        (how, &config, seed),
        &mut |round, epoch| {
            progress.note(format!(
                "round {round}: loss {:.4}, agrees on {:.1} %",
                epoch.loss,
                100.0 * epoch.accuracy
            ));
            progress.advance(1);
        },
    )?;
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    let image = to_image(&graph).map_err(|error| refuse(&error))?;
    let model_path = args.out.join("model.fpi");
    files::write(&model_path, image.bytes())?;
    let mut document = Document::new("train surrogate");
    document.model = Some(ModelFile::of_image(model_path.display().to_string(), image).describe()?);
    document.target = Some(target.name());
    document.data = Some(Data {
        path: data.name().into(),
        n: data.len(),
    });
    document.seed = Some(seed);
    let loss = distilled.history.last().map_or(0.0, |last| last.loss);
    // every training counts its steps from 0
    let ends = distilled.history.windows(2).filter(|two| two[1].epoch == 1);
    let last = distilled.history.last().map_or(0, |last| last.steps);
    let steps = ends.map(|two| two[0].steps).sum::<u64>() + last;
    document.train = Some(Train {
        steps,
        seconds,
        samples_per_second: (steps * config.batch as u64) as f64 / seconds.max(1e-9),
        metrics: [
            ("loss".to_string(), loss),
            ("queries".to_string(), distilled.queries as f64),
            ("agreement".to_string(), distilled.agreement),
        ]
        .into(),
    });
    finish(document, &args.out, &distilled.history, console)
}
