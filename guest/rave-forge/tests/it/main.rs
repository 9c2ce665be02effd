//! Tests of the whole program: a PostgreSQL of their own, `rave-forge serve`, and clients that nobody here wrote.

mod clients;
mod forge;
mod fuzz;
mod postgres;
mod refusals;
mod restart;
mod running;
