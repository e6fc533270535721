//! As whom Postgres runs: it refuses root.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

/// Users that root lends Postgres, by preference.
const CANDIDATES: [&str; 3] = ["finetuned", "postgres", "nobody"];
/// What root is called within its user namespace; a name that every system has.
const NAMESPACE_USER: &str = "nobody";

/// As whom Postgres runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// As ourselves.
    Own { uid: u32 },
    /// Root lends it another user.
    User { uid: u32, gid: u32 },
    /// Root in a user namespace of its own, where it has another number.
    Namespace { inner_uid: u32 },
}

impl Identity {
    /// A command that runs as this identity, in a process group of its own, so that a terminal's Ctrl-C does not
    /// reach it.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = match self {
            Self::Own { .. } => Command::new(program),
            Self::User { uid, gid } => {
                let mut command = Command::new(program);
                command.uid(*uid).gid(*gid);
                command
            }
            Self::Namespace { inner_uid } => {
                let mut command = Command::new("unshare");
                command.arg("--user").arg(format!("--map-user={inner_uid}")).arg("--").arg(program);
                command
            }
        };
        // Variables such as PGDATA would change what the programs do.
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Owner of its files, as we see it.
    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Own { uid } | Self::User { uid, .. } => *uid,
            Self::Namespace { .. } => 0,
        }
    }

    /// Owner and group to give to its files; `None` where what we make is its own already.
    pub(super) fn owner(&self) -> Option<(u32, u32)> {
        match self {
            Self::User { uid, gid } => Some((*uid, *gid)),
            Self::Own { .. } | Self::Namespace { .. } => None,
        }
    }

    /// Whether the identity can enter `folder` and all folders above it.
    pub(super) fn reaches(&self, folder: &Path) -> bool {
        let Self::User { uid, gid } = self else { return true };
        let Ok(folder) = folder.canonicalize() else { return false };
        folder.ancestors().all(|ancestor| {
            fs::metadata(ancestor).is_ok_and(|metadata| {
                let wanted = match () {
                    () if metadata.uid() == *uid => 0o100,
                    () if metadata.gid() == *gid => 0o010,
                    () => 0o001,
                };
                metadata.mode() & wanted != 0
            })
        })
    }

    /// Whether the system lets us be this identity at all (root in a container often may not).
    pub(super) fn works(&self) -> Result<(), String> {
        let output = self.command(Path::new("true")).output();
        match output {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// User and group number of a name, from the password file: Postgres' programs look themselves up there too.
fn user_named(name: &str) -> Option<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields.as_slice() {
            [user, _, uid, gid, ..] if *user == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
            _ => None,
        }
    })
}

/// The users that root may lend.
pub(super) fn lendable() -> Vec<(&'static str, Identity)> {
    let found = CANDIDATES.iter().filter_map(|name| Some((*name, user_named(name)?)));
    found.filter(|(_, (uid, _))| *uid != 0).map(|(name, (uid, gid))| (name, Identity::User { uid, gid })).collect()
}

/// Root under another number.
pub(super) fn namespace() -> Option<Identity> {
    user_named(NAMESPACE_USER).map(|(inner_uid, _)| Identity::Namespace { inner_uid })
}
