//! What the run itself knows: the built-in variables of scenarios, and those of the guest that was booted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::guests::is_of_guest;
use super::model::BUILT_INS;

/// A fact that is looked up when it is asked for.
type Live = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// The variables and their values so far.
#[derive(Default)]
pub struct Facts {
    known: Mutex<BTreeMap<String, String>>,
    live: Mutex<BTreeMap<String, Live>>,
    /// What holds unless it is known otherwise here.
    below: Option<Arc<Facts>>,
}

impl Facts {
    /// Facts of one machine of many: what is not set here is looked up in `below`.
    pub fn above(below: &Arc<Self>) -> Self {
        Self { below: Some(Arc::clone(below)), ..Self::default() }
    }

    /// Sets a fact.
    ///
    /// # Panics
    /// For a name that is not in [`BUILT_INS`], and does not differ between guests.
    pub fn set(&self, name: &str, value: impl ToString) {
        assert_known(name);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.to_string());
    }

    /// Sets a fact that is looked up anew whenever it is asked for.
    ///
    /// # Panics
    /// As [`Facts::set`].
    pub fn set_live(&self, name: &str, look: impl Fn() -> Result<String, String> + Send + Sync + 'static) {
        assert_known(name);
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Box::new(look));
    }

    /// Whether there is such a fact in this run by now, and a way to look it up if it changes.
    #[must_use]
    pub fn is_known(&self, name: &str) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
            || self.known.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
            || self.below.as_ref().is_some_and(|below| below.is_known(name))
    }

    /// One fact's value now.
    ///
    /// # Errors
    /// If it is not known (yet) or cannot be looked up.
    pub fn get(&self, name: &str) -> Result<String, String> {
        if let Some(look) = self.live.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return look();
        }
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        match (known, &self.below) {
            (Some(value), _) => Ok(value),
            (None, Some(below)) => below.get(name),
            (None, None) => Err(format!("`{name}` is not known in this run")),
        }
    }
}

/// Whether a variable is a fact of the run.
pub fn is_fact(name: &str) -> bool {
    is_of_guest(name) || BUILT_INS.iter().any(|(known, ..)| *known == name)
}

fn assert_known(name: &str) {
    assert!(is_fact(name), "`{name}` is not a variable of the run");
}
