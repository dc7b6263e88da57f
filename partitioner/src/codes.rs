//! Every code this crate raises. Number = group × 100 + ordinal of the check in its group; E and W share the numbers; notes have a W.
//!
//! A code is never reused. Each has one `docs/codes/<code>.md` and at least one fixture; `tests/fixtures.rs` holds the
//! three against each other through [`ALL`].

use cofferdam_dts::Code;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $kind:ident($number:literal);)*) => {
        $($(#[$doc])* pub const $name: Code = Code::$kind($number);)*
        /// Every code of this crate.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    /// A property or node the layout language does not know.
    UNKNOWN_WORD = error(119);
    /// A property with a value of the wrong type.
    WRONG_TYPE = error(120);
    /// A property or node that must be there and is not.
    MISSING = error(121);

    /// `reg` is not a whole number of entries.
    REG_LENGTH = error(201);
    /// `ranges` is not a whole number of entries, or empty between buses of different cells.
    RANGES_LENGTH = error(202);
    /// `reg` read with default cells.
    DEFAULT_CELLS = warning(203);
    /// `#address-cells` or `#size-cells` larger than any address.
    TOO_MANY_CELLS = error(204);
    /// Unit address and `reg` disagree.
    UNIT_ADDRESS = error(205);
    /// Two enabled siblings at one unit address.
    DUPLICATE_UNIT_ADDRESS = error(206);
    /// A bus does not pass a device's address on.
    UNTRANSLATABLE = error(207);
    /// A range that wraps or lies beyond every physical address.
    BEYOND_ADDRESSES = error(208);
    /// A `reg` entry of size zero.
    EMPTY_RANGE = error(209);
    /// A list of phandles and arguments ends early.
    SHORT_LIST = warning(210);
    /// More or fewer names than entries.
    NAMES_COUNT = error(211);
    /// An alias or `stdout-path` that leads nowhere.
    ALIAS_TARGET = error(212);
    /// A node that only means something below the root stands elsewhere.
    NOT_AT_ROOT = error(213);

    /// Two memory regions share physical RAM.
    RAM_OVERLAP = error(301);
    /// A memory region overlaps what the hypervisor keeps.
    RAM_HYPERVISOR = error(302);
    /// A memory region is not inside the board's RAM.
    RAM_OUTSIDE = error(303);
    /// A memory region overlaps a reservation.
    RAM_RESERVED = error(304);
    /// Two banks of the board's RAM overlap.
    BANK_OVERLAP = error(305);
    /// A memory region or a device's guest address is not aligned to a page.
    UNALIGNED = error(306);
    /// Two owners in one page of device registers.
    SHARED_PAGE = error(307);
    /// A granted device shares a page with registers nobody may have.
    PAGE_WITH_HYPERVISOR = error(308);
    /// Registers nobody may have.
    FORBIDDEN_DEVICE = error(309);
    /// Two regions of one domain overlap in its guest address space.
    IPA_OVERLAP = error(310);
    /// A guest address is too large or lies in an emulated window.
    IPA_WINDOW = error(311);
    /// Device registers that lie in RAM.
    REGISTERS_IN_RAM = error(313);
    /// A memory region that cannot use blocks.
    SMALL_PAGES = warning(315);
    /// More memory entries in a domain than the plan holds.
    TOO_MANY_BANKS = error(318);
    /// `host-address` does not have one entry per `reg` entry.
    HOST_ADDRESS_COUNT = error(321);
    /// `host-address` and `direct-map` in one node.
    TWO_PLACEMENTS = error(322);
    /// There is not enough free RAM.
    OUT_OF_RAM = error(323);
    /// The image finds no room at the planned address.
    NO_ROOM_FOR_IMAGE = error(324);
    /// The image would lie at addresses EL2 uses for itself.
    IMAGE_IN_WINDOW = error(325);
    /// A generated device tree would describe no memory.
    ALL_HIDDEN = error(326);

    /// One CPU in two domains, or twice in one.
    CPU_TWICE = error(401);
    /// Not a CPU, or one that is disabled.
    NOT_A_CPU = error(402);
    /// No CPU, or more than a domain can have.
    CPU_COUNT = error(403);
    /// Two CPUs of one affinity, or an affinity the GIC cannot target.
    BAD_AFFINITY = error(404);
    /// A CPU the boot path cannot start.
    ENABLE_METHOD = error(406);
    /// CPUs of different kinds in one domain.
    MIXED_CPUS = error(408);
    /// No PSCI, or one that an EL2 cannot call.
    NO_PSCI = warning(412);

    /// An interrupt specifier that cannot be read.
    BAD_SPECIFIER = error(501);
    /// An interrupt parent that is no interrupt controller.
    NOT_A_CONTROLLER = error(502);
    /// An interrupt number the controller does not have.
    INTERRUPT_NUMBER = error(503);
    /// An interrupt line that is the hypervisor's own.
    HYPERVISOR_LINE = error(504);
    /// One interrupt line, devices of two domains.
    SHARED_LINE = error(505);
    /// A per-CPU interrupt, which no device grant can carry.
    PER_CPU_INTERRUPT = error(506);
    /// A trigger the GIC cannot do, or two that disagree.
    BAD_TRIGGER = error(507);
    /// An interrupt that goes through a device of somebody else.
    FOREIGN_CONTROLLER = error(508);
    /// `interrupt-map` that cannot be read.
    BAD_INTERRUPT_MAP = error(509);
    /// `interrupt-map-mask` of the wrong length.
    BAD_INTERRUPT_MASK = error(510);
    /// A PCI function without messages and without a line for its pin.
    NO_INTERRUPT = warning(512);
    /// `msi-map` that cannot be read.
    MSI_MAP = error(513);
    /// One DeviceID at the ITS, two domains.
    DEVICE_ID_TWICE = error(514);
    /// An interrupt controller this version does not drive.
    GIC_VERSION = error(517);
    /// Too few redistributors for the CPUs.
    REDISTRIBUTORS = error(518);
    /// A GICv2 without its virtualization registers, or with frames that are not pages.
    GIC_FRAMES = error(519);
    /// A duty of the hypervisor on a CPU whose interrupts all go to its domain.
    NO_INTERRUPT_FOR_EL2 = error(520);
    /// Injected delivery without the list registers' maintenance interrupt.
    NO_MAINTENANCE = error(521);

    /// A PCI host bridge without its cells or windows.
    PCI_BRIDGE = error(601);
    /// `bus-range` that cannot be, or configuration space smaller than it.
    BUS_RANGE = error(602);
    /// A PCI function whose `reg` does not name it.
    PCI_FUNCTION = error(603);
    /// A PCI function's bus number that is not its bus's.
    PCI_BUS = error(604);
    /// Two nodes of one PCI function.
    BDF_TWICE = error(605);
    /// A function of a device whose function 0 is not there.
    NO_FUNCTION_ZERO = error(606);
    /// Functions of one device, two domains.
    DEVICE_SPLIT = error(607);
    /// Functions behind one conventional PCI bridge, two domains.
    BRIDGE_SPLIT = error(610);
    /// Bus numbers of bridges that do not nest.
    BUS_NUMBERS = error(611);
    /// A BAR for which no window of the host bridge has room.
    BAR_PLACE = error(612);
    /// Two base address registers in one place.
    BAR_TWICE = error(613);
    /// A 64-bit base address register without room for its upper half.
    BAR_WIDTH = error(614);
    /// A PCI function's I/O BAR demanded where there are no I/O ports.
    IO_BAR_WITHOUT_PORTS = error(619);
    /// An I/O BAR for which the host bridge's I/O window has no room.
    IO_WINDOW = error(621);
    /// A function's I/O BARs stay unassigned.
    IO_BAR_HIDDEN = note(622);
    /// What identifies a function is missing or cannot be.
    PCI_IDS = error(623);
    /// A virtual function.
    VIRTUAL_FUNCTION = error(624);
    /// A function of a domain that restarts, which nothing resets.
    NO_RESET = warning(625);
    /// Two host bridges with one domain number, or one configuration space.
    PCI_DOMAIN_TWICE = error(627);
    /// `io-ports` where there are no I/O ports.
    PORTS_WITHOUT_PORTS = error(628);
    /// A port range that is empty or ends beyond the last port.
    PORT_RANGE = error(629);
    /// One I/O port, two owners.
    PORT_TWICE = error(630);

    /// A `reg` entry of a function that is no base address register.
    BAR_SHAPE = error(631);
    /// A function with nothing but I/O BARs where there are no I/O ports.
    ONLY_IO_BARS = error(632);
    /// Capabilities that cannot be.
    CAPABILITIES = error(633);
    /// `io-bars` that names no I/O BAR of the domain.
    NOT_AN_IO_BAR = error(634);
    /// A host bridge whose bus addresses are not physical addresses.
    TRANSLATING_BRIDGE = error(635);
    /// Windows or configuration space of a host bridge that are not whole, or something else too.
    HOST_RANGES = error(636);
    /// A bridge without capabilities above a granted function.
    UNKNOWN_BRIDGE = error(637);

    /// A device that may master the bus, and no IOMMU in front of it.
    NO_IOMMU = error(701);
    /// One stream ID, two domains.
    STREAM_TWICE = error(702);
    /// `iommu-map` that cannot be read.
    IOMMU_MAP = error(703);
    /// A stream ID that the SMMU does not have.
    STREAM_BEYOND = error(704);
    /// Functions no IOMMU can tell apart, two domains.
    GROUP_SPLIT = error(705);
    /// An SMMU without stage 2.
    NO_STAGE_2 = error(706);
    /// An SMMU that cannot walk a domain's tables.
    SMMU_TABLES = error(707);
    /// An SMMU without room for its stream table or queues.
    SMMU_SIZES = error(708);
    /// A host bridge whose functions do not reach all of a domain's RAM.
    DMA_REACH = warning(711);
    /// Words on coherence that contradict each other.
    COHERENCE = error(712);
    /// An IOMMU asked for by a domain.
    IOMMU_GRANTED = error(713);
    /// A domain trusted with DMA whose RAM lies elsewhere than it sees it.
    TRUSTED_ELSEWHERE = error(714);
    /// `dma = "trusted"` that changes nothing.
    NEEDLESS_TRUST = warning(715);
    /// An SMMU without what the hypervisor needs of it.
    SMMU_LACKS = error(716);

    /// One device, two owners.
    DEVICE_TWICE = error(801);
    /// A device that is disabled.
    DEVICE_DISABLED = error(802);
    /// A device whose supplier is somebody else's.
    SUPPLIER = error(803);
    /// A device without its bus, or a bus without one of its devices.
    BUS_SPLIT = error(804);
    /// A device that belongs to firmware.
    FIRMWARE_DEVICE = error(806);
    /// Something that is no device.
    NOT_A_DEVICE = error(808);
    /// A device with power over the whole board, and no explicit grant.
    BOARD_AUTHORITY = error(809);
    /// `board-authority` for a device that is not granted or does not need it.
    NEEDLESS_AUTHORITY = warning(810);
    /// The medium the board boots from.
    BOOT_MEDIUM = error(811);
    /// `reg-ipa` that does not fit the devices it is for.
    REG_IPA = error(812);
    /// A device of a domain that restarts, which nothing resets.
    KEEPS_STATE = warning(815);

    /// The hypervisor's own UART asked for by a domain.
    UART_TWICE = error(1001);
    /// Log and console on one UART.
    LOG_ON_CONSOLE = error(1003);
    /// A console the hypervisor has no driver for.
    NO_CONSOLE = error(1007);
    /// Console input for something that cannot read it.
    NO_READER = error(1008);
    /// A watchdog that no other CPU could look after.
    NO_WATCHER = error(1010);
    /// A number of restarts or milliseconds that cannot be.
    LIFECYCLE_RANGE = error(1011);
    /// A limit on restarts that cannot happen.
    NEEDLESS_LIMIT = warning(1012);
    /// A chord for console input that nobody reads.
    NEEDLESS_ESCAPE = warning(1013);

    /// A guest image that is not there.
    IMAGE_MISSING = error(1101);
    /// A payload outside its domain's RAM, or over another one.
    PAYLOAD_PLACE = error(1102);
    /// An entry point that is not in loaded code.
    ENTRY = error(1103);
    /// An arm64 Image that breaks the rules of its header.
    ARM64_IMAGE = error(1104);
    /// A device tree at an address guests cannot use.
    DTB_PLACE = error(1105);
    /// An initial RAM disk outside its domain's RAM.
    INITRD_PLACE = error(1106);
    /// Boot arguments longer than Linux reads.
    BOOTARGS_LONG = warning(1111);
    /// A guest image without a byte.
    IMAGE_EMPTY = error(1113);
    /// An ELF file for another machine.
    ELF_MACHINE = error(1114);
    /// A damaged ELF file.
    ELF_DAMAGED = error(1115);
    /// An ELF file without anything to load.
    ELF_NO_SEGMENTS = error(1116);
    /// A compressed kernel.
    COMPRESSED = error(1117);
    /// `load` with a kernel that says its own address.
    LOAD_WITH_ELF = error(1118);
    /// A given device tree that is none.
    DTB_DAMAGED = error(1119);
    /// A guest image larger than the memory region it starts in.
    IMAGE_TOO_LARGE = error(1120);
    /// A device tree that would lie across two pieces of RAM.
    DTB_SCATTERED = error(1121);
    /// A word for the generated device tree beside a given one.
    WITH_GIVEN_TREE = error(1122);
    /// An overlay that promises what the domain does not have.
    OVERLAY_PROMISE = error(1123);
    /// An overlay that refers to a node the domain's device tree does not have.
    OVERLAY_REFERENCE = error(1124);

    /// A domain name that is taken.
    RESERVED_NAME = error(1201);
    /// A domain name that cannot be a file's or a prefix.
    BAD_NAME = error(1203);
    /// A `compatible` that is no layout of this version.
    UNKNOWN_SCHEMA = error(1204);

    /// More of something than the plan can hold.
    CAPACITY = error(1301);

    /// No interrupt is left for a virtual console.
    NO_FREE_SPI = error(1305);
    /// The compiler's own output did not pass the verifier.
    INTERNAL = error(1399);

    /// Something this architecture does not have.
    NOT_ON_THIS_ARCHITECTURE = error(1401);
    /// A feature of a CPU that it has not got.
    FEATURE_ABSENT = error(1404);
    /// RAM or a device beyond what a CPU can address.
    BEYOND_CPU = error(1405);
    /// Something that is planned and not there yet.
    NOT_SUPPORTED_YET = error(1410);
    /// A board whose architecture cannot be told.
    UNKNOWN_ARCHITECTURE = error(1411);
    /// Performance counters that go on in the hypervisor.
    COUNTS_EL2 = warning(1412);
}
