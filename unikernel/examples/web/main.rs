//! An HTTP server on a virtio network card, asleep between requests. `GET /off` ends it.
//!
//! `ip=` in the boot arguments gives its address, `10.0.2.20` without; the network is a /24, of IPv6 a /64. `requests=` ends it after
//! so many.
#![no_std]
#![no_main]

mod nic;
mod virtio;

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use nic::Nic;
use smoltcp::iface::{Config, Interface, SocketSet, SocketStorage};
use smoltcp::socket::{AnySocket, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpVersion};
use unikernel::{clock, cpu, irq, platform, println};

unikernel::entry!(main);

const PORT: u16 = 80;
/// Longest request that is read, and longest answer.
const REQUEST: usize = 512;
/// Connections at a time.
const CONNECTIONS: usize = 4;

/// The card has something to say.
static CALLED: AtomicBool = AtomicBool::new(false);

fn main() {
    let Some((mut nic, intid)) = Nic::find() else { return println!("web: no virtio network card") };
    let address = platform::platform().argument("ip").and_then(|text| text.parse::<IpAddress>().ok());
    let address = address.unwrap_or(IpAddress::v4(10, 0, 2, 20));
    let prefix = if address.version() == IpVersion::Ipv4 { 24 } else { 64 };
    let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(nic.address())));
    let mut interface = Interface::new(config, &mut nic, now());
    interface.update_ip_addrs(|addresses| {
        // The list is empty and has room.
        let _ = addresses.push(IpCidr::new(address, prefix));
    });
    let mut buffers = [[[0; REQUEST]; 2]; CONNECTIONS];
    let mut storage = [SocketStorage::EMPTY; CONNECTIONS];
    let mut sockets = SocketSet::new(&mut storage[..]);
    for [received, sent] in &mut buffers {
        let buffers = (tcp::SocketBuffer::new(&mut received[..]), tcp::SocketBuffer::new(&mut sent[..]));
        sockets.add(tcp::Socket::new(buffers.0, buffers.1));
    }

    if irq::register(intid, called).is_err() {
        return println!("web: no handler for interrupt {intid}");
    }
    irq::enable(intid);
    println!("web: http://{address}/");
    let most = platform::platform().argument("requests").and_then(|text| text.parse::<u32>().ok());
    let mut served = 0_u32;
    let mut is_last = false;
    loop {
        if CALLED.swap(false, Ordering::Relaxed) {
            nic.acknowledge();
            irq::enable(intid);
        }
        interface.poll(now(), &mut nic, &mut sockets);
        let mut open = 0;
        for socket in sockets.iter_mut().filter_map(|(_, socket)| <tcp::Socket<'_> as AnySocket>::downcast_mut(socket))
        {
            if socket.state() == tcp::State::TimeWait {
                // Nobody asks the same thing twice here: an old segment does no harm.
                socket.abort();
            }
            if !socket.is_open() && (is_last || socket.listen(PORT).is_err()) {
                continue;
            }
            if socket.may_recv() && socket.may_send() {
                if let Some(last) = answer(socket, served + 1) {
                    served += 1;
                    is_last |= last || most == Some(served);
                    socket.close();
                }
            } else if socket.state() == tcp::State::CloseWait {
                // It left before it had asked.
                socket.close();
            }
            open += u32::from(socket.state() != tcp::State::Listen);
        }
        if is_last && open == 0 {
            break;
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
