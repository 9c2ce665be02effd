//! What is booted: a disk file, and kernel, initrd and command line where it is booted directly.
