//! An image that is already there: a disk file, or a folder with an `image.json`.

use std::fs::File;
use std::io::{self, Read as _};
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;

use super::manifest::{Boot, DiskFormat, Image, Provider};
use super::source::ImageError;

/// Why a path is not an image.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// It cannot be read.
    #[error("could not read the image `{path}`")]
    Read {
        /// The path.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// qemu-img could not be run.
    #[error("could not run qemu-img")]
    QemuImg {
        /// Why.
        source: io::Error,
    },
    /// It is not a disk image.
    #[error("`{path}` is not a disk image: {why}")]
    NotAnImage {
        /// The path.
        path: Utf8PathBuf,
        /// Why not.
        why: String,
    },
    /// It is one, but damaged.
    #[error("`{path}` is damaged: {why}")]
    Damaged {
        /// The path.
        path: Utf8PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Looks at a path: format, integrity, and that it can be booted.
///
/// # Errors
/// If it is not an image, is damaged, or is in a format other than qcow2 and raw.
pub fn provide(path: &Utf8Path, reason: &str) -> Result<Image, ImageError> {
    if path.is_dir() {
        let image = Image::in_folder(path, Provider::Path, reason)?;
        return match (&image.boot, image.format) {
            (Boot::Disk, _) => Ok(Image { format: inspect(&image.disk)?, ..image }),
            (Boot::Direct { .. }, DiskFormat::Qcow2) => inspect(&image.disk).map(|_| image).map_err(Into::into),
            // QEMU starts the kernel itself, so a raw disk needs no boot sector.
            (Boot::Direct { .. }, DiskFormat::Raw) => Ok(image),
        };
    }
    let format = inspect(path)?;
    Ok(Image {
        provider: Provider::Path,
        reason: reason.to_owned(),
        disk: path.to_owned(),
        format,
        boot: Boot::Disk,
        packages: None,
        built_seconds: None,
        store_path: None,
        nar_hash: None,
        derivation: None,
        nix_version: None,
    })
}

/// Finds out the format and refuses what cannot be booted.
///
/// # Errors
/// As [`provide`].
pub fn inspect(path: &Utf8Path) -> Result<DiskFormat, PathError> {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
    read.map_err(|source| PathError::Read { path: path.to_owned(), source })?;
    if start.starts_with(b"QFI\xfb") {
        // `cluster_bits` of the header, big-endian at byte 20 (QEMU's docs/interop/qcow2.txt); 9 to 21 are valid.
        let bits = start.get(20..24).and_then(|bytes| bytes.try_into().ok()).map_or(16, u32::from_be_bytes);
        check_qcow2(path, 1 << bits.clamp(9, 21))?;
        return Ok(DiskFormat::Qcow2);
    }
    let length = path.metadata().map_err(|source| PathError::Read { path: path.to_owned(), source })?.len();
    let not = |why: &str| Err(PathError::NotAnImage { path: path.to_owned(), why: why.to_owned() });
    if start.len() < 512 {
        not(&format!("it has {length} bytes, less than one sector"))
    } else if start[510..] != [0x55, 0xaa] {
        not("it is neither qcow2 nor a raw disk with a boot sector")
    } else if length % 512 != 0 {
        Err(PathError::Damaged {
            path: path.to_owned(),
            why: format!("its {length} bytes are not whole sectors; it may be truncated"),
        })
    } else {
        Ok(DiskFormat::Raw)
    }
}

/// What `qemu-img check` finds.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Check {
    #[serde(default)]
    corruptions: u64,
    #[serde(default)]
    check_errors: u64,
    image_end_offset: Option<u64>,
}

/// `qemu-img check` does not look at the file's own length, so a truncated file passes it unless its end is compared.
fn check_qcow2(path: &Utf8Path, cluster: u64) -> Result<(), PathError> {
    let output = Command::new("qemu-img")
        .args(["check", "--output=json", "-f", "qcow2", path.as_str()])
        .output()
        .map_err(|source| PathError::QemuImg { source })?;
    let damaged = |why: String| Err(PathError::Damaged { path: path.to_owned(), why });
    let Ok(check) = serde_json::from_slice::<Check>(&output.stdout) else {
        return damaged(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    };
    let length = path.metadata().map_err(|source| PathError::Read { path: path.to_owned(), source })?.len();
    // Leaks (exit status 3) cost space and nothing else.
    let wrong = check.corruptions + check.check_errors;
    match check.image_end_offset {
        // The last cluster need not have been written to its end.
        Some(end) if end >= length + cluster => {
            damaged(format!("its data ends at byte {end}, the file at {length}: it is truncated"))
        }
        _ if wrong > 0 => {
            damaged(format!("qemu-img check finds {wrong} errors; it may be truncated, or its copy was cut short"))
        }
        _ => Ok(()),
    }
}
