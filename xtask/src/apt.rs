//! Debian's packages without root: downloaded, and unpacked in a folder of one's own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tool::{exists, output, scratch, step};

/// How apt is called: with the system's package lists, or with lists of our own.
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// The system's package lists if they have `package` in a version that is `wanted`, else fresh ones.
    pub fn with(cache: &Path, package: &str, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !exists(tool) {
                bail!("{tool} is missing: this way works on Debian and its relatives only");
            }
        }
        let options = Vec::new();
        let apt = Apt { options };
        match apt.candidate(package)? {
            Some(version) if wanted(&version) => Ok(apt),
            _ => Self::fresh(cache, &[]),
        }
    }

    /// Fresh lists in the cache, of the sources that the system is configured for. `architectures` are those that packages may be of, Debian's
    /// names; none is the system's choice.
    pub fn fresh(cache: &Path, architectures: &[&str]) -> Result<Self> {
        let dir = cache.join("apt");
        fs::create_dir_all(dir.join("lists/partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let mut options = vec![
            format!("-oDir::State::lists={}", dir.join("lists").display()),
            format!("-oDir::Cache={}", dir.join("cache").display()),
        ];
        let list = architectures.iter();
        options.extend(list.map(|name| format!("-oAPT::Architectures::={name}")));
        let apt = Apt { options };
        step("fetching the package lists");
        output(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options).env("LC_ALL", "C");
        command
    }

    /// The version of `package` that apt would install.
    pub fn candidate(&self, package: &str) -> Result<Option<String>> {
        let text = output(self.command("apt-cache").args(["policy", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate: "))
            .find(|version| *version != "(none)")
            .map(str::to_string))
    }

    /// The dependency of `package` whose name starts with `prefix`.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let text = output(self.command("apt-cache").args(["depends", package]))?;
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with(prefix))
            .map(str::to_string)
            .with_context(|| format!("{package} depends on no {prefix}"))
    }

    /// The packages whose names are `prefix`, a number, `suffix`: the one with the highest number.
    pub fn newest(&self, prefix: &str, suffix: &str) -> Result<String> {
        let text = output(self.command("apt-cache").args(["pkgnames", prefix]))?;
        let bare = suffix.split(':').next().unwrap_or_default();
        let number = |name: &str| name.strip_prefix(prefix)?.strip_suffix(bare)?.parse().ok();
        let mut numbers: Vec<u32> = text.lines().filter_map(number).collect();
        numbers.sort_unstable();
        for number in numbers.into_iter().rev() {
            let name = format!("{prefix}{number}{suffix}");
            if self.candidate(&name)?.is_some() {
                return Ok(name);
            }
        }
        bail!("apt knows no package {prefix}N{suffix}")
    }

    /// Downloads `packages` and unpacks all of them to the folder `tree`.
    pub fn unpack(&self, cache: &Path, packages: &[String], tree: &Path) -> Result<()> {
        step(format!("downloading {}", packages.join(" ")));
        let work = scratch(cache, "packages")?;
        output(
            self.command("apt-get")
                .current_dir(&work.path)
                .args(["-qq", "download"])
                .args(packages),
        )?;
        for entry in fs::read_dir(&work.path)?.flatten() {
            if entry.path().extension() == Some(OsStr::new("deb")) {
                output(
                    Command::new("dpkg-deb")
                        .arg("-x")
                        .arg(entry.path())
                        .arg(tree),
                )?;
            }
        }
        Ok(())
    }
}
