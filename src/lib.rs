//! Every tensor of a GPT-2 forward pass, by name.
//!
//! ```
//! use std::sync::Arc;
//! use actscope::{Input, Model, Run};
//!
//! let model = Arc::new(Model::demo());
//! let run = Run::all(&model, Input::text("The quick brown fox"))?;
//! let pattern = run.cache.get("blocks.3.attn.hook_pattern")?;
//! assert_eq!(pattern.dims(), [model.config().n_head, run.n_tokens(), run.n_tokens()]);
//! # Ok::<(), actscope::Error>(())
//! ```
//!
//! At a lower level, any [`hooks::Hooks`] can watch or change the forward pass of a [`model::Gpt2`].
//!
//! ```
//! use actscope::Model;
//! use actscope::hooks::{Edit, Site};
//! use actscope::model::ActivationCache;
//!
//! let model = Model::demo();
//! let mut cache = ActivationCache::matching(&["resid_post.*"], &model.net)?;
//! let without_mlp = Edit(Site::MlpOut.at(0), |x: &candle_core::Tensor| Ok(x.zeros_like()?));
//! let logits = model.net.run(&[464, 1068, 7], &mut (without_mlp, &mut cache))?;
//! assert_eq!(logits.dims(), [3, model.config().vocab_size]);
//! # Ok::<(), actscope::Error>(())
//! ```
//!
//! # Features
//!
//! All are on by default. Without them the library needs no terminal, network or renderer.
//!
//! | feature | adds |
//! |---|---|
//! | `cli` | the program `actscope`; includes `tui` |
//! | `tui` | the explorer; includes `corpus` and `figures` |
//! | `figures` | SVG, PNG and ANSI: `export::figure`, `export::walk` |
//! | `corpus` | many documents: tables of what units do on them |
//! | `hub` | downloads from the model hub |
//!
//! # Modules
//!
//! Each module uses only the modules below it.
//!
//! | module | contents |
//! |---|---|
//! | `cli` | the command line: one file per subcommand, each a thin call into the library |
//! | `tui` | the explorer: state, the tables of commands and settings, update, draw, screens |
//! | `engine` | the worker threads of the explorer |
//! | `corpus` | many documents through the network, and tables of what its units do on them |
//! | [`export`] | export formats, one file each; figures, the walk and the report as pages |
//! | [`foreign`] | the activations of other programs: their names and layouts, and a file of them against a run |
//! | [`analysis`] | pure functions from runs to small results |
//! | [`picture`] | from values to cells that can be drawn: matrix, grid, range, statistics, chart, colour maps |
//! | [`run`] | a run: tokens, tensors, provenance |
//! | [`interventions`] | changes to a forward pass as plain data |
//! | [`model`] | sources, weights, tokenizer, the forward pass, the cache of a run, what others fitted to it |
//! | [`hooks`] | the table of hook points, the `Hooks` trait, filters; knows no model |
//! | [`config`] | the sizes and switches of a GPT-2 |
//! | `text` | text for display: escaped names, rounded numbers |
//! | `signals`, `temporary`, `threads` | the system: clean exits, temporary files, threads, each failure a proper error |
//! | `files`, `guard`, `sniff` | the user's files: size limits, panics in the crates that read them, and what a file is by its first bytes |

pub mod analysis;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod config;
#[cfg(feature = "corpus")]
pub mod corpus;
#[cfg(feature = "tui")]
#[doc(hidden)]
pub mod engine;
pub mod error;
pub mod export;
mod files;
pub mod foreign;
mod guard;
pub mod hooks;
pub mod interventions;
pub mod model;
pub mod picture;
pub mod run;
#[cfg(feature = "tui")]
mod signals;
mod sniff;
mod temporary;
#[doc(hidden)]
pub mod text;
#[cfg(feature = "tui")]
mod threads;
#[cfg(feature = "tui")]
#[doc(hidden)]
pub mod tui;

pub use error::{Error, Result};
pub use interventions::Interventions;
pub use model::Model;
pub use run::{Input, Prompt, Run};
