//! Slabs on the host: beside a model, and under threads.
#![cfg(not(loom))]

mod model;
mod pages;
mod stress;
