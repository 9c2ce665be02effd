//! What is booted: a disk file, and kernel, initrd and command line where it is booted directly. Every provider returns
//! the same [`Image`]; nothing afterwards asks where it came from. How it is booted is not known here.

mod build;
mod digest;
mod manifest;
mod nix;
mod path;
mod reference;
mod source;

pub use build::BuildError;
pub use digest::{DigestError, FileDigest, bytes_on_disk, digest};
pub use manifest::{Boot, DiskFormat, FILE_NAME as MANIFEST, Image, ManifestError, Provider};
pub use nix::{Meaning, NixError};
pub use path::PathError;
pub use source::{ImageError, Sources, at, provide};
