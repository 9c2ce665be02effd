//! `hermetic shell`: boots the image, opens a shell in it, and ends the machine when the shell has ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::forks;
use super::run::watch_signals;
use super::shared::{Preparation, Shared};
use crate::interrupt::Interrupt;
use crate::scenario::accounts::Accounts;
use crate::scenario::file::Beside;
use crate::scenario::model::Requires;
use crate::settings::Settings;
use crate::transcript::store;
use crate::vm::Qemu;

/// Enters a failed machine that `RAVE_KEEP_VM=1` kept, at the moment of the failure: `<session>/<scenario>`.
///
/// # Errors
/// If it was not kept, does not go on, or `ssh` cannot be run.
pub fn resume(name: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(runtime.handle(), interrupt)?;
    let settings = Settings::from_environment()?;
    let (session, scenario) = name.split_once('/').context("name it as <session>/<scenario>")?;
    // Nobody throws it away meanwhile.
    let _held = store::hold(&settings.artifacts.join(session));
    let folder = settings.artifacts.join(session).join(scenario.replace("::", "/")).join("machine");
    let (vm, mut way) = forks::resume(&folder, &Qemu::find()?, runtime.handle())?;
    eprintln!("its clock stands where it stood; what is changed here is gone afterwards");
    let status = way.ssh.status().context("could not run ssh");
    vm.shutdown(Duration::ZERO);
    status.map(drop)
}

/// Boots and enters.
///
/// # Errors
/// If the machine does not come up or `ssh` cannot be run.
pub fn shell() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let interrupt = Arc::new(Interrupt::default());
    watch_signals(runtime.handle(), Arc::clone(&interrupt))?;
    let settings = Settings::from_environment()?;
    let beside = Beside { accounts: Accounts::read(&settings.scenarios)?, ..Beside::default() };
    let preparation = Preparation::check(settings, Requires::Machine)?;
    let shared = Shared::new(preparation, runtime.handle().clone(), interrupt, &[], beside);
    let booted = shared.machine().map_err(|failure| anyhow::anyhow!(failure.short()))?;
    let status = booted.way_in().and_then(|mut way| way.ssh.status()).context("could not run ssh");
    booted.end();
    eprintln!("artifacts: {}", shared.place().folder);
    status.map(drop)
}
