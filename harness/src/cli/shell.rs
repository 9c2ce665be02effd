//! `hermetic shell`: boots the image and opens a shell in it.

/// Boots, enters, and ends the machine when the shell ends.
pub fn main() -> anyhow::Result<()> {
    crate::session::shell()
}
