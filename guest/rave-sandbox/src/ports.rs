//! Which ports a sandbox gets.

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Range {
    /// Whether a port is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Whether a port is in both.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The first port that no sandbox has and that `free` finds free.
    #[must_use]
    pub fn allocate(self, taken: &[u16], free: impl Fn(u16) -> bool) -> Option<u16> {
        (self.first..=self.last).find(|port| !taken.contains(port) && free(*port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taken: &[u16], busy: &[u16], expected: Option<u16>) {
        let range = Range { first: 2200, last: 2203 };
        assert_eq!(range.allocate(taken, |port| !busy.contains(&port)), expected);
    }

    #[test]
    fn a_port_is_neither_taken_nor_busy() {
        check(&[], &[], Some(2200));
        check(&[2200], &[], Some(2201));
        check(&[2200, 2202], &[2201], Some(2203));
        check(&[2200, 2201, 2202], &[2203], None);
    }

    #[test]
    fn ranges_overlap_at_a_single_port() {
        let range = |first, last| Range { first, last };
        assert!(range(1, 3).overlaps(range(3, 4)));
        assert!(range(1, 9).overlaps(range(3, 4)));
        assert!(!range(1, 3).overlaps(range(4, 5)));
    }
}
