//! What the crate `virtio-drivers` wants to know of its surroundings: memory, configuration space, and one feature.
#![allow(unsafe_code)] // memory that a device shares

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use unikernel::pci::{Function, Host};
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// VIRTIO_F_ACCESS_PLATFORM (Virtual I/O Device 1.2, 6): the device reaches memory the way the platform has set up, not past it.
/// A device behind an IOMMU offers it and works with nobody who declines.
const ACCESS_PLATFORM: u64 = 1 << 33;

/// Pages for queues: two queues of two parts.
const PAGES: usize = 8;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[u8; PAGES * PAGE_SIZE]>);
// SAFETY: each page is handed out once.
unsafe impl Sync for Pool {}
static POOL: Pool = Pool(UnsafeCell::new([0; PAGES * PAGE_SIZE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Memory, where an address is the same for CPU and device.
pub(crate) struct Memory;

// SAFETY: pages come from a zeroed pool of the program's own, each once.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = USED.fetch_add(pages, Ordering::Relaxed);
        if first + pages > PAGES {
            return (0, NonNull::dangling());
        }
        let at = POOL.0.get() as usize + first * PAGE_SIZE;
        (at as PhysAddr, NonNull::new(at as *mut u8).unwrap_or(NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // A card is opened once and kept; pages are not handed out again.
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr() as *mut u8 as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The domain's configuration space.
pub(crate) struct Words(pub(crate) Host);

impl ConfigurationAccess for Words {
    fn read_word(&self, at: DeviceFunction, register: u8) -> u32 {
        self.0.read(Function(at.device << 3 | at.function), u16::from(register))
    }

    fn write_word(&mut self, at: DeviceFunction, register: u8, data: u32) {
        self.0.write(Function(at.device << 3 | at.function), u16::from(register), data);
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0)
    }
}

/// A transport that accepts [`ACCESS_PLATFORM`] for drivers that do not know it.
pub(crate) struct Platform<T>(pub(crate) T);

impl<T: Transport> Transport for Platform<T> {
    fn write_driver_features(&mut self, features: u64) {
        let offered = self.0.read_device_features() & ACCESS_PLATFORM;
        self.0.write_driver_features(features | offered);
    }

    fn device_type(&self) -> DeviceType {
        self.0.device_type()
    }
    fn read_device_features(&mut self) -> u64 {
        self.0.read_device_features()
    }
    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.max_queue_size(queue)
    }
    fn notify(&mut self, queue: u16) {
        self.0.notify(queue);
    }
    fn get_status(&self) -> DeviceStatus {
        self.0.get_status()
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.0.set_status(status);
    }
    fn set_guest_page_size(&mut self, size: u32) {
        self.0.set_guest_page_size(size);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.0.requires_legacy_layout()
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0.queue_set(queue, size, descriptors, driver, device);
    }
    fn queue_unset(&mut self, queue: u16) {
        self.0.queue_unset(queue);
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.queue_used(queue)
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }
    fn read_config_generation(&self) -> u32 {
        self.0.read_config_generation()
    }
    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> virtio_drivers::Result<V> {
        self.0.read_config_space(offset)
    }
    fn write_config_space<V: IntoBytes + Immutable>(&mut self, offset: usize, value: V) -> virtio_drivers::Result<()> {
        self.0.write_config_space(offset, value)
    }
}
