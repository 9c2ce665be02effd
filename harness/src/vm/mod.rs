//! The machine: what it is, whether it can be accelerated, how it is started, watched, and ended.
//!
//! Modules in reading order: the programs it needs ([`qemu`]), what accelerates it ([`accel`]), what it is and its command line as plain
//! data ([`machine`]), what is handed to the guest at boot ([`credentials`]), where it answers ([`address`]), the folder that lives and dies
//! with it ([`runtime`]), the process ([`process`]), its control socket ([`qmp`]), its serial console ([`console`]), the running
//! machine itself ([`boot`]), what is saved of it and its copies ([`fork`]), what makes a good machine of a copy ([`wake`]), and what is
//! seen of it from outside when its guest is in trouble ([`outside`]).
//!
//! The public way is short: [`Qemu::find`], [`accel::probe`], [`Plan::new`], [`Vm::start`], [`Vm::wait_ready`], [`Vm::shutdown`]; and
//! for copies [`fork::save`], [`fork::fork`], [`Vm::wake`].

pub mod qemu;

pub mod accel;

pub mod machine;

pub mod credentials;

pub mod address;

pub mod runtime;

pub mod process;

pub mod qmp;

pub mod console;

pub mod boot;

pub mod fork;

pub mod wake;

pub mod outside;

pub use accel::{Accelerator, Requested};
pub use boot::{BootFailure, Diagnosis, Ending, Interrupt, Life, Loss, Plan, Ready, ReadyState, Vm, VmError};
pub use fork::{Method, Parts, SaveError, Saved};
pub use machine::{Boot, Disk, DiskFormat, Machine};
pub use outside::Outside;
pub use qemu::{Qemu, QemuError};
pub use wake::{Awake, WakeError};
