//! A corpus: many documents through the network, and tables of what its units do on them.
//!
//! Documents become pieces as long as the context, pieces are run together, and reducers keep what is asked for.
//! A folder of results has a manifest and Parquet tables; shards have a folder each, and are merged.

pub mod atlas;
pub mod documents;
pub mod loss;
pub mod manifest;
pub mod merge;
#[cfg(feature = "figures")]
pub mod page;
pub mod piece;
pub mod raw;
mod reduce;
pub mod run;
pub mod shard;
pub mod stats;
pub mod table;
pub mod top;
pub mod units;

pub use atlas::Atlas;
pub use manifest::{Manifest, Reduce, Settings};
pub use run::{Plan, Report};
pub use shard::Shard;
