//! The machine: what it is, its command line, its life, its control socket, its serial console.
