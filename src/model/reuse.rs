//! A forward pass that continues an earlier run: what is kept, and how new rows join it.

use candle_core::Tensor;

use super::cache::ActivationCache;
use super::gpt2::Gpt2;
use crate::error::{Error, Result};
use crate::hooks::{HookName, Hooks, Part, Site};

/// What a run need not compute because another run has it: for the blocks below `blocks`, the first
/// `rows` rows of every tensor. `blocks` is `n_layer` if all blocks are kept but not what
/// follows them, and more if that is kept too.
#[derive(Debug, Clone, Copy)]
pub struct Kept<'a> {
    pub(crate) cache: &'a ActivationCache,
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
}

impl Kept<'_> {
    /// The kept rows of a tensor, on the network's device and in its format.
    fn get(&self, name: HookName) -> Result<Tensor> {
        let net = &self.cache.net;
        let x = self.cache.fetch(name, &Part::rows(0..self.rows))?;
        Ok(x.to_device(net.device())?.to_dtype(net.dtype())?)
    }

    /// The kept rows with new ones after them.
    fn before(&self, name: HookName, new: &Tensor) -> Result<Tensor> {
        Ok(Tensor::cat(&[&self.get(name)?, new], 0)?)
    }
}

impl Gpt2 {
    /// Like the body of a fresh run, but only new rows go through the kept blocks, and all
    /// T through the others: (T, C), or (S, C) if all blocks and what follows them are kept.
    pub(super) fn body_after<'a>(&self, kept: Kept<'a>, tokens: &[u32], tap: &mut Tap<'a>) -> Result<Tensor> {
        let (new, n_layer) = (&tokens[kept.rows..], self.config.n_layer);
        let blocks = kept.blocks.min(n_layer);
        // Not resid_pre of the block after it, which may have been replaced.
        let end = Site::ResidPost.at(blocks - 1);

        let x = if new.is_empty() {
            kept.get(end)? // (T, C)
        } else {
            tap.kept = Some(kept);
            let x = self.embed(new, kept.rows, tap)?; // (S, C)
            let x = self.through(0..blocks, x, tap)?; // (S, C)
            if kept.blocks > n_layer {
                return self.norm(&x, tap); // (S, C)
            }
            kept.before(end, &x)? // (T, C)
        };
        tap.kept = None;
        let x = self.through(blocks..n_layer, x, tap)?; // (T, C)
        self.norm(&x, tap) // (T, C)
    }
}

/// Hands tensors to the hooks and takes back the results. If rows are kept from another
/// run, only the rows after them are computed, and hooks see both.
pub(super) struct Tap<'a> {
    pub hooks: &'a mut dyn Hooks,
    kept: Option<Kept<'a>>,
}

impl<'a> Tap<'a> {
    /// For a fresh run.
    pub fn new(hooks: &'a mut dyn Hooks) -> Self {
        Self { hooks, kept: None }
    }

    /// The first row that is computed.
    pub fn first(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.rows)
    }

    pub fn once(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        self.see(site.once(), x)
    }

    pub fn at(&mut self, layer: usize, site: Site, x: Tensor) -> Result<Tensor> {
        self.see(site.at(layer), x)
    }

    /// All rows of a tensor.
    pub fn whole(&mut self, layer: usize, site: Site, new: Tensor) -> Result<Tensor> {
        let name = site.at(layer);
        let Some(kept) = &self.kept else { return self.see(name, new) };
        let x = kept.before(name, &new)?;
        if self.hooks.wants(name) {
            self.hooks.hook(name, &x)?;
        }
        Ok(x)
    }

    /// The tensor to continue with.
    pub fn see(&mut self, name: HookName, x: Tensor) -> Result<Tensor> {
        if !self.hooks.wants(name) {
            return Ok(x);
        }
        Ok(self.replaced(name, &x)?.unwrap_or(x))
    }

    /// The replacement of `x`, if there is one.
    pub fn replaced(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        if let Some(kept) = &self.kept {
            self.hooks.hook(name, &kept.before(name, x)?)?;
            return Ok(None); // nothing is kept if something may be replaced
        }
        match self.hooks.hook(name, x)? {
            Some(new) if new.dims() != x.dims() => Err(Error::usage(format!(
                "the hook on {name} returned shape {:?} instead of {:?}",
                new.dims(),
                x.dims()
            ))),
            new => Ok(new),
        }
    }
}
