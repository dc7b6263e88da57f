//! A pin that blinks, written against `embedded-hal` only: `blink` below would drive any board's pin.
#![no_std]
#![no_main]

use embedded_hal::delay::DelayNs;
use embedded_hal::digital::StatefulOutputPin;
use unikernel::clock::Delay;
use unikernel::gpio::Gpio;
use unikernel::println;

unikernel::entry!(main);

fn main() {
    let Some(mut pin) = Gpio::new(0).and_then(|gpio| gpio.output(3)) else {
        return println!("blink: this domain has no PL061; give it one with access = <&gpio0>");
    };
    let Ok(()) = blink(&mut pin, &mut Delay, 4);
    println!("blink: done");
}

fn blink<P: StatefulOutputPin, D: DelayNs>(pin: &mut P, delay: &mut D, times: u32) -> Result<(), P::Error> {
    for _ in 0..2 * times {
        pin.toggle()?;
        println!("blink: {}", if pin.is_set_high()? { "on" } else { "off" });
        delay.delay_ms(100);
    }
    Ok(())
}
