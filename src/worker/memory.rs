//! Memory that a client and its worker share: a header, and samples behind it.
//!
//! On Linux it is a memfd, on other Unix systems a POSIX object whose name is removed at once, so that nothing is left behind whoever is
//! killed. Its space is reserved before it is mapped: a lack of memory is an error here, and not a signal at the first access. Linux also
//! seals it, so that the other side cannot shrink it under us.
//!
//! Both sides may write at any time, so all of it is read and written as atomics.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Words of the header.
const HEADER_WORDS: usize = 16;
/// Smallest memory that is created, in bytes: whole pages on every system.
const LEAST_BYTES: usize = 64 << 10;
/// Largest memory in bytes.
pub const MAX_BYTES: u64 = 2 << 30;

/// A mapping of shared memory.
pub struct SharedMemory {
    descriptor: OwnedFd,
    address: NonNull<AtomicU32>,
    bytes: usize,
}

// SAFETY: the mapping belongs to this value, and is only accessed through atomics.
unsafe impl Send for SharedMemory {}
// SAFETY: all access through a shared reference is atomic.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Creates memory for at least `values` values.
    ///
    /// # Errors
    /// Those of the system: too little memory, or too many open files.
    pub fn create(values: usize) -> io::Result<Self> {
        let bytes =
            values.checked_add(HEADER_WORDS).and_then(|words| words.checked_mul(size_of::<AtomicU32>()));
        let bytes =
            bytes.and_then(usize::checked_next_power_of_two).filter(|bytes| *bytes as u64 <= MAX_BYTES);
        let Some(bytes) = bytes else {
            let text = format!("{values} samples of shared memory: expected at most {MAX_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let bytes = bytes.max(LEAST_BYTES);
        let descriptor = create_object(bytes as u64)?;
        Self::map(descriptor, bytes)
    }

    /// Maps memory that the other side has created.
    ///
    /// # Errors
    /// If it is smaller than `bytes`, could be made smaller, or cannot be mapped.
    pub fn open(descriptor: OwnedFd, bytes: u64) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let least = (HEADER_WORDS * size_of::<AtomicU32>()) as u64;
        if !(least..=MAX_BYTES).contains(&bytes) {
            return Err(invalid(format!("shared memory of {bytes} bytes: expected {least} to {MAX_BYTES}")));
        }
        check_object(&descriptor)?;
        let found = rustix::fs::fstat(&descriptor)?.st_size;
        if u64::try_from(found).is_ok_and(|found| found < bytes) {
            return Err(invalid(format!("shared memory of {found} bytes: expected {bytes}")));
        }
        Self::map(descriptor, bytes as usize)
    }

    fn map(descriptor: OwnedFd, bytes: usize) -> io::Result<Self> {
        // SAFETY: the system chooses an address that is free; the length is not 0 and at most that of the object.
        let address = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &descriptor,
                0,
            )?
        };
        let address = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped to address 0"))?;
        Ok(Self { descriptor, address, bytes })
    }

    /// The object, to be sent to the other side.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Bytes that are mapped.
    pub fn bytes(&self) -> u64 {
        self.bytes as u64
    }

    /// Values that it holds.
    pub fn capacity(&self) -> usize {
        self.words().len() - HEADER_WORDS
    }

    fn words(&self) -> &[AtomicU32] {
        // SAFETY: the mapping is that long, page-aligned, and lives as long as `self`. Every bit pattern is a u32. Other processes may write
        // at any time, which is why these are atomics. The object cannot shrink (it is sealed, or of our own making).
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.bytes / size_of::<AtomicU32>()) }
    }

    /// Counts up while the worker lives. Written by the worker.
    pub fn heartbeat(&self) -> &AtomicU32 {
        &self.words()[0]
    }

    /// The job that must end soon; 0 for none. Written by the client.
    pub fn cancelled_job(&self) -> &AtomicU32 {
        &self.words()[1]
    }

    /// Writes samples from value `at` on. False if they do not fit; then nothing is written.
    #[must_use]
    pub fn write(&self, at: usize, samples: &[f32]) -> bool {
        let Some(words) = self.part(at, samples.len()) else { return false };
        words.iter().zip(samples).for_each(|(word, x)| word.store(x.to_bits(), Relaxed));
        true
    }

    /// Reads samples from value `at` on. False if there are not so many; then nothing is read.
    #[must_use]
    pub fn read(&self, at: usize, samples: &mut [f32]) -> bool {
        let Some(words) = self.part(at, samples.len()) else { return false };
        samples.iter_mut().zip(words).for_each(|(x, word)| *x = f32::from_bits(word.load(Relaxed)));
        true
    }

    fn part(&self, at: usize, length: usize) -> Option<&[AtomicU32]> {
        let from = HEADER_WORDS.checked_add(at)?;
        self.words().get(from..from.checked_add(length)?)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping has this address and length, and no reference into it outlives `self`. The result does not matter: there is
        // nothing to be done about an error.
        let _ = unsafe { munmap(self.address.as_ptr().cast(), self.bytes) };
    }
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedMemory").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(target_os = "linux")]
fn create_object(bytes: u64) -> io::Result<OwnedFd> {
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create};
    let object = memfd_create("nullsum-samples", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&object, bytes)?;
    // Without this the first access would find out that there is no memory, by a signal that ends the process.
    fallocate(&object, FallocateFlags::empty(), 0, bytes)?;
    fcntl_add_seals(&object, seals())?;
    Ok(object)
}

#[cfg(target_os = "linux")]
fn seals() -> rustix::fs::SealFlags {
    use rustix::fs::SealFlags;
    SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
}

/// Only sealed memory is safe to map: a file could be truncated by the other side.
#[cfg(target_os = "linux")]
fn check_object(descriptor: &OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fcntl_get_seals(descriptor);
    if found.is_ok_and(|found| found.contains(rustix::fs::SealFlags::SHRINK)) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the shared memory is not sealed against shrinking"))
}

#[cfg(not(target_os = "linux"))]
fn create_object(bytes: u64) -> io::Result<OwnedFd> {
    use std::sync::atomic::AtomicU64;

    use rustix::shm;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // macOS allows names of 31 characters.
    let name = format!("/nullsum-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let flags = shm::OFlags::CREATE | shm::OFlags::EXCL | shm::OFlags::RDWR;
    let object = shm::open(&name, flags, shm::Mode::RUSR | shm::Mode::WUSR)?;
    shm::unlink(&name)?;
    // The length of such an object can be set once, so it cannot shrink. macOS reserves its pages when they are touched, from swap.
    rustix::fs::ftruncate(&object, bytes)?;
    Ok(object)
}

#[cfg(not(target_os = "linux"))]
fn check_object(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_samples() {
        let ours = SharedMemory::create(1_000).unwrap();
        let theirs =
            SharedMemory::open(ours.descriptor().try_clone_to_owned().unwrap(), ours.bytes()).unwrap();
        assert!(ours.write(3, &[0.5, -1.0]));
        let mut read = [0.0; 2];
        assert!(theirs.read(3, &mut read));
        assert_eq!(read, [0.5, -1.0]);
        theirs.heartbeat().store(7, Relaxed);
        assert_eq!(ours.heartbeat().load(Relaxed), 7);
    }

    #[test]
    fn positions_out_of_bounds_are_refused() {
        let memory = SharedMemory::create(10).unwrap();
        let capacity = memory.capacity();
        assert!(memory.write(capacity - 2, &[1.0; 2]));
        for at in [capacity - 1, capacity, usize::MAX, usize::MAX - HEADER_WORDS] {
            assert!(!memory.write(at, &[1.0; 2]) && !memory.read(at, &mut [0.0; 2]), "{at}");
        }
        assert_eq!((memory.heartbeat().load(Relaxed), memory.cancelled_job().load(Relaxed)), (0, 0));
        assert!(SharedMemory::create(usize::MAX).is_err() && SharedMemory::create(1 << 30).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_sealed_memory_of_the_announced_length_is_mapped() {
        use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 16).unwrap();
        assert!(SharedMemory::open(file.into(), 1 << 16).is_err(), "a file");
        let unsealed = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 1 << 16).unwrap();
        assert!(SharedMemory::open(unsealed, 1 << 16).is_err(), "unsealed");
        let ours = SharedMemory::create(1_000).unwrap();
        let again = || ours.descriptor().try_clone_to_owned().unwrap();
        assert!(ftruncate(again(), 0).is_err(), "sealed");
        for bytes in [0, 63, ours.bytes() + 1, MAX_BYTES + 1, u64::MAX] {
            assert!(SharedMemory::open(again(), bytes).is_err(), "{bytes}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thousand_cycles_leave_no_descriptor_and_no_mapping() {
        let count = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.matches("nullsum-samples").count()
        };
        let before = count();
        for _ in 0..1_000 {
            drop(SharedMemory::create(100).unwrap());
        }
        // Other tests of this process may map a few.
        assert!(count() < before + 10);
    }
}
