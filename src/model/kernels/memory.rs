//! Memory: large, long-lived buffers in huge pages if the system has them, and results that several
//! threads write, without zeroing them first.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut, Range};

use memmap2::MmapMut;
use rayon::prelude::*;

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

/// Floats in consecutive pieces, filled on all threads: `each` gets the number of a piece, and zeros.
pub fn in_pieces(
    lengths: impl IntoIterator<Item = usize>,
    each: impl Fn(usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let lengths: Vec<_> = lengths.into_iter().collect();
    let n = lengths.iter().sum();
    let mut out = Vec::with_capacity(n);
    let mut rest = &mut out.spare_capacity_mut()[..n];
    let pieces: Vec<_> = lengths.iter().map(|&n| rest.split_off_mut(..n).expect("it is in n")).collect();
    pieces.into_par_iter().with_max_len(1).enumerate().for_each(|(i, piece)| {
        piece.fill(MaybeUninit::new(0.0));
        // SAFETY: it was just filled.
        #[allow(unsafe_code)]
        each(i, unsafe { piece.assume_init_mut() });
    });
    // SAFETY: the pieces, each filled, are all of it.
    #[allow(unsafe_code)]
    unsafe {
        out.set_len(n);
    }
    out
}

/// A stripe of columns that is being written.
pub struct Stripe<'a> {
    rows: Vec<&'a mut [MaybeUninit<f32>]>,
    written: usize,
}

impl Stripe<'_> {
    /// Writes values of a row, from `column` of the stripe on; each only once.
    #[inline(always)]
    pub fn put(&mut self, row: usize, column: usize, values: &[f32]) {
        self.rows[row][column..][..values.len()].write_copy_of_slice(values);
        self.written += values.len();
    }
}

/// A matrix of `n_rows` in stripes of columns, side by side, written on all threads: `each` puts every value
/// of the stripe with these columns.
pub fn in_stripes(
    n_rows: usize,
    stripes: impl IntoIterator<Item = Range<usize>>,
    each: impl Fn(Range<usize>, &mut Stripe<'_>) + Sync,
) -> Vec<f32> {
    let mut stripes: Vec<_> = stripes
        .into_iter()
        .map(|columns| (columns, Stripe { rows: Vec::with_capacity(n_rows), written: 0 }))
        .collect();
    let n: usize = stripes.iter().map(|(columns, _)| columns.len()).sum();
    let mut out = Vec::with_capacity(n_rows * n);
    for mut row in out.spare_capacity_mut()[..n_rows * n].chunks_exact_mut(n.max(1)) {
        for (columns, stripe) in &mut stripes {
            stripe.rows.push(row.split_off_mut(..columns.len()).expect("it is in the row"));
        }
    }
    stripes.into_par_iter().with_max_len(1).for_each(|(columns, mut stripe)| {
        let n = columns.len();
        each(columns, &mut stripe);
        assert_eq!(stripe.written, n * n_rows, "every value is written");
    });
    // SAFETY: no value is written twice, and as many were written as there are.
    #[allow(unsafe_code)]
    unsafe {
        out.set_len(n_rows * n);
    }
    out
}
