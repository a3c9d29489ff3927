//! Derives tensors of a run from the tensors that they follow from.

use candle_core::Tensor;

use super::gpt2::Gpt2;
use super::ops::LayerNorm;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Part, Site};

impl Gpt2 {
    /// A part of a tensor that has [sources](HookName::sources), computed from them by the formula of its
    /// hook point; `get` returns a part of a source, on this network's device and in its format.
    ///
    /// # Errors
    /// The errors of `get`; [`Error::Usage`] for a tensor that cannot be derived.
    pub fn derive(
        &self,
        name: HookName,
        part: &Part,
        get: &dyn Fn(HookName, &Part) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (l, ops) = (name.layer.unwrap_or(0), &self.ops);
        let (block, sources) = (&self.blocks[l], name.sources(&self.config));
        let source = |i: usize| get(sources[i], part);
        let sum = || ops.add(&source(0)?, &source(1)?);
        let scale = |ln: &LayerNorm| Ok(ops.center(&source(0)?, ln)?.1);
        let normalized = |ln: &LayerNorm| ops.divide(&ops.center(&source(0)?, ln)?.0, &source(1)?);
        let out = |ln: &LayerNorm| ops.affine(&source(0)?, ln);
        // One row for each site and no catch-all: a new site must say how it is derived.
        match name.site {
            Site::ResidPre if l > 0 => source(0),
            Site::ResidPre | Site::ResidMid => sum(),
            Site::Ln1Scale => scale(&block.ln_1),
            Site::Ln1Normalized => normalized(&block.ln_1),
            Site::Ln1Out => out(&block.ln_1),
            Site::AttnScores => {
                let all_keys = Part { rows: None, ..part.clone() };
                let first = part.rows.as_ref().map_or(0, |rows| rows.start);
                ops.scores(&source(0)?, &get(sources[1], &all_keys)?, first, self.config.attn_scale(l))
            }
            Site::Pattern | Site::Probs => ops.softmax(&source(0)?),
            Site::Result => {
                let whole_heads = Part { head: None, ..part.clone() };
                let result = self.results(block, &get(sources[0], &whole_heads)?)?; // (S, H, C)
                part.head.map_or(Ok(result.clone()), |head| Ok(result.narrow(1, head, 1)?))
            }
            Site::Ln2Scale => scale(&block.ln_2),
            Site::Ln2Normalized => normalized(&block.ln_2),
            Site::Ln2Out => out(&block.ln_2),
            Site::MlpPre => ops.linear(&source(0)?, &block.c_fc),
            Site::MlpPost => ops.activation(self.config.activation_function, &source(0)?),
            Site::MlpOut => ops.linear(&source(0)?, &block.mlp_proj),
            Site::LnFinalScale => scale(&self.ln_f),
            Site::LnFinalNormalized => normalized(&self.ln_f),
            Site::LnFinalOut => out(&self.ln_f),
            Site::Logits => ops.logits(&source(0)?, &self.unembed),
            Site::Embed
            | Site::PosEmbed
            | Site::Q
            | Site::K
            | Site::V
            | Site::Z
            | Site::AttnOut
            | Site::ResidPost => {
                Err(Error::usage(format!("{name} cannot be derived: only a forward pass computes it")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::{Input, Model, Run};

    /// What is derived asks for what the table says that it follows from, all of it and no more;
    /// where the table names nothing, nothing is derived.
    #[test]
    fn what_is_made_follows_the_table() {
        let run = Run::all(&Arc::new(Model::demo()), Input::ids([5, 6, 7])).unwrap();
        let (net, config) = (&run.model.net, run.config());
        for name in HookName::all(config) {
            let asked = RefCell::new(BTreeSet::new());
            let made = net.derive(name, &Part::default(), &|source, part| {
                asked.borrow_mut().insert(source);
                run.part(source, part)
            });
            let sources = BTreeSet::from_iter(name.sources(config));
            match made {
                Ok(x) => assert_eq!(x.dims(), name.shape(config, 3), "{name}"),
                Err(error) => assert!(sources.is_empty(), "{name}: {error}"),
            }
            assert_eq!(asked.into_inner(), sources, "{name}");
        }
    }
}
