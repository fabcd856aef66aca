//! Training from the command line: what a run leaves behind, and that neither threads nor a kill at any moment change a byte.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::Bench;

/// The files that must be the same, however a run came to its end.
const RESULTS: [&str; 4] = [
    "generator.fpi",
    "discriminator.fpi",
    "log.csv",
    "samples.gif",
];

/// A GAN on the digits: 264 steps, a second or so with a checkpoint after each.
const TINY: &str = "train gan --data digits --config tiny.toml --checkpoint 0";

/// A classifier trained by the fast method on the digits: 120 steps, a checkpoint after each.
const FAST: &str = "train classifier --data digits --config fast.toml --checkpoint 0";
const FAST_RESULTS: [&str; 5] = [
    "model.fpi",
    "model_int8.fpi",
    "model_int8.tflite",
    "log.csv",
    "history.json",
];

fn bench() -> Bench {
    let bench = Bench::new();
    let config = "epochs = 4\nmethod = \"fast\"\nheld_out = 100\nshift = 1\nnoise = 0.05\nema = 0.9\n[adversary]\nramp = 0.5\n";
    fs::write(bench.path("fast.toml"), config).unwrap();
    let config = "epochs = 12\nhidden = [16]\nlatent = 8\nshard = 16\nema = 0.9\nr1 = 0.1\n";
    fs::write(bench.path("tiny.toml"), config).unwrap();
    bench
}

fn well(bench: &Bench, line: &str) {
    let output = bench.run(line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
}

fn same(bench: &Bench, a: &str, b: &str) {
    same_files(bench, [a, b], &RESULTS);
}

fn same_files(bench: &Bench, [a, b]: [&str; 2], names: &[&str]) {
    for name in names {
        let [a, b] = [a, b].map(|folder| fs::read(bench.path(folder).join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
}

#[test]
fn threads_change_nothing_and_seeds_do() {
    let bench = bench();
    well(&bench, &format!("{TINY} --out one --threads 1"));
    well(&bench, &format!("{TINY} --out three --threads 3"));
    same(&bench, "one", "three");
    well(&bench, &format!("{TINY} --out other --seed 5"));
    let [a, b] = ["one", "other"].map(|folder| fs::read(bench.path(folder).join("generator.fpi")));
    assert_ne!(a.unwrap(), b.unwrap());
    let config = fs::read_to_string(bench.path("one/config.toml")).unwrap();
    for key in [
        "hidden = [16]",
        "beta1 = 0.5",
        "objective = \"non-saturating\"",
    ] {
        assert!(config.contains(key), "{key} in {config}");
    }
    // a config.toml gives back the run that wrote it
    well(
        &bench,
        "train gan --data digits --config one/config.toml --out again",
    );
    same(&bench, "one", "again");
    // and a generator is a model like any other
    let output = bench.run("inspect one/generator.fpi");
    assert!(output.status.success());
}

/// Kills a training at random moments and resumes it each time, until `wanted` kills have hit it under way: after a checkpoint of
/// its own and before its end. A run that ended before its kill is compared with a run that nobody touched, and another begins.
fn killed(training: &str, results: &[&str], wanted: usize) {
    let bench = bench();
    let started = Instant::now();
    well(&bench, &format!("{training} --out whole"));
    let longest = started.elapsed().as_millis() as u32 / 3;
    let checkpoint = bench.path("broken/checkpoint.bin");
    let mut rng = foolproof::attack::rng(7, 7);
    let (mut kills, mut runs) = (0, 0);
    while kills < wanted {
        runs += 1;
        assert!(runs <= 20 * wanted, "{kills} kills in {runs} runs");
        let before = fs::read(&checkpoint).ok();
        let mut child = Command::new(env!("CARGO_BIN_EXE_foolproof"))
            .args(format!("{training} --out broken --resume").split_whitespace())
            .current_dir(bench.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let delay = rand_core::Rng::next_u32(&mut rng) % longest.max(1);
        std::thread::sleep(Duration::from_millis(delay.into()));
        // SIGKILL on Unix: nothing can clean up
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            same_files(&bench, ["whole", "broken"], results);
            fs::remove_dir_all(bench.path("broken")).unwrap();
        } else {
            // a killed process has no exit code on Unix and 1 on Windows
            assert!(status.code().is_none_or(|code| code == 1), "{status}");
            kills += usize::from(fs::read(&checkpoint).ok() != before);
        }
    }
    eprintln!("{kills} of {runs} runs were killed under way");
    well(&bench, &format!("{training} --out broken --resume"));
    same_files(&bench, ["whole", "broken"], results);
}

#[test]
fn a_kill_at_any_moment_changes_nothing() {
    killed(TINY, &RESULTS, 3);
}

#[test]
fn a_kill_at_any_moment_changes_no_classifier() {
    killed(FAST, &FAST_RESULTS, 3);
}

#[test]
#[ignore = "takes a minute; CI runs three kills"]
fn twenty_kills_change_nothing() {
    killed(TINY, &RESULTS, 20);
    killed(FAST, &FAST_RESULTS, 20);
}

#[test]
fn a_classifiers_run_depends_on_its_seed_and_configuration_only() {
    let bench = bench();
    well(&bench, &format!("{FAST} --out one --threads 1"));
    well(
        &bench,
        "train classifier --data digits --config one/config.toml --out again --threads 3",
    );
    same_files(&bench, ["one", "again"], &FAST_RESULTS);
    let config = fs::read_to_string(bench.path("one/config.toml")).unwrap();
    for key in ["method = \"fast\"", "random_start = true", "batch = 32"] {
        assert!(config.contains(key), "{key} in {config}");
    }
    let log = fs::read_to_string(bench.path("one/log.csv")).unwrap();
    let head = "step,epoch,loss,accuracy,held_out_clean,held_out_fgsm,held_out_pgd\r\n";
    assert!(log.starts_with(head) && log.lines().count() == 5, "{log}");
    // another run's checkpoint is refused, and so are settings that make no sense
    let refuse = |line: &str, word: &str| {
        let output = bench.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(word), "{line}: {stderr}");
    };
    refuse(
        &format!("{FAST} --out one --resume --seed 9"),
        "another configuration",
    );
    for (setting, word) in [
        ("learning_rate = 1e30", "diverged"),
        ("held_out = 1500", "held out"),
        ("ema = 1.0", "ema"),
        ("shift = 8", "shift 8"),
        ("method = \"fast\"\n[adversary]\nepsilon = 1e9", "epsilon"),
        ("patience = 3", "held_out"),
        ("[adversary]\nepsilon = -0.1", "epsilon"),
        ("[adversary]\nsteps = 0", "steps"),
        ("[adversary]\nramp = 1.5", "ramp"),
        ("[adversary]\ntargeted = true", "targeted"),
        (
            "method = \"trades\"\n[adversary]\nrandom_start = false",
            "random_start",
        ),
        ("network = \"lenet\"", "lenet"),
    ] {
        fs::write(bench.path("odd.toml"), setting).unwrap();
        refuse(
            "train classifier --data digits --config odd.toml --out o",
            word,
        );
    }
}

#[test]
fn the_average_of_the_parameters_is_judged_and_given_back() {
    let bench = bench();
    // an average that hardly leaves the first weights, of parameters that learn
    for (name, ema) in [("slow", "0.999999"), ("last", "0.0")] {
        let config = format!("epochs = 4\nheld_out = 200\nema = {ema}\n");
        fs::write(bench.path("ema.toml"), config).unwrap();
        let line = "train classifier --data digits --config ema.toml --out";
        well(&bench, &format!("{line} {name}"));
    }
    assert_eq!(
        column(&bench, "slow", "loss"),
        column(&bench, "last", "loss")
    );
    for held_out in [true, false] {
        let [slow, last] = ["slow", "last"].map(|folder| match held_out {
            true => *column(&bench, folder, "held_out_clean").last().unwrap(),
            false => metric(&bench, folder, "test_accuracy"),
        });
        assert!(slow < 0.4 && last > 0.8, "{slow} {last}");
    }
}

#[test]
fn a_network_that_learned_one_step_only_is_called_so() {
    let bench = bench();
    // FGSM training as Wong et al. 2020 warn of: the whole radius in one step, always from the sample itself
    let config = "epochs = 12\nmethod = \"fast\"\nheld_out = 200\non_overfitting = \"stop\"\n[adversary]\nepsilon = 0.3\nstep = 0.3\nrandom_start = false\n";
    fs::write(bench.path("fgsm.toml"), config).unwrap();
    let output = bench.run("train classifier --data digits --config fgsm.toml --out fgsm --json");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("catastrophic overfitting"), "{stderr}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let warnings = document["warnings"].to_string();
    assert!(warnings.contains("catastrophic overfitting"), "{warnings}");
}

/// The metrics of a run's train.json.
#[test]
fn a_folder_keeps_its_run_until_another_one_begins() {
    let bench = bench();
    well(&bench, &format!("{TINY} --out run"));
    let kept = ["checkpoint.bin", "config.toml", "generator.fpi"];
    let before = kept.map(|name| fs::read(bench.path("run").join(name)).unwrap());
    fs::write(bench.path("large.toml"), "batch = 2048\nshard = 2048\n").unwrap();
    fs::write(bench.path("never.toml"), "discriminator_steps = 100000\n").unwrap();
    for refused in ["large.toml", "never.toml"] {
        let line = format!("train gan --data digits --config {refused} --out run");
        assert_eq!(bench.run(&line).status.code(), Some(2), "{refused}");
        let after = kept.map(|name| fs::read(bench.path("run").join(name)).unwrap());
        assert!(after == before, "{refused}");
    }
    // fewer pictures than before, and pictures of another size
    for line in [
        format!("{TINY} --epochs 2"),
        "train gan --data grid25 --epochs 1".into(),
    ] {
        well(&bench, &format!("{line} --out run"));
        well(&bench, &format!("{line} --out fresh"));
        same(&bench, "run", "fresh");
    }
}

#[test]
fn a_run_is_judged_by_one_measure() {
    let bench = bench();
    well(&bench, &format!("{FAST} --out judge"));
    let line = format!("{TINY} --out run --features judge/model.fpi");
    well(&bench, &format!("{line} --judge-every 6"));
    let output = bench.run(&format!("{line} --judge-every 3 --resume"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("another configuration"), "{stderr}");
}

fn metric(bench: &Bench, folder: &str, name: &str) -> f64 {
    let text = fs::read_to_string(bench.path(folder).join("train.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let value = &document["train"]["metrics"][name];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// How much of digits:test a model gets right after PGD with 20 steps in the ball of 0.15.
fn after_pgd(bench: &Bench, model: &str) -> f64 {
    let line = format!(
        "evaluate {model} --data digits:test --eps 0.15 --suite pgd --steps 20 --control-queries 0 --nearest 0 --json"
    );
    let output = bench.run(&line);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {stderr}");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    document["attacks"][0]["robust_accuracy"]
        .as_f64()
        .unwrap_or_else(|| panic!("no robust accuracy in {document}"))
}

#[test]
fn every_adversary_makes_the_network_robust_in_int8_too() {
    let bench = bench();
    fs::write(bench.path("standard.toml"), "epochs = 12\n").unwrap();
    well(
        &bench,
        "train classifier --data digits --config standard.toml --out standard",
    );
    let weak = after_pgd(&bench, "standard/model.fpi");
    let ways = [
        ("fast", "method = \"fast\"", "step = 0.15"),
        (
            "aware",
            "method = \"fast\"\nquantization_aware = true",
            "step = 0.15",
        ),
        ("pgd", "method = \"pgd\"", "steps = 3\nstep = 0.075"),
        (
            "targeted",
            "method = \"pgd\"",
            "steps = 3\nstep = 0.075\ntargeted = true",
        ),
        ("trades", "method = \"trades\"", "steps = 3\nstep = 0.075"),
        ("free", "method = \"free\"", "step = 0.15\nreplays = 3"),
    ];
    for (name, method, adversary) in ways {
        let epochs = if name == "free" { 4 } else { 12 };
        let config = format!(
            "epochs = {epochs}\nheld_out = 100\n{method}\n[adversary]\nepsilon = 0.15\n{adversary}\n"
        );
        fs::write(bench.path("way.toml"), config).unwrap();
        well(
            &bench,
            &format!("train classifier --data digits --config way.toml --out {name}"),
        );
        let clean = metric(&bench, name, "test_accuracy");
        let strong = after_pgd(&bench, &format!("{name}/model.fpi"));
        let int8 = after_pgd(&bench, &format!("{name}/model_int8.fpi"));
        eprintln!("{name}: clean {clean}, PGD {strong} (standard {weak}), int8 {int8}");
        assert!(clean > 0.9, "{name}: {clean}");
        assert!(strong > weak + 0.2, "{name}: {strong}, standard {weak}");
        assert!(int8 > weak + 0.2, "{name}: int8 {int8}, standard {weak}");
    }
}

#[test]
fn a_universal_perturbation_is_trained_against() {
    let bench = bench();
    let config = "epochs = 12\nheld_out = 200\nmethod = \"universal\"\n[adversary]\nepsilon = 0.15\nstep = 0.003\n";
    fs::write(bench.path("universal.toml"), config).unwrap();
    let line = "train classifier --data digits --config universal.toml --checkpoint 0";
    well(&bench, &format!("{line} --out one --threads 1"));
    let right = column(&bench, "one", "held_out_universal");
    eprintln!("with the perturbation: {right:?}");
    assert_eq!(right.len(), 12);
    assert!(right[11] > 0.88 && right[11] > right[0], "{right:?}");
    killed_once(&bench, &format!("{line} --out broken --threads 2"));
    same_files(&bench, ["one", "broken"], &FAST_RESULTS);
}

#[test]
fn a_kill_changes_neither_grids_nor_perturbations() {
    let bench = bench();
    let config =
        "epochs = 3\nheld_out = 100\nmethod = \"free\"\nquantization_aware = true\npatience = 2\n";
    fs::write(bench.path("free.toml"), config).unwrap();
    let line = "train classifier --data digits --config free.toml --checkpoint 0";
    well(&bench, &format!("{line} --out one --threads 1"));
    assert_eq!(column(&bench, "one", "epoch"), [1.0, 2.0, 3.0]);
    killed_once(&bench, &format!("{line} --out broken --threads 2"));
    same_files(&bench, ["one", "broken"], &FAST_RESULTS);
}

#[test]
fn training_stops_early_and_stays_stopped() {
    let bench = bench();
    // a generator that does not learn is never better than after its first epoch
    let config =
        "hidden = [4]\nbatch = 32\nshard = 32\ngenerator_rate = 1e-12\nema = 0.0\npatience = 1\n";
    fs::write(bench.path("still.toml"), config).unwrap();
    let line = "train gan --data grid25 --config still.toml --epochs 9 --out still";
    let seen = |line: &str| {
        let output = bench.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {stderr}");
        assert!(stderr.contains("the one after epoch 1"), "{stderr}");
        RESULTS.map(|name| fs::read(bench.path("still").join(name)).unwrap())
    };
    let first = seen(line);
    let log = fs::read_to_string(bench.path("still/log.csv")).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");
    assert!(first == seen(&format!("{line} --resume")), "a file differs");
}

#[test]
fn what_cannot_be_resumed_or_trained_says_so() {
    let bench = bench();
    well(&bench, &format!("{TINY} --out run"));
    let refuse = |line: &str, word: &str| {
        let output = bench.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(word), "{line}: {stderr}");
    };
    refuse(
        &format!("{TINY} --out run --resume --seed 9"),
        "another configuration",
    );
    fs::write(bench.path("wild.toml"), "generator_rate = 1e30\n").unwrap();
    refuse(
        "train gan --data digits --config wild.toml --out o",
        "generator_rate",
    );
    fs::write(
        bench.path("wild.toml"),
        "discriminator_rate = 900\nhidden = [64, 64, 64, 64, 64, 64, 64, 64, 64, 64]\nobjective = \"least-squares\"\n",
    )
    .unwrap();
    refuse(
        "train gan --data digits --config wild.toml --out o",
        "diverged",
    );
    fs::write(bench.path("odd.toml"), "batch = 50\n").unwrap();
    refuse(
        "train gan --data digits --config odd.toml --out o",
        "multiple of the shard",
    );
    fs::write(bench.path("odd.toml"), "patience = 3\n").unwrap();
    refuse(
        "train gan --data digits --config odd.toml --out o",
        "--judge-every",
    );
    fs::write(bench.path("odd.toml"), "colour = 1\n").unwrap();
    refuse(
        "train gan --data digits --config odd.toml --out o",
        "colour",
    );
    fs::write(bench.path("odd.toml"), "network = \"dcgan\"\n").unwrap();
    refuse(
        "train gan --data grid25 --config odd.toml --out o",
        "sides that 4 divides",
    );
}

#[test]
#[ignore = "a minute of two cores"]
fn the_defaults_cover_the_grid_of_25() {
    let bench = bench();
    well(&bench, "train gan --data grid25 --out grid");
    let last = |name: &str| *column(&bench, "grid", name).last().unwrap();
    let (modes, quality, js) = (last("modes"), last("high_quality"), last("js"));
    assert!(
        modes >= 24.0 && quality >= 0.8 && js < 0.1,
        "{modes} {quality} {js}"
    );
}

/// The column of this name in a run's log.csv.
fn column(bench: &Bench, folder: &str, name: &str) -> Vec<f64> {
    let log = fs::read_to_string(bench.path(folder).join("log.csv")).unwrap();
    let mut lines = log.lines();
    let head = lines.next().unwrap().split(',').position(|n| n == name);
    let at = head.unwrap_or_else(|| panic!("no {name} in {log}"));
    let cell = |line: &str| line.split(',').nth(at).unwrap().parse().unwrap();
    lines.map(cell).collect()
}

/// Runs a training, kills it after a while, and goes on to its end.
fn killed_once(bench: &Bench, line: &str) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_foolproof"))
        .args(line.split_whitespace())
        .current_dir(bench.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // killed between its first checkpoint and its end, whatever the machine's speed
    let folder = line.split_whitespace().skip_while(|w| *w != "--out").nth(1);
    let checkpoint = bench.path(folder.unwrap()).join("checkpoint.bin");
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "{line} was over too soon");
    well(bench, &format!("{line} --resume"));
}

#[test]
fn an_autoencoder_learns_and_its_decoder_is_a_generator() {
    let bench = bench();
    let config = "epochs = 12\nhidden = [32]\nlatent = 4\nshard = 16\n";
    fs::write(bench.path("vae.toml"), config).unwrap();
    let line = "train vae --data digits --config vae.toml --checkpoint 0";
    well(&bench, &format!("{line} --out one --threads 1"));
    well(&bench, &format!("{line} --out three --threads 3"));
    let names = [
        "encoder.fpi",
        "decoder.fpi",
        "log.csv",
        "samples.gif",
        "reconstructions.png",
    ];
    same_files(&bench, ["one", "three"], &names);
    killed_once(&bench, &format!("{line} --out broken"));
    same_files(&bench, ["one", "broken"], &names);
    for name in ["loss", "test_loss"] {
        let losses = column(&bench, "one", name);
        assert_eq!(losses.len(), 12);
        assert!(losses[11] < 0.8 * losses[0], "{name}: {losses:?}");
    }
    // a GAN of that form begins with it
    let gan = "epochs = 1\nhidden = [32]\nlatent = 4\nshard = 16\n";
    fs::write(bench.path("gan.toml"), gan).unwrap();
    well(
        &bench,
        "train gan --data digits --config gan.toml --start one/decoder.fpi --out gan",
    );
    let refuse = |config: &str, word: &str| {
        fs::write(bench.path("odd.toml"), config).unwrap();
        let output = bench.run("train vae --data digits --config odd.toml --out odd");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{config}: {stderr}");
        assert!(stderr.contains(word), "{config}: {stderr}");
    };
    refuse("beta = -1.0\n", "beta -1");
    refuse("batch = 50\n", "multiple of the shard");
    refuse("colour = 1\n", "colour");
}

#[test]
fn an_adversarial_generator_fools_inside_of_the_ball() {
    let bench = bench();
    bench.train();
    let config = "epochs = 6\nkappa = 5.0\nshard = 16\nrealism = 0.1\n";
    fs::write(bench.path("adv.toml"), config).unwrap();
    let line = "train advgan --target trained/model.fpi --data digits --eps 0.3 --config adv.toml --checkpoint 0";
    well(&bench, &format!("{line} --out one --threads 1"));
    well(&bench, &format!("{line} --out three --threads 3"));
    let names = ["generator.fpi", "log.csv", "gallery.png"];
    same_files(&bench, ["one", "three"], &names);
    killed_once(&bench, &format!("{line} --out broken"));
    same_files(&bench, ["one", "broken"], &names);
    let document = fs::read_to_string(bench.path("one/train.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let metric = |name: &str| document["train"]["metrics"][name].as_f64().unwrap();
    assert_eq!(metric("outside_ball_or_box"), 0.0);
    assert!(metric("test_success") > 0.6, "{document}");
    assert!(metric("test_robust_accuracy") < 0.4, "{document}");
    let refuse = |line: &str, word: &str| {
        let output = bench.run(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line}: {stderr}");
        assert!(stderr.contains(word), "{line}: {stderr}");
    };
    let start = "train advgan --target trained/model.fpi --data digits --out odd";
    refuse(&format!("{start} --class 10"), "10 classes");
    refuse(&format!("{start} --eps 0"), "--eps");
    let chip = "device advgan --target trained/model.fpi --data digits --eps 0.3";
    refuse(&format!("{chip} --model trained/model.fpi"), "10 numbers");
    refuse(
        &format!("{chip} --model one/generator.fpi --class 10"),
        "10 classes",
    );
}
