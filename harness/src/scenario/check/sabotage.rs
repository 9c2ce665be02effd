//! Checks what a file says about breaking what it asks.

use super::names::Names;
use super::values::duration;
use crate::scenario::document::{Document, Item, Table, nearest};
use crate::scenario::model::{BUILT_INS, Piece, SCRATCH, Sabotage, Template, Tree, pieces};

pub(super) const SABOTAGE_KEYS: &[&str] =
    &["name", "tree", "host", "run", "before", "set", "env", "fails", "errors", "within"];

/// The sabotages of a file whose steps are `steps`.
pub(super) fn sabotages(
    root: &Table<'_>,
    steps: &[Table<'_>],
    variables: &Names<'_>,
    document: &Document,
) -> Vec<Sabotage> {
    const WANTED: &str = "a list of tables, each below `[[sabotage]]`";
    let items = root.get("sabotage").and_then(|item| item.list(WANTED)).unwrap_or_default();
    let tables: Vec<_> = items.iter().filter_map(|item| item.table(WANTED)).collect();
    let mut names = Vec::new();
    for name in
        tables.iter().filter_map(|table| table.get("name")).filter_map(|item| Some((item, item.value.as_str()?)))
    {
        if names.contains(&name.1) {
            name.0.mistake(format!("there is a sabotage called `{}` already", name.1));
        }
        names.push(name.1);
    }
    let steps: Vec<_> = steps.iter().map(StepName::of).collect();
    let found: Vec<_> = tables.iter().filter_map(|table| sabotage(table, &steps, variables)).collect();
    let named = |name: &str| {
        found.iter().any(|sabotage| sabotage.fails.iter().chain(&sabotage.errors).any(|step| step == name))
    };
    for step in steps.iter().filter(|step| step.unbreakable && named(step.name)) {
        document.mistake(step.line, format!("`{}` is called unbreakable, and a sabotage names it", step.name));
    }
    found
}

/// What a sabotage has to know of a step.
struct StepName<'a> {
    name: &'a str,
    line: u64,
    unbreakable: bool,
}

impl<'a> StepName<'a> {
    fn of(table: &Table<'a>) -> Self {
        let name = table.get("name").and_then(|item| item.value.as_str()).unwrap_or_default();
        Self { name, line: table.line, unbreakable: table.get("unbreakable").is_some() }
    }
}

fn sabotage(table: &Table<'_>, known: &[StepName<'_>], variables: &Names<'_>) -> Option<Sabotage> {
    table.only(SABOTAGE_KEYS);
    let name = table.require("name", "the sabotage").and_then(|item| item.one_line());
    let tree = match table.get("tree").map(|item| (item, item.text())) {
        None => Some(Tree::Project),
        Some((_, Some("copy"))) => Some(Tree::Copy),
        Some((item, word)) => {
            item.mistake(format!("`tree` is \"copy\" or left out, not \"{}\"", word.unwrap_or_default()));
            None
        }
    };
    let before = table.get("before").map_or(Some(0), |item| step_named(&item, known));
    if let Some(item) = table.get("before").filter(|_| table.get("run").is_none()) {
        item.mistake("`before` says when `run` is carried out, and there is none");
    }
    let known_then = before.and_then(|before| known.get(before)).map(|step| variables.before(step.line));
    let host = table.get("host").map(|item| template(&item, &[]));
    let run = table.get("run").map(|item| template(&item, known_then.as_deref().unwrap_or_default()));
    let set = table.get("set").map(|item| pairs(&item)).unwrap_or_default();
    for item in table.get("set").and_then(|item| item.entries()).iter().flat_map(|table| &table.items) {
        let key = item.key;
        if !BUILT_INS.iter().any(|(name, ..)| *name == key) {
            item.mistake(format!("the run knows no `{key}`{}", nearest(key, BUILT_INS.iter().map(|(name, ..)| *name))));
        }
    }
    let env = table.get("env").map(|item| pairs(&item)).unwrap_or_default();
    if host.is_none() && run.is_none() && set.is_empty() && env.is_empty() {
        table.mistake("the sabotage breaks nothing: it needs one of `run`, `host`, `set`, `env`");
    }
    let steps = |key| table.get(key).map(|item| steps(&item, known, before.unwrap_or(0))).unwrap_or_default();
    let (fails, errors) = (steps("fails"), steps("errors"));
    if fails.is_empty() && errors.is_empty() {
        table.mistake("the sabotage does not say which step must notice: it needs `fails` or `errors`");
    }
    let within = table.get("within").map(|item| duration(&item));
    Some(Sabotage {
        name: name?.to_owned(),
        line: table.line,
        tree: tree?,
        host: host.map_or(Some(None), |host| host.map(Some))?,
        run: run.map_or(Some(None), |run| run.map(Some))?,
        before: before?,
        set,
        env,
        fails,
        errors,
        within: within.map_or(Some(None), |within| within.map(Some))?,
    })
}

/// The index of the step that is named.
fn step_named(item: &Item<'_>, known: &[StepName<'_>]) -> Option<usize> {
    let name = item.text()?;
    let index = known.iter().position(|step| step.name == name);
    if index.is_none() {
        item.mistake(format!("there is no step `{name}`{}", nearest(name, known.iter().map(|step| step.name))));
    }
    index
}

/// A list of names of steps, of those that are asked when the first `asked` of them have been.
fn steps(item: &Item<'_>, known: &[StepName<'_>], asked: usize) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for item in item.list("a list of names of steps").unwrap_or_default() {
        let Some(name) = item.text() else { continue };
        if step_named(&item, known).is_some_and(|index| index < asked) {
            item.mistake(format!("the step `{name}` has been asked by then"));
        }
        if steps.iter().any(|step| step == name) {
            item.mistake(format!("the step `{name}` is named twice"));
        }
        steps.push(name.to_owned());
    }
    steps
}

/// A text in which variables of the run may stand, the folder that is there for the sabotage, and `more`.
fn template(item: &Item<'_>, more: &[String]) -> Option<Template> {
    let text = item.some_text()?;
    for piece in pieces(text) {
        let Piece::Name(name) = piece else { continue };
        let known = || BUILT_INS.iter().map(|(name, ..)| *name).chain([SCRATCH]).chain(more.iter().map(String::as_str));
        if !known().any(|known| known == name) {
            item.mistake(format!("unknown variable `{{{{{name}}}}}`{}", nearest(name, known())));
        }
    }
    Some(Template(text.to_owned()))
}

fn pairs(item: &Item<'_>) -> Vec<(String, Template)> {
    let table = item.table("a table of texts");
    let items = table.iter().flat_map(|table| &table.items);
    items.filter_map(|item| Some((item.key.to_owned(), template(item, &[])?))).collect()
}
