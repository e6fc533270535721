//! Typed, prefixed ids: a job's id cannot be passed where a file's is wanted, and a reader sees what an id names.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// A string that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}` followed by 32 hexadecimal digits")]
pub struct InvalidId {
    pub text: String,
    pub prefix: &'static str,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A fresh id; ids made later sort later (UUID version 7).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.strip_prefix($prefix)
                    .filter(|digits| digits.len() == 32)
                    .and_then(|digits| Uuid::try_parse(digits).ok())
                    .map(Self)
                    .ok_or_else(|| InvalidId { text: text.to_owned(), prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

typed_id!(
    /// A fine-tuning job.
    JobId, "ftjob-"
);
typed_id!(
    /// An uploaded or produced file.
    FileId, "file-"
);
typed_id!(
    /// A checkpoint of a job.
    CheckpointId, "ftckpt_"
);
typed_id!(
    /// An event of a job.
    EventId, "ftevent-"
);
typed_id!(
    /// A tenant; `organization_id` on the wire.
    TenantId, "org-"
);
typed_id!(
    /// An API key (its name, not its secret).
    KeyId, "key_"
);
typed_id!(
    /// A unit of leased work.
    TaskId, "task_"
);
typed_id!(
    /// A further evaluation of a job: the task of the same digits.
    EvaluationRunId, "ftevalrun-"
);
typed_id!(
    /// A worker process.
    WorkerId, "worker_"
);

typed_id!(
    /// A project of an organisation: the tenant of the same digits.
    ProjectId, "proj_"
);
typed_id!(
    /// A project may see another's model.
    PermissionId, "cp_"
);
typed_id!(
    /// A line of the audit log.
    AuditId, "audit_log-"
);
typed_id!(
    /// A file that comes in parts.
    UploadId, "upload_"
);
typed_id!(
    /// A part of an upload.
    PartId, "part_"
);
typed_id!(
    /// Where a tenant is told of events.
    WebhookEndpointId, "we_"
);
typed_id!(
    /// What happened, as webhooks tell it.
    WebhookEventId, "evt_"
);
typed_id!(
    /// One webhook event for one endpoint.
    WebhookDeliveryId, "whd_"
);

typed_id!(
    /// What raters are asked.
    RatingTaskId, "rtask_"
);
typed_id!(
    /// One answer to be scored, or two to choose between.
    RatingItemId, "ritem_"
);
typed_id!(
    /// What a rater said of an item.
    RatingId, "rating_"
);

impl From<TenantId> for ProjectId {
    fn from(tenant: TenantId) -> Self {
        Self(tenant.0)
    }
}

impl From<ProjectId> for TenantId {
    fn from(project: ProjectId) -> Self {
        Self(project.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_wire_and_refuse_each_other() {
        let job = JobId::generate();
        assert_eq!(job.to_string().parse::<JobId>(), Ok(job));
        assert!(job.to_string().parse::<FileId>().is_err());
        assert!("ftjob-".parse::<JobId>().is_err());
        // Another spelling of the same UUID is not a second name of the object.
        assert!(format!("ftjob-{}", job.0.hyphenated()).parse::<JobId>().is_err());
    }
}
