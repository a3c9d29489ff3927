//! Which features of a dictionary are active, and how strongly.

use candle_core::{Device, Tensor};

use crate::error::Result;

/// The active features at each position: few of many, so that only they are kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Features {
    /// How many the dictionary has.
    pub n: usize,
    /// (feature, activation) at each position, by feature; each is above 0.
    pub rows: Vec<Vec<(u32, f32)>>,
    /// What undoes the normalisation of each position: its mean and scale.
    pub(super) undo: Vec<[f32; 2]>,
    /// What a skip connection adds at each position, (T, C) row by row.
    pub(super) skip: Option<Vec<f32>>,
}

impl Features {
    /// The strongest first at a position; of equal ones, the first.
    pub fn strongest(&self, position: usize) -> Vec<(u32, f32)> {
        let mut row = self.rows[position].clone();
        row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        row
    }

    /// The activation of a feature at each position.
    pub fn of(&self, feature: u32) -> Vec<f32> {
        let at =
            |row: &Vec<(u32, f32)>| row.binary_search_by_key(&feature, |one| one.0).map_or(0.0, |i| row[i].1);
        self.rows.iter().map(at).collect()
    }

    /// How many are active at any position.
    pub fn n_alive(&self) -> usize {
        let mut seen: Vec<u32> = self.rows.iter().flatten().map(|(feature, _)| *feature).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }

    /// (T, n)
    ///
    /// # Errors
    /// [`crate::Error::Tensor`]
    pub fn to_dense(&self) -> Result<Tensor> {
        let mut dense = vec![0.0f32; self.rows.len() * self.n];
        for (row, all) in self.rows.iter().zip(dense.chunks_exact_mut(self.n.max(1))) {
            for (feature, value) in row {
                all[*feature as usize] = *value;
            }
        }
        Ok(Tensor::from_vec(dense, (self.rows.len(), self.n), &Device::Cpu)?)
    }

    /// Changes the activations of a feature at some positions, or at all; 0 switches it off.
    pub fn set(&mut self, feature: u32, position: Option<usize>, value: impl Fn(f32) -> f32) {
        for (at, row) in self.rows.iter_mut().enumerate() {
            if position.is_some_and(|position| position != at) {
                continue;
            }
            let place = row.binary_search_by_key(&feature, |one| one.0);
            let new = value(place.map_or(0.0, |i| row[i].1));
            match place {
                Ok(i) if new == 0.0 => {
                    row.remove(i);
                }
                Ok(i) => row[i].1 = new,
                Err(i) if new != 0.0 => row.insert(i, (feature, new)),
                Err(_) => {}
            }
        }
    }
}
