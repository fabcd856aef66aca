//! The engine on an emulated CPU with AVX-512: its kernels' tests under Bochs, so that loops of 512 bits run where no such machine is at hand.
//!
//! Bochs emulates a whole PC. It boots a CD with Debian's kernel and one program, the tests, linked statically; what they print comes out at a
//! serial port. Bochs 2.7 does not agree with Linux on some of what the CPU has besides AVX-512, so the kernel is told to leave that alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cpio::{NewcBuilder, write_cpio};

use crate::aarch64::{FEATURES, alone};
use crate::apt::Apt;
use crate::tool::{
    cache_dir, cargo, exists, lock, output, put, root, run, scratch, step, target_dir,
};

/// What must be installed: Debian's packages, and a file of each.
const PARTS: [(&str, &str); 6] = [
    ("bochs", "/usr/bin/bochs"),
    ("bochsbios", "/usr/share/bochs/BIOS-bochs-latest"),
    ("vgabios", "/usr/share/bochs/VGABIOS-lgpl-latest"),
    ("isolinux", ISOLINUX),
    ("syslinux-common", LINKED),
    ("genisoimage", "/usr/bin/genisoimage"),
];
const ISOLINUX: &str = "/usr/lib/ISOLINUX/isolinux.bin";
const LINKED: &str = "/usr/lib/syslinux/modules/bios/ldlinux.c32";

/// The package whose dependency is the kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests whose names hold one of these, without those that take an emulated hour.
const TESTS: &str = "int8_ prepared f32x8 fma:: simd --skip winograd --skip large_";

/// Processors that the tests run on: with AVX-512's sums of integer products, and without.
const PROCESSORS: [(&str, bool); 2] = [("corei7_icelake_u", true), ("corei7_skylake_x", false)];

/// What the kernel leaves alone: XSAVEC, XSAVES, protection keys (Bochs knows no size of their state), APERF, UMIP, RDPID, ERMS, FSRM,
/// FSGSBASE, INVPCID, PCID.
const CLEARED: &str = "clearcpuid=321,323,515,516,124,514,534,297,580,288,298,145";
const QUIET: &str =
    "nopku no5lvl nofsgsbase nopcid noinvpcid nosmap nosmep mitigations=off nopti nokaslr nosmp";

/// The longest that a run may take.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// Builds the tests and runs them on each of the processors.
pub fn test() -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("only Linux on x86-64 builds the program that is emulated");
    }
    let missing = PARTS.iter().filter(|(_, file)| !Path::new(file).exists());
    let missing: Vec<&str> = missing.map(|(package, _)| *package).collect();
    if !missing.is_empty() {
        bail!("install Debian's packages {}", missing.join(" "));
    }
    let kernel = kernel()?;
    let folder = target_dir().join("avx512");
    let program = program(&folder)?;
    for (processor, has_products) in PROCESSORS {
        step(format!(
            "tests on an emulated {processor}, for some minutes"
        ));
        let disc = folder.join(processor);
        write_disc(&disc, &kernel, &program, processor)?;
        let printed = emulate(&disc).with_context(|| format!("on an emulated {processor}"))?;
        judge(&printed, has_products).with_context(|| format!("on an emulated {processor}"))?;
    }
    Ok(())
}

/// Debian's kernel, in the cache.
fn kernel() -> Result<PathBuf> {
    let cache = cache_dir()?;
    let _lock = lock(&cache)?;
    let tree = cache.join("linux-amd64");
    if !tree.exists() {
        if !exists("dpkg-deb") {
            bail!("dpkg-deb is missing: this works on Debian and its relatives only");
        }
        let apt = Apt::with(&cache, KERNEL, |_| true)?;
        let package = apt.dependency(KERNEL, "linux-image-")?;
        let work = scratch(&cache, "linux")?;
        apt.unpack(&cache, &[package], &work.path)?;
        put(&work.path, &tree)?;
    }
    let boot = fs::read_dir(tree.join("boot"))?.flatten();
    let mut kernels = boot.filter(|file| file.file_name().to_string_lossy().starts_with("vmlinuz"));
    let kernel = kernels.next().context("the package holds no kernel")?;
    Ok(kernel.path())
}

/// The engine's unit tests as one program that needs no other file.
fn program(folder: &Path) -> Result<PathBuf> {
    let manifest = alone(&folder.join("engine"))?;
    let program = folder.join("init");
    let mut test = cargo();
    test.current_dir(root())
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols")
        .args(["test", "--lib", "--release", "--features", FEATURES])
        .args(["--target", TARGET, "--target-dir"])
        .arg(folder)
        .arg("--manifest-path")
        .arg(manifest)
        // instead of running them
        .args([
            "--config",
            &format!("target.{TARGET}.runner = ['cp']"),
            "--",
        ])
        .arg(&program);
    run(&mut test)?;
    Ok(program)
}

/// A CD that boots into the program, and how it is emulated.
fn write_disc(folder: &Path, kernel: &Path, program: &Path, processor: &str) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let files = folder.join("files");
    fs::create_dir_all(files.join("isolinux"))?;
    fs::copy(kernel, files.join("vmlinuz"))?;
    fs::copy(ISOLINUX, files.join("isolinux/isolinux.bin"))?;
    fs::copy(LINKED, files.join("isolinux/ldlinux.c32"))?;
    // the one file that the kernel unpacks
    let init = NewcBuilder::new("init").mode(0o100_755);
    let initrd = fs::File::create(files.join("initrd"))?;
    write_cpio([(init, fs::File::open(program)?)].into_iter(), initrd)?;
    let menu = format!(
        "DEFAULT l\nPROMPT 0\nTIMEOUT 1\nLABEL l\n KERNEL /vmlinuz\n APPEND initrd=/initrd rdinit=/init console=ttyS0 loglevel=3 \
         tsc=reliable lpj=1000000 {CLEARED} {QUIET} -- {TESTS} --test-threads=1 --nocapture\n"
    );
    fs::write(files.join("isolinux/isolinux.cfg"), menu)?;
    let mut pack = Command::new("genisoimage");
    pack.current_dir(folder)
        .args(["-quiet", "-o", "cd.iso", "-b", "isolinux/isolinux.bin"])
        .args(["-c", "isolinux/boot.cat", "-no-emul-boot"])
        .args(["-boot-load-size", "4", "-boot-info-table", "files"]);
    output(&mut pack)?;
    // no sound: where there is no device, ALSA's driver brings Bochs down
    let machine = format!(
        "config_interface: textconfig\ndisplay_library: rfb, options=\"timeout=0\"\n\
         romimage: file={}\nvgaromimage: file={}\n\
         cpu: model={processor}, count=1, ips=100000000, reset_on_triple_fault=0\n\
         memory: guest=512, host=512\nata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14\n\
         ata0-master: type=cdrom, path=cd.iso, status=inserted\nboot: cdrom\n\
         com1: enabled=1, mode=file, dev=serial.txt\nlog: log.txt\npanic: action=fatal\nclock: sync=none\n\
         speaker: enabled=0\nsound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy\n",
        PARTS[1].1, PARTS[2].1
    );
    fs::write(folder.join("bochsrc"), machine)?;
    // what Bochs's debugger, which Debian's is built with, is to do: go on
    fs::write(folder.join("commands"), "c\n")?;
    Ok(())
}

/// Ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the tests print. They are the machine's first process: where it ends the kernel panics, and says how it ended.
fn emulate(folder: &Path) -> Result<String> {
    let log = fs::File::create(folder.join("bochs.txt"))?;
    let mut bochs = Command::new("bochs");
    bochs
        .current_dir(folder)
        .args(["-q", "-f", "bochsrc", "-rc", "commands"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let mut running = Running(bochs.spawn().context("starting bochs")?);
    let start = Instant::now();
    loop {
        sleep(Duration::from_secs(2));
        let printed = fs::read(folder.join("serial.txt")).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed).into_owned();
        if printed.contains("exitcode=") {
            return Ok(printed);
        }
        let ended = running.0.try_wait()?;
        if ended.is_some() || start.elapsed() > PATIENCE {
            bail!("no end of the tests; see {}", folder.display());
        }
    }
}

/// All passed, and none that needs AVX-512 was skipped (those of integer products where there are some).
fn judge(printed: &str, has_products: bool) -> Result<()> {
    let tests = printed.lines().filter(|line| line.starts_with("test "));
    let count = tests.inspect(|line| eprintln!("{line}")).count();
    let skipped = printed
        .lines()
        .find(|line| line.contains("SKIPPED: AVX-512") && (has_products || !line.contains("VNNI")));
    if let Some(skipped) = skipped {
        bail!("{skipped}");
    }
    if count == 0 || !printed.contains("exitcode=0x00000000") {
        bail!("tests failed:\n{printed}");
    }
    Ok(())
}
