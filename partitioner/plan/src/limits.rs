//! The plan's own limits. Each has its own diagnostic (group E13); nothing else in the product is bounded by a constant.

/// Domains in one layout. Also bounds VMIDs, which are the domain's index plus one.
pub const MAX_DOMAINS: usize = 64;
/// Physical CPUs the plan can name.
pub const MAX_CPUS: usize = 64;
/// vCPUs of one domain: what one `ICC_SGI1R_EL1.TargetList` can address (IHI 0069, 12.2.17).
pub const MAX_VCPUS: usize = 16;
/// INTIDs 0 to 1019 in words of 32; the last word holds 992 to 1023, of which 1020 and up are special (IHI 0069, 2.2).
pub const INTID_WORDS: usize = 32;
/// Longest domain name in bytes.
pub const MAX_NAME: usize = 31;
/// Largest header plus records, so that a damaged length cannot send the first checksum far.
pub const MAX_RECORDS: u32 = 256 * 1024;
/// PCI functions the plan can name, bridges among them.
pub const MAX_FUNCTIONS: usize = 64;
