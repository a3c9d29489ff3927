//! Memory for large, long-lived buffers, in huge pages if the system has them.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Buffers of at least this size have a mapping of their own.
const LARGE: usize = 4 << 20;

/// A fixed number of floats.
#[derive(Debug)]
pub enum Buffer {
    Small(Vec<f32>),
    Large(MmapMut),
}

impl Buffer {
    /// `n` zeros.
    pub fn zeros(n: usize) -> Self {
        let bytes = n * size_of::<f32>();
        if bytes >= LARGE
            && let Ok(pages) = MmapMut::map_anon(bytes)
        {
            // Only advice; a system without huge pages may refuse it.
            #[cfg(target_os = "linux")]
            let _ = pages.advise(memmap2::Advice::HugePage);
            return Self::Large(pages);
        }
        Self::Small(vec![0.0; n])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Small(values) => values,
            Self::Large(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Small(values) => values,
            Self::Large(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}
