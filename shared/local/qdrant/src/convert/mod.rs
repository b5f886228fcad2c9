//! Between the protocol's types and the engine's. Nothing here reads or writes a collection.

pub mod config;
pub mod filter;
pub mod index;
pub mod point;
pub mod query;
pub mod select;
pub mod update;
pub mod value;
pub mod vector;
