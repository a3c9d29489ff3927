//! How surprised the model is: by document and by position.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::piece::Piece;
use super::table::{Column, Reader, Table};
use crate::analysis::logits::ROWS_AT_ONCE;
use crate::analysis::softmax::Softmax;
use crate::error::Result;
use crate::model::Model;

pub const FILE: &str = "loss.parquet";
pub const BY_POSITION: &str = "loss_by_position.parquet";

/// Predicted tokens and their losses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// The number of tokens that are predicted: all but the first of a sequence without BOS.
    pub tokens: u64,
    /// The bytes that they stand for; 0 without a tokenizer.
    pub bytes: u64,
    /// −Σ ln p
    pub nats: f64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.bytes += other.bytes;
        self.nats += other.nats;
    }

    pub fn bits_per_token(self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.tokens as f64
    }

    pub fn bits_per_byte(self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.bytes as f64
    }
}

/// The losses of documents, and of positions over all documents.
#[derive(Debug, Default, PartialEq)]
pub struct Loss {
    documents: BTreeMap<u64, Sum>,
    /// By the position of the predicted token within its document.
    positions: BTreeMap<u32, Sum>,
}

impl Loss {
    /// `x` is what the unembedding reads, (T, C).
    ///
    /// # Errors
    /// [`crate::Error::Tensor`]
    pub fn see(&mut self, model: &Model, x: &Tensor, piece: &Piece) -> Result<()> {
        let net = &model.net;
        // The rows whose next token counts.
        let rows = piece.counted.start.saturating_sub(1)..piece.counted.end - 1;
        let mut losses = Vec::with_capacity(rows.len());
        for start in rows.clone().step_by(ROWS_AT_ONCE) {
            let n = ROWS_AT_ONCE.min(rows.end - start);
            let logits = net.ops.logits(&x.narrow(0, start, n)?.contiguous()?, &net.unembed)?; // (n, V)
            let logits = logits.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
            let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
            let loss = |(i, row): (usize, &[f32])| {
                let next = piece.tokens[start + i + 1] as usize;
                -Softmax::new(row).log_prob(row[next])
            };
            let rows: Vec<_> = logits.chunks_exact(logits.len() / n).enumerate().collect();
            losses.extend(rows.into_par_iter().map(loss).collect::<Vec<_>>());
        }
        for (row, nats) in rows.zip(losses) {
            let bytes = model.tokenizer.bytes(piece.tokens[row + 1]).map_or(0, |bytes| bytes.len());
            let sum = Sum { tokens: 1, bytes: bytes as u64, nats };
            self.documents.entry(piece.document).or_default().add(sum);
            self.positions.entry(piece.position(row + 1)).or_default().add(sum);
        }
        Ok(())
    }

    /// Adds the losses of other documents.
    pub fn merge(&mut self, other: &Self) {
        for (document, sum) in &other.documents {
            self.documents.entry(*document).or_default().add(*sum);
        }
        for (position, sum) in &other.positions {
            self.positions.entry(*position).or_default().add(*sum);
        }
    }

    /// Over all documents.
    pub fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.documents.values().for_each(|sum| total.add(*sum));
        total
    }

    /// A row for each document.
    pub fn by_document(&self) -> Table {
        table("document", self.documents.iter().map(|(document, sum)| (*document, *sum)))
    }

    /// A row for each position.
    pub fn by_position(&self) -> Table {
        table("position", self.positions.iter().map(|(position, sum)| (u64::from(*position), *sum)))
    }

    /// The losses of a folder.
    ///
    /// # Errors
    /// [`crate::Error::File`] for a file that holds something else.
    pub fn read(folder: &Path) -> Result<Self> {
        let documents = sums(&folder.join(FILE), "document")?.collect();
        let positions = sums(&folder.join(BY_POSITION), "position")?;
        Ok(Self { documents, positions: positions.map(|(position, sum)| (position as u32, sum)).collect() })
    }
}

fn table(key: &'static str, rows: impl Iterator<Item = (u64, Sum)>) -> Table {
    let rows: Vec<_> = rows.collect();
    let wide = |of: fn(Sum) -> f64| Column::F64(rows.iter().map(|(_, sum)| of(*sum)).collect());
    Table(vec![
        (key, Column::I64(rows.iter().map(|(key, _)| *key as i64).collect())),
        ("tokens", Column::I64(rows.iter().map(|(_, sum)| sum.tokens as i64).collect())),
        ("bytes", Column::I64(rows.iter().map(|(_, sum)| sum.bytes as i64).collect())),
        ("nats", wide(|sum| sum.nats)),
        ("bits_per_token", wide(Sum::bits_per_token)),
        ("bits_per_byte", wide(Sum::bits_per_byte)),
    ])
}

fn sums(path: &Path, key: &str) -> Result<impl Iterator<Item = (u64, Sum)> + use<>> {
    let reader = Reader::open(path)?;
    let (keys, tokens) = (reader.all::<i64>(0, key)?, reader.all::<i64>(0, "tokens")?);
    let (bytes, nats) = (reader.all::<i64>(0, "bytes")?, reader.all::<f64>(0, "nats")?);
    let sum = |(((key, tokens), bytes), nats): (((i64, i64), i64), f64)| {
        (key as u64, Sum { tokens: tokens as u64, bytes: bytes as u64, nats })
    };
    Ok(keys.into_iter().zip(tokens).zip(bytes).zip(nats).map(sum))
}
