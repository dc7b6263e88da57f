//! An HTTP server on a virtio network card: one connection at a time, asleep in between. `GET /off` ends it.
//!
//! `ip=` in the boot arguments gives its address, `10.0.2.20` without; the network is a /24.
#![no_std]
#![no_main]

mod nic;
mod virtio;

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use nic::Nic;
use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address};
use unikernel::{clock, cpu, irq, platform, println};

unikernel::entry!(main);

const PORT: u16 = 80;
/// Longest request that is read.
const REQUEST: usize = 1024;

/// The card has something to say.
static CALLED: AtomicBool = AtomicBool::new(false);

fn main() {
    let Some((mut nic, intid)) = Nic::find() else { return println!("web: no virtio network card") };
    let address = platform::platform().argument("ip").and_then(|text| text.parse::<Ipv4Address>().ok());
    let address = address.unwrap_or(Ipv4Address::new(10, 0, 2, 20));
    let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(nic.address())));
    let mut interface = Interface::new(config, &mut nic, now());
    interface.update_ip_addrs(|addresses| {
        // The list is empty and has room.
        let _ = addresses.push(IpCidr::new(address.into(), 24));
    });
    let (mut received, mut sent) = ([0; REQUEST], [0; 1024]);
    let mut storage = [SocketStorage::EMPTY];
    let mut sockets = SocketSet::new(&mut storage[..]);
    let buffers = (tcp::SocketBuffer::new(&mut received[..]), tcp::SocketBuffer::new(&mut sent[..]));
    let handle = sockets.add(tcp::Socket::new(buffers.0, buffers.1));

    if irq::register(intid, called).is_err() {
        return println!("web: no handler for interrupt {intid}");
    }
    irq::enable(intid);
    println!("web: http://{address}/");
    let mut served = 0_u32;
    let mut is_last = false;
    loop {
        if CALLED.swap(false, Ordering::Relaxed) {
            nic.acknowledge();
            irq::enable(intid);
        }
        interface.poll(now(), &mut nic, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        if !socket.is_open() {
            if is_last || socket.listen(PORT).is_err() {
                break;
            }
        } else if socket.may_recv() && socket.may_send() {
            if let Some(last) = answer(socket, served + 1) {
                served += 1;
                is_last = last;
                socket.close();
            }
        } else if socket.state() == tcp::State::CloseWait {
            // It left before it had asked.
            socket.close();
        }
        let delay = interface.poll_delay(now(), &sockets);
        wait(delay.map(|delay| Duration::from_micros(delay.total_micros())));
    }
    println!("web: {served} requests");
}

/// Answers a request that has come as a whole; whether it is the last.
fn answer(socket: &mut tcp::Socket<'_>, number: u32) -> Option<bool> {
    let queued = socket.recv_queue();
    let request = socket.peek(REQUEST).ok()?;
    let is_whole = request.windows(4).any(|end| end == b"\r\n\r\n");
    if !is_whole && queued < REQUEST {
        return None;
    }
    let (status, is_last) = match request.split(|byte| *byte == b' ').nth(1) {
        Some(b"/off") => ("200 OK", true),
        Some(b"/") => ("200 OK", false),
        _ => ("404 Not Found", false),
    };
    let mut page = Page::default();
    // A page that does not fit would be cut; it has room to spare.
    let _ = writeln!(page, "request {number} of a unikernel, answer {status}");
    let page = page.text();
    let _ =
        write!(socket, "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    Some(is_last)
}

/// Text of at most a line.
struct Page {
    bytes: [u8; 128],
    len: usize,
}

impl Default for Page {
    fn default() -> Self {
        Self { bytes: [0; 128], len: 0 }
    }
}

impl Page {
    fn text(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

fn now() -> Instant {
    Instant::from_micros(clock::uptime().as_micros() as i64)
}

/// The card's line is level-sensitive: it stays quiet until the main loop has asked the card.
fn called(intid: u32) {
    irq::disable(intid);
    CALLED.store(true, Ordering::Relaxed);
}

/// Sleeps until the card calls, at most `longest`.
fn wait(longest: Option<Duration>) {
    let mask = cpu::mask();
    if let Some(longest) = longest {
        clock::set_alarm(clock::ticks() + clock::to_ticks(longest), || {});
    }
    // An interrupt that comes from here on is pending, and WFI does not wait for it to be taken.
    if longest != Some(Duration::ZERO) && !CALLED.load(Ordering::Relaxed) {
        cpu::wfi();
    }
    cpu::restore(mask);
}
