//! Stand-in for Grafana's login: an OpenID client with Grafana's routes and cookies.

fn main() {}
