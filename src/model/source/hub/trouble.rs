//! Reasons why a download fails.

use std::io::{self, ErrorKind};

use hf_hub::HFError;

pub type Result<T, E = Trouble> = std::result::Result<T, E>;

#[derive(Debug)]
pub enum Trouble {
    /// There is no such file, or no such model or revision.
    Absent,
    NoModel,
    NoRevision,
    /// The cache has no such file, and the hub is not asked.
    NotCached,
    /// An answer that is not a hub's.
    Malformed(String),
    /// Any other status.
    Status(u16),
    /// Nothing arrived before the timeout.
    Silent,
    /// No connection, with the cause.
    NoConnection(String),
    /// Only part of the file arrived, with the cause.
    BrokeOff(String),
    /// Another program is downloading it.
    Locked,
    /// The cache cannot be read or written.
    Cache(io::Error),
    Other(String),
}

impl Trouble {
    /// Whether the hub could not be reached or timed out, so that the cache may have to do.
    pub fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Status(status) => *status == 429 || *status >= 500,
            Self::Silent | Self::NoConnection(_) | Self::BrokeOff(_) => true,
            _ => false,
        }
    }
}

impl From<HFError> for Trouble {
    fn from(error: HFError) -> Self {
        match error {
            HFError::EntryNotFound { .. } => Self::Absent,
            HFError::AuthRequired { .. } => Self::Status(401),
            HFError::RateLimited { .. } => Self::Status(429),
            HFError::Forbidden { context } | HFError::Http { context } => {
                Self::Status(context.status.as_u16())
            }
            HFError::Request { source, .. } => source.into(),
            HFError::Xet { source, .. } => Self::BrokeOff(one_line(source.as_ref())),
            other => Self::Other(one_line(&other)),
        }
    }
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Self {
        // The address may contain a password.
        let error = error.without_url();
        let mut root: &dyn std::error::Error = &error;
        while let Some(source) = root.source() {
            root = source;
        }
        let root = one_line(root);
        if error.is_connect() { Self::NoConnection(root) } else { Self::BrokeOff(root) }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == ErrorKind::ResourceBusy { Self::Locked } else { Self::Cache(error) }
    }
}

pub fn one_line(error: &dyn std::error::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
