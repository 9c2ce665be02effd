//! Makes, lists, ends and reaps sandbox machines for merge requests.

fn main() {}
