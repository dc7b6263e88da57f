//! The network card as smoltcp wants it: frames in, frames out. Each is copied once.
#![allow(unsafe_code)] // the card writes into buffers that the driver is only lent

use super::virtio::{Memory, Platform, Words};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use smoltcp::phy::{self, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use unikernel::pci::{Function, Host};
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::Transport;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{DeviceFunction, PciRoot};

const QUEUE: usize = 8;
/// Bytes of a buffer: the device's header and a whole frame.
const BUFFER: usize = 2048;
/// Longest Ethernet frame without its checksum.
const FRAME: usize = 1514;

type Driver = VirtIONetRaw<Memory, Platform<PciTransport>, QUEUE>;

/// What a card is given to receive into, and one frame each way.
struct Buffers {
    receive: [[u8; BUFFER]; QUEUE],
    frame: [u8; BUFFER],
    out: [u8; FRAME],
}

struct Cell(UnsafeCell<Buffers>);
// SAFETY: `take` hands it out once.
unsafe impl Sync for Cell {}
static BUFFERS: Cell =
    Cell(UnsafeCell::new(Buffers { receive: [[0; BUFFER]; QUEUE], frame: [0; BUFFER], out: [0; FRAME] }));
static TAKEN: AtomicBool = AtomicBool::new(false);

fn take() -> Option<&'static mut Buffers> {
    // SAFETY: the first to come has it to itself.
    (!TAKEN.swap(true, Ordering::Relaxed)).then(|| unsafe { &mut *BUFFERS.0.get() })
}

/// A virtio network card.
pub(crate) struct Nic {
    driver: Driver,
    buffers: &'static mut Buffers,
    /// The driver's name of each buffer that the card has.
    tokens: [Option<u16>; QUEUE],
}

impl Nic {
    /// The first one on the domain's bus, and the INTID of its pin.
    pub(crate) fn find() -> Option<(Self, u32)> {
        let host = Host::find()?;
        host.functions().find_map(|function| Self::open(host, function))
    }

    fn open(host: Host, function: Function) -> Option<(Self, u32)> {
        let at = DeviceFunction { bus: 0, device: function.0 >> 3, function: function.0 & 7 };
        if host.id(function) & 0xFFFF != 0x1AF4 || !host.enable(function) {
            return None;
        }
        let intid = host.interrupt(function)?;
        let transport = PciTransport::new::<Memory, _>(&mut PciRoot::new(Words(host)), at).ok()?;
        if transport.device_type() != DeviceType::Network {
            return None;
        }
        let driver = Driver::new(Platform(transport)).ok()?;
        let mut nic = Self { driver, buffers: take()?, tokens: [None; QUEUE] };
        (0..QUEUE).for_each(|index| nic.lend(index));
        nic.driver.enable_interrupts();
        Some((nic, intid))
    }

    /// Its Ethernet address.
    pub(crate) fn address(&self) -> [u8; 6] {
        self.driver.mac_address()
    }

    /// Takes back its interrupt.
    pub(crate) fn acknowledge(&mut self) {
        self.driver.ack_interrupt();
    }

    /// Gives the card buffer `index`.
    fn lend(&mut self, index: usize) {
        // SAFETY: the buffer is not touched before `receive` gets it back by this token.
        self.tokens[index] = unsafe { self.driver.receive_begin(&mut self.buffers.receive[index]) }.ok();
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        let token = self.driver.poll_receive()?;
        let index = self.tokens.iter().position(|one| *one == Some(token))?;
        let buffer = &mut self.buffers.receive[index];
        // SAFETY: the buffer that was lent by this token.
        let done = unsafe { self.driver.receive_complete(token, buffer) };
        let frame = done.ok().and_then(|(header, len)| buffer.get(header..header + len));
        let len = frame.map_or(0, |frame| {
            self.buffers.frame[..frame.len()].copy_from_slice(frame);
            frame.len()
        });
        self.lend(index);
        let room = Room { driver: &mut self.driver, out: &mut self.buffers.out };
        Some((Received(&mut self.buffers.frame[..len]), room))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        Some(Room { driver: &mut self.driver, out: &mut self.buffers.out })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}

/// A frame that has come.
pub(crate) struct Received<'a>(&'a mut [u8]);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

/// Room for a frame to go.
pub(crate) struct Room<'a> {
    driver: &'a mut Driver,
    out: &'a mut [u8; FRAME],
}

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let frame = &mut self.out[..len];
        let result = write(frame);
        // A frame that is lost is TCP's business.
        let _ = self.driver.send(frame);
        result
    }
}
