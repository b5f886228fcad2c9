//! As whom PostgreSQL runs: as we do, or, when that is root (which it refuses), as `nobody`.

use std::{os::unix::fs::chown, path::Path};

use crate::{failure::Failure, process};

/// A checkout or cache below `/root` is closed to `nobody`. One of these capabilities lets it through; the first is
/// the smaller one, and containers often grant only the second.
const WAYS: [Option<&str>; 3] = [None, Some("dac_read_search"), Some("dac_override")];

/// As whom the server runs.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// As whoever runs us.
    Own,
    /// As `nobody`.
    Nobody {
        /// Before the program and its arguments.
        prefix: Vec<String>,
        uid: u32,
        gid: u32,
    },
}

impl Account {
    /// The account in which the programs in `binaries` can work in `folder`.
    pub(super) fn choose(binaries: &Path, folder: &Path) -> Result<Self, Failure> {
        let id = |arguments: &[&str]| {
            let command: Vec<String> = ["id"].iter().chain(arguments).map(ToString::to_string).collect();
            process::run(&command)?.parse::<u32>().map_err(Failure::because("`id` prints no number"))
        };
        if id(&["-u"])? != 0 {
            return Ok(Self::Own);
        }
        let (uid, gid) = (id(&["-u", "nobody"])?, id(&["-g", "nobody"])?);
        for way in WAYS {
            let mut prefix: Vec<String> =
                ["setpriv".to_owned(), format!("--reuid={uid}"), format!("--regid={gid}")].into();
            prefix.push("--clear-groups".to_owned());
            if let Some(capability) = way {
                prefix.push(format!("--inh-caps=-all,+{capability}"));
                prefix.push(format!("--ambient-caps=-all,+{capability}"));
                // Without it access(2), with which initdb looks for `postgres`, leaves capabilities out.
                prefix.push("--securebits=+no_setuid_fixup".to_owned());
            }
            prefix.push("--".to_owned());
            let account = Self::Nobody { prefix, uid, gid };
            if account.reaches(binaries, folder) {
                return Ok(account);
            }
        }
        Err(Failure::new(format!(
            "PostgreSQL does not run as root, and as `nobody` it can not reach {} and {}. Let others pass through the \
             folders above them (chmod o+x), set LOCKSTEP_DATA_DIR and LOCKSTEP_CACHE_DIR to folders that all may \
             reach, run as an ordinary user, or set DATABASE_URL to a server",
            folder.display(),
            binaries.display()
        )))
    }

    /// The command as this account runs it. `setpriv` replaces itself by the program, so signals arrive.
    pub(super) fn command(&self, command: &[String]) -> Vec<String> {
        match self {
            Self::Own => command.to_vec(),
            Self::Nobody { prefix, .. } => prefix.iter().chain(command).cloned().collect(),
        }
    }

    /// Makes the account the owner of a file or folder of ours.
    pub(super) fn give(&self, path: &Path) -> Result<(), Failure> {
        match self {
            Self::Own => Ok(()),
            Self::Nobody { uid, gid, .. } => chown(path, Some(*uid), Some(*gid))
                .map_err(Failure::because(format!("{} can not be given to `nobody`", path.display()))),
        }
    }

    fn reaches(&self, binaries: &Path, folder: &Path) -> bool {
        let script = "cd \"$1\" && \"$2\" --version";
        let postgres = binaries.join("postgres");
        let words = ["/bin/sh", "-c", script, "sh", &folder.to_string_lossy(), &postgres.to_string_lossy()];
        process::run(&self.command(&words.map(ToOwned::to_owned))).is_ok()
    }
}
