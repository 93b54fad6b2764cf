//! Reading the packet where it lies. Shared by the programs that classify packets, each of which is
//! an object of its own.

use core::ptr;
use ptp_common::classify::Frame;

/// Direct packet access; each read carries the bounds check that the verifier asks for.
pub struct Direct {
    /// Where the packet begins.
    pub data: usize,
    /// Where it ends, or its linear part.
    pub end: usize,
}

impl Direct {
    /// Where `N` numbers begin at `offset`. They are bytes, 16-bit numbers at an even offset, or
    /// 32-bit numbers at an offset that is two more than a multiple of four: network headers are
    /// aligned, link headers are not.
    #[inline(always)]
    pub fn at<T: Copy, const N: usize>(&self, offset: usize) -> Option<Numbers<T, N>> {
        let address = self.data + offset;
        (address + size_of::<T>() * N <= self.end).then(|| Numbers(address as *const T))
    }
}

/// Numbers in the packet, all of them inside. Each is read for itself when it is needed: an array
/// would be put together with shifts, and taken apart again.
pub struct Numbers<T, const N: usize>(*const T);

impl<T: Copy, const N: usize> Numbers<T, N> {
    #[inline(always)]
    pub fn read<const I: usize>(&self) -> T {
        const { assert!(I < N) };
        // SAFETY: inside the packet, as `Direct::at` has checked, and aligned as it says.
        unsafe { ptr::read(self.0.add(I)) }
    }
}

impl Frame for Direct {
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        Some(self.at::<u8, 1>(offset)?.read::<0>())
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        Some(u16::from_be(self.at::<u16, 1>(offset)?.read::<0>()))
    }

    #[inline(always)]
    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]> {
        let pair = self.at::<u16, 2>(offset)?;
        Some([u16::from_be(pair.read::<0>()), u16::from_be(pair.read::<1>())])
    }
}
