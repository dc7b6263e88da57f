//! A guest to type to, as a system's shell is: a prompt without a line end, every key echoed as it comes.
#![no_std]
#![no_main]

use embedded_io::{Read, Write};
use unikernel::console::console;

unikernel::entry!(main);

fn main() {
    let Some(mut console) = console() else { return };
    let mut line = [0; 80];
    loop {
        let Ok(()) = console.write_all(b"> ");
        let mut len = 0;
        loop {
            let mut byte = [0];
            let Ok(_) = console.read(&mut byte);
            match byte[0] {
                b'\r' | b'\n' => break,
                0x08 | 0x7F if len > 0 => {
                    len -= 1;
                    let Ok(()) = console.write_all(b"\x08 \x08");
                }
                other => {
                    if let Some(slot) = line.get_mut(len) {
                        *slot = other;
                        len += 1;
                        let Ok(()) = console.write_all(&byte);
                    }
                }
            }
        }
        let Ok(()) = console.write_all(b"\r\n");
        match line.get(..len) {
            Some(b"exit") => return,
            Some(line) if !line.is_empty() => {
                let Ok(()) = console.write_all(b"you said ");
                let Ok(()) = console.write_all(line);
                let Ok(()) = console.write_all(b"\r\n");
            }
            _ => {}
        }
    }
}
