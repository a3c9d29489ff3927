//! Hook points: where and how to look into a forward pass.
//!
//! [`HOOKS`] is *the* table of hook points: the network, cache, explorer, command line and exports
//! use it. Names are TransformerLens's, without the batch dimension; `hook_normalized` is
//! before the LayerNorm's weight and bias, `hook_out` after them (as in TransformerLens 4).

mod name;
mod part;
mod select;
mod table;
mod tensor;

pub use name::HookName;
pub use part::Part;
pub use select::HookFilter;
pub use table::{Axis, HOOKS, HookPoint, Quantity, Site};
pub use tensor::{Made, TensorName};

use candle_core::Tensor;

use crate::error::Result;

/// Watches a forward pass, and may change it.
///
/// Implemented by `()` (does nothing), by [`Edit`] (a closure that replaces tensors), by the cache
/// of the model (keeps tensors) and by pairs: in `(edit, cache)` the cache sees the tensors
/// that the edit returns.
pub trait Hooks {
    /// Whether to call [`Hooks::hook`] for this point; tensors that nobody wants need not
    /// be computed.
    fn wants(&self, name: HookName) -> bool;

    /// Receives the tensor of `name`, with the shape of [`HookName::shape`]; `Some(tensor)` of the same
    /// shape replaces it from here on. In a batch it may be a view of the tensor of all sequences, so that
    /// keeping it keeps the memory of all.
    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>>;

    /// Called for a tensor that earlier hooks replaced and that this one does not want.
    fn replaced(&mut self, _name: HookName, _x: &Tensor) -> Result<()> {
        Ok(())
    }

    /// The first tensor, in data-flow order, that this may replace; `None` if it only watches. Tensors
    /// before it can be reused from another run.
    fn first_change(&self) -> Option<HookName> {
        Some(Site::Embed.once())
    }

    /// Called before each block is computed; an error (such as [`Error::Cancelled`](crate::Error::Cancelled)) ends the run.
    fn before_block(&mut self, _layer: usize) -> Result<()> {
        Ok(())
    }
}

impl Hooks for () {
    fn wants(&self, _: HookName) -> bool {
        false
    }

    fn hook(&mut self, _: HookName, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
    }

    fn first_change(&self) -> Option<HookName> {
        None
    }
}

impl<A: Hooks, B: Hooks> Hooks for (A, B) {
    fn wants(&self, name: HookName) -> bool {
        self.0.wants(name) || self.1.wants(name)
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        let first = if self.0.wants(name) { self.0.hook(name, x)? } else { None };
        let second = match &first {
            _ if self.1.wants(name) => self.1.hook(name, first.as_ref().unwrap_or(x))?,
            Some(x) => self.1.replaced(name, x).map(|()| None)?,
            None => None,
        };
        Ok(second.or(first))
    }

    fn replaced(&mut self, name: HookName, x: &Tensor) -> Result<()> {
        self.0.replaced(name, x)?;
        self.1.replaced(name, x)
    }

    fn first_change(&self) -> Option<HookName> {
        self.0.first_change().into_iter().chain(self.1.first_change()).min()
    }

    fn before_block(&mut self, layer: usize) -> Result<()> {
        self.0.before_block(layer)?;
        self.1.before_block(layer)
    }
}

impl<H: Hooks + ?Sized> Hooks for &mut H {
    fn wants(&self, name: HookName) -> bool {
        (**self).wants(name)
    }

    fn hook(&mut self, name: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        (**self).hook(name, x)
    }

    fn replaced(&mut self, name: HookName, x: &Tensor) -> Result<()> {
        (**self).replaced(name, x)
    }

    fn first_change(&self) -> Option<HookName> {
        (**self).first_change()
    }

    fn before_block(&mut self, layer: usize) -> Result<()> {
        (**self).before_block(layer)
    }
}

/// Replaces the tensor of one hook by the result of the closure.
pub struct Edit<F>(pub HookName, pub F);

impl<F: FnMut(&Tensor) -> Result<Tensor>> Hooks for Edit<F> {
    fn wants(&self, name: HookName) -> bool {
        name == self.0
    }

    fn hook(&mut self, _: HookName, x: &Tensor) -> Result<Option<Tensor>> {
        self.1(x).map(Some)
    }

    fn first_change(&self) -> Option<HookName> {
        Some(self.0)
    }
}
