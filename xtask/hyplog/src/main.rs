//! `hyplog ELF`: turns frames of the hypervisor's log into words.
//!
//! Each line of standard input is one defmt frame in hexadecimal digits; it is answered on standard output by lines that
//! start with `=` (words) or `?` (why there are none), and a line `.`. The caller keeps the frame and can show it raw. Why
//! a program of its own: the decoder needs many crates, which `cargo xtask check` must not wait for.

use defmt_decoder::{Encoding, Locations, Table};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: hyplog ELF, frames in hexadecimal on standard input");
        return ExitCode::from(2);
    };
    let elf = match std::fs::read(&path) {
        Ok(elf) => elf,
        Err(error) => {
            eprintln!("hyplog: cannot read {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    let table = match Table::parse(&elf) {
        Ok(Some(table)) => table,
        Ok(None) => {
            eprintln!("hyplog: {} has no .defmt section", path.display());
            return ExitCode::from(2);
        }
        Err(error) => {
            eprintln!("hyplog: {}: {error}", path.display());
            return ExitCode::from(2);
        }
    };
    // Without debug information the words are still there, only their places are not.
    let locations =
        table.get_locations(&elf).ok().filter(|found| table.indices().all(|i| found.contains_key(&(i as u64))));
    match answer_all(&table, locations.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        // The caller is gone; there is nobody left to tell.
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer_all(table: &Table, locations: Option<&Locations>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        match hex(line?.trim()) {
            Some(bytes) => {
                for words in decode(table, locations, bytes) {
                    match words {
                        Ok(words) => writeln!(out, "={}", words.replace('\n', " "))?,
                        Err(why) => writeln!(out, "?{why}")?,
                    }
                }
            }
            None => writeln!(out, "?not an even number of hexadecimal digits")?,
        }
        writeln!(out, ".")?;
        out.flush()?;
    }
    Ok(())
}

/// One line of words for each frame in `bytes`.
fn decode(table: &Table, locations: Option<&Locations>, mut bytes: Vec<u8>) -> Vec<Result<String, String>> {
    // An rzcobs frame ends with a zero byte; the line's end stands for it.
    if table.encoding() == Encoding::Rzcobs && bytes.last() != Some(&0) {
        bytes.push(0);
    }
    let mut decoder = table.new_stream_decoder();
    decoder.received(&bytes);
    let mut lines = Vec::new();
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map_or("", |level| level.as_str());
                let place = locations
                    .and_then(|all| all.get(&frame.index()))
                    .map(|place| {
                        format!("  ({}:{})", place.file.strip_prefix(".").unwrap_or(&place.file).display(), place.line)
                    })
                    .unwrap_or_default();
                lines.push(Ok(format!("{level:<5} {}{place}", frame.display_message()).trim_start().to_string()));
            }
            Err(defmt_decoder::DecodeError::UnexpectedEof) => break,
            Err(defmt_decoder::DecodeError::Malformed) => {
                lines.push(Err("damaged frame, or one of another build".into()));
                break;
            }
        }
    }
    if lines.is_empty() {
        lines.push(Err("incomplete frame".into()));
    }
    lines
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() % 2 != 0 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
