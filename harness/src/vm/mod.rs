//! The machine: what it is, whether it can be accelerated, how it is started, watched, and ended.
//!
//! Modules in reading order: the programs it needs ([`qemu`]), what accelerates it ([`accel`]), what it is and its command line as plain
//! data ([`machine`]), what is handed to the guest at boot ([`credentials`]), where it answers ([`address`]), the folder that lives and dies
//! with it ([`runtime`]), the process ([`process`]), its control socket ([`qmp`]), its serial console ([`console`]), and the running
//! machine itself ([`boot`]).
//!
//! The public way is short: [`Qemu::find`], [`accel::probe`], [`Plan::new`], [`Vm::start`], [`Vm::wait_ready`], [`Vm::shutdown`].

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

pub use accel::{Accelerator, Requested};
pub use boot::{BootFailure, Diagnosis, Ending, Interrupt, Life, Loss, Plan, Ready, ReadyState, Vm, VmError};
pub use machine::{Boot, Disk, DiskFormat, Machine};
pub use qemu::{Qemu, QemuError};
