//! Why Nix gave no image, in a sentence; Nix's own last lines follow it.

use std::fmt;

use crate::image::build::BuildError;
use crate::image::source::ImageError;

/// Why Nix gave no image.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// There is no such program.
    #[error("there is no `nix` program; RAVE_IMAGE names another image, or `auto` takes the reference guest")]
    Absent,
    /// A program of that name, and not Nix.
    #[error("the program `nix` is not Nix: `nix --version` says `{said}`")]
    NotNix {
        /// Its answer.
        said: String,
    },
    /// It does not know flakes.
    #[error("`{said}` knows no flakes; 2.4 or later is needed")]
    TooOld {
        /// Its version, as it says it.
        said: String,
    },
    /// It ended without success.
    #[error("`nix build {installable}`: {meaning}")]
    Failed {
        /// What was to be built.
        installable: String,
        /// What that means.
        meaning: Meaning,
        /// How it ended, and its last lines.
        source: BuildError,
    },
    /// It built something else.
    #[error("`nix build {installable}` gave no image: {why}")]
    Output {
        /// What was built.
        installable: String,
        /// What is wrong with it.
        why: String,
    },
}

impl NixError {
    /// A failed or overlong `nix`, with what it means.
    pub fn failed(installable: &str, source: BuildError) -> ImageError {
        let meaning = match &source {
            BuildError::Failed { tail, .. } => Meaning::of(tail),
            BuildError::TooLong { .. } => Meaning::TooLong,
            BuildError::Interrupted { .. } | BuildError::Start { .. } | BuildError::Log { .. } => return source.into(),
        };
        Self::Failed { installable: installable.to_owned(), meaning, source }.into()
    }
}

/// What a failure of `nix build` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The command itself was refused.
    NoFlakes,
    /// Where the installable points, there is no flake.
    NoFlake,
    /// The flake has no such output.
    NoAttribute,
    /// `flake.nix` was changed after `flake.lock`.
    Lock,
    /// Something had to be downloaded.
    NoNetwork,
    /// Nix was installed, and its set-up was not finished.
    NoBuildUsers,
    /// A builder is asked for that is not there.
    NoBuilder,
    /// The disk is full.
    NoSpace,
    /// A builder failed.
    Build,
    /// The expressions are wrong.
    Evaluation,
    /// It did not end.
    TooLong,
}

/// Nix's words, and what they mean; the first line that has one of them counts.
const WORDS: &[(&str, Meaning)] = &[
    ("experimental Nix feature", Meaning::NoFlakes),
    ("unrecognised flag", Meaning::NoFlakes),
    ("is not a recognised command", Meaning::NoFlakes),
    ("unknown experimental feature", Meaning::NoFlakes),
    ("could not find a flake.nix", Meaning::NoFlake),
    ("does not contain a 'flake.nix'", Meaning::NoFlake),
    ("does not contain a '/flake.nix'", Meaning::NoFlake),
    ("is not part of a flake", Meaning::NoFlake),
    ("does not provide attribute", Meaning::NoAttribute),
    ("requires lock file changes", Meaning::Lock),
    ("No space left on device", Meaning::NoSpace),
    ("build-users-group", Meaning::NoBuildUsers),
    ("is required to build", Meaning::NoBuilder),
    ("required system or feature not available", Meaning::NoBuilder),
    ("builder for '", Meaning::Build),
    ("builder failed with", Meaning::Build),
    ("Cannot build '", Meaning::Build),
    ("dependencies of derivation", Meaning::Build),
    ("unable to download", Meaning::NoNetwork),
    ("resolve host", Meaning::NoNetwork),
    ("cannot connect to", Meaning::NoNetwork),
];

impl Meaning {
    /// What Nix's last lines mean. Its warnings are not why it failed.
    pub fn of(tail: &str) -> Self {
        let lines: Vec<&str> = tail.lines().filter(|line| !line.trim_start().starts_with("warning:")).collect();
        let found = WORDS.iter().find(|(words, _)| lines.iter().any(|line| line.contains(words)));
        found.map_or(Self::Evaluation, |(_, meaning)| *meaning)
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFlakes => "this Nix does not take flakes",
            Self::NoFlake => "there is no flake there (in a git tree only files that git knows count)",
            Self::NoAttribute => "the flake does not provide it",
            Self::Lock => "flake.lock is not in step with flake.nix; `nix flake lock` writes it anew",
            Self::NoNetwork => "something had to be downloaded and could not be",
            Self::NoBuildUsers => {
                "Nix's build users were never made; as root, set `build-users-group =` in nix.conf, or make them"
            }
            Self::NoBuilder => "neither this machine nor a remote builder has what the build asks for (KVM, mostly)",
            Self::NoSpace => "the disk is full",
            Self::Build => "a build failed",
            Self::Evaluation => "Nix could not evaluate it",
            Self::TooLong => "it did not end in time",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meanings_of_what_nix_says() {
        let check = |tail: &str, expected: Meaning| assert_eq!(Meaning::of(tail), expected, "{tail}");
        check("error: experimental Nix feature 'nix-command' is disabled", Meaning::NoFlakes);
        check("error: unrecognised flag '--extra-experimental-features'", Meaning::NoFlakes);
        check("error: could not find a flake.nix file", Meaning::NoFlake);
        check("error: path '/x' is not part of a flake (neither it nor its parent directories …)", Meaning::NoFlake);
        check(
            "error: flake 'path:/x' does not provide attribute 'packages.x86_64-linux.p6-image', 'p6-image'",
            Meaning::NoAttribute,
        );
        check(
            "error: cannot write lock file of flake 'path:/x' requires lock file changes but they're not allowed",
            Meaning::Lock,
        );
        check("error: the group 'nixbld' specified in 'build-users-group' does not exist", Meaning::NoBuildUsers);
        check(
            "error: a 'x86_64-linux' with features {kvm} is required to build '/n/a.drv', but I am …",
            Meaning::NoBuilder,
        );
        check("image> no such luck\nerror: builder for '/n/a.drv' failed with exit code 3", Meaning::Build);
        check("error: Cannot build '/n/a.drv'.\n       Reason: builder failed with exit code 3.", Meaning::Build);
        check("error: unable to download 'https://x': Couldn't resolve host name (6)", Meaning::NoNetwork);
        check("error: writing to file: No space left on device\nerror: builder for 'x' failed", Meaning::NoSpace);
        check("error: undefined variable 'pkgs'", Meaning::Evaluation);
        check("", Meaning::Evaluation);
        // A cache that cannot be reached is a warning; the build goes on without it.
        check(
            "warning: unable to download 'https://cache': resolve host\nerror: builder for 'x' failed",
            Meaning::Build,
        );
        check("warning: the group 'nixbld' specified in 'build-users-group'\nerror: syntax error", Meaning::Evaluation);
    }
}
