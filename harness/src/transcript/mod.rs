//! The signed record of a session. Knows neither machines nor scenario files, so that a verifier needs no QEMU.
