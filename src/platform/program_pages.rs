//! The pages of our own program file.

/// Unmaps the read-only pages of the program: an idle supervisor uses about half of what a start touches. The kernel maps a
/// page again from the page cache when it is used, together with the 15 around it.
pub fn unmap() {
    #[cfg(target_os = "linux")]
    // SAFETY: dl_iterate_phdr(3) calls `unmap_first` with valid arguments and keeps no pointer.
    let _one = unsafe { libc::dl_iterate_phdr(Some(unmap_first), std::ptr::null_mut()) };
}

/// Called for the program itself first, and by returning 1 for no shared library.
#[cfg(target_os = "linux")]
unsafe extern "C" fn unmap_first(object: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
    // SAFETY: sysconf(3) reads a constant.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    // SAFETY: the loader passes a valid object; its program headers stay mapped as long as the program.
    let (base, headers) = unsafe {
        let object = &*object;
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)))
    };
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        let (Ok(start), Ok(length)) = (usize::try_from(base + header.p_vaddr), usize::try_from(header.p_memsz)) else {
            continue;
        };
        let first = start & !(page - 1);
        // SAFETY: the segment is a private file mapping that was never written to, since segments with relocations have
        // PF_W. So MADV_DONTNEED, see madvise(2), loses no data.
        let _still_mapped = unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(first), start + length - first, libc::MADV_DONTNEED)
        };
    }
    1
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    const PAGE: usize = 4096;

    /// Wider than the window that the kernel maps around a page, so that no neighbour brings the middle back.
    static UNUSED: [u8; 64 * PAGE] = [1; 64 * PAGE];

    /// Bit 63 of an entry, see pagemap in proc(5).
    fn is_mapped(byte: &u8) -> bool {
        let mut entry = [0; 8];
        let index = std::ptr::from_ref(byte).addr() / PAGE;
        File::open("/proc/self/pagemap").unwrap().read_exact_at(&mut entry, index as u64 * 8).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    }

    #[test]
    fn an_unmapped_page_comes_back_with_its_content_when_it_is_used() {
        let byte = &UNUSED[32 * PAGE];
        assert_eq!((std::hint::black_box(*byte), is_mapped(byte)), (1, true));
        unmap();
        assert!(!is_mapped(byte));
        assert_eq!((std::hint::black_box(*byte), is_mapped(byte)), (1, true));
    }
}
