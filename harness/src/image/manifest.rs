//! An image, and the `image.json` that describes one in a folder.

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

/// The file that makes a folder an image; a build writes it last.
pub const FILE_NAME: &str = "image.json";

/// Who made an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// `nix build`.
    Nix,
    /// The recipe in `guest/reference/`.
    Reference,
    /// It was there.
    Path,
}

impl Provider {
    /// The word in the transcript.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nix => "nix",
            Self::Reference => "reference",
            Self::Path => "path",
        }
    }
}

/// The format of a disk file, as QEMU names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// QEMU's copy-on-write format.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

impl DiskFormat {
    /// QEMU's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How an image is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// By the boot loader on its disk.
    Disk,
    /// By QEMU itself.
    Direct {
        /// The kernel.
        kernel: Utf8PathBuf,
        /// The initial RAM disk.
        initrd: Utf8PathBuf,
        /// The kernel's command line.
        command_line: String,
    },
}

/// What is booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Who made it.
    pub provider: Provider,
    /// Why that provider.
    pub reason: String,
    /// The disk file.
    pub disk: Utf8PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// How it is booted.
    pub boot: Boot,
    /// The list of what is installed in it, one package a line.
    pub packages: Option<Utf8PathBuf>,
    /// Seconds its build took, when it was built.
    pub built_seconds: Option<u64>,
    /// Nix store path.
    pub store_path: Option<String>,
    /// Nix's hash of that path's contents.
    pub nar_hash: Option<String>,
    /// Nix derivation.
    pub derivation: Option<String>,
    /// Version of Nix, where it took part.
    pub nix_version: Option<String>,
}

impl Image {
    /// Every file of the image with its role, disk first.
    pub fn files(&self) -> Vec<(&'static str, &Utf8Path)> {
        let mut files = vec![("disk", self.disk.as_path())];
        if let Boot::Direct { kernel, initrd, command_line: _ } = &self.boot {
            files.extend([("kernel", kernel.as_path()), ("initrd", initrd.as_path())]);
        }
        files.extend(self.packages.as_deref().map(|packages| ("packages", packages)));
        files
    }

    /// The folder of the disk file.
    pub fn folder(&self) -> &Utf8Path {
        self.disk.parent().unwrap_or(Utf8Path::new("."))
    }

    /// Reads the image that a folder's `image.json` describes.
    ///
    /// # Errors
    /// If there is none, it is not as it must be, or one of its files is missing.
    pub fn in_folder(folder: &Utf8Path, provider: Provider, reason: &str) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let text = fs::read_to_string(&path).map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        let written: Written =
            serde_json::from_str(&text).map_err(|source| ManifestError::Invalid { path: path.clone(), source })?;
        let Written {
            schema,
            name: _,
            version: _,
            disk,
            disk_format,
            kernel,
            initrd,
            cmdline,
            packages,
            built_seconds,
        } = written;
        if schema != 1 {
            return Err(ManifestError::Schema { path, found: schema });
        }
        let boot = match (kernel, initrd, cmdline) {
            (Some(kernel), Some(initrd), Some(command_line)) => {
                Boot::Direct { kernel: folder.join(kernel), initrd: folder.join(initrd), command_line }
            }
            (None, None, None) => Boot::Disk,
            _ => return Err(ManifestError::HalfDirect { path }),
        };
        let image = Self {
            provider,
            reason: reason.to_owned(),
            disk: folder.join(disk),
            format: disk_format,
            boot,
            packages: packages.map(|packages| folder.join(packages)),
            built_seconds,
            store_path: None,
            nar_hash: None,
            derivation: None,
            nix_version: None,
        };
        match image.files().into_iter().find(|(_, file)| !file.is_file()) {
            Some((role, file)) => Err(ManifestError::Missing { path, role, file: file.to_owned() }),
            None => Ok(image),
        }
    }
}

/// `image.json` as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    schema: u64,
    #[expect(dead_code, reason = "for people: the guest's own profile is what counts")]
    name: String,
    #[expect(dead_code, reason = "as above")]
    version: String,
    disk: String,
    disk_format: DiskFormat,
    kernel: Option<String>,
    initrd: Option<String>,
    cmdline: Option<String>,
    packages: Option<String>,
    built_seconds: Option<u64>,
}

/// Why a folder is not an image.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no readable `image.json`.
    #[error("could not read `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as it must be.
    #[error("`{path}` is not an image description")]
    Invalid {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("`{path}` has schema {found}, this program reads 1")]
    Schema {
        /// The file.
        path: Utf8PathBuf,
        /// Its version.
        found: u64,
    },
    /// Only some of kernel, initrd and command line are given.
    #[error("`{path}` names only some of kernel, initrd and cmdline; all three, or none")]
    HalfDirect {
        /// The file.
        path: Utf8PathBuf,
    },
    /// A file is missing.
    #[error("`{path}` names the {role} `{file}`, which is not there")]
    Missing {
        /// The description.
        path: Utf8PathBuf,
        /// What it is.
        role: &'static str,
        /// The missing file.
        file: Utf8PathBuf,
    },
}
