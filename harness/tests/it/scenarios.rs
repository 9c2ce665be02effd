//! The project's own scenarios, as `hermetic sabotage` will find them.

use camino::Utf8Path;
use rave_hermetic::scenario::file;

/// A step nobody ever saw fail may be one that cannot. `hermetic sabotage` looks whether what is declared comes true; that takes a machine and hours.
#[test]
fn every_step_is_broken_by_a_sabotage_or_says_why_it_cannot_be() {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the harness lies in the project");
    let scenarios = file::read(&root.join("scenarios")).unwrap().scenarios;
    let unbroken: Vec<String> = scenarios
        .iter()
        .flat_map(|scenario| {
            let named = |name: &str| scenario.sabotages.iter().any(|sabotage| sabotage.names(name));
            let steps = scenario.steps.iter().filter(move |step| step.unbreakable.is_none() && !named(&step.name));
            steps.map(|step| format!("{}: {}", scenario.name, step.name))
        })
        .collect();
    assert!(unbroken.is_empty(), "no sabotage names:\n{}", unbroken.join("\n"));
    assert!(scenarios.len() > 70, "{} scenarios", scenarios.len());
}
