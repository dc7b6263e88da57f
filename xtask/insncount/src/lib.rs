//! A QEMU TCG plugin: how many instructions each vCPU executes, until it first reaches an address or to the end.
//!
//! Why: with several vCPUs the counter under `-icount` also counts the others' turns, so the boot CPU's own work can only
//! be seen from outside. Without `-icount` vCPUs run in parallel, and this counts each by itself. Time spent waiting shows
//! as instructions in wait loops; those are counted apart. A run of a whole guest is told apart into the guest's own
//! instructions and the hypervisor's, which has addresses of its own.
//!
//! Arguments (addresses are virtual, hexadecimal): `stop=ADDRESS`; `within=FIRST-LAST` counts instructions there apart;
//! `hit=ADDRESS`, up to 16 times, counts how often this one is executed. At exit a line
//! `insncount vcpu=V insns=I waits=W within=H reached=0|1` per vCPU and `insncount hit=ADDRESS times=N` per address go to
//! QEMU's plugin log (`-d plugin -D FILE`).
#![allow(unsafe_code)] // a plugin is called by QEMU through its C interface

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Interface version. 2 is the oldest that QEMU 9 and 10 accept; nothing newer is used.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 2;

const MAX_VCPUS: usize = 64;
/// `QEMU_PLUGIN_CB_NO_REGS`
const NO_REGS: c_int = 0;

type Id = u64;
type VcpuCallback = extern "C" fn(c_uint, *mut c_void);
type TranslateCallback = extern "C" fn(Id, *mut c_void);
type ExitCallback = extern "C" fn(Id, *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: TranslateCallback);
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut c_void,
        callback: VcpuCallback,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_atexit_cb(id: Id, callback: ExitCallback, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(tb: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(tb: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_vaddr(insn: *const c_void) -> u64;
    fn qemu_plugin_insn_data(insn: *const c_void, dest: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_outs(text: *const c_char);
}

struct Counter {
    insns: AtomicU64,
    waits: AtomicU64,
    within: AtomicU64,
    reached: AtomicBool,
}

static COUNTERS: [Counter; MAX_VCPUS] = [const {
    Counter {
        insns: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        within: AtomicU64::new(0),
        reached: AtomicBool::new(false),
    }
}; MAX_VCPUS];
static STOP: AtomicU64 = AtomicU64::new(u64::MAX);
/// First and last address that is counted apart; none until an argument says so.
static WITHIN: [AtomicU64; 2] = [AtomicU64::new(u64::MAX), AtomicU64::new(0)];

/// An address whose executions are counted.
struct Hit {
    address: AtomicU64,
    times: AtomicU64,
}
const MAX_HITS: usize = 16;
static HITS: [Hit; MAX_HITS] =
    [const { Hit { address: AtomicU64::new(u64::MAX), times: AtomicU64::new(0) } }; MAX_HITS];

/// Each vCPU is one thread's at a time and has a counter of its own, so nothing is lost without a locked addition.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

fn live(vcpu: c_uint) -> Option<&'static Counter> {
    COUNTERS.get(vcpu as usize).filter(|c| !c.reached.load(Ordering::Relaxed))
}

extern "C" fn executed(vcpu: c_uint, _: *mut c_void) {
    if let Some(counter) = live(vcpu) {
        add(&counter.insns);
    }
}

extern "C" fn executed_within(vcpu: c_uint, _: *mut c_void) {
    if let Some(counter) = live(vcpu) {
        add(&counter.insns);
        add(&counter.within);
    }
}

/// `data` is the index in [`HITS`]. Counted beside the rest.
extern "C" fn hit(_: c_uint, data: *mut c_void) {
    if let Some(hit) = HITS.get(data as usize) {
        hit.times.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn waited(vcpu: c_uint, _: *mut c_void) {
    if let Some(counter) = live(vcpu) {
        add(&counter.insns);
        add(&counter.waits);
    }
}

extern "C" fn stopped(vcpu: c_uint, _: *mut c_void) {
    if let Some(counter) = live(vcpu) {
        counter.reached.store(true, Ordering::Relaxed);
    }
}

/// WFE, WFI and YIELD of A64 (DDI 0487, C6.2, hint space).
fn is_wait(opcode: u32) -> bool {
    matches!(opcode, 0xD503_205F | 0xD503_207F | 0xD503_203F)
}

extern "C" fn translated(_: Id, tb: *mut c_void) {
    // SAFETY: QEMU passes a translation block that is valid during this call.
    let count = unsafe { qemu_plugin_tb_n_insns(tb) };
    for index in 0..count {
        // SAFETY: `index` is below the block's count.
        let insn = unsafe { qemu_plugin_tb_get_insn(tb, index) };
        // SAFETY: `insn` belongs to the block QEMU is translating.
        let vaddr = unsafe { qemu_plugin_insn_vaddr(insn) };
        let mut opcode = [0u8; 4];
        // SAFETY: `opcode` has room for the four bytes asked for.
        unsafe { qemu_plugin_insn_data(insn, opcode.as_mut_ptr().cast(), opcode.len()) };
        let callback = if vaddr == STOP.load(Ordering::Relaxed) {
            stopped
        } else if is_wait(u32::from_le_bytes(opcode)) {
            waited
        } else if (WITHIN[0].load(Ordering::Relaxed)..=WITHIN[1].load(Ordering::Relaxed)).contains(&vaddr) {
            executed_within
        } else {
            executed
        };
        for (index, _) in HITS.iter().enumerate().filter(|(_, hit)| hit.address.load(Ordering::Relaxed) == vaddr) {
            // SAFETY: as below; the data is a number, not a pointer.
            unsafe { qemu_plugin_register_vcpu_insn_exec_cb(insn, hit, NO_REGS, index as *mut c_void) };
        }
        // SAFETY: the callback is a plain function that lives as long as the plugin.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(insn, callback, NO_REGS, std::ptr::null_mut()) };
    }
}

extern "C" fn exit(_: Id, _: *mut c_void) {
    for (vcpu, counter) in COUNTERS.iter().enumerate() {
        let insns = counter.insns.load(Ordering::Relaxed);
        if insns == 0 {
            continue;
        }
        let waits = counter.waits.load(Ordering::Relaxed);
        let within = counter.within.load(Ordering::Relaxed);
        let reached = u8::from(counter.reached.load(Ordering::Relaxed));
        say(&format!("insncount vcpu={vcpu} insns={insns} waits={waits} within={within} reached={reached}\n"));
    }
    for hit in HITS.iter().filter(|hit| hit.address.load(Ordering::Relaxed) != u64::MAX) {
        let (address, times) = (hit.address.load(Ordering::Relaxed), hit.times.load(Ordering::Relaxed));
        say(&format!("insncount hit={address:#x} times={times}\n"));
    }
}

fn say(line: &str) {
    if let Ok(line) = CString::new(line) {
        // SAFETY: a NUL-terminated string that lives through the call.
        unsafe { qemu_plugin_outs(line.as_ptr()) };
    }
}

/// One argument; `None` where it is not understood.
fn argument(text: &str) -> Option<()> {
    let address = |hex: &str| u64::from_str_radix(hex.trim_start_matches("0x"), 16).ok();
    match text.split_once('=')? {
        ("stop", value) => STOP.store(address(value)?, Ordering::Relaxed),
        ("within", value) => {
            let (first, last) = value.split_once('-')?;
            WITHIN[0].store(address(first)?, Ordering::Relaxed);
            WITHIN[1].store(address(last)?, Ordering::Relaxed);
        }
        ("hit", value) => {
            let free = HITS.iter().find(|hit| hit.address.load(Ordering::Relaxed) == u64::MAX)?;
            free.address.store(address(value)?, Ordering::Relaxed);
        }
        _ => return None,
    }
    Some(())
}

/// Called once by QEMU. Returns nonzero where an argument cannot be read.
///
/// # Safety
/// `argv` holds `argc` NUL-terminated strings, as QEMU's plugin interface promises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    for index in 0..usize::try_from(argc).unwrap_or(0) {
        // SAFETY: `index` is below `argc`.
        let place = unsafe { argv.add(index) };
        // SAFETY: one of the `argc` pointers.
        let pointer = unsafe { *place };
        // SAFETY: QEMU passes NUL-terminated strings.
        let text = unsafe { CStr::from_ptr(pointer) }.to_string_lossy();
        if argument(&text).is_none() {
            return 1;
        }
    }
    // SAFETY: the callback lives as long as the plugin.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    // SAFETY: as above; no data is passed.
    unsafe { qemu_plugin_register_atexit_cb(id, exit, std::ptr::null_mut()) };
    0
}
