//! Why a table was left as it is.

use change_event::Disposition;
use function_kit::RegistryError;
use object_io::ObjectError;
use table_commit::CommitError;

/// Why a table was left as it is, or with less removed than there was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaintainError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("{key} cannot be read; what it names is not known")]
    Manifest {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the table was dropped or made anew meanwhile")]
    Replaced,
    #[error("out of time")]
    OutOfTime,
}

impl MaintainError {
    #[deny(clippy::wildcard_enum_match_arm)]
    pub(crate) fn disposition(&self) -> Disposition {
        match self {
            Self::Registry(error) => error.disposition(),
            Self::Commit(error) => error.disposition(),
            Self::Object(ObjectError::Unavailable { .. }) | Self::Replaced | Self::OutOfTime => {
                Disposition::Retry
            }
            Self::Object(ObjectError::Refused { .. }) | Self::Manifest { .. } => Disposition::Halt,
        }
    }
}
