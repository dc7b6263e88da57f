//! What the hostile guests share: trying something that may fault, and saying how it ended.
//!
//! The guests know the outcome the documents promise and nothing of the hypervisor's code.
#![no_std]

#[cfg(target_os = "none")]
pub mod attacks;
#[cfg(target_os = "none")]
pub mod deaf;
#[cfg(target_os = "none")]
pub mod edu;
#[cfg(target_os = "none")]
pub mod first;
#[cfg(target_os = "none")]
pub mod interface;
#[cfg(target_os = "none")]
pub mod its;
#[cfg(target_os = "none")]
pub mod probe;
#[cfg(target_os = "none")]
pub mod report;
#[cfg(target_os = "none")]
pub mod watched;
