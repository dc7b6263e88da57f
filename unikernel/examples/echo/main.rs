//! An interactive console: each line typed comes back in capitals. Input arrives by interrupt, the vCPU sleeps in between.
//! `quit` ends it.
#![no_std]
#![no_main]

use embedded_io::{Read, Write};
use unikernel::console::console;
use unikernel::{clock, println};

unikernel::entry!(main);

fn main() {
    let Some(mut console) = console() else { return };
    println!("echo: type something, quit to leave");
    let mut line = [0; 80];
    loop {
        let mut len = 0;
        loop {
            let mut byte = [0];
            let Ok(_) = console.read(&mut byte);
            match byte[0] {
                b'\r' | b'\n' => break,
                other => {
                    if let Some(slot) = line.get_mut(len) {
                        *slot = other;
                        len += 1;
                    }
                }
            }
        }
        let line = &mut line[..len];
        if line == b"quit" {
            break;
        }
        line.make_ascii_uppercase();
        let Ok(()) = console.write_all(b"echo: ");
        let Ok(()) = console.write_all(line);
        let Ok(()) = console.write_all(b"\n");
    }
    println!("echo: bye after {} s", clock::uptime().as_secs());
}
