//! `dt-validate` and the schemas it holds our guests' device trees against: dtschema from PyPI, in an environment of its own,
//! and Linux' bindings.
//!
//! PyPI's package has the core schemas only. Linux' own stand in Debian's source package of U-Boot, which carries a copy
//! of them at a quarter of the kernel's size; of it, only the files named here are kept. `schemas/` at the top of this
//! repository has those of our own nodes.

use super::{apt, tool};
use crate::exec;
use crate::repo;
use crate::trouble::Trouble;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Packages of PyPI, all pinned: another version may judge otherwise.
const PACKAGES: &[&str] =
    &["dtschema==2026.9", "jsonschema==4.26.0", "pylibfdt==1.7.2.post2", "rfc3987==1.3.8", "ruamel.yaml==0.19.1"];
/// Debian's suite, source package and upstream version that carry Linux' bindings.
const SUITE: &str = "trixie";
const SOURCE: &str = "u-boot";
const VERSION: &str = "2025.01";
/// Where they lie in it.
const BINDINGS: &str = "dts/upstream/Bindings";
/// Those of the nodes our guests' trees have, and what these refer to.
const FILES: &[&str] = &[
    "arm/cci-control-port.yaml",
    "arm/cpus.yaml",
    "arm/pmu.yaml",
    "arm/primecell.yaml",
    "arm/psci.yaml",
    "clock/fixed-clock.yaml",
    "cpu/idle-states.yaml",
    "dvfs/performance-domain.yaml",
    "gpio/pl061-gpio.yaml",
    "interrupt-controller/arm,gic-v3.yaml",
    "interrupt-controller/arm,gic.yaml",
    "interrupt-controller/msi-controller.yaml",
    "memory-controllers/fsl/fsl,imx-weim-peripherals.yaml",
    "memory-controllers/ingenic,nemc-peripherals.yaml",
    "memory-controllers/intel,ixp4xx-expansion-peripheral-props.yaml",
    "memory-controllers/mc-peripheral-props.yaml",
    "memory-controllers/st,stm32-fmc2-ebi-props.yaml",
    "memory-controllers/ti,gpmc-child.yaml",
    "leds/common.yaml",
    "leds/leds-gpio.yaml",
    "mtd/mtd-physmap.yaml",
    "mtd/mtd.yaml",
    "mtd/partitions/partition.yaml",
    "mtd/partitions/partitions.yaml",
    "pci/host-generic-pci.yaml",
    "regulator/fixed-regulator.yaml",
    "regulator/regulator.yaml",
    "rtc/arm,pl031.yaml",
    "rtc/microcrystal,rv3032.yaml",
    "rtc/rtc.yaml",
    "serial/pl011.yaml",
    "serial/serial.yaml",
    "timer/arm,arch_timer.yaml",
    "vendor-prefixes.yaml",
    "virtio/mmio.yaml",
    "watchdog/arm,sbsa-gwdt.yaml",
    "watchdog/arm,sp805.yaml",
    "watchdog/arm-smc-wdt.yaml",
    "watchdog/watchdog.yaml",
];

const DOWNLOAD: Duration = Duration::from_secs(600);

/// What validates a tree.
pub(crate) struct Bindings {
    /// The environment's programs.
    programs: PathBuf,
    /// Linux' schemas.
    schemas: PathBuf,
}

/// Finds both, or fetches them into the cache.
///
/// # Errors
/// No Python, or a registry that cannot be reached: a test that cannot run is no test that passes.
pub(crate) fn bindings() -> Result<Bindings, Trouble> {
    let version = PACKAGES[0].replace("==", "-");
    let environment = repo::cache().join(&version);
    let programs = environment.join("bin");
    if !programs.join("dt-validate").is_file() {
        install(&environment)?;
    }
    let schemas = repo::cache().join(format!("linux-bindings-{VERSION}"));
    if !FILES.iter().all(|file| schemas.join(file).is_file()) {
        extract(&schemas)?;
    }
    Ok(Bindings { programs, schemas })
}

fn install(environment: &Path) -> Result<(), Trouble> {
    let python = tool("python3", "python3-venv", "Python 3 with its module venv", |_| Ok(true))?;
    eprintln!("setup: installing {} for the tests of guest trees", PACKAGES[0]);
    let make = || {
        exec::text(Command::new(&python).args(["-m", "venv", "--clear"]).arg(environment), DOWNLOAD)?;
        let mut pip = Command::new(environment.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        exec::text(&mut pip, DOWNLOAD)
    };
    if make().is_err() {
        // Debian's Python makes no environments and builds no extensions (pylibfdt is one) without these.
        apt::install(&["python3-venv", "python3-dev", "gcc"], "Python's module venv and headers")?;
        make()?;
    }
    Ok(())
}

fn extract(schemas: &Path) -> Result<(), Trouble> {
    tool("bzip2", "bzip2", "bzip2", |_| Ok(true))?;
    let (folder, archive) = apt::source(SOURCE, VERSION, SUITE, "Linux' device-tree bindings")?;
    let half = repo::cache().join(format!("linux-bindings.{}.half", std::process::id()));
    let _ = fs::remove_dir_all(&half);
    fs::create_dir_all(&half).map_err(Trouble::file(&half, "make"))?;
    let inside = format!("{SOURCE}-{VERSION}/{BINDINGS}");
    let members = FILES.iter().map(|file| format!("{inside}/{file}"));
    let strip = format!("--strip-components={}", inside.split('/').count());
    let mut tar = Command::new("tar");
    tar.arg("-xf").arg(&archive).arg("-C").arg(&half).arg(strip).args(members);
    exec::run(tar.stdin(Stdio::null()), DOWNLOAD)?;
    let _ = fs::remove_dir_all(schemas);
    fs::rename(&half, schemas).map_err(Trouble::file(schemas, "make"))?;
    // What was wanted of it is kept.
    fs::remove_dir_all(&folder).map_err(Trouble::file(&folder, "remove"))
}

impl Bindings {
    /// Whatever the schemas, Linux' and those in `own`, have against `trees`: lines of text, none where all is well. `only` those with
    /// this in their name, if any.
    ///
    /// # Errors
    /// A program that does not end as it should.
    pub(crate) fn validate(&self, own: &Path, only: Option<&str>, trees: &[PathBuf]) -> Result<String, Trouble> {
        let processed = repo::target().join("guest-trees/schemas.json");
        let mut make = Command::new(self.programs.join("dt-mk-schema"));
        make.arg("-j").arg("-o").arg(&processed).arg(&self.schemas).arg(own);
        let made = exec::output(&mut make, DOWNLOAD)?;
        if !made.status.success() {
            return Err(Trouble::other(format!("dt-mk-schema: {}", String::from_utf8_lossy(&made.stderr))));
        }
        let mut validate = Command::new(self.programs.join("dt-validate"));
        match only {
            Some(name) => validate.arg("-l").arg(name),
            // -m: a node whose compatible no schema knows is named too.
            None => validate.arg("-m"),
        };
        validate.arg("-s").arg(&processed).args(trees);
        let output = exec::output(&mut validate, DOWNLOAD)?;
        let said = [made.stderr, output.stdout, output.stderr].concat();
        let mut text = String::from_utf8_lossy(&said).into_owned();
        if !output.status.success() {
            text += &format!("dt-validate ended with {}", output.status);
        }
        Ok(text)
    }
}
