//! One vCPU that ticks: ten beats, 150 ms apart, each at its own absolute deadline. Drives a GPIO pin where it has one.
#![no_std]
#![no_main]

use core::time::Duration;
use embedded_hal::digital::{OutputPin, StatefulOutputPin};
use unikernel::gpio::Gpio;
use unikernel::{clock, cpu, platform, println};

unikernel::entry!(main);

const BEATS: u64 = 10;
const PERIOD: Duration = Duration::from_millis(150);

fn main() {
    let platform = platform::platform();
    println!(
        "pulse: {} vCPU (affinity {:#x}), {} MiB of RAM at {:#x}",
        platform.cpus().len(),
        cpu::mpidr(),
        platform.memory.size >> 20,
        platform.memory.base
    );
    let mut pin = Gpio::new(0).and_then(|gpio| gpio.output(0));
    if pin.is_some() {
        println!("pulse: driving pin 0 of its own PL061");
    }
    let start = clock::ticks();
    for beat in 1..=BEATS {
        clock::sleep_until(start + beat * clock::to_ticks(PERIOD));
        match &mut pin {
            Some(pin) => {
                let Ok(()) = if beat % 2 == 1 { pin.set_high() } else { pin.set_low() };
                let Ok(high) = pin.is_set_high();
                println!("pulse: beat {beat} of {BEATS}, pin {}", if high { "high" } else { "low" });
            }
            None => println!("pulse: beat {beat} of {BEATS}"),
        }
    }
    println!("pulse: done");
}
