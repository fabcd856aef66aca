use super::*;

#[test]
fn the_page_holds_everything_and_loads_nothing() {
    let data = sample::data();
    let page = page(&data);
    for text in [
        "Fooled",
        "98.4\u{a0}% accurate on clean samples, 1.1\u{a0}% under PGD at eps 0.25.",
        "Both chips agree with the host bit for bit.",
        "mps2-an386",
        "412,345",
        "not cycles",
        "foolproof demo --seed 1",
        "&lt;slow&gt;",
        "What fooled it",
        "Training",
        "What was taken for what",
    ] {
        assert!(page.contains(text), "the page lacks {text:?}");
    }
    assert_eq!(
        page.matches("data:image/png;base64,").count(),
        3 * data.gallery.len()
    );
    for forbidden in [
        "http:", "https:", "<script", "@import", "url(", "<link", "NaN",
    ] {
        assert!(!page.contains(forbidden), "the page has {forbidden:?}");
    }
    if let Some(path) = std::env::var_os("FOOLPROOF_SAMPLE_REPORT") {
        std::fs::write(path, page).unwrap();
    }
}

#[test]
fn a_report_of_very_little_still_renders() {
    let mut data = sample::data();
    data.document.attacks.clear();
    data.document.device.clear();
    data.document.accuracy = None;
    data.gallery.clear();
    data.training.clear();
    data.confusion = None;
    let page = page(&data);
    assert!(page.contains("No accuracy was measured.") && !page.contains("On the chip"));
}

#[test]
fn the_verdict_follows_the_figures() {
    let mut document = sample::data().document;
    assert_eq!(outcome(&document), Outcome::Fooled);
    document.device.truncate(1);
    assert!(verdict(&document).ends_with("The chip agrees with the host bit for bit."));
    document.device[0].logit_mismatches = 3;
    assert!(verdict(&document).contains("DISAGREE on 3 of 1820"));
    document.device[0].logits_compared = 0;
    document.device[0].adversarial_compared = 0;
    assert!(verdict(&document).contains("Nothing was compared"));
    document.attacks.truncate(1);
    document.checks.clear();
    assert_eq!(outcome(&document), Outcome::Held);
    let mut doubtful = document.clone();
    doubtful.checks = sample::data().document.checks;
    assert_eq!(outcome(&doubtful), Outcome::Doubtful);
    let said = verdict(&doubtful);
    assert!(
        said.starts_with("Doubtful: ") && said.contains("a check speaks against"),
        "{said}"
    );
    let mut unasked = document.clone();
    unasked.attacks[0].success_rate = None;
    unasked.attacks[0].queries_mean = 0.0;
    assert_eq!(outcome(&unasked), Outcome::Untested);
    assert!(verdict(&unasked).contains("was allowed to ask nothing"));
    document.attacks[0].robust_accuracy = 0.6;
    document.attacks[0].success_rate = Some(0.4);
    assert_eq!(outcome(&document), Outcome::Weakened);
    // a model that is mostly wrong, and never fooled where it was right
    document.accuracy.as_mut().unwrap().clean = 0.1;
    document.attacks[0].robust_accuracy = 0.1;
    document.attacks[0].success_rate = Some(0.0);
    assert_eq!(outcome(&document), Outcome::Held);
    document.attacks[0].success_rate = None;
    assert_eq!(outcome(&document), Outcome::NothingToFool);
    assert!(verdict(&document).starts_with("Nothing to fool: "));
    document.attacks[0].numerics = "f32".into();
    assert_eq!(
        outcome(&document),
        Outcome::Untested,
        "the float model's figures are not the int8 model's"
    );
}

#[test]
fn the_terminal_shows_the_same_figures() {
    let text = terminal::render(&sample::data().document);
    for part in [
        "Fooled: 98.4",
        "pgd",
        "mps2-an386",
        "412,345",
        "outputs differ",
        "attacks differ",
        "0 of 1,092",
        "0 of 728",
        "warning: microbit",
    ] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
}
