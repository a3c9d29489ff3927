//! Pieces: documents as the network takes them.

use std::ops::Range;

/// A document, or a part of one that is longer than the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The document's number, over all inputs.
    pub document: u64,
    /// The T tokens of the network's input, BOS included.
    pub tokens: Vec<u32>,
    /// The position within the document of the first token that is no BOS.
    pub first: usize,
    /// 1 if the first of `tokens` is BOS.
    pub n_bos: usize,
    /// The rows that count: neither BOS nor what the piece before had.
    pub counted: Range<usize>,
}

impl Piece {
    /// The position within the document of a row that is not BOS.
    pub fn position(&self, row: usize) -> u32 {
        (self.first + row - self.n_bos) as u32
    }
}

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The most tokens that the network takes at once, BOS included.
    pub context: usize,
    /// How far apart pieces begin.
    pub stride: usize,
    pub bos: Option<u32>,
}

impl Cut {
    /// The most tokens of a document in one piece.
    pub fn room(self) -> usize {
        self.context - usize::from(self.bos.is_some())
    }

    /// The pieces of a document. Each token counts once: where pieces overlap, in the first that has it.
    pub fn pieces(self, document: u64, ids: &[u32]) -> impl Iterator<Item = Piece> {
        let (room, n_bos) = (self.room(), usize::from(self.bos.is_some()));
        let starts = (0..).map(move |i| i * self.stride);
        let n = ids.len();
        starts.take_while(move |&start| start == 0 || start + room - self.stride < n).map(move |first| {
            let end = (first + room).min(n);
            let had = if first == 0 { 0 } else { room - self.stride };
            let tokens: Vec<u32> = self.bos.into_iter().chain(ids[first..end].iter().copied()).collect();
            let counted = had + n_bos..tokens.len();
            Piece { document, tokens, first, n_bos, counted }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_token_counts_once(n in 1usize..60, room in 1usize..20, stride in 1usize..20, bos: bool) {
            let stride = stride.min(room);
            let bos = bos.then_some(7);
            let cut = Cut { context: room + usize::from(bos.is_some()), stride, bos };
            let ids: Vec<u32> = (100..100 + n as u32).collect();
            let mut counted = Vec::new();
            for piece in cut.pieces(3, &ids) {
                prop_assert!(piece.tokens.len() <= cut.context);
                prop_assert!(!piece.counted.is_empty());
                for row in piece.counted.clone() {
                    prop_assert_eq!(piece.tokens[row], 100 + piece.position(row));
                    counted.push(piece.tokens[row]);
                }
            }
            prop_assert_eq!(counted, ids);
        }
    }
}
