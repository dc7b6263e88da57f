//! The end of a guest that broke: say where, then power off, so that a boot test sees it at once.

use crate::{console, platform, psci};
use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    console::force();
    match info.location() {
        Some(at) => crate::println!("panic at {}:{}: {}", at.file(), at.line(), info.message()),
        None => crate::println!("panic: {}", info.message()),
    }
    if platform::get().is_none() {
        psci::halt();
    }
    psci::system_off()
}
