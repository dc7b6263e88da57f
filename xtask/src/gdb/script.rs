//! The text of the gdb script: symbols of hypervisor and guest, which thread is which vCPU, where the domain starts.
//!
//! Pure: facts of a plan in, text out. QEMU's stub shows each CPU of the board as a thread, in the order of the board's `/cpus`, and
//! keeps breakpoints outside the guests' memory, so one in a guest can be set before its memory is mapped.

use cofferdam_plan::va::HYP_VA;
use std::fmt::Write;
use std::path::Path;

/// What the script is made of.
pub(super) struct Script<'a> {
    /// The repository, where sources are looked for.
    pub(super) root: &'a Path,
    /// The hypervisor's ELF, linked at its virtual address.
    pub(super) hypervisor: &'a Path,
    /// Where the image lies in physical memory.
    pub(super) base: u64,
    /// The domain that is debugged.
    pub(super) domain: &'a str,
    /// The file with its symbols.
    pub(super) symbols: Option<&'a Path>,
    /// Where its vCPU 0 starts.
    pub(super) entry: u64,
    /// Every domain's name and the board's CPUs that are its vCPUs.
    pub(super) domains: &'a [(&'a str, &'a [usize])],
    /// Port of the stub on this machine.
    pub(super) port: u16,
    /// Shown once connected: where the consoles are.
    pub(super) consoles: Option<&'a Path>,
}

/// gdb numbers threads from 1.
fn thread(cpu: usize) -> usize {
    cpu + 1
}

/// A path as one word of a gdb command or of a shell's.
fn word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

impl Script<'_> {
    /// The whole script.
    pub(super) fn text(&self) -> String {
        let hypervisor = word(self.hypervisor);
        let mut text = format!(
            "# Written by `cargo xtask gdb {}`: written again by the next one.\n\
             set pagination off\nset confirm off\nset architecture aarch64\nset tcp connect-timeout 60\n\
             directory {}\nsymbol-file {hypervisor}\n",
            self.domain,
            word(self.root)
        );
        if let Some(symbols) = self.symbols {
            text += &format!("add-symbol-file {}\n", word(symbols));
        }
        let offset = self.base.wrapping_sub(HYP_VA);
        text += &command(
            "hyp-stub",
            "The hypervisor's symbols at its physical address too, for what runs before its tables are on. A breakpoint\n\
             by name is in two places then; hyp-stub-off takes them away again.",
            &format!("add-symbol-file {hypervisor} -o {offset:#x}\n"),
        );
        text += &command(
            "hyp-stub-off",
            "Takes the symbols of hyp-stub away.",
            &format!("remove-symbol-file -a {:#x}\n", self.base),
        );
        text += &self.vcpu();
        text += &command("vcpus", "Which thread is which vCPU of which domain.", &self.table());
        let own: Vec<_> = self.cpus().iter().map(|cpu| format!("$_thread == {}", thread(*cpu))).collect();
        text += &command(
            "gbreak",
            &format!(
                "gbreak LOCATION: stops there, but only where {} runs it: others may have the same addresses.",
                self.domain
            ),
            &format!("hbreak $arg0 if {}\n", own.join(" || ")),
        );
        let first = self.cpus().first().map_or(1, |cpu| thread(*cpu));
        text += &command(
            "at-entry",
            &format!("Stops once where vCPU 0 of {} starts.", self.domain),
            &format!("thbreak *{:#x} thread {first}\n", self.entry),
        );
        text += &format!("target remote 127.0.0.1:{}\nat-entry\n", self.port);
        if let Some(consoles) = self.consoles {
            text += &format!("shell cat {}\n", word(consoles));
        }
        text += &format!(
            "echo The board waits at its first instruction. `continue` runs to the entry of {}.\\n\n\
             echo gbreak LOCATION, vcpu N, vcpus, at-entry, hyp-stub: help tells what they do.\\n\n",
            self.domain
        );
        text
    }

    fn cpus(&self) -> &[usize] {
        self.domains.iter().find(|(name, _)| *name == self.domain).map_or(&[], |(_, cpus)| cpus)
    }

    /// `vcpu N` for the domain.
    fn vcpu(&self) -> String {
        let last = self.cpus().len().saturating_sub(1);
        let mut body = String::new();
        for (vcpu, cpu) in self.cpus().iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(body, "if $arg0 == {vcpu}\nthread {}\nend", thread(*cpu));
        }
        command("vcpu", &format!("vcpu N: selects vCPU N of {}, 0 to {last}.", self.domain), &body)
    }

    fn table(&self) -> String {
        let mut body = String::new();
        for (name, cpus) in self.domains {
            for (vcpu, cpu) in cpus.iter().enumerate() {
                let _ = writeln!(body, "echo thread {}: vCPU {vcpu} of {name}\\n", thread(*cpu));
            }
        }
        body
    }
}

/// One command of our own.
fn command(name: &str, about: &str, body: &str) -> String {
    format!("define {name}\n{body}end\ndocument {name}\n{about}\nend\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_the_boards_cpus() {
        let script = Script {
            root: Path::new("/src"),
            hypervisor: Path::new("/a b/hyp'min.elf"),
            base: 0x4020_0000,
            domain: "linux",
            symbols: Some(Path::new("vmlinux")),
            entry: 0x4000_0000,
            domains: &[("rt", &[2]), ("linux", &[3, 1])],
            port: 1234,
            consoles: None,
        };
        let text = script.text();
        for line in [
            r"symbol-file '/a b/hyp'\''min.elf'",
            "add-symbol-file 'vmlinux'",
            "thbreak *0x40000000 thread 4",
            "hbreak $arg0 if $_thread == 4 || $_thread == 2",
            "echo thread 3: vCPU 0 of rt\\n",
            "echo thread 2: vCPU 1 of linux\\n",
            "target remote 127.0.0.1:1234",
        ] {
            assert!(text.lines().any(|got| got == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("if $arg0 == 1\nthread 2\nend"));
        assert!(text.contains("-o 0xffffffff50200000"));
    }
}
