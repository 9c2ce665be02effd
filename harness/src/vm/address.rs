//! A loopback address of the machine's own. Every machine keeps the guest's port 3002 as 3002, and many run side by side.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// How many addresses are tried before giving up.
const TRIES: usize = 32;

/// A random address of 127.64.0.0/10 on which all `ports` are free at this moment. QEMU may still lose the race for it and say so; then
/// take another.
///
/// # Errors
/// The last refusal, if no address would do.
pub fn free(ports: &[u16]) -> io::Result<Ipv4Addr> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let address = random();
        match check_free(address, ports) {
            Ok(()) => return Ok(address),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Whether all `ports` are free on `address`, found out by taking them for a moment.
///
/// # Errors
/// What the system said to the first port that is not.
pub fn check_free(address: Ipv4Addr, ports: &[u16]) -> io::Result<()> {
    ports.iter().try_for_each(|port| TcpListener::bind((address, *port)).map(drop))
}

/// A port that is free on `address` at this moment.
///
/// # Errors
/// What the system said.
pub fn free_port(address: Ipv4Addr) -> io::Result<u16> {
    TcpListener::bind((address, 0))?
        .local_addr()
        .as_ref()
        .map(SocketAddr::port)
        .map_err(|_| io::ErrorKind::Other.into())
}

/// Somewhere in 127.64.0.0/10, never ending in 0 or 255. The standard library's hash keys are random; that is random enough.
fn random() -> Ipv4Addr {
    let bits = RandomState::new().build_hasher().finish().to_le_bytes();
    Ipv4Addr::new(127, 64 | (bits[0] & 0x3f), bits[1], 1 + bits[2] % 254)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_in_its_range_and_varies() {
        let some: std::collections::HashSet<_> = (0..200).map(|_| random()).collect();
        assert!(some.len() > 190);
        assert!(some.iter().all(|address| {
            let [first, second, _, last] = address.octets();
            first == 127 && (64..128).contains(&second) && last != 0 && last != 255
        }));
    }

    #[test]
    fn sees_a_taken_port() {
        let address = free(&[3002]).unwrap();
        let taken = TcpListener::bind((address, 3002)).unwrap();
        assert_eq!(check_free(address, &[2222, 3002]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        check_free(address, &[2222, 3002]).unwrap();
    }
}
