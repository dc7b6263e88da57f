//! A board with PCI, changed at random: a cell here, a property there. Whatever comes out, nothing panics, every message has its place
//! and its arguments, and what compiles is proven.

use super::support;
use cofferdam_dts::{Arg, Code, Diagnostic, Severity, Span};
use std::path::{Path, PathBuf};

/// What boards say by means of the generated part of QEMU's, written out so that it can be changed; and another host bridge.
const MORE: &str = r#"
&pcie0 {
	reg = <0x40 0x10000000 0x0 0x10000000>;
	bus-range = <0 0xff>;
	ranges = <0x01000000 0x0 0x00000000 0x0 0x3eff0000 0x0 0x00010000>,
		 <0x02000000 0x0 0x10000000 0x0 0x10000000 0x0 0x2eff0000>,
		 <0x03000000 0x80 0x00000000 0x80 0x00000000 0x80 0x00000000>;
	dma-ranges = <0x02000000 0x0 0x00000000 0x0 0x00000000 0x1 0x00000000>;
	msi-map = <0x0 &its 0x0 0x8>,
		  <0x8 &its 0x8 0xfff8>;
	msi-map-mask = <0xffff>;
	iommu-map-mask = <0xffff>;
	interrupt-map-mask = <0xf800 0 0 7>;
	interrupt-map = <0x1000 0 0 1 &gic 0 0 0 5 4>,
			<0x2000 0 0 1 &gic 0 0 0 3 4>,
			<0x2800 0 0 1 &gic 0 0 0 4 4>,
			<0x4800 0 0 1 &gic 0 0 0 6 4>;
	linux,pci-domain = <0>;
	sw0: pcie@c,0 {
		device_type = "pci";
		reg = <0x00006000 0 0 0x0 0x0>;
		vendor-id = <0x104c>;
		device-id = <0x8232>;
		class-code = <0x060400>;
		revision-id = <0x02>;
		cofferdam,capabilities = <0x90 0x01420010 0x00008020 0x00000000>,
					 <0x148 0x0001000d 0x0000005f 0x00000000>;
		#address-cells = <3>;
		#size-cells = <2>;
		bus-range = <2 4>;
		ranges;
		pcie@0,0 {
			device_type = "pci";
			reg = <0x00020000 0 0 0x0 0x0>;
			vendor-id = <0x104c>;
			device-id = <0x8233>;
			class-code = <0x060400>;
			revision-id = <0x02>;
			cofferdam,capabilities = <0x90 0x00710010 0x00008020 0x00000000>;
			#address-cells = <3>;
			#size-cells = <2>;
			bus-range = <3 3>;
			ranges;
			deep0: display@1,0 {
				reg = <0x00030800 0 0 0x0 0x0>,
				      <0x02030810 0 0 0x0 0x100>,
				      <0x43030814 0 0 0x0 0x10000000>;
				vendor-id = <0x1234>;
				device-id = <0x1111>;
				class-code = <0x030000>;
				revision-id = <0>;
				interrupts = <2>;
			};
		};
	};
};
/ {
	pci@d000000 {
		compatible = "pci-host-ecam-generic";
		device_type = "pci";
		reg = <0x0 0x0d000000 0x0 0x100000>;
		#address-cells = <3>;
		#size-cells = <2>;
		bus-range = <0 0>;
		ranges = <0x02000000 0x0 0x0e000000 0x0 0x0e000000 0x0 0x100000>;
		iommu-map = <0x0 &smmu 0x10000 0x100>;
		msi-map = <0x0 &its 0x10000 0x100>;
		linux,pci-domain = <1>;
	};
	domains {
		compatible = "cofferdam,domains-v1";
		a {
			compatible = "cofferdam,domain";
			#address-cells = <2>;
			#size-cells = <2>;
			cpus = <&cpu0>;
			kernel = "tiny.raw";
			access = <&nvme0>, <&edu0>, <&sw0>;
			memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x0 0x01000000>; };
		};
		b {
			compatible = "cofferdam,domain";
			#address-cells = <2>;
			#size-cells = <2>;
			cpus = <&cpu1>;
			kernel = "tiny.raw";
			delivery = "direct";
			access = <&nic1>, <&rp0>;
			memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x0 0x01000000>; };
		};
		c {
			compatible = "cofferdam,domain";
			#address-cells = <2>;
			#size-cells = <2>;
			cpus = <&cpu2>;
			kernel = "tiny.raw";
			on-fault = "restart";
			access = <&blk0>, <&nic3>;
			memory@40000000 { device_type = "memory"; reg = <0x0 0x40000000 0x0 0x01000000>; };
		};
	};
};
"#;

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "7",
    "0x10",
    "0x20",
    "0x40",
    "0x7f",
    "0xff",
    "0x100",
    "0x800",
    "0xffc",
    "0x1000",
    "0xffff",
    "0x10000",
    "0x100000",
    "0x01000010",
    "0x02000010",
    "0x03000024",
    "0x43000010",
    "0x40000000",
    "0x7fffffff",
    "0x80000000",
    "0xfffff000",
    "0xffffffff",
    "&smmu",
    "&its",
    "&gic",
    "&nvme0",
    "&rp0",
    "&sw0",
    "&pcie0",
];

/// Marsaglia's xorshift: the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below.max(1) as u64) as usize
    }

    fn number(&mut self) -> &'static str {
        NUMBERS[self.below(NUMBERS.len())]
    }
}

/// Whether cells may be changed: those of PCI, not of the domains.
fn is_open(line: &str) -> bool {
    line.contains('<') && !line.contains("access") && !line.contains("cpus") && !line.contains("memory@")
}

/// One change: a cell becomes another, goes, or comes; a property goes, or moves to another node.
fn change(lines: &mut Vec<String>, random: &mut Random) {
    let open: Vec<usize> = (0..lines.len()).filter(|at| is_open(&lines[*at])).collect();
    let at = open[random.below(open.len())];
    let line = lines[at].clone();
    match random.below(8) {
        // A property that spans lines would leave its rest: that is for the parser's tests.
        0 if line.contains('=') && line.ends_with(';') => drop(lines.remove(at)),
        1 if line.contains('=') && line.ends_with(';') => {
            let other = open[random.below(open.len())];
            if lines[other].contains('=') && lines[other].ends_with(';') {
                lines[other] = line;
            }
        }
        kind => {
            let (start, end) = (line.find('<').map_or(0, |at| at + 1), line.rfind('>').unwrap_or(line.len()));
            let Some(inside) = line.get(start..end) else { return };
            let mut cells: Vec<&str> = inside.split(' ').filter(|cell| !cell.is_empty()).collect();
            let cell = random.below(cells.len());
            match kind {
                2 => drop((!cells.is_empty()).then(|| cells.remove(cell))),
                3 => cells.insert(cell, random.number()),
                _ => cells.iter_mut().skip(cell).take(1).for_each(|cell| *cell = random.number()),
            }
            lines[at] = format!("{}{}{}", &line[..start], cells.join(" "), &line[end..]);
        }
    }
}

/// What is wrong with a message itself.
fn complaint(diagnostic: &Diagnostic<'_>) -> Option<String> {
    let Diagnostic { code, message, help, .. } = diagnostic;
    let texts = diagnostic.labels.iter().map(|l| l.text).chain([*message, diagnostic.label, *help]);
    let hole = |text: &str| {
        (0..diagnostic.args.len()).any(|n| diagnostic.args[n] == Arg::None && text.contains(&format!("{{{n}}}")))
    };
    let texts: Vec<&str> = texts.filter(|text| hole(text)).collect();
    if !texts.is_empty() {
        return Some(format!("{code}: no argument for {texts:?}"));
    }
    if *code == Code::error(1399) {
        return Some(diagnostic.fill(message).to_string());
    }
    let error = code.severity == Severity::Error;
    (error && diagnostic.primary == Span::default()).then(|| format!("{code} has no place: {message}"))
}

/// What is wrong with what the compiler says of the board as changed by these seeds, and how many of them compile.
fn try_out(seeds: std::ops::Range<u64>) -> (Vec<String>, usize) {
    let root: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository is there");
    let boards = root.join("dts");
    let board = std::fs::read_to_string(boards.join("qemu-virt-pci.dts")).expect("the board is there");
    let text = board + MORE;
    let path = root.join("partitioner/tests/reject/damaged.dts");
    let name = path.to_str().expect("paths are text");
    let (mut wrong, mut compiled) = (Vec::new(), 0);
    let source = cofferdam_dts::Source { path: name, text: &text };
    support::compile_source(source, &path, &boards, |raised, _| {
        let errors: Vec<_> = raised.iter().filter(|d| d.code.severity == Severity::Error).collect();
        assert!(errors.is_empty(), "unchanged: {errors:#?}");
    });
    for seed in seeds {
        let mut random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed + 1) | 1);
        let mut lines: Vec<String> = text.lines().map(String::from).collect();
        let changes = random.below(4);
        (0..=changes).for_each(|_| change(&mut lines, &mut random));
        let text = lines.join("\n");
        let source = cofferdam_dts::Source { path: name, text: &text };
        support::compile_source(source, &path, &boards, |raised, files| {
            compiled += usize::from(raised.iter().all(|d| d.code.severity != Severity::Error));
            for diagnostic in raised {
                // It panics at a place outside the text.
                let mark = support::place(diagnostic, files);
                wrong.extend(complaint(diagnostic).map(|why| format!("seed {seed}, line {}: {why}", mark.line)));
            }
        });
    }
    (wrong, compiled)
}

#[test]
fn messages_have_their_place_and_plans_their_proof() {
    let (wrong, compiled) = try_out(0..400);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compiled >= 40, "only {compiled} of 400 compile: hardly a plan is proven");
}
