//! The activation functions of the MLP, and their slopes.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

use candle_core::Tensor;
use candle_core::cpu::erf::erf_f64;

use crate::config::Activation;
use crate::error::Result;

impl Activation {
    /// Applied elementwise.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let sigmoid = candle_nn::ops::sigmoid;
        Ok(match self {
            // candle's `gelu` is the tanh approximation, its `gelu_erf` the exact one.
            Self::GeluNew => x.gelu()?,
            Self::Gelu => x.gelu_erf()?,
            Self::Gelu10 => x.gelu_erf()?.clamp(-10.0, 10.0)?,
            Self::QuickGelu => (x * sigmoid(&(x * 1.702)?)?)?,
            Self::Relu => x.relu()?,
            Self::Relu2 => x.relu()?.sqr()?,
            Self::Relu6 => x.clamp(0.0, 6.0)?,
            Self::LeakyRelu => candle_nn::ops::leaky_relu(x, 0.01)?,
            Self::Silu => x.silu()?,
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => sigmoid(x)?,
            // tanh(ln(1 + e^x)), with softplus written so that e^x cannot overflow.
            Self::Mish => {
                let softplus = (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
                (x * softplus.tanh()?)?
            }
            Self::Linear => x.clone(),
        })
    }

    /// The slope at x; at a kink, the one that torch takes.
    pub fn derivative(self, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let gelu_slope = |x: f64| {
            let below = 0.5 * (1.0 + erf_f64(x * FRAC_1_SQRT_2));
            below + x * (-0.5 * x * x).exp() / TAU.sqrt()
        };
        let of = |is: bool| f64::from(u8::from(is));
        match self {
            Self::GeluNew => {
                let u = (2.0 / PI).sqrt() * (x + 0.044_715 * x.powi(3));
                let slope = (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044_715 * x * x);
                let s = sigmoid(2.0 * u);
                s + x * 2.0 * s * (1.0 - s) * slope
            }
            Self::Gelu => gelu_slope(x),
            // Nothing below −0.17 is made, so only the upper end clips.
            Self::Gelu10 => of(x * 0.5 * (1.0 + erf_f64(x * FRAC_1_SQRT_2)) <= 10.0) * gelu_slope(x),
            Self::QuickGelu => {
                let s = sigmoid(1.702 * x);
                s + 1.702 * x * s * (1.0 - s)
            }
            Self::Relu => of(x > 0.0),
            Self::Relu2 => 2.0 * x.max(0.0),
            Self::Relu6 => of(x > 0.0 && x < 6.0),
            Self::LeakyRelu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.01
                }
            }
            Self::Silu => {
                let s = sigmoid(x);
                s + x * s * (1.0 - s)
            }
            Self::Tanh => 1.0 - x.tanh().powi(2),
            Self::Sigmoid => sigmoid(x) * sigmoid(-x),
            Self::Mish => {
                let t = (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh();
                t + x * (1.0 - t * t) * sigmoid(x)
            }
            Self::Linear => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Activation; 13] = [
        Activation::GeluNew,
        Activation::Gelu,
        Activation::Gelu10,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Relu2,
        Activation::Relu6,
        Activation::LeakyRelu,
        Activation::Silu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Mish,
        Activation::Linear,
    ];

    proptest! {
        #[test]
        fn slopes_are_those_of_the_function(x in -12f64..12.0) {
            const STEP: f64 = 1e-6;
            for act in ALL {
                let at = |x: f64| {
                    let x = Tensor::new(&[x], &Device::Cpu).unwrap();
                    act.forward(&x).unwrap().to_vec1::<f64>().unwrap()[0]
                };
                let kinks = [0.0, 6.0, 10.0];
                prop_assume!(kinks.iter().all(|kink| (x - kink).abs() > STEP));
                let measured = (at(x + STEP) - at(x - STEP)) / (2.0 * STEP);
                prop_assert!((measured - act.derivative(x)).abs() < 1e-4, "{:?} at {}", act, x);
            }
        }
    }
}
