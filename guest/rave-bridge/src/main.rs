//! The appliance's Matrix bridge: takes !rave commands and does what their sender may do.

fn main() {}
